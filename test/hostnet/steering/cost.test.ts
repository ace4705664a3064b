/** What a tunnel costs beside many others: what is read of the system, and what is looked at when the system reports it. */
import { describe, expect, it } from 'vitest';
import { parseAddress, prefixRange } from '../../../src/base/address.ts';
import { MemoryHostNetwork } from '../../../src/hostnet/routes/memory.ts';
import {
  type InstalledRoute,
  type InstalledRule,
  type InterfaceAddress,
  type LinkChange,
  metricOf,
  type NetworkChange,
  OWN_PROTOCOL,
  type Route,
  type RouteFilter,
  type Rule,
} from '../../../src/hostnet/routes/routes.ts';
import type { RoutingPlan } from '../../../src/hostnet/steering/plan.ts';
import { PolicyRouting } from '../../../src/hostnet/steering/policy-routing.ts';

/** A kernel that reports its own users' changes too, later, and counts what is read of it. */
class Kernel extends MemoryHostNetwork {
  items = 0;
  #report: (change: NetworkChange) => void = () => undefined;
  readonly #late: NetworkChange[] = [];

  override watch(onChange: (change: NetworkChange) => void): void {
    super.watch(onChange);
    this.#report = onChange;
  }

  /** Delivers what was not reported yet. */
  deliver(): void {
    for (const change of this.#late.splice(0)) this.#report(change);
  }

  override rules(family?: 4 | 6): InstalledRule[] {
    return this.#read(super.rules(family));
  }

  override routes(filter?: RouteFilter): InstalledRoute[] {
    return this.#read(super.routes(filter));
  }

  override addresses(linkIndex?: number): InterfaceAddress[] {
    return this.#read(super.addresses(linkIndex));
  }

  override addRules(rules: readonly Rule[]): void {
    super.addRules(rules);
    for (const rule of rules) this.#late.push({ kind: 'rule', gone: false, rule: { ...rule, protocol: OWN_PROTOCOL } });
  }

  override deleteRule(rule: Rule): boolean {
    const was = super.deleteRule(rule);
    if (was) this.#late.push({ kind: 'rule', gone: true, rule: { ...rule, protocol: OWN_PROTOCOL } });
    return was;
  }

  override addRoutes(routes: readonly Route[]): void {
    super.addRoutes(routes);
    for (const route of routes) this.#late.push({ kind: 'route', gone: false, route: installed(route) });
  }

  override deleteRoutes(routes: readonly Route[]): number {
    const count = super.deleteRoutes(routes);
    for (const route of routes) this.#late.push({ kind: 'route', gone: true, route: installed(route) });
    return count;
  }

  override setLink(index: number, change: LinkChange): void {
    const before = this.link(index);
    super.setLink(index, change);
    if (before !== undefined) this.#late.push({ kind: 'link', gone: false, link: before });
    const link = this.link(index);
    if (link !== undefined) this.#late.push({ kind: 'link', gone: false, link });
  }

  #read<T>(items: T[]): T[] {
    this.items += items.length;
    return items;
  }
}

function installed(route: Route): InstalledRoute {
  return { ...route, table: route.table ?? 254, metric: metricOf(route), protocol: OWN_PROTOCOL };
}

class Host {
  readonly network = new Kernel();
  readonly routing = new PolicyRouting(this.network);
  due = 0;
  readonly #devices = new Map<number, number>();
  readonly #own: boolean;

  /** @param locals whether each tunnel has local addresses of its own */
  constructor({ locals }: { readonly locals: 'own' | 'same' }) {
    this.#own = locals === 'own';
    const lan = this.network.addLink('lan0', 1500);
    this.network.addAddress({ linkIndex: lan, address: parseAddress('10.1.0.1')!, prefixLength: 16 });
    this.network.watch((change) => {
      if (this.routing.heard(change)) this.due++;
    });
    this.routing.follow();
  }

  #plan(number: number): RoutingPlan {
    const second = `${number >> 8}.${number & 255}.0`;
    const local = this.#own
      ? prefixRange(parseAddress(`12.${second}`)!, 24)
      : prefixRange(parseAddress('10.1.0.0')!, 16);
    const remote = prefixRange(parseAddress(`11.${second}`)!, 24);
    const box = { action: 'protect', level: 'require', child: 'c', local, remote } as const;
    return {
      ...{ tunnel: `net${number}`, claims: { boxes: [], size: 0 } as never, redundancy: undefined, table: undefined },
      own: { peer: parseAddress('192.0.2.2'), ports: [500], peerPorts: [500] },
      ...{ outbound: [box], inbound: [box], host: undefined },
    };
  }

  start(number: number): void {
    this.routing.prepare(this.#plan(number), `stun${number}`);
    const device = this.network.addLink(`stun${number}`, 1400);
    this.#devices.set(number, device);
    this.network.setLink(device, { up: true });
    this.routing.open(`net${number}`, device);
    this.network.deliver();
  }

  stop(number: number): void {
    this.network.deleteLink(this.#devices.get(number)!);
    this.routing.release(`net${number}`, this.#plan(number));
    this.network.deliver();
  }

  /** Of rules, routes and addresses. */
  read(work: () => void): number {
    const before = this.network.items;
    work();
    return this.network.items - before;
  }
}

describe.each(['own', 'same'] as const)('a tunnel beside many others, with the %s local addresses', (locals) => {
  it('is started, prepared once more and stopped by reading no more than the first, and leaves nothing to look at', async () => {
    const host = new Host({ locals });
    // The first reads all that there is, and those that share tables fill these.
    for (let number = 0; number < 40; number++) host.start(number);
    const early = host.read(() => host.start(40));
    for (let number = 41; number < 240; number++) host.start(number);
    const late = host.read(() => host.start(240));
    expect(late).toBeLessThanOrEqual(early);
    expect(host.read(() => host.start(240))).toBeLessThanOrEqual(early + 2);
    expect(host.read(() => host.stop(100))).toBeLessThanOrEqual(4);
    expect(host.due).toBe(0);
    expect((await host.routing.mend('reported')).found).toEqual([]);
    const { found, problems } = await host.routing.mend('everything');
    expect([found, problems.size]).toEqual([[], 240]);
  });

  it('is looked at alone, or its table, when another program takes something of it', async () => {
    const host = new Host({ locals });
    for (let number = 0; number < 100; number++) host.start(number);
    const table = host.routing.tableOf('net70')!;
    const [first] = host.network.rules().filter((rule) => rule.owner === table);
    host.network.take({ rule: (rule) => rule.owner === table && rule.priority === first!.priority });
    expect(host.due).toBeGreaterThan(0);
    const { found, problems } = await host.routing.mend('reported');
    expect(found.length).toBeGreaterThan(0);
    expect(problems.size).toBe(locals === 'own' ? 1 : 100);
    expect((await host.routing.mend('everything')).found).toEqual([]);
  });
});

describe('the rules that are known', () => {
  it('are those that stand, after changes of ours and of others', async () => {
    const host = new Host({ locals: 'own' });
    for (let number = 0; number < 20; number++) host.start(number);
    host.network.take({ rule: (rule) => rule.protocol === OWN_PROTOCOL && rule.priority % 2 === 0 });
    await host.routing.mend('reported');
    for (let number = 0; number < 20; number++) host.stop(number);
    expect(host.network.rules().filter(({ protocol }) => protocol === OWN_PROTOCOL)).toEqual([]);
    expect(host.network.routes({ protocol: OWN_PROTOCOL })).toEqual([]);
  });
});
