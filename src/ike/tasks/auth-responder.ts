/**
 * IKE_AUTH with pre-shared keys as responder (RFC 7296 §1.2, §2.15, §2.21.2, RFC 6023). The connection is chosen by the
 * identities before anything is made; the secret may take its time, and meanwhile nothing else waits.
 */

import { formatIdentity, type Identity, sameIdentity } from '../../base/identity.ts';
import { narrowPair } from '../../policy/narrow.ts';
import { pskAuth, verifyPskAuth } from '../auth.ts';
import type { ConnectionConfig } from '../config.ts';
import { misbehaved } from '../failure.ts';
import { AuthMethodId, ExchangeType, NotifyType } from '../iana.ts';
import { failSession, installChild } from '../lifecycle.ts';
import { findNotify, findPayload, type Payload } from '../payload.ts';
import { notifyPayload } from '../payloads/notify.ts';
import type { IkeSession } from '../session.ts';
import type { SessionState } from '../session-state.ts';
import { copyIdentity, noteNotifies, signedBy } from './auth.ts';
import { answerOffer } from './child-exchange.ts';

type HalfOpen = Extract<SessionState, { readonly name: 'half-open' }>;
type Authenticating = Extract<SessionState, { readonly name: 'authenticating' }>;

/** Takes the authentic request: finds out whom it concerns, and asks for the secret. */
export function receiveAuth(session: IkeSession, now: number, state: HalfOpen, payloads: readonly Payload[]): void {
  const theirs = copyIdentity(findPayload(payloads, 'idi')!.identity);
  const asked = findPayload(payloads, 'idr')?.identity;
  const auth = findPayload(payloads, 'auth')!;
  const config = chooseConnection(session, theirs, asked, payloads);
  if (config === undefined) {
    refuseStranger(session, now, theirs, asked);
    return;
  }
  session.config = config;
  if (auth.method !== AuthMethodId.SHARED_KEY) {
    const detail = `the peer proves to be ${formatIdentity(theirs)} by method ${auth.method}, a pre-shared key is wanted`;
    refuse(session, now, detail);
    return;
  }
  const { crypto, setUp } = state;
  const peers = { localId: config.local.id, remoteId: theirs };
  const requestId = session.host.askSecret(session, peers.localId, theirs);
  session.enter({ name: 'authenticating', crypto, setUp, request: payloads, peers, requestId });
}

/** Nobody that we know, or somebody who wants nobody that we are: told where the addresses leave no doubt who was meant. */
function refuseStranger(session: IkeSession, now: number, theirs: Identity, asked: Identity | undefined): void {
  const configs = session.candidates.flatMap((name) => session.host.connection(name) ?? []);
  const named = (id: Identity | undefined): string => (id === undefined ? 'anybody' : formatIdentity(id));
  const known = configs
    .slice(0, MAX_TOLD)
    .map(({ name, local, remote }) => `${name} is for ${named(remote.id)} and we are ${named(local.id)} there`);
  if (configs.length === 1) session.config = configs[0];
  refuse(session, now, `the peer is ${named(theirs)} and wants ${named(asked)}; ${known.join(', ')}`);
}

/** Connections that a refusal names. */
const MAX_TOLD = 4;

/**
 * The connection that fits both identities: one that names the peer before one that takes anybody, and of several one
 * with a child for what the peer offers.
 */
function chooseConnection(
  session: IkeSession,
  theirs: Identity,
  asked: Identity | undefined,
  payloads: readonly Payload[],
): ConnectionConfig | undefined {
  const configs = session.candidates.flatMap((name) => session.host.connection(name) ?? []);
  const fitting = configs.filter(({ local, remote }) => {
    if (asked !== undefined && !sameIdentity(asked, local.id)) return false;
    return remote.id === undefined || sameIdentity(remote.id, theirs);
  });
  const named = fitting.filter((config) => config.remote.id !== undefined);
  return [...named, ...fitting].find((config) => hasChildFor(config, payloads)) ?? named[0] ?? fitting[0];
}

/** Selectors of a side that the choice of a connection looks at: the peer has proved nothing yet, and may send 255. */
const MAX_JUDGED = 16;

function hasChildFor({ children }: ConnectionConfig, payloads: readonly Payload[]): boolean {
  const local = findPayload(payloads, 'tsr')?.selectors.slice(0, MAX_JUDGED);
  const remote = findPayload(payloads, 'tsi')?.selectors.slice(0, MAX_JUDGED);
  if (local === undefined || remote === undefined) return true;
  return children.some((child) => narrowPair({ local, remote }, child.selectors).ok);
}

/** Goes on with the owner's answer. */
export function answerAuth(
  session: IkeSession,
  now: number,
  state: Authenticating,
  secret: Uint8Array | undefined,
): void {
  const { crypto, setUp, request, peers } = state;
  const { host } = session;
  const config = session.config!;
  const met = (): string => `the peer is ${formatIdentity(peers.remoteId)}, we are ${formatIdentity(peers.localId)}`;
  if (secret === undefined) {
    refuse(session, now, `${met()}: there is no pre-shared key for the two`, 'no-secret');
    return;
  }
  const parts = signedBy('initiator', peers.remoteId, crypto, setUp);
  const auth = findPayload(request, 'auth')!;
  if (!verifyPskAuth(host.crypto, crypto.suite.prf, secret, parts, auth.data)) {
    refuse(session, now, `${met()}: its pre-shared key is not ours`);
    return;
  }
  const ours = signedBy('responder', peers.localId, crypto, setUp);
  const response: Payload[] = [
    { type: 'idr', identity: peers.localId },
    { type: 'auth', method: AuthMethodId.SHARED_KEY, data: pskAuth(host.crypto, crypto.suite.prf, secret, ours) },
  ];
  // RFC 6023: a peer that wants no CHILD SA yet sends none of SA, TSi, TSr.
  const childless = findPayload(request, 'sa') === undefined;
  const child = childless ? undefined : answerOffer(session, config.children, request, setUp.nonces, undefined);
  if (child !== undefined) response.push(...(child.ok ? child.payloads : [child.notify]));
  session.respond(now, ExchangeType.IKE_AUTH, response, session.path);
  session.establish(now, crypto, peers);
  host.established(now, session, findNotify(request, NotifyType.INITIAL_CONTACT) !== undefined);
  session.announce();
  noteNotifies(session, request);
  if (child?.ok) installChild(session, now, child.child, true);
  else if (child !== undefined) session.fail(child.failure, undefined, false);
}

function refuse(
  session: IkeSession,
  now: number,
  detail: string,
  reason: 'AUTHENTICATION_FAILED' | 'no-secret' = 'AUTHENTICATION_FAILED',
): void {
  session.host.count('authentication-failed');
  session.respond(now, ExchangeType.IKE_AUTH, [notifyPayload(NotifyType.AUTHENTICATION_FAILED)], session.path);
  failSession(session, now, { reason, detail }, true);
}

/** A request that breaks the rules: answered as they say, and the attempt is over. */
export function refuseMalformedAuth(session: IkeSession, now: number, notify: number, detail: string): void {
  session.respond(now, ExchangeType.IKE_AUTH, [notifyPayload(notify)], session.path);
  failSession(session, now, misbehaved(detail), true);
}
