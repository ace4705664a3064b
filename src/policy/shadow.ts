/**
 * Entries that no packet ever reaches: those before them, together, match all that they match (RFC 4301 §4.4.1: the
 * database is ordered, and the first entry that matches decides). Control path.
 *
 * An entry is a set of boxes in the five dimensions of a look-up. What the boxes of earlier entries leave of it is
 * found by cutting them out; where that takes more than a bound, the entry counts as reached, which is never wrong.
 */
import { type AddressRange, intersectRanges } from '../base/address.ts';
import type { PolicyEntry } from './database.ts';
import { PORT_HIDDEN, PROTOCOL_HIDDEN } from './flow.ts';
import { canPair } from './narrow.ts';
import { Protocol } from './protocols.ts';
import { isAnyPorts, isOpaquePorts, MAX_PORT, type TrafficSelector } from './selector.ts';

/** What is left of an entry may fall into so many pieces at most. */
const MAX_PIECES = 256;

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
    const boxes = boxesOf(entry);
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

/** Both ends included. */
type Span = readonly [first: number, last: number];

interface Box {
  readonly local: AddressRange;
  readonly remote: AddressRange;
  /** Local port, remote port, protocol. */
  readonly spans: readonly [Span, Span, Span];
}

function boxesOf({ selectors: { local, remote } }: PolicyEntry): Box[] {
  return local.flatMap((mine) => remote.flatMap((theirs) => (canPair(mine, theirs) ? [boxOf(mine, theirs)] : [])));
}

function boxOf(mine: TrafficSelector, theirs: TrafficSelector): Box {
  const protocol = mine.protocol === Protocol.any ? theirs.protocol : mine.protocol;
  const protocols: Span = protocol === Protocol.any ? [PROTOCOL_HIDDEN, 255] : [protocol, protocol];
  return { local: mine.range, remote: theirs.range, spans: [portSpan(mine), portSpan(theirs), protocols] };
}

/** As in the compiled policy: a hidden port lies before all others. */
function portSpan(selector: TrafficSelector): Span {
  if (isAnyPorts(selector)) return [PORT_HIDDEN, MAX_PORT];
  if (isOpaquePorts(selector)) return [PORT_HIDDEN, PORT_HIDDEN];
  return [selector.startPort, selector.endPort];
}

/** The same array when nothing was cut out; `undefined` when there are too many pieces. */
function subtractAll(boxes: Box[], cutters: readonly Box[]): Box[] | undefined {
  let left = boxes;
  for (const cutter of cutters) {
    if (!left.some((box) => meet(box, cutter))) continue;
    left = left.flatMap((box) => (meet(box, cutter) ? subtract(box, cutter) : [box]));
    // BOUNDED: by MAX_PIECES, and by what one box can be cut into.
    if (left.length > MAX_PIECES) return undefined;
  }
  return left;
}

function meet(a: Box, b: Box): boolean {
  return (
    intersectRanges(a.local, b.local) !== undefined &&
    intersectRanges(a.remote, b.remote) !== undefined &&
    a.spans.every(([first, last], at) => first <= b.spans[at]![1] && b.spans[at]![0] <= last)
  );
}

/** What is left of a box that meets the cutter: slice by slice, at most two in each dimension. */
function subtract(box: Box, cutter: Box): Box[] {
  const pieces: Box[] = [];
  let rest = box;
  for (const side of ['local', 'remote'] as const) {
    for (const range of outside(rest[side], cutter[side])) pieces.push({ ...rest, [side]: range });
    rest = { ...rest, [side]: intersectRanges(rest[side], cutter[side])! };
  }
  for (const at of [0, 1, 2] as const) {
    const [first, last] = rest.spans[at];
    const [from, to] = cutter.spans[at];
    const put = (span: Span): Box => ({ ...rest, spans: rest.spans.with(at, span) as unknown as Box['spans'] });
    if (first < from) pieces.push(put([first, from - 1]));
    if (to < last) pieces.push(put([to + 1, last]));
    rest = put([Math.max(first, from), Math.min(last, to)]);
  }
  return pieces;
}

/** The parts of a range before and behind another. */
function outside({ start, end }: AddressRange, cut: AddressRange): AddressRange[] {
  const { family } = start;
  const parts: AddressRange[] = [];
  if (start.value < cut.start.value) parts.push({ start, end: { family, value: cut.start.value - 1n } });
  if (cut.end.value < end.value) parts.push({ start: { family, value: cut.end.value + 1n }, end });
  return parts;
}
