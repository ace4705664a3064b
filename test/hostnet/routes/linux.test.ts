import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type IpAddress, parseAddress } from '../../../src/base/address.ts';
import { LinuxHostNetwork } from '../../../src/hostnet/routes/linux.ts';
import {
  type NetworkChange,
  OWN_PROTOCOL,
  type Prefix,
  type Route,
  type Rule,
} from '../../../src/hostnet/routes/routes.ts';
import { SystemError } from '../../../src/sys/errno.ts';
import { describeInterop } from '../../support/lab/requirements.ts';
import { enterNewNamespace, ipCommand } from '../../tun/namespace.ts';

const ip = (text: string): IpAddress => parseAddress(text)!;
const prefix = (text: string): Prefix => {
  const [address, length] = text.split('/');
  return { address: ip(address!), prefixLength: Number(length) };
};
const json = (...words: readonly string[]): Record<string, unknown>[] => JSON.parse(ipCommand('-j', ...words) || '[]');

describeInterop('the configuration of a Linux network namespace', ['namespaces'], () => {
  let leave: () => void;
  let network: LinuxHostNetwork;
  let index: number;

  beforeAll(() => {
    leave = enterNewNamespace();
    network = new LinuxHostNetwork();
  });
  afterAll(async () => {
    await network.close();
    leave();
  });
  /** A link of a pair, up, with an address of each family. */
  beforeEach(() => {
    for (const { ifname } of json('link', 'show', 'type', 'veth')) {
      if (ifname === 'va') ipCommand('link', 'delete', 'va');
    }
    ipCommand('link', 'add', 'va', 'type', 'veth', 'peer', 'name', 'vb');
    ipCommand('link', 'set', 'vb', 'up');
    index = network.link('va')!.index;
    network.setLink(index, { up: true, mtu: 1450, queue: 777 });
    ipCommand('address', 'add', '192.0.2.1/24', 'dev', 'va');
    ipCommand('address', 'add', '2001:db8::1/64', 'dev', 'va', 'nodad');
  });

  it('changes links', () => {
    expect(network.link('va')).toEqual({ index, name: 'va', mtu: 1450, up: true, group: 0 });
    expect(network.link(index)).toEqual(network.link('va'));
    expect(json('link', 'show', 'va')[0]).toMatchObject({
      mtu: 1450,
      txqlen: 777,
      flags: expect.arrayContaining(['UP']),
    });
    network.setLink(index, { up: false, group: 83 });
    expect(network.link(index)).toMatchObject({ up: false, group: 83 });
    expect(network.link('nothing')).toBeUndefined();
    expect(() => network.setLink(9999, { up: true })).toThrow(/change link 9999.*ENODEV/);
    expect(() => network.setLink(index, { mtu: 10 })).toThrow(/mtu less than device minimum/);
  });

  it('lists addresses', () => {
    const four = { linkIndex: index, ...prefix('192.0.2.1/24') };
    const six = { linkIndex: index, ...prefix('2001:db8::1/64') };
    expect(network.addresses(index)).toEqual(expect.arrayContaining([four, six]));
    expect(network.addresses()).toEqual(expect.arrayContaining([four, six]));
    expect(network.addresses(9999)).toEqual([]);
    ipCommand('address', 'delete', '192.0.2.1/24', 'dev', 'va');
    expect(network.addresses(index)).not.toContainEqual(four);
  });

  it('sets routes that iproute2 and we both read back', () => {
    const routes: Route[] = [
      { type: 'unicast', destination: prefix('10.1.0.0/16'), linkIndex: index, source: ip('192.0.2.1'), mtu: 1300 },
      { type: 'unicast', destination: prefix('0.0.0.0/0'), linkIndex: index, gateway: ip('192.0.2.9'), metric: 70 },
      { type: 'unicast', destination: prefix('2001:db8:1::/48'), linkIndex: index, table: 1000 },
      { type: 'unreachable', destination: prefix('10.2.0.0/16'), table: 1000 },
      { type: 'blackhole', destination: prefix('2001:db8:2::/48'), table: 1000 },
    ];
    for (const route of routes) {
      network.addRoutes([route]);
      network.addRoutes([route]);
    }
    const found = network.routes({ protocol: OWN_PROTOCOL });
    expect(found).toHaveLength(5);
    for (const route of routes) expect(found).toContainEqual(expect.objectContaining(route));
    expect(network.routes({ protocol: OWN_PROTOCOL, table: 1000, family: 6 })).toHaveLength(2);
    expect(json('route', 'show', '10.1.0.0/16')).toEqual([
      expect.objectContaining({ dev: 'va', protocol: '83', scope: 'link', prefsrc: '192.0.2.1' }),
    ]);
    expect(json('route', 'show', 'table', '1000')).toEqual([
      expect.objectContaining({ type: 'unreachable', dst: '10.2.0.0/16', protocol: '83' }),
    ]);
    for (const route of routes) {
      expect(network.deleteRoutes([route])).toBe(1);
      expect(network.deleteRoutes([route])).toBe(0);
    }
    expect(network.routes({ protocol: OWN_PROTOCOL })).toEqual([]);
  });

  it('replaces a route of ours, and leaves those of others alone', () => {
    const route: Route = { type: 'unicast', destination: prefix('10.1.0.0/16'), linkIndex: index };
    network.addRoutes([{ type: 'unreachable', destination: route.destination }]);
    network.addRoutes([route]);
    expect(network.routes({ protocol: OWN_PROTOCOL })).toEqual([expect.objectContaining(route)]);
    network.deleteRoutes([route]);
    ipCommand('route', 'add', '10.1.0.0/16', 'dev', 'va');
    expect(() => network.addRoutes([route])).toThrow(/add route 10\.1\.0\.0\/16.*Another program's route \(protocol 3/);
    expect(network.deleteRoutes([route])).toBe(0);
    expect(json('route', 'show', '10.1.0.0/16')).toHaveLength(1);
  });

  it('sets rules that iproute2 and we both read back', () => {
    const full: Rule = {
      family: 4,
      priority: 7000,
      from: prefix('192.0.2.0/24'),
      to: prefix('10.2.0.0/16'),
      inputLink: 'lo',
      ipProtocol: 17,
      sourcePorts: { start: 5000, end: 5010 },
      destinationPorts: { start: 5000, end: 5000 },
      action: { type: 'table', table: 1000 },
    };
    const six: Rule = { family: 6, priority: 7001, to: prefix('2001:db8:9::/48'), action: { type: 'unreachable' } };
    const beside: Rule = { family: 6, priority: 7002, suppressedGroup: 83, action: { type: 'table', table: 1000 } };
    const jump: Rule = { family: 4, priority: 6990, ipProtocol: 50, action: { type: 'goto', priority: 6992 } };
    const place: Rule = { family: 4, priority: 6992, action: { type: 'nop' } };
    for (const rule of [full, six, beside, jump, place]) {
      network.addRule(rule);
      network.addRule(rule);
      const found = network.rules(rule.family).filter(({ priority }) => priority === rule.priority);
      expect(found).toEqual(
        [{ ...rule, protocol: 83, ...(rule.family === 6 && { from: undefined }) }].map((one) =>
          expect.objectContaining(one),
        ),
      );
    }
    expect(json('rule', 'show', 'priority', '7000')).toEqual([
      {
        priority: 7000,
        src: '192.0.2.0',
        srclen: 24,
        dst: '10.2.0.0',
        dstlen: 16,
        iif: 'lo',
        ipproto: 'udp',
        sport_start: 5000,
        sport_end: 5010,
        dport: 5000,
        table: '1000',
        protocol: '83',
      },
    ]);
    expect(ipCommand('rule', 'show', 'priority', '6990')).toContain('ipproto esp goto 6992');
    expect(ipCommand('-6', 'rule', 'show', 'priority', '7002')).toContain('lookup 1000 suppress_ifgroup 83');
    for (const rule of [jump, place, beside]) expect(network.deleteRule(rule)).toBe(true);
    expect(network.deleteRule(full)).toBe(true);
    expect(network.deleteRule(full)).toBe(false);
    expect(network.deleteRule(six)).toBe(true);
    expect(network.rules().map(({ priority }) => priority)).toEqual([0, 32_766, 32_767, 0, 32_766]);
  });

  it('knows which way a packet would take', () => {
    network.addRoutes([{ type: 'unicast', destination: prefix('10.1.0.0/16'), linkIndex: index, mtu: 1300 }]);
    network.addRoutes([{ type: 'unicast', destination: prefix('10.3.0.0/16'), gateway: ip('192.0.2.9') }]);
    network.addRoutes([{ type: 'blackhole', destination: prefix('10.1.1.0/24') }]);
    network.addRoutes([{ type: 'unreachable', destination: prefix('2001:db8:7::/48') }]);
    network.addRoutes([{ type: 'blackhole', destination: prefix('2001:db8:8::/48') }]);
    const answer = {
      linkIndex: index,
      source: ip('192.0.2.1'),
      gateway: undefined,
      mtu: 1450,
      local: false,
      table: 254,
    };
    expect(network.routeTo({ destination: ip('192.0.2.77') })).toEqual(answer);
    expect(network.routeTo({ destination: ip('10.1.2.3') })).toEqual({ ...answer, mtu: 1300 });
    expect(network.routeTo({ destination: ip('10.3.2.3') })).toEqual({ ...answer, gateway: ip('192.0.2.9') });
    expect(network.routeTo({ destination: ip('2001:db8::77') })).toEqual({ ...answer, source: ip('2001:db8::1') });
    expect(network.routeTo({ destination: ip('192.0.2.1') })).toMatchObject({ local: true, table: 255 });
    for (const nowhere of ['10.1.1.1', '203.0.113.1', '2001:db8:7::1', '2001:db8:8::1', '2001:db9::1']) {
      expect(network.routeTo({ destination: ip(nowhere) }), nowhere).toBeUndefined();
    }
  });

  it('looks rules with ports up', () => {
    const rule: Rule = {
      family: 4,
      priority: 7000,
      ipProtocol: 17,
      destinationPorts: { start: 5000, end: 5000 },
      action: { type: 'unreachable' },
    };
    network.addRule(rule);
    const destination = ip('192.0.2.77');
    expect(network.routeTo({ destination, ipProtocol: 17, destinationPort: 5000 })).toBeUndefined();
    expect(network.routeTo({ destination, ipProtocol: 17, destinationPort: 5001 })).toBeDefined();
    expect(network.routeTo({ destination, source: ip('192.0.2.1') })).toBeDefined();
    network.deleteRule(rule);
  });

  it.each([
    [4, '192.0.2.77'],
    [6, '2001:db8::77'],
  ] as const)('looks rules with marks up, IPv%i', (family, to) => {
    const rule: Rule = { family, priority: 7000, mark: 0x20_0000, action: { type: 'unreachable' } };
    network.addRule(rule);
    expect(network.routeTo({ destination: ip(to), mark: 0x20_0001 })).toBeUndefined();
    expect(network.routeTo({ destination: ip(to), mark: 0x10_0000 })).toBeDefined();
    expect(network.routeTo({ destination: ip(to) })).toBeDefined();
    network.deleteRule(rule);
  });

  it.each([
    ['203.0.113.7', '10.4.0.1', '10.4.0.0/16'],
    ['2001:db8:77::7', '2001:db8:4::1', '2001:db8:4::/48'],
  ])('knows the way and the table of a packet from %s that is forwarded', (from, to, destinationPrefix) => {
    const [source, destination] = [ip(from), ip(to)];
    const { family } = destination;
    const rule: Rule = {
      family,
      priority: 7000,
      to: prefix(destinationPrefix),
      action: { type: 'table', table: 1000 },
    };
    network.addRule(rule);
    network.addRoutes([{ type: 'unicast', destination: prefix(destinationPrefix), linkIndex: index, table: 1000 }]);
    writeFileSync(`/proc/sys/net/ipv${family}/conf/all/forwarding`, '1');
    // Only with the link that it comes in by: this host may not send from an address that it does not have.
    if (family === 4) expect(network.routeTo({ destination, source })).toBeUndefined();
    const query = { destination, source, inputLinkIndex: network.link('va')!.index };
    expect(network.routeTo(query)).toMatchObject({ linkIndex: index, table: 1000, local: false });
    network.deleteRule(rule);
  });

  it('lists more than one message holds', () => {
    const table = 1000;
    for (let i = 0; i < 2000; i++) {
      network.addRoutes([
        {
          type: 'blackhole',
          destination: { address: { family: 4, value: 0x0b00_0000n + BigInt(i) }, prefixLength: 32 },
          table,
        },
      ]);
    }
    expect(network.routes({ table, protocol: OWN_PROTOCOL })).toHaveLength(2000);
    expect(network.deleteRoutes(network.routes({ table }))).toBe(2000);
  });

  it('says what was refused, with the kernel’s own words', () => {
    const route: Route = { type: 'unicast', destination: prefix('10.4.0.0/16'), gateway: ip('203.0.113.1') };
    expect(() => network.addRoutes([route])).toThrow(
      /^add route 10\.4\.0\.0\/16 in table 254: .*Nexthop has invalid gateway/,
    );
    expect(() => network.addRoutes([route])).toThrow(SystemError);
  });

  describe('under watch', () => {
    const changes: NetworkChange[] = [];

    beforeAll(() => network.watch((change) => changes.push(change)));
    beforeEach(async () => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      changes.length = 0;
    });

    it('reports changes of links, addresses, routes and rules by this program and others', async () => {
      const rule: Rule = {
        family: 6,
        priority: 9_999,
        to: prefix('fd09::/16'),
        action: { type: 'table', table: 1000 },
      };
      const route: Route = { type: 'unreachable', destination: prefix('10.9.0.0/16'), table: 1000, metric: 7 };
      network.addRule(rule);
      ipCommand('-6', 'rule', 'del', 'pref', '9999');
      network.addRoutes([route]);
      ipCommand('route', 'del', 'unreachable', '10.9.0.0/16', 'table', '1000');
      ipCommand('addr', 'del', '192.0.2.1/24', 'dev', 'va');
      ipCommand('link', 'set', 'va', 'down');
      ipCommand('link', 'del', 'va');
      await expect
        .poll(() => changes.some((change) => change.kind === 'link' && change.gone), { interval: 1 })
        .toBe(true);
      for (const gone of [false, true]) {
        expect(changes).toContainEqual({
          kind: 'rule',
          gone,
          rule: expect.objectContaining({ ...rule, protocol: 83 }),
        });
        expect(changes).toContainEqual({ kind: 'route', gone, route: expect.objectContaining(route) });
      }
      const address = { linkIndex: index, ...prefix('192.0.2.1/24') };
      expect(changes).toContainEqual({ kind: 'address', gone: true, address });
      expect(changes).toContainEqual({
        kind: 'link',
        gone: false,
        link: expect.objectContaining({ index, up: false }),
      });
    });

    it('reports that more changed than could be reported', async () => {
      const destination = (i: number): Prefix => ({
        address: { family: 4, value: 0x0b00_0000n + BigInt(i) },
        prefixLength: 32,
      });
      const many = Array.from(
        { length: 20_000 },
        (_, i): Route => ({ type: 'blackhole', destination: destination(i), table: 1000 }),
      );
      network.addRoutes(many);
      // At once, and when all that had been told before was read: nothing is told meanwhile.
      await expect.poll(() => changes.filter(({ kind }) => kind === 'unknown').length, { interval: 1 }).toBe(2);
      expect(changes.at(-1)).toEqual({ kind: 'unknown' });
      const rule: Rule = { family: 4, priority: 9_998, action: { type: 'table', table: 1000 } };
      network.addRule(rule);
      await expect.poll(() => changes.some(({ kind }) => kind === 'rule'), { interval: 1 }).toBe(true);
      expect(network.deleteRoutes(many)).toBe(many.length);
      expect(network.deleteRule(rule)).toBe(true);
    });
  });
});
