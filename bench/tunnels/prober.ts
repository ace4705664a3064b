/** Asks a program something small all the time, and notes how long the answers take. */
import { percentile } from '../stats.ts';
import { round } from '../text.ts';

/** Milliseconds from an answer to the next question. */
const INTERVAL = 20;
/** Milliseconds for the last answer. */
const PATIENCE = 60_000;

export interface Question {
  readonly name: string;
  ask(): Promise<unknown>;
}

/** Milliseconds. */
export interface Latency {
  readonly worst: number;
  /** The 99th percentile. */
  readonly most: number;
  /** Of each question the answer that took longest. */
  readonly slowest: readonly Sample[];
}

export interface Sample {
  readonly question: string;
  /** What went on when it was asked. */
  readonly during: string;
  /** Milliseconds. */
  readonly took: number;
}

/** Asks its questions in turn. */
export class Prober {
  readonly #questions: readonly Question[];
  /** BOUNDED: by the time that it runs. */
  readonly #samples: Sample[] = [];
  readonly #running: Promise<void>;
  /** What goes on now. */
  during = 'before';
  /** The last question. */
  #asked = '';
  #failure: unknown;
  #isEnding = false;

  constructor(questions: readonly Question[]) {
    this.#questions = questions;
    this.#running = this.#run().catch((error: unknown) => {
      this.#failure = error;
    });
  }

  /**
   * When the last question is answered.
   * @param patience milliseconds for that
   * @throws Error that a question failed with, or that is not answered
   */
  async end(patience: number = PATIENCE): Promise<Latency> {
    this.#isEnding = true;
    await Promise.race([this.#running, this.#tooLate(patience)]);
    if (this.#failure !== undefined) throw this.#failure;
    const waits = this.#samples.flatMap(({ took }) => allWaits(took));
    return {
      worst: Math.max(...this.#samples.map(({ took }) => took)),
      most: percentile(waits, 0.99),
      slowest: this.#questions.flatMap(({ name }) =>
        slowest(this.#samples.filter(({ question }) => question === name)),
      ),
    };
  }

  async #tooLate(patience: number): Promise<never> {
    await new Promise((resolve) => setTimeout(resolve, patience).unref());
    throw new Error(`no answer to ${this.#asked} within ${round(patience / 1_000)} s`);
  }

  async #run(): Promise<void> {
    for (let turn = 0; !this.#isEnding; turn++) {
      const question = this.#questions[turn % this.#questions.length]!;
      const [began, { during }] = [performance.now(), this];
      this.#asked = question.name;
      await question.ask();
      this.#samples.push({ question: question.name, during, took: performance.now() - began });
      await new Promise((resolve) => setTimeout(resolve, INTERVAL));
    }
  }
}

/**
 * What people who ask at a steady pace would have waited: while one answer is late, the questions that were not asked for its
 * sake would have been late too.
 */
export function allWaits(took: number): number[] {
  return Array.from({ length: Math.max(1, Math.ceil(took / INTERVAL)) }, (_, missed) => took - missed * INTERVAL);
}

function slowest(samples: readonly Sample[]): Sample[] {
  return [...samples].sort((a, b) => b.took - a.took).slice(0, 1);
}
