import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CompiledSelectors } from '../../src/policy/compiled.ts';
import {
  compilePolicy,
  FRAGMENT_UNDECIDED,
  NO_ENTRY,
  orderPolicy,
  type PolicyEntry,
} from '../../src/policy/database.ts';
import { FlowCache } from '../../src/policy/flow-cache.ts';
import { Draw, smallAddress, smallFamily, smallPort, smallProtocol, smallSelector } from './arbitraries.ts';
import { flowOf, icmp, ports, sel } from './helpers.ts';
import { type Packet, pairFits, slowLookup, toFlow } from './reference.ts';

function entry(local: string[], remote: string[], more: Partial<PolicyEntry> = {}): PolicyEntry {
  return {
    name: 'e',
    direction: 'out',
    action: 'protect',
    priority: 0,
    selectors: { local: local.map(sel), remote: remote.map(sel) },
    level: 'require',
    ...more,
  };
}

describe('compilePolicy', () => {
  it('asks higher priorities first, then in the given order, and only its own direction', () => {
    const entries = [
      entry([], [], { name: 'a', priority: 1 }),
      entry([], [], { name: 'in', priority: 9, direction: 'in' }),
      entry([], [], { name: 'b', priority: 5 }),
      entry([], [], { name: 'c', priority: 1 }),
      entry([], [], { name: 'd', priority: -3 }),
    ];
    expect(orderPolicy(entries, 'out').map(({ name }) => name)).toEqual(['b', 'a', 'c', 'd']);
    expect(compilePolicy(entries, 'in').entries.map(({ name }) => name)).toEqual(['in']);
  });

  it('matches nothing when it is empty', () => {
    const policy = compilePolicy([], 'out');
    expect(policy.lookup(flowOf({ src: '10.0.0.1', dst: '10.0.0.2', protocol: 17 }))).toBe(NO_ENTRY);
    expect(policy.lookup(flowOf({ src: '::1', dst: '::2', protocol: 17 }))).toBe(NO_ENTRY);
  });

  it('takes local for the source outbound and for the destination inbound', () => {
    const make = (direction: 'in' | 'out'): PolicyEntry =>
      entry(['10.1.0.0/24 udp 5000'], ['10.2.0.0/24'], { direction });
    const there = flowOf({ src: '10.1.0.7', dst: '10.2.0.9', protocol: 17, payload: ports(5000, 9) });
    const back = flowOf({ src: '10.2.0.9', dst: '10.1.0.7', protocol: 17, payload: ports(9, 5000) });
    expect(compilePolicy([make('out')], 'out').lookup(there)).toBe(0);
    expect(compilePolicy([make('out')], 'out').lookup(back)).toBe(NO_ENTRY);
    expect(compilePolicy([make('in')], 'in').lookup(back)).toBe(0);
    expect(compilePolicy([make('in')], 'in').lookup(there)).toBe(NO_ENTRY);
  });

  it.each([
    ['10.0.0.0', true],
    ['10.0.0.3', true],
    ['9.255.255.255', false],
    ['10.0.0.4', false],
  ])('knows the ends of an address range: %s', (dst, inside) => {
    const policy = compilePolicy([entry(['0.0.0.0/0'], ['10.0.0.0/30'])], 'out');
    expect(policy.lookup(flowOf({ src: '1.1.1.1', dst, protocol: 6 }))).toBe(inside ? 0 : NO_ENTRY);
  });

  it('knows the first and the last address of both families', () => {
    const v4 = compilePolicy([entry(['0.0.0.0'], ['255.255.255.255'])], 'out');
    expect(v4.lookup(flowOf({ src: '0.0.0.0', dst: '255.255.255.255', protocol: 6 }))).toBe(0);
    expect(v4.lookup(flowOf({ src: '0.0.0.1', dst: '255.255.255.255', protocol: 6 }))).toBe(NO_ENTRY);
    expect(v4.lookup(flowOf({ src: '0.0.0.0', dst: '255.255.255.254', protocol: 6 }))).toBe(NO_ENTRY);
    const last = 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff';
    const v6 = compilePolicy([entry(['::'], [last])], 'out');
    expect(v6.lookup(flowOf({ src: '::', dst: last, protocol: 6 }))).toBe(0);
    expect(v6.lookup(flowOf({ src: '::1', dst: last, protocol: 6 }))).toBe(NO_ENTRY);
  });

  it.each([
    ['0', 0, true],
    ['0', 1, false],
    ['65535', 65535, true],
    ['65535', 65534, false],
    ['1-65535', 0, false],
    ['0-65534', 65535, false],
    ['0-65534', 65534, true],
    ['5000-5010', 4999, false],
    ['5000-5010', 5010, true],
    ['5000-5010', 5011, false],
    ['opaque', 5000, false],
  ])('knows the ends of a port range: %s and %i', (range, port, inside) => {
    const pair = entry(['0.0.0.0/0'], [`0.0.0.0/0 tcp ${range}`]);
    const flow = flowOf({ src: '1.1.1.1', dst: '2.2.2.2', protocol: 6, payload: ports(7, port) });
    expect(compilePolicy([pair], 'out').lookup(flow)).toBe(inside ? 0 : NO_ENTRY);
    expect(new CompiledSelectors(pair.selectors).matchesFlow(flow, true)).toBe(inside);
  });

  it('needs the protocol on both sides', () => {
    const policy = compilePolicy(
      [entry(['0.0.0.0/0 tcp'], ['0.0.0.0/0 udp']), entry(['0.0.0.0/0'], ['0.0.0.0/0 udp'])],
      'out',
    );
    expect(policy.lookup(flowOf({ src: '1.1.1.1', dst: '2.2.2.2', protocol: 17 }))).toBe(1);
    expect(policy.lookup(flowOf({ src: '1.1.1.1', dst: '2.2.2.2', protocol: 6 }))).toBe(NO_ENTRY);
  });

  it('refuses more pairs than it is built for', () => {
    const many = Array.from({ length: 1001 }, (_, i) => `10.${i >>> 8}.${i & 255}.0/25`);
    expect(() => compilePolicy([entry(many, many)], 'out')).toThrow(RangeError);
  });
});

describe('ICMP', () => {
  const request = flowOf({ src: '10.1.0.1', dst: '10.2.0.1', protocol: 1, payload: icmp(8, 0) });
  const reply = flowOf({ src: '10.1.0.1', dst: '10.2.0.1', protocol: 1, payload: icmp(0, 0) });

  it.each([
    ['type 8', '', true, true, 'both ways'],
    ['type 8', 'type 8', true, true, 'both ways'],
    ['type 8', 'opaque', true, false, 'sent only'],
    ['opaque', 'type 8', false, true, 'received only'],
    ['type 8 code 1', '', false, false, 'another code'],
    ['type 8', 'type 3', false, false, 'nothing: one message has one type'],
  ])('type 8 with local %s and remote %s', (local, remote, sent, received) => {
    const pair = entry([`0.0.0.0/0 icmp ${local}`.trim()], [`0.0.0.0/0 icmp ${remote}`.trim()]).selectors;
    const compiled = new CompiledSelectors(pair);
    expect([compiled.matchesFlow(request, true), compiled.matchesFlow(request, false)]).toEqual([sent, received]);
    expect([compiled.matchesFlow(reply, true), compiled.matchesFlow(reply, false)]).toEqual([false, false]);
    for (const direction of ['out', 'in'] as const) {
      const policy = compilePolicy([entry([], [], { direction, selectors: pair })], direction);
      expect(policy.lookup(request)).toBe((direction === 'out' ? sent : received) ? 0 : NO_ENTRY);
    }
  });

  it('takes the first of an exact and a one-sided entry', () => {
    const exact = entry(['0.0.0.0/0 icmp type 8'], ['0.0.0.0/0 icmp type 8']);
    const sendOnly = entry(['0.0.0.0/0 icmp type 8'], ['0.0.0.0/0 icmp opaque']);
    expect(compilePolicy([exact, sendOnly], 'out').lookup(request)).toBe(0);
    expect(compilePolicy([sendOnly, exact], 'out').lookup(request)).toBe(0);
    expect(compilePolicy([entry(['10.9.0.0/16'], ['0.0.0.0/0']), sendOnly, exact], 'out').lookup(request)).toBe(1);
  });
});

describe('stray fragments', () => {
  const stray = flowOf({ src: '10.1.0.1', dst: '10.2.0.1', protocol: 17, offset: 8 });
  const ofPort = entry(['0.0.0.0/0'], ['0.0.0.0/0 udp 5000']);
  const bypassAll = entry(['0.0.0.0/0'], ['0.0.0.0/0'], { action: 'bypass' });
  const protectAll = entry(['0.0.0.0/0'], ['0.0.0.0/0']);

  it('never match an entry with ports', () => {
    expect(compilePolicy([ofPort], 'out').lookup(stray)).toBe(NO_ENTRY);
    expect(compilePolicy([ofPort, protectAll], 'out').lookup(stray)).toBe(1);
  });

  it('match OPAQUE, which shown ports do not', () => {
    const opaque = compilePolicy([entry(['0.0.0.0/0 udp opaque'], ['0.0.0.0/0 udp opaque'])], 'out');
    expect(opaque.lookup(stray)).toBe(0);
    expect(opaque.lookup(flowOf({ src: '10.1.0.1', dst: '10.2.0.1', protocol: 17 }))).toBe(NO_ENTRY);
  });

  it.each(['protect', 'discard'] as const)('do not slip past an entry that may %s them into a bypass', (action) => {
    expect(compilePolicy([{ ...ofPort, action }, bypassAll], 'out').lookup(stray)).toBe(FRAGMENT_UNDECIDED);
  });

  it('are bypassed when no entry before could be theirs', () => {
    const elsewhere = entry(['0.0.0.0/0'], ['10.3.0.0/16 udp 5000']);
    const tcp = entry(['0.0.0.0/0'], ['0.0.0.0/0 tcp 80']);
    const bypassPort = entry(['0.0.0.0/0'], ['0.0.0.0/0 udp 53'], { action: 'bypass' });
    expect(compilePolicy([elsewhere, tcp, bypassPort, bypassAll, ofPort], 'out').lookup(stray)).toBe(3);
  });

  it('have no protocol to be trusted in IPv6 (RFC 8200 §4.5)', () => {
    const policy = compilePolicy(
      [entry(['::/0 udp'], ['::/0 udp']), entry(['::/0'], ['::/0'], { action: 'bypass' })],
      'out',
    );
    const claimsTcp = { src: 'fd00::1', dst: 'fd00::2', protocol: 6, offset: 8, id: 5 };
    expect(policy.lookup(flowOf(claimsTcp))).toBe(FRAGMENT_UNDECIDED);
    const known = flowOf(claimsTcp);
    known.firstSeen = true;
    expect(policy.lookup(known)).toBe(1);
  });

  it('whose first was seen are decided by its ports', () => {
    const flow = flowOf({ src: '10.1.0.1', dst: '10.2.0.1', protocol: 17, offset: 8 });
    flow.firstSeen = true;
    flow.srcPort = 1;
    flow.dstPort = 5001;
    expect(compilePolicy([ofPort, bypassAll], 'out').lookup(flow)).toBe(1);
    flow.dstPort = 5000;
    expect(compilePolicy([ofPort, bypassAll], 'out').lookup(flow)).toBe(0);
  });
});

const selectors = fc.array(smallSelector, { minLength: 1, maxLength: 3 });
const policyEntry: fc.Arbitrary<PolicyEntry> = fc.record({
  name: fc.constant('random'),
  direction: fc.constantFrom('in', 'out'),
  action: fc.constantFrom('protect', 'bypass', 'bypass', 'discard'),
  priority: fc.nat(3),
  selectors: fc.record({ local: selectors, remote: selectors }),
  level: fc.constant('require'),
});
const packet: fc.Arbitrary<Packet> = smallFamily.chain((family) =>
  fc
    .record({
      src: smallAddress(family),
      dst: smallAddress(family),
      protocol: smallProtocol,
      a: smallPort,
      b: smallPort,
      kind: fc.nat(2),
    })
    .map(({ src, dst, protocol, a, b, kind }) => ({
      src,
      dst,
      protocol,
      stray: kind === 0,
      ports: kind === 0 || protocol === 47 ? undefined : [1, 58, 135].includes(protocol) ? [a, a] : [a, b],
    })),
);

describe('against a slow reference', () => {
  it('the compiled policy decides 24,000 random packets alike, with and without the cache', () => {
    const outcomes = new Map<number, number>();
    fc.assert(
      fc.property(
        fc.array(policyEntry, { minLength: 5, maxLength: 40 }),
        fc.array(packet, { minLength: 100, maxLength: 100 }),
        (entries, packets) => {
          for (const direction of ['in', 'out'] as const) {
            const policy = compilePolicy(entries, direction);
            const cache = new FlowCache(16);
            for (const each of packets) {
              const expected = slowLookup(policy.entries, each, direction === 'out');
              const flow = toFlow(each);
              expect(policy.lookup(flow)).toBe(expected);
              expect(cache.lookup(policy, flow)).toBe(expected);
              expect(cache.lookup(policy, flow)).toBe(expected);
              outcomes.set(Math.min(expected, 0), (outcomes.get(Math.min(expected, 0)) ?? 0) + 1);
            }
          }
        },
      ),
      { numRuns: 120 },
    );
    // The random policies are such that every outcome is really met.
    for (const outcome of [0, NO_ENTRY, FRAGMENT_UNDECIDED]) expect(outcomes.get(outcome)).toBeGreaterThan(20);
  });

  it('100,000 random policies decide 100,000 random packets alike', () => {
    const draw = new Draw(5);
    const outcomes = new Map<number, number>();
    for (let set = 0; set < 1_000; set++) {
      const entries = Array.from({ length: 100 }, (): PolicyEntry => draw.entry());
      const policies = { in: compilePolicy(entries, 'in'), out: compilePolicy(entries, 'out') };
      for (let i = 0; i < 100; i++) {
        const direction = i % 2 === 0 ? 'in' : 'out';
        const policy = policies[direction];
        const each = draw.packet();
        const expected = slowLookup(policy.entries, each, direction === 'out');
        const found = policy.lookup(toFlow(each));
        // An assertion for each would take longer than the look-ups.
        if (found !== expected)
          expect({ set, direction, each, found }).toEqual({ set, direction, each, found: expected });
        const outcome = Math.min(expected, 0);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    }
    for (const outcome of [0, NO_ENTRY, FRAGMENT_UNDECIDED]) expect(outcomes.get(outcome)).toBeGreaterThan(1_000);
  });

  it('a compiled pair matches random packets alike', () => {
    let matches = 0;
    fc.assert(
      fc.property(
        selectors,
        selectors,
        fc.array(packet, { minLength: 20, maxLength: 20 }),
        (local, remote, packets) => {
          const compiled = new CompiledSelectors({ local, remote });
          for (const each of packets) {
            for (const outbound of [true, false]) {
              const expected = pairFits({ local, remote }, each, outbound);
              expect(compiled.matchesFlow(toFlow(each), outbound)).toBe(expected);
              if (expected) matches++;
            }
          }
        },
      ),
      { numRuns: 1000 },
    );
    expect(matches).toBeGreaterThan(500);
  });

  it('thousands of policies decide alike', () => {
    // A multiplicative sequence: fixed, but without a pattern that the index could profit from.
    let state = 12345;
    const random = (below: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const entries = Array.from({ length: 2000 }, (_, i) => {
      const net = `10.${random(16)}.${random(256)}.0/${20 + random(12)}`;
      const local = random(3) === 0 ? '0.0.0.0/0' : `192.168.${random(64)}.0/${16 + random(16)}`;
      const transport = ['', ' udp', ` tcp ${random(100)}`, ` tcp ${random(50)}-${50 + random(5000)}`][random(4)]!;
      return entry([local], [net + transport], { name: String(i), action: random(2) === 0 ? 'bypass' : 'protect' });
    });
    const policy = compilePolicy(entries, 'out');
    let found = 0;
    for (let i = 0; i < 2000; i++) {
      const each: Packet = {
        src: { family: 4, value: BigInt(0xc0a80000 + random(64 * 256)) },
        dst: { family: 4, value: BigInt(0x0a000000 + random(16 << 16)) },
        protocol: random(2) === 0 ? 6 : 17,
        stray: false,
        ports: [random(100), random(6000)],
      };
      const expected = slowLookup(policy.entries, each, true);
      expect(policy.lookup(toFlow(each))).toBe(expected);
      if (expected >= 0) found++;
    }
    expect(found).toBeGreaterThan(250);
  });
});

describe('FlowCache', () => {
  it('forgets everything when the policy is another', () => {
    const flow = flowOf({ src: '10.1.0.1', dst: '10.2.0.1', protocol: 17 });
    const cache = new FlowCache();
    expect(cache.lookup(compilePolicy([entry(['0.0.0.0/0'], ['0.0.0.0/0'])], 'out'), flow)).toBe(0);
    expect(cache.lookup(compilePolicy([], 'out'), flow)).toBe(NO_ENTRY);
  });

  /** A cache in front of a policy, and how often that was asked. */
  const counting = () => {
    const policy = compilePolicy([entry(['0.0.0.0/0'], ['0.0.0.0/0 udp 1-9'])], 'out');
    const cache = new FlowCache();
    const asked = { times: 0 };
    const lookup = policy.lookup.bind(policy);
    policy.lookup = (flow) => {
      asked.times++;
      return lookup(flow);
    };
    const to = (dst: number): number =>
      cache.lookup(policy, flowOf({ src: '10.1.0.1', dst: '10.2.0.1', protocol: 17, payload: ports(1, dst) }));
    return { cache, asked, to };
  };

  it('asks the policy once for a flow, again for another', () => {
    const { asked, to } = counting();
    expect([to(9), to(9), to(10), to(9), to(10)]).toEqual([0, 0, NO_ENTRY, 0, NO_ENTRY]);
    expect(asked.times).toBe(2);
  });

  it('is small for few flows, and grows with them up to a bound', () => {
    const { cache, asked, to } = counting();
    const round = (flows: number): number => {
      const before = asked.times;
      const answers = Array.from({ length: flows }, (_, i) => to(i + 1));
      expect(answers.filter((answer) => answer === 0)).toHaveLength(9);
      return asked.times - before;
    };
    for (let i = 0; i < 20; i++) round(10);
    expect(cache.slots).toBe(64);
    for (let i = 0; i < 8; i++) round(1_000);
    expect(cache.slots).toBeGreaterThanOrEqual(1_024);
    expect(round(1_000)).toBeLessThan(300);
    for (let i = 0; i < 3; i++) round(6_000);
    expect(cache.slots).toBe(4_096);
  });
});
