import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hasPorts, protocolByName, protocolName, protocolNames } from '../../src/policy/protocols.ts';
import {
  anySelector,
  containsSelector,
  formatSelector,
  formatSelectorPair,
  formatSelectors,
  icmpPortRange,
  icmpPorts,
  icmpTypeCode,
  intersectSelector,
  makeSelector,
  sameSelector,
  simplifySelectors,
  validateSelector,
} from '../../src/policy/selector.ts';
import { smallSelector } from './arbitraries.ts';
import { range, sel } from './helpers.ts';

describe('protocols', () => {
  it.each([
    ['tcp', 6],
    ['UDP', 17],
    ['sctp', 132],
    ['icmp', 1],
    ['icmpv6', 58],
    ['ipv6-icmp', 58],
    ['gre', 47],
    ['esp', 50],
    ['ah', 51],
    ['any', 0],
    ['0', 0],
    ['255', 255],
    ['017', 17],
  ])('%s is %i', (name, number) => {
    expect(protocolByName(name)).toBe(number);
  });

  it.each(['', '256', '-1', '1.0', 'tcpp', '1000', ' tcp'])('%j is none', (text) => {
    expect(protocolByName(text)).toBeUndefined();
  });

  it('prints the usual name, or the number', () => {
    expect([0, 6, 58, 4, 200].map(protocolName)).toEqual(['any', 'tcp', 'icmpv6', 'ipencap', '200']);
  });

  it('reads back what it prints, and every name it lists', () => {
    for (let protocol = 0; protocol < 256; protocol++) expect(protocolByName(protocolName(protocol))).toBe(protocol);
    for (const name of protocolNames()) expect(protocolByName(name)).toBeDefined();
  });

  it('knows which have ports', () => {
    const having = Array.from({ length: 256 }, (_, i) => i).filter(hasPorts);
    expect(having).toEqual([6, 17, 33, 132, 136]);
  });
});

describe('ICMP type and code as ports', () => {
  it('are one 16-bit number (RFC 4301 §4.4.1.1)', () => {
    expect(icmpPorts(8)).toEqual({ startPort: 0x0800, endPort: 0x08ff });
    expect(icmpPorts(3, 4)).toEqual({ startPort: 0x0304, endPort: 0x0304 });
    expect(icmpPorts(255)).toEqual({ startPort: 0xff00, endPort: 0xffff });
    expect(icmpPortRange(3, 5, 1, 2)).toEqual({ startPort: 0x0301, endPort: 0x0502 });
    expect(icmpTypeCode(0x0304)).toEqual({ type: 3, code: 4 });
  });
});

describe('formatSelector', () => {
  it.each([
    '10.1.0.0/30 udp 5000',
    '10.1.0.0/30',
    '10.1.0.1',
    '10.1.0.3-10.1.0.9 tcp 80-90',
    '0.0.0.0/0',
    '::/0 tcp',
    'fd00::/64 icmpv6 type 128',
    '10.1.0.0/30 icmp type 3 code 4',
    '10.1.0.0/30 udp opaque',
    '10.1.0.0/30 200',
  ])('%s', (text) => {
    expect(formatSelector(sel(text))).toBe(text);
  });

  it.each([
    [icmpPortRange(8, 10), 'type 8-10'],
    [icmpPortRange(3, 3, 1, 4), 'type 3 code 1-4'],
    [icmpPortRange(3, 5, 1, 4), 'type 3 code 1 to type 5 code 4'],
  ])('prints ICMP ranges: %o', (ports, text) => {
    expect(formatSelector(makeSelector(range('10.0.0.1'), 1, ports))).toBe(`10.0.0.1 icmp ${text}`);
  });

  it('prints lists and pairs', () => {
    const list = Array.from({ length: 20 }, (_, i) => sel(`10.0.${i}.0/24`));
    expect(formatSelectors([])).toBe('nothing');
    expect(formatSelectors(list.slice(0, 2))).toBe('10.0.0.0/24, 10.0.1.0/24');
    expect(formatSelectors(list, 1)).toBe('10.0.0.0/24 and 19 more');
    expect(formatSelectorPair({ local: [anySelector(4)], remote: [anySelector(6)] })).toBe('0.0.0.0/0 === ::/0');
  });
});

describe('containsSelector and intersectSelector', () => {
  it.each([
    ['10.0.0.0/8', '10.1.0.0/16 udp 5000', true],
    ['10.1.0.0/16', '10.0.0.0/8', false],
    ['10.0.0.0/8 udp', '10.0.0.0/8', false],
    ['10.0.0.0/8 udp', '10.0.0.0/8 tcp', false],
    ['10.0.0.0/8 udp 10-20', '10.0.0.0/8 udp 10-20', true],
    ['10.0.0.0/8 udp 10-20', '10.0.0.0/8 udp 9-20', false],
    ['10.0.0.0/8 udp 10-20', '10.0.0.0/8 udp 10-21', false],
    ['10.0.0.0/8 udp', '10.0.0.0/8 udp opaque', true],
    ['10.0.0.0/8 udp opaque', '10.0.0.0/8 udp opaque', true],
    ['10.0.0.0/8 udp opaque', '10.0.0.0/8 udp 1', false],
    ['10.0.0.0/8 udp 1-65535', '10.0.0.0/8 udp opaque', false],
    ['0.0.0.0/0', '::/0', false],
    ['::/0', '0.0.0.0/0', false],
  ])('%s contains %s: %s', (outer, inner, expected) => {
    expect(containsSelector(sel(outer), sel(inner))).toBe(expected);
  });

  it.each([
    ['10.0.0.0/8', '10.1.0.0/16 udp 5000', '10.1.0.0/16 udp 5000'],
    ['10.0.0.0-10.0.0.9 tcp 1-10', '10.0.0.5-10.0.0.20 tcp 10-20', '10.0.0.5-10.0.0.9 tcp 10'],
    ['10.0.0.0/8 tcp 1-10', '10.0.0.0/8 tcp 11-20', undefined],
    ['10.0.0.0/8 tcp', '10.0.0.0/8 udp', undefined],
    ['10.0.0.0/8', '11.0.0.0/8', undefined],
    ['0.0.0.0/0', '::/0', undefined],
    ['10.0.0.0/8 udp', '10.0.0.0/8 udp opaque', '10.0.0.0/8 udp opaque'],
    ['10.0.0.0/8 udp opaque', '10.0.0.0/8', '10.0.0.0/8 udp opaque'],
    ['10.0.0.0/8 udp opaque', '10.0.0.0/8 udp opaque', '10.0.0.0/8 udp opaque'],
    ['10.0.0.0/8 udp 1-65535', '10.0.0.0/8 udp opaque', undefined],
    ['10.0.0.0/8 icmp type 8', '10.0.0.0/8 icmp type 8 code 0', '10.0.0.0/8 icmp type 8 code 0'],
  ])('%s and %s have in common: %s', (a, b, expected) => {
    for (const both of [intersectSelector(sel(a), sel(b)), intersectSelector(sel(b), sel(a))]) {
      expect(both && formatSelector(both)).toBe(expected);
    }
  });

  it('agree with each other', () => {
    fc.assert(
      fc.property(smallSelector, smallSelector, (a, b) => {
        const both = intersectSelector(a, b);
        const same = both !== undefined && sameSelector(both, b);
        expect(containsSelector(a, b)).toBe(same);
        if (both !== undefined) expect(containsSelector(a, both) && containsSelector(b, both)).toBe(true);
      }),
      { numRuns: 5000 },
    );
  });
});

describe('simplifySelectors', () => {
  it('drops what another contains and keeps the order', () => {
    const list = ['10.1.0.0/16 udp', '10.0.0.0/8 udp', '::/0', '10.0.0.0/8 udp', 'fd00::1', '10.0.0.0/8 tcp'];
    expect(simplifySelectors(list.map(sel)).map(formatSelector)).toEqual(['10.0.0.0/8 udp', '::/0', '10.0.0.0/8 tcp']);
  });

  it('leaves a list in which all that was matched still is, and no selector that another contains', () => {
    fc.assert(
      fc.property(fc.array(smallSelector, { maxLength: 12 }), (list) => {
        const simple = simplifySelectors(list);
        for (const each of list) expect(simple.some((kept) => containsSelector(kept, each))).toBe(true);
        for (const a of simple) expect(simple.filter((b) => containsSelector(b, a))).toEqual([a]);
      }),
    );
  });
});

describe('validateSelector', () => {
  const base = sel('10.0.0.0/8 udp 5000');
  const [low, high] = [base.range.start, base.range.end];

  it.each([
    '10.0.0.0/8',
    '10.0.0.0/8 udp 0',
    '10.0.0.0/8 udp opaque',
    '10.0.0.0/8 icmp type 8',
    '::/0 135 256',
    '::/0 47',
  ])('accepts %s', (text) => {
    expect(validateSelector(sel(text))).toBeUndefined();
  });

  it.each([
    [{ ...base, protocol: 256 }, 'protocol 256'],
    [{ ...base, protocol: -1 }, 'protocol -1'],
    [{ ...base, protocol: 1.5 }, 'protocol 1.5'],
    [{ ...base, endPort: 65536 }, 'port 65536'],
    [{ ...base, startPort: -1 }, 'port -1'],
    [{ ...base, startPort: 5001 }, 'port range 5001-5000 ends before it starts'],
    [{ ...base, range: { start: high, end: low } }, 'address range'],
    [{ ...base, range: { start: low, end: sel('::1').range.end } }, 'families'],
    [{ ...base, protocol: 0 }, 'with any protocol'],
    [{ ...base, protocol: 47 }, 'gre, which has no ports'],
  ])('refuses %o', (selector, text) => {
    expect(validateSelector(selector)).toContain(text);
  });
});
