/**
 * What an earlier daemon left of tunnels, until it is taken over or removed. What nothing was found of when all was looked
 * through is not looked for again, so that the first start of a tunnel costs the same however many there are.
 */
import { type HostNetwork, type InstalledRoute, type InstalledRule, OWN_PROTOCOL } from '../routes/routes.ts';
import { SYSTEM_TABLES } from './check.ts';
import { routeKey } from './compare.ts';
import type { Gathered } from './gathered.ts';
import { TableMember } from './member.ts';
import type { RoutingPlan } from './plan.ts';
import { isOfTunnel, isOnwardLookUp, ownersIn } from './priorities.ts';
import type { RuleBook } from './rule-book.ts';
import type { OwnAddresses } from './sources.ts';
import { type RoutingTable, sharedKey } from './table.ts';
import type { TableIndex } from './table-index.ts';
import type { TableNumbers } from './table-numbers.ts';
import { UNBOUND_TABLES } from './unbound.ts';

export interface LeftoversParts {
  readonly network: HostNetwork;
  readonly rules: RuleBook;
  readonly numbers: TableNumbers;
  /** Of tunnels of this daemon. */
  readonly index: TableIndex;
  readonly gathered: Gathered;
  readonly addresses: () => OwnAddresses;
}

export class Leftovers {
  readonly #parts: LeftoversParts;
  /** Tunnels that are to run again, of which something may stand in another table. BOUNDED: by those. */
  readonly #returning = new Set<string>();
  /** By shared table, the routes that stand there. BOUNDED: by those. */
  readonly #routes = new Map<number, ReadonlySet<string>>();
  /** Tables with anything of ours when all was looked through; `undefined` before. BOUNDED: by those. */
  #found: Set<number> | undefined;

  constructor(parts: LeftoversParts) {
    this.#parts = parts;
  }

  /** Our routes that stand in a table that this daemon has not used yet. */
  routesIn(table: number): InstalledRoute[] {
    return this.#isPossible(table) ? this.standing(table) : [];
  }

  /** Our routes that stand in any table. */
  standing(table: number): InstalledRoute[] {
    return this.#parts.network.routes({ table, protocol: OWN_PROTOCOL });
  }

  /** The rules of a shared table that this daemon has not used yet; its routes are noted. */
  adopt(table: number): readonly InstalledRule[] {
    this.#routes.set(table, new Set(this.routesIn(table).map(routeKey)));
    return this.#parts.rules.of(table);
  }

  /** Keys of routes that stand in a shared table. */
  noted(table: number): ReadonlySet<string> {
    return this.#routes.get(table) ?? new Set();
  }

  /** The tunnel has this table now. It may have had one to itself that it now shares, or the other way round. @throws Error */
  settle(plan: RoutingPlan, table: RoutingTable): void {
    if (this.#returning.has(plan.tunnel)) this.remove(plan, table);
    this.#returning.delete(plan.tunnel);
  }

  isReturning(tunnel: string): boolean {
    return this.#returning.has(tunnel);
  }

  forget(tunnel: string): void {
    this.#returning.delete(tunnel);
  }

  /** Removes what was left of a tunnel. @param except the table that it has now @throws Error */
  remove(plan: RoutingPlan, except?: RoutingTable): void {
    const { numbers, index, network, addresses, gathered } = this.#parts;
    const number = numbers.own(plan);
    const isUsed = (one: number): boolean => index.numbered(one) !== undefined;
    if (!isUsed(number) && this.#isPossible(number)) this.clear(number);
    const key = sharedKey(plan);
    if (key === undefined) return;
    const table = numbers.shared(key);
    const { closedRoutes } = new TableMember(plan, { device: '', table }, addresses());
    if (UNBOUND_TABLES.some((one) => this.#isPossible(one))) gathered.removeLeft(closedRoutes);
    if (key === except?.key || (!this.#isPossible(table) && !isUsed(table))) return;
    network.deleteRoutes(closedRoutes);
    if (!isUsed(table)) this.#clearIfEmpty(table);
  }

  /** The last tunnel leaves a table. Of others that are to run again, something may stand there. @throws Error */
  leave(table: number): void {
    if (this.#routes.has(table)) this.#clearIfEmpty(table);
    else this.clear(table);
  }

  /** All of a table, whoever installed it. Rules first: never one into a table that is open. @throws Error */
  clear(table: number): void {
    const { network, rules } = this.#parts;
    rules.clear(table);
    network.deleteRoutes(this.standing(table));
    this.#found?.delete(table);
  }

  /** Removes what was left, except for tunnels with these plans. @throws Error */
  reconcile(plans: readonly RoutingPlan[]): void {
    const { network, rules: book, numbers, index, addresses, gathered } = this.#parts;
    const own = addresses();
    const used = [...index.all()].map(({ number }) => number);
    const kept = new Set([...used, ...plans.map((plan) => numbers.own(plan))]);
    if (gathered.locals !== undefined) for (const table of UNBOUND_TABLES) kept.add(table);
    // BOUNDED: by the tunnels.
    const routes = new Map<number, Set<string>>();
    for (const plan of plans) {
      if (index.of(plan.tunnel) === undefined) this.#returning.add(plan.tunnel);
      const key = sharedKey(plan);
      if (key === undefined) continue;
      const shared = numbers.shared(key);
      const { closedRoutes } = new TableMember(plan, { device: '', table: shared }, own);
      for (const table of [shared, ...UNBOUND_TABLES]) {
        const keys = routes.get(table) ?? new Set();
        for (const route of closedRoutes) keys.add(routeKey(route));
        routes.set(table, keys);
      }
    }
    const found = new Set<number>();
    const rules = network.rules();
    const ownerIn = ownersIn(rules);
    for (const rule of rules) {
      const owner = ownerIn(rule);
      if (isOfTunnel(rule) && owner !== undefined) found.add(owner);
    }
    const others = new Set([...SYSTEM_TABLES, ...network.vrfs().map(({ table }) => table)]);
    for (const { table } of network.routes({ protocol: OWN_PROTOCOL })) if (!others.has(table)) found.add(table);
    this.#found = found;
    for (const table of [...found]) {
      if (kept.has(table) || routes.has(table)) this.#removeUnwanted(table, routes.get(table));
      else this.clear(table);
    }
    // What another program left of a pair.
    for (const rule of rules.filter(isOnwardLookUp)) if (ownerIn(rule) === undefined) book.delete(rule);
  }

  /** Of a shared table, the routes of tunnels that are not to run again. */
  #removeUnwanted(number: number, kept: ReadonlySet<string> | undefined): void {
    const { numbers, index, gathered } = this.#parts;
    if (!numbers.isShared(number) && !UNBOUND_TABLES.includes(number)) return;
    const ofTable = (index.numbered(number)?.routes(() => true) ?? []).map(routeKey);
    const wanted = new Set([...(kept ?? []), ...ofTable, ...gathered.wantedIn(number)]);
    this.#parts.network.deleteRoutes(this.standing(number).filter((route) => !wanted.has(routeKey(route))));
    this.#routes.delete(number);
  }

  #clearIfEmpty(table: number): void {
    if (this.standing(table).length === 0) this.clear(table);
  }

  #isPossible(table: number): boolean {
    return this.#found?.has(table) ?? true;
  }
}
