import { describe, expect, it } from 'vitest';
import { formatSelectorPair, type SelectorPair } from '../../src/policy/selector.ts';
import { asTrigger, packetFirst, pairsIn, uncovered, uncoveredAround } from '../../src/policy/uncovered.ts';
import { sel } from './helpers.ts';

const pair = (local: string, remote: string): SelectorPair => ({
  local: local.split(', ').map(sel),
  remote: remote.split(', ').map(sel),
});
const shown = (found: SelectorPair | undefined): string | undefined => found && formatSelectorPair(found);

describe('what no SA covers', () => {
  const wanted = pair('10.1.0.0/24, 10.2.0.0/24', '10.8.0.0/24, 10.9.0.0/24');

  it('is all of it when there is none', () => {
    expect(uncovered(wanted, [])).toEqual(wanted);
    expect(pairsIn(wanted)).toBe(4);
  });

  it('is found step by step where each SA is for one pair, until nothing is left', () => {
    const covered: SelectorPair[] = [];
    for (let next = uncovered(wanted, covered); next !== undefined; next = uncovered(wanted, covered)) {
      covered.push({ local: next.local.slice(0, 1), remote: next.remote.slice(0, 1) });
    }
    expect(covered.map(shown).sort()).toEqual([
      '10.1.0.0/24 === 10.8.0.0/24',
      '10.1.0.0/24 === 10.9.0.0/24',
      '10.2.0.0/24 === 10.8.0.0/24',
      '10.2.0.0/24 === 10.9.0.0/24',
    ]);
  });

  it('is found in the corners that two SAs leave', () => {
    const diagonal = [pair('10.1.0.0/24', '10.8.0.0/24'), pair('10.2.0.0/24', '10.9.0.0/24')];
    expect(shown(uncovered(wanted, diagonal))).toBe('10.1.0.0/24 === 10.9.0.0/24');
  });

  it('are the addresses around a range that was given', () => {
    expect(shown(uncovered(pair('10.1.0.0/24', '10.8.0.0/24'), [pair('10.1.0.0/24', '10.8.0.64/26')]))).toBe(
      '10.1.0.0/24 === 10.8.0.0/26, 10.8.0.128/25',
    );
  });
});

describe('what no SA covers, around a packet', () => {
  const around = (wanted: SelectorPair, covered: SelectorPair[], packet: SelectorPair): string | undefined =>
    shown(uncoveredAround(wanted, covered, packet));

  it('is cut where the packet is not', () => {
    const wanted = pair('10.1.0.0/24, 10.2.0.0/24', '10.8.0.0/24, 10.9.0.0/24');
    const covered = [pair('10.1.0.0/24', '10.8.0.0/24')];
    expect(around(wanted, covered, pair('10.1.0.5 udp 1', '10.9.0.5 udp 2'))).toBe(
      '10.1.0.0/24, 10.2.0.0/24 === 10.9.0.0/24',
    );
    expect(around(wanted, covered, pair('10.2.0.5 udp 1', '10.8.0.5 udp 2'))).toBe(
      '10.2.0.0/24 === 10.8.0.0/24, 10.9.0.0/24',
    );
  });

  it('keeps to the protocol of the packet where the SA has another, and to the packet where the ports part them', () => {
    const wanted = pair('10.1.0.0/24', '10.8.0.0/24');
    const tcp = [pair('10.1.0.0/24', '10.8.0.0/24 tcp 80')];
    expect(around(wanted, tcp, pair('10.1.0.5 udp 1', '10.8.0.5 udp 2'))).toBe('10.1.0.0/24 udp === 10.8.0.0/24 udp');
    expect(around(wanted, tcp, pair('10.1.0.5 tcp 1', '10.8.0.5 tcp 2'))).toBe('10.1.0.5 tcp 1 === 10.8.0.5 tcp 2');
  });
});

describe('the packet that calls for an SA', () => {
  it('stands first on both sides, once (RFC 7296 §2.9)', () => {
    const packet = pair('10.1.0.5 udp 1', '10.8.0.5 udp 2');
    expect(shown(packetFirst(packet, pair('10.1.0.0/24', '10.8.0.0/24')))).toBe(
      '10.1.0.5 udp 1, 10.1.0.0/24 === 10.8.0.5 udp 2, 10.8.0.0/24',
    );
    expect(packetFirst(packet, packet)).toEqual(packet);
  });

  it('takes no more room than a TS payload has', () => {
    const many = Array.from({ length: 255 }, (_, i) => sel(`10.1.${i}.0/24`));
    const first = packetFirst(pair('10.1.0.5', '10.8.0.5'), { local: many, remote: many });
    expect([first.local.length, first.remote.length]).toEqual([255, 255]);
  });

  it('has all ports where a fragment hides them', () => {
    expect(shown(asTrigger(pair('10.1.0.5 udp opaque', '10.8.0.5 udp opaque')))).toBe('10.1.0.5 udp === 10.8.0.5 udp');
  });
});
