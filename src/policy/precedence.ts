/**
 * Which of two tunnels of a host decides packets that the policies of both cover. RFC 4301 §4.4.1 has one
 * ordered database for a host; here each tunnel has its own, so the tunnels have an order. Of entries that overlap, the higher
 * priority goes first, then the smaller set of packets; ties are decided by the tunnels' age, elsewhere. Control path.
 */
import type { AddressRange } from '../base/address.ts';
import { type Box, boxesOf, hullOf, meet } from './boxes.ts';
import { orderPolicy, type PolicyEntry } from './database.ts';

/** BOUNDED: pairs of boxes of two tunnels that are held against each other. */
const MAX_PAIRS = 1_000_000;

/** The packets that a tunnel keeps for itself: what leaves, and is not let pass in the clear. */
export interface Claims {
  /** Each with its entry, in the order in which the tunnel's own policy asks them. */
  readonly boxes: readonly { readonly entry: PolicyEntry; readonly box: Box }[];
  /** Around all of a family. */
  readonly hulls: readonly Box[];
}

export function claimsOf(entries: readonly PolicyEntry[]): Claims {
  const boxes = orderPolicy(entries, 'out')
    .filter(({ action }) => action !== 'bypass')
    .flatMap((entry) => boxesOf(entry.selectors).map((box) => ({ entry, box })));
  const hulls = ([4, 6] as const).flatMap((family) => {
    const own = boxes.flatMap(({ box }) => (box.remote.start.family === family ? [box] : []));
    return own.length === 0 ? [] : [hullOf(own)];
  });
  return { boxes, hulls };
}

export interface Meeting {
  readonly one: PolicyEntry;
  readonly other: PolicyEntry;
  /** Negative: `one` is asked first; 0: neither priority nor size decides. */
  readonly order: number;
  /** Both are for the same packets, and neither goes first. */
  readonly same: boolean;
}

export type Precedence = 'before' | 'after' | 'undecided' | 'both';

/** What two tunnels both claim; `undefined` when there is too much to tell. */
export function meetings(one: Claims, other: Claims): Meeting[] | undefined {
  if (!one.hulls.some((hull) => other.hulls.some((its) => meet(hull, its)))) return [];
  if (one.boxes.length * other.boxes.length > MAX_PAIRS) return undefined;
  return one.boxes.flatMap((mine) =>
    other.boxes.flatMap((its) => (meet(mine.box, its.box) ? [meetingOf(mine, its)] : [])),
  );
}

function meetingOf(one: Claims['boxes'][number], other: Claims['boxes'][number]): Meeting {
  const sizes = [sizeOf(one.box), sizeOf(other.box)] as const;
  const bySize = sizes[0] < sizes[1] ? -1 : sizes[0] > sizes[1] ? 1 : 0;
  const order = other.entry.priority - one.entry.priority || bySize;
  return { one: one.entry, other: other.entry, order, same: order === 0 && sameBox(one.box, other.box) };
}

/** How the first of two tunnels stands to the second. `both`: some of its packets go before, and some behind. */
export function precedenceOf(found: readonly Meeting[]): Precedence {
  const before = found.some(({ order }) => order < 0);
  const after = found.some(({ order }) => order > 0);
  if (before && after) return 'both';
  return before ? 'before' : after ? 'after' : 'undecided';
}

/** How many packets there are, as far as the look-up tells them apart. */
function sizeOf({ local, remote, spans }: Box): bigint {
  const ports = spans.reduce((product, [first, last]) => product * BigInt(last - first + 1), 1n);
  return rangeSize(local) * rangeSize(remote) * ports;
}

function rangeSize({ start, end }: AddressRange): bigint {
  return end.value - start.value + 1n;
}

function sameBox(a: Box, b: Box): boolean {
  return (
    sameRange(a.local, b.local) &&
    sameRange(a.remote, b.remote) &&
    a.spans.every(([first, last], at) => first === b.spans[at]![0] && last === b.spans[at]![1])
  );
}

function sameRange(a: AddressRange, b: AddressRange): boolean {
  return a.start.value === b.start.value && a.end.value === b.end.value;
}
