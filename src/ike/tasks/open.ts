/**
 * Beginning an IKE SA as initiator: for a connection that has none, and in place of one whose peer makes no CHILD SA on it
 * any more (RFC 7296 §1.3: a peer may refuse all requests for CHILD SAs on an IKE SA; §1.2: in IKE_AUTH there is no key
 * exchange of the CHILD SA's own to disagree about). The old one is closed when the new one has its CHILD SA.
 */

import type { ConnectionConfig } from '../config.ts';
import type { Path } from '../events.ts';
import { type ChildRequest, want } from '../session/child-request.ts';
import type { Registry } from '../session/registry.ts';
import { IkeSession } from '../session/session.ts';
import type { Attempt } from '../session/state.ts';
import { MessageWindow } from '../session/window.ts';
import { NotifyType } from '../wire/iana.ts';
import { newInitRequest, sendInit } from './init.ts';

/** One IKE SA is not tried to be replaced more often, in milliseconds. */
const SUPERSEDE_WAIT = 300_000;

/** Refusals that a CHILD SA in IKE_AUTH may not meet. INVALID_SYNTAX is some peers' answer to another group. */
const OF_THE_EXCHANGE: ReadonlySet<number> = new Set<number>([
  NotifyType.NO_PROPOSAL_CHOSEN,
  NotifyType.INVALID_KE_PAYLOAD,
  NotifyType.INVALID_SYNTAX,
  NotifyType.NO_ADDITIONAL_SAS,
]);

/** What an IKE SA is opened for. */
interface Opening {
  readonly config: ConnectionConfig;
  readonly wanted: readonly ChildRequest[];
  /** Id of the IKE SA whose place it is to take. */
  readonly successorOf?: number;
  /** The same, where the new one is to have all its CHILD SAs. */
  readonly reauthenticates?: number;
}

/** Sends the first IKE_SA_INIT of a new IKE SA. */
export function openSession(
  registry: Registry<IkeSession>,
  now: number,
  path: Path,
  { config, wanted, successorOf, reauthenticates }: Opening,
): void {
  const { env } = registry;
  const spiInitiator = registry.newIkeSpi();
  const attempt: Attempt = { config, wanted: [], successorOf, reauthenticates };
  want(attempt.wanted, wanted);
  const state = { name: 'init-sent', attempt, init: newInitRequest(env, config) } as const;
  const session = new IkeSession(registry, {
    initiator: true,
    spiInitiator,
    spiResponder: 0n,
    path,
    state,
    window: new MessageWindow(env.retransmit),
    now,
  });
  registry.addSession(session);
  sendInit(session, now, state);
}

/**
 * Begins an IKE SA that is to take the place of one whose peer refused a CHILD SA.
 * @param notify the peer's refusal
 * @returns false when that would be of no use, or has just been tried
 */
export function supersede(session: IkeSession, now: number, notify: number | undefined, wanted: ChildRequest): boolean {
  const { env, registry, state, connectionConfig: config } = session;
  const address = config?.remote.address;
  if (notify === undefined || !OF_THE_EXCHANGE.has(notify) || config === undefined || address === undefined)
    return false;
  if (state.name !== 'established' || env.isChildless(config.name) || !registry.hasRoom()) return false;
  if (now - (state.supersededAt ?? Number.NEGATIVE_INFINITY) < SUPERSEDE_WAIT) return false;
  state.supersededAt = now;
  const local = { ...session.path.local, port: config.local.port };
  const remote = { address, port: config.remote.port };
  session.note(
    'warn',
    `the peer refuses CHILD SA ${wanted.name} on this IKE SA: a new IKE SA is negotiated to replace it`,
  );
  openSession(registry, now, { local, remote }, { config, wanted: [wanted], successorOf: session.id });
  return true;
}
