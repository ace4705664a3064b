/**
 * Several IKE SAs of one peer: one that restarted (INITIAL_CONTACT, RFC 7296 §2.4), or both sides opening the connection
 * at the same time. `peers.ts` says which are of one peer; nothing here reaches beyond them.
 *
 * Which one goes is decided the same way on both sides, and only one side acts, so that they never delete one each.
 * Of two that were negotiated at the same time the one with the lower initiator SPI goes, and its initiator deletes it;
 * else the newer replaces the older, and the side that answered the newer deletes the older. This happens a moment
 * later, when surely both sides have both.
 *
 * RFC 7296 §2.4 lets INITIAL_CONTACT delete the other IKE SAs "to the same authenticated identity". A key that all peers
 * of a connection share authenticates no identity: there, INITIAL_CONTACT deletes only IKE SAs from the same address and
 * port. A road warrior that returns from another address after a crash asks for its inner addresses, which its old
 * IKE SA still holds (`inner-addresses.ts`). That IKE SA is then probed: if the peer answers, the IKE SA keeps its
 * addresses; if not, the IKE SA ends after three messages (7 s by default), sooner than by ordinary liveness checks. So
 * a holder of the key can take the addresses of a peer that is out of reach for that time, and of no other peer.
 */
import { type ChildRecord, carrySameTraffic } from './session/child.ts';
import { requestOf } from './session/child-ask.ts';
import { endSession } from './session/lifecycle.ts';
import type { IkeSession } from './session/session.ts';
import { isLive, liveOf, type Origin } from './session/state.ts';
import { closeSession } from './tasks/delete.ts';
import { LivenessTask } from './tasks/liveness.ts';

/** How long both IKE SAs live side by side. */
const SETTLE_DELAY = 1_000;
/** A peer that negotiates several CHILD SAs asks for the next one within this time. */
const NEXT_CHILD = 5_000;
/** IKE SAs of one peer, with those on their way out. */
const MAX_OF_PEER = 16;
/** A peer that was heard within this time is not asked again. */
const RECENT = 10_000;

/** Looks at the others of the same peer when `session` is established, anew or in place of another. */
export function settleNewcomer(
  session: IkeSession,
  now: number,
  { initialContact }: { readonly initialContact: boolean },
): void {
  const others = session.registry.withSamePeer(session).filter((other) => other !== session);
  if (initialContact) {
    for (const other of others) {
      // An SA that came up while this one was being negotiated is not from before the peer's restart.
      if (!isLive(other.state) || originOf(other).establishedOrder > session.id) continue;
      endSession(other, now, {
        reason: 'peer-restarted',
        detail: 'the peer has a new IKE SA and no memory of this one',
      });
    }
  }
  // Each new one replaces the one before; a peer that makes them quicker than they go loses the oldest.
  for (const other of session.registry.withSamePeer(session).slice(0, -MAX_OF_PEER)) {
    endSession(other, now, { reason: 'redundant', detail: 'the peer has too many IKE SAs' });
  }
  if (session.registry.siblings(session).length > 0) {
    session.timers.set('duplicate', now + SETTLE_DELAY);
    session.registry.stateChanged(session);
  }
}

function originOf({ state }: IkeSession): Origin {
  return liveOf(state).origin;
}

/**
 * Closes one of two, if that is ours to do and both are still there. A peer that reauthenticates negotiates the CHILD SAs of the
 * older one anew, one after the other (RFC 7296 §2.8.3), and closes it itself: while they come, it stays.
 */
export function resolveDuplicates(session: IkeSession, now: number): void {
  for (const other of session.registry.siblings(session)) {
    const [loser, mine] = loserOf(session, other);
    const winner = loser === session ? other : session;
    if (mine && !areSimultaneous(session, other) && isGettingChildren(winner, loser, now)) {
      session.timers.set('duplicate', now + SETTLE_DELAY);
      session.registry.stateChanged(session);
    } else if (mine) retire(loser, winner, now);
    if (session.state.name !== 'established') return;
  }
}

/** Whether one lacks CHILD SAs of the other, and the last of its own is not long ago. */
function isGettingChildren({ children }: IkeSession, other: IkeSession, now: number): boolean {
  const own = [...children.values()];
  const isCarried = (child: ChildRecord): boolean => own.some((mine) => mine.usable && carrySameTraffic(mine, child));
  if ([...other.children.values()].every(isCarried)) return false;
  return own.some(({ createdAt }) => now - createdAt < NEXT_CHILD);
}

/** Whether each was begun before the other was up. */
function areSimultaneous(session: IkeSession, other: IkeSession): boolean {
  const [a, b] = [originOf(session), originOf(other)];
  return a.id < b.establishedOrder && b.id < a.establishedOrder;
}

/** Which of two goes, and whether we are to delete it. */
function loserOf(session: IkeSession, other: IkeSession): [loser: IkeSession, mine: boolean] {
  const [a, b] = [originOf(session), originOf(other)];
  if (areSimultaneous(session, other)) {
    return a.spi < b.spi ? [session, a.initiator] : [other, b.initiator];
  }
  return a.id < b.id ? [session, !b.initiator] : [other, !a.initiator];
}

/** What only the loser carries is made anew on the winner. */
function retire(loser: IkeSession, winner: IkeSession, now: number): void {
  const requests = [...loser.children.values()].map((child) => requestOf(loser, child));
  closeSession(loser, now, 'redundant', `IKE SA ${winner.id} is with the same peer`);
  winner.registry.bringUp(now, winner, requests);
}

/**
 * Probes the peer of an IKE SA that another IKE SA may have replaced. Without an answer the IKE SA ends soon, as for a peer
 * that may have forgotten it (`MessageWindow.doubt`).
 * @returns `lives` when the peer has just answered a probe, `asked` when the answer is still to come
 */
export function probe(session: IkeSession, now: number): 'lives' | 'asked' {
  const { lastHeardAt, window } = session;
  const state = liveOf(session.state);
  const { probedAt } = state;
  const answered = probedAt !== undefined && lastHeardAt !== undefined && lastHeardAt > probedAt;
  if (answered && now - probedAt < RECENT) return 'lives';
  if (probedAt !== undefined && !answered && !window.idle) return 'asked';
  state.probedAt = now;
  if (window.idle) session.enqueue(now, new LivenessTask());
  else window.hurry(now);
  window.doubt();
  session.registry.stateChanged(session);
  return 'asked';
}

/** An ordinary liveness check, also without DPD: another peer wants what a peer that was not heard for a while has. */
export function checkSilent(session: IkeSession, now: number): void {
  const silent = now - (session.lastHeardAt ?? Number.NEGATIVE_INFINITY) >= RECENT;
  // A request that is out asks the same.
  if (silent && session.window.idle) session.enqueue(now, new LivenessTask());
}
