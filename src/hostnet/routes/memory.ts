/**
 * A host's network configuration in memory: the twin of `linux.ts`. Route look-ups follow the longest prefix
 * in the tables that the rules name, in their order. A watch reports rules and routes that others change, addresses,
 * and links that go.
 */
import type { IpAddress, IpFamily } from '../../base/address.ts';
import { prefixRange, sameAddress } from '../../base/address.ts';
import type {
  HostNetwork,
  InstalledRoute,
  InstalledRule,
  InterfaceAddress,
  Link,
  LinkChange,
  NetworkChange,
  Route,
  RouteAnswer,
  RouteFilter,
  RouteQuery,
  RouteRefusal,
  Rule,
  SeenRule,
  Vrf,
} from './routes.ts';
import {
  describeRoute,
  MAIN_TABLE,
  metricOf,
  OWN_PROTOCOL,
  prefixContains,
  ruleFits,
  samePrefix,
  sameRule,
} from './routes.ts';
import { seenRule } from './seen-rules.ts';

const KERNEL_PROTOCOL = 2;
const LOCAL_TABLE = 255;
const MAIN_RULE_PRIORITY = 32_766;
const L3MDEV_RULE = 1000;

export class MemoryHostNetwork implements HostNetwork {
  // BOUNDED: by what the owner adds, as in the kernel.
  #links: Link[] = [];
  #addresses: InterfaceAddress[] = [];
  #routes: InstalledRoute[] = [];
  #rules: InstalledRule[] = ([4, 6] as const).map((family) => ({
    family,
    priority: MAIN_RULE_PRIORITY,
    action: { type: 'table', table: MAIN_TABLE },
    protocol: KERNEL_PROTOCOL,
  }));

  /** By the index of the VRF. */
  readonly #vrfTables = new Map<number, number>();
  #onChange: ((change: NetworkChange) => void) | undefined;

  /** Adds a link, down; returns its index. */
  addLink(name: string, mtu: number): number {
    const index = this.#links.reduce((highest, link) => Math.max(highest, link.index), 0) + 1;
    this.#links.push({ index, name, mtu, up: false, group: 0 });
    return index;
  }

  /** Removes a link with its addresses and routes, as the kernel does. */
  deleteLink(index: number): void {
    const gone = this.link(index);
    this.#links = this.#links
      .filter((link) => link.index !== index)
      .map((link) => (link.master === index ? { ...link, master: undefined } : link));
    this.#vrfTables.delete(index);
    this.#addresses = this.#addresses.filter((address) => address.linkIndex !== index);
    this.#routes = this.#routes.filter((route) => route.linkIndex !== index);
    if (gone !== undefined) this.#onChange?.({ kind: 'link', gone: true, link: gone });
  }

  /** Makes a link a VRF with that table. */
  makeVrf(index: number, table: number): void {
    this.#wantLink(index, `make link ${index} a VRF`);
    this.#vrfTables.set(index, table);
  }

  vrfs(): Vrf[] {
    return this.#links.flatMap(({ index, name, up }) => {
      const table = this.#vrfTables.get(index);
      const slaves = this.#links.filter(({ master }) => master === index);
      return table === undefined ? [] : [{ index, name, up, table, links: new Set(slaves.map((link) => link.index)) }];
    });
  }

  link(nameOrIndex: string | number): Link | undefined {
    return this.#links.find(({ index, name }) => index === nameOrIndex || name === nameOrIndex);
  }

  setLink(index: number, change: LinkChange): void {
    this.#wantLink(index, `change link ${index}`);
    this.#links = this.#links.map((link) => (link.index === index ? { ...link, ...change } : link));
    this.#onChange?.({ kind: 'link', gone: false, link: this.link(index)! });
  }

  addresses(linkIndex?: number): InterfaceAddress[] {
    return this.#addresses.filter((address) => linkIndex === undefined || address.linkIndex === linkIndex);
  }

  /** Another program adds an address; with the route to its network, as the kernel sets it. */
  addAddress(address: InterfaceAddress): void {
    const { linkIndex, prefixLength } = address;
    this.#wantLink(linkIndex, `add an address to link ${linkIndex}`);
    if (this.#addresses.some((other) => sameInterfaceAddress(other, address))) return;
    this.#addresses.push(address);
    this.#onChange?.({ kind: 'address', gone: false, address });
    const destination = { address: prefixRange(address.address, prefixLength).start, prefixLength };
    const route: Route = { type: 'unicast', destination, linkIndex, source: address.address };
    this.#routes.push({ ...route, table: MAIN_TABLE, metric: metricOf(route), protocol: KERNEL_PROTOCOL });
  }

  /**
   * Another program deletes an address. As in the kernel, IPv4 routes with that preferred source go, and IPv6 routes stay
   * without it.
   */
  deleteAddress(address: InterfaceAddress): void {
    const before = this.#addresses.length;
    this.#addresses = this.#addresses.filter((other) => !sameInterfaceAddress(other, address));
    if (this.#addresses.length === before) return;
    const isFrom = ({ source }: Route): boolean => source !== undefined && sameAddress(source, address.address);
    this.#routes = this.#routes
      .filter((route) => !isFrom(route) || (address.address.family === 6 && route.protocol !== KERNEL_PROTOCOL))
      .map((route) => (isFrom(route) ? { ...route, source: undefined } : route));
    this.#onChange?.({ kind: 'address', gone: true, address });
  }

  routes(filter: RouteFilter = {}): InstalledRoute[] {
    return this.#routes.filter(
      ({ destination, table, protocol }) =>
        (filter.family === undefined || destination.address.family === filter.family) &&
        (filter.table === undefined || table === filter.table) &&
        (filter.protocol === undefined || protocol === filter.protocol),
    );
  }

  #addRoute(route: Route): void {
    if (route.linkIndex !== undefined) this.#wantLink(route.linkIndex, `add ${describeRoute(route)}`);
    const same = this.#routes.filter((other) => samePlace(other, route));
    if (same.some(({ protocol }) => protocol !== OWN_PROTOCOL)) {
      throw new Error(`add ${describeRoute(route)}: another program's route stands there`);
    }
    this.#deleteRoute(route);
    const table = route.table ?? MAIN_TABLE;
    this.#routes.push({ ...route, table, metric: metricOf(route), protocol: OWN_PROTOCOL });
  }

  addRoutes(routes: readonly Route[]): void {
    for (const route of routes) this.#addRoute(route);
  }

  #deleteRoute(route: Route): boolean {
    const before = this.#routes.length;
    this.#routes = this.#routes.filter((other) => other.protocol !== OWN_PROTOCOL || !samePlace(other, route));
    return this.#routes.length < before;
  }

  deleteRoutes(routes: readonly Route[]): number {
    return routes.filter((route) => this.#deleteRoute(route)).length;
  }

  rules(family?: IpFamily): InstalledRule[] {
    return this.#rules
      .filter((rule) => family === undefined || rule.family === family)
      .sort((a, b) => a.priority - b.priority);
  }

  seenRules(family: IpFamily): SeenRule[] {
    return this.rules(family).map(seenRule);
  }

  addRule(rule: Rule): void {
    if (this.#rules.some((other) => other.protocol === OWN_PROTOCOL && sameToKernel(other, rule))) return;
    this.#rules.push({ ...rule, protocol: OWN_PROTOCOL });
  }

  addRules(rules: readonly Rule[]): void {
    for (const rule of rules) this.addRule(rule);
  }

  deleteRule(rule: Rule): boolean {
    // As the kernel does: the first that has all that is said of it, whatever else it has.
    const said = Object.fromEntries(Object.entries(rule).filter(([, value]) => value !== undefined));
    const fits = (other: InstalledRule): boolean =>
      other.protocol === OWN_PROTOCOL && sameToKernel({ ...other, ...said }, other);
    const at = this.#rules.findIndex(fits);
    if (at < 0) return false;
    this.#rules.splice(at, 1);
    return true;
  }

  watch(onChange: (change: NetworkChange) => void): void {
    this.#onChange = onChange;
  }

  /** Another program sets a rule or a route, in the place of one that stands there. */
  put(foreign: { readonly rule: InstalledRule } | { readonly route: InstalledRoute }): void {
    if ('rule' in foreign) {
      this.#rules.push(foreign.rule);
      this.#onChange?.({ kind: 'rule', gone: false, rule: foreign.rule });
    } else {
      this.#routes = [...this.#routes.filter((other) => !samePlace(other, foreign.route)), foreign.route];
      this.#onChange?.({ kind: 'route', gone: false, route: foreign.route });
    }
  }

  /** Another program takes away rules, or routes. */
  take(which: { rule?: (rule: InstalledRule) => boolean; route?: (route: InstalledRoute) => boolean }): void {
    const rules = this.#rules.filter((rule) => which.rule?.(rule) === true);
    const routes = this.#routes.filter((route) => which.route?.(route) === true);
    this.#rules = this.#rules.filter((rule) => !rules.includes(rule));
    this.#routes = this.#routes.filter((route) => !routes.includes(route));
    for (const rule of rules) this.#onChange?.({ kind: 'rule', gone: true, rule });
    for (const route of routes) this.#onChange?.({ kind: 'route', gone: true, route });
  }

  routeTo(query: RouteQuery): RouteAnswer | undefined {
    const { destination } = query;
    const own = this.#addresses.find(({ address }) => sameAddress(address, destination));
    if (own !== undefined) return this.#answer(own.linkIndex, destination, undefined, undefined, LOCAL_TABLE);
    const route = this.routeFor(query);
    const linkIndex = route && this.#linkIndexOf(route);
    if (route === undefined || linkIndex === undefined) return undefined;
    const source = route.source ?? query.source ?? this.#addressOf(linkIndex, destination.family);
    return this.#answer(linkIndex, source, route.gateway, route.mtu, route.table);
  }

  routeFor(query: RouteQuery): InstalledRoute | undefined {
    if (isMartian(query)) return undefined;
    const { destination } = query;
    const rules = this.#rulesFor(query);
    const cameBy = query.inputLinkIndex === undefined ? 'lo' : this.link(query.inputLinkIndex)?.name;
    let from = 0;
    for (const rule of rules) {
      if (rule.priority < from || rule.action.type === 'nop' || !ruleFits(rule, query, cameBy)) continue;
      if (rule.action.type === 'goto') {
        const { priority } = rule.action;
        if (rules.some((other) => other.priority === priority)) from = priority;
        continue;
      }
      if (rule.action.type !== 'table') return undefined;
      const route = this.#longestMatch(rule.action.table, destination);
      if (route === undefined || route.type === 'throw') continue;
      if (route.type !== 'unicast') return undefined;
      const linkIndex = this.#linkIndexOf(route);
      if (linkIndex === undefined) return undefined;
      if (rule.suppressedGroup !== undefined && this.link(linkIndex)?.group === rule.suppressedGroup) continue;
      if (rule.suppressedLength !== undefined && route.destination.prefixLength <= rule.suppressedLength) continue;
      return route;
    }
    return undefined;
  }

  /** In a VRF the kernel's rule for all VRFs looks up the table of the packet's own. */
  #rulesFor({ destination: { family }, inputLinkIndex, outputLinkIndex }: RouteQuery): InstalledRule[] {
    const rules = this.rules(family);
    const table = this.#vrfTables.get(inputLinkIndex ?? outputLinkIndex ?? 0);
    if (table === undefined) return rules;
    const ofVrf = {
      family,
      priority: L3MDEV_RULE,
      action: { type: 'table', table },
      protocol: KERNEL_PROTOCOL,
    } as const;
    return [...rules, ofVrf].sort((a, b) => a.priority - b.priority);
  }

  refusalOf(query: RouteQuery): RouteRefusal | undefined {
    if (isMartian(query)) return 'source';
    return this.routeTo(query) === undefined ? 'no-route' : undefined;
  }

  close(): Promise<void> {
    this.#onChange = undefined;
    this.#links = [];
    this.#addresses = [];
    this.#routes = [];
    this.#rules = [];
    return Promise.resolve();
  }

  #longestMatch(table: number, destination: IpAddress): InstalledRoute | undefined {
    return this.#routes
      .filter((route) => route.table === table && prefixContains(route.destination, destination))
      .sort((a, b) => b.destination.prefixLength - a.destination.prefixLength || a.metric - b.metric)[0];
  }

  #answer(
    linkIndex: number,
    source: IpAddress | undefined,
    gateway: IpAddress | undefined,
    mtu: number | undefined,
    table: number,
  ): RouteAnswer {
    const local = table === LOCAL_TABLE;
    return { linkIndex, source, gateway, mtu: mtu ?? this.link(linkIndex)?.mtu ?? 0, local, table };
  }

  #linkIndexOf({ linkIndex, gateway }: Route): number | undefined {
    return linkIndex ?? this.#linkOf(gateway);
  }

  #linkOf(gateway: IpAddress | undefined): number | undefined {
    return gateway === undefined ? undefined : this.#longestMatch(MAIN_TABLE, gateway)?.linkIndex;
  }

  #addressOf(linkIndex: number, family: IpFamily): IpAddress | undefined {
    const candidates = this.#addresses.filter(({ address }) => address.family === family);
    return (candidates.find((candidate) => candidate.linkIndex === linkIndex) ?? candidates[0])?.address;
  }

  #wantLink(index: number, what: string): void {
    if (this.link(index) === undefined) throw new Error(`${what}: there is no such link`);
  }
}

/** The kernel does not compare where rules go to, neither when it is to add one nor when it is to delete it. */
function sameToKernel(a: Rule, b: Rule): boolean {
  const isMove = a.action.type === 'goto' && b.action.type === 'goto';
  return sameRule(isMove ? { ...a, action: b.action } : a, b);
}

function sameInterfaceAddress(a: InterfaceAddress, b: InterfaceAddress): boolean {
  return a.linkIndex === b.linkIndex && samePrefix(a, b);
}

/** Destination, table and metric are what one route replaces another by. */
function samePlace(a: Route, b: Route): boolean {
  return (
    samePrefix(a.destination, b.destination) &&
    (a.table ?? MAIN_TABLE) === (b.table ?? MAIN_TABLE) &&
    metricOf(a) === metricOf(b)
  );
}

/** As the kernel has it: IPv4 packets that come in have a source. */
function isMartian({ destination, source, inputLinkIndex }: RouteQuery): boolean {
  return destination.family === 4 && inputLinkIndex !== undefined && source === undefined;
}
