/** Hundreds of tunnels with local networks of their own in a real kernel: each packet takes its way, at each moment. */
import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { LinuxHostNetwork } from '../../../src/hostnet/routes/linux.ts';
import { OWN_PROTOCOL, type Route, type RouteQuery, type Rule, ruleFits } from '../../../src/hostnet/routes/routes.ts';
import type { RoutingPlan } from '../../../src/hostnet/steering/plan.ts';
import { PolicyRouting } from '../../../src/hostnet/steering/policy-routing.ts';
import { TunnelOrder } from '../../../src/hostnet/steering/tunnel-order.ts';
import { describeInterop } from '../../support/lab/requirements.ts';
import { enterNewNamespace, ipCommand } from '../../tun/namespace.ts';
import { address, box, planOf } from './tunnel-host.ts';

const COUNT = 300;
const DEVICES = 10;

/** Looks after each message to the kernel. */
class WatchedNetwork extends LinuxHostNetwork {
  look: () => void = () => undefined;
  messages = 0;

  override addRules(rules: readonly Rule[]): void {
    this.messages += rules.length;
    super.addRules(rules);
    this.look();
  }

  override deleteRule(rule: Rule): boolean {
    this.messages++;
    const was = super.deleteRule(rule);
    this.look();
    return was;
  }

  override addRoutes(routes: readonly Route[]): void {
    this.messages += routes.length;
    super.addRoutes(routes);
    this.look();
  }

  override deleteRoutes(routes: readonly Route[]): number {
    this.messages += routes.length;
    const count = super.deleteRoutes(routes);
    this.look();
    return count;
  }
}

/** Of all numbers. */
const shuffled = Array.from({ length: COUNT }, (_, at) => (at * 107) % COUNT);
const octets = (n: number): string => `${n >> 8}.${n & 255}`;
const device = (n: number): string => `dev${n % DEVICES}`;
/** Tunnels are for both families. */
const plan = (n: number): RoutingPlan =>
  planOf(`s${n}`, [
    box(`10.${octets(n)}.0/24`, `11.${octets(n)}.0/24`),
    box(`fd01:0:${n.toString(16)}::/64`, `fd02:0:${n.toString(16)}::/64`),
  ]);

describeInterop('hundreds of tunnels with local networks of their own, in the kernel', ['namespaces'], () => {
  let leave: () => void;
  let network: WatchedNetwork;
  let order = new TunnelOrder();
  let routing: PolicyRouting;
  const links = new Map<string, number>();

  beforeAll(() => {
    leave = enterNewNamespace();
    network = new WatchedNetwork();
    routing = new PolicyRouting(network, order);
    // Nothing else changes anything but where it is said.
    routing.follow();
    for (const name of ['eth0', 'lan0', ...Array.from({ length: DEVICES }, (_, n) => device(n))]) {
      ipCommand('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}-end`);
      ipCommand('link', 'set', name, 'addrgenmode', 'none');
      for (const end of [name, `${name}-end`]) ipCommand('link', 'set', end, 'up');
      links.set(name, network.link(name)!.index);
    }
    ipCommand('link', 'set', 'lo', 'up');
    ipCommand('address', 'add', '192.0.2.1/24', 'dev', 'eth0');
    ipCommand('address', 'add', '2001:db8::1/64', 'dev', 'eth0', 'nodad');
    ipCommand('route', 'add', 'default', 'via', '192.0.2.254');
    ipCommand('-6', 'route', 'add', 'default', 'via', '2001:db8::fe');
    ipCommand('address', 'add', '172.16.0.1/24', 'dev', 'lan0');
    ipCommand('address', 'add', 'fd0f::1/64', 'dev', 'lan0', 'nodad');
    // Even ones have an address of the host.
    for (let n = 0; n < COUNT; n += 2) {
      ipCommand('address', 'add', `10.${octets(n)}.1/32`, 'dev', 'lo');
      ipCommand('address', 'add', `fd01:0:${n.toString(16)}::1/128`, 'dev', 'lo');
    }
    // Odd ones have a network behind it.
    for (let n = 1; n < COUNT; n += 2) {
      ipCommand('route', 'add', `10.${octets(n)}.0/24`, 'dev', 'lan0');
      ipCommand('-6', 'route', 'add', `fd01:0:${n.toString(16)}::/64`, 'dev', 'lan0');
    }
    for (const key of ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding']) sysctl(key);
  }, 120_000);
  afterAll(async () => {
    await network.close();
    leave();
  });

  function start(n: number): void {
    const { tunnel, claims, redundancy } = plan(n);
    order.set({ tunnel, device: device(n), claims, redundancy });
    routing.prepare(plan(n), device(n));
    routing.open(tunnel, links.get(device(n))!);
  }

  const way = (query: RouteQuery): string => {
    const answer = network.routeTo(query);
    return answer === undefined ? 'none' : network.link(answer.linkIndex)!.name;
  };
  /** Of guests, over IPv4 and IPv6; of the host with a source, and without one, where it has addresses. */
  function ways(n: number): string[] {
    const [four, six] = [address(`11.${octets(n)}.9`), address(`fd02:0:${n.toString(16)}::9`)];
    const inputLinkIndex = links.get('lan0')!;
    const own = [`10.${octets(n)}.1`, `fd01:0:${n.toString(16)}::1`].map(address);
    return [
      way({ destination: four, source: address(`10.${octets(n)}.7`), inputLinkIndex }),
      way({ destination: six, source: address(`fd01:0:${n.toString(16)}::7`), inputLinkIndex }),
      ...(n % 2 === 0 ? [four, six].map((destination, at) => way({ destination, source: own[at] })) : []),
      ...(n % 2 === 0 ? [four, six].map((destination) => way({ destination })) : []),
    ];
  }
  /** Of what came out of a tunnel, over IPv4 and IPv6. */
  const onward = (n: number): string[] =>
    [
      [`10.${octets(n)}.9`, `11.${octets(n)}.9`],
      [`fd01:0:${n.toString(16)}::9`, `fd02:0:${n.toString(16)}::9`],
    ].map(([to, from]) =>
      way({ destination: address(to!), source: address(from!), inputLinkIndex: links.get(device(n))! }),
    );
  const all = (n: number): string[] => Array(n % 2 === 0 ? 6 : 2).fill(device(n));

  /** How many rules a packet passes on its way to the main table. */
  function passed(family: 4 | 6, source: string): number {
    const rules = network.rules(family);
    const query = { destination: address(family === 4 ? '198.18.0.1' : '2001:db8:9::1'), source: address(source) };
    let count = 0;
    for (let at = 0; at < rules.length; at++) {
      const { action } = rules[at]!;
      count++;
      if (action.type !== 'goto' || !ruleFits(rules[at]!, query, 'lan0')) continue;
      at = rules.findIndex(({ priority }) => priority === action.priority) - 1;
    }
    return count;
  }

  it('are reached while others come, pass few rules, and take few messages each', { timeout: 120_000 }, () => {
    const up: number[] = [];
    let looks = 0;
    network.look = () => {
      const n = up[(looks++ * 7) % up.length];
      if (n !== undefined) expect([n, ...ways(n)]).toEqual([n, ...all(n)]);
      if (n !== undefined && n % 2 === 1) expect([n, ...onward(n)]).toEqual([n, 'lan0', 'lan0']);
    };
    for (const [at, n] of shuffled.entries()) {
      if (at === 200) network.messages = 0;
      start(n);
      up.push(n);
    }
    // Routes into the device and such as refuse, for both families and twice; two look-ups, and what trees are changed by.
    expect(network.messages / 100).toBeLessThan(40);
    network.look = () => undefined;
    for (const n of up) expect([n, ...ways(n)]).toEqual([n, ...all(n)]);
    ipCommand('route', 'delete', '10.0.7.0/24', 'dev', 'lan0');
    ipCommand('-6', 'route', 'delete', 'fd01:0:7::/64', 'dev', 'lan0');
    expect([onward(7), onward(9)]).toEqual([
      ['none', 'none'],
      ['lan0', 'lan0'],
    ]);
    // The host has no address for these; over IPv6 it is for the device to have none.
    expect(network.routeTo({ destination: address('11.0.7.9') })).toBeUndefined();
    expect(way({ destination: address('fd02:0:7::9') })).toBe(device(7));
    expect(network.routeTo({ destination: address('11.0.8.9') })?.source).toEqual(address('10.0.8.1'));
    expect(network.routeTo({ destination: address('fd02:0:8::9') })?.source).toEqual(address('fd01:0:8::1'));
    const others = [
      way({ destination: address('11.0.8.9'), source: address('172.16.0.7'), inputLinkIndex: links.get('lan0')! }),
    ];
    expect(others).toEqual(['eth0']);
    expect([passed(4, '172.16.0.7'), passed(6, 'fd0f::7')].every((count) => count < 26)).toBe(true);
    expect([passed(4, '10.0.77.7'), passed(6, 'fd01:0:4d::7')].every((count) => count < 42)).toBe(true);
  });

  it('are found as they are wanted, and put right where others change them', { timeout: 120_000 }, async () => {
    expect((await routing.mend()).found).toEqual([]);
    ipCommand('rule', 'flush');
    ipCommand('rule', 'add', 'pref', '32766', 'lookup', 'main');
    ipCommand('-6', 'rule', 'flush');
    ipCommand('-6', 'rule', 'add', 'pref', '32766', 'lookup', 'main');
    expect((await routing.mend()).problems.size).toBe(COUNT);
    expect((await routing.mend()).found).toEqual([]);
    for (let n = 0; n < COUNT; n += 7) expect([n, ...ways(n)]).toEqual([n, ...all(n)]);
  });

  it('are taken over by the next daemon without a gap, and leave nothing', { timeout: 120_000 }, async () => {
    const plans = Array.from({ length: COUNT }, (_, n) => plan(n));
    order = new TunnelOrder();
    routing = new PolicyRouting(network, order);
    routing.follow();
    let looks = 0;
    network.look = () => {
      const n = (looks++ * 7) % COUNT;
      expect([n, ...ways(n)]).not.toContain('eth0');
      if (n % 2 === 1) expect([n, ...onward(n)].slice(1)).toEqual(n === 7 ? ['none', 'none'] : ['lan0', 'lan0']);
    };
    routing.reconcile(plans);
    for (const n of shuffled.toReversed()) start(n);
    await routing.mend();
    expect((await routing.mend()).found).toEqual([]);
    network.look = () => undefined;
    for (let n = 0; n < COUNT; n++) expect([n, ...ways(n)]).toEqual([n, ...all(n)]);
    for (const n of shuffled) {
      routing.release(`s${n}`);
      order.delete(`s${n}`);
    }
    expect(network.rules().filter(({ protocol }) => protocol === OWN_PROTOCOL)).toEqual([]);
    expect(network.routes({ protocol: OWN_PROTOCOL })).toEqual([]);
  });
});

function sysctl(key: string): void {
  writeFileSync(`/proc/sys/${key.replaceAll('.', '/')}`, '1');
}
