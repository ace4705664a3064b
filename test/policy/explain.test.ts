import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CompiledSelectors } from '../../src/policy/compiled.ts';
import { compilePolicy, FRAGMENT_UNDECIDED, NO_ENTRY, type PolicyEntry } from '../../src/policy/database.ts';
import { explainFlow, formatDecision } from '../../src/policy/explain.ts';
import { flowSelectors, formatFlow } from '../../src/policy/flow-values.ts';
import { formatSelectorPair } from '../../src/policy/selector.ts';
import { smallAddress, smallPort, smallSelector } from './arbitraries.ts';
import { flowOf, icmp, type PacketFields, ports, sel } from './helpers.ts';
import { toFlow } from './reference.ts';

function entry(name: string, local: string, remote: string, more: Partial<PolicyEntry> = {}): PolicyEntry {
  return {
    name,
    direction: 'out',
    action: 'protect',
    priority: 0,
    level: 'require',
    selectors: { local: [sel(local)], remote: [sel(remote)] },
    ...more,
  };
}

const UDP: PacketFields = { src: '10.1.0.1', dst: '10.2.0.1', protocol: 17, payload: ports(5000, 53) };

describe('explainFlow', () => {
  const policy = compilePolicy(
    [
      entry('address', '0.0.0.0/0', '10.9.0.0/24'),
      entry('protocol', '0.0.0.0/0', '10.2.0.0/24 tcp'),
      entry('port', '10.1.0.0/24 udp 5000-5001', '10.2.0.0/24 udp 54', { line: 7 }),
      entry('both sides', '10.7.0.0/24', 'fd00::/64'),
      entry('fits', '10.1.0.0/24', '0.0.0.0/0', { action: 'bypass', line: 12 }),
      entry('never asked', '0.0.0.0/0', '0.0.0.0/0'),
    ],
    'out',
  );

  it('names what decides, and what kept each entry before from it', () => {
    const explained = explainFlow(policy, flowOf(UDP));
    expect([explained.answer, explained.action, explained.decides?.name]).toEqual([4, 'bypass', 'fits']);
    expect(explained.before.map(({ mismatches }) => mismatches.map(({ text }) => text))).toEqual([
      ['remote address 10.2.0.1 is not in 10.9.0.0/24'],
      ['remote protocol udp is not tcp'],
      ['remote port 53 is not 54'],
      ['local address 10.1.0.1 is not in 10.7.0.0/24', 'remote address 10.2.0.1 is not in fd00::/64'],
    ]);
    expect(formatDecision(explained)).toBe("bypassed by 'fits' (line 12)");
  });

  it('lists no more than it is asked for: what comes closest to matching, in the order of the policy', () => {
    const explained = explainFlow(policy, flowOf(UDP), 2);
    expect(explained.before.map(({ index, entry: { name } }) => [index, name])).toEqual([
      [1, 'protocol'],
      [2, 'port'],
    ]);
    expect(explained.beforeCount).toBe(4);
  });

  it('names what would match as well, and is never asked', () => {
    const twice = [...policy.entries, entry('nor this', '10.1.0.1', '10.2.0.1')];
    const explained = explainFlow({ direction: 'out', entries: twice }, flowOf(UDP), 1);
    expect(explained.shadowed.map(({ index, entry: { name } }) => [index, name])).toEqual([[5, 'never asked']]);
    expect(explained.shadowedCount).toBe(2);
  });

  it('says of ICMP which type was found', () => {
    const ping = compilePolicy([entry('unreachable', '0.0.0.0/0 icmp type 3', '0.0.0.0/0')], 'out');
    const explained = explainFlow(ping, flowOf({ ...UDP, protocol: 1, payload: icmp(8, 0) }));
    expect(explained.before[0]!.mismatches[0]!.text).toBe('local type 8 code 0 is not type 3');
  });

  it('explains a packet that nothing matches', () => {
    const explained = explainFlow(policy, flowOf({ ...UDP, src: 'fd00::1', dst: 'fd00::2' }));
    expect([explained.answer, explained.action, explained.beforeCount]).toEqual([NO_ENTRY, 'discard', 6]);
    expect(formatDecision(explained)).toBe('dropped: no policy entry matches');
  });

  it('explains a fragment that is kept from a bypass', () => {
    const guarded = compilePolicy(
      [entry('ports', '0.0.0.0/0', '0.0.0.0/0 udp 53'), entry('rest', '0.0.0.0/0', '0.0.0.0/0', { action: 'bypass' })],
      'out',
    );
    const explained = explainFlow(guarded, flowOf({ ...UDP, offset: 8 }));
    expect([explained.answer, explained.action, explained.beforeCount]).toEqual([FRAGMENT_UNDECIDED, 'discard', 1]);
    expect(explained.before[0]!.mismatches[0]!.text).toBe('remote port (not shown) is not 53');
    expect(formatDecision(explained)).toContain('first fragment was not seen');
  });

  it.each([
    [{ action: 'protect', child: 'net' }, "protected by 'e' with child net"],
    [{ action: 'protect' }, "protected by 'e'"],
    [{ action: 'discard', line: 3 }, "discarded by 'e' (line 3)"],
  ] as const)('says %o', (more, text) => {
    const one = compilePolicy([entry('e', '0.0.0.0/0', '0.0.0.0/0', more)], 'out');
    expect(formatDecision(explainFlow(one, flowOf(UDP)))).toBe(text);
  });

  it('finds a mismatch in an entry exactly when the entry does not match', () => {
    const selectors = fc.array(smallSelector, { minLength: 1, maxLength: 3 });
    const addresses = fc.tuple(smallAddress(4), smallAddress(4));
    const packet = fc.tuple(addresses, fc.constantFrom(1, 6, 17), smallPort, smallPort, fc.boolean());
    fc.assert(
      fc.property(
        selectors,
        selectors,
        packet,
        fc.constantFrom('in', 'out'),
        fc.constantFrom('bypass', 'protect'),
        (local, remote, [[src, dst], protocol, a, b, stray], direction, action) => {
          const flow = toFlow({
            src,
            dst,
            protocol,
            stray,
            ports: stray ? undefined : protocol === 1 ? [a, a] : [a, b],
          });
          const tried = entry('tried', '::', '::', { direction, selectors: { local, remote } });
          const after = entry('after', '0.0.0.0/0', '0.0.0.0/0', { direction, action });
          const compiled = compilePolicy([tried, after], direction);
          const explained = explainFlow(compiled, flow);
          expect(explained.answer).toBe(compiled.lookup(flow));
          const matches = new CompiledSelectors({ local, remote }).matchesFlow(flow, direction === 'out');
          if (explained.answer >= 0) expect(explained.decides?.name).toBe(matches ? 'tried' : 'after');
          if (!matches) expect(explained.before[0]!.mismatches.length).toBeGreaterThan(0);
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('flowSelectors', () => {
  it.each([
    [UDP, '10.1.0.1 udp 5000 === 10.2.0.1 udp 53'],
    [{ ...UDP, protocol: 1, payload: icmp(8, 0) }, '10.1.0.1 icmp type 8 code 0 === 10.2.0.1 icmp type 8 code 0'],
    [{ ...UDP, protocol: 47 }, '10.1.0.1 gre === 10.2.0.1 gre'],
    [{ ...UDP, offset: 8 }, '10.1.0.1 udp opaque === 10.2.0.1 udp opaque'],
    [{ ...UDP, src: 'fd00::1', dst: 'fd00::2', protocol: 60, offset: 8 }, 'fd00::1 === fd00::2'],
  ])('speaks of the packet alone (%#)', (fields, text) => {
    const flow = flowOf(fields);
    const selectors = flowSelectors(flow, 'out');
    expect(formatSelectorPair(selectors)).toBe(text);
    expect(new CompiledSelectors(selectors).matchesFlow(flow, true)).toBe(true);
    const { local, remote } = flowSelectors(flow, 'in');
    expect(formatSelectorPair({ local: remote, remote: local })).toBe(text);
  });
});

describe('formatFlow', () => {
  it.each([
    [UDP, 'udp 10.1.0.1:5000 > 10.2.0.1:53'],
    [{ ...UDP, src: 'fd00::1', dst: 'fd00::2' }, 'udp [fd00::1]:5000 > [fd00::2]:53'],
    [{ ...UDP, protocol: 1, payload: icmp(8, 0) }, 'icmp 10.1.0.1 > 10.2.0.1 type 8 code 0'],
    [{ ...UDP, protocol: 47 }, 'gre 10.1.0.1 > 10.2.0.1'],
    [{ ...UDP, offset: 8 }, 'udp 10.1.0.1 > 10.2.0.1 (a later fragment)'],
    [
      { ...UDP, src: 'fd00::1', dst: 'fd00::2', protocol: 60, offset: 8 },
      'unknown protocol fd00::1 > fd00::2 (a later fragment)',
    ],
  ])('%#', (fields, text) => {
    expect(formatFlow(flowOf(fields))).toBe(text);
  });
});
