/**
 * Which tables may not be as they are wanted, from what the kernel reports: what it costs to look follows from what changed, not
 * from how many tunnels there are. Our own changes are reported too, and leave nothing to look at. Pure.
 */
import { rangeContains } from '../../base/address.ts';
import { assertNever } from '../../base/assert.ts';
import { isWhole } from '../../base/ranges.ts';
import {
  type InstalledRoute,
  type InstalledRule,
  type InterfaceAddress,
  type Link,
  MAIN_TABLE,
  type NetworkChange,
  OWN_PROTOCOL,
  ownerOf,
  type Prefix,
} from '../routes/routes.ts';
import type { BridgeRouting } from './bridges.ts';
import type { Gathered } from './gathered.ts';
import { mayLead } from './onward.ts';
import { isOfBridge } from './priorities.ts';
import { RoutingTable } from './table.ts';
import type { TableIndex } from './table-index.ts';
import type { SteeringTables } from './tables.ts';
import { UNBOUND_TABLES } from './unbound.ts';

export interface Suspected {
  readonly tables: readonly RoutingTable[];
  /** Whether what is for all gathered tables is among them. */
  readonly areGathered: boolean;
}

export class Suspects {
  readonly #index: TableIndex;
  readonly #gathered: Gathered;
  readonly #bridges: BridgeRouting;
  /** By table, what made it suspect. BOUNDED: by the tables, and the links of their tunnels. */
  #reasons = new Map<RoutingTable | Gathered, Set<string>>();
  #all = false;

  constructor({ index, gathered }: SteeringTables, bridges: BridgeRouting) {
    this.#index = index;
    this.#gathered = gathered;
    this.#bridges = bridges;
  }

  has(table: RoutingTable | Gathered): boolean {
    return this.#all || this.#reasons.has(table);
  }

  /** Anything may differ. */
  addAll(): void {
    this.#all = true;
  }

  /** Those to look at, which are suspect no longer; `undefined`: all. */
  take(): Suspected | undefined {
    const taken = this.#all ? undefined : this.#suspected();
    this.#all = false;
    this.#reasons = new Map();
    return taken;
  }

  #suspected(): Suspected {
    const tables = [...this.#reasons.keys()].filter((one) => one instanceof RoutingTable);
    return { tables, areGathered: this.#reasons.has(this.#gathered) };
  }

  /** @returns whether a look is due */
  heard(change: NetworkChange): boolean {
    switch (change.kind) {
      case 'unknown':
        return this.#everything();
      case 'link':
        return this.#heardLink(change.link, change.gone);
      // The kernel removes routes with their address or link without reporting them, and refuses them without the address.
      case 'address':
        return (this.#mayBeSource(change.address) || this.#mayLead(change.address)) && this.#everything();
      case 'route':
        return this.#heardRoute(change.route, change.gone);
      case 'rule':
        return this.#heardRule(change.rule, change.gone);
      default:
        return assertNever(change, 'network change');
    }
  }

  #everything(): boolean {
    this.#all = true;
    return true;
  }

  #add(table: RoutingTable | Gathered, reason: string): true {
    const reasons = this.#reasons.get(table);
    if (reasons === undefined) this.#reasons.set(table, new Set([reason]));
    else reasons.add(reason);
    return true;
  }

  #heardLink(link: Link, gone: boolean): boolean {
    let due = false;
    for (const table of this.#index.onwardBy(link.index)) due = this.#add(table, 'onward');
    for (const { table, member } of this.#index.ofLink(link.index)) {
      // The kernel has taken the routes with it, and those that refuse stand.
      const places = table.isGathered ? [table, this.#gathered] : [table];
      const isSuspect = !gone && member.linkReported(link);
      for (const place of places) {
        if (gone) this.#remove(place, `link ${link.index}`);
        else if (isSuspect) due = this.#add(place, `link ${link.index}`);
      }
    }
    return due;
  }

  #remove(table: RoutingTable | Gathered, reason: string): void {
    const reasons = this.#reasons.get(table);
    if (reasons?.delete(reason) === true && reasons.size === 0) this.#reasons.delete(table);
  }

  /** Whether a policy covers what the host sends from this address. */
  #mayBeSource({ address }: InterfaceAddress): boolean {
    for (const { plan } of this.#index.members()) {
      if (plan.outbound.some(({ local }) => !isWhole(local) && rangeContains(local, address))) return true;
    }
    return false;
  }

  /** Whether packets out of a tunnel may go there. */
  #mayLead(prefix: Prefix): boolean {
    for (const { networks } of this.#index.all()) if (mayLead(networks, prefix)) return true;
    return false;
  }

  #heardRoute(route: InstalledRoute, gone: boolean): boolean {
    // Whoever set it: a network that is reached by the route of a routing daemon alone is lost with it.
    if (route.table === MAIN_TABLE) return this.#heardMainRoute(route.destination);
    const table = UNBOUND_TABLES.includes(route.table) ? this.#gathered : this.#index.numbered(route.table);
    if (table === undefined) return false;
    if (route.protocol === OWN_PROTOCOL && !(gone && table.wantsRoute(route))) return false;
    return this.#add(table, gone && route.linkIndex !== undefined ? `link ${route.linkIndex}` : 'route');
  }

  #heardMainRoute(destination: Prefix): boolean {
    let due = false;
    for (const table of this.#index.all()) if (mayLead(table.networks, destination)) due = this.#add(table, 'onward');
    return due;
  }

  #heardRule(rule: InstalledRule, gone: boolean): boolean {
    if (rule.protocol !== OWN_PROTOCOL) {
      return (!this.#index.areEmpty || this.#bridges.areRouted) && this.#everything();
    }
    if (isOfBridge(rule)) return gone && this.#bridges.want(rule) && this.#everything();
    const table = UNBOUND_TABLES.includes(ownerOf(rule) ?? 0) ? this.#gathered : this.#index.ofRule(rule);
    return table !== undefined && gone === table.wantsRule(rule) && this.#add(table, 'rule');
  }
}
