import { describe, expect, it } from 'vitest';
import { type IpAddress, parseAddress } from '../../../src/base/address.ts';
import { MemoryHostNetwork } from '../../../src/hostnet/routes/memory.ts';
import { describeRule, OWN_PROTOCOL, type Prefix, type Route, type Rule } from '../../../src/hostnet/routes/routes.ts';

const ip = (text: string): IpAddress => parseAddress(text)!;
const prefix = (text: string): Prefix => {
  const [address, length] = text.split('/');
  return { address: ip(address!), prefixLength: Number(length) };
};

/** A host with one link, up, in 192.0.2.0/24 and 2001:db8::/64. */
function host(): { network: MemoryHostNetwork; index: number } {
  const network = new MemoryHostNetwork();
  const index = network.addLink('eth0', 1500);
  network.setLink(index, { up: true, mtu: 1450 });
  network.addAddress({ linkIndex: index, ...prefix('192.0.2.1/24') });
  network.addAddress({ linkIndex: index, ...prefix('2001:db8::1/64') });
  return { network, index };
}

describe('a host network in memory', () => {
  it('keeps links and addresses', () => {
    const { network, index } = host();
    expect(network.link('eth0')).toEqual({ index, name: 'eth0', mtu: 1450, up: true, group: 0 });
    expect(network.link(index)).toBe(network.link('eth0'));
    const address = { linkIndex: index, ...prefix('192.0.2.1/24') };
    network.addAddress(address);
    expect(network.addresses()).toHaveLength(2);
    expect(network.addresses(99)).toEqual([]);
    network.deleteAddress(address);
    expect(network.addresses()).toHaveLength(1);
    expect(network.routeTo({ destination: ip('192.0.2.7') })).toBeUndefined();
    expect(() => network.setLink(99, { up: true })).toThrow('no such link');
  });

  it('replaces our routes, keeps those of others, and drops all with the link', () => {
    const { network, index } = host();
    const route: Route = { type: 'unicast', destination: prefix('10.1.0.0/16'), linkIndex: index, table: 1000 };
    network.addRoutes([{ ...route, type: 'blackhole', linkIndex: undefined }]);
    network.addRoutes([route]);
    expect(network.routes({ protocol: OWN_PROTOCOL })).toEqual([{ ...route, metric: 0, protocol: 83 }]);
    expect(() => network.addRoutes([{ ...route, destination: prefix('192.0.2.0/24'), table: 254 }])).toThrow('another');
    expect(network.deleteRoutes([{ ...route, metric: 7 }])).toBe(0);
    network.deleteLink(index);
    expect(network.routes()).toEqual([]);
    expect(network.addresses()).toEqual([]);
    expect(() => network.addRoutes([route])).toThrow('no such link');
  });

  it('answers by the longest prefix, then the lowest metric', () => {
    const { network, index } = host();
    network.addRoutes([{ type: 'unicast', destination: prefix('0.0.0.0/0'), gateway: ip('192.0.2.9'), metric: 9 }]);
    network.addRoutes([{ type: 'unicast', destination: prefix('0.0.0.0/0'), gateway: ip('192.0.2.8'), metric: 8 }]);
    network.addRoutes([{ type: 'unicast', destination: prefix('10.0.0.0/8'), linkIndex: index, mtu: 1300 }]);
    network.addRoutes([{ type: 'unreachable', destination: prefix('10.1.0.0/16') }]);
    const answer = {
      linkIndex: index,
      source: ip('192.0.2.1'),
      gateway: undefined,
      mtu: 1450,
      local: false,
      table: 254,
    };
    expect(network.routeTo({ destination: ip('203.0.113.1') })).toEqual({ ...answer, gateway: ip('192.0.2.8') });
    expect(network.routeTo({ destination: ip('10.2.0.1') })).toEqual({ ...answer, mtu: 1300 });
    expect(network.routeTo({ destination: ip('10.1.0.1') })).toBeUndefined();
    expect(network.routeTo({ destination: ip('2001:db8::7') })).toEqual({ ...answer, source: ip('2001:db8::1') });
    expect(network.routeTo({ destination: ip('2001:db9::7') })).toBeUndefined();
    expect(network.routeTo({ destination: ip('192.0.2.1') })).toMatchObject({ local: true });
  });

  it('follows rules in their order', () => {
    const { network, index } = host();
    const rule: Rule = {
      family: 4,
      priority: 7000,
      from: prefix('192.0.2.0/24'),
      to: prefix('10.0.0.0/8'),
      ipProtocol: 17,
      destinationPorts: { start: 5000, end: 5001 },
      action: { type: 'table', table: 1000 },
    };
    network.addRule(rule);
    network.addRule(rule);
    network.addRule({ family: 4, priority: 7001, to: prefix('10.0.0.0/8'), action: { type: 'unreachable' } });
    network.addRoutes([{ type: 'unicast', destination: prefix('10.0.0.0/8'), linkIndex: index, table: 1000 }]);
    const query = { destination: ip('10.0.0.1'), source: ip('192.0.2.1'), ipProtocol: 17, destinationPort: 5001 };
    expect(network.routeTo(query)).toMatchObject({ linkIndex: index, table: 1000 });
    expect(network.routeTo({ ...query, destinationPort: 5002 })).toBeUndefined();
    expect(network.routeTo({ ...query, ipProtocol: 6 })).toBeUndefined();
    expect(network.routeTo({ ...query, source: undefined })).toBeUndefined();
    expect(network.rules(4).map(describeRule)).toEqual([
      'rule 7000: from 192.0.2.0/24 to 10.0.0.0/8 table 1000',
      'rule 7001: from all to 10.0.0.0/8 unreachable',
      'rule 32766: from all table 254',
    ]);
    expect(network.deleteRule(rule)).toBe(true);
    expect(network.deleteRule(rule)).toBe(false);
  });
});
