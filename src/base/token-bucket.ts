/** A token bucket: bounds the rate of what a peer that has proved nothing can make us do (RFC 7296 §2.21.4). */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #at = 0;

  constructor(perSecond: number, burst: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
  }

  /** How many there are. `now` in milliseconds. */
  has(now: number): number {
    const refill = (Math.max(0, now - this.#at) * this.#perSecond) / 1_000;
    this.#tokens = Math.min(this.#burst, this.#tokens + refill);
    this.#at = now;
    return this.#tokens;
  }

  /** Takes a token; `false` when there is none. `now` in milliseconds. */
  take(now: number): boolean {
    if (this.has(now) < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Takes so many, also when there are fewer: what is missing comes first when they come again, but never more than one burst. */
  charge(tokens: number): void {
    this.#tokens = Math.max(-this.#burst, this.#tokens - tokens);
  }
}
