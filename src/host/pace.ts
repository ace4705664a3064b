/** Lets the event loop go round between pieces of work that would otherwise follow each other at once. */
import { setImmediate as nextTurn } from 'node:timers/promises';

/** However many ask at the same time: one goes on in each round, so that packets, peers and requests never wait for two. */
export class Pace {
  #last: Promise<void> = Promise.resolve();

  turn(): Promise<void> {
    this.#last = this.#last.then(() => nextTurn());
    return this.#last;
  }
}
