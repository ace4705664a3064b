/** What is shown of one IKE SA. */

import type { IkeSaStatus } from '../status.ts';
import { type IkeSession, ikeSuiteName } from './session.ts';
import { cryptoOf, isLive, lifeOf } from './state.ts';

export function statusOf(session: IkeSession): IkeSaStatus {
  const state = session.state;
  const crypto = cryptoOf(state);
  const peers = isLive(state) ? state.peers : undefined;
  return {
    id: session.id,
    connection: session.config?.name,
    former: session.config !== undefined && session.config !== session.env.connection(session.config.name),
    state: state.name,
    initiator: session.initiator,
    spiInitiator: session.spiInitiator,
    spiResponder: session.spiResponder,
    localId: peers?.localId,
    remoteId: peers?.remoteId,
    suite: crypto && ikeSuiteName(crypto),
    path: session.path,
    nat: { local: session.nat.localBehindNat, remote: session.nat.remoteBehindNat },
    createdAt: session.createdAt,
    establishedAt: lifeOf(state)?.establishedAt,
    rekeyAt: session.timers.get('rekey'),
    expiresAt: session.timers.get('expire'),
    lastHeardAt: session.lastHeardAt,
    request: requestOf(session),
    children: [...session.children.values()].flatMap((child) => child.status() ?? []),
  };
}

function requestOf({ window }: IkeSession): IkeSaStatus['request'] {
  const since = window.waitingSince;
  return since === undefined ? undefined : { sent: window.sent, since };
}
