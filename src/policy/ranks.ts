/**
 * Addresses as small integers: all range ends of one side of a policy, sorted, cut the address space into pieces;
 * an address is known by the number of its piece. IPv4 and IPv6 then cost the look-up the same.
 */
import { type AddressRange, addressBits, type IpFamily } from '../base/address.ts';
import { DESTINATION, type Flow, SOURCE } from './flow.ts';
import { addressWords, compareWords } from './words.ts';

/** The pieces of one family that a set of ranges makes. Immutable. */
export class AddressRanks {
  /** Where each piece but the first begins, ascending; one or four big-endian words each. */
  readonly #bounds: Uint32Array;
  readonly #width: 1 | 4;
  /** The piece that begins at an address. BOUNDED: two for each range. */
  readonly #pieceAt: ReadonlyMap<bigint, number>;

  constructor(family: IpFamily, ranges: readonly AddressRange[]) {
    const beyond = 1n << BigInt(addressBits(family));
    const distinct = new Set<bigint>();
    for (const { start, end } of ranges) distinct.add(start.value).add(end.value + 1n);
    distinct.delete(0n);
    const pieces = new Map<bigint, number>([[0n, 0]]);
    const words: number[] = [];
    for (const value of [...distinct].sort((a, b) => (a < b ? -1 : 1))) {
      pieces.set(value, pieces.size);
      // The last address of the family has nothing behind it; its bound only ends the last piece.
      if (value !== beyond) for (const word of addressWords({ family, value })) words.push(word);
    }
    this.#width = family === 4 ? 1 : 4;
    this.#bounds = Uint32Array.from(words);
    this.#pieceAt = pieces;
  }

  /** First and last piece of one of the ranges that the pieces were made from. */
  ofRange({ start, end }: AddressRange): readonly [first: number, last: number] {
    return [this.#pieceAt.get(start.value)!, this.#pieceAt.get(end.value + 1n)! - 1];
  }

  /** The piece of a packet's source or destination. */
  ofFlow(flow: Flow, source: boolean): number {
    const words = flow.words;
    const at = source ? SOURCE : DESTINATION;
    return this.#width === 1 ? rank4(this.#bounds, words, at) : rank6(this.#bounds, words, at);
  }
}

/** How many bounds are not above the address: binary search. */
function rank4(bounds: Uint32Array, words: Uint32Array, at: number): number {
  const address = words[at]!;
  let low = 0;
  let high = bounds.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (bounds[middle]! <= address) low = middle + 1;
    else high = middle;
  }
  return low;
}

function rank6(bounds: Uint32Array, words: Uint32Array, at: number): number {
  let low = 0;
  let high = bounds.length >>> 2;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareWords(bounds, 4 * middle, words, at) <= 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
