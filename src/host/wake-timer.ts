/** One timer for everything that is due later. */
/** Node's longest timer, in milliseconds. */
const MAX_TIMER = 0x7fff_ffff;

export class WakeTimer {
  readonly #now: () => number;
  readonly #wake: () => void;
  #timer: NodeJS.Timeout | undefined;
  #at: number | undefined;
  #closed = false;

  /** @param now monotonic milliseconds. @param wake may be called before the time that was set */
  constructor(now: () => number, wake: () => void) {
    this.#now = now;
    this.#wake = wake;
  }

  /** Wakes at that time, and no more at the one before. */
  set(at: number | undefined): void {
    if (at === this.#at || this.#closed) return;
    clearTimeout(this.#timer);
    this.#at = at;
    if (at === undefined) return;
    const wait = Math.min(Math.max(0, Math.ceil(at - this.#now())), MAX_TIMER);
    this.#timer = setTimeout(() => {
      this.#at = undefined;
      this.#wake();
    }, wait);
  }

  /** The clock went on unseen: what is set next is set anew. */
  forget(): void {
    this.#at = undefined;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#closed = true;
  }
}
