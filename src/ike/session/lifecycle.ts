/**
 * How CHILD SAs and IKE SAs begin and end, and what the owner is told of it: each beginning and each end once.
 */

import type { DownReason } from '../events.ts';
import type { Failure } from '../failure.ts';
import type { AgreedChild } from './agreed-child.ts';
import { ChildRecord, carrySameTraffic, covers } from './child.ts';
import type { IkeSession } from './session.ts';
import { isLive } from './state.ts';

/** An SA that is gone answers retransmissions so long (RFC 7296 §2.1), as does one whose delete never came. */
export const LINGER = 15_000;

/**
 * Gives an agreed CHILD SA to the owner.
 * @param sendNow packets leave on it from now on; else when the peer is known to have it (RFC 7296 §2.8)
 */
export function installChild(
  session: IkeSession,
  now: number,
  agreed: AgreedChild,
  { sendNow }: { readonly sendNow: boolean },
): ChildRecord {
  const { facts, keys, initiator } = agreed;
  const child = new ChildRecord(session.id, facts, { now, sending: sendNow, random: session.env.random });
  if (sendNow) takeOver(session, child);
  session.children.set(facts.spiIn, child);
  session.registry.addChild(child);
  session.env.emit({
    type: 'child-up',
    child: {
      ...facts,
      ikeSaId: session.id,
      path: session.path,
      keysIn: initiator ? keys.responder : keys.initiator,
      keysOut: initiator ? keys.initiator : keys.responder,
    },
    sendNow,
  });
  session.registry.stateChanged(session);
  return child;
}

/** Packets leave on `child` from now on. */
export function promoteChild(session: IkeSession, child: ChildRecord): void {
  if (child.sending || !child.usable) return;
  takeOver(session, child);
  child.sending = true;
  child.everSent = true;
  session.env.emit({ type: 'child-send', childId: child.id });
}

/** SAs whose traffic the child covers stop sending. */
function takeOver(session: IkeSession, child: ChildRecord): void {
  for (const other of sameTrafficSas(session, child)) if (covers(child, other)) other.sending = false;
}

/** The other SAs of the peer for the same traffic: predecessors, successors, duplicates. */
function sameTrafficSas(session: IkeSession, child: ChildRecord): ChildRecord[] {
  const sessions = [session, ...session.registry.siblings(session)];
  return sessions.flatMap(({ children }) =>
    [...children.values()].filter((other) => other !== child && carrySameTraffic(other, child)),
  );
}

/** Tells the owner that the SA is gone, after it was given another to send on where there is one. */
export function reportChildDown(session: IkeSession, child: ChildRecord, reason: DownReason): void {
  if (child.reportedDown) return;
  child.reportedDown = true;
  const { env, registry } = session;
  const usable = sameTrafficSas(session, child).filter((other) => other.usable);
  if (child.sending) {
    child.sending = false;
    // Several, where each covers a part of its traffic.
    for (const heir of usable.sort((a, b) => b.id - a.id)) {
      const owner = registry.sessionOf(heir);
      if (!sameTrafficSas(owner, heir).some((other) => other.sending && covers(other, heir))) promoteChild(owner, heir);
    }
  }
  const { id, connection, config } = child.facts;
  registry.freeAddresses(child);
  const replaced = usable.length > 0;
  env.emit({ type: 'child-down', childId: id, connection, child: config.name, reason, replaced });
}

/** Forgets a CHILD SA. */
export function dropChild(session: IkeSession, child: ChildRecord, reason: DownReason): void {
  if (child.state === 'closed') return;
  child.enter('closed');
  reportChildDown(session, child, reason);
  session.children.delete(child.facts.spiIn);
  session.registry.removeChild(child);
  session.registry.stateChanged(session);
}

/** The children go on under another IKE SA, as they are (RFC 7296 §2.8). */
export function moveChildren(from: IkeSession, to: IkeSession): void {
  for (const child of from.children.values()) {
    child.ikeSaId = to.id;
    to.children.set(child.facts.spiIn, child);
  }
  from.children.clear();
  to.queue.push(...from.queue.splice(0));
  to.deferred.push(...from.deferred.splice(0));
  from.armDeferred();
  to.armDeferred();
}

/** How an IKE SA ends. */
export interface End {
  readonly reason: DownReason;
  readonly detail: string;
  /** It is kept a while to answer retransmissions of the request that ended it. */
  readonly linger?: boolean;
}

/** The owner is told that an IKE SA and its children are gone. */
export function reportDown(session: IkeSession, { reason, detail }: End): void {
  for (const child of [...session.children.values()]) dropChild(session, child, 'ike-down');
  const { state } = session;
  if (!isLive(state) || !state.announced) return;
  state.announced = false;
  session.env.emit({ type: 'ike-down', ikeSaId: session.id, connection: session.connectionName, reason, detail });
}

/** Ends an IKE SA at once. */
export function endSession(session: IkeSession, now: number, end: End): void {
  const { state, registry } = session;
  if (state.name === 'closed') return;
  session.abandonTasks();
  reportDown(session, end);
  session.window.finish();
  session.timers.clearAll();
  session.dropFragments();
  session.enter({ name: 'closed' });
  if (end.linger === true) session.timers.set('give-up', now + LINGER);
  else registry.removeSession(session);
}

/**
 * Ends an attempt that did not get to be an IKE SA, and says why.
 * @param connection the one that was meant, where the state does not say it
 */
export function failSession(
  session: IkeSession,
  now: number,
  failure: Failure,
  { linger = false, connection }: { readonly linger?: boolean; readonly connection?: string | undefined } = {},
): void {
  if (session.state.name === 'closed') return;
  session.fail(failure, { connection, initiator: session.initiator });
  endSession(session, now, { reason: 'failed', detail: failure.detail, linger });
}

/** Ends an IKE SA on which the peer broke the protocol, whether it was up or not. */
export function breakOff(session: IkeSession, now: number, failure: Failure, how: Pick<End, 'linger'> = {}): void {
  if (isLive(session.state)) {
    session.note('warn', failure.detail);
    endSession(session, now, { reason: 'failed', detail: failure.detail, ...how });
  } else {
    failSession(session, now, failure, how);
  }
}
