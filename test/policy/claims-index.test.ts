/** The index of claims finds every tunnel that claims the same packets, and costs the same for a hundred and for thousands. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ClaimsIndex } from '../../src/policy/claims-index.ts';
import type { PolicyEntry } from '../../src/policy/database.ts';
import { type Claims, claimsOf, meetings } from '../../src/policy/precedence.ts';
import type { SelectorPair } from '../../src/policy/selector.ts';
import { smallSelector } from './arbitraries.ts';
import { sel } from './helpers.ts';

function entry(selectors: SelectorPair): PolicyEntry {
  return { name: 'e', direction: 'out', action: 'protect', priority: 0, level: 'require', child: 'c', selectors };
}

const anyClaims: fc.Arbitrary<Claims> = fc
  .array(fc.tuple(fc.array(smallSelector, { maxLength: 2 }), fc.array(smallSelector, { maxLength: 2 })), {
    maxLength: 3,
  })
  .map((pairs) => claimsOf(pairs.map(([local, remote]) => entry({ local, remote }))));

const branch = (at: number): Claims =>
  claimsOf([entry({ local: [sel('10.0.0.0/16')], remote: [sel(`10.${1 + (at >> 8)}.${at & 0xff}.0/24`)] })]);

describe('an index of claims', () => {
  it('misses none that claims the same packets, after any changes', () => {
    const steps = fc.array(fc.tuple(fc.nat(20), anyClaims, fc.boolean()), { maxLength: 60 });
    fc.assert(
      fc.property(steps, anyClaims, (changes, asked) => {
        const index = new ClaimsIndex<number>();
        const wanted = new Map<number, Claims>();
        for (const [key, claims, stays] of changes) {
          index.set(key, claims);
          wanted.set(key, claims);
          if (stays) continue;
          index.delete(key);
          wanted.delete(key);
        }
        const found = index.near(asked);
        for (const [key, claims] of wanted) {
          if (meetings(asked, claims)!.length > 0) expect(found).toContain(key);
        }
        for (const key of found) expect(wanted.has(key)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('names none of thousands that have other addresses', () => {
    const index = new ClaimsIndex<number>();
    for (let at = 0; at < 4_000; at++) index.set(at, branch(at));
    expect([...index.near(branch(1_234))]).toEqual([1_234]);
    expect(index.near(branch(5_000)).size).toBe(0);
  });

  it('finds by their hulls those with more boxes than are indexed one by one', () => {
    const index = new ClaimsIndex<string>();
    const many = Array.from({ length: 300 }, (_, at) => sel(`10.9.${at >> 4}.${(at & 15) * 16}/30`));
    index.set('many', claimsOf([entry({ local: [sel('10.0.0.0/16')], remote: many })]));
    expect([...index.near(claimsOf([entry({ local: [sel('10.0.0.7')], remote: [sel('10.9.2.16')] })]))]).toEqual([
      'many',
    ]);
  });
});
