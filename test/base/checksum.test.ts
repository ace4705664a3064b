import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { foldSum, sumBytes, updatedChecksum } from '../../src/base/checksum.ts';

/** By the definition of RFC 1071, without carries that wait. */
function slowSum(bytes: Uint8Array, initial: number): number {
  let sum = initial;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += bytes[at]! * 256 + (bytes[at + 1] ?? 0);
    while (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

describe('the Internet checksum', () => {
  it('of the example in RFC 1071 §3', () => {
    expect(sumBytes(Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7), 0, 8)).toBe(0xddf2);
  });

  it('of any range', () => {
    const range = fc
      .uint8Array({ maxLength: 200 })
      .chain((bytes) => fc.tuple(fc.constant(bytes), fc.nat({ max: bytes.length }), fc.nat({ max: 0xffff })));
    fc.assert(
      fc.property(range, ([bytes, at, initial]) => {
        expect(sumBytes(bytes, at, bytes.length - at, initial)).toBe(slowSum(bytes.subarray(at), initial));
      }),
    );
  });

  it('carries more than once', () => {
    expect(foldSum(0xffff_ffff)).toBe(0xffff);
    expect(foldSum(0x1_ffff)).toBe(1);
  });

  it('follows a word that changes (RFC 1624 §4, and any other)', () => {
    expect(updatedChecksum(0xdd2f, 0x5555, 0x3285)).toBe(0x0000);
    const words = fc.uint8Array({ minLength: 4, maxLength: 40 }).filter(({ length }) => length % 2 === 0);
    fc.assert(
      fc.property(words, fc.nat({ max: 0xffff }), (bytes, word) => {
        // A header of nothing but zeros cannot be told from one that sums to all ones, and there is none.
        bytes[0]! |= 1;
        const checksum = ~sumBytes(bytes, 0, bytes.length) & 0xffff;
        const before = (bytes[2]! << 8) | bytes[3]!;
        bytes[2] = word >>> 8;
        bytes[3] = word;
        expect(updatedChecksum(checksum, before, word)).toBe(~sumBytes(bytes, 0, bytes.length) & 0xffff);
      }),
    );
  });
});
