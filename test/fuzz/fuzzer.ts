/** The search: inputs are changed at random, and those that run code that none before has run are kept to go on from. */
import { Random } from '../support/ike-pair.ts';
import type { Coverage } from './coverage.ts';
import { execute, kindOf } from './execute.ts';
import { mutate } from './mutate.ts';
import type { Target } from './target.ts';

/** Executions between two looks at the coverage, which cost as much as several. */
const BATCH = 64;

export interface Finding {
  readonly input: Uint8Array;
  readonly problem: string;
}

export class Fuzzer {
  /** What is gone on from: seeds, the corpus, and what brought coverage. */
  readonly inputs: Uint8Array[] = [];
  /** Inputs that brought coverage in this run. */
  readonly fresh: Uint8Array[] = [];
  /** The first of each kind. */
  readonly findings: Map<string, Finding> = new Map();
  executions = 0;
  readonly #target: Target;
  readonly #random: Random;
  readonly #coverage: Coverage;

  constructor(target: Target, seed: number, coverage: Coverage) {
    this.#target = target;
    this.#random = new Random(seed);
    this.#coverage = coverage;
  }

  /** Runs what is there already. */
  async begin(inputs: readonly Uint8Array[]): Promise<void> {
    for (const input of inputs) await this.#run(input);
    this.#coverage.take();
    this.inputs.push(...inputs);
  }

  /** Runs a batch of changed inputs, and finds those in it that brought coverage. */
  async batch(): Promise<void> {
    const candidates: Uint8Array[] = [];
    for (let n = 0; n < BATCH; n++) {
      const candidate = mutate(this.#random, this.#target, this.#pick(), this.inputs);
      candidates.push(candidate);
      await this.#run(candidate);
    }
    if (this.#coverage.take({ keep: false }) > 0) await this.#attribute(candidates);
  }

  /** Later inputs reach further, so half of the time one of the newest is taken. */
  #pick(): Uint8Array {
    const { length } = this.inputs;
    const newest = Math.min(length, 32);
    const at = this.#random.below(2) === 0 ? length - 1 - this.#random.below(newest) : this.#random.below(length);
    return this.inputs[at]!;
  }

  /** Runs them again: halves of which none brings coverage are left out. */
  async #attribute(candidates: readonly Uint8Array[]): Promise<void> {
    for (const input of candidates) await this.#run(input);
    if (this.#coverage.take({ keep: candidates.length === 1 }) === 0) return;
    const [only] = candidates;
    if (candidates.length === 1) {
      this.inputs.push(only!);
      this.fresh.push(only!);
      return;
    }
    const half = candidates.length >>> 1;
    await this.#attribute(candidates.slice(0, half));
    await this.#attribute(candidates.slice(half));
  }

  async #run(input: Uint8Array): Promise<void> {
    this.executions++;
    const problem = await execute(this.#target, input);
    if (problem === undefined) return;
    const kind = kindOf(problem);
    if (!this.findings.has(kind)) this.findings.set(kind, { input, problem });
  }
}
