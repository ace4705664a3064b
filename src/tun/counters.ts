/** Counters of devices and sockets in memory that threads share: their numbers one after another, whatever their names. */

/** Numbers, and records of numbers, always in the same order. */
type Counters = object;

/** How many numbers there are. */
export function counterCount(counters: Counters): number {
  let count = 0;
  for (const value of Object.values(counters)) count += typeof value === 'number' ? 1 : Object.keys(value).length;
  return count;
}

/** Writes down what the counters say. Hot path: allocates nothing. */
export function writeCounters(counters: Counters, into: Float64Array): void {
  const source = counters as Readonly<Record<string, number | Readonly<Record<string, number>>>>;
  let at = 0;
  for (const name in source) {
    const value = source[name]!;
    if (typeof value === 'number') into[at++] = value;
    else for (const inner in value) into[at++] = value[inner]!;
  }
}

/** Adds to the counters what was written down. */
export function addCounters(from: Float64Array, counters: Counters): void {
  let at = 0;
  const target = counters as Record<string, number | Record<string, number>>;
  for (const [name, value] of Object.entries(target)) {
    if (typeof value === 'number') target[name] = value + from[at++]!;
    else for (const inner of Object.keys(value)) value[inner]! += from[at++]!;
  }
}
