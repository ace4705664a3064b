/**
 * Gathers values by key until there is a turn for them: then all are handed over at once, as a commit costs more than what
 * is in it. Pure.
 */
import { type Deferred, deferred } from '../../base/deferred.ts';

interface Waiting<T> extends Pick<Deferred, 'resolve' | 'reject'> {
  readonly key: string;
  readonly value: T;
}

/** @param rest `follows`: more that were added together are handed over next */
type Commit<T> = (values: ReadonlyMap<string, T>, rest: 'none' | 'follows') => Promise<void>;

export class Gathered<T> {
  readonly #turn: (work: () => Promise<void>) => unknown;
  readonly #commit: Commit<T>;
  /** BOUNDED: by the callers that wait. */
  readonly #waiting: Waiting<T>[] = [];
  readonly #most: number;

  /**
   * @param turn calls its argument later, once
   * @param commit all or nothing: when it fails with several values, it is called with each alone
   * @param most that are handed over at once: the others have a turn of their own
   */
  constructor(
    turn: (work: () => Promise<void>) => unknown,
    commit: Commit<T>,
    most: number = Number.POSITIVE_INFINITY,
  ) {
    this.#turn = turn;
    this.#commit = commit;
    this.#most = most;
  }

  /** Resolves when the value, or a later one of the same key, is committed; rejects with what prevents it. */
  add(key: string, value: T): Promise<void> {
    const { promise, resolve, reject } = deferred();
    this.#waiting.push({ key, value, resolve, reject });
    if (this.#waiting.length === 1) void this.#turn(() => this.#take());
    return promise;
  }

  /**
   * Hands over many in turns of their own; those of a turn that fails are as if each had been added.
   * @param most that are handed over at once
   * @returns by key, what prevents those that are not committed
   */
  async addTogether(values: ReadonlyMap<string, T>, most: number): Promise<ReadonlyMap<string, unknown>> {
    // BOUNDED: by the values.
    const problems = new Map<string, unknown>();
    const all = [...values];
    for (let at = 0; at < all.length; at += most) {
      const some = all.slice(at, at + most);
      const { promise, resolve, reject } = deferred();
      const rest = at + most < all.length ? 'follows' : 'none';
      void this.#turn(() => this.#commit(new Map(some), rest).then(resolve, reject));
      await promise.catch(() => this.#addEach(some, problems));
    }
    return problems;
  }

  async #addEach(values: readonly (readonly [string, T])[], problems: Map<string, unknown>): Promise<void> {
    const each = values.map(([key, value]) => this.add(key, value).catch((error: unknown) => problems.set(key, error)));
    await Promise.all(each);
  }

  async #take(): Promise<void> {
    const waiting = this.#waiting.splice(0, this.#most);
    if (this.#waiting.length > 0) void this.#turn(() => this.#take());
    // BOUNDED: by what waited.
    const values = new Map(waiting.map(({ key, value }) => [key, value]));
    const problems = new Map<string, unknown>();
    try {
      await this.#commit(values, 'none');
    } catch (error) {
      for (const [key, value] of values) {
        const alone = values.size === 1 ? Promise.reject(error) : this.#commit(new Map([[key, value]]), 'none');
        await alone.catch((problem: unknown) => problems.set(key, problem));
      }
    }
    for (const { key, resolve, reject } of waiting) {
      if (problems.has(key)) reject(problems.get(key));
      else resolve();
    }
  }
}
