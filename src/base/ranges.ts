/** Sums and differences of address ranges of one family: for sets and routes, which may not overlap. */
import { type AddressRange, addressBits } from './address.ts';

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

/** What is left of a range without those of a merged list, in order. */
export function subtractRanges(range: AddressRange, merged: readonly AddressRange[]): AddressRange[] {
  const { family } = range.start;
  const left: AddressRange[] = [];
  let at = range.start.value;
  for (const { start, end } of merged) {
    if (end.value < at) continue;
    if (start.value > range.end.value) break;
    if (start.value > at) left.push({ start: { family, value: at }, end: { family, value: start.value - 1n } });
    at = end.value + 1n;
  }
  if (at <= range.end.value) left.push({ start: { family, value: at }, end: range.end });
  return left;
}

/** Whether it is all of its family. */
export function isWhole({ start, end }: AddressRange): boolean {
  return start.value === 0n && end.value === (1n << BigInt(addressBits(start.family))) - 1n;
}

/** Whether a range has something in common with one of a merged list. */
export function overlapsMerged(merged: readonly AddressRange[], { start, end }: AddressRange): boolean {
  let [low, high] = [0, merged.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (merged[middle]!.end.value < start.value) low = middle + 1;
    else high = middle;
  }
  const found = merged[low];
  return found !== undefined && found.start.value <= end.value;
}
