/**
 * The routing tables of all tunnels of a network namespace, as they stand in the system: which tunnel has which, and in which
 * order their rules come. A tunnel shares a table with others where it can (`table.ts`). It has one of its own where its policy
 * meets that of a tunnel that comes before it or of a tunnel in a shared table, since the order of two tunnels is that of
 * their rules.
 */
import { isDeepStrictEqual } from 'node:util';
import { SetMap } from '../../base/set-map.ts';
import { DEVICE_GROUP, type HostNetwork, type InstalledRule, ownerOf, type Prefix } from '../routes/routes.ts';
import { routeKey } from './compare.ts';
import { DeviceTunnels } from './device-tunnels.ts';
import { Leftovers } from './leftovers.ts';
import { TableMember } from './member.ts';
import { guardedNetworks, type MainTable } from './onward.ts';
import { isReached, mainTableOf } from './onward-routes.ts';
import type { RoutingPlan, TableWish } from './plan.ts';
import { freeBlock, isOnwardLookUp } from './priorities.ts';
import type { RuleBook } from './rule-book.ts';
import type { OwnAddresses } from './sources.ts';
import { canShare, namedKey, RoutingTable, sharedKey } from './table.ts';
import { TableNumbers } from './table-numbers.ts';
import type { TunnelOrder } from './tunnel-order.ts';

/** Each shared table has rules of its own: more would cost each packet too much. */
const MAX_SHARED = 32;

export class SteeringTables {
  readonly #network: HostNetwork;
  readonly #rules: RuleBook;
  readonly #order: TunnelOrder;
  readonly #addresses: () => OwnAddresses;
  /** By number. BOUNDED: by the tunnels, as all of these. */
  readonly #tables = new Map<number, RoutingTable>();
  /** Those that tunnels share, by key. */
  readonly #shared = new Map<string, RoutingTable>();
  /** By tunnel. */
  readonly #of = new Map<string, RoutingTable>();
  readonly #numbers = new TableNumbers((table) => this.#tables.has(table));
  readonly #devices = new DeviceTunnels();
  /** By link, the tables of tunnels whose packets go on by it. */
  readonly #onward = new SetMap<number, RoutingTable>();
  /** Tunnels whose table others use too, which need one of their own. BOUNDED: by the bridges. */
  readonly #apart = new Set<string>();
  readonly #leftovers: Leftovers;

  /** @param addresses of this host, as they are now */
  constructor(network: HostNetwork, rules: RuleBook, order: TunnelOrder, addresses: () => OwnAddresses) {
    this.#network = network;
    this.#rules = rules;
    this.#order = order;
    this.#addresses = addresses;
    const has = (tunnel: string): boolean => this.#of.has(tunnel);
    this.#leftovers = new Leftovers({
      ...{ network, rules, addresses, has },
      ...{ numbers: this.#numbers, tables: this.#tables },
    });
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

  /** Another tunnel that has the table, and cannot share it with this one. */
  otherIn(number: number, plan: RoutingPlan, device: string): string | undefined {
    const other = this.#tables.get(number)?.otherThan(plan.tunnel);
    return other === undefined || canShare(other, plan, device) ? undefined : other.plan.tunnel;
  }

  /** The tunnel that a table is of, or one of them. */
  ownerOf(table: number): string | undefined {
    const [first] = this.#tables.get(table)?.members ?? [];
    return first?.plan.tunnel;
  }

  /** The table that a rule of ours is of. */
  ofRule(rule: InstalledRule): RoutingTable | undefined {
    if (!isOnwardLookUp(rule)) return this.numbered(ownerOf(rule));
    const { inputLink } = rule;
    const candidates =
      inputLink === undefined
        ? this.#shared.values()
        : [...this.#devices.named(inputLink)].flatMap((tunnel) => this.#of.get(tunnel) ?? []);
    return [...new Set(candidates)].find((table) => table.wantsRule(rule));
  }

  /** The tunnels into whose device packets go by that link. */
  *ofLink(index: number): Generator<{ readonly table: RoutingTable; readonly member: TableMember }> {
    for (const tunnel of this.#devices.onLink(index)) {
      const table = this.#of.get(tunnel);
      const member = table?.member(tunnel);
      if (table !== undefined && member !== undefined) yield { table, member };
    }
  }

  /** The tables of tunnels whose packets go on by that link. */
  onwardBy(index: number): Iterable<RoutingTable> {
    return this.#onward.get(index);
  }

  /** @returns what changed, in words */
  setOnward(table: RoutingTable, known: readonly Prefix[], main: MainTable): string | undefined {
    const before = table.onwardLinks;
    const change = table.setOnward(known, main, (network) => isReached(this.#network, table, network, main));
    for (const link of before) this.#onward.delete(link, table);
    for (const link of table.onwardLinks) this.#onward.add(link, table);
    return change;
  }

  /** Whether all of this stands for the tunnel, as far as this daemon set it. */
  stands(plan: RoutingPlan, device: string): boolean {
    const member = this.#of.get(plan.tunnel)?.member(plan.tunnel);
    return (
      member?.device === device && !this.#leftovers.isReturning(plan.tunnel) && isDeepStrictEqual(member.plan, plan)
    );
  }

  #keep(table: RoutingTable): void {
    const before = this.#tables.get(table.number);
    if (before !== undefined && before !== table) this.#drop(before);
    this.#tables.set(table.number, table);
    if (table.key !== undefined) this.#shared.set(table.key, table);
  }

  #drop(table: RoutingTable): void {
    for (const link of table.onwardLinks) this.#onward.delete(link, table);
    if (this.#tables.get(table.number) === table) this.#tables.delete(table.number);
    if (table.key !== undefined && this.#shared.get(table.key) === table) this.#shared.delete(table.key);
  }

  /**
   * Installs rules, and routes that refuse, in place of what the tunnel has.
   * @throws Error when the system refuses; then nothing of the tunnel is installed
   */
  add(plan: RoutingPlan, device: string): void {
    const { tunnel } = plan;
    const before = this.#of.get(tunnel);
    const former = before?.member(tunnel);
    try {
      const key = this.#keyOf(plan) ?? this.#shareNamed(plan, device);
      const table = key === undefined ? this.#addAlone(plan, device) : this.#join(key, plan, device);
      this.#of.set(tunnel, table);
      if (before !== undefined && before !== table && before.number !== table.number) this.#leave(before, tunnel);
      if (former !== undefined) this.#forgetDevice(former);
      this.#devices.add(device, tunnel);
      // What refuses in another table must not go first.
      this.#leftovers.settle(plan, table);
    } catch (error) {
      if (before !== undefined) this.#leave(before, tunnel);
      this.#forget(tunnel);
      throw error;
    }
    this.putBehind(tunnel);
  }

  /** The key of the table that the document names, where a tunnel on the same device has it. */
  #shareNamed(plan: RoutingPlan, device: string): string | undefined {
    const table = this.numbered(plan.table);
    const other = table?.otherThan(plan.tunnel);
    const key = namedKey(plan);
    if (table === undefined || other === undefined || key === undefined) return undefined;
    if (!canShare(other, plan, device)) return undefined;
    const { rules } = table;
    table.share(key);
    this.#keep(table);
    this.#rules.change(rules, table.rules);
    return key;
  }

  /** `undefined` where it needs a table of its own. */
  #keyOf(plan: RoutingPlan): string | undefined {
    const { tunnel } = plan;
    const key = sharedKey(plan);
    if (key === undefined || this.#apart.has(tunnel)) return undefined;
    const order = this.#order;
    if (order.before(tunnel).length + order.mates(tunnel).length > 0) return undefined;
    if (order.behind(tunnel).some((other) => this.#of.get(other)?.key !== undefined)) return undefined;
    return this.#shared.size < MAX_SHARED || this.#shared.has(key) ? key : undefined;
  }

  /** In a table of its own. */
  #addAlone(plan: RoutingPlan, device: string): RoutingTable {
    const number = this.#numbers.own(plan);
    const own = this.#addresses();
    const table = new RoutingTable(number, undefined, own);
    const member = new TableMember(plan, { device, table: number }, own);
    table.add(member);
    const used = this.#tables.has(number);
    const stale = used ? this.#leftovers.standing(number) : this.#leftovers.routesIn(number);
    this.#place(table, plan.tunnel);
    const standing = this.#rules.of(number);
    const known = this.#of.get(plan.tunnel)?.guarded ?? [];
    this.setOnward(table, [...known, ...guardedNetworks(standing)], mainTableOf(this.#network));
    try {
      const closed = new Map(member.closedRoutes.map((route) => [routeKey(route), route]));
      const kept = new Set(stale.map(routeKey));
      this.#network.addRoutes([...closed].flatMap(([key, route]) => (kept.has(key) ? [] : [route])));
      this.#rules.change(standing, table.rules);
      this.#network.deleteRoutes(stale.filter((route) => !closed.has(routeKey(route))));
      this.#keep(table);
      return table;
    } catch (error) {
      this.#drop(this.#tables.get(number) ?? table);
      this.#drop(table);
      this.#leftovers.clear(number);
      throw error;
    }
  }

  /** In the table that it shares with others. */
  #join(key: string, plan: RoutingPlan, device: string): RoutingTable {
    const number = plan.table ?? this.#numbers.shared(key);
    const own = this.#addresses();
    const known = this.#tables.get(number);
    const table = known ?? new RoutingTable(number, key, own);
    const former = table.member(plan.tunnel);
    const found = known === undefined ? this.#leftovers.adopt(number) : [];
    const rules = known?.rules ?? found;
    const member = new TableMember(plan, { device, table: number }, own);
    table.add(member);
    if (known === undefined) {
      this.#place(table, plan.tunnel);
      this.setOnward(table, guardedNetworks(found), mainTableOf(this.#network));
    }
    const noted = this.#leftovers.noted(number);
    const there = new Set((former?.closedRoutes ?? []).map(routeKey));
    try {
      this.#keep(table);
      this.#network.addRoutes(
        member.closedRoutes.filter((route) => !there.has(routeKey(route)) && !noted.has(routeKey(route))),
      );
      this.#rules.change(rules, table.rules);
      const wanted = new Set(member.closedRoutes.map(routeKey));
      const old = [...(former?.closedRoutes ?? []), ...(former?.openRoutes ?? [])];
      this.#network.deleteRoutes(old.filter((route) => !wanted.has(routeKey(route))));
      return table;
    } catch (error) {
      this.#leave(table, plan.tunnel);
      throw error;
    }
  }

  #place(table: RoutingTable, tunnel: string): void {
    const others = [...this.#tables.values()].filter(({ number }) => number !== table.number);
    const wanted = { table: table.number, size: table.size, from: this.#firstFor(tunnel) };
    table.place(freeBlock(this.#rules.priorities(), others, wanted));
  }

  /** The first priority behind those of the tunnels that come before this one. */
  #firstFor(tunnel: string): number | undefined {
    const before = this.#order.before(tunnel).flatMap((other) => this.#of.get(other) ?? []);
    return before.length === 0 ? undefined : Math.max(...before.map(({ block, size }) => block + size));
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
        if (other.key === undefined || other.isNamed) this.#move(other, name);
        else this.#setApart(name, other);
        moved.add(name);
      }
    }
  }

  #move(table: RoutingTable, tunnel: string): void {
    const { rules } = table;
    this.#place(table, tunnel);
    this.#rules.change(rules, table.rules);
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
    const isKnown = this.#devices.onLink(linkIndex).size > 0;
    if (!isKnown) this.#network.setLink(linkIndex, { group: DEVICE_GROUP });
    this.#devices.addLink(linkIndex, tunnel);
    this.#openInto(member, linkIndex);
    // The kernel does not report it once more.
    if (isKnown) member.linkLooked(this.#network.link(linkIndex));
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
    this.#rules.change(rules, table.rules);
  }

  /** @param plan by which an earlier daemon may have left something */
  release(tunnel: string, plan: RoutingPlan | undefined): void {
    const table = this.#of.get(tunnel);
    if (table !== undefined) this.#leave(table, tunnel);
    else if (plan !== undefined) this.#leftovers.remove(plan);
    this.#forget(tunnel);
  }

  #forget(tunnel: string): void {
    this.#of.delete(tunnel);
    this.#leftovers.forget(tunnel);
    this.#numbers.freeOwn(tunnel);
  }

  /** Of a tunnel that has no table any more, or another device. */
  #forgetDevice(member: TableMember): void {
    const { tunnel } = member.plan;
    const now = this.#of.get(tunnel)?.member(tunnel);
    if (now === undefined || now === member || now.linkIndex !== member.linkIndex) this.#devices.forget(member);
  }

  /** What the system refuses to remove can be removed by the next call. @throws Error */
  #leave(table: RoutingTable, tunnel: string): void {
    const member = table.member(tunnel);
    if (member === undefined) return;
    const { key, number, rules } = table;
    if (key === undefined) {
      this.#leftovers.clear(number);
      this.#forgetDevice(member);
      this.#drop(table);
      return;
    }
    this.#network.deleteRoutes([...member.openRoutes, ...member.closedRoutes]);
    const [first, second] = table.members;
    if (first === member && second === undefined) {
      this.#leftovers.leave(number);
      this.#drop(table);
      this.#numbers.freeShared(key);
    }
    this.#forgetDevice(member);
    table.remove(tunnel);
    if (table.isEmpty) return;
    try {
      this.#rules.change(rules, table.rules);
    } catch (error) {
      table.add(member);
      throw error;
    }
  }

  /** The number of the table that a tunnel has to itself from now on. */
  numberApart(plan: TableWish): number {
    this.#apart.add(plan.tunnel);
    const table = this.#of.get(plan.tunnel);
    if (table?.key !== undefined && !table.isNamed) this.#setApart(plan.tunnel, table);
    return this.#of.get(plan.tunnel)?.number ?? this.#numbers.own(plan);
  }

  /** Keys of routes in a shared table that an earlier daemon left, of tunnels that have not been started yet or were since. */
  leftIn(table: number): ReadonlySet<string> {
    return this.#leftovers.noted(table);
  }

  /** Removes what an earlier daemon left, except for tunnels with these plans. */
  reconcile(plans: readonly RoutingPlan[]): void {
    this.#leftovers.reconcile(plans);
  }
}
