/**
 * The tables that tunnels share, where their local networks are too many for rules of each: these are gathered in trees of rules
 * (`local-rules.ts`), and what the host sends without a source finds its way by two tables for all (`unbound.ts`).
 *
 * The rules of a daemon before this one stand in priorities of their own until no tunnel has any between them: what jumps there
 * passes over none of this one's.
 */
import {
  type HostNetwork,
  type InstalledRoute,
  type InstalledRule,
  OWN_PROTOCOL,
  type Route,
  type Rule,
} from '../routes/routes.ts';
import { compareRules, routeKey, ruleKey, wayKey } from './compare.ts';
import { LocalRules } from './local-rules.ts';
import type { RuleChange } from './local-tree.ts';
import type { TableMember } from './member.ts';
import { type Changer, type Mended, mendRouting, type RoutesOf } from './mend.ts';
import { type Block, findFreeBlock, findGuardBlock, isBehindBlocks, isWithin, spanOf } from './priorities.ts';
import type { RuleBook } from './rule-book.ts';
import type { RoutingTable } from './table.ts';
import { UNBOUND_TABLES, UnboundRoutes } from './unbound.ts';

/** How many priorities are taken, if so many in a row are free. The rules of an earlier daemon may stand beside them. */
const SIZES = [9_000, 3_000, 900];
/** Of them, for what came out of tunnels. */
const GUARD_SIZES = [1_850, 900, 300];

export class Gathered {
  readonly #network: HostNetwork;
  readonly #rules: RuleBook;
  readonly #unbound = new UnboundRoutes();
  #locals: LocalRules | undefined;
  /** Of a daemon before. BOUNDED: by what it left. */
  #old: readonly InstalledRule[] = [];
  /** By table, keys of the routes that stood there before; those of tunnels that have not come back stay. */
  readonly #noted = new Map<number, ReadonlySet<string>>();

  constructor(network: HostNetwork, rules: RuleBook) {
    this.#network = network;
    this.#rules = rules;
  }

  get locals(): LocalRules | undefined {
    return this.#locals;
  }

  /** Priorities that are for no other rule. */
  get blocks(): Block[] {
    const own = this.#locals === undefined ? [] : [this.#locals, this.#locals.guardBlock];
    return [...own.filter((block) => block !== undefined), ...this.#leftSpans.map(({ span }) => span)];
  }

  /** What stands of a daemon before, in one place and another. */
  get #leftSpans(): { readonly span: Block; readonly rules: readonly InstalledRule[] }[] {
    const places = [false, true].map((isBehind) => this.#left.filter((rule) => isBehindBlocks(rule) === isBehind));
    return places.flatMap((rules) => spanOf(rules).map((span) => ({ span, rules })));
  }

  /** What stands of a daemon before. */
  get #left(): readonly InstalledRule[] {
    return this.#locals === undefined ? this.#standing() : this.#old;
  }

  /**
   * Rules of its own, in place of those that it may have.
   * @returns false where there is no room: then it is as before
   */
  form(others: Iterable<Block>): boolean {
    const taken = [...others, ...this.blocks];
    const priorities = [...this.#rules.priorities()];
    const block = firstBlock(SIZES, (size) => findFreeBlock(priorities, taken, { size, from: undefined }));
    if (block === undefined) return false;
    const guardBlock = firstBlock(GUARD_SIZES, (size) => findGuardBlock(priorities, taken, size));
    if (this.#locals === undefined) {
      this.#old = this.#standing();
      for (const table of UNBOUND_TABLES) {
        this.#noted.set(table, new Set(this.#network.routes({ table, protocol: OWN_PROTOCOL }).map(routeKey)));
      }
    }
    this.#locals = new LocalRules(block, guardBlock);
    return true;
  }

  /** Our rules that are of no other table. */
  #standing(): InstalledRule[] {
    return UNBOUND_TABLES.flatMap((table) => this.#rules.of(table));
  }

  /** Packets from its local networks are routed by a table. @throws Error when the system refuses */
  lead({ locals, number }: RoutingTable): void {
    this.#apply(this.#locals?.add(locals, number) ?? []);
  }

  /** Follows what a table guards. @throws Error when the system refuses */
  guard(table: RoutingTable): void {
    this.#apply(this.#locals?.guard(table) ?? []);
  }

  /** The first tables, at once. @throws Error as `lead` */
  leadFirst(tables: readonly RoutingTable[]): void {
    for (const table of tables) {
      this.#locals?.add(table.locals, table.number);
      this.#locals?.guard(table);
    }
    const rules = [...tables.flatMap(({ ledRules }) => ledRules), ...(this.#locals?.common ?? [])];
    rules.sort((a, b) => a.priority - b.priority);
    // What refuses is added last: all that is to be looked up before it is there then.
    this.#rules.change([], [...rules.filter(isRefusal), ...rules.filter((rule) => !isRefusal(rule))]);
  }

  /** No longer. @throws Error as `lead`; then they are */
  leave(table: RoutingTable): void {
    const { locals, number } = table;
    const changes = this.#locals?.remove(locals, number) ?? [];
    try {
      this.#apply(changes);
      this.#apply(this.#locals?.unguard(table) ?? []);
    } catch (error) {
      this.#locals?.add(locals, number);
      this.#locals?.guard(table);
      throw error;
    }
    if (this.#locals?.isEmpty === true) this.#locals = undefined;
  }

  #apply(changes: readonly RuleChange[]): void {
    for (const { before, after } of changes) this.#rules.change(before, after);
  }

  /** Removes the rules that were in use before it was formed once more. */
  dropFormer(former: LocalRules): void {
    this.#rules.change(former.common, []);
  }

  /** A tunnel of a gathered table, in place of what it was: what the host sends to it without a source is refused. @throws Error */
  addMember(member: TableMember, former: TableMember | undefined): void {
    const added = this.#unbound.add(member).filter((route) => !this.#isNoted(route));
    this.#network.addRoutes(added);
    if (former !== undefined && former !== member) this.removeMember(former);
  }

  #isNoted(route: Route): boolean {
    return this.#noted.get(route.table!)?.has(routeKey(route)) === true;
  }

  hasMember(member: TableMember): boolean {
    return this.#unbound.has(member);
  }

  openRoutes(member: TableMember): Route[] {
    return this.#unbound.open(member);
  }

  /** @throws Error when the system refuses; then the member stays */
  removeMember(member: TableMember): void {
    const { gone, instead } = this.#unbound.without(member);
    // Those that refuse stay where another one comes.
    this.#network.deleteRoutes(gone);
    this.#addWhereUp(instead);
    this.#unbound.remove(member);
  }

  /** Removes what a daemon before left for a tunnel that is in none of these tables. */
  removeLeft(closedRoutes: readonly Route[]): void {
    const routes = UNBOUND_TABLES.flatMap((table) => closedRoutes.map((route) => ({ ...route, table })));
    this.#network.deleteRoutes(routes.filter((route) => !this.#unbound.isClaimed(route)));
  }

  wantsRule(rule: InstalledRule): boolean {
    return this.#locals?.wants(rule) === true;
  }

  wantsRoute(route: InstalledRoute): boolean {
    return this.#unbound.wants(route);
  }

  get members(): Iterable<TableMember> {
    return this.#unbound.members;
  }

  /** Keys of all routes that are wanted in a table of these. */
  wantedIn(table: number): Set<string> {
    return new Set(this.#unbound.routes(table).map(routeKey));
  }

  /** Compares what is for all tables with what is wanted, and puts right what differs. */
  mend(changer: Changer, routesOf: RoutesOf): Mended {
    this.#removeOld();
    // What a daemon before left of tunnels that are to run again is for them to remove.
    if (this.#locals === undefined) return { found: [], problems: [] };
    this.#unbound.follow();
    const old = new Set(this.#old.map(ruleKey));
    const tables = UNBOUND_TABLES.map((number) => {
      const there = new Set(routesOf(number).map(wayKey));
      const wanted = this.#unbound.routes(number);
      const absent = wanted.filter((route) => !there.has(wayKey(route)));
      const impossible = new Set(absent.filter((route) => !this.#hasLink(route)));
      const routes = wanted.filter((route) => !impossible.has(route));
      return { number, routes, kept: this.#noted.get(number) ?? new Set<string>() };
    });
    const rules = this.#locals.common;
    const own = this.#known(rules).filter((rule) => !old.has(ruleKey(rule)));
    const addRoutes = (routes: readonly Route[]): void => this.#addWhereUp(routes);
    return mendRouting({ ...changer, addRoutes }, { rules, tables, flows: [] }, { own, foreign: [], routesOf });
  }

  /** Reports may come late: what is to be changed is looked at. */
  #known(wanted: readonly Rule[]): readonly InstalledRule[] {
    const { missing, surplus } = compareRules(wanted, this.#standing());
    if (missing.length + surplus.length > this.#old.length) this.#rules.forget();
    return this.#standing();
  }

  /** Devices of other tunnels may go at any moment. @throws Error when the system refuses a route whose device is up */
  #addWhereUp(routes: readonly Route[]): void {
    const possible = routes.filter((route) => this.#hasLink(route));
    try {
      this.#network.addRoutes(possible);
    } catch (error) {
      if (possible.every((route) => this.#hasLink(route))) throw error;
      this.#addWhereUp(possible);
    }
  }

  /** Whether it needs none, or that is up. */
  #hasLink({ linkIndex }: Route): boolean {
    return linkIndex === undefined || this.#network.link(linkIndex)?.up === true;
  }

  /** Those of a daemon before, once there are no others between them. */
  #removeOld(): void {
    for (const { span, rules } of this.#leftSpans) {
      let between = 0;
      for (const priority of this.#rules.priorities()) if (isWithin(span, priority)) between++;
      if (between > rules.length) continue;
      this.#rules.change(rules, []);
      this.#old = this.#old.filter((rule) => !rules.includes(rule));
    }
  }
}

function isRefusal({ action }: Rule): boolean {
  return action.type === 'unreachable';
}

/** As many priorities as there is room for. */
function firstBlock(sizes: readonly number[], find: (size: number) => number | undefined): Block | undefined {
  for (const size of sizes) {
    const block = find(size);
    if (block !== undefined) return { block, size };
  }
  return undefined;
}
