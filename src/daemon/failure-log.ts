/**
 * Writes failures of negotiation: each once, and then once an hour how often it came again. What differs in numbers alone is
 * the same failure. A tunnel that came up, or begins anew, starts over.
 */
import { DampedLog } from './damped-log.ts';

/** Failures of a tunnel that are counted apart: an unauthenticated peer chooses the names in some of them. */
const MAX_KINDS = 8;
/** Characters by which they are. */
const MAX_KIND = 1_000;
const OTHERS = 'others';

/** Entries that differ in numbers alone are of one kind. */
export function withoutNumbers(text: string): string {
  return text.replace(/[0-9a-f]*[0-9][0-9a-f]*/g, '#');
}

export class FailureLog {
  readonly #damped = new DampedLog('hour');
  /** BOUNDED: by the tunnels, MAX_KINDS and one each. */
  readonly #kinds = new Map<string, Set<string>>();

  add(tunnel: string, text: string, write: (text: string) => void): void {
    const kinds = this.#kinds.get(tunnel) ?? new Set();
    this.#kinds.set(tunnel, kinds);
    const own = withoutNumbers(text.slice(0, MAX_KIND));
    const kind = kinds.has(own) || kinds.size < MAX_KINDS ? own : OTHERS;
    kinds.add(kind);
    this.#damped.add(`${tunnel} ${kind}`, text, write);
  }

  forget(tunnel: string): void {
    for (const kind of this.#kinds.get(tunnel) ?? []) this.#damped.forget(`${tunnel} ${kind}`);
    this.#kinds.delete(tunnel);
  }

  /** Tells what is left to tell. */
  close(): void {
    this.#damped.close();
    this.#kinds.clear();
  }
}
