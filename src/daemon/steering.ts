/**
 * Leads packets into the devices of tunnels, by rules of policy routing and a routing table for each tunnel, as
 * `steering-rules.ts` says. Behind the routes into the device stand others that lead nowhere: without a device nothing that
 * a policy protects goes another way.
 *
 * By addresses, protocol and ports, not by marks of the sockets: incoming packets of the tunnel have none, and a strict
 * reverse path filter (rp_filter) would drop them. All rules and routes bear our protocol number, and the rules the number
 * of their tunnel's table: so what a daemon that died left behind is found again.
 */
import { setImmediate } from 'node:timers/promises';
import { type AddressRange, formatAddress, type IpAddress, rangeContains, sameAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import { isWhole } from '../base/ranges.ts';
import { Protocol } from '../policy/protocols.ts';
import {
  type HostNetwork,
  type InstalledRoute,
  type InstalledRule,
  type Link,
  type NetworkChange,
  OWN_PROTOCOL,
  ownerOf,
  type Prefix,
  prefixContains,
  type Route,
  type Rule,
  sameRule,
} from '../tun/routes.ts';
import { ledFlows, routeKey, ruleKey } from './steering-compare.ts';
import { type Listed, listSteering, type Mended, mendSteering } from './steering-mend.ts';
import type { SteeringPlan } from './steering-plan.ts';
import { bridgeRules, freeBlock, isOfBridge, isOfTunnel, leadOf, placed } from './steering-priorities.ts';
import { type SteeringRules, steeringRules } from './steering-rules.ts';

/** Of the route for when there is no device: the last that is looked at. */
const LAST_METRIC = 0xffff_ffff;

/** IKE may be met there whatever a document says, and routes are asked for as its packets would be. */
export const OWN_QUERY: { readonly ipProtocol: number; readonly sourcePort: number } = {
  ipProtocol: Protocol.udp,
  sourcePort: 500,
};

/** The local table, that of the main routes, and the default one. */
const SYSTEM_TABLES: readonly number[] = [253, 254, 255];

interface Led {
  readonly plan: SteeringPlan;
  readonly device: string;
  readonly block: number;
  rules: readonly Rule[];
  routes: SteeringRules['routes'];
  up: ReadonlySet<string>;
  /** Into the device, while there is one. */
  open: readonly Route[];
}

/** What others did to rules and routes. */
export interface SteeringDamage {
  /** What was put right, in words. */
  readonly found: readonly string[];
  /** What is not as it should be, by tunnel or bridge. BOUNDED: by those. */
  readonly problems: ReadonlyMap<string, readonly string[]>;
}

/** Tunnels that are compared before the event loop has its turn. */
const TUNNELS_PER_TURN = 25;

export class Steering {
  readonly #network: HostNetwork;
  /** By the name of the tunnel. BOUNDED: by the tunnels. */
  readonly #led = new Map<string, Led>();
  /** The rules of bridges. BOUNDED: by libvirt's networks. */
  readonly #bridges = new Map<string, readonly Rule[]>();
  /** Counts changes of our own: what was listed before one may not be so any more. */
  #changes = 0;

  constructor(network: HostNetwork) {
    this.#network = network;
  }

  /**
   * Puts up what leads packets into the tunnel's table, which leads nowhere yet. What stands for the same tunnel is
   * replaced.
   *
   * @throws Error when the system refuses; nothing of the tunnel stands then
   */
  prepare(plan: SteeringPlan, device: string): void {
    this.#changes++;
    this.#check(plan);
    const around = this.#surroundings(device, new Set());
    const { rules, routes } = steeringRules(plan, around);
    const standing = this.#network.rules();
    const staleRules = rulesOf(standing, plan.table);
    const staleRoutes = this.#routesOf(plan.table);
    const block = freeBlock(standing, plan.table, rules);
    const led: Led = {
      plan,
      device,
      block,
      rules: rules.map((rule) => placed(rule, block, plan.table)),
      routes,
      up: new Set(),
      open: [],
    };
    try {
      const closed = new Map(routes.map((route) => [routeKey(closedRoute(route, plan.table)), route]));
      const kept = new Set(staleRoutes.map(routeKey));
      this.#network.addRoutes(
        [...closed].flatMap(([key, route]) => (kept.has(key) ? [] : [closedRoute(route, plan.table)])),
      );
      // The last first: what is jumped over has its end then.
      this.#network.addRules([...led.rules].reverse());
      for (const rule of staleRules) this.#network.deleteRule(rule);
      this.#network.deleteRoutes(staleRoutes.filter((route) => !closed.has(routeKey(route))));
      this.#led.set(plan.tunnel, led);
    } catch (error) {
      this.#clear(plan.table);
      throw error;
    }
  }

  /** Opens the table into the device. @throws Error when the system refuses */
  open(tunnel: string, linkIndex: number): void {
    this.#changes++;
    const led = this.#led.get(tunnel);
    if (led === undefined) throw new Error(`bug: nothing is led into the device of ${tunnel}`);
    const own = this.#addresses();
    const open = led.routes.filter((route) => route.open);
    led.open = open.map(({ destination, sources }) => ({
      type: 'unicast',
      destination,
      table: led.plan.table,
      linkIndex,
      source: preferredSource(own, sources, destination.address.family),
    }));
    this.#network.addRoutes(led.open);
  }

  /** Whether a change concerns what is wanted here: then `mend` is due. */
  concerns(change: NetworkChange): boolean {
    switch (change.kind) {
      case 'unknown':
        return true;
      case 'link':
        return [...this.#led.values()].some(({ open }) => open[0]?.linkIndex === change.link.index);
      // The kernel does not tell which routes it takes away with an address or a link, nor takes them without the address.
      case 'address':
        return this.#isSource(change.address.address);
      case 'route':
        return (
          this.#ofTable(change.route.table) !== undefined && (change.gone || change.route.protocol !== OWN_PROTOCOL)
        );
      case 'rule':
        return this.#concernsRule(change.rule, change.gone);
      default:
        return assertNever(change, 'network change');
    }
  }

  #isSource(address: IpAddress): boolean {
    return [...this.#led.values()].some(({ open }) =>
      open.some(({ source }) => source !== undefined && sameAddress(source, address)),
    );
  }

  #concernsRule(rule: InstalledRule, gone: boolean): boolean {
    if (rule.protocol !== OWN_PROTOCOL) return this.#led.size + this.#bridges.size > 0;
    if (isOfBridge(rule)) return gone && [...this.#bridges.values()].flat().some((other) => sameRule(other, rule));
    const led = this.#ofTable(ownerOf(rule));
    return led !== undefined && gone === led.rules.some((other) => ruleKey(other) === ruleKey(rule));
  }

  #ofTable(table: number | undefined): Led | undefined {
    return [...this.#led.values()].find(({ plan }) => plan.table === table);
  }

  /** Compares rules and routes with what is wanted, and puts right what differs; those of others stay. @throws Error */
  async mend(): Promise<SteeringDamage> {
    const found: string[] = [];
    // BOUNDED: by the tunnels.
    const problems = new Map<string, readonly string[]>();
    let [listed, changes] = [listSteering(this.#network), this.#changes];
    const relist = (): void => {
      if (changes !== this.#changes) [listed, changes] = [listSteering(this.#network), this.#changes];
    };
    for (const names of chunks([...this.#led.keys()], TUNNELS_PER_TURN)) {
      relist();
      for (const name of names) {
        const led = this.#led.get(name);
        if (led === undefined) continue;
        const mended = this.#mendTunnel(led, listed);
        found.push(...mended.found);
        const here = [...this.#downText(led), ...mended.problems];
        if (here.length > 0) problems.set(name, here);
      }
      await setImmediate();
    }
    relist();
    for (const [bridge, wanted] of this.#bridges) {
      const mended = this.#mendBridge(bridge, wanted, listed);
      found.push(...mended.found);
      const owner = this.#ofTable(leadOf(wanted))?.plan.tunnel;
      if (mended.problems.length > 0 && owner !== undefined)
        problems.set(owner, [...(problems.get(owner) ?? []), ...mended.problems]);
    }
    return { found, problems };
  }

  #mendTunnel(led: Led, { byOwner, foreign, routesOf }: Listed): Mended {
    const { table, outbound } = led.plan;
    const wanted = {
      rules: led.rules,
      table: { number: table, routes: this.#wantedRoutes(led) },
      flows: ledFlows(outbound),
    };
    return mendSteering(this.#network, wanted, { own: byOwner.get(table) ?? [], foreign, routesOf });
  }

  #mendBridge(bridge: string, rules: readonly Rule[], { ofBridges, foreign, routesOf }: Listed): Mended {
    const own = ofBridges.filter((rule) => rules.some((other) => sameRule(other, rule)));
    const flow = { local: undefined, remote: undefined, protocol: undefined, inputLink: bridge };
    const wanted = { rules, table: undefined, flows: leadOf(rules) === undefined ? [] : [flow] };
    return mendSteering(this.#network, wanted, { own, foreign, routesOf });
  }

  /** Those into the device only while it exists and is up. */
  #wantedRoutes(led: Led): Route[] {
    const closed = led.routes.map((route) => closedRoute(route, led.plan.table));
    return this.#linkOf(led)?.up === true ? [...closed, ...led.open] : closed;
  }

  #linkOf({ open: [first] }: Led): Link | undefined {
    return first?.linkIndex === undefined ? undefined : this.#network.link(first.linkIndex);
  }

  #downText(led: Led): string[] {
    const link = this.#linkOf(led);
    if (link === undefined || link.up) return [];
    return [`the device ${link.name} was set down, and nothing is led into it: ip link set ${link.name} up`];
  }

  /** Which children have an SA: packets of those of level `use` go in the clear otherwise. */
  setUp(tunnel: string, up: ReadonlySet<string>): void {
    this.#changes++;
    const led = this.#led.get(tunnel);
    if (led === undefined || !led.plan.outbound.some(({ level }) => level === 'use')) return;
    const { rules } = steeringRules(led.plan, this.#surroundings(led.device, up));
    const wanted = rules.map((rule) => placed(rule, led.block, led.plan.table));
    const [before, after] = [led.rules, wanted].map((list) => new Map(list.map((rule) => [ruleKey(rule), rule])));
    led.rules = wanted;
    led.up = up;
    this.#network.addRules([...after!].flatMap(([key, rule]) => (before!.has(key) ? [] : [rule])));
    for (const [key, rule] of before!) if (!after!.has(key)) this.#network.deleteRule(rule);
  }

  /** Takes away all that stands for a tunnel, also what a daemon that died led into its table. */
  release(tunnel: string, table: number): void {
    this.#changes++;
    this.#led.delete(tunnel);
    this.#clear(table);
  }

  /** Takes away what a daemon that died left standing, but for tunnels with these tables. */
  reconcile(tables: readonly number[]): void {
    const kept = new Set([...tables, ...[...this.#led.values()].map(({ plan }) => plan.table)]);
    const found = new Set<number>();
    for (const rule of this.#network.rules()) {
      const owner = ownerOf(rule);
      if (isOfTunnel(rule) && owner !== undefined && !kept.has(owner)) found.add(owner);
    }
    for (const { table } of this.#network.routes({ own: true })) {
      if (!kept.has(table) && !SYSTEM_TABLES.includes(table)) found.add(table);
    }
    for (const table of found) this.#clear(table);
  }

  /** What `Platform` says of it. */
  leadBridge(bridge: string, own: readonly Prefix[], table: number | undefined): () => void {
    this.#changes++;
    const rules = bridgeRules(bridge, own, table);
    try {
      for (const rule of rules) this.#network.addRule(rule);
    } catch (error) {
      this.#forget(rules);
      throw error;
    }
    this.#bridges.set(bridge, rules);
    this.#forget(this.#network.rules().filter(({ inputLink }) => inputLink === bridge));
    return () => {
      if (this.#bridges.get(bridge) !== rules) return;
      this.#changes++;
      this.#bridges.delete(bridge);
      this.#forget([...rules].reverse());
    };
  }

  forgetBridges(): void {
    this.#forget(this.#network.rules());
  }

  /** Takes away rules of bridges that are not led here any more. */
  #forget(rules: readonly Rule[]): void {
    const wanted = [...this.#bridges.values()].flat();
    for (const rule of rules) {
      if (isOfBridge(rule) && !wanted.some((other) => sameRule(other, rule))) this.#network.deleteRule(rule);
    }
  }

  #check({ tunnel, table, host }: SteeringPlan): void {
    if (host !== undefined && !this.#network.addresses().some(({ address }) => sameAddress(address, host))) {
      throw new Error(
        `transport mode is for packets of ${formatAddress(host)}, which is not an address of this host: add it, or correct the document`,
      );
    }
    const [other] = [...this.#led.values()].filter(({ plan }) => plan.table === table && plan.tunnel !== tunnel);
    if (other !== undefined) {
      throw new Error(
        `routing table ${table} is that of another tunnel, ${other.plan.tunnel}: give this one a <device table='…'>`,
      );
    }
    if (SYSTEM_TABLES.includes(table)) {
      throw new Error(`routing table ${table} is one of the system's: give the tunnel one of its own, or leave it out`);
    }
  }

  #surroundings(device: string, up: ReadonlySet<string>): Parameters<typeof steeringRules>[1] {
    const own = this.#addresses();
    return {
      device,
      hasAddressIn: (range) => own.some((address) => isUsable(address) && rangeContains(range, address)),
      isUp: (child) => up.has(child),
    };
  }

  /** The host's own; not those at bridges that are led, which are there for guests: nothing else of the host's is sent from them. */
  #addresses(): IpAddress[] {
    const guests = [...this.#bridges.values()].flatMap((rules) => rules.flatMap(({ to }) => to ?? []));
    return this.#network
      .addresses()
      .map(({ address }) => address)
      .filter((address) => !guests.some((prefix) => prefixContains(prefix, address)));
  }

  #routesOf(table: number): InstalledRoute[] {
    return this.#network.routes({ table, own: true });
  }

  /** All of a tunnel, whoever set it up. Rules first: never one into a table that is open. */
  #clear(table: number): void {
    for (const rule of rulesOf(this.#network.rules(), table)) this.#network.deleteRule(rule);
    this.#network.deleteRoutes(this.#routesOf(table));
  }
}

function rulesOf(rules: readonly InstalledRule[], table: number): InstalledRule[] {
  return rules.filter((rule) => isOfTunnel(rule) && ownerOf(rule) === table);
}

function* chunks<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let first = 0; first < items.length; first += size) yield items.slice(first, first + size);
}

function closedRoute({ destination, closed }: SteeringRules['routes'][number], table: number): Route {
  return { type: closed, destination, table, metric: LAST_METRIC };
}

/**
 * An address of this host that the policy lets into the tunnel. Of what is for all the kernel picks, as it would without a
 * tunnel.
 */
function preferredSource(
  own: readonly IpAddress[],
  sources: readonly AddressRange[],
  family: IpAddress['family'],
): IpAddress | undefined {
  for (const range of sources) {
    if (range.start.family !== family || isWhole(range)) return undefined;
    const fitting = own.filter((address) => isUsable(address) && rangeContains(range, address));
    const [first] = fitting.sort((a, b) => (a.value < b.value ? -1 : 1));
    if (first !== undefined) return first;
  }
  return undefined;
}

/** Not of the loopback, nor of one link alone. */
function isUsable({ family, value }: IpAddress): boolean {
  if (family === 4) return value >> 24n !== 127n && value >> 16n !== 0xa9fen;
  return value > 1n && value >> 118n !== 0x3fan;
}
