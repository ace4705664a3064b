/** ICMP errors about protected packets, whose own headers no selector is for (RFC 4301 §6.2). */
import { describe, expect, it } from 'vitest';
import { type DropCounters, namedDrops } from '../../src/esp/drops.ts';
import { InboundPipeline } from '../../src/esp/inbound.ts';
import { OutboundPipeline } from '../../src/esp/outbound.ts';
import { CompiledSelectors } from '../../src/policy/compiled.ts';
import { compilePolicy, type PolicyEntry } from '../../src/policy/database.ts';
import { InboundGuard } from '../../src/policy/guard.ts';
import type { SelectorPair } from '../../src/policy/selector.ts';
import { icmp, type PacketFields, packet, ports, sel } from '../policy/helpers.ts';
import { batchOf, inboundSa, outboundSa, sealed } from './support.ts';

const here: SelectorPair = { local: [sel('10.1.0.0/24 udp 53')], remote: [sel('10.2.0.0/24 udp')] };
const there: SelectorPair = { local: here.remote, remote: here.local };
const entry: PolicyEntry = {
  name: 'dns',
  direction: 'out',
  action: 'protect',
  priority: 0,
  selectors: here,
  child: 'dns',
  level: 'require',
};
const anything: SelectorPair = { local: [sel('0.0.0.0/0')], remote: [sel('0.0.0.0/0')] };

/** A query that came in by the SA, and a router of ours that cannot deliver it. */
const QUERY: PacketFields = { src: '10.2.0.1', dst: '10.1.0.1', protocol: 17, payload: ports(2000, 53) };
const ROUTER = '10.9.0.254';

function error(about: PacketFields, change: Partial<PacketFields> = {}, type = 3, quoted = 28): Uint8Array {
  const original = packet({ ...about, payload: new Uint8Array(200).fill(1) });
  original.set((about.payload ?? ports(1, 2)).slice(0, 8), original.length - 200);
  const payload = new Uint8Array(8 + quoted);
  payload.set(icmp(type, 1));
  payload.set(original.subarray(0, quoted), 8);
  return packet({ src: ROUTER, dst: about.src, protocol: 1, payload, ...change });
}

function send(
  bytes: Uint8Array,
  entries = [entry],
): { path: number | undefined; drops: DropCounters; missing: number } {
  let missing = 0;
  const onMissing = (): boolean => {
    missing++;
    return false;
  };
  const pipeline = new OutboundPipeline(compilePolicy(entries, 'out'), { onMissing });
  pipeline.add(0, outboundSa({ selectors: new CompiledSelectors(here), pathIndex: 5 }), { active: true });
  const batch = batchOf(bytes);
  pipeline.process(0, batch);
  return { path: batch.length[0] === 0 ? undefined : batch.tag[0], drops: pipeline.drops, missing };
}

function receive(bytes: Uint8Array, guard?: InboundGuard): string {
  const pipeline = new InboundPipeline();
  pipeline.add(inboundSa({ selectors: new CompiledSelectors(there), guard }));
  const batch = batchOf(sealed(outboundSa({ selectors: new CompiledSelectors(anything) }), bytes));
  pipeline.process(0, batch);
  if (batch.length[0] === 0) return Object.keys(namedDrops(pipeline.drops)).join();
  expect(batch.packet(0)).toEqual(bytes);
  return 'delivered';
}

describe('an ICMP error that no entry is for', () => {
  it('leaves on the SA of the traffic that it is about', () => {
    expect(send(error(QUERY)).path).toBe(5);
    expect(send(error(QUERY, {}, 11)).path).toBe(5);
  });

  it.each<[string, Uint8Array]>([
    ['about traffic of another port', error({ ...QUERY, payload: ports(2000, 54) })],
    ['about traffic from elsewhere', error({ ...QUERY, src: '10.3.0.1' })],
    ['for another host than the one that it tells of', error(QUERY, { dst: '10.2.0.2' })],
    ['about what we sent ourselves', error({ ...QUERY, src: QUERY.dst, dst: QUERY.src, payload: ports(53, 2000) })],
    ['that quotes too little', error(QUERY, {}, 3, 22)],
    ['about a later fragment, whose ports nobody sees', error({ ...QUERY, offset: 1480 })],
    ['that is none, but an answer', error(QUERY, {}, 0)],
  ])('does not %s', (_, bytes) => {
    const { path, drops, missing } = send(bytes);
    expect([path, namedDrops(drops), missing]).toEqual([undefined, { 'no-policy': 1 }, 0]);
  });

  it('does not slip past an entry that is for it', () => {
    const never: PolicyEntry = {
      ...entry,
      name: 'never',
      action: 'discard',
      child: undefined,
      selectors: { local: [sel('0.0.0.0/0 icmp')], remote: [sel('0.0.0.0/0 icmp')] },
    };
    const { path, drops } = send(error(QUERY), [entry, never]);
    expect([path, namedDrops(drops)]).toEqual([undefined, { 'discarded-by-policy': 1 }]);
  });

  it('asks for no SA when there is none', () => {
    const missing: number[] = [];
    const pipeline = new OutboundPipeline(compilePolicy([entry], 'out'), {
      onMissing: (index) => {
        missing.push(index);
        return false;
      },
    });
    pipeline.process(0, batchOf(error(QUERY)));
    expect([missing, namedDrops(pipeline.drops)]).toEqual([[], { 'no-policy': 1 }]);
  });
});

describe('an ICMP error that comes out of an SA whose selectors it does not fit', () => {
  it('is taken when what it is about was sent on that SA', () => {
    expect(receive(error(QUERY))).toBe('delivered');
  });

  it.each<[string, Uint8Array]>([
    ['about another port', error({ ...QUERY, payload: ports(2000, 54) })],
    ['about another host of ours', error({ ...QUERY, src: '10.3.0.1' })],
    ['for another host than the one that it tells of', error(QUERY, { dst: '10.2.0.2' })],
    ['that is no error', error(QUERY, {}, 8)],
  ])('is not taken %s', (_, bytes) => {
    expect(receive(bytes)).toBe('selector-mismatch');
  });

  it('is held against the policy as the traffic that it is about', () => {
    const inbound = (child: string): PolicyEntry => ({ ...entry, direction: 'in', selectors: there, child });
    expect(receive(error(QUERY), new InboundGuard({ own: [inbound('dns')], rivals: [] }, 'dns'))).toBe('delivered');
    expect(receive(error(QUERY), new InboundGuard({ own: [inbound('other')], rivals: [] }, 'dns'))).toBe(
      'selector-mismatch',
    );
  });
});

describe('an ICMPv6 error', () => {
  it('goes with its traffic like one of IPv4', () => {
    const six: SelectorPair = { local: [sel('fd00:1::/64 udp 53')], remote: [sel('fd00:2::/64 udp')] };
    const about: PacketFields = { src: 'fd00:2::1', dst: 'fd00:1::1', protocol: 17, payload: ports(2000, 53) };
    const payload = new Uint8Array(8 + 48);
    payload.set(icmp(1, 4));
    payload.set(packet(about), 8);
    const bytes = packet({ src: 'fd00:9::1', dst: 'fd00:2::1', protocol: 58, payload });
    const pipeline = new OutboundPipeline(compilePolicy([{ ...entry, selectors: six }], 'out'), {
      onMissing: () => undefined,
    });
    pipeline.add(0, outboundSa({ selectors: new CompiledSelectors(six), pathIndex: 6 }), { active: true });
    const batch = batchOf(bytes);
    pipeline.process(0, batch);
    expect([batch.length[0] === 0, batch.tag[0]]).toEqual([false, 6]);
  });
});
