/**
 * Routes packets into the devices of tunnels: `rules.ts` says by which rules of policy routing, and each tunnel has a routing
 * table of its own. Behind the routes into the device stand others that refuse: without a device nothing that a policy
 * protects goes another way.
 *
 * Rules match addresses, protocol and ports, not marks of our sockets: incoming packets of the tunnel have none, and a
 * strict reverse path filter (rp_filter) would drop them. All rules and routes bear our protocol number, and rules the
 * number of their tunnel's table: so a daemon finds what one before it left behind.
 */
import { setImmediate } from 'node:timers/promises';
import { type AddressRange, type IpFamily, rangeContains } from '../../base/address.ts';
import { assertNever } from '../../base/assert.ts';
import { IKE_PORT } from '../../base/ports.ts';
import { isWhole } from '../../base/ranges.ts';
import { Protocol } from '../../policy/protocols.ts';
import {
  DEVICE_GROUP,
  type HostNetwork,
  type InstalledRoute,
  type InstalledRule,
  type InterfaceAddress,
  type Link,
  MAIN_TABLE,
  type NetworkChange,
  OWN_PROTOCOL,
  ownerOf,
  type Prefix,
  type Rule,
} from '../routes/routes.ts';
import { BridgeRouting } from './bridges.ts';
import { checkPlan, SYSTEM_TABLES } from './check.ts';
import { compareRules, routedFlows, routeKey, ruleKey } from './compare.ts';
import { type Listed, listInstalled, type Mended, mendRouting } from './mend.ts';
import { type Guarded, guardedNetworks, type MainTable, mayLead, NETWORK_PROTOCOLS, sampleOf } from './onward.ts';
import type { RoutingPlan } from './plan.ts';
import { freeBlock, isOfBridge, isOfTunnel, isOnwardLookUp, ownersIn } from './priorities.ts';
import { isOfGuests, OwnAddresses } from './sources.ts';
import { TunnelRouting } from './tunnel.ts';
import { TunnelOrder } from './tunnel-order.ts';

/** A route is looked up as for IKE's own packets: a peer expects IKE on this port whatever a document says. */
export const OWN_QUERY: { readonly ipProtocol: number; readonly sourcePort: number } = {
  ipProtocol: Protocol.udp,
  sourcePort: IKE_PORT,
};

/** What others did to rules and routes. */
export interface RoutingDamage {
  /** What was put right, in words. */
  readonly found: readonly string[];
  /** What followed a change of the host's own addresses, or of its routes, by tunnel, in words. BOUNDED: by the tunnels. */
  readonly adapted: ReadonlyMap<string, Adapted>;
  /** What is still wrong, by tunnel or bridge. BOUNDED: by those. */
  readonly problems: ReadonlyMap<string, readonly string[]>;
}

export interface Adapted {
  readonly addresses: string | undefined;
  /** To the networks of packets out of the tunnel. */
  readonly routes: string | undefined;
}

/** Tunnels that are compared before the event loop has its turn. */
const TUNNELS_PER_TURN = 25;

export class PolicyRouting {
  readonly #network: HostNetwork;
  readonly #order: TunnelOrder;
  /** By the name of the tunnel. BOUNDED: by the tunnels. */
  readonly #tunnels = new Map<string, TunnelRouting>();
  readonly #bridges: BridgeRouting;
  /** Counts our own changes: a list from before one is out of date. */
  #changes = 0;

  /** @param order in which rules of tunnels stand */
  constructor(network: HostNetwork, order: TunnelOrder = new TunnelOrder()) {
    this.#network = network;
    this.#order = order;
    this.#bridges = new BridgeRouting(network, () => this.#changes++);
  }

  /**
   * Installs the rules that send packets to the tunnel's table, and the routes there that refuse. What is installed for the
   * same tunnel is replaced.
   *
   * @throws Error when the system refuses; then nothing of the tunnel is installed
   */
  prepare(plan: RoutingPlan, device: string): void {
    this.#changes++;
    const { tunnel: name, table } = plan;
    const plans = [...this.#tunnels.values()].map((other) => other.plan);
    checkPlan(plan, plans, this.#network);
    const tunnel = new TunnelRouting(plan, device, this.#addresses());
    const rules = this.#network.rules();
    const staleRoutes = this.#routesOf(table);
    const others = [...this.#tunnels.values()].filter((other) => other.plan.tunnel !== name);
    tunnel.place(freeBlock(rules, others, { table, size: tunnel.size, from: this.#firstFor(name) }));
    const standing = rulesOf(rules, table);
    const known = [...(this.#tunnels.get(name)?.guarded ?? []), ...guardedNetworks(standing)];
    this.#setOnward(tunnel, known, this.#mainTable());
    try {
      const closed = new Map(tunnel.closedRoutes.map((route) => [routeKey(route), route]));
      const kept = new Set(staleRoutes.map(routeKey));
      this.#network.addRoutes([...closed].flatMap(([key, route]) => (kept.has(key) ? [] : [route])));
      this.#replaceRules(standing, tunnel.rules);
      this.#network.deleteRoutes(staleRoutes.filter((route) => !closed.has(routeKey(route))));
      this.#tunnels.set(name, tunnel);
      this.#putBehind(tunnel);
    } catch (error) {
      this.#clear(table);
      throw error;
    }
  }

  /** The last first: what a goto jumps over has its end then. Old rules go when the new ones stand. */
  #replaceRules(before: readonly Rule[], after: readonly Rule[]): void {
    const { missing, surplus } = compareRules(after, before);
    this.#network.addRules([...missing].reverse());
    for (const rule of surplus) this.#network.deleteRule(rule);
  }

  #mainTable(): MainTable {
    const addresses = this.#network.addresses();
    // BOUNDED: by the two families.
    const listed = new Map<IpFamily, readonly InstalledRoute[]>();
    const list = (family: IpFamily): readonly InstalledRoute[] =>
      NETWORK_PROTOCOLS.flatMap((protocol) => this.#network.routes({ family, table: MAIN_TABLE, protocol }));
    const routes = (family: IpFamily): readonly InstalledRoute[] => {
      const known = listed.get(family) ?? list(family);
      listed.set(family, known);
      return known;
    };
    return { addresses, routes };
  }

  /** @returns what changed, in words */
  #setOnward(tunnel: TunnelRouting, known: readonly Prefix[], main: MainTable): string | undefined {
    return tunnel.setOnward(known, main, (network) => this.#isReached(tunnel, network, main.addresses));
  }

  /** Asks for the route of what comes out of the tunnel. */
  #isReached({ device }: TunnelRouting, network: Guarded, addresses: readonly InterfaceAddress[]): boolean {
    const inputLinkIndex = this.#network.link(device)?.index;
    const destination = sampleOf(network, addresses);
    return inputLinkIndex !== undefined && this.#network.routeTo({ destination, inputLinkIndex }) !== undefined;
  }

  /** The first priority behind those of the tunnels that come before this one. */
  #firstFor(tunnel: string): number | undefined {
    const before = this.#order.before(tunnel).flatMap((other) => this.#tunnels.get(other) ?? []);
    return before.length === 0 ? undefined : Math.max(...before.map(({ block, size }) => block + size));
  }

  /**
   * Moves tunnels that come after this one, where their rules stand before its own. The new rules stand before the old ones
   * go, so packets always have a way, if for a moment that of the other tunnel.
   */
  #putBehind(first: TunnelRouting): void {
    const moved = new Set([first]);
    for (const tunnel of moved) {
      for (const name of this.#order.behind(tunnel.plan.tunnel)) {
        const other = this.#tunnels.get(name);
        if (other === undefined || moved.has(other) || other.block > tunnel.block) continue;
        this.#move(other);
        moved.add(other);
      }
    }
  }

  #move(tunnel: TunnelRouting): void {
    const { plan, size, rules } = tunnel;
    const from = this.#firstFor(plan.tunnel);
    const wanted = { table: plan.table, size, from };
    tunnel.place(freeBlock(this.#network.rules(), [...this.#tunnels.values()], wanted));
    this.#replaceRules(rules, tunnel.rules);
  }

  /** Routes into the device, which is up. @throws Error when the system refuses */
  open(name: string, linkIndex: number): void {
    this.#changes++;
    const tunnel = this.#tunnels.get(name);
    if (tunnel === undefined) throw new Error(`bug: the device of ${name} has no rules`);
    tunnel.setLink(linkIndex);
    this.#network.setLink(linkIndex, { group: DEVICE_GROUP });
    this.#network.addRoutes(tunnel.openRoutes);
  }

  /** Whether a change concerns what is wanted here: then `mend` is due. */
  concerns(change: NetworkChange): boolean {
    switch (change.kind) {
      case 'unknown':
        return true;
      case 'link':
        return [...this.#tunnels.values()].some(
          ({ linkIndex, onwardLinks }) => linkIndex === change.link.index || onwardLinks.has(change.link.index),
        );
      // The kernel removes routes with their address or link without reporting them, and refuses them without the address.
      case 'address':
        return this.#mayBeSource(change.address) || this.#mayLead(change.address);
      case 'route':
        return this.#concernsRoute(change.route, change.gone);
      case 'rule':
        return this.#concernsRule(change.rule, change.gone);
      default:
        return assertNever(change, 'network change');
    }
  }

  /** Whether a policy covers what the host sends from this address. */
  #mayBeSource({ address }: InterfaceAddress): boolean {
    return [...this.#tunnels.values()].some(({ plan }) =>
      plan.outbound.some(({ local }) => !isWhole(local) && rangeContains(local, address)),
    );
  }

  /** Whether packets out of a tunnel may go there. */
  #mayLead(prefix: Prefix): boolean {
    return [...this.#tunnels.values()].some(({ networks }) => mayLead(networks, prefix));
  }

  #concernsRoute({ table, protocol, destination }: InstalledRoute, gone: boolean): boolean {
    if (table === MAIN_TABLE) return NETWORK_PROTOCOLS.includes(protocol) && this.#mayLead(destination);
    return this.#ofTable(table) !== undefined && (gone || protocol !== OWN_PROTOCOL);
  }

  #concernsRule(rule: InstalledRule, gone: boolean): boolean {
    if (rule.protocol !== OWN_PROTOCOL) return this.#tunnels.size > 0 || this.#bridges.areRouted;
    if (isOfBridge(rule)) return gone && this.#bridges.want(rule);
    const tunnel = isOnwardLookUp(rule) ? this.#ofDevice(rule.inputLink) : this.#ofTable(ownerOf(rule));
    return tunnel !== undefined && gone === tunnel.rules.some((other) => ruleKey(other) === ruleKey(rule));
  }

  #ofTable(table: number | undefined): TunnelRouting | undefined {
    return [...this.#tunnels.values()].find(({ plan }) => plan.table === table);
  }

  #ofDevice(name: string | undefined): TunnelRouting | undefined {
    return [...this.#tunnels.values()].find(({ device }) => device === name);
  }

  /** Compares rules and routes with what is wanted, and puts right what differs; those of others stay. @throws Error */
  async mend(): Promise<RoutingDamage> {
    const found: string[] = [];
    // BOUNDED: by the tunnels.
    const adapted = new Map<string, Adapted>();
    const problems = new Map<string, readonly string[]>();
    const own = this.#addresses();
    const main = this.#mainTable();
    let [listed, changes] = [listInstalled(this.#network), this.#changes];
    const relist = (): void => {
      if (changes !== this.#changes) [listed, changes] = [listInstalled(this.#network), this.#changes];
    };
    for (const names of chunks([...this.#tunnels.keys()], TUNNELS_PER_TURN)) {
      relist();
      for (const name of names) {
        const tunnel = this.#tunnels.get(name);
        if (tunnel === undefined) continue;
        const addresses = tunnel.setAddresses(own);
        const routes = this.#setOnward(tunnel, tunnel.guarded, main);
        found.push(...this.#mendGroup(tunnel));
        const mended = this.#mendTunnel(tunnel, listed);
        if ((addresses ?? routes) === undefined) found.push(...mended.found);
        else adapted.set(name, { addresses, routes });
        if (mended.problems.length > 0) problems.set(name, mended.problems);
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

  #mendTunnel(tunnel: TunnelRouting, { byOwner, foreign, routesOf }: Listed): Mended {
    const { rules, closedRoutes, openRoutes, lacks } = tunnel;
    const { table, outbound } = tunnel.plan;
    const link = this.#linkOf(tunnel);
    // Routes into the device stand only while it exists and is up.
    const routes = link?.up === true ? [...closedRoutes, ...openRoutes] : closedRoutes;
    const wanted = { rules, table: { number: table, routes }, flows: routedFlows(outbound) };
    const { found, problems } = mendRouting(this.#network, wanted, {
      own: byOwner.get(table) ?? [],
      foreign,
      routesOf,
    });
    return { found, problems: [...downText(link), ...lacks, ...problems] };
  }

  #linkOf({ linkIndex }: TunnelRouting): Link | undefined {
    return linkIndex === undefined ? undefined : this.#network.link(linkIndex);
  }

  /** Rules pass over the device by its group. @returns what was put right, in words */
  #mendGroup(tunnel: TunnelRouting): string[] {
    const link = this.#linkOf(tunnel);
    if (link === undefined || link.group === DEVICE_GROUP) return [];
    this.#network.setLink(link.index, { group: DEVICE_GROUP });
    return [`group of ${link.name}: ${link.group} in place of ${DEVICE_GROUP}`];
  }

  /** What addresses and routes the host lacks for a tunnel, as of the last look, in words. Asks the system nothing. */
  lacks(tunnel: string): readonly string[] {
    return this.#tunnels.get(tunnel)?.lacks ?? [];
  }

  /**
   * Tells which children have an SA. Without one, packets of a child of level `use` go in the clear, and a tunnel without
   * any gives way to another one of its redundancy group.
   */
  setUp(name: string, up: ReadonlySet<string>): void {
    this.#changes++;
    const tunnel = this.#tunnels.get(name);
    if (tunnel === undefined) return;
    if (this.#order.setUp(name, up.size > 0)) {
      for (const mate of this.#order.ranked(name)) {
        const other = this.#tunnels.get(mate);
        if (other !== undefined) this.#putBehind(other);
      }
    }
    if (!tunnel.plan.outbound.some(({ level }) => level === 'use')) return;
    const before = new Map(tunnel.rules.map((rule) => [ruleKey(rule), rule]));
    tunnel.setUp(up);
    const after = new Map(tunnel.rules.map((rule) => [ruleKey(rule), rule]));
    this.#network.addRules([...after].flatMap(([key, rule]) => (before.has(key) ? [] : [rule])));
    for (const [key, rule] of before) if (!after.has(key)) this.#network.deleteRule(rule);
  }

  /** Removes all that is installed for a tunnel, also what an earlier daemon left there. */
  release(tunnel: string, table: number): void {
    this.#changes++;
    this.#tunnels.delete(tunnel);
    this.#clear(table);
  }

  /** Removes what an earlier daemon left, except for tunnels with these tables. */
  reconcile(tables: readonly number[]): void {
    const kept = new Set([...tables, ...[...this.#tunnels.values()].map(({ plan }) => plan.table)]);
    const found = new Set<number>();
    const rules = this.#network.rules();
    const ownerIn = ownersIn(rules);
    for (const rule of rules) {
      const owner = ownerIn(rule);
      if (isOfTunnel(rule) && owner !== undefined && !kept.has(owner)) found.add(owner);
    }
    for (const { table } of this.#network.routes({ protocol: OWN_PROTOCOL })) {
      if (!kept.has(table) && !SYSTEM_TABLES.includes(table)) found.add(table);
    }
    for (const table of found) this.#clear(table);
    // What another program left of a pair.
    for (const rule of rules.filter(isOnwardLookUp)) if (ownerIn(rule) === undefined) this.#network.deleteRule(rule);
  }

  /** As `Platform` says. */
  routeBridge(bridge: string, own: readonly Prefix[], table: number | undefined): () => void {
    return this.#bridges.route(bridge, own, table);
  }

  /** Whether local addresses are those of guests: the policy for them does not concern what the host itself sends. */
  isOfGuests(local: AddressRange): boolean {
    return isOfGuests(local, this.#bridges.guests());
  }

  forgetBridges(): void {
    this.#bridges.forgetOthers();
  }

  /** The host's own, except those at routed bridges: the host has these for its guests, and sends nothing else from them. */
  #addresses(): OwnAddresses {
    return new OwnAddresses(this.#network.addresses(), this.#bridges.guests());
  }

  #routesOf(table: number): InstalledRoute[] {
    return this.#network.routes({ table, protocol: OWN_PROTOCOL });
  }

  /** Removes everything of a tunnel, also what an earlier daemon installed. Rules first: never one into a table that is open. */
  #clear(table: number): void {
    for (const rule of rulesOf(this.#network.rules(), table)) this.#network.deleteRule(rule);
    this.#network.deleteRoutes(this.#routesOf(table));
  }
}

function rulesOf(rules: readonly InstalledRule[], table: number): InstalledRule[] {
  const ownerIn = ownersIn(rules);
  return rules.filter((rule) => isOfTunnel(rule) && ownerIn(rule) === table);
}

function downText(link: Link | undefined): string[] {
  if (link === undefined || link.up) return [];
  return [`the device ${link.name} is down, so no packet is routed into it: ip link set ${link.name} up`];
}

function* chunks<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let first = 0; first < items.length; first += size) yield items.slice(first, first + size);
}
