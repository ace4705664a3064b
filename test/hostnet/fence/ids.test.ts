/** The ids of parts of the fence: they follow from names, are short, and of different parts different. */
import { describe, expect, it } from 'vitest';
import type { FencePart } from '../../../src/hostnet/fence/fence.ts';
import { ID, idsOf, isInVrf, kindOf } from '../../../src/hostnet/fence/ids.ts';

const COUNT = 100_000;
/** Of a name of a chain in nftables, with what follows an id: NFT_CHAIN_MAXNAMELEN. */
const LONGEST_CHAIN = 255;
const KINDS: readonly FencePart['kind'][] = ['tunnel', 'bridge', 'untranslated'];

/** Ways in which people and programs name tunnels and networks. */
const WAYS: readonly (readonly [what: string, name: (n: number) => string])[] = [
  ['numbers', (n) => `${n}`],
  ['long names', (n) => `the-branch-office-of-customer-${n}.vpn.example.org`],
  ['names that differ in their first letters', (n) => `${n.toString(36)}-branch-office`],
];

describe(`the ids of ${COUNT} parts of each kind`, () => {
  it.each(WAYS)('are different, and show the kind: %s', (_what, name) => {
    const ids = new Set<string>();
    let expected = 0;
    const strange: string[] = [];
    const form = new RegExp(`^${ID}$`);
    for (const kind of KINDS) {
      for (let n = 0; n < COUNT; n++) {
        for (const id of idsOf(kind, name(n))) {
          ids.add(id);
          expected++;
          if (!form.test(id) || kindOf(id) !== kind || id.length > LONGEST_CHAIN - 32) strange.push(id);
        }
      }
    }
    expect(strange).toEqual([]);
    expect(ids.size).toBe(expected);
    expect([...ids].filter(isInVrf)).toHaveLength(COUNT);
  });
});
