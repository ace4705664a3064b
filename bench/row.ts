/** What a benchmark is asked and what it answers. */
import type { Panel } from './svg.ts';

/** One measured figure of a benchmark. */
export interface BenchRow {
  /** `what/how/size`, stable: figures of different runs are compared by it. */
  readonly name: string;
  /** The median, where there are `rounds`. */
  readonly value: number;
  readonly unit: string;
  /** The figure of each round, in their order. */
  readonly rounds?: readonly number[];
}

export interface BenchOptions {
  /** Rounds that medians are taken of. */
  readonly rounds: number;
  /** How long a load is kept up. */
  readonly minutes: number;
  /** Different courses that chance may take. */
  readonly seeds: number;
  /** How many of what a benchmark counts by default in thousands. */
  readonly count: number;
  /** What many tunnels join. */
  readonly shape: string;
  /** All tunnels of a gateway have one device. */
  readonly shared: boolean;
  /** One round, as short as it can be: to see that everything works, not for figures. */
  readonly quick: boolean;
  /** Systems that are measured; all when it is empty. */
  readonly only: readonly string[];
}

export interface BenchReport {
  readonly rows: readonly BenchRow[];
  /** What the figures hold for, beside the machine: versions, load, settings. */
  readonly conditions?: Readonly<Record<string, string>>;
  /** In the place of the plain table of the rows. */
  readonly text?: string;
  readonly panels?: readonly Panel[];
  /** What could not be measured. */
  readonly failures?: readonly string[];
}

export type Bench = (options: BenchOptions) => Promise<BenchReport>;

/** What was asked for cannot be done; its message says what can. */
export class UsageError extends Error {}
