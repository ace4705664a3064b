/**
 * How CHILD SAs and IKE SAs begin and end, and what the owner is told of it: each beginning and each end once.
 */

import type { DownReason } from '../events.ts';
import type { Failure } from '../failure.ts';
import type { AgreedChild } from './agreed-child.ts';
import { areLikes, ChildRecord, covers } from './child.ts';
import type { IkeSession } from './session.ts';
import { isLive } from './state.ts';

/** An SA that is gone answers retransmissions so long (RFC 7296 §2.1), as does one whose delete never came. */
export const LINGER = 15_000;

/**
 * Gives an agreed CHILD SA to the owner.
 * @param sendNow packets leave on it from now on; else when the peer is known to have it (RFC 7296 §2.8)
 */
export function installChild(session: IkeSession, now: number, agreed: AgreedChild, sendNow: boolean): ChildRecord {
  const { facts, keys, initiator } = agreed;
  const child = new ChildRecord(session, facts, now, sendNow, session.host.random);
  if (sendNow) takeOver(child);
  session.children.set(facts.spiIn, child);
  session.host.addChild(child);
  session.host.emit({
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
  session.host.stateChanged(session);
  return child;
}

/** Packets leave on `child` from now on. */
export function promoteChild(child: ChildRecord): void {
  if (child.sending || !child.usable) return;
  takeOver(child);
  child.sending = true;
  child.everSent = true;
  child.session.host.emit({ type: 'child-send', childId: child.id });
}

/** Others carry nothing any more, but for what the child is not for. */
function takeOver(child: ChildRecord): void {
  for (const other of lineage(child)) if (covers(child, other)) other.sending = false;
}

/** The other SAs that carry the same traffic: its predecessors, successors, duplicates. */
function lineage(child: ChildRecord): ChildRecord[] {
  const sessions = [child.session, ...child.session.host.siblings(child.session)];
  return sessions.flatMap((session) =>
    [...session.children.values()].filter((other) => other !== child && areLikes(other, child)),
  );
}

/** Tells the owner that the SA is gone, after it was given another to send on where there is one. */
export function reportChildDown(child: ChildRecord, reason: DownReason): void {
  if (child.reportedDown) return;
  child.reportedDown = true;
  const usable = lineage(child).filter((other) => other.usable);
  if (child.sending) {
    child.sending = false;
    // Several, where each carries a part of it.
    for (const heir of usable.sort((a, b) => b.id - a.id)) {
      if (!lineage(heir).some((other) => other.sending && covers(other, heir))) promoteChild(heir);
    }
  }
  const { id, connection, config } = child.facts;
  const { host } = child.session;
  host.freeAddresses(child);
  const replaced = usable.length > 0;
  host.emit({ type: 'child-down', childId: id, connection, child: config.name, reason, replaced });
}

/** Forgets a CHILD SA. */
export function dropChild(child: ChildRecord, reason: DownReason): void {
  if (child.state === 'closed') return;
  const { session } = child;
  child.enter('closed');
  reportChildDown(child, reason);
  session.children.delete(child.facts.spiIn);
  session.host.removeChild(child);
  session.host.stateChanged(session);
}

/** The children go on under another IKE SA, as they are (RFC 7296 §2.8). */
export function moveChildren(from: IkeSession, to: IkeSession): void {
  for (const child of from.children.values()) {
    child.session = to;
    to.children.set(child.facts.spiIn, child);
  }
  from.children.clear();
  to.queue.push(...from.queue.splice(0));
  to.deferred.push(...from.deferred.splice(0));
  to.wanted = from.wanted;
  from.wanted = [];
  from.armDeferred();
  to.armDeferred();
}

/** The owner is told that an IKE SA and its children are gone. */
export function reportDown(session: IkeSession, reason: DownReason, detail: string): void {
  for (const child of [...session.children.values()]) dropChild(child, 'ike-down');
  if (!session.announced) return;
  session.announced = false;
  session.host.emit({
    type: 'ike-down',
    ikeSaId: session.id,
    connection: session.connectionName,
    reason,
    detail,
  });
}

/**
 * Ends an IKE SA at once.
 * @param linger keep it a while to answer retransmissions of the request that ended it
 */
export function endSession(
  session: IkeSession,
  now: number,
  reason: DownReason,
  detail: string,
  linger: boolean,
): void {
  const { state, host } = session;
  if (state.name === 'closed') return;
  session.abandonTasks();
  reportDown(session, reason, detail);
  session.window.finish();
  session.timers.clearAll();
  session.dropFragments();
  session.enter({ name: 'closed' });
  if (linger) session.timers.set('give-up', now + LINGER);
  else host.removeSession(session);
}

/** Ends an attempt that did not get to be an IKE SA, and says why. */
export function failSession(session: IkeSession, now: number, failure: Failure, linger = false): void {
  if (session.state.name === 'closed') return;
  session.fail(failure, undefined, session.initiator);
  endSession(session, now, 'failed', failure.detail, linger);
}

/** Ends an IKE SA on which the peer broke the protocol, whether it was up or not. */
export function breakOff(session: IkeSession, now: number, failure: Failure, linger: boolean): void {
  if (isLive(session.state)) {
    session.note('warn', failure.detail);
    endSession(session, now, 'failed', failure.detail, linger);
  } else {
    failSession(session, now, failure, linger);
  }
}
