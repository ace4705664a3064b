/** How long an IKE SA waits for a peer that is busy, refused, or has something to delete, in milliseconds. */
import { randomBelow } from '../session/child.ts';
import type { IkeSession } from '../session/session.ts';
import { liveOf } from '../session/state.ts';
import { closeSession } from './delete.ts';

/** After TEMPORARY_FAILURE: this and a random part of as much again (RFC 7296 §2.25). */
const BUSY_WAIT = 2_000;
/** A peer that is busy for longer is out of step: the IKE SA is closed (RFC 7296 §2.25). */
const BUSY_LIMIT = 180_000;
/** Before a rekeying that the peer refused is tried again. */
export const REFUSED_WAIT = 30_000;
/** For the peer's delete of an SA that was replaced; then we delete it ourselves. */
export const DELETE_WAIT = 60_000;

/** When to ask a busy peer again; `undefined` when it has been busy for too long: then the IKE SA is closed. */
export function retryTime(session: IkeSession, now: number): number | undefined {
  const state = liveOf(session.state);
  state.busySince ??= now;
  if (now - state.busySince > BUSY_LIMIT) {
    closeSession(session, now, 'failed', 'the peer answered TEMPORARY_FAILURE for minutes');
    return undefined;
  }
  return now + BUSY_WAIT + randomBelow(session.env.random, BUSY_WAIT);
}

/** The peer took the time to answer: it is not busy any more. */
export function answered({ state }: IkeSession): void {
  liveOf(state).busySince = undefined;
}
