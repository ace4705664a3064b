/**
 * The routing tables of all tunnels of a network namespace, as they stand in the system: which tunnel has which, and in which
 * order their rules come. A tunnel shares a table with others where it can (`table.ts`). It has one of its own where its policy
 * meets that of a tunnel that comes before it or of a tunnel in a shared table, since the order of two tunnels is that of
 * their rules.
 */
import { isDeepStrictEqual } from 'node:util';
import { DEVICE_GROUP, type HostNetwork, type Prefix, type Rule } from '../routes/routes.ts';
import { routeKey, ruleKey } from './compare.ts';
import { Gathered } from './gathered.ts';
import { Leftovers } from './leftovers.ts';
import { TableMember } from './member.ts';
import { guardedNetworks, type MainTable } from './onward.ts';
import { isReached, mainTableOf } from './onward-routes.ts';
import type { RoutingPlan, TableWish } from './plan.ts';
import { type Block, freeBlock, isWithin } from './priorities.ts';
import type { RuleBook } from './rule-book.ts';
import type { OwnAddresses } from './sources.ts';
import { canShare, namedKey, RoutingTable, sharedKey } from './table.ts';
import { TableIndex } from './table-index.ts';
import { TableNumbers } from './table-numbers.ts';
import type { TunnelOrder } from './tunnel-order.ts';

/** Each shared table has rules of its own, which each packet passes. More are gathered. */
const MAX_APART = 8;

export class SteeringTables {
  readonly index: TableIndex = new TableIndex();
  /** What is for all shared tables together, where they are many. */
  readonly gathered: Gathered;
  readonly #network: HostNetwork;
  readonly #rules: RuleBook;
  readonly #order: TunnelOrder;
  readonly #addresses: () => OwnAddresses;
  readonly #numbers = new TableNumbers((table) => this.index.numbered(table) !== undefined);
  /** Tunnels whose table others use too, which need one of their own. BOUNDED: by the bridges. */
  readonly #apart = new Set<string>();
  readonly #leftovers: Leftovers;

  /** @param addresses of this host, as they are now */
  constructor(network: HostNetwork, rules: RuleBook, order: TunnelOrder, addresses: () => OwnAddresses) {
    this.#network = network;
    this.#rules = rules;
    this.#order = order;
    this.#addresses = addresses;
    this.gathered = new Gathered(network, rules);
    this.#leftovers = new Leftovers({
      ...{ network, rules, addresses, index: this.index },
      ...{ numbers: this.#numbers, gathered: this.gathered },
    });
  }

  /** @returns what changed, in words */
  setOnward(table: RoutingTable, known: readonly Prefix[], main: MainTable): string | undefined {
    const before = table.onwardLinks;
    const change = table.setOnward(known, main, (network) => isReached(this.#network, table, network, main));
    this.index.setOnward(table, before);
    if (table.isGathered) this.gathered.guard(table);
    return change;
  }

  /** Whether all of this stands for the tunnel, as far as this daemon set it. */
  stands(plan: RoutingPlan, device: string): boolean {
    const member = this.index.of(plan.tunnel)?.member(plan.tunnel);
    return (
      member?.device === device && !this.#leftovers.isReturning(plan.tunnel) && isDeepStrictEqual(member.plan, plan)
    );
  }

  /**
   * Installs rules, and routes that refuse, in place of what the tunnel has.
   * @throws Error when the system refuses; then nothing of the tunnel is installed
   */
  add(plan: RoutingPlan, device: string): void {
    const { tunnel } = plan;
    const before = this.index.of(tunnel);
    const former = before?.member(tunnel);
    try {
      const key = this.#keyOf(plan) ?? this.#shareNamed(plan, device);
      const table = key === undefined ? this.#addAlone(plan, device) : this.#join(key, plan, device);
      this.index.setTable(tunnel, table);
      if (before !== undefined && before !== table && before.number !== table.number) this.#leave(before, tunnel);
      if (former !== undefined) this.index.forgetDevice(former);
      this.index.addDevice(device, tunnel);
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
    const table = this.index.numbered(plan.table);
    const other = table?.otherThan(plan.tunnel);
    const key = namedKey(plan);
    if (table === undefined || other === undefined || key === undefined) return undefined;
    if (!canShare(other, plan, device)) return undefined;
    const { rules } = table;
    table.share(key);
    this.index.keep(table);
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
    if (order.behind(tunnel).some((other) => this.index.of(other)?.key !== undefined)) return undefined;
    return key;
  }

  /** In a table of its own. */
  #addAlone(plan: RoutingPlan, device: string): RoutingTable {
    const number = this.#numbers.own(plan);
    const own = this.#addresses();
    const table = new RoutingTable(number, undefined, own);
    const member = new TableMember(plan, { device, table: number }, own);
    table.add(member);
    const used = this.index.numbered(number) !== undefined;
    const stale = used ? this.#leftovers.standing(number) : this.#leftovers.routesIn(number);
    this.#place(table, plan.tunnel);
    const standing = this.#rules.of(number);
    const known = this.index.of(plan.tunnel)?.guarded ?? [];
    this.setOnward(table, [...known, ...guardedNetworks(standing)], mainTableOf(this.#network));
    try {
      const closed = new Map(member.closedRoutes.map((route) => [routeKey(route), route]));
      const kept = new Set(stale.map(routeKey));
      this.#network.addRoutes([...closed].flatMap(([key, route]) => (kept.has(key) ? [] : [route])));
      this.#rules.change(standing, table.rules);
      this.#network.deleteRoutes(stale.filter((route) => !closed.has(routeKey(route))));
      this.index.keep(table);
      return table;
    } catch (error) {
      this.index.drop(this.index.numbered(number) ?? table);
      this.index.drop(table);
      this.#leftovers.clear(number);
      throw error;
    }
  }

  /** In the table that it shares with others. */
  #join(key: string, plan: RoutingPlan, device: string): RoutingTable {
    const number = plan.table ?? this.#numbers.shared(key);
    const own = this.#addresses();
    const known = this.index.numbered(number);
    const table = known ?? new RoutingTable(number, key, own);
    const former = table.member(plan.tunnel);
    const found = known === undefined ? this.#leftovers.adopt(number) : [];
    const rules = known?.rules ?? found;
    const member = new TableMember(plan, { device, table: number }, own);
    table.add(member);
    if (known === undefined) {
      this.#placeShared(table, plan.tunnel);
      this.setOnward(table, guardedNetworks(found), mainTableOf(this.#network));
    }
    const noted = this.#leftovers.noted(number);
    const there = new Set((former?.closedRoutes ?? []).map(routeKey));
    try {
      this.index.keep(table);
      this.#network.addRoutes(
        member.closedRoutes.filter((route) => !there.has(routeKey(route)) && !noted.has(routeKey(route))),
      );
      if (table.isGathered) {
        this.gathered.addMember(member, former);
        // Its device is another one.
        this.gathered.guard(table);
      }
      if (known === undefined) this.#lead(table, rules);
      else this.#rules.change(rules, table.rules);
      const wanted = new Set(member.closedRoutes.map(routeKey));
      const old = [...(former?.closedRoutes ?? []), ...(former?.openRoutes ?? [])];
      this.#network.deleteRoutes(old.filter((route) => !wanted.has(routeKey(route))));
      return table;
    } catch (error) {
      this.#leave(table, plan.tunnel);
      throw error;
    }
  }

  #placeShared(table: RoutingTable, tunnel: string): void {
    const apart = [...this.index.shared()].filter((other) => !other.isNamed);
    const { locals } = this.gathered;
    if (table.isNamed || (locals === undefined && apart.length < MAX_APART)) this.#place(table, tunnel);
    else if (locals !== undefined || this.#gather(apart)) table.gather(this.gathered.locals!);
    else this.#place(table, tunnel);
  }

  /**
   * Gathers tables, once more if they are. Those that come after them go behind first.
   * @returns false where there is no room, and nothing is changed
   */
  #gather(tables: readonly RoutingTable[]): boolean {
    const former = this.gathered.locals;
    const before = tables.map(({ rules }) => rules);
    if (!this.gathered.form(this.#blocksBeside(undefined))) return false;
    for (const table of tables) table.gather(this.gathered.locals!);
    for (const table of tables) for (const { plan } of table.members) this.putBehind(plan.tunnel);
    for (const member of tables.flatMap(({ members }) => [...members])) {
      if (this.gathered.hasMember(member)) continue;
      this.gathered.addMember(member, undefined);
      const isUp = member.linkIndex !== undefined && this.#network.link(member.linkIndex)?.up === true;
      if (isUp) this.#network.addRoutes(this.gathered.openRoutes(member));
    }
    this.gathered.leadFirst(tables);
    for (const [at, table] of tables.entries()) this.#replace(before[at]!, table);
    if (former !== undefined) this.gathered.dropFormer(former);
    return true;
  }

  /** Gives a table its rules, in place of those that stand. */
  #lead(table: RoutingTable, before: readonly Rule[]): void {
    if (table.isGathered) this.gathered.lead(table);
    this.#replace(before, table);
  }

  /** Those that lead to it where it is gathered stand. */
  #replace(before: readonly Rule[], table: RoutingTable): void {
    const keys = new Set(before.map(ruleKey));
    const led = table.ledRules.filter((rule) => !keys.has(ruleKey(rule)));
    this.#rules.change([...before, ...led], table.rules);
  }

  /** Gathers tables anew where another program's rule has come between theirs: what jumps there would pass over it. */
  makeRoom(): void {
    const { locals } = this.gathered;
    if (locals === undefined) return;
    const blocks = [locals, locals.guardBlock].filter((block) => block !== undefined);
    const isMet = ({ priority }: Rule): boolean => blocks.some((block) => isWithin(block, priority));
    if (!this.#rules.foreign.some(isMet)) return;
    this.#gather([...this.index.all()].filter(({ isGathered }) => isGathered));
  }

  #place(table: RoutingTable, tunnel: string): void {
    const wanted = { table: table.number, size: table.size, from: this.#firstFor(tunnel) };
    table.place(freeBlock(this.#rules.priorities(), this.#blocksBeside(table), wanted));
  }

  #blocksBeside(table: RoutingTable | undefined): Block[] {
    const others = [...this.index.all()].filter((other) => !other.isGathered && other.number !== table?.number);
    return [...others, ...this.gathered.blocks];
  }

  /** The first priority behind those of the tunnels that come before this one. */
  #firstFor(tunnel: string): number | undefined {
    const before = this.#order.before(tunnel).flatMap((other) => this.index.of(other) ?? []);
    return before.length === 0 ? undefined : Math.max(...before.map(({ block, size }) => block + size));
  }

  /**
   * Moves tunnels that come after this one, where their rules stand before its own. The new rules stand before the old ones
   * go, so packets always have a way, if for a moment that of the other tunnel.
   */
  putBehind(first: string): void {
    const moved = new Set([first]);
    for (const tunnel of moved) {
      const table = this.index.of(tunnel);
      if (table === undefined) continue;
      for (const name of this.#order.behind(tunnel)) {
        const other = this.index.of(name);
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
    this.index.setTable(tunnel, table);
    if (linkIndex !== undefined) this.#openInto(table.member(tunnel)!, linkIndex);
    this.#leave(shared, tunnel);
  }

  /** Routes into the device, which is up. @throws Error when the system refuses */
  open(tunnel: string, linkIndex: number): void {
    const member = this.index.of(tunnel)?.member(tunnel);
    if (member === undefined) throw new Error(`bug: the device of ${tunnel} has no rules`);
    const isFirst = this.index.addLink(linkIndex, tunnel);
    if (isFirst) this.#network.setLink(linkIndex, { group: DEVICE_GROUP });
    this.#openInto(member, linkIndex);
    // The kernel does not report it once more.
    if (!isFirst) member.linkLooked(this.#network.link(linkIndex));
  }

  #openInto(member: TableMember, linkIndex: number): void {
    member.setLink(linkIndex);
    this.#network.addRoutes([...member.openRoutes, ...this.gathered.openRoutes(member)]);
  }

  /** Which children of a tunnel have an SA. */
  setUp(tunnel: string, up: ReadonlySet<string>): void {
    const table = this.index.of(tunnel);
    const plan = table?.member(tunnel)?.plan;
    if (table === undefined || plan?.outbound.some(({ level }) => level === 'use') !== true) return;
    const { rules } = table;
    table.setUp(up);
    this.#rules.change(rules, table.rules);
  }

  /** @param plan by which an earlier daemon may have left something */
  release(tunnel: string, plan: RoutingPlan | undefined): void {
    const table = this.index.of(tunnel);
    if (table !== undefined) this.#leave(table, tunnel);
    else if (plan !== undefined) this.#leftovers.remove(plan);
    this.#forget(tunnel);
  }

  #forget(tunnel: string): void {
    this.index.forget(tunnel);
    this.#leftovers.forget(tunnel);
    this.#numbers.freeOwn(tunnel);
  }

  /** What the system refuses to remove can be removed by the next call. @throws Error */
  #leave(table: RoutingTable, tunnel: string): void {
    const member = table.member(tunnel);
    if (member === undefined) return;
    const { key, number, rules } = table;
    if (key === undefined) {
      this.#leftovers.clear(number);
      this.index.forgetDevice(member);
      this.index.drop(table);
      return;
    }
    const [first, second] = table.members;
    const isLast = first === member && second === undefined;
    if (table.isGathered && isLast) this.gathered.leave(table);
    if (table.isGathered) this.gathered.removeMember(member);
    this.#network.deleteRoutes([...member.openRoutes, ...member.closedRoutes]);
    if (isLast) {
      this.#leftovers.leave(number);
      this.index.drop(table);
      this.#numbers.freeShared(key);
    }
    this.index.forgetDevice(member);
    table.remove(tunnel);
    if (table.isEmpty) return;
    if (table.isGathered) this.gathered.guard(table);
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
    const table = this.index.of(plan.tunnel);
    if (table?.key !== undefined && !table.isNamed) this.#setApart(plan.tunnel, table);
    return this.index.of(plan.tunnel)?.number ?? this.#numbers.own(plan);
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
