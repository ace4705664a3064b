/**
 * Keeps what happens over and over from filling the log: the first of a kind is written at once; of those that follow within
 * a minute the number is told at its end, with the last one.
 */

/** Milliseconds. */
const INTERVAL = 60_000;

interface Kind {
  count: number;
  last: string;
  readonly write: (text: string) => void;
  readonly timer: NodeJS.Timeout;
}

export class DampedLog {
  /** BOUNDED: by what is told within a minute. */
  readonly #kinds = new Map<string, Kind>();

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

  /** Tells what is left to tell. */
  close(): void {
    for (const kind of [...this.#kinds.keys()]) this.#end(kind);
  }

  #begin(kind: string, write: Kind['write']): void {
    const timer = setTimeout(() => {
      if (this.#end(kind)) this.#begin(kind, write);
    }, INTERVAL).unref();
    this.#kinds.set(kind, { count: 0, last: '', write, timer });
  }

  /** False when nothing came since it was begun. */
  #end(kind: string): boolean {
    const { count, last, write, timer } = this.#kinds.get(kind)!;
    clearTimeout(timer);
    this.#kinds.delete(kind);
    if (count === 0) return false;
    write(`${last} (${count === 1 ? 'once' : `${count} times`} in the last minute)`);
    return true;
  }
}
