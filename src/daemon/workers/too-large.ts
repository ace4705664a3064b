/** Tells the main thread that datagrams were larger than their path takes, now and then. */
import type { WorkerLoop } from './loop.ts';

/** Milliseconds between two reports. */
const PAUSE = 100;

export class TooLarge {
  readonly #loop: WorkerLoop;
  #told = 0;
  #toldAt = Number.NEGATIVE_INFINITY;

  constructor(loop: WorkerLoop) {
    this.#loop = loop;
  }

  /** @param count of all such datagrams so far, as the system told */
  look(count: number): void {
    if (count === this.#told) return;
    const now = this.#loop.now();
    if (count > this.#told) {
      if (now - this.#toldAt < PAUSE) return;
      this.#toldAt = now;
      this.#loop.report({ type: 'too-large' });
    }
    this.#told = count;
  }
}
