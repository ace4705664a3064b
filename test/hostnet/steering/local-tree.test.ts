/** The tree of rules decides as the list of its look-ups does, at each moment of a change, and packets pass few of them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addressBits, type IpFamily, prefixRange } from '../../../src/base/address.ts';
import { formatPrefix, type Prefix, prefixContains, type Rule } from '../../../src/hostnet/routes/routes.ts';
import { compareRules, ruleKey } from '../../../src/hostnet/steering/compare.ts';
import { LocalTree, type RuleChange } from '../../../src/hostnet/steering/local-tree.ts';

const OWNERS: readonly [number, number] = [8, 9];
const END = 20_000;

function prefix(family: IpFamily, value: bigint, prefixLength: number): Prefix {
  return { address: prefixRange({ family, value }, prefixLength).start, prefixLength };
}

/** Rules as the kernel walks them: by priority, of equal ones in the order in which they came. */
class Kernel {
  #rules: Rule[] = [{ family: 4, priority: END, action: { type: 'nop' } }];

  get length(): number {
    return this.#rules.length - 1;
  }

  fill(rules: readonly Rule[]): void {
    this.#rules.unshift(...rules);
    this.#rules.sort((a, b) => a.priority - b.priority);
  }

  /** One step at a time, as `RuleBook.change` does. */
  apply({ before, after }: RuleChange, look: () => void = () => undefined): void {
    const [there, wanted] = [before, after].map((rules) => new Set(rules.map(ruleKey)));
    for (const rule of after.toReversed()) {
      if (there!.has(ruleKey(rule))) continue;
      expect(this.#rules.some((other) => other.priority === rule.priority && sameToKernel(other, rule))).toBe(false);
      const behind = this.#rules.findIndex((other) => other.priority > rule.priority);
      this.#rules.splice(behind, 0, rule);
      look();
    }
    for (const rule of before) {
      if (wanted!.has(ruleKey(rule))) continue;
      const at = this.#rules.findIndex((other) => other.priority === rule.priority && sameToKernel(other, rule));
      expect(at).toBeGreaterThanOrEqual(0);
      this.#rules.splice(at, 1);
      look();
    }
  }

  /** Which tables are looked up for a packet, and how many rules it passes. */
  walk(family: IpFamily, value: bigint): { readonly tables: number[]; readonly passed: number } {
    const tables: number[] = [];
    let passed = 0;
    for (let at = 0; at < this.#rules.length; at++) {
      const { from, action } = this.#rules[at]!;
      passed++;
      if (from !== undefined && !prefixContains(from, { family, value })) continue;
      if (action.type === 'table') tables.push(action.table);
      if (action.type !== 'goto') continue;
      const target = this.#rules.findIndex(({ priority }) => priority === action.priority);
      expect(target).toBeGreaterThan(at);
      at = target - 1;
    }
    return { tables: [...new Set(tables)].sort((a, b) => a - b), passed };
  }

  keys(): string[] {
    return this.#rules.slice(0, -1).map(ruleKey).sort();
  }
}

/** It does not compare where rules go to. */
function sameToKernel(one: Rule, other: Rule): boolean {
  const isMove = one.action.type === 'goto' && other.action.type === 'goto';
  return ruleKey(isMove ? { ...one, action: other.action } : one) === ruleKey(other);
}

function tree(family: IpFamily, size: number): LocalTree<number> {
  return new LocalTree({
    ...{ family, by: 'from', entries: 4, owners: OWNERS, end: END, block: 7000, size },
    rulesOf: (from, table, priority) => [{ family, priority, from, action: { type: 'table', table } }],
  });
}

/** Near each other, so that they are within one another, and often equal. */
const prefixes = (family: IpFamily): fc.Arbitrary<Prefix> =>
  fc.tuple(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 0, max: 255 }), fc.boolean()).map(([length, low, far]) => {
    const bits = addressBits(family);
    const value = (BigInt(low) << BigInt(bits - 8)) >> (far ? 0n : 12n);
    return prefix(family, value, far ? length : length + 12);
  });

describe.each([4, 6] as const)('a tree of rules for IPv%d', (family) => {
  it.each([9000, 30, 9])('decides as the list of its networks at each step of a change, with %d priorities', (size) => {
    const step = fc.tuple(fc.boolean(), prefixes(family));
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
        const [kernel, grown] = [new Kernel(), tree(family, size)];
        const there = new Map<string, { readonly prefix: Prefix; readonly table: number }>();
        const samples = steps.flatMap(([, { address, prefixLength }]) => {
          const { start, end } = prefixRange(address, prefixLength);
          return [start.value, end.value, start.value - 1n, end.value + 1n].filter((value) => value >= 0n);
        });
        // What no change concerns is looked up at each moment.
        const check = (except: Prefix): void => {
          for (const value of samples.slice(0, 40)) {
            if (prefixContains(except, { family, value })) continue;
            expect(kernel.walk(family, value).tables).toEqual(wanted(value));
          }
        };
        const wanted = (value: bigint): number[] =>
          [...there.values()]
            .filter((one) => prefixContains(one.prefix, { family, value }))
            .map(({ table }) => table)
            .sort((a, b) => a - b);
        for (const [at, [isAdded, one]] of steps.entries()) {
          const key = formatPrefix(one);
          const known = there.get(key);
          if (isAdded === (known !== undefined)) continue;
          const table = known?.table ?? at;
          kernel.apply(isAdded ? grown.add(one, table) : grown.remove(one, table), () => check(one));
          if (isAdded) there.set(key, { prefix: one, table });
          else there.delete(key);
          check({ address: { family, value: 0n }, prefixLength: addressBits(family) });
          const looks = [...there.values()].flatMap((entry) => grown.rulesOf([entry.prefix], entry.table));
          expect([...looks, ...grown.ways].map(ruleKey).sort()).toEqual(kernel.keys());
        }
        for (const { prefix: last, table } of there.values()) kernel.apply(grown.remove(last, table));
        expect([kernel.length, grown.isEmpty]).toEqual([0, true]);
      }),
      { numRuns: 60 },
    );
  });

  it('keeps what stands for other networks while one comes', () => {
    const [kernel, grown] = [new Kernel(), tree(family, 9000)];
    const shift = BigInt(addressBits(family) - 24);
    const values = Array.from({ length: 300 }, (_, at) => BigInt((at * 7919) % 4096) << shift);
    for (const [at, value] of values.entries()) {
      const known = values.slice(0, at);
      kernel.apply(grown.add(prefix(family, value, 24), at), () => {
        for (const [table, other] of known.entries())
          if (table % 10 === at % 10) expect(kernel.walk(family, other).tables).toEqual([table]);
      });
    }
  });

  it.each([
    ['one after another', (at: number) => at],
    ['here and there', (at: number) => (at * 7919) % 60_000],
  ])('has packets pass few rules, and changes few, for 2,000 networks %s', (_, place) => {
    const [kernel, grown] = [new Kernel(), tree(family, 9000)];
    const shift = BigInt(addressBits(family) - 24);
    const values = Array.from({ length: 2000 }, (_none, at) => BigInt(0x0a_0000 + place(at)) << shift);
    let changed = 0;
    for (const [at, value] of values.entries()) {
      const change = grown.add(prefix(family, value, 24), at);
      const { missing, surplus } = compareRules(change.after, change.before);
      const count = missing.length + surplus.length;
      changed += count;
      expect(count).toBeLessThan(80);
    }
    expect(changed / 2000).toBeLessThan(12);
    kernel.fill([...values.flatMap((value, at) => grown.rulesOf([prefix(family, value, 24)], at)), ...grown.ways]);
    const passed = values.filter((_none, at) => at % 100 === 0).map((value) => kernel.walk(family, value).passed);
    expect(Math.max(...passed)).toBeLessThan(36);
    // Packets that are from none of them.
    expect(kernel.walk(family, 0xc0_0002n << shift).passed).toBeLessThan(8);
  });
});
