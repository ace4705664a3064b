/** Tells a client how far a change of many tunnels is: as fast as the client reads, and no faster than a person does. */
import type { EachResult, Outcome } from '../../control/results.ts';
import type { ControlConnection } from './connection.ts';

/** Milliseconds between two lines; after so many without news a line says that it goes on. */
const PACE = 100;
const HEARTBEAT = 5_000;
/** Outcomes in a line. */
const MAX_OUTCOMES = 500;

export class ProgressReport {
  readonly #connection: Pick<ControlConnection, 'send'>;
  readonly #timer: NodeJS.Timeout;
  readonly #count = { done: 0, failed: 0 };
  #remaining: number;
  /** Not told yet. BOUNDED: by the tunnels that are named. */
  #outcomes: Outcome[] = [];
  #sending: Promise<void> | undefined;
  #sentAt = performance.now();

  constructor(connection: Pick<ControlConnection, 'send'>, total: number) {
    this.#connection = connection;
    this.#remaining = total;
    this.#timer = setInterval(() => this.#offer(), PACE).unref();
  }

  add(outcome: Outcome): void {
    this.#remaining--;
    this.#count[outcome.error === undefined ? 'done' : 'failed']++;
    this.#outcomes.push(outcome);
  }

  /** Tells the rest. */
  async end(): Promise<EachResult> {
    clearInterval(this.#timer);
    await this.#sending;
    while (this.#outcomes.length > 0) await this.#send();
    return { ...this.#count };
  }

  #offer(): void {
    if (this.#sending !== undefined) return;
    if (this.#outcomes.length === 0 && performance.now() - this.#sentAt < HEARTBEAT) return;
    this.#sending = this.#send().finally(() => {
      this.#sending = undefined;
    });
  }

  async #send(): Promise<void> {
    this.#sentAt = performance.now();
    const outcomes = this.#outcomes.slice(0, MAX_OUTCOMES);
    this.#outcomes = this.#outcomes.slice(MAX_OUTCOMES);
    await this.#connection.send({ progress: { ...this.#count, remaining: this.#remaining, outcomes } });
  }
}
