/** Back-off between attempts: each wait is twice the one before, up to a bound, for ever. A success starts over. */

/** Milliseconds. */
export interface RetryPolicy {
  readonly initial: number;
  readonly max: number;
}

export const DEFAULT_RETRY: RetryPolicy = { initial: 1_000, max: 60_000 };

export class Retry {
  readonly #policy: RetryPolicy;
  readonly #onChange: (at: number | undefined) => void;
  #wait: number;
  #at: number | undefined;

  /** @param onChange is told `at` whenever it changes */
  constructor(policy: RetryPolicy = DEFAULT_RETRY, onChange: (at: number | undefined) => void = () => undefined) {
    this.#policy = policy;
    this.#onChange = onChange;
    this.#wait = policy.initial;
  }

  /** When the next attempt is due; `undefined` when none is planned. */
  get at(): number | undefined {
    return this.#at;
  }

  /** Plans an attempt after the wait that is due; one that is planned already stays. */
  plan(now: number): void {
    if (this.#at !== undefined) return;
    this.#set(now + this.#wait);
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
    this.#onChange(at);
  }
}
