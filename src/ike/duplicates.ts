/**
 * Several IKE SAs of one connection between the same identities: a peer that restarted (INITIAL_CONTACT, RFC 7296 §2.4),
 * or both sides opening the connection at the same time.
 *
 * Which one goes is decided the same way on both sides, and only one side acts, so that they never delete one each.
 * Of two that were negotiated at the same time the one with the lower initiator SPI goes, and its initiator deletes it;
 * else the newer replaces the older, and the side that answered the newer deletes the older. This happens a moment
 * later, when surely both sides have both.
 */
import { invariant } from '../base/assert.ts';
import { requestOf } from './child.ts';
import { endSession } from './lifecycle.ts';
import type { IkeSession, Origin } from './session.ts';
import { closeSession } from './tasks/delete.ts';

/** How long both IKE SAs live side by side. */
const SETTLE_DELAY = 1_000;
/** IKE SAs of one connection between the same identities, with those on their way out. */
const MAX_OF_PEER = 16;

/** Looks at the others when `session` is established, anew or in place of another. */
export function settleNewcomer(session: IkeSession, now: number, initialContact: boolean): void {
  if (initialContact) {
    for (const other of session.host.ofBothIdentities(session)) {
      // An SA that came up while this one was being negotiated is not from before the peer's restart.
      if (other.origin === undefined || other.origin.establishedOrder > session.id) continue;
      endSession(other, now, 'peer-restarted', 'the peer has a new IKE SA and no memory of this one', false);
    }
  }
  // Each new one replaces the one before; a peer that makes them quicker than they go loses the oldest.
  for (const other of session.host.withSamePeer(session).slice(0, -MAX_OF_PEER)) {
    endSession(other, now, 'redundant', 'the peer has too many IKE SAs', false);
  }
  if (session.host.siblings(session).length > 0) {
    session.timers.set('duplicate', now + SETTLE_DELAY);
    session.host.stateChanged(session);
  }
}

function originOf({ origin }: IkeSession): Origin {
  invariant(origin !== undefined, 'an established IKE SA without origin');
  return origin;
}

/** Closes one of two, if that is ours to do and both are still there. */
export function resolveDuplicates(session: IkeSession, now: number): void {
  for (const other of session.host.siblings(session)) {
    const [loser, mine] = loserOf(session, other);
    if (mine) retire(loser, loser === session ? other : session, now);
    if (session.state.name !== 'established') return;
  }
}

/** Which of two goes, and whether we are to delete it. */
function loserOf(session: IkeSession, other: IkeSession): [loser: IkeSession, mine: boolean] {
  const a = originOf(session);
  const b = originOf(other);
  if (a.id < b.establishedOrder && b.id < a.establishedOrder) {
    return a.spi < b.spi ? [session, a.initiator] : [other, b.initiator];
  }
  return a.id < b.id ? [session, !b.initiator] : [other, !a.initiator];
}

/** What only the loser carries is made anew on the winner. */
function retire(loser: IkeSession, winner: IkeSession, now: number): void {
  const requests = [...loser.children.values()].map(requestOf);
  closeSession(loser, now, 'redundant', `IKE SA ${winner.id} is with the same peer`);
  winner.host.bringUp(now, winner, requests);
}
