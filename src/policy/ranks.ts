/**
 * Addresses as small integers: all range ends of one side of a policy, sorted, cut the address space into pieces;
 * an address is represented by the number of its piece. A look-up then costs the same for IPv4 and IPv6.
 */
import { type AddressRange, addressBits, type IpFamily } from '../base/address.ts';
import { DESTINATION, type Flow, SOURCE } from './flow.ts';
import { addressWords, compareWords } from './words.ts';

/** The pieces of one family that a set of ranges makes. Immutable. */
export class AddressRanks {
  /** Where each piece but the first begins, ascending. The end of the whole family may stand last. */
  readonly #starts: readonly bigint[];
  /** The same as big-endian words, one or four each. */
  readonly #bounds: Uint32Array;
  readonly #width: 1 | 4;

  constructor(family: IpFamily, ranges: readonly AddressRange[]) {
    const beyond = 1n << BigInt(addressBits(family));
    // Sorted rather than put into a set: bigints hash by their low 64 bits, which IPv6 networks share.
    const all = ranges
      .flatMap(({ start, end }) => [start.value, end.value + 1n])
      .sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    this.#starts = all.filter((value, i) => value !== 0n && value !== all[i - 1]);
    this.#width = family === 4 ? 1 : 4;
    this.#bounds = Uint32Array.from(
      this.#starts.filter((value) => value !== beyond).flatMap((value) => addressWords({ family, value })),
    );
  }

  /** First and last piece of one of the ranges that the pieces were made from. */
  ofRange({ start, end }: AddressRange): readonly [first: number, last: number] {
    return [this.#pieceOf(start.value), this.#pieceOf(end.value)];
  }

  #pieceOf(value: bigint): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#starts[middle]! <= value) low = middle + 1;
      else high = middle;
    }
    return low;
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
