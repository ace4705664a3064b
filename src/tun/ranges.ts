/** Address ranges of one family joined to the fewest: for sets and routes, which may not overlap. */
import type { AddressRange } from '../base/address.ts';

/** Sorted, without overlap and without neighbours that touch. All of one family. */
export function mergeRanges(ranges: readonly AddressRange[]): AddressRange[] {
  const sorted = [...ranges].sort((a, b) =>
    a.start.value < b.start.value ? -1 : a.start.value > b.start.value ? 1 : 0,
  );
  const merged: AddressRange[] = [];
  for (const range of sorted) {
    const last = merged.at(-1);
    if (last === undefined || range.start.value > last.end.value + 1n) merged.push(range);
    else if (range.end.value > last.end.value) merged[merged.length - 1] = { start: last.start, end: range.end };
  }
  return merged;
}
