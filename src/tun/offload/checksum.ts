/**
 * The Internet checksum: sums of 16-bit words in ones' complement, and the TypeScript twin of the WebAssembly in
 * checksum.wat, which is its reference and stands in for it where there is no SIMD.
 *
 * RFC 1071 (sums, byte order, odd lengths), RFC 9293 §3.1 and RFC 768 (what TCP and UDP put under it), RFC 8200 §8.1.
 * Hot path: no allocation, no exception.
 */
import { foldSum } from '../../base/checksum.ts';

/**
 * Sums are 16-bit values of big-endian words; a checksum field holds the complement of one. `initial` is a sum, or
 * several added up, of less than 2^32. A length is at most 2^18. An odd last byte counts as if a zero followed.
 */
export interface Checksums {
  readonly kind: 'wasm' | 'typescript';
  /** `initial` plus the sum of `length` bytes. */
  sum(buffer: Uint8Array, at: number, length: number, initial: number): number;
  /** Copies `length` bytes between regions that do not overlap, and sums them. */
  copySum(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, length: number, initial: number): number;
}

/** The sum of a range whose checksum is right: all ones, which in ones' complement is zero. */
export const SUM_OF_VALID = 0xffff;

/** Works on any buffer, in four-byte steps at any alignment. */
export class TypescriptChecksums implements Checksums {
  readonly kind = 'typescript';
  // Views of the two memories that were used last: the packet memory, and that of a batch which lives elsewhere.
  #recent: DataView = new DataView(new ArrayBuffer(0));
  #earlier: DataView = this.#recent;
  #recentMemory: ArrayBufferLike = this.#recent.buffer;
  #earlierMemory: ArrayBufferLike = this.#recentMemory;

  sum(buffer: Uint8Array, at: number, length: number, initial: number): number {
    const view = this.#viewOf(buffer);
    let from = buffer.byteOffset + at;
    const end = from + (length & ~3);
    let even = 0;
    let odd = 0;
    for (; from < end; from += 4) {
      const word = view.getInt32(from);
      even += word >>> 16;
      odd += word & 0xffff;
    }
    if ((length & 2) !== 0) {
      even += view.getUint16(from);
      from += 2;
    }
    if ((length & 1) !== 0) odd += view.getUint8(from) << 8;
    return foldSum(foldSum(even) + foldSum(odd) + foldSum(initial));
  }

  copySum(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, length: number, initial: number): number {
    const source = this.#viewOf(from);
    const target = this.#viewOf(to);
    let at = from.byteOffset + fromAt;
    const distance = to.byteOffset + toAt - at;
    const end = at + (length & ~3);
    let even = 0;
    let odd = 0;
    for (; at < end; at += 4) {
      const word = source.getInt32(at);
      target.setInt32(at + distance, word);
      even += word >>> 16;
      odd += word & 0xffff;
    }
    if ((length & 2) !== 0) {
      const word = source.getUint16(at);
      target.setUint16(at + distance, word);
      even += word;
      at += 2;
    }
    if ((length & 1) !== 0) {
      const byte = source.getUint8(at);
      target.setUint8(at + distance, byte);
      odd += byte << 8;
    }
    return foldSum(foldSum(even) + foldSum(odd) + foldSum(initial));
  }

  #viewOf({ buffer }: Uint8Array): DataView {
    if (buffer === this.#recentMemory) return this.#recent;
    const found = buffer === this.#earlierMemory ? this.#earlier : new DataView(buffer);
    this.#earlier = this.#recent;
    this.#earlierMemory = this.#recentMemory;
    this.#recent = found;
    this.#recentMemory = buffer;
    return found;
  }
}
