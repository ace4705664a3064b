/** Tunnels with many different local networks: packets pass few rules, and take the way that they took by a rule for each. */
import { describe, expect, it } from 'vitest';
import type { IpAddress } from '../../../src/base/address.ts';
import { MemoryHostNetwork } from '../../../src/hostnet/routes/memory.ts';
import {
  type InstalledRule,
  type InterfaceAddress,
  OWN_PROTOCOL,
  prefixContains,
  type Route,
  type Rule,
  ruleFits,
} from '../../../src/hostnet/routes/routes.ts';
import { ruleKey } from '../../../src/hostnet/steering/compare.ts';
import type { RoutingPlan } from '../../../src/hostnet/steering/plan.ts';
import { UNBOUND_TABLES } from '../../../src/hostnet/steering/unbound.ts';
import { address, box, Host } from './tunnel-host.ts';

/** Looks at each change of rules and routes. */
class Kernel extends MemoryHostNetwork {
  look: () => void = () => undefined;

  override addRules(rules: readonly Rule[]): void {
    for (const rule of rules) {
      super.addRules([rule]);
      this.look();
    }
  }

  override deleteRule(rule: Rule): boolean {
    const was = super.deleteRule(rule);
    this.look();
    return was;
  }

  override addRoutes(routes: readonly Route[]): void {
    for (const route of routes) {
      super.addRoutes([route]);
      this.look();
    }
  }

  override deleteRoutes(routes: readonly Route[]): number {
    const count = super.deleteRoutes(routes);
    this.look();
    return count;
  }
}

const FAMILIES = [4, 6] as const;
type Family = (typeof FAMILIES)[number];

const local = (family: Family, n: number): string => (family === 4 ? `10.1.${n}.` : `fd01:${n.toString(16)}::`);
const remote = (family: Family, n: number): string => (family === 4 ? `10.2.${n}.` : `fd02:${n.toString(16)}::`);
const net = (family: Family, prefix: string): string => (family === 4 ? `${prefix}0/24` : `${prefix}/64`);

function hostWith(family: Family, own: number): { readonly host: Host; readonly network: Kernel } {
  const network = new Kernel();
  const [line, lan] = [network.addLink('eth0', 1500), network.addLink('lan0', 1500)];
  const gateway = address(family === 4 ? '192.0.2.254' : '2001:db8::fe');
  network.addAddress({
    ...{ linkIndex: line, address: address(family === 4 ? '192.0.2.1' : '2001:db8::1') },
    prefixLength: family === 4 ? 24 : 64,
  });
  const destination = { address: address(family === 4 ? '0.0.0.0' : '::'), prefixLength: 0 };
  network.addRoutes([{ type: 'unicast', destination, gateway, linkIndex: line }]);
  // Of no networks, so that nothing is guarded.
  for (let n = 0; n < own; n++) network.addAddress(ownAddress(family, n, lan));
  return { host: new Host(network, lan), network };
}

const ownAddress = (family: Family, n: number, lan: number) => ({
  ...{ linkIndex: lan, address: address(`${local(family, n)}1`) },
  prefixLength: family === 4 ? 32 : 128,
});

const plan = (host: Host, family: Family, n: number): RoutingPlan =>
  host.plan(`s${n}`, [box(net(family, local(family, n)), net(family, remote(family, n)))]);

/** The links that packets to a tunnel leave by: those of guests, of the host with a source, and of the host without. */
function ways(host: Host, family: Family, n: number): string[] {
  const to = `${remote(family, n)}9`;
  return [
    host.way(to, { source: address(`${local(family, n)}7`), inputLinkIndex: host.lan }),
    host.way(to, { source: address(`${local(family, n)}1`) }),
    host.way(to, {}),
  ];
}

function ownRules({ network }: Host): string[] {
  return network
    .rules()
    .filter(({ protocol }) => protocol === OWN_PROTOCOL)
    .map(ruleKey)
    .sort();
}

/** How many rules a packet that no tunnel concerns passes. */
function passed({ network, lan }: Host, source: IpAddress): number {
  const rules = network.rules(source.family);
  const query = {
    destination: address(source.family === 4 ? '198.18.0.1' : '2001:db8:9::1'),
    source,
    inputLinkIndex: lan,
  };
  let count = 0;
  for (let at = 0; at < rules.length; at++) {
    const { action } = rules[at]!;
    count++;
    if (action.type !== 'goto' || !ruleFits(rules[at]!, query, 'lan0')) continue;
    at = rules.findIndex(({ priority }) => priority === action.priority) - 1;
  }
  return count;
}

const MANY = 120;

describe.each(FAMILIES)('tunnels with many local networks, over IPv%d', (family) => {
  it('are each reached by their own packets, at each moment while others come and go', () => {
    const { host, network } = hostWith(family, MANY);
    const before = ownRules(host);
    const up = new Set<number>();
    let looks = 0;
    network.look = () => {
      looks++;
      // Not each time all.
      for (const n of up)
        if ((n + looks) % 17 === 0) expect([n, ways(host, family, n)]).toEqual([n, Array(3).fill(`s${n}`)]);
    };
    for (let n = 0; n < MANY; n++) {
      host.start(plan(host, family, n));
      up.add(n);
    }
    expect(passed(host, address(family === 4 ? '10.7.0.1' : 'fd07::1'))).toBeLessThan(family === 4 ? 14 : 18);
    expect(passed(host, address(`${local(family, 99)}7`))).toBeLessThan(40);
    const stranger = address(family === 4 ? '10.7.0.1' : 'fd07::1');
    for (const n of up)
      expect(host.way(`${remote(family, n)}9`, { source: stranger, inputLinkIndex: host.lan })).toBe('eth0');
    for (let n = 0; n < MANY; n += 2) {
      up.delete(n);
      host.stop(`s${n}`);
      expect(ways(host, family, n)).toEqual(Array(3).fill('eth0'));
    }
    for (const n of up) expect(ways(host, family, n)).toEqual(Array(3).fill(`s${n}`));
    network.look = () => undefined;
    for (const n of up) host.stop(`s${n}`);
    expect(ownRules(host)).toEqual(before);
    expect(network.routes({ protocol: OWN_PROTOCOL }).filter(({ table }) => table !== 254)).toEqual([]);
  });

  it('have no way while there is no device, and are put right when others change rules or routes', async () => {
    const { host, network } = hostWith(family, 40);
    for (let n = 0; n < 40; n++) host.start(plan(host, family, n));
    const before = [ownRules(host), host.state[1]];
    network.take({ rule: ({ protocol, priority }) => protocol === OWN_PROTOCOL && priority % 2 === 0 });
    network.take({ route: ({ table, destination }) => table !== 254 && destination.address.value % 3n === 0n });
    expect((await host.routing.mend()).found.length).toBeGreaterThan(20);
    expect([ownRules(host), host.state[1]]).toEqual(before);
    network.take({ rule: ({ protocol }) => protocol === OWN_PROTOCOL });
    await host.routing.mend();
    expect([ownRules(host), host.state[1]]).toEqual(before);
    expect((await host.routing.mend()).found).toEqual([]);
    network.deleteLink(network.link('s7')!.index);
    expect(ways(host, family, 7)).toEqual(Array(3).fill('none'));
    expect(ways(host, family, 8)).toEqual(Array(3).fill('s8'));
    expect((await host.routing.mend()).found).toEqual([]);
  });

  it('follow the addresses of the host: without one its packets without a source are refused', async () => {
    const { host, network } = hostWith(family, 20);
    for (let n = 0; n < 40; n++) host.start(plan(host, family, n));
    const own = (n: number): string => host.way(`${remote(family, n)}9`, {});
    // Over IPv6 the device has no address to choose from.
    const refused = family === 4 ? 'none' : 's30';
    expect([own(3), own(30)]).toEqual(['s3', refused]);
    expect(host.routing.lacks('s30')[0]).toMatch(/no address in/);
    network.addAddress(ownAddress(family, 30, host.lan));
    network.deleteAddress(ownAddress(family, 3, host.lan));
    expect(own(3)).toBe(family === 4 ? 'none' : 's3');
    network.look = () => expect([own(3), own(30), own(9)]).not.toContain('eth0');
    const { found, adapted } = await host.routing.mend();
    expect(found).toEqual([]);
    expect([...adapted.keys()].sort()).toEqual(['s3', 's30']);
    expect([own(3), own(30)]).toEqual([family === 4 ? 'none' : 's3', 's30']);
    expect(network.routeTo({ destination: address(`${remote(family, 30)}9`) })?.source).toEqual(
      address(`${local(family, 30)}1`),
    );
    expect((await host.routing.mend()).found).toEqual([]);
  });

  it('are taken over by the next daemon without a gap, and nothing of the one before stays', async () => {
    const { host: first, network } = hostWith(family, 60);
    const before = ownRules(first);
    for (let n = 0; n < 60; n++) first.start(plan(first, family, n));
    const stood = ownRules(first);
    for (let n = 0; n < 60; n++) network.deleteLink(network.link(`s${n}`)!.index);
    const next = new Host(network, first.lan);
    let looks = 0;
    network.look = () => {
      looks++;
      for (let n = looks % 13; n < 60; n += 13) expect(ways(next, family, n)).not.toContain('eth0');
    };
    const plans = Array.from({ length: 60 }, (_, n) => plan(next, family, n));
    next.routing.reconcile(plans);
    for (const { tunnel, claims, redundancy } of plans) next.order.set({ tunnel, device: tunnel, claims, redundancy });
    for (const one of plans) next.routing.prepare(one, one.tunnel);
    await next.routing.mend();
    expect((await next.routing.mend()).found).toEqual([]);
    expect(ownRules(next).length).toBe(stood.length);
    for (const one of plans) next.start(one);
    for (let n = 0; n < 60; n++) expect(ways(next, family, n)).toEqual(Array(3).fill(`s${n}`));
    network.look = () => undefined;
    for (const { tunnel } of plans) next.stop(tunnel);
    expect(ownRules(next)).toEqual(before);
    expect(network.routes({ protocol: OWN_PROTOCOL }).filter(({ table }) => table !== 254)).toEqual([]);
  });

  it('are taken over where few of them are to run again', async () => {
    const { host: first, network } = hostWith(family, 30);
    for (let n = 0; n < 30; n++) first.start(plan(first, family, n));
    for (let n = 0; n < 30; n++) network.deleteLink(network.link(`s${n}`)!.index);
    const next = new Host(network, first.lan);
    const plans = [3, 4, 5].map((n) => plan(next, family, n));
    next.routing.reconcile(plans);
    expect(ways(next, family, 7)).toEqual(Array(3).fill('eth0'));
    expect(ways(next, family, 4)).toEqual(Array(3).fill('none'));
    // What has not come back yet stays as it is.
    next.start(plans[0]!);
    await next.routing.mend();
    expect(ways(next, family, 4)).toEqual(Array(3).fill('none'));
    for (const one of plans.slice(1)) next.start(one);
    await next.routing.mend();
    expect(ways(next, family, 4)).toEqual(Array(3).fill('s4'));
    const fresh = hostWith(family, 30).host;
    for (const n of [3, 4, 5]) fresh.start(plan(fresh, family, n));
    expect(ownRules(next).length).toBe(ownRules(fresh).length);
    expect(next.state[1]).toHaveLength((fresh.state[1] as unknown[]).length);
  });
});

describe.each(FAMILIES)('what came out of tunnels with many local networks, over IPv%d', (family) => {
  /** A packet out of a tunnel, to a network behind this host. */
  const onward = (host: Host, n: number, by = `s${n}`): string =>
    host.way(`${local(family, n)}9`, {
      source: address(`${remote(family, n)}9`),
      inputLinkIndex: host.network.link(by)!.index,
    });
  const lan = (host: Host, n: number): InterfaceAddress => ({
    ...{ linkIndex: host.lan, address: address(`${local(family, n)}1`) },
    prefixLength: family === 4 ? 24 : 64,
  });

  it('reaches them by their own routes or not at all, at each moment, and passes few rules', async () => {
    const { host, network } = hostWith(family, 0);
    const before = ownRules(host);
    for (let n = 0; n < 60; n++) network.addAddress(lan(host, n));
    const up = new Set<number>();
    let looks = 0;
    network.look = () => {
      looks++;
      for (const n of up)
        if ((n + looks) % 7 === 0) expect([n, onward(host, n)]).toEqual([n, n === 4 ? 'none' : 'lan0']);
    };
    for (let n = 0; n < 60; n++) {
      const at = (n * 7) % 60;
      host.start(plan(host, family, at));
      // The link of this one goes, at some time.
      if (at === 4) {
        network.take({ route: (route) => route.table === 254 && onNetwork(route, `${local(family, 4)}9`) });
        network.deleteAddress(lan(host, 4));
      }
      up.add(at);
    }
    const guarding = network.rules(family).filter(({ to, priority }) => to !== undefined && priority >= 29_000);
    expect(guarding.length).toBeGreaterThan(120);
    expect(passed(host, address(family === 4 ? '10.7.0.1' : 'fd07::1'))).toBeLessThan(24);
    expect([onward(host, 4), onward(host, 5)]).toEqual(['none', 'lan0']);
    // Of others it is no matter.
    expect(
      host.way(`${local(family, 4)}9`, { source: address(`${local(family, 5)}9`), inputLinkIndex: host.lan }),
    ).toBe('eth0');
    await host.routing.mend();
    expect((await host.routing.mend()).found).toEqual([]);
    expect(host.routing.lacks('s4').join()).toContain('no route any more');
    network.take({ rule: ({ protocol, priority }) => protocol === OWN_PROTOCOL && priority >= 29_000 });
    network.look = () => undefined;
    await host.routing.mend();
    expect([onward(host, 4), onward(host, 5), onward(host, 59)]).toEqual(['none', 'lan0', 'lan0']);
    expect((await host.routing.mend()).found).toEqual([]);
    for (let n = 0; n < 60; n++) host.stop(`s${n}`);
    expect(ownRules(host)).toEqual(before);
  });

  it('is refused by the next daemon as well, which finds what was guarded', async () => {
    const { host: first, network } = hostWith(family, 0);
    for (let n = 0; n < 40; n++) network.addAddress(lan(first, n));
    for (let n = 0; n < 40; n++) first.start(plan(first, family, n));
    const stood = ownRules(first);
    network.take({ route: (route) => route.table === 254 && onNetwork(route, `${local(family, 4)}9`) });
    const next = new Host(network, first.lan);
    const plans = Array.from({ length: 40 }, (_, n) => plan(next, family, n));
    network.look = () => expect([onward(next, 4), onward(next, 30)]).toEqual(['none', 'lan0']);
    next.routing.reconcile(plans);
    for (const one of plans) next.start(one);
    await next.routing.mend();
    expect((await next.routing.mend()).found).toEqual([]);
    expect(ownRules(next).length).toBe(stood.length);
    network.look = () => undefined;
    for (const { tunnel } of plans) next.stop(tunnel);
    expect(ownRules(next)).toEqual([]);
  });
});

function onNetwork({ destination }: Route, host: string): boolean {
  return destination.prefixLength > 0 && prefixContains(destination, address(host));
}

describe('gathered tables', () => {
  it('leave a rule of another program its packets, wherever it comes', async () => {
    const { host, network } = hostWith(4, 40);
    const foreign = (priority: number): InstalledRule => ({
      ...{ family: 4, priority, from: { address: address('172.16.0.0'), prefixLength: 12 } },
      ...{ action: { type: 'unreachable' }, protocol: 4 },
    });
    network.put({ rule: foreign(9_000) });
    for (let n = 0; n < 40; n++) host.start(plan(host, 4, n));
    const isRefused = (): boolean =>
      host.way('198.18.0.1', { source: address('172.16.0.1'), inputLinkIndex: host.lan }) === 'none';
    expect(isRefused()).toBe(true);
    network.take({ rule: ({ priority }) => priority === 9_000 });
    expect(isRefused()).toBe(false);
    network.put({ rule: foreign(15_000) });
    await host.routing.mend();
    expect(isRefused()).toBe(true);
    for (let n = 0; n < 40; n++) expect(ways(host, 4, n)).toEqual(Array(3).fill(`s${n}`));
    expect((await host.routing.mend()).found).toEqual([]);
  });

  it('come before the tables of tunnels that are asked after theirs, those that were there before included', () => {
    const { host } = hostWith(4, 40);
    host.start(plan(host, 4, 0));
    // Wider, so it comes after that one.
    host.start(
      host.plan('wide', [box('10.1.0.0/16', '10.2.0.0/16', { protocol: 17 }), box('10.1.0.0/16', '10.3.0.0/16')]),
    );
    const way = (to: string): string =>
      host.way(to, { source: address('10.1.0.7'), inputLinkIndex: host.lan, ipProtocol: 17 });
    expect([way('10.2.0.9'), way('10.2.1.9'), way('10.3.0.9')]).toEqual(['s0', 'wide', 'wide']);
    for (let n = 20; n < 40; n++) {
      host.start(host.plan(`s${n}`, [box(`10.9.${n}.0/24`, `10.2.${n}.0/24`)]));
    }
    expect([way('10.2.0.9'), way('10.2.1.9'), way('10.3.0.9')]).toEqual(['s0', 'wide', 'wide']);
  });

  it('send what has no source by the first of those with one destination, and by the next when that goes', async () => {
    const { host } = hostWith(4, 40);
    for (let n = 0; n < 20; n++) host.start(plan(host, 4, n));
    host.start(host.plan('twin', [box('10.1.30.0/24', '10.2.5.0/24')]));
    host.start(host.plan('deep', [box('10.1.31.0/24', '10.2.5.64/26')]));
    const own = (to: string): string => host.way(to, {});
    expect([own('10.2.5.9'), own('10.2.5.65')]).toEqual(['s5', 'deep']);
    expect(host.way('10.2.5.9', { source: address('10.1.30.1') })).toBe('twin');
    host.stop('s5');
    expect([own('10.2.5.9'), own('10.2.5.65')]).toEqual(['twin', 'deep']);
    // One whose device has just gone: it is reported later.
    host.start(host.plan('third', [box('10.1.32.0/24', '10.2.5.0/24')]));
    host.network.deleteLink(host.network.link('third')!.index);
    host.stop('twin');
    expect([own('10.2.5.9'), own('10.2.5.65')]).toEqual(['none', 'deep']);
    host.stop('third');
    expect([own('10.2.5.9'), own('10.2.5.65')]).toEqual(['eth0', 'deep']);
    expect((await host.routing.mend()).found).toEqual([]);
  });

  it('leave their own tables to no document', () => {
    const { host } = hostWith(4, 0);
    for (const table of UNBOUND_TABLES) {
      expect(() => host.start({ ...plan(host, 4, 0), table })).toThrow(
        `routing table ${table} is what packets without`,
      );
    }
  });

  it('may have networks within one another', () => {
    const { host } = hostWith(4, 0);
    for (let n = 0; n < 20; n++) host.start(plan(host, 4, n));
    host.start(host.plan('outer', [box('10.1.0.0/16', '10.8.0.0/16')]));
    host.start(host.plan('inner', [box('10.1.5.64/26', '10.9.0.0/16')]));
    const way = (to: string): string => host.way(to, { source: address('10.1.5.65'), inputLinkIndex: host.lan });
    expect([way('10.8.0.1'), way('10.9.0.1'), way('10.2.5.9'), way('10.2.6.9')]).toEqual([
      'outer',
      'inner',
      's5',
      'eth0',
    ]);
  });
});
