/**
 * Back-off between attempts: each wait is twice the one before, up to a bound, for ever, and up to a quarter shorter, so that tunnels
 * which failed together do not try again together. A success starts over.
 */

/** Milliseconds. */
export interface RetryPolicy {
  readonly initial: number;
  readonly max: number;
}

export const DEFAULT_RETRY: RetryPolicy = { initial: 1_000, max: 60_000 };

export interface RetryMeans {
  /** From 0 to 1, without 1. */
  readonly random?: () => number;
  /** Called with `at` whenever it changes. */
  readonly onChange?: (at: number | undefined) => void;
}

export class Retry {
  readonly #policy: RetryPolicy;
  readonly #means: RetryMeans;
  #wait: number;
  #at: number | undefined;

  constructor(policy: RetryPolicy = DEFAULT_RETRY, means: RetryMeans = {}) {
    this.#policy = policy;
    this.#means = means;
    this.#wait = policy.initial;
  }

  /** When the next attempt is due; `undefined` when none is planned. */
  get at(): number | undefined {
    return this.#at;
  }

  /** Plans an attempt after the wait that is due; one that is planned already stays. */
  plan(now: number): void {
    if (this.#at !== undefined) return;
    this.#set(now + this.#wait * (1 - (this.#means.random?.() ?? 0) / 4));
    this.#wait = Math.min(this.#wait * 2, this.#policy.max);
  }

  /** Plans an attempt at once. */
  planNow(now: number): void {
    this.#set(now);
  }

  /** True once when the planned attempt is due. */
  take(now: number): boolean {
    if (this.#at === undefined || this.#at > now) return false;
    this.#set(undefined);
    return true;
  }

  /** Everything is up, or nothing is wanted any more. */
  reset(): void {
    this.#set(undefined);
    this.#wait = this.#policy.initial;
  }
  #set(at: number | undefined): void {
    this.#at = at;
    this.#means.onChange?.(at);
  }
}
