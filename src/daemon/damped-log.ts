/**
 * Keeps what happens over and over from filling the log: the first of a kind is written at once; of those that follow within
 * a minute, or an hour, the number is logged at its end, with the last one.
 */

/** Milliseconds. */
const INTERVALS = { minute: 60_000, hour: 3_600_000 } as const;

interface Kind {
  count: number;
  last: string;
  readonly write: (text: string) => void;
  readonly timer: NodeJS.Timeout;
}

export class DampedLog {
  readonly #every: keyof typeof INTERVALS;
  /** BOUNDED: by what is logged within an interval. */
  readonly #kinds = new Map<string, Kind>();

  constructor(every: keyof typeof INTERVALS = 'minute') {
    this.#every = every;
  }

  add(kind: string, text: string, write: (text: string) => void): void {
    const known = this.#kinds.get(kind);
    if (known === undefined) {
      write(text);
      this.#begin(kind, write);
      return;
    }
    known.count++;
    known.last = text;
  }

  /** The next of this kind is written at once, and those that were counted are not told. */
  forget(kind: string): void {
    clearTimeout(this.#kinds.get(kind)?.timer);
    this.#kinds.delete(kind);
  }

  /** Tells what is left to tell. */
  close(): void {
    for (const kind of [...this.#kinds.keys()]) this.#end(kind);
  }

  #begin(kind: string, write: Kind['write']): void {
    const timer = setTimeout(() => {
      if (this.#end(kind)) this.#begin(kind, write);
    }, INTERVALS[this.#every]).unref();
    this.#kinds.set(kind, { count: 0, last: '', write, timer });
  }

  /** False when nothing came since it was begun. */
  #end(kind: string): boolean {
    const { count, last, write, timer } = this.#kinds.get(kind)!;
    clearTimeout(timer);
    this.#kinds.delete(kind);
    if (count === 0) return false;
    write(`${last} (${count === 1 ? 'once' : `${count} times`} in the last ${this.#every})`);
    return true;
  }
}
