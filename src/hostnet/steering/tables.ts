/**
 * The routing tables of all tunnels of a network namespace, as they stand in the system: which tunnel has which, and in which
 * order their rules come. A tunnel shares a table with others where it can (`table.ts`). It has one of its own where its policy
 * meets that of a tunnel that comes before it or of a tunnel in a shared table, since the order of two tunnels is that of
 * their rules.
 */
import {
  DEVICE_GROUP,
  type HostNetwork,
  type InstalledRoute,
  type InstalledRule,
  OWN_PROTOCOL,
  ownerOf,
  type Prefix,
  type Rule,
} from '../routes/routes.ts';
import { SYSTEM_TABLES } from './check.ts';
import { routeKey, ruleKey } from './compare.ts';
import { TableMember } from './member.ts';
import { guardedNetworks, type MainTable } from './onward.ts';
import { isReached, mainTableOf } from './onward-routes.ts';
import type { RoutingPlan, TableWish } from './plan.ts';
import { freeBlock, isOfTunnel, isOnwardLookUp, ownersIn } from './priorities.ts';
import type { OwnAddresses } from './sources.ts';
import { RoutingTable, sharedKey } from './table.ts';
import { TableNumbers } from './table-numbers.ts';
import type { TunnelOrder } from './tunnel-order.ts';

/** Each shared table has rules of its own: more would cost each packet too much. */
const MAX_SHARED = 32;

export class SteeringTables {
  readonly #network: HostNetwork;
  readonly #order: TunnelOrder;
  readonly #addresses: () => OwnAddresses;
  /** By number. BOUNDED: by the tunnels. */
  readonly #tables = new Map<number, RoutingTable>();
  /** By tunnel. BOUNDED: by the tunnels. */
  readonly #of = new Map<string, RoutingTable>();
  readonly #numbers = new TableNumbers((table) => this.#tables.has(table));
  /** By link, the tunnels with that device. BOUNDED: by the tunnels. */
  readonly #links = new Map<number, string>();
  /** Tunnels whose table others use too, which need one of their own. BOUNDED: by the bridges. */
  readonly #apart = new Set<string>();
  /** Tunnels that are to run again, of which an earlier daemon may have left something in another table. BOUNDED: by those. */
  readonly #returning = new Set<string>();
  /** By shared table, the routes there that an earlier daemon left. BOUNDED: by those. */
  readonly #left = new Map<number, ReadonlySet<string>>();

  /** @param addresses of this host, as they are now */
  constructor(network: HostNetwork, order: TunnelOrder, addresses: () => OwnAddresses) {
    this.#network = network;
    this.#order = order;
    this.#addresses = addresses;
  }

  all(): Iterable<RoutingTable> {
    return this.#tables.values();
  }

  *members(): Iterable<TableMember> {
    for (const table of this.#tables.values()) yield* table.members;
  }

  get areEmpty(): boolean {
    return this.#tables.size === 0;
  }

  of(tunnel: string): RoutingTable | undefined {
    return this.#of.get(tunnel);
  }

  numbered(table: number | undefined): RoutingTable | undefined {
    return table === undefined ? undefined : this.#tables.get(table);
  }

  /** The tunnel that a table is of, or one of them. */
  ownerOf(table: number): string | undefined {
    const [first] = this.#tables.get(table)?.members ?? [];
    return first?.plan.tunnel;
  }

  /** The table that a rule of ours is of. */
  ofRule(rule: InstalledRule): RoutingTable | undefined {
    if (!isOnwardLookUp(rule)) return this.numbered(ownerOf(rule));
    const key = ruleKey(rule);
    return [...this.#tables.values()].find((table) => table.rules.some((other) => ruleKey(other) === key));
  }

  /** Whether packets into a tunnel, or out of one, go by that link. */
  hasLink(index: number): boolean {
    return this.#links.has(index) || [...this.#tables.values()].some(({ onwardLinks }) => onwardLinks.has(index));
  }

  /** @returns what changed, in words */
  setOnward(table: RoutingTable, known: readonly Prefix[], main: MainTable): string | undefined {
    return table.setOnward(known, main, (network) => isReached(this.#network, table, network, main));
  }

  /**
   * Installs rules, and routes that refuse, in place of what the tunnel has.
   * @throws Error when the system refuses; then nothing of the tunnel is installed
   */
  add(plan: RoutingPlan, device: string): void {
    const { tunnel } = plan;
    const before = this.#of.get(tunnel);
    try {
      const key = this.#keyOf(plan);
      const table = key === undefined ? this.#addAlone(plan, device) : this.#join(key, plan, device);
      this.#of.set(tunnel, table);
      if (before !== undefined && before !== table && before.number !== table.number) this.#leave(before, tunnel);
      // It may have had a table to itself that it now shares, or the other way round: what refuses there must not go first.
      if (this.#returning.has(tunnel)) this.#removeLeft(plan, table);
      this.#returning.delete(tunnel);
    } catch (error) {
      if (before !== undefined) this.#leave(before, tunnel);
      this.#forget(tunnel);
      throw error;
    }
    this.putBehind(tunnel);
  }

  /** `undefined` where it needs a table of its own. */
  #keyOf(plan: RoutingPlan): string | undefined {
    const { tunnel } = plan;
    const key = sharedKey(plan);
    if (key === undefined || this.#apart.has(tunnel)) return undefined;
    const order = this.#order;
    if (order.before(tunnel).length + order.mates(tunnel).length > 0) return undefined;
    if (order.behind(tunnel).some((other) => this.#of.get(other)?.key !== undefined)) return undefined;
    const shared = [...this.#tables.values()].filter((table) => table.key !== undefined);
    return shared.length < MAX_SHARED || shared.some((table) => table.key === key) ? key : undefined;
  }

  /** In a table of its own. */
  #addAlone(plan: RoutingPlan, device: string): RoutingTable {
    const number = this.#numbers.own(plan);
    const own = this.#addresses();
    const table = new RoutingTable(number, undefined, own);
    const member = new TableMember(plan, { device, table: number }, own);
    table.add(member);
    const rules = this.#network.rules();
    const stale = this.#routesOf(number);
    this.#place(table, rules, plan.tunnel);
    const standing = rulesOf(rules, number);
    const known = this.#of.get(plan.tunnel)?.guarded ?? [];
    this.setOnward(table, [...known, ...guardedNetworks(standing)], mainTableOf(this.#network));
    try {
      const closed = new Map(member.closedRoutes.map((route) => [routeKey(route), route]));
      const kept = new Set(stale.map(routeKey));
      this.#network.addRoutes([...closed].flatMap(([key, route]) => (kept.has(key) ? [] : [route])));
      this.#changeRules(standing, table.rules);
      this.#network.deleteRoutes(stale.filter((route) => !closed.has(routeKey(route))));
      this.#tables.set(number, table);
      return table;
    } catch (error) {
      this.#tables.delete(number);
      this.#clear(number);
      throw error;
    }
  }

  /** In the table that it shares with others. */
  #join(key: string, plan: RoutingPlan, device: string): RoutingTable {
    const number = this.#numbers.shared(key);
    const own = this.#addresses();
    const known = this.#tables.get(number);
    const table = known ?? new RoutingTable(number, key, own);
    const former = table.member(plan.tunnel);
    const found = known === undefined ? this.#foundRules(number) : [];
    const rules = known?.rules ?? found;
    const member = new TableMember(plan, { device, table: number }, own);
    table.add(member);
    if (known === undefined) {
      this.#place(table, this.#network.rules(), plan.tunnel);
      this.setOnward(table, guardedNetworks(found), mainTableOf(this.#network));
    }
    const there = new Set([...(this.#left.get(number) ?? []), ...(former?.closedRoutes ?? []).map(routeKey)]);
    try {
      this.#tables.set(number, table);
      this.#network.addRoutes(member.closedRoutes.filter((route) => !there.has(routeKey(route))));
      this.#changeRules(rules, table.rules);
      const wanted = new Set(member.closedRoutes.map(routeKey));
      const old = [...(former?.closedRoutes ?? []), ...(former?.openRoutes ?? [])];
      this.#network.deleteRoutes(old.filter((route) => !wanted.has(routeKey(route))));
      return table;
    } catch (error) {
      this.#leave(table, plan.tunnel);
      throw error;
    }
  }

  /** What an earlier daemon left of a shared table: its rules; the routes are noted. */
  #foundRules(number: number): InstalledRule[] {
    this.#left.set(number, new Set(this.#routesOf(number).map(routeKey)));
    return rulesOf(this.#network.rules(), number);
  }

  #place(table: RoutingTable, rules: readonly InstalledRule[], tunnel: string): void {
    const others = [...this.#tables.values()].filter(({ number }) => number !== table.number);
    table.place(freeBlock(rules, others, { table: table.number, size: table.size, from: this.#firstFor(tunnel) }));
  }

  /** The first priority behind those of the tunnels that come before this one. */
  #firstFor(tunnel: string): number | undefined {
    const before = this.#order.before(tunnel).flatMap((other) => this.#of.get(other) ?? []);
    return before.length === 0 ? undefined : Math.max(...before.map(({ block, size }) => block + size));
  }

  /** The last first: what a goto jumps over has its end then. Old rules go when the new ones stand. */
  #changeRules(before: readonly Rule[], after: readonly Rule[]): void {
    const there = new Set(before.map(ruleKey));
    const wanted = new Set(after.map(ruleKey));
    this.#network.addRules(after.filter((rule) => !there.has(ruleKey(rule))).reverse());
    for (const rule of before) if (!wanted.has(ruleKey(rule))) this.#network.deleteRule(rule);
  }

  /**
   * Moves tunnels that come after this one, where their rules stand before its own. The new rules stand before the old ones
   * go, so packets always have a way, if for a moment that of the other tunnel.
   */
  putBehind(first: string): void {
    const moved = new Set([first]);
    for (const tunnel of moved) {
      const table = this.#of.get(tunnel);
      if (table === undefined) continue;
      for (const name of this.#order.behind(tunnel)) {
        const other = this.#of.get(name);
        if (other === undefined || moved.has(name) || other.block > table.block) continue;
        if (other.key === undefined) this.#move(other, name);
        else this.#setApart(name, other);
        moved.add(name);
      }
    }
  }

  #move(table: RoutingTable, tunnel: string): void {
    const { rules } = table;
    this.#place(table, this.#network.rules(), tunnel);
    this.#changeRules(rules, table.rules);
  }

  /** Gives a tunnel of a shared table one of its own. */
  #setApart(tunnel: string, shared: RoutingTable): void {
    const { plan, device, linkIndex } = shared.member(tunnel)!;
    const table = this.#addAlone(plan, device);
    this.#of.set(tunnel, table);
    if (linkIndex !== undefined) this.#openInto(table.member(tunnel)!, linkIndex);
    this.#leave(shared, tunnel);
  }

  /** Routes into the device, which is up. @throws Error when the system refuses */
  open(tunnel: string, linkIndex: number): void {
    const member = this.#of.get(tunnel)?.member(tunnel);
    if (member === undefined) throw new Error(`bug: the device of ${tunnel} has no rules`);
    this.#network.setLink(linkIndex, { group: DEVICE_GROUP });
    this.#links.set(linkIndex, tunnel);
    this.#openInto(member, linkIndex);
  }

  #openInto(member: TableMember, linkIndex: number): void {
    member.setLink(linkIndex);
    this.#network.addRoutes(member.openRoutes);
  }

  /** Which children of a tunnel have an SA. */
  setUp(tunnel: string, up: ReadonlySet<string>): void {
    const table = this.#of.get(tunnel);
    const plan = table?.member(tunnel)?.plan;
    if (table === undefined || plan?.outbound.some(({ level }) => level === 'use') !== true) return;
    const { rules } = table;
    table.setUp(up);
    this.#changeRules(rules, table.rules);
  }

  /** @param plan by which an earlier daemon may have left something */
  release(tunnel: string, plan: RoutingPlan | undefined): void {
    const table = this.#of.get(tunnel);
    if (table !== undefined) this.#leave(table, tunnel);
    else if (plan !== undefined) this.#removeLeft(plan);
    this.#forget(tunnel);
  }

  #forget(tunnel: string): void {
    this.#of.delete(tunnel);
    this.#returning.delete(tunnel);
    this.#numbers.freeOwn(tunnel);
    for (const [index, other] of this.#links) if (other === tunnel) this.#links.delete(index);
  }

  /** What an earlier daemon left of a tunnel. @param except the table that it has now */
  #removeLeft(plan: RoutingPlan, except?: RoutingTable): void {
    const number = this.#numbers.own(plan);
    if (!this.#tables.has(number)) this.#clear(number);
    const key = sharedKey(plan);
    if (key === undefined || key === except?.key) return;
    const table = this.#numbers.shared(key);
    const { closedRoutes } = new TableMember(plan, { device: '', table }, this.#addresses());
    this.#network.deleteRoutes(closedRoutes);
    if (!this.#tables.has(table)) this.#clearIfEmpty(table);
  }

  #clearIfEmpty(table: number): void {
    if (this.#routesOf(table).length === 0) this.#clear(table);
  }

  /** What the system refuses to remove can be removed by the next call. @throws Error */
  #leave(table: RoutingTable, tunnel: string): void {
    const member = table.member(tunnel);
    if (member === undefined) return;
    const { key, number, rules } = table;
    if (key === undefined) {
      this.#clear(number);
      this.#tables.delete(number);
      return;
    }
    this.#network.deleteRoutes([...member.openRoutes, ...member.closedRoutes]);
    const [first, second] = table.members;
    if (first === member && second === undefined) {
      // Of tunnels that are to run again, something an earlier daemon left may stand there.
      if (this.#left.has(number)) this.#clearIfEmpty(number);
      else this.#clear(number);
      this.#tables.delete(number);
      this.#numbers.freeShared(key);
    }
    table.remove(tunnel);
    if (table.isEmpty) return;
    try {
      this.#changeRules(rules, table.rules);
    } catch (error) {
      table.add(member);
      throw error;
    }
  }

  /** The number of the table that a tunnel has to itself from now on. */
  numberApart(plan: TableWish): number {
    this.#apart.add(plan.tunnel);
    const table = this.#of.get(plan.tunnel);
    if (table?.key !== undefined) this.#setApart(plan.tunnel, table);
    return this.#of.get(plan.tunnel)?.number ?? this.#numbers.own(plan);
  }

  /** Removes what an earlier daemon left, except for tunnels with these plans. */
  reconcile(plans: readonly RoutingPlan[]): void {
    const own = this.#addresses();
    const kept = new Set([...this.#tables.keys(), ...plans.map((plan) => this.#numbers.own(plan))]);
    // BOUNDED: by the tunnels.
    const routes = new Map<number, Set<string>>();
    for (const plan of plans) {
      if (!this.#of.has(plan.tunnel)) this.#returning.add(plan.tunnel);
      const key = sharedKey(plan);
      if (key === undefined) continue;
      const table = this.#numbers.shared(key);
      const keys = routes.get(table) ?? new Set();
      for (const route of new TableMember(plan, { device: '', table }, own).closedRoutes) keys.add(routeKey(route));
      routes.set(table, keys);
    }
    const found = new Set<number>();
    const rules = this.#network.rules();
    const ownerIn = ownersIn(rules);
    for (const rule of rules) {
      const owner = ownerIn(rule);
      if (isOfTunnel(rule) && owner !== undefined) found.add(owner);
    }
    for (const { table } of this.#network.routes({ protocol: OWN_PROTOCOL }))
      if (!SYSTEM_TABLES.includes(table)) found.add(table);
    for (const table of found) {
      if (kept.has(table) || routes.has(table)) this.#removeUnwanted(table, routes.get(table));
      else this.#clear(table);
    }
    // What another program left of a pair.
    for (const rule of rules.filter(isOnwardLookUp)) if (ownerIn(rule) === undefined) this.#network.deleteRule(rule);
  }

  /** Of a shared table, the routes of tunnels that are not to run again. */
  #removeUnwanted(number: number, kept: ReadonlySet<string> | undefined): void {
    if (!this.#numbers.isShared(number)) return;
    const table = this.#tables.get(number);
    const wanted = new Set([...(kept ?? []), ...(table?.routes(() => true) ?? []).map(routeKey)]);
    this.#network.deleteRoutes(this.#routesOf(number).filter((route) => !wanted.has(routeKey(route))));
    this.#left.delete(number);
  }

  #routesOf(table: number): InstalledRoute[] {
    return this.#network.routes({ table, protocol: OWN_PROTOCOL });
  }

  /** All of a table, whoever installed it. Rules first: never one into a table that is open. */
  #clear(table: number): void {
    for (const rule of rulesOf(this.#network.rules(), table)) this.#network.deleteRule(rule);
    this.#network.deleteRoutes(this.#routesOf(table));
  }
}

function rulesOf(rules: readonly InstalledRule[], table: number): InstalledRule[] {
  const ownerIn = ownersIn(rules);
  return rules.filter((rule) => isOfTunnel(rule) && ownerIn(rule) === table);
}
