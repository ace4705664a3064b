/** Since when each tunnel is in its state. */
interface Known {
  readonly state: string;
  /** Milliseconds of `performance.now()`. */
  readonly since: number;
}

export class StateClock {
  readonly #began = performance.now();
  /** BOUNDED: by the tunnels. */
  readonly #known = new Map<string, Known>();

  /** Takes note of the state. @returns when it came into it, as far as it was seen; for the first one, when this daemon began */
  changedAt(name: string, state: string): number {
    const known = this.#known.get(name);
    if (known?.state === state) return known.since;
    const since = known === undefined ? this.#began : performance.now();
    this.#known.set(name, { state, since });
    return since;
  }

  forget(name: string): void {
    this.#known.delete(name);
  }
}
