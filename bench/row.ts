/** One measured figure of a benchmark. */
export interface BenchRow {
  /** `what/how/size`, stable: figures of different runs are compared by it. */
  readonly name: string;
  readonly value: number;
  readonly unit: string;
}
