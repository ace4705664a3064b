/**
 * Which commits of nftables changed the fence's table, from the kernel's notifications: those of a commit come together,
 * and end with the generation that it made. Pure.
 */

import { type ObjectName, parseGeneration, parseTouched } from '../netlink/nftables.ts';
import type { NetlinkData } from '../netlink/socket.ts';

/** BOUNDED: commits that are remembered; a change of our own is one, and few come between. */
const MAX_COMMITS = 256;

interface Commit {
  readonly generation: number;
  /** Of the table; empty when it concerned others alone. */
  readonly touched: ReadonlySet<ObjectName>;
  readonly by: string | undefined;
}

/** What others than the fence itself changed. */
export interface Touched {
  /** Objects of the table; `undefined` when it may be any. */
  readonly names: ReadonlySet<ObjectName> | undefined;
  /** Programs, where the kernel says. */
  readonly by: readonly string[];
}

export class CommitLog {
  readonly #table: string;
  /** The newest last. BOUNDED: MAX_COMMITS. */
  readonly #commits: Commit[] = [];
  /** Objects changed by the commit whose messages are arriving. BOUNDED: by the objects of the table. */
  #touched = new Set<ObjectName>();
  #lost = false;

  constructor(table: string) {
    this.#table = table;
  }

  add({ type, body }: NetlinkData): void {
    const generation = parseGeneration(type, body);
    if (generation === undefined) {
      const name = parseTouched(type, body, this.#table);
      if (name !== undefined) this.#touched.add(name);
      return;
    }
    this.#commits.push({ generation: generation.id, touched: this.#touched, by: generation.by });
    this.#touched = new Set();
    if (this.#commits.length > MAX_COMMITS && this.#commits.shift()!.touched.size > 0) this.#lost = true;
  }

  /** Notifications were lost: anything may have changed. */
  lost(): void {
    this.#commits.length = 0;
    this.#touched = new Set();
    this.#lost = true;
  }

  /** What was lost does not matter any more: everything is about to be compared, or it is known to be of our own commit. */
  forgetLost(): void {
    this.#lost = false;
  }

  /** What was changed up to a generation has been seen. */
  settled(generation: number): void {
    const first = this.#commits.findIndex((commit) => isAfter(commit.generation, generation));
    this.#commits.splice(0, first < 0 ? this.#commits.length : first);
  }

  /** What was changed after a generation; `undefined` when nothing was. */
  touchedAfter(generation: number): Touched | undefined {
    const after = this.#commits.filter((commit) => isAfter(commit.generation, generation) && commit.touched.size > 0);
    const by = [...new Set(after.flatMap((commit) => commit.by ?? []))];
    if (this.#lost) return { names: undefined, by };
    if (after.length === 0) return undefined;
    return { names: new Set(after.flatMap(({ touched }) => [...touched])), by };
  }

  /** Whether so many commits changed the table from one generation to another, as far as all of them are known. */
  isAll(count: number, before: number, after: number): boolean {
    const between = this.#commits.filter(
      ({ generation }) => isAfter(generation, before) && !isAfter(generation, after),
    );
    return (
      between.length === (after - before) >>> 0 && between.filter(({ touched }) => touched.size > 0).length === count
    );
  }
}

/** Generations are counted modulo 2^32. */
export function isAfter(generation: number, other: number): boolean {
  return ((generation - other) | 0) > 0;
}
