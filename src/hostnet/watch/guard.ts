/**
 * Keeps one thing in the kernel (the fence, or rules and routes) as it is wanted: compares and restores it as soon as the
 * kernel reports a change, and from time to time without a report.
 *
 * Against a program that changes it over and over, the guard pauses after some times, up to a second, so that the daemon has
 * time for all else. It never gives up.
 */
import { messageOf } from '../../base/text.ts';
import type { LookScope } from '../fence/fence.ts';

/** Times in a row without a pause, and the pauses that follow, in milliseconds. */
const AT_ONCE = 4;
const FIRST_PAUSE = 10;
const LONGEST_PAUSE = 1_000;
/** After so long without a change the next one counts as the first. Milliseconds. */
const QUIET = 10_000;
/** The shortest pause between two comparisons. Milliseconds. */
const SHORTEST_PAUSE = 5;

/** Time until the next try after a failure. Milliseconds. */
const RETRY = 5_000;

/** What was found, and what could be done about it. */
export interface Mending {
  /** What was put right, in words; empty when nothing differed. */
  readonly found: readonly string[];
  /** The programs that had changed it, where the system says. */
  readonly by: readonly string[];
}

export interface GuardReport extends Mending {
  /** From when the change was heard of until it was put right, in milliseconds; `undefined` when none was heard of. */
  readonly took: number | undefined;
}

export interface GuardOptions {
  /** Compares, and puts right what differs. @throws Error why that cannot be done */
  readonly mend: (scope: LookScope) => Promise<Mending>;
  /** Something was put right. */
  readonly onMended: (report: GuardReport) => void;
  /** What keeps it from being right, or that nothing does any more. */
  readonly onProblem: (problem: string | undefined) => void;
}

export class KernelGuard {
  readonly #options: GuardOptions;
  #heardAt: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #ranAt = Number.NEGATIVE_INFINITY;
  /** Times in a row that something was to be put right. */
  #times = 0;
  #problem: string | undefined;
  #closed = false;

  constructor(options: GuardOptions) {
    this.#options = options;
  }

  /** Why it is not as it is wanted. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** A change was heard of. */
  heard(): void {
    this.#heardAt ??= performance.now();
    if (this.#running === undefined) this.#plan();
  }

  /** Compares now. Resolves when that is done, whatever comes of it. */
  async look(scope: LookScope): Promise<void> {
    while (this.#running !== undefined) await this.#running;
    await this.#run(scope);
  }

  /** Ends what is planned, and waits for what is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#retry);
    await this.#running;
  }

  #plan(): void {
    if (this.#timer !== undefined || this.#closed) return;
    const pause = this.#pause() - (performance.now() - this.#ranAt);
    if (pause <= 0) {
      void this.#run('reported');
      return;
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#running === undefined) void this.#run('reported');
    }, pause).unref();
  }

  #pause(): number {
    if (this.#times < AT_ONCE) return SHORTEST_PAUSE;
    return Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** Math.min(this.#times - AT_ONCE, 10));
  }

  #run(scope: LookScope): Promise<void> {
    if (this.#closed) return Promise.resolve();
    // Later, so that changes reported together are handled together.
    const run = Promise.resolve()
      .then(() => this.#mend(scope))
      .finally(() => {
        this.#running = undefined;
        if (this.#heardAt !== undefined) this.#plan();
      });
    this.#running = run;
    return run;
  }

  async #mend(scope: LookScope): Promise<void> {
    const heardAt = this.#heardAt;
    this.#heardAt = undefined;
    if (performance.now() - this.#ranAt > QUIET) this.#times = 0;
    try {
      const { found, by } = await this.#options.mend(scope);
      this.#setProblem(undefined);
      if (found.length > 0) {
        this.#times++;
        this.#ranAt = performance.now();
        const took = heardAt === undefined ? undefined : this.#ranAt - heardAt;
        this.#options.onMended({ found, by, took });
      }
    } catch (error) {
      this.#times++;
      this.#setProblem(messageOf(error));
      this.#tryAgain();
    }
    this.#ranAt = performance.now();
  }

  /** The kernel may report nothing of what would let it succeed. */
  #tryAgain(): void {
    if (this.#closed) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.heard(), RETRY).unref();
  }

  #setProblem(problem: string | undefined): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    this.#options.onProblem(problem);
  }
}
