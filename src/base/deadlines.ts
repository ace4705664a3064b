/**
 * A table of named deadlines: the pure replacement for timers.
 *
 * The owner sets and clears deadlines by name, asks for the earliest to know when it must be called again, and
 * takes those that have passed. Times are milliseconds of the caller's monotonic clock.
 */
export class Deadlines<Name extends string> {
  // BOUNDED: one entry for each member of `Name`.
  readonly #at = new Map<Name, number>();

  set(name: Name, at: number): void {
    this.#at.set(name, at);
  }

  clear(name: Name): void {
    this.#at.delete(name);
  }

  clearAll(): void {
    this.#at.clear();
  }

  get(name: Name): number | undefined {
    return this.#at.get(name);
  }

  /** The earliest deadline, or `undefined` when none is set. */
  next(): number | undefined {
    let earliest: number | undefined;
    for (const at of this.#at.values()) if (earliest === undefined || at < earliest) earliest = at;
    return earliest;
  }

  /** Removes and returns one deadline that is due at `now`, the earliest first; `undefined` when none is. */
  takeDue(now: number): Name | undefined {
    let due: Name | undefined;
    let dueAt = now;
    for (const [name, at] of this.#at) {
      if (at <= dueAt && (due === undefined || at < dueAt)) {
        due = name;
        dueAt = at;
      }
    }
    if (due !== undefined) this.#at.delete(due);
    return due;
  }
}
