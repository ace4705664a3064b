/** Lets the event loop go round between pieces of work that would otherwise follow each other at once. */
import { setImmediate as nextRound } from 'node:timers/promises';

let last: Promise<void> = Promise.resolve();

/**
 * However many ask at the same time, and for whatever: one goes on in each round of the event loop, so that packets, peers and
 * requests never wait for two.
 */
export function ownRound(): Promise<void> {
  last = last.then(() => nextRound());
  return last;
}
