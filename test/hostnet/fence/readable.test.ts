/** Which entry of a fence decides a packet whose transport header can be read, and one whose cannot. */
import { describe, expect, it } from 'vitest';
import { parseAddress } from '../../../src/base/address.ts';
import { decidingEntry, type SeenPacket } from '../../../src/hostnet/fence/decision.ts';
import type { FenceEntry } from '../../../src/hostnet/fence/fence.ts';
import { isExtension } from '../../../src/hostnet/fence/readable.ts';
import { range } from '../../policy/helpers.ts';

const RANGES = {
  4: { local: range('10.1.0.0/24'), remote: range('10.2.0.0/24') },
  6: { local: range('fd01::/64'), remote: range('fd02::/64') },
};
const [UDP, TCP, ICMP, FRAGMENT_HEADER] = [17, 6, 1, 44];

function entry(family: 4 | 6, action: FenceEntry['action'], change: Partial<FenceEntry> = {}): FenceEntry {
  return { action, ...RANGES[family], ...change };
}

function packet(family: 4 | 6, protocol: number, port?: number): SeenPacket {
  const [local, remote] = family === 4 ? ['10.1.0.7', '10.2.0.9'] : ['fd01::7', 'fd02::9'];
  const transport = port === undefined ? undefined : { localPort: 40_000, remotePort: port, icmp: port };
  return { local: parseAddress(local)!, remote: parseAddress(remote)!, protocol, transport };
}

const dns = { protocol: UDP, remotePorts: { start: 53, end: 53 } };
const decide = (entries: readonly FenceEntry[], ...seen: Parameters<typeof packet>): string | undefined =>
  decidingEntry(entries, packet(...seen))?.action;

describe('a packet that can be read', () => {
  it('is decided by the first entry whose addresses, protocol, ports or type it has', () => {
    const entries = [
      entry(4, 'pass', dns),
      entry(4, 'discard', { protocol: UDP }),
      entry(4, 'guard', { protocol: TCP }),
    ];
    expect([53, 54].map((port) => decide(entries, 4, UDP, port))).toEqual(['pass', 'discard']);
    expect([decide(entries, 4, TCP, 53), decide(entries, 4, ICMP, 0)]).toEqual(['guard', undefined]);
    const echo = [entry(4, 'guard', { protocol: ICMP, icmp: { start: 0x800, end: 0x8ff } })];
    expect([0x800, 0x900].map((type) => decide(echo, 4, ICMP, type))).toEqual(['guard', undefined]);
  });

  it('is none of an entry between other addresses, or of the other family', () => {
    const elsewhere = entry(4, 'guard', { remote: range('10.3.0.0/24') });
    expect(decide([elsewhere, entry(6, 'guard')], 4, UDP, 53)).toBeUndefined();
  });
});

describe('a packet that cannot be read', () => {
  it('of IPv4 has its protocol, and any ports and types that are guarded or discarded', () => {
    expect(decide([entry(4, 'guard', dns)], 4, UDP)).toBe('guard');
    expect(decide([entry(4, 'discard', dns)], 4, UDP)).toBe('discard');
    expect(decide([entry(4, 'guard', dns)], 4, TCP)).toBeUndefined();
    expect(decide([entry(4, 'pass', { protocol: TCP }), entry(4, 'guard')], 4, TCP)).toBe('pass');
  });

  it('of IPv6 has any protocol that is guarded or discarded', () => {
    expect(decide([entry(6, 'guard', { protocol: TCP })], 6, FRAGMENT_HEADER)).toBe('guard');
    expect(decide([entry(6, 'discard', dns)], 6, FRAGMENT_HEADER)).toBe('discard');
  });

  it('is let pass by no entry that asks for what it does not show', () => {
    for (const family of [4, 6] as const) {
      const protocol = family === 4 ? UDP : FRAGMENT_HEADER;
      expect(decide([entry(family, 'pass', dns), entry(family, 'guard')], family, protocol)).toBe('guard');
      expect(decide([entry(family, 'pass', dns)], family, protocol)).toBeUndefined();
      expect(decide([entry(family, 'pass'), entry(family, 'guard')], family, protocol)).toBe('pass');
    }
    expect(decide([entry(6, 'pass', { protocol: UDP }), entry(6, 'guard')], 6, UDP)).toBe('guard');
  });

  it('passes by an entry that names its first header, where a policy can', () => {
    for (const [protocol, action] of [
      [51, 'pass'],
      [200, 'pass'],
      [FRAGMENT_HEADER, 'guard'],
      [60, 'guard'],
    ] as const) {
      expect(decide([entry(6, 'pass', { protocol }), entry(6, 'guard')], 6, protocol), String(protocol)).toBe(action);
    }
  });

  it('is a packet with a header after which the chain continues, or may continue', () => {
    const numbers = Array.from({ length: 256 }, (_, number) => number).filter(isExtension);
    expect(numbers.filter((number) => number < 148)).toEqual([0, 43, 44, 51, 60, 140]);
    expect(numbers).toHaveLength(6 + 256 - 148);
  });
});
