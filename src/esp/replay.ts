/**
 * The anti-replay window of an inbound SA: RFC 4303 §3.4.3, with extended sequence numbers as in appendix A.
 *
 * A ring of bits one word longer than the window (the idea of RFC 6479), so that moving the window clears whole
 * words and never shifts any. The ring's size is a power of two, so the low half of a sequence number alone tells
 * its bit, also across 2^32.
 *
 * `check` comes before the ICV is verified and changes nothing; `accept` comes after.
 */

export const MIN_REPLAY_WINDOW = 64;
export const MAX_REPLAY_WINDOW = 65536;
export const DEFAULT_REPLAY_WINDOW = 1024;

/** What `check` returns instead of the high half of the sequence number. */
export const REPLAYED = -1;
export const TOO_OLD = -2;

const WORD_SHIFT = 5;
const WORD_MASK = 31;
const TWO_32 = 0x1_0000_0000;
export interface ReplayWindowOptions {
  /** Packets. */
  readonly size: number;
  /** Extended sequence numbers (RFC 4303 §2.2.1). */
  readonly esn: boolean;
  /**
   * High and low half of the highest number that was authenticated so far, and from now on: a window that goes on in
   * another's place takes all numbers up to there for received.
   */
  readonly top?: Uint32Array;
}

/** Further than any window is wide. */
const FAR = 0x1000_0000;

export class ReplayWindow {
  readonly size: number;
  readonly #esn: boolean;
  readonly #words: Int32Array;
  readonly #wordMask: number;
  /** High and low half of the highest sequence number that was authenticated. */
  readonly #top: Uint32Array;

  /** @throws RangeError when `size` is no integer from 64 to 65,536 */
  constructor({ size, esn, top = new Uint32Array(2) }: ReplayWindowOptions) {
    if (!Number.isInteger(size) || size < MIN_REPLAY_WINDOW || size > MAX_REPLAY_WINDOW) {
      throw new RangeError(
        `a replay window of ${MIN_REPLAY_WINDOW} to ${MAX_REPLAY_WINDOW} packets is required, not ${size}`,
      );
    }
    this.size = size;
    this.#esn = esn;
    // Both ends of the window may lie inside a word: one word more than it fills keeps them apart.
    let words = 1;
    while (words < (size >>> WORD_SHIFT) + 2) words *= 2;
    this.#words = new Int32Array(words);
    this.#wordMask = words - 1;
    this.#top = top;
    if (top[0] !== 0 || top[1] !== 0) this.#refuseUpTo(top[1]!);
  }

  /** The highest sequence number that was authenticated. */
  get highest(): bigint {
    return (BigInt(this.#top[0]!) << 32n) | BigInt(this.#top[1]!);
  }

  /**
   * Whether a packet with this sequence number may be new.
   * @param low the 32 bits that stand in the packet, signed or not
   * @returns the high half that it must have (0 without ESN), or `REPLAYED` or `TOO_OLD`
   */
  check(low: number): number {
    const high = this.#esn ? this.#guessHigh(low) : 0;
    if (high < 0) return TOO_OLD;
    if (high === 0 && low === 0) return REPLAYED; // the first packet has number 1 (RFC 4303 §2.2)
    const ahead = this.#ahead(high, low);
    if (ahead > 0) return high;
    if (ahead <= -this.size) return TOO_OLD;
    const bit = 1 << (low & WORD_MASK);
    return (this.#words[(low >>> WORD_SHIFT) & this.#wordMask]! & bit) === 0 ? high : REPLAYED;
  }

  /**
   * Marks a number that `check` let pass and whose ICV was right. Returns whether it is the highest so far.
   */
  accept(high: number, low: number): boolean {
    const ahead = this.#ahead(high, low);
    if (ahead > 0) {
      this.#clearUpTo(ahead, low);
      this.#top[0] = high;
      this.#top[1] = low;
    }
    this.#words[(low >>> WORD_SHIFT) & this.#wordMask]! |= 1 << (low & WORD_MASK);
    return ahead > 0;
  }

  #refuseUpTo(low: number): void {
    this.#words.fill(-1);
    // Of the last word the numbers above stay open; other words are cleared when the window comes to them.
    const bit = low & WORD_MASK;
    this.#words[(low >>> WORD_SHIFT) & this.#wordMask] = bit === WORD_MASK ? -1 : (1 << (bit + 1)) - 1;
  }

  /** RFC 4303 appendix A2.2: the high half that puts the number in the window or ahead of it; -1 if none can. */
  #guessHigh(word: number): number {
    const low = word >>> 0;
    const topHigh = this.#top[0]!;
    const topLow = this.#top[1]!;
    if (topLow >= this.size - 1) {
      // Case A: the window lies within one half-space.
      if (low >= topLow - this.size + 1) return topHigh;
      return topHigh === 0xffffffff ? -1 : topHigh + 1;
    }
    // Case B: the window reaches back into the half-space before.
    return low >= topLow - this.size + 1 + TWO_32 ? topHigh - 1 : topHigh;
  }

  /** Distance from the highest number, as far as `FAR`: a small integer, which V8 never puts on the heap. */
  #ahead(high: number, low: number): number {
    const distance = (high - this.#top[0]!) * TWO_32 + ((low >>> 0) - this.#top[1]!);
    return Math.min(Math.max(distance, -FAR), FAR) | 0;
  }

  /** Clears the words that the window moves into, when it moves `ahead` numbers to `low`. */
  #clearUpTo(ahead: number, low: number): void {
    const words = this.#words;
    const from = this.#top[1]! >>> WORD_SHIFT;
    if (ahead >= words.length << WORD_SHIFT) {
      words.fill(0);
      return;
    }
    // ahead < 2^22 here, and the word numbers wrap together with the sequence numbers.
    const moved = ((low >>> WORD_SHIFT) - from) & (TWO_32 / 32 - 1);
    for (let i = 1; i <= moved; i++) words[(from + i) & this.#wordMask] = 0;
  }
}
