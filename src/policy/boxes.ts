/**
 * Policy entries as sets of boxes in the five dimensions of a look-up, to be cut out of one another: what
 * remains of an entry when another is cut out of it, and what two have in common. Control path.
 */
import { type AddressRange, formatRange, intersectRanges } from '../base/address.ts';
import { PORT_HIDDEN, PROTOCOL_HIDDEN } from './flow.ts';
import { canPair } from './narrow.ts';
import { Protocol } from './protocols.ts';
import {
  ANY_PORTS,
  formatSelector,
  isAnyPorts,
  isOpaquePorts,
  MAX_PORT,
  makeSelector,
  OPAQUE_PORTS,
  type PortRange,
  type SelectorPair,
  type TrafficSelector,
} from './selector.ts';

/** What is cut may fall into so many pieces at most. */
const MAX_PIECES = 256;
/** Pairs of boxes that are held against each other at most: two policies may have tens of thousands each. */
const MAX_PAIRS = 4_000_000;

/** Both ends included. */
type Span = readonly [first: number, last: number];

export interface Box {
  readonly local: AddressRange;
  readonly remote: AddressRange;
  /** Local port, remote port, protocol. */
  readonly spans: readonly [Span, Span, Span];
}

/** Pairs of selectors that no packet can fit are left out. */
export function boxesOf({ local, remote }: SelectorPair): Box[] {
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

/** What the cutters leave. The same array when nothing was cut out; `undefined` when there are too many to tell. */
export function subtractAll(boxes: Box[], cutters: readonly Box[]): Box[] | undefined {
  if (boxes.length * cutters.length > MAX_PAIRS) return undefined;
  let left = boxes;
  for (const cutter of cutters) {
    if (!left.some((box) => meet(box, cutter))) continue;
    left = left.flatMap((box) => (meet(box, cutter) ? subtract(box, cutter) : [box]));
    // BOUNDED: by MAX_PIECES, and by what one box can be cut into.
    if (left.length > MAX_PIECES) return undefined;
  }
  return left;
}

/** What both have in common; `undefined` when there are too many to tell. */
export function intersectBoxes(boxes: readonly Box[], others: readonly Box[]): Box[] | undefined {
  if (boxes.length * others.length > MAX_PAIRS) return undefined;
  return boxes.flatMap((box) => others.flatMap((other) => (meet(box, other) ? [common(box, other)] : [])));
}

function common(a: Box, b: Box): Box {
  const span = (at: 0 | 1 | 2): Span => [
    Math.max(a.spans[at][0], b.spans[at][0]),
    Math.min(a.spans[at][1], b.spans[at][1]),
  ];
  return {
    local: intersectRanges(a.local, b.local)!,
    remote: intersectRanges(a.remote, b.remote)!,
    spans: [span(0), span(1), span(2)],
  };
}

/** The smallest box around boxes of one family, of which there is one at least. */
export function hullOf(boxes: readonly Box[]): Box {
  return boxes.reduce((a, b) => {
    const span = (at: 0 | 1 | 2): Span => [
      Math.min(a.spans[at][0], b.spans[at][0]),
      Math.max(a.spans[at][1], b.spans[at][1]),
    ];
    return {
      local: around(a.local, b.local),
      remote: around(a.remote, b.remote),
      spans: [span(0), span(1), span(2)],
    };
  });
}

function around(a: AddressRange, b: AddressRange): AddressRange {
  return {
    start: a.start.value < b.start.value ? a.start : b.start,
    end: a.end.value > b.end.value ? a.end : b.end,
  };
}

/** As the other end sees it. */
export function mirrorBox({ local, remote, spans }: Box): Box {
  return { local: remote, remote: local, spans: [spans[1], spans[0], spans[2]] };
}

/** `10.1.0.0/24 udp 5000 === 10.2.0.0/24 udp`. */
export function formatBox({ local, remote, spans: [localPorts, remotePorts, protocols] }: Box): string {
  const [first, last] = protocols;
  const end = (range: AddressRange, ports: Span): string => {
    if (first === last) return formatSelector(makeSelector(range, first, portsOf(ports)));
    const all = first <= Protocol.any && last === 255;
    return `${formatRange(range)}${all ? '' : ` protocol ${Math.max(first, Protocol.any)}-${last}`}`;
  };
  return `${end(local, localPorts)} === ${end(remote, remotePorts)}`;
}

function portsOf([first, last]: Span): PortRange {
  if (last === PORT_HIDDEN) return OPAQUE_PORTS;
  return first <= 0 && last === MAX_PORT ? ANY_PORTS : { startPort: Math.max(first, 0), endPort: last };
}

/** Whether a packet can fit both. */
export function meet(a: Box, b: Box): boolean {
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
