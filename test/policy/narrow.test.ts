import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canNarrow, canPair, chooseNarrowing, explainMismatch, narrow, narrowPair } from '../../src/policy/narrow.ts';
import {
  containsSelector,
  formatSelector,
  formatSelectorPair,
  MAX_SELECTORS,
  type SelectorPair,
  type TrafficSelector,
} from '../../src/policy/selector.ts';
import { smallSelector } from './arbitraries.ts';
import { sel } from './helpers.ts';
import { pairFits } from './reference.ts';

const list = (...texts: string[]): TrafficSelector[] => texts.map(sel);
const pair = (local: string[], remote: string[]): SelectorPair => ({ local: list(...local), remote: list(...remote) });
const texts = (selectors: readonly TrafficSelector[]): string[] => selectors.map(formatSelector);

function narrowed(proposed: SelectorPair, configured: SelectorPair): string {
  const result = narrowPair(proposed, configured);
  return result.ok ? formatSelectorPair(result.selectors) : `refused: ${result.explanation}`;
}

describe('narrow', () => {
  it.each([
    [['0.0.0.0/0'], ['10.1.0.0/16'], ['10.1.0.0/16']],
    [['10.1.0.0/16'], ['0.0.0.0/0'], ['10.1.0.0/16']],
    [['10.1.0.0/16', '10.2.0.0/16'], ['10.2.0.0/15'], ['10.2.0.0/16']],
    [['10.3.0.0/16', '10.2.0.0/16'], ['10.0.0.0/8 udp 53'], ['10.3.0.0/16 udp 53', '10.2.0.0/16 udp 53']],
    [['10.0.0.0/8'], ['10.2.0.0/16 tcp', '10.1.0.0/16'], ['10.2.0.0/16 tcp', '10.1.0.0/16']],
    [['10.1.0.1 udp 5000', '10.1.0.0/16'], ['10.0.0.0/8'], ['10.1.0.0/16']],
    [['10.1.0.1 udp 5000', '10.1.0.0/16'], ['10.1.0.0/24 udp'], ['10.1.0.0/24 udp']],
    [['0.0.0.0/0', '::/0'], ['fd00::/64'], ['fd00::/64']],
    [['10.1.0.0/16'], ['10.2.0.0/16'], []],
    [[], ['10.2.0.0/16'], []],
    [['10.1.0.0/16'], [], []],
  ])('%j with %j is %j', (proposed, configured, expected) => {
    expect(texts(narrow(list(...proposed), list(...configured)))).toEqual(expected);
  });

  it('keeps the first choices when there are more than a payload holds', () => {
    const proposed = list('10.0.77.7 udp 5000', ...Array.from({ length: 200 }, (_, i) => `10.0.${i}.0/25 tcp`));
    const configured = list('0.0.0.0/0 udp', ...Array.from({ length: 200 }, (_, i) => `10.0.0.0/16 tcp ${i}`));
    const result = narrow(proposed, configured);
    expect(result).toHaveLength(MAX_SELECTORS);
    expect(formatSelector(result[0]!)).toBe('10.0.77.7 udp 5000');
  });

  it('takes no notice of what lies behind the 255th selector', () => {
    const proposed = list(...Array.from({ length: 300 }, (_, i) => `10.${i >>> 8}.${i & 255}.0/24`));
    expect(narrow(proposed, list('0.0.0.0/0'))).toHaveLength(MAX_SELECTORS);
  });

  const selectors = fc.array(smallSelector, { maxLength: 8 });

  it('gives only what both sides contain, none of it twice, and loses nothing they share', () => {
    fc.assert(
      fc.property(selectors, selectors, smallSelector, (proposed, configured, probe) => {
        const result = narrow(proposed, configured);
        for (const each of result) {
          expect(proposed.some((outer) => containsSelector(outer, each))).toBe(true);
          expect(configured.some((outer) => containsSelector(outer, each))).toBe(true);
          expect(result.filter((other) => containsSelector(other, each))).toEqual([each]);
        }
        const inside = (within: readonly TrafficSelector[]): boolean =>
          within.some((outer) => containsSelector(outer, probe));
        expect(inside(result)).toBe(inside(proposed) && inside(configured));
      }),
      { numRuns: 2000 },
    );
  });

  it('is idempotent and, as a set, the same from both sides', () => {
    fc.assert(
      fc.property(selectors, selectors, (proposed, configured) => {
        const result = narrow(proposed, configured);
        expect(narrow(result, configured)).toEqual(result);
        expect(narrow(proposed, result).length).toBe(result.length);
        expect(texts(narrow(configured, proposed)).sort()).toEqual(texts(result).sort());
      }),
      { numRuns: 1000 },
    );
  });
});

describe('narrowPair', () => {
  const office = pair(['10.1.0.0/24'], ['10.2.0.0/24']);

  it('takes the whole of what it contains', () => {
    expect(narrowPair(office, office)).toEqual({ ok: true, selectors: office, whole: true, first: true });
  });

  it('cuts a proposal down', () => {
    const result = narrowPair(pair(['0.0.0.0/0'], ['0.0.0.0/0']), office);
    expect(result).toEqual({ ok: true, selectors: office, whole: false, first: false });
  });

  it('keeps the packet that triggered the negotiation in, and says so', () => {
    const triggered = pair(['10.1.0.5 udp 5000', '0.0.0.0/0'], ['10.2.0.9 udp 53', '0.0.0.0/0']);
    expect(narrowPair(triggered, office)).toEqual({ ok: true, selectors: office, whole: false, first: true });
    const elsewhere = pair(['10.7.0.5 udp 5000', '0.0.0.0/0'], ['10.2.0.9 udp 53', '0.0.0.0/0']);
    expect(narrowPair(elsewhere, office)).toMatchObject({ ok: true, first: false });
  });

  it('leaves out what cannot pair with the other side', () => {
    const mixed = pair(['10.1.0.0/24 tcp', '10.1.0.0/24 udp', 'fd00::/64'], ['10.2.0.0/24 tcp']);
    expect(narrowed(mixed, pair(['0.0.0.0/0', '::/0'], ['0.0.0.0/0', '::/0']))).toBe(
      '10.1.0.0/24 tcp === 10.2.0.0/24 tcp',
    );
  });

  it('does not count that as taken away', () => {
    const offered = pair(['10.1.0.0/24', 'fd00::/64'], ['10.2.0.0/24']);
    expect(narrowPair(offered, offered)).toEqual({ ok: true, selectors: office, whole: true, first: true });
  });

  it('keeps ICMP of one direction', () => {
    const sendOnly = pair(['10.1.0.0/24 icmp type 8'], ['10.2.0.0/24 icmp opaque']);
    expect(narrowed(sendOnly, office)).toBe('10.1.0.0/24 icmp type 8 === 10.2.0.0/24 icmp opaque');
    expect(narrowPair(pair(['10.1.0.0/24 icmp type 8'], ['10.2.0.0/24 icmp type 3']), office).ok).toBe(false);
  });

  it('refuses when a side has nothing in common, and says which', () => {
    expect(narrowed(pair(['10.1.0.0/24'], ['10.9.0.0/24']), office)).toBe(
      'refused: remote side: proposed 10.9.0.0/24; configured 10.2.0.0/24; no address is in both',
    );
    expect(narrowed(pair([], ['10.2.0.0/24']), office)).toBe(
      'refused: local side: proposed nothing; configured 10.1.0.0/24; there is nothing to compare',
    );
  });

  it('names both sides when neither fits', () => {
    const text = narrowed(pair(['10.8.0.0/24'], ['10.9.0.0/24']), office);
    expect(text).toContain('local side: proposed 10.8.0.0/24');
    expect(text).toContain('remote side: proposed 10.9.0.0/24');
  });

  it('refuses when each side fits but no packet can', () => {
    const tcpHere = pair(['10.1.0.0/24 tcp', '10.1.0.0/24 udp'], ['10.2.0.0/24']);
    expect(narrowed(pair(['10.1.0.0/24 tcp'], ['10.2.0.0/24']), pair(['10.1.0.0/24'], ['10.2.0.0/24 udp']))).toContain(
      'no packet can fit both',
    );
    expect(narrowPair(tcpHere, pair(['10.1.0.0/24'], ['10.2.0.0/24 udp']))).toMatchObject({ ok: true });
  });

  it('is predicted by `canNarrow`, which returns only whether there is a result', () => {
    const selectors = fc.array(smallSelector, { minLength: 1, maxLength: 4 });
    const selectorPair = fc.record({ local: selectors, remote: selectors });
    fc.assert(
      fc.property(selectorPair, selectorPair, (proposed, configured) => {
        expect(canNarrow(proposed, configured)).toBe(narrowPair(proposed, configured).ok);
      }),
    );
  });

  it('answers with selectors that only packets of both sides fit', () => {
    const selectors = fc.array(smallSelector, { minLength: 1, maxLength: 4 });
    const selectorPair = fc.record({ local: selectors, remote: selectors });
    let accepted = 0;
    fc.assert(
      fc.property(selectorPair, selectorPair, (proposed, configured) => {
        const result = narrowPair(proposed, configured);
        if (!result.ok) return;
        accepted++;
        const { local, remote } = result.selectors;
        for (const mine of local) {
          expect(remote.some((theirs) => canPair(mine, theirs))).toBe(true);
          for (const theirs of remote) {
            const packet = {
              src: mine.range.start,
              dst: theirs.range.end,
              protocol: mine.protocol || theirs.protocol || 6,
              stray: false,
              ports: mine.startPort > mine.endPort ? undefined : ([mine.startPort, theirs.endPort] as const),
            };
            if (!pairFits(result.selectors, packet, true)) continue;
            expect(pairFits(proposed, packet, true) && pairFits(configured, packet, true)).toBe(true);
          }
        }
        if (result.whole) expect(result.first).toBe(true);
      }),
      { numRuns: 2000 },
    );
    expect(accepted).toBeGreaterThan(50);
  });
});

describe('chooseNarrowing', () => {
  const candidates = [
    pair(['10.1.0.0/24'], ['10.2.0.0/24']),
    pair(['10.1.0.0/16'], ['10.2.0.0/16']),
    pair(['0.0.0.0/0'], ['0.0.0.0/0']),
  ];

  it.each([
    ['the one that accepts all', pair(['10.1.0.0/16'], ['10.2.0.0/16']), 1],
    ['the first of those that accept all', pair(['10.1.0.7'], ['10.2.0.7']), 0],
    ['the one that accepts the triggering packet', pair(['10.1.7.7', '10.1.0.0/24'], ['10.2.7.7', '10.2.0.0/24']), 1],
  ])('takes %s', (_what, proposed, index) => {
    expect(chooseNarrowing(proposed, candidates)?.index).toBe(index);
  });

  it('prefers the first selectors to anything, and anything to nothing', () => {
    const two = candidates.slice(0, 2);
    const first = pair(['10.1.7.7 udp 5', '0.0.0.0/0'], ['10.2.7.7 udp 6', '0.0.0.0/0']);
    expect(chooseNarrowing(first, two)?.index).toBe(1);
    expect(chooseNarrowing(pair(['0.0.0.0/0'], ['0.0.0.0/0']), two)?.index).toBe(0);
    expect(chooseNarrowing(pair(['::/0'], ['::/0']), two)).toBeUndefined();
    expect(chooseNarrowing(pair(['::/0'], ['::/0']), [])).toBeUndefined();
  });
});

describe('explainMismatch', () => {
  it.each([
    [['10.1.0.0/24'], ['10.2.0.0/24'], 'no address is in both'],
    [['10.1.0.0/24'], ['fd00::/64'], 'the address families differ: IPv4 proposed, IPv6 configured'],
    [
      ['10.1.0.0/24 tcp'],
      ['10.1.0.0/30 udp'],
      'the addresses meet in 10.1.0.0/30, the protocols do not: tcp proposed, udp configured',
    ],
    [
      ['10.1.0.0/30 udp 5001'],
      ['10.1.0.0/24 udp 5000', '10.9.0.0/24'],
      'the addresses meet in 10.1.0.0/30 with udp, the ports do not: 5001 proposed, 5000 configured',
    ],
    [
      ['10.1.0.0/30 icmp type 8'],
      ['10.1.0.0/30 tcp', '10.1.0.0/30 icmp type 0'],
      'the addresses meet in 10.1.0.0/30 with icmp, the ports do not: type 8 proposed, type 0 configured',
    ],
  ])('%j and %j: %s', (proposed, configured, reason) => {
    const text = explainMismatch(list(...proposed), list(...configured));
    expect(text).toBe(`proposed ${proposed.join(', ')}; configured ${configured.join(', ')}; ${reason}`);
  });

  it('says that nothing differs only when something is in common', () => {
    fc.assert(
      fc.property(
        fc.array(smallSelector, { minLength: 1, maxLength: 4 }),
        fc.array(smallSelector, { minLength: 1, maxLength: 4 }),
        (a, b) => {
          expect(explainMismatch(a, b).endsWith('something in common')).toBe(narrow(a, b).length > 0);
        },
      ),
      { numRuns: 1000 },
    );
  });
});
