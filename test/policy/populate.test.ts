import { describe, expect, it } from 'vitest';
import { CompiledSelectors } from '../../src/policy/compiled.ts';
import { type PacketFlags, populate, populatedKey, populatedKeyOf } from '../../src/policy/populate.ts';
import { containsPair, formatSelectorPair, type SelectorPair, samePair } from '../../src/policy/selector.ts';
import { Draw } from './arbitraries.ts';
import { flowOf, icmp, type PacketFields, ports, sel } from './helpers.ts';
import { toFlow } from './reference.ts';

const NONE: PacketFlags = {
  localAddress: false,
  remoteAddress: false,
  protocol: false,
  localPort: false,
  remotePort: false,
};
const office: SelectorPair = {
  local: [sel('10.1.0.0/24'), sel('fd00:1::/64')],
  remote: [sel('10.2.0.0/24 udp 1000-2000'), sel('10.2.0.0/24 tcp'), sel('10.2.0.0/24 icmp'), sel('fd00:2::/64')],
};
const PACKET: PacketFields = { src: '10.1.0.1', dst: '10.2.0.1', protocol: 17, payload: ports(5, 1000) };

function populated(flags: Partial<PacketFlags>, fields: PacketFields = PACKET, selectors = office): string | undefined {
  const pair = populate(selectors, { ...NONE, ...flags }, flowOf(fields));
  return pair && formatSelectorPair(pair);
}

describe('selectors that are populated from a packet', () => {
  it('take the selected values, and leave the rest', () => {
    expect(populated({ localAddress: true })).toBe(
      '10.1.0.1 === 10.2.0.0/24 udp 1000-2000, 10.2.0.0/24 tcp, 10.2.0.0/24 icmp',
    );
    expect(populated({ remoteAddress: true })).toBe(
      '10.1.0.0/24 === 10.2.0.1 udp 1000-2000, 10.2.0.1 tcp, 10.2.0.1 icmp',
    );
    expect(populated({ protocol: true })).toBe(
      '10.1.0.0/24 udp, fd00:1::/64 udp === 10.2.0.0/24 udp 1000-2000, fd00:2::/64 udp',
    );
    expect(
      populated({ protocol: true, localPort: true, remotePort: true, localAddress: true, remoteAddress: true }),
    ).toBe('10.1.0.1 udp 5 === 10.2.0.1 udp 1000');
  });

  it('leave type and code of ICMP alone, whose answer has others', () => {
    const echo = { ...PACKET, protocol: 1, payload: icmp(8, 0) };
    const flags = { protocol: true, remotePort: true, remoteAddress: true };
    expect(populated(flags, echo)).toBe('10.1.0.0/24 icmp === 10.2.0.1 icmp');
  });

  it('are none when the packet does not show what is wanted, or is of no part', () => {
    const fragment = { ...PACKET, offset: 8, payload: new Uint8Array(8) };
    const range: SelectorPair = { local: [sel('10.1.0.0/24 udp')], remote: [sel('10.2.0.0/24 udp 1000-2000')] };
    expect(populated({ protocol: true, remotePort: true }, fragment, range)).toBeUndefined();
    expect(populated({ localAddress: true }, { ...PACKET, src: '10.3.0.1' })).toBeUndefined();
  });
});

describe('the key of a packet', () => {
  it('is that of the SA which it calls for, which carries it, and nothing beyond the entry', () => {
    const draw = new Draw(11);
    const flag = (): boolean => draw.below(2) === 0;
    let populatedOnes = 0;
    for (let i = 0; i < 20_000; i++) {
      const { selectors } = draw.entry();
      const [localPort, remotePort] = [flag(), flag()];
      const flags = {
        localAddress: flag(),
        remoteAddress: flag(),
        protocol: flag() || localPort || remotePort,
        localPort,
        remotePort,
      };
      const packet = draw.packet();
      const flow = toFlow(packet);
      if (!new CompiledSelectors(selectors).matchesFlow(flow, true)) continue;
      const pair = populate(selectors, flags, flow);
      const about = {
        i,
        flags,
        packet,
        selectors: formatSelectorPair(selectors),
        pair: pair && formatSelectorPair(pair),
      };
      if (pair === undefined) continue;
      populatedOnes++;
      const found = {
        within: containsPair(selectors, pair),
        carries: new CompiledSelectors(pair).matchesFlow(flow, true),
        key: flags.localAddress || flags.remoteAddress || flags.protocol ? populatedKeyOf(flags, pair) : 0,
      };
      expect({ ...about, ...found }).toEqual({ ...about, within: true, carries: true, key: populatedKey(flags, flow) });
      // Whatever packet of it calls again, calls for the same.
      expect(samePair(populate(pair, flags, flow)!, pair)).toBe(true);
    }
    expect(populatedOnes).toBeGreaterThan(200);
  });

  it('is none for an SA of more than one value', () => {
    const flags = { ...NONE, localAddress: true };
    expect(populatedKeyOf(flags, office)).toBeUndefined();
    expect(populatedKeyOf({ ...NONE, protocol: true }, office)).toBeUndefined();
    const one: SelectorPair = { local: [sel('10.1.0.1 udp 5')], remote: [sel('10.2.0.0/24 udp 1000-2000')] };
    expect(populatedKeyOf(flags, one)).toBeDefined();
    expect(populatedKeyOf({ ...NONE, protocol: true, remotePort: true }, one)).toBeUndefined();
  });
});
