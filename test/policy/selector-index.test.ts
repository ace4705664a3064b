import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canPair, pairable } from '../../src/policy/narrow.ts';
import { formatSelector, intersectSelector, type SelectorPair } from '../../src/policy/selector.ts';
import { SelectorIndex } from '../../src/policy/selector-index.ts';
import { withoutRemote } from '../../src/policy/without.ts';
import { smallSelector } from './arbitraries.ts';
import { sel } from './helpers.ts';

const pair = (local: string, remote: string): SelectorPair => ({
  local: local.split(', ').map(sel),
  remote: remote.split(', ').map(sel),
});
const anyPair: fc.Arbitrary<SelectorPair> = fc
  .tuple(fc.array(smallSelector, { maxLength: 3 }), fc.array(smallSelector, { maxLength: 3 }))
  .map(([local, remote]) => ({ local, remote }));
const all = (): boolean => true;

/** Whether some packet fits both, looked for pair by pair. */
function meets(a: SelectorPair, b: SelectorPair): boolean {
  return a.local.some((mine) =>
    a.remote.some((theirs) =>
      b.local.some((other) =>
        b.remote.some((another) => {
          const [local, remote] = [intersectSelector(mine, other), intersectSelector(theirs, another)];
          return local !== undefined && remote !== undefined && canPair(local, remote);
        }),
      ),
    ),
  );
}

describe('an index of selectors', () => {
  it('finds the pairs that overlap, and no others, after any additions and deletions', () => {
    const steps = fc.array(fc.tuple(anyPair, fc.boolean()), { maxLength: 60 });
    fc.assert(
      fc.property(steps, anyPair, (entries, asked) => {
        const index = new SelectorIndex<number>();
        for (const [i, [entry]] of entries.entries()) index.add(entry, i);
        for (const [i, [entry, stays]] of entries.entries()) if (!stays) index.delete(entry, i);
        const expected = entries.flatMap(([entry, stays], i) => (stays && meets(entry, asked) ? [i] : []));
        const found = index.meeting(asked, all)!;
        expect(found.map(({ value }) => value).sort((a, b) => a - b)).toEqual(expected);
      }),
      { numRuns: 300 },
    );
  });

  it('tells the overlap of the remote sides', () => {
    const index = new SelectorIndex<string>();
    index.add(pair('10.1.0.0/24', '10.2.0.0/25, 10.3.0.0/24 tcp 80'), 'b');
    const found = index.meeting(pair('10.1.0.7', '10.2.0.64/26, 10.3.0.0/16 tcp'), all)!;
    expect(found.map(({ remote }) => remote.map(formatSelector))).toEqual([['10.2.0.64/26', '10.3.0.0/24 tcp 80']]);
  });

  it.each([
    ['another port', pair('10.1.0.0/24', '10.2.0.1 tcp 443')],
    ['another protocol', pair('10.1.0.0/24', '10.2.0.1 udp 80')],
    ['other local addresses', pair('10.1.1.0/24', '10.2.0.1 tcp 80')],
    ['another family', pair('::/0', '::/0')],
  ])('finds no overlap with %s', (_what, asked) => {
    const index = new SelectorIndex<string>();
    index.add(pair('10.1.0.0/24', '10.2.0.1 tcp 80'), 'b');
    expect(index.meeting(asked, all)).toEqual([]);
  });

  const host = (i: number): string => `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`;

  it.each([
    ['with an address each', (i: number) => pair('0.0.0.0/0', host(i))],
    ['with an IPv6 network each', (i: number) => pair('::/0', `2001:db8:${i.toString(16)}::/48`)],
    ['with all addresses, for a local one each', (i: number) => pair(host(i), '0.0.0.0/0')],
  ])('looks at no more boxes of 5,000 peers than of 100: %s', (_how, selectorsOf) => {
    for (const peers of [1, 100, 5_000]) {
      const index = new SelectorIndex<number>();
      for (let i = 0; i < peers; i++) index.add(selectorsOf(i), i);
      let looked = 0;
      const found = index.meeting(selectorsOf(peers >> 1), () => ++looked > 0)!;
      expect(found.map(({ value }) => value)).toEqual([peers >> 1]);
      expect(looked).toBeLessThanOrEqual(12);
    }
  });

  it('is empty again after all were deleted', () => {
    const index = new SelectorIndex<number>();
    const pairs = Array.from({ length: 500 }, (_, i) => pair('0.0.0.0/0', host(i * 77)));
    for (const [i, entry] of pairs.entries()) index.add(entry, i);
    for (const [i, entry] of pairs.entries()) index.delete(entry, i);
    let looked = 0;
    expect(index.meeting(pair('0.0.0.0/0', '0.0.0.0/0'), () => ++looked > 0)).toEqual([]);
    expect(looked).toBe(0);
  });

  it('gives up a query that finds too many', () => {
    const index = new SelectorIndex<number>();
    for (let i = 0; i < 2_000; i++) index.add(pair('0.0.0.0/0', host(i)), i);
    let looked = 0;
    expect(index.meeting(pair('0.0.0.0/0', '10.0.0.0/8'), () => ++looked > 0)).toBeUndefined();
    expect(looked).toBeLessThan(1_100);
    expect(index.meeting(pair('0.0.0.0/0', '10.0.0.0/23'), all)).toHaveLength(512);
  });

  it('gives up a query that compares too much', () => {
    const many = (net: number): SelectorPair => {
      const side = (second: number): string =>
        Array.from({ length: 255 }, (_, i) => `10.${second}.${i}.0/25 udp ${i}`).join(', ');
      return pair(side(net), side(net));
    };
    const index = new SelectorIndex<number>();
    index.add(many(1), 1);
    expect(index.meeting(many(1), all)).toBeUndefined();
  });
});

describe('selectors without what other peers own', () => {
  it.each([
    ['10.2.0.0/24', '10.2.0.1', '10.2.0.0, 10.2.0.2-10.2.0.255'],
    ['10.2.0.0/24', '10.2.0.0/24', undefined],
    ['10.2.0.1', '10.2.0.0/24', undefined],
    ['10.2.0.0/16', '10.2.0.0/17, 10.2.128.0/18', '10.2.192.0/18'],
    ['10.2.0.0/24 tcp', '10.2.0.7 tcp 80', '10.2.0.0-10.2.0.6 tcp, 10.2.0.8-10.2.0.255 tcp'],
    ['10.2.0.0/24 tcp', '10.2.0.7 udp', '10.2.0.0/24 tcp'],
    ['10.2.0.1, 10.3.0.0/24', '10.2.0.1', '10.3.0.0/24'],
    ['2001:db8::/64', '2001:db8::1', '2001:db8::, 2001:db8::2-2001:db8::ffff:ffff:ffff:ffff'],
  ])('%s without %s is %s', (remote, taken, expected) => {
    const local = '10.1.0.0/24, ::/0';
    const left = withoutRemote(pair(local, remote), taken.split(', ').map(sel));
    expect(left?.remote.map(formatSelector).join(', ')).toBe(expected);
  });

  it('overlap nothing that is taken, and keep every address that is free', () => {
    fc.assert(
      fc.property(anyPair, fc.array(smallSelector, { maxLength: 4 }), smallSelector, (asked, taken, probe) => {
        const left = withoutRemote(asked, taken) ?? { local: [], remote: [] };
        for (const remote of left.remote) {
          expect(taken.filter((other) => intersectSelector(remote, other) !== undefined)).toEqual([]);
        }
        const free = pairable(asked).remote.flatMap((remote) => intersectSelector(remote, probe) ?? []);
        for (const part of free) {
          const touched = taken.some(({ range }) =>
            intersectSelector({ ...part, protocol: 0, startPort: 0, endPort: 65535 }, { ...part, range }),
          );
          if (!touched) expect(left.remote.some((remote) => intersectSelector(remote, part))).toBe(true);
        }
      }),
    );
  });
});
