/** The log of what happens to tunnels: a peer, or any host on the network, must not be able to fill it. */
import type { Logger } from '../base/log.ts';
import { FailureLog, withoutNumbers } from './failure-log.ts';
import { RateLimit } from './rate-limit.ts';

export interface LogEntry {
  readonly level: 'debug' | 'info' | 'warn';
  /** `undefined` for what concerns no tunnel. */
  readonly tunnel?: string | undefined;
  readonly fields?: object;
  readonly text: string;
}

/** Characters that distinguish kinds. */
const MAX_KIND = 80;

export class EventLog {
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #rate = new RateLimit();
  readonly #failures = new FailureLog();

  /** @param now milliseconds */
  constructor(log: Logger, now: () => number) {
    this.#log = log;
    this.#now = now;
  }

  /** Writes a few entries of a kind, then how many similar ones were left out. */
  write({ level, tunnel, fields = {}, text }: LogEntry): void {
    const kind = `${tunnel ?? ''} ${withoutNumbers(text).slice(0, MAX_KIND)}`;
    const leftOut = this.#rate.take(this.#now(), kind);
    if (leftOut < 0) return;
    const more = leftOut === 0 ? '' : ` (${leftOut} similar lines were left out)`;
    this.#log[level](tunnel === undefined ? fields : { tunnel, ...fields }, `${text}${more}`);
  }

  /** Writes a failure of a tunnel once, then once an hour how often it came again. */
  failed({ level, tunnel, fields = {}, text }: LogEntry & { readonly tunnel: string }): void {
    this.#failures.add(tunnel, text, (line) => this.#log[level]({ tunnel, ...fields }, line));
  }

  /** The next failure of this tunnel is written at once: it came up, stopped, or has another secret. */
  forget(tunnel: string): void {
    this.#failures.forget(tunnel);
  }

  /** Writes what was counted and not written yet. */
  close(): void {
    this.#failures.close();
  }
}
