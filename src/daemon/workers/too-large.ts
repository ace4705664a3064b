/** Tells the main thread that datagrams were larger than their path takes, now and then, and what routers say of them. */
import type { PathReport } from '../../base/path-report.ts';
import type { WorkerLoop } from './loop.ts';

/** Milliseconds between two reports; and what routers may say meanwhile, which anyone can send. */
const PAUSE = 100;
const MAX_PATH_REPORTS = 32;

export class TooLarge {
  readonly #loop: WorkerLoop;
  #told = 0;
  #toldAt = Number.NEGATIVE_INFINITY;
  #reportsSince = Number.NEGATIVE_INFINITY;
  #reports = 0;

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

  /** What is beyond the bound is dropped: the router says it again of the next packet. */
  pass(report: PathReport): void {
    const now = this.#loop.now();
    if (now - this.#reportsSince >= PAUSE) {
      this.#reportsSince = now;
      this.#reports = 0;
    }
    if (++this.#reports <= MAX_PATH_REPORTS) this.#loop.report({ type: 'path-report', report });
  }
}
