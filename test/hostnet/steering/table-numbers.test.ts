/** The numbers of routing tables: of different owners different, near those that follow from their names, and given back. */
import { describe, expect, it } from 'vitest';
import { TableNumbers } from '../../../src/hostnet/steering/table-numbers.ts';

/** Of each kind. */
const NUMBERS = 65_536;

const wish = (tunnel: string): { tunnel: string; table: undefined } => ({ tunnel, table: undefined });

describe('numbers of routing tables', () => {
  it('are different for as many names as there are numbers, and for those that documents name', () => {
    const named = new Set(Array.from({ length: 1_000 }, (_, n) => 0x5354_0000 + 7 * n));
    const numbers = new TableNumbers((table) => named.has(table));
    const given = Array.from({ length: NUMBERS - named.size }, (_, n) => numbers.own(wish(`tunnel-${n}`)));
    expect(new Set(given).size).toBe(given.length);
    expect(given.filter((table) => named.has(table) || table < 0x5354_0000 || table > 0x5354_ffff)).toEqual([]);
    expect(() => numbers.own(wish('one more'))).toThrow(/all 65536 numbers of routing tables .* are taken: give/);
    // Those that tunnels share are others.
    expect(new Set([...given, numbers.shared('10.1.0.0/24')]).size).toBe(given.length + 1);
  });

  it('follow from the name alone where nothing else has them, so that another daemon finds what this one left', () => {
    const some = new TableNumbers(() => false).own(wish('office'));
    const again = new TableNumbers(() => false).own(wish('office'));
    expect(again).toBe(some);
  });

  it('are given to others when they are free again', () => {
    const numbers = new TableNumbers(() => false);
    const first = numbers.own(wish('office'));
    numbers.freeOwn('office');
    expect(numbers.own(wish('office'))).toBe(first);
  });

  it('of 100,000 tunnels are different until they are used up, which is said', () => {
    const numbers = new TableNumbers(() => false);
    const given = new Set<number>();
    const take = (): void => {
      for (let n = 0; n < 100_000; n++) given.add(numbers.own(wish(`tunnel-${n}`)));
    };
    expect(take).toThrow(/all 65536 numbers of routing tables/);
    expect(given.size).toBe(NUMBERS);
  });
});
