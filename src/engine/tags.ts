/** A batch taken apart by the tags of its packets. */
import type { PacketBatch } from '../base/batch.ts';

/** Calls `visit` for each tag in the batch, with only the packets of that tag in it. */
export function forEachTag(batch: PacketBatch, visit: (tag: number) => void): void {
  const only = onlyTag(batch);
  if (only === NO_TAG) return;
  if (only !== SEVERAL_TAGS) {
    visit(only);
    return;
  }
  const lengths = batch.length.slice(0, batch.count);
  const tags = new Set<number>();
  for (let slot = 0; slot < batch.count; slot++) if (lengths[slot] !== 0) tags.add(batch.tag[slot]!);
  for (const tag of tags) {
    for (let slot = 0; slot < batch.count; slot++) batch.length[slot] = batch.tag[slot] === tag ? lengths[slot]! : 0;
    visit(tag);
  }
}

/**
 * Calls `visit` for each run of packets with one tag, in their order: they are in slots `first` to `end - 1`, where empty
 * slots do not matter.
 */
export function forEachRun(batch: PacketBatch, visit: (tag: number, first: number, end: number) => void): void {
  const { count, length, tag } = batch;
  let first = 0;
  while (first < count) {
    if (length[first] === 0) {
      first++;
      continue;
    }
    let end = first + 1;
    while (end < count && (length[end] === 0 || tag[end] === tag[first])) end++;
    visit(tag[first]!, first, end);
    first = end;
  }
}

const NO_TAG = -1;
const SEVERAL_TAGS = -2;

/** The tag that all packets of the batch have, as most batches do. */
function onlyTag(batch: PacketBatch): number {
  let only = NO_TAG;
  for (let slot = 0; slot < batch.count; slot++) {
    if (batch.length[slot] === 0 || batch.tag[slot] === only) continue;
    if (only !== NO_TAG) return SEVERAL_TAGS;
    only = batch.tag[slot]!;
  }
  return only;
}
