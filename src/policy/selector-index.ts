/**
 * An index of selector pairs that finds the pairs which overlap a given one (share a packet with it). Its cost does not
 * grow with the number of pairs, and it changes with every CHILD SA. Control path; `box-tree.ts`, which is built once, serves
 * the data path.
 *
 * Each remote selector, with the hull of the local addresses that pair with it, is a box in two dimensions. A part of the
 * space with few boxes lists them. A part with more is cut in the middle of its remote addresses, into the boxes below
 * the cut, those above it, and those across it; the last are divided by their local addresses in the same way. Each box
 * is stored once. Cuts depend on addresses alone, so the depth is at most the number of bits of both addresses, for
 * any order of insertions, and the tree needs no balancing.
 */
import { type AddressRange, addressBits, type IpFamily, intersectRanges } from '../base/address.ts';
import { canPair } from './narrow.ts';
import { intersectSelector, type SelectorPair, type TrafficSelector } from './selector.ts';

/** Boxes of a part that is not cut. */
const LEAF_SIZE = 8;
/** The dimension after the last one: boxes that no cut divides. */
const LAST = 2;
/** BOUNDED: what one query compares and finds, a few milliseconds. A peer may ask for 255 selectors on each side. */
const MAX_COMPARED = 20_000;
const MAX_FOUND = 1_000;

/** A value whose selectors overlap those of a query. */
export interface Meeting<T> {
  readonly value: T;
  /** The overlap of their remote sides. */
  readonly remote: readonly TrafficSelector[];
}

interface Box<T> {
  /** Remote, local: in the order of the dimensions. */
  readonly ranges: readonly [AddressRange, AddressRange];
  readonly remote: TrafficSelector;
  readonly pair: SelectorPair;
  readonly value: T;
}

/** The addresses from `start` on that differ from it in the last `bits` bits, and the boxes within. */
class Part<T> {
  readonly family: IpFamily;
  readonly dimension: number;
  readonly start: bigint;
  readonly bits: number;
  /** The boxes of a part that is not cut. BOUNDED: LEAF_SIZE, except in dimension LAST. */
  boxes: Box<T>[] | undefined = [];
  below: Part<T> | undefined;
  above: Part<T> | undefined;
  across: Part<T> | undefined;

  constructor(family: IpFamily, dimension: number, start = 0n, bits: number = addressBits(family)) {
    this.family = family;
    this.dimension = dimension;
    this.start = start;
    this.bits = bits;
  }

  get isEmpty(): boolean {
    if (this.boxes !== undefined) return this.boxes.length === 0;
    return this.below === undefined && this.above === undefined && this.across === undefined;
  }

  /** The cut; `undefined` for a single address. */
  get middle(): bigint | undefined {
    return this.bits === 0 ? undefined : this.start + (1n << BigInt(this.bits - 1));
  }

  /** The place of a box in a part that is cut. */
  placeOf(box: Box<T>): 'below' | 'above' | 'across' {
    const { start, end } = box.ranges[this.dimension]!;
    const { middle } = this;
    if (middle === undefined) return 'across';
    if (end.value < middle) return 'below';
    return start.value >= middle ? 'above' : 'across';
  }

  make(place: 'below' | 'above' | 'across'): Part<T> {
    const { family, dimension, start, bits } = this;
    if (place === 'across') return new Part<T>(family, dimension + 1);
    return new Part<T>(family, dimension, place === 'below' ? start : this.middle!, bits - 1);
  }
}

export class SelectorIndex<T> {
  readonly #roots: Readonly<Record<IpFamily, Part<T>>> = { 4: new Part<T>(4, 0), 6: new Part<T>(6, 0) };

  /** BOUNDED: by the caller, which deletes what it added, with the same selector objects. */
  add(pair: SelectorPair, value: T): void {
    for (const box of boxesOf(pair, value)) insert(this.#roots[familyOf(box)], box);
  }

  /** Does nothing when it is not there. */
  delete(pair: SelectorPair, value: T): void {
    for (const box of boxesOf(pair, value)) remove(this.#roots[familyOf(box)], box);
  }

  /**
   * The values whose selectors overlap `pair`, each once; `undefined` beyond MAX_COMPARED or MAX_FOUND.
   * @param wanted whether a value counts
   */
  meeting(pair: SelectorPair, wanted: (value: T) => boolean): Meeting<T>[] | undefined {
    const found = new Map<T, TrafficSelector[]>();
    let compared = 0;
    for (const { ranges, remote } of boxesOf(pair, undefined)) {
      for (const box of boxesWithin(this.#roots[remote.range.start.family], ranges)) {
        if (!wanted(box.value)) continue;
        const common = intersectSelector(remote, box.remote);
        compared += common === undefined ? 1 : pair.local.length * box.pair.local.length;
        if (compared > MAX_COMPARED || found.size > MAX_FOUND) return undefined;
        if (common === undefined || !localsMeet(pair.local, box.pair.local, common)) continue;
        const known = found.get(box.value);
        if (known === undefined) found.set(box.value, [common]);
        else known.push(common);
      }
    }
    return [...found].map(([value, remote]) => ({ value, remote }));
  }
}

function familyOf<T>({ remote }: Box<T>): IpFamily {
  return remote.range.start.family;
}

/** One box for each remote selector that a local one can pair with. */
function boxesOf<T>(pair: SelectorPair, value: T): Box<T>[] {
  return pair.remote.flatMap((remote) => {
    const around = hullOf(pair.local.filter((local) => canPair(local, remote)));
    return around === undefined ? [] : [{ ranges: [remote.range, around], remote, pair, value } as const];
  });
}

function hullOf([first, ...others]: readonly TrafficSelector[]): AddressRange | undefined {
  if (first === undefined) return undefined;
  let { start, end } = first.range;
  for (const { range } of others) {
    if (range.start.value < start.value) start = range.start;
    if (range.end.value > end.value) end = range.end;
  }
  return { start, end };
}

/** Whether one packet can fit `remote` and a selector of each of the two local sides. */
function localsMeet(
  local: readonly TrafficSelector[],
  others: readonly TrafficSelector[],
  remote: TrafficSelector,
): boolean {
  return local.some((mine) =>
    others.some((other) => {
      const both = intersectSelector(mine, other);
      return both !== undefined && canPair(both, remote);
    }),
  );
}

function insert<T>(root: Part<T>, box: Box<T>): void {
  let part = root;
  while (part.boxes === undefined) {
    const place = part.placeOf(box);
    part[place] ??= part.make(place);
    part = part[place];
  }
  part.boxes.push(box);
  if (part.boxes.length <= LEAF_SIZE || part.dimension === LAST) return;
  const { boxes } = part;
  part.boxes = undefined;
  for (const moved of boxes) insert(part, moved);
}

function remove<T>(root: Part<T>, box: Box<T>): void {
  const way: { readonly part: Part<T>; readonly place: 'below' | 'above' | 'across' }[] = [];
  let part: Part<T> | undefined = root;
  while (part !== undefined && part.boxes === undefined) {
    const place = part.placeOf(box);
    way.push({ part, place });
    part = part[place];
  }
  const at = part?.boxes?.findIndex(({ value, remote }) => value === box.value && remote === box.remote) ?? -1;
  if (part === undefined || at < 0) return;
  part.boxes!.splice(at, 1);
  // An empty part starts over, without cuts.
  for (const { part: outer, place } of way.reverse()) {
    if (outer[place]!.isEmpty) outer[place] = undefined;
    if (outer.isEmpty) outer.boxes = [];
  }
}

/** The boxes that overlap the ranges: remote, local. */
function* boxesWithin<T>(root: Part<T>, ranges: readonly [AddressRange, AddressRange]): Generator<Box<T>> {
  // BOUNDED: a part takes one place and leaves at most three, so twice the depth of the tree and three.
  const waiting = [root];
  for (let part = waiting.pop(); part !== undefined; part = waiting.pop()) {
    if (part.boxes !== undefined) {
      yield* part.boxes.filter((box) => ranges.every((range, at) => intersectRanges(range, box.ranges[at]!)));
      continue;
    }
    const { start, end } = ranges[part.dimension]!;
    const { middle, below, above, across } = part;
    if (across !== undefined) waiting.push(across);
    if (above !== undefined && end.value >= middle!) waiting.push(above);
    if (below !== undefined && start.value < middle!) waiting.push(below);
  }
}
