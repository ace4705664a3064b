/**
 * What an earlier daemon left of tunnels, until it is taken over or removed. What nothing was found of when all was looked
 * through is not looked for again, so that the first start of a tunnel costs the same however many there are.
 */
import { type HostNetwork, type InstalledRoute, type InstalledRule, OWN_PROTOCOL } from '../routes/routes.ts';
import { SYSTEM_TABLES } from './check.ts';
import { routeKey } from './compare.ts';
import { TableMember } from './member.ts';
import type { RoutingPlan } from './plan.ts';
import { isOfTunnel, isOnwardLookUp, ownersIn } from './priorities.ts';
import type { RuleBook } from './rule-book.ts';
import type { OwnAddresses } from './sources.ts';
import { type RoutingTable, sharedKey } from './table.ts';
import type { TableNumbers } from './table-numbers.ts';

export interface LeftoversParts {
  readonly network: HostNetwork;
  readonly rules: RuleBook;
  readonly numbers: TableNumbers;
  /** Of tunnels of this daemon, by number. */
  readonly tables: ReadonlyMap<number, RoutingTable>;
  /** Whether a tunnel has a table of this daemon. */
  readonly has: (tunnel: string) => boolean;
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
    const { numbers, tables, network, addresses } = this.#parts;
    const number = numbers.own(plan);
    if (!tables.has(number) && this.#isPossible(number)) this.clear(number);
    const key = sharedKey(plan);
    if (key === undefined || key === except?.key) return;
    const table = numbers.shared(key);
    if (!this.#isPossible(table) && !tables.has(table)) return;
    network.deleteRoutes(new TableMember(plan, { device: '', table }, addresses()).closedRoutes);
    if (!tables.has(table)) this.#clearIfEmpty(table);
  }

  /** The last tunnel leaves a table. Of others that are to run again, something may stand there. @throws Error */
  leave(table: number): void {
    if (this.#routes.has(table)) this.#clearIfEmpty(table);
    else this.clear(table);
  }

  /** All of a table, whoever installed it. Rules first: never one into a table that is open. @throws Error */
  clear(table: number): void {
    const { network, rules } = this.#parts;
    for (const rule of rules.of(table)) rules.delete(rule);
    network.deleteRoutes(this.standing(table));
    this.#found?.delete(table);
  }

  /** Removes what was left, except for tunnels with these plans. @throws Error */
  reconcile(plans: readonly RoutingPlan[]): void {
    const { network, rules: book, numbers, tables, has, addresses } = this.#parts;
    const own = addresses();
    const kept = new Set([...tables.keys(), ...plans.map((plan) => numbers.own(plan))]);
    // BOUNDED: by the tunnels.
    const routes = new Map<number, Set<string>>();
    for (const plan of plans) {
      if (!has(plan.tunnel)) this.#returning.add(plan.tunnel);
      const key = sharedKey(plan);
      if (key === undefined) continue;
      const table = numbers.shared(key);
      const keys = routes.get(table) ?? new Set();
      for (const route of new TableMember(plan, { device: '', table }, own).closedRoutes) keys.add(routeKey(route));
      routes.set(table, keys);
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
    if (!this.#parts.numbers.isShared(number)) return;
    const table = this.#parts.tables.get(number);
    const wanted = new Set([...(kept ?? []), ...(table?.routes(() => true) ?? []).map(routeKey)]);
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
