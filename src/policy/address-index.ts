/**
 * An index of boxes of addresses, remote and local, that finds those which overlap a given one. Its cost does not grow with
 * the number of boxes, and it may change with every CHILD SA. `at`, which asks for the packet of a flow, allocates nothing;
 * `box-tree.ts`, which is built once, also knows ports.
 *
 * A part of the space with few boxes lists them. A part with more is cut in the middle of its remote addresses, into the boxes
 * below the cut, those above it, and those across it; the last are divided by their local addresses in the same way. Each box
 * is stored once. Cuts depend on addresses alone, so the depth is at most the number of bits of both addresses, for
 * any order of insertions, and the tree needs no balancing.
 */
import { type AddressRange, addressBits, type IpFamily, intersectRanges } from '../base/address.ts';

/** Boxes of a part that is not cut. */
const LEAF_SIZE = 8;
/** The dimension after the last one: boxes that no cut divides. */
const LAST = 2;

/** Remote, local: in the order of the dimensions; of one family. */
export type AddressBox = readonly [AddressRange, AddressRange];

export interface Boxed {
  readonly ranges: AddressBox;
}

/** The addresses from `start` on that differ from it in the last `bits` bits, and the boxes within. */
class Part<T extends Boxed> {
  readonly family: IpFamily;
  readonly dimension: number;
  readonly start: bigint;
  readonly bits: number;
  /** The boxes of a part that is not cut. BOUNDED: LEAF_SIZE, except in dimension LAST. */
  boxes: T[] | undefined = [];
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
  placeOf(ranges: AddressBox): 'below' | 'above' | 'across' {
    const { start, end } = ranges[this.dimension]!;
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

export class AddressIndex<T extends Boxed> {
  readonly #roots: Readonly<Record<IpFamily, Part<T>>> = { 4: new Part<T>(4, 0), 6: new Part<T>(6, 0) };

  /** BOUNDED: by the caller, which deletes what it added. */
  add(item: T): void {
    insert(this.#root(item.ranges), item);
  }

  /** Deletes one that has these ranges and is the one that is meant. Does nothing when it is not there. */
  delete(ranges: AddressBox, isMeant: (item: T) => boolean): void {
    remove(this.#root(ranges), ranges, isMeant);
  }

  /** Those that share addresses with the ranges, on both sides. */
  within(ranges: AddressBox): Iterable<T> {
    return boxesWithin(this.#root(ranges), ranges);
  }

  /**
   * Calls `visit` with those that may hold the addresses of a packet: all that do, and a few more. Hot path.
   * @param words a remote address starts at `remoteAt`, a local one at `localAt`: big-endian, as in `Flow`
   */
  at(
    family: IpFamily,
    words: Uint32Array,
    [remoteAt, localAt]: readonly [number, number],
    visit: (item: T) => void,
  ): void {
    visitPoint(this.#roots[family], words, remoteAt, localAt, visit);
  }

  #root([remote]: AddressBox): Part<T> {
    return this.#roots[remote.start.family];
  }
}

function insert<T extends Boxed>(root: Part<T>, item: T): void {
  let part = root;
  while (part.boxes === undefined) {
    const place = part.placeOf(item.ranges);
    part[place] ??= part.make(place);
    part = part[place];
  }
  part.boxes.push(item);
  if (part.boxes.length <= LEAF_SIZE || part.dimension === LAST) return;
  const { boxes } = part;
  part.boxes = undefined;
  for (const moved of boxes) insert(part, moved);
}

function remove<T extends Boxed>(root: Part<T>, ranges: AddressBox, isMeant: (item: T) => boolean): void {
  const way: { readonly part: Part<T>; readonly place: 'below' | 'above' | 'across' }[] = [];
  let part: Part<T> | undefined = root;
  while (part !== undefined && part.boxes === undefined) {
    const place = part.placeOf(ranges);
    way.push({ part, place });
    part = part[place];
  }
  const at = part?.boxes?.findIndex(isMeant) ?? -1;
  if (part === undefined || at < 0) return;
  part.boxes!.splice(at, 1);
  // An empty part starts over, without cuts.
  for (const { part: outer, place } of way.reverse()) {
    if (outer[place]!.isEmpty) outer[place] = undefined;
    if (outer.isEmpty) outer.boxes = [];
  }
}

/** The boxes that overlap the ranges: remote, local. */
function* boxesWithin<T extends Boxed>(root: Part<T>, ranges: AddressBox): Generator<T> {
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

/** A cut halves a part at a bit of the address, so the way to a point is read off its bits. */
function visitPoint<T extends Boxed>(
  root: Part<T>,
  words: Uint32Array,
  at: number,
  nextAt: number,
  visit: (item: T) => void,
): void {
  let part: Part<T> | undefined = root;
  while (part !== undefined) {
    if (part.boxes !== undefined) {
      for (let i = 0; i < part.boxes.length; i++) visit(part.boxes[i]!);
      return;
    }
    if (part.across !== undefined) visitPoint(part.across, words, nextAt, nextAt, visit);
    if (part.bits === 0) return;
    const bit: number = part.bits - 1;
    const word: number = words[at + (part.family === 4 ? 0 : 3 - (bit >>> 5))]!;
    part = ((word >>> (bit & 31)) & 1) === 0 ? part.below : part.above;
  }
}
