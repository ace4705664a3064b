import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AddressRange, anyRange, rangeContains } from '../../src/base/address.ts';
import { isWhole, mergeRanges, overlapsMerged, subtractRanges } from '../../src/base/ranges.ts';

/** Small numbers, so that ranges often touch and overlap. */
const MOST = 40;
const address = (value: number): AddressRange['start'] => ({ family: 4, value: BigInt(value) });
const range = fc
  .tuple(fc.nat(MOST), fc.nat(8))
  .map(([start, size]): AddressRange => ({ start: address(start), end: address(start + size) }));
const ranges = fc.array(range, { maxLength: 12 });

/** The numbers that a list has, one by one. */
function members(list: readonly AddressRange[]): number[] {
  const all = Array.from({ length: MOST + 10 }, (_, value) => value);
  return all.filter((value) => list.some((one) => rangeContains(one, address(value))));
}

describe('ranges of addresses', () => {
  it('joined have the same addresses, in order, with gaps between them', () => {
    fc.assert(
      fc.property(ranges, (list) => {
        const merged = mergeRanges(list);
        expect(members(merged)).toEqual(members(list));
        for (const [at, next] of merged.slice(1).entries()) {
          expect(next.start.value).toBeGreaterThan(merged[at]!.end.value + 1n);
        }
      }),
    );
  });

  it('without others have what the others have not', () => {
    fc.assert(
      fc.property(range, ranges, (whole, others) => {
        const left = subtractRanges(whole, mergeRanges(others));
        const taken = members(others);
        expect(members(left)).toEqual(members([whole]).filter((value) => !taken.includes(value)));
      }),
    );
  });

  it('overlap a joined list where they have an address in common', () => {
    fc.assert(
      fc.property(range, ranges, (one, list) => {
        const common = members([one]).some((value) => members(list).includes(value));
        expect(overlapsMerged(mergeRanges(list), one)).toBe(common);
      }),
    );
  });

  it('are whole when they are all of a family', () => {
    expect([isWhole(anyRange(4)), isWhole(anyRange(6))]).toEqual([true, true]);
    expect(isWhole({ start: address(0), end: address(0xffff_fffe) })).toBe(false);
  });
});
