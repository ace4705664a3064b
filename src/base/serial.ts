/** Work that must not overlap: each piece begins when the one before it has ended. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` after everything that was given before, whether or not that failed. */
  run<T>(work: () => T | Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
