import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compilePolicy, orderPolicy, type PolicyEntry } from '../../src/policy/database.ts';
import { shadowedEntries } from '../../src/policy/shadow.ts';
import { smallAddress, smallPort, smallSelector } from './arbitraries.ts';
import { sel } from './helpers.ts';
import { toFlow } from './reference.ts';

function entry(name: string, local: string, remote: string, more: Partial<PolicyEntry> = {}): PolicyEntry {
  return {
    name,
    direction: 'out',
    action: 'protect',
    priority: 0,
    level: 'require',
    selectors: { local: local.split(', ').map(sel), remote: remote.split(', ').map(sel) },
    ...more,
  };
}

function shadowedBy(...entries: readonly PolicyEntry[]): string[] {
  return shadowedEntries(orderPolicy(entries, 'out')).map(
    (found) => `${found.entry.name} by ${found.by.map(({ name }) => name).join(' and ')}`,
  );
}

describe('shadowedEntries', () => {
  it('finds an entry that lies within another before it', () => {
    const wide = entry('wide', '10.0.0.0/8', '0.0.0.0/0');
    const inside = entry('inside', '10.1.0.0/24 udp 53', '10.2.0.0/24');
    expect(shadowedBy(wide, inside)).toEqual(['inside by wide']);
    expect(shadowedBy(inside, wide)).toEqual([]);
    expect(shadowedBy(wide, { ...inside, priority: 1 })).toEqual([]);
  });

  it('finds an entry that several before it take together', () => {
    const halves = [entry('low', '10.1.0.0/25', '0.0.0.0/0'), entry('high', '10.1.0.128/25', '10.2.0.0/24')];
    expect(shadowedBy(...halves, entry('all', '10.1.0.0/24', '10.2.0.0/24'))).toEqual(['all by low and high']);
    expect(shadowedBy(...halves, entry('all', '10.1.0.0/24', '10.2.0.0/23'))).toEqual([]);
    expect(shadowedBy(...halves, entry('both', '10.1.0.1, 10.1.0.200', '10.2.0.9'))).toEqual(['both by low and high']);
  });

  it('knows that a range of ports leaves what shows none', () => {
    const ports = entry('ports', '10.1.0.0/24 udp 0-65534', '0.0.0.0/0 udp');
    const last = entry('last', '10.1.0.0/24 udp 65535', '0.0.0.0/0 udp');
    expect(shadowedBy(ports, last, entry('any', '10.1.0.0/24 udp', '0.0.0.0/0'))).toEqual([]);
    const opaque = entry('opaque', '10.1.0.0/24 udp opaque', '0.0.0.0/0');
    expect(shadowedBy(ports, last, opaque, entry('any', '10.1.0.0/24 udp', '0.0.0.0/0'))).toEqual([
      'any by ports and last and opaque',
    ]);
  });

  it('finds an entry that no packet can match', () => {
    expect(shadowedBy(entry('families', '10.0.0.0/8', 'fd00::/8'))).toEqual(['families by ']);
    expect(shadowedBy(entry('protocols', '10.0.0.0/8 tcp', '10.0.0.0/8 udp'))).toEqual(['protocols by ']);
  });

  it('is right about every packet that there may be', () => {
    const list = fc.array(smallSelector, { minLength: 1, maxLength: 2 });
    const policy = fc.array(fc.record({ local: list, remote: list }), { minLength: 2, maxLength: 6 });
    const packet = fc.tuple(smallAddress(4), smallAddress(4), fc.constantFrom(1, 6, 17), smallPort, smallPort);
    fc.assert(
      fc.property(policy, fc.array(packet, { minLength: 30, maxLength: 30 }), (selectors, packets) => {
        const entries = selectors.map((pair, i) => entry(String(i), '::', '::', { selectors: pair }));
        const compiled = compilePolicy(entries, 'out');
        const never = new Set(shadowedEntries(compiled.entries).map((found) => found.entry));
        for (const [src, dst, protocol, a, b] of packets) {
          const ports = protocol === 1 ? ([a, a] as const) : ([a, b] as const);
          const decides = compiled.entries[compiled.lookup(toFlow({ src, dst, protocol, stray: false, ports }))];
          if (decides !== undefined) expect(never.has(decides)).toBe(false);
        }
      }),
      { numRuns: 300 },
    );
  });
});
