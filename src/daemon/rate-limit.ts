/**
 * Keeps a log readable and a disk free under a flood: each kind of line is written at most so often, and how many were
 * left out is logged when it is written again.
 */

/** Lines of one kind in an interval. */
const BURST = 5;
const INTERVAL = 10_000;
const MAX_KINDS = 256;

interface Window {
  since: number;
  count: number;
}

export class RateLimit {
  // BOUNDED: MAX_KINDS; beyond, the oldest kind is forgotten.
  readonly #windows = new Map<string, Window>();

  /**
   * Whether a line of this kind may be written now.
   * @returns the number of lines that were left out since the last one, or -1 when this one must be left out too
   */
  take(now: number, kind: string): number {
    const window = this.#windows.get(kind);
    if (window !== undefined && now - window.since < INTERVAL) {
      window.count++;
      return window.count > BURST ? -1 : 0;
    }
    if (window === undefined && this.#windows.size >= MAX_KINDS) {
      this.#windows.delete(this.#windows.keys().next().value!);
    }
    this.#windows.set(kind, { since: now, count: 1 });
    return window === undefined ? 0 : Math.max(0, window.count - BURST);
  }
}
