/**
 * Work on many things: in order for each of them, at the same time for different ones, and alone where it concerns all. So
 * many run at the same time, and what waits is taken in the order in which it came.
 */

interface Waiting {
  /** `undefined`: it concerns all. */
  readonly key: string | undefined;
  begin(): Promise<void>;
}

export class Turns {
  readonly #limit: number;
  /** BOUNDED: by the callers, who wait for what they gave. */
  readonly #waiting = new Set<Waiting>();
  /** Keys of what runs. */
  readonly #busy = new Set<string>();
  #alone = false;

  /** @param limit pieces of work that run at the same time */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Runs `work` after all that was given before for the same key or for all, whether or not that failed. */
  run<T>(key: string, work: () => T | Promise<T>): Promise<T> {
    return this.#enter(key, work);
  }

  /** Runs `work` after everything that was given before, and before everything that is given later. */
  alone<T>(work: () => T | Promise<T>): Promise<T> {
    return this.#enter(undefined, work);
  }

  #enter<T>(key: string | undefined, work: () => T | Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const begin = async (): Promise<void> => {
        try {
          resolve(await work());
        } catch (error) {
          reject(error);
        }
      };
      this.#waiting.add({ key, begin });
      // Later in any case: what it does first must not surprise the caller.
      void Promise.resolve().then(() => this.#beginWaiting());
    });
  }

  #beginWaiting(): void {
    // Keys for which something older waits.
    const held = new Set<string>();
    for (const waiting of this.#waiting) {
      const { key } = waiting;
      if (this.#alone || this.#busy.size >= this.#limit) return;
      if (key === undefined) {
        if (this.#busy.size > 0 || held.size > 0) return;
        this.#alone = true;
        void this.#begin(waiting);
        return;
      }
      if (this.#busy.has(key) || held.has(key)) held.add(key);
      else {
        this.#busy.add(key);
        void this.#begin(waiting);
      }
    }
  }

  async #begin(waiting: Waiting): Promise<void> {
    this.#waiting.delete(waiting);
    await waiting.begin();
    if (waiting.key === undefined) this.#alone = false;
    else this.#busy.delete(waiting.key);
    this.#beginWaiting();
  }
}
