/** The pairs that maps hold: what overlaps is found as by comparing with all, and a change that fails leaves nothing. */
import { describe, expect, it } from 'vitest';
import { type AddressRange, parseAddress, prefixRange } from '../../../src/base/address.ts';
import { type AddressPair, overlap } from '../../../src/hostnet/fence/dispatch.ts';
import { MappedPairs } from '../../../src/hostnet/fence/mapped.ts';

function range(text: string): AddressRange {
  const [address, length] = text.split('/');
  return prefixRange(parseAddress(address!)!, Number(length));
}

function pair(local: string, remote: string, vrf?: string): AddressPair {
  return { vrf, local: range(local), remote: range(remote) };
}

/** Deterministic numbers below `limit`. */
function numbers(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

describe('the pairs of maps', () => {
  it('are taken where they overlap with none, as if all were compared', () => {
    const next = numbers(7);
    const mapped = new MappedPairs();
    const known = new Map<string, AddressPair[]>();
    const taken = { yes: 0, no: 0 };
    for (let round = 0; round < 400; round++) {
      const id = `t${next(120)}`;
      const change = mapped.changed();
      if (next(4) === 0) {
        change.remove(id);
        known.delete(id);
      } else {
        const [length, family6] = [8 + next(16), next(5) === 0];
        const pairs = family6
          ? [pair(`fd00:${next(9)}::/32`, `fd01:${next(9)}::/32`)]
          : [
              pair(
                `10.${next(9)}.${next(3)}.0/${length}`,
                `11.${next(9)}.${next(3)}.0/${length}`,
                ['red', undefined][next(2)],
              ),
            ];
        const others = [...known].flatMap(([other, theirs]) => (other === id ? [] : theirs));
        change.remove(id);
        const isFree = !overlap(pairs, others);
        taken[isFree ? 'yes' : 'no']++;
        expect(change.add(id, pairs)).toBe(isFree);
        if (isFree) known.set(id, pairs);
        else known.delete(id);
      }
      change.settle();
      expect([...mapped.ids()].sort()).toEqual([...known.keys()].sort());
    }
    expect(Math.min(taken.yes, taken.no)).toBeGreaterThan(30);
  });

  it('of a change are compared with each other, with what is replaced left out, and stand only when it is settled', () => {
    const mapped = new MappedPairs();
    const first = mapped.changed();
    expect(first.add('a', [pair('10.1.0.0/24', '11.0.0.0/8')])).toBe(true);
    expect(first.add('b', [pair('10.1.0.0/16', '11.1.0.0/16')])).toBe(false);
    expect(first.add('b', [pair('10.2.0.0/24', '11.1.0.0/16')])).toBe(true);
    expect([...mapped.ids()]).toEqual([]);
    first.settle();
    const second = mapped.changed();
    expect(second.add('c', [pair('10.1.0.0/24', '11.5.0.0/16')])).toBe(false);
    second.remove('a');
    expect(second.add('c', [pair('10.1.0.0/24', '11.5.0.0/16')])).toBe(true);
    expect([second.get('a'), mapped.get('a')?.length, mapped.get('c')]).toEqual([undefined, 1, undefined]);
    second.settle();
    expect([...mapped.ids()].sort()).toEqual(['b', 'c']);
  });
});
