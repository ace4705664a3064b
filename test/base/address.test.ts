import { isIP } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addressFromBytes,
  addressToBytes,
  formatAddress,
  formatRange,
  formatSocketAddress,
  type IpAddress,
  intersectRanges,
  parseAddress,
  prefixRange,
  rangeContains,
  rangePrefixLength,
  rangeToPrefixes,
} from '../../src/base/address.ts';

function ip(text: string): IpAddress {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`not an address: ${text}`);
  return address;
}

const anyAddress = fc.oneof(
  fc.bigInt(0n, 0xffffffffn).map((value): IpAddress => ({ family: 4, value })),
  fc.bigInt(0n, (1n << 128n) - 1n).map((value): IpAddress => ({ family: 6, value })),
);

describe('text form of addresses', () => {
  it.each([
    ['0.0.0.0', '0.0.0.0'],
    ['192.0.2.1', '192.0.2.1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['2001:DB8::1', '2001:db8::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['1:2:3:4:5:6:7:0', '1:2:3:4:5:6:7:0'],
    ['::ffff:192.0.2.1', '::ffff:c000:201'],
    ['0:0:0:0:0:0:0:0', '::'],
  ])('%s is written %s', (text, canonical) => {
    expect(formatAddress(ip(text))).toBe(canonical);
  });

  it.each([
    '',
    '1',
    '1.2.3',
    '1.2.3.4.5',
    '256.1.1.1',
    '01.2.3.4',
    '1.2.3.-4',
    ' 1.2.3.4',
    '1.2.3.4/8',
    ':',
    ':::',
    '1::2::3',
  ])('%j is refused', (text) => {
    expect(parseAddress(text)).toBeUndefined();
  });

  it.each([
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '12345::',
    'g::',
    'fe80::1%eth0',
    '1.2.3.4::',
    '::1.2.3',
  ])('%j is refused', (text) => {
    expect(parseAddress(text)).toBeUndefined();
  });

  it('reads back what it writes, and agrees with Node on what is an address', () => {
    fc.assert(
      fc.property(anyAddress, (address) => {
        const text = formatAddress(address);
        expect(isIP(text)).toBe(address.family);
        expect(parseAddress(text)).toEqual(address);
      }),
    );
    fc.assert(
      fc.property(fc.stringMatching(/^[0-9a-f:.]{0,20}$/), (text) => {
        expect(parseAddress(text)?.family ?? 0).toBe(isIP(text));
      }),
      { numRuns: 2000 },
    );
  });

  it('writes socket addresses with brackets around IPv6', () => {
    expect(formatSocketAddress({ address: ip('192.0.2.1'), port: 500 })).toBe('192.0.2.1:500');
    expect(formatSocketAddress({ address: ip('2001:db8::1'), port: 4500 })).toBe('[2001:db8::1]:4500');
  });
});

describe('bytes of addresses', () => {
  it('round trips', () => {
    fc.assert(
      fc.property(anyAddress, (address) => {
        expect(addressFromBytes(addressToBytes(address))).toEqual(address);
      }),
    );
  });

  it('refuses other lengths', () => {
    expect(() => addressFromBytes(new Uint8Array(5))).toThrow(/4 or 16 bytes, not 5/);
  });
});

describe('ranges', () => {
  it('makes a prefix with host bits cleared', () => {
    expect(formatRange(prefixRange(ip('10.1.2.3'), 30))).toBe('10.1.2.0/30');
    expect(formatRange(prefixRange(ip('10.1.2.3'), 32))).toBe('10.1.2.3');
    expect(formatRange(prefixRange(ip('2001:db8::5'), 0))).toBe('::/0');
    expect(() => prefixRange(ip('10.1.2.3'), 33)).toThrow(/0 to 32/);
  });

  it('distinguishes prefixes from other ranges', () => {
    expect(rangePrefixLength({ start: ip('10.0.0.0'), end: ip('10.0.0.255') })).toBe(24);
    expect(rangePrefixLength({ start: ip('10.0.0.1'), end: ip('10.0.0.2') })).toBeUndefined();
    expect(formatRange({ start: ip('10.3.0.16'), end: ip('10.3.0.30') })).toBe('10.3.0.16-10.3.0.30');
  });

  it('intersects', () => {
    const a = prefixRange(ip('10.0.0.0'), 8);
    expect(intersectRanges(a, prefixRange(ip('10.1.0.0'), 16))).toEqual(prefixRange(ip('10.1.0.0'), 16));
    expect(intersectRanges(a, prefixRange(ip('11.0.0.0'), 8))).toBeUndefined();
    expect(intersectRanges(a, prefixRange(ip('::'), 0))).toBeUndefined();
  });

  it('covers a range exactly by prefixes, in order and without overlap', () => {
    fc.assert(
      fc.property(fc.nat(1 << 20), fc.nat(5000), (start, extra) => {
        const range = {
          start: { family: 4, value: BigInt(start) },
          end: { family: 4, value: BigInt(start + extra) },
        } as const;
        let at = range.start.value;
        for (const { address, prefixLength } of rangeToPrefixes(range)) {
          const piece = prefixRange(address, prefixLength);
          expect(piece.start.value).toBe(at);
          expect(rangeContains(range, piece.end)).toBe(true);
          at = piece.end.value + 1n;
        }
        expect(at).toBe(range.end.value + 1n);
      }),
    );
    expect(rangeToPrefixes(prefixRange(ip('0.0.0.0'), 0))).toEqual([{ address: ip('0.0.0.0'), prefixLength: 0 }]);
    expect(rangeToPrefixes(prefixRange(ip('::'), 0))).toHaveLength(1);
  });
});
