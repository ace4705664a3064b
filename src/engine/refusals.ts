/**
 * For which packets no SA could be had a moment ago, because the peer or its policy said no (RFC 4301 §5.1.1): until the
 * next attempt they need not wait.
 */

/** Keys of one child: those of SAs that are populated from packets, else 0. */
const MAX_KEYS = 1_024;

export class Refusals {
  /** By child and key: until when. BOUNDED: children by the policy, MAX_KEYS of each. */
  readonly #until = new Map<string, Map<number, number>>();

  add(child: string, key: number, until: number): void {
    let keys = this.#until.get(child);
    if (keys === undefined) {
      keys = new Map();
      this.#until.set(child, keys);
    }
    keys.delete(key);
    keys.set(key, until);
    const [oldest] = keys.keys();
    if (keys.size > MAX_KEYS && oldest !== undefined) keys.delete(oldest);
  }

  /** Whether the last word still holds. */
  holds(now: number, child: string, key: number): boolean {
    const keys = this.#until.get(child);
    const until = keys?.get(key);
    if (keys === undefined || until === undefined) return false;
    if (until > now) return true;
    keys.delete(key);
    return false;
  }

  clear(): void {
    this.#until.clear();
  }
}
