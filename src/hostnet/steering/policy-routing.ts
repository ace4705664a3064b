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
import { formatAddress, type IpAddress, rangeContains } from '../../base/address.ts';
import { assertNever } from '../../base/assert.ts';
import { IKE_PORT } from '../../base/ports.ts';
import { isWhole } from '../../base/ranges.ts';
import { Protocol } from '../../policy/protocols.ts';
import {
  DEVICE_GROUP,
  type HostNetwork,
  type InstalledRoute,
  type InstalledRule,
  type Link,
  type NetworkChange,
  OWN_PROTOCOL,
  ownerOf,
  type Prefix,
  type Route,
  type Rule,
} from '../routes/routes.ts';
import { BridgeRouting } from './bridges.ts';
import { checkPlan, SYSTEM_TABLES } from './check.ts';
import { routedFlows, routeKey, ruleKey } from './compare.ts';
import { type Listed, listInstalled, type Mended, mendRouting } from './mend.ts';
import type { RoutingPlan } from './plan.ts';
import { type Block, freeBlock, isOfBridge, isOfTunnel, placed } from './priorities.ts';
import { type RoutingRules, routingRules, type Surroundings } from './rules.ts';
import { OwnAddresses, openRoutes, unservedText } from './sources.ts';
import { TunnelOrder } from './tunnel-order.ts';

/** Of the route for when there is no device: the last that is looked at. */
const LAST_METRIC = 0xffff_ffff;

/** IKE may be met there whatever a document says, and routes are asked for as its packets would be. */
export const OWN_QUERY: { readonly ipProtocol: number; readonly sourcePort: number } = {
  ipProtocol: Protocol.udp,
  sourcePort: IKE_PORT,
};

interface Led extends Block {
  readonly plan: RoutingPlan;
  readonly device: string;
  block: number;
  readonly routes: RoutingRules['routes'];
  /** Of the device, once there is one. */
  linkIndex: number | undefined;
  /** Children of level `use` that have an SA. */
  up: ReadonlySet<string>;
  /** By which addresses of the host the following are. */
  own: OwnAddresses;
  rules: readonly Rule[];
  /** Into the device, while there is one. */
  open: readonly Route[];
  /** For what the host has no address. */
  unserved: string | undefined;
}

/** What others did to rules and routes. */
export interface RoutingDamage {
  /** What was put right, in words. */
  readonly found: readonly string[];
  /** What was changed as the host's own addresses did, by tunnel, in words. BOUNDED: by the tunnels. */
  readonly adapted: ReadonlyMap<string, string>;
  /** What is not as it should be, by tunnel or bridge. BOUNDED: by those. */
  readonly problems: ReadonlyMap<string, readonly string[]>;
}

/** Tunnels that are compared before the event loop has its turn. */
const TUNNELS_PER_TURN = 25;

export class PolicyRouting {
  readonly #network: HostNetwork;
  readonly #order: TunnelOrder;
  /** By the name of the tunnel. BOUNDED: by the tunnels. */
  readonly #led = new Map<string, Led>();
  readonly #bridges: BridgeRouting;
  /** Counts changes of our own: what was listed before one may not be so any more. */
  #changes = 0;

  /** @param order in which tunnels are asked */
  constructor(network: HostNetwork, order: TunnelOrder = new TunnelOrder()) {
    this.#network = network;
    this.#order = order;
    this.#bridges = new BridgeRouting(network, () => this.#changes++);
  }

  /**
   * Puts up what leads packets into the tunnel's table, which leads nowhere yet. What stands for the same tunnel is
   * replaced.
   *
   * @throws Error when the system refuses; nothing of the tunnel stands then
   */
  prepare(plan: RoutingPlan, device: string): void {
    this.#changes++;
    checkPlan(
      plan,
      [...this.#led.values()].map((led) => led.plan),
      this.#network,
    );
    const own = this.#addresses();
    const up = new Set<string>();
    const { rules, size, routes } = routingRules(plan, surroundings({ device, own, up }));
    const standing = this.#network.rules();
    const staleRules = rulesOf(standing, plan.table);
    const staleRoutes = this.#routesOf(plan.table);
    const others = [...this.#led.values()].filter((other) => other.plan.tunnel !== plan.tunnel);
    const block = freeBlock(standing, others, plan.table, size, this.#firstFor(plan.tunnel));
    const led: Led = {
      ...{ plan, device, block, size, routes, up, own },
      rules: rules.map((rule) => placed(rule, block, plan.table)),
      linkIndex: undefined,
      open: [],
      unserved: unservedText(plan.outbound, own),
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
      this.#putBehind(led);
    } catch (error) {
      this.#clear(plan.table);
      throw error;
    }
  }

  /** The first priority behind those of tunnels that are asked before it. */
  #firstFor(tunnel: string): number | undefined {
    const before = this.#order.before(tunnel).flatMap((other) => this.#led.get(other) ?? []);
    return before.length === 0 ? undefined : Math.max(...before.map(({ block, size }) => block + size));
  }

  /**
   * Moves tunnels that are asked behind this one, where they stand before it. The new rules stand before the old ones go, so
   * packets always have a way, if for a moment that of the other tunnel.
   */
  #putBehind(first: Led): void {
    const moved = new Set([first]);
    for (const led of moved) {
      for (const name of this.#order.behind(led.plan.tunnel)) {
        const other = this.#led.get(name);
        if (other === undefined || moved.has(other) || other.block > led.block) continue;
        this.#move(other);
        moved.add(other);
      }
    }
  }

  #move(led: Led): void {
    const { tunnel, table } = led.plan;
    const block = freeBlock(this.#network.rules(), [...this.#led.values()], table, led.size, this.#firstFor(tunnel));
    const [before, by] = [led.rules, block - led.block];
    Object.assign(led, { block, rules: before.map((rule) => placed(rule, by, table)) });
    this.#network.addRules([...led.rules].reverse());
    for (const rule of before) this.#network.deleteRule(rule);
  }

  /** Opens the table into the device. @throws Error when the system refuses */
  open(tunnel: string, linkIndex: number): void {
    this.#changes++;
    const led = this.#led.get(tunnel);
    if (led === undefined) throw new Error(`bug: nothing is led into the device of ${tunnel}`);
    led.linkIndex = linkIndex;
    this.#network.setLink(linkIndex, { group: DEVICE_GROUP });
    led.open = openRoutes(led.routes, { table: led.plan.table, linkIndex }, led.own);
    this.#network.addRoutes(led.open);
  }

  /** Whether a change concerns what is wanted here: then `mend` is due. */
  concerns(change: NetworkChange): boolean {
    switch (change.kind) {
      case 'unknown':
        return true;
      case 'link':
        return [...this.#led.values()].some(({ linkIndex }) => linkIndex === change.link.index);
      // The kernel does not tell which routes it takes away with an address or a link, nor takes them without the address.
      case 'address':
        return this.#mayBeSource(change.address.address);
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

  /** Whether a policy is for what the host sends from there. */
  #mayBeSource(address: IpAddress): boolean {
    return [...this.#led.values()].some(({ plan }) =>
      plan.outbound.some(({ local }) => !isWhole(local) && rangeContains(local, address)),
    );
  }

  #concernsRule(rule: InstalledRule, gone: boolean): boolean {
    if (rule.protocol !== OWN_PROTOCOL) return this.#led.size > 0 || this.#bridges.areRouted;
    if (isOfBridge(rule)) return gone && this.#bridges.want(rule);
    const led = this.#ofTable(ownerOf(rule));
    return led !== undefined && gone === led.rules.some((other) => ruleKey(other) === ruleKey(rule));
  }

  #ofTable(table: number | undefined): Led | undefined {
    return [...this.#led.values()].find(({ plan }) => plan.table === table);
  }

  /** Compares rules and routes with what is wanted, and puts right what differs; those of others stay. @throws Error */
  async mend(): Promise<RoutingDamage> {
    const found: string[] = [];
    // BOUNDED: by the tunnels.
    const adapted = new Map<string, string>();
    const problems = new Map<string, readonly string[]>();
    const own = this.#addresses();
    let [listed, changes] = [listInstalled(this.#network), this.#changes];
    const relist = (): void => {
      if (changes !== this.#changes) [listed, changes] = [listInstalled(this.#network), this.#changes];
    };
    for (const names of chunks([...this.#led.keys()], TUNNELS_PER_TURN)) {
      relist();
      for (const name of names) {
        const led = this.#led.get(name);
        if (led === undefined) continue;
        const change = this.#adapt(led, own);
        found.push(...this.#mendGroup(led));
        const mended = this.#mendTunnel(led, listed);
        if (change === undefined) found.push(...mended.found);
        else adapted.set(name, change);
        const here = [
          ...this.#downText(led),
          ...(led.unserved === undefined ? [] : [led.unserved]),
          ...mended.problems,
        ];
        if (here.length > 0) problems.set(name, here);
      }
      await setImmediate();
    }
    relist();
    for (const { table, mended } of this.#bridges.mend(listed)) {
      found.push(...mended.found);
      const owner = this.#ofTable(table)?.plan.tunnel;
      if (mended.problems.length > 0 && owner !== undefined)
        problems.set(owner, [...(problems.get(owner) ?? []), ...mended.problems]);
    }
    return { found, adapted, problems };
  }

  /** For what the host has no address, as far as it was looked at. Asks the system nothing. */
  unserved(tunnel: string): string | undefined {
    return this.#led.get(tunnel)?.unserved;
  }

  /**
   * What is wanted follows the host's own addresses.
   * @returns what is other than before, in words; `undefined` when nothing is
   */
  #adapt(led: Led, own: OwnAddresses): string | undefined {
    if (own.key === led.own.key) return undefined;
    const [sources, unserved] = [sourcesOf(led), led.unserved];
    led.own = own;
    led.rules = wantedRules(led);
    if (led.linkIndex !== undefined)
      led.open = openRoutes(led.routes, { table: led.plan.table, linkIndex: led.linkIndex }, own);
    led.unserved = unservedText(led.plan.outbound, own);
    const now = sourcesOf(led);
    if (now === sources && led.unserved === unserved) return undefined;
    return `addresses of this host changed: its own packets that name no source are sent from ${now || 'none'} now, and were from ${sources || 'none'}`;
  }

  #mendTunnel(led: Led, { byOwner, foreign, routesOf }: Listed): Mended {
    const { table, outbound } = led.plan;
    const wanted = {
      rules: led.rules,
      table: { number: table, routes: this.#wantedRoutes(led) },
      flows: routedFlows(outbound),
    };
    return mendRouting(this.#network, wanted, { own: byOwner.get(table) ?? [], foreign, routesOf });
  }

  /** Those into the device only while it exists and is up. */
  #wantedRoutes(led: Led): Route[] {
    const closed = led.routes.map((route) => closedRoute(route, led.plan.table));
    return this.#linkOf(led)?.up === true ? [...closed, ...led.open] : closed;
  }

  #linkOf({ linkIndex }: Led): Link | undefined {
    return linkIndex === undefined ? undefined : this.#network.link(linkIndex);
  }

  /** Rules pass over the device by its group. @returns what was put right, in words */
  #mendGroup(led: Led): string[] {
    const link = this.#linkOf(led);
    if (link === undefined || link.group === DEVICE_GROUP) return [];
    this.#network.setLink(link.index, { group: DEVICE_GROUP });
    return [`group of ${link.name}: ${link.group} in place of ${DEVICE_GROUP}`];
  }

  #downText(led: Led): string[] {
    const link = this.#linkOf(led);
    if (link === undefined || link.up) return [];
    return [`the device ${link.name} was set down, and nothing is led into it: ip link set ${link.name} up`];
  }

  /**
   * Which children have an SA: packets of those of level `use` go in the clear otherwise, and a tunnel without any gives way
   * to another one of its redundancy group.
   */
  setUp(tunnel: string, up: ReadonlySet<string>): void {
    this.#changes++;
    const led = this.#led.get(tunnel);
    if (led === undefined) return;
    if (this.#order.setUp(tunnel, up.size > 0)) {
      for (const mate of this.#order.ranked(tunnel)) {
        const other = this.#led.get(mate);
        if (other !== undefined) this.#putBehind(other);
      }
    }
    if (!led.plan.outbound.some(({ level }) => level === 'use')) return;
    led.up = up;
    const wanted = wantedRules(led);
    const [before, after] = [led.rules, wanted].map((list) => new Map(list.map((rule) => [ruleKey(rule), rule])));
    led.rules = wanted;
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
  routeBridge(bridge: string, own: readonly Prefix[], table: number | undefined): () => void {
    return this.#bridges.lead(bridge, own, table);
  }

  forgetBridges(): void {
    this.#bridges.forgetOthers();
  }

  /** The host's own; not those at bridges that are led, which are there for guests: nothing else of the host's is sent from them. */
  #addresses(): OwnAddresses {
    return new OwnAddresses(this.#network.addresses(), this.#bridges.guests());
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

function surroundings({ device, own, up }: Pick<Led, 'device' | 'own' | 'up'>): Surroundings {
  return { device, hasAddressIn: (range) => own.has(range), isUp: (child) => up.has(child) };
}

function wantedRules(led: Led): Rule[] {
  const { rules } = routingRules(led.plan, surroundings(led));
  return rules.map((rule) => placed(rule, led.block, led.plan.table));
}

/** From which addresses packets are sent that have no source, in words. */
function sourcesOf({ routes, own }: Led): string {
  const open = routes.filter((route) => route.open);
  const sources = open.flatMap((route) => own.preferred(route.sources, route.destination.address.family) ?? []);
  return [...new Set(sources.map(formatAddress))].join(', ');
}

function closedRoute({ destination, closed }: RoutingRules['routes'][number], table: number): Route {
  return { type: closed, destination, table, metric: LAST_METRIC };
}
