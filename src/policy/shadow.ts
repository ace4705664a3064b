/**
 * Entries that no packet ever reaches: those before them, together, match all that they match (RFC 4301 §4.4.1: the
 * database is ordered, and the first entry that matches decides). Control path.
 *
 * An entry is a set of boxes in the five dimensions of a look-up. The boxes of earlier entries are cut out
 * of it; where that takes more steps than a bound, the entry counts as reached, so no reachable entry is reported.
 */
import { type Box, boxesOf, subtractAll } from './boxes.ts';
import type { PolicyEntry } from './database.ts';

export interface Shadowed {
  readonly entry: PolicyEntry;
  /** The entries that take all of its packets, in their order; none for an entry that can match no packet at all. */
  readonly by: readonly PolicyEntry[];
}

/** @param ordered entries of one direction, in the order in which they are asked */
export function shadowedEntries(ordered: readonly PolicyEntry[]): Shadowed[] {
  const found: Shadowed[] = [];
  const reached: { readonly entry: PolicyEntry; readonly boxes: readonly Box[] }[] = [];
  for (const entry of ordered) {
    const boxes = boxesOf(entry.selectors);
    const by: PolicyEntry[] = [];
    let left: Box[] | undefined = boxes;
    for (const earlier of reached) {
      if (left === undefined || left.length === 0) break;
      const after = subtractAll(left, earlier.boxes);
      if (after !== left) by.push(earlier.entry);
      left = after;
    }
    if (left?.length === 0) found.push({ entry, by });
    else reached.push({ entry, boxes });
  }
  return found;
}
