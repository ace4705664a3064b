/**
 * The part of the host's network configuration that tunnels need: links, addresses, routes, rules, and the route that a
 * packet would take. Implemented by `linux.ts` and, in memory, by `memory.ts`.
 *
 * All that is set here has the protocol `OWN_PROTOCOL`, which distinguishes it from what others set, also after a crash.
 */
import type { IpAddress, IpFamily } from '../../base/address.ts';
import { formatAddress, prefixRange, rangeContains } from '../../base/address.ts';
import { assertNever } from '../../base/assert.ts';

/**
 * The routing protocol number of our routes and rules (rtm_protocol): free in iproute2's rt_protos. With
 * `83 sectunnel` in /etc/iproute2/rt_protos.d, `ip route` shows it by name.
 */
export const OWN_PROTOCOL = 83;
export const MAIN_TABLE = 254;
/** The group of links that the devices of tunnels are in: rules can ignore routes out of one of them. */
export const DEVICE_GROUP = 83;

export interface Prefix {
  readonly address: IpAddress;
  readonly prefixLength: number;
}

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  /** Administratively up. */
  readonly up: boolean;
  /** The group of links that it is in; default 0. */
  readonly group: number;
  /** The index of the link that it is a slave of: a bridge, a bond, a VRF. Left out: of none. */
  readonly master?: number | undefined;
}

/** A routing domain (Documentation/networking/vrf.rst of Linux): links enslaved to one link, and the table that they use. */
export interface Vrf {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  readonly table: number;
  /** Indexes of its slaves. BOUNDED: by the links of the host. */
  readonly links: ReadonlySet<number>;
}

/** What is left out stays as it is. */
export interface LinkChange {
  readonly up?: boolean;
  readonly mtu?: number;
  /** Packets that may wait to be sent. */
  readonly queue?: number;
  readonly group?: number;
  /** The index of the link that it becomes a slave of. */
  readonly master?: number;
}

export interface InterfaceAddress extends Prefix {
  readonly linkIndex: number;
  /**
   * `tentative`: no packet may be sent from it, as it may be a duplicate (RFC 4862 section 5.4); `deprecated`: not for new
   * connections (section 5.5.4). Left out: valid for all.
   */
  readonly state?: 'tentative' | 'deprecated' | undefined;
}

/**
 * `unreachable` and `prohibit` answer with ICMP, `blackhole` says nothing, `throw` leaves the packet to the tables that follow.
 */
export type RouteType = 'unicast' | 'unreachable' | 'prohibit' | 'blackhole' | 'throw';

export interface Route {
  readonly type: RouteType;
  readonly destination: Prefix;
  /** Default `MAIN_TABLE`. */
  readonly table?: number | undefined;
  /** Out of which link; wanted for `unicast` without a gateway. */
  readonly linkIndex?: number | undefined;
  readonly gateway?: IpAddress | undefined;
  /** Preferred source: must be an address of this host. */
  readonly source?: IpAddress | undefined;
  /** The lower one wins. Left out: 0 for IPv4, 1024 for IPv6. */
  readonly metric?: number | undefined;
  readonly mtu?: number | undefined;
}

/** A route as found. */
export interface InstalledRoute extends Route {
  readonly table: number;
  readonly metric: number;
  /** Who set it: `OWN_PROTOCOL`, 2 the kernel, 4 the administrator, … */
  readonly protocol: number;
}

export interface PortRange {
  readonly start: number;
  readonly end: number;
}

export type RuleAction =
  | { readonly type: 'table'; readonly table: number }
  /** Goes on at the rule of that priority, which is a later one; as if the rule were not there while none has it. */
  | { readonly type: 'goto'; readonly priority: number }
  /** Does nothing: a place to go to. */
  | { readonly type: 'nop' }
  | { readonly type: 'unreachable' }
  | { readonly type: 'blackhole' };

/** Which table decides about which packets. What is left out fits everything. */
export interface Rule {
  readonly family: IpFamily;
  /** The lowest comes first; 32766 is the main table's. */
  readonly priority: number;
  readonly from?: Prefix | undefined;
  readonly to?: Prefix | undefined;
  /** Name of the link that the packet came in by; `lo` for the host's own. */
  readonly inputLink?: string | undefined;
  readonly ipProtocol?: number | undefined;
  /** A bit that the packet's mark (meta mark of nftables) must have. */
  readonly mark?: number | undefined;
  readonly sourcePorts?: PortRange | undefined;
  readonly destinationPorts?: PortRange | undefined;
  readonly action: RuleAction;
  /** Where the route found in the table leaves by a link of that group, it is as if the rule were not there. */
  readonly suppressedGroup?: number | undefined;
  /** Routes of the table whose prefix has at most this many bits are skipped. */
  readonly suppressedLength?: number | undefined;
  /** Whose rule it is: a table's number, which the kernel keeps with rules of all actions. Default: that of the action. */
  readonly owner?: number | undefined;
}

/** A rule as found; rules with parts that are not described here are left out of lists. */
export interface InstalledRule extends Rule {
  readonly protocol: number;
}

/** A rule of any program, with all its conditions. */
export interface SeenRule extends Omit<InstalledRule, 'action' | 'mark'> {
  readonly action: Rule['action'] | { readonly type: 'prohibit' };
  /** Of the packet's mark those bits of `mask` must be as in `value`. */
  readonly marked?: { readonly value: number; readonly mask: number } | undefined;
  /** It is for all that does not fit. */
  readonly inverted: boolean;
  /** What it asks for besides, which is not known of a packet that is explained: `oif eth0`, `uidrange 5-6`. */
  readonly others: readonly string[];
}

export interface RouteQuery {
  readonly destination: IpAddress;
  readonly source?: IpAddress | undefined;
  /**
   * The link that the packet comes in by, which over IPv4 needs a `source`: without one it is a martian, whatever the routes
   * are. Left out: this host sends it, and `source` is an address of its own.
   */
  readonly inputLinkIndex?: number | undefined;
  /** The link, or the VRF, that the socket of one of the host's own packets is bound to. */
  readonly outputLinkIndex?: number | undefined;
  readonly ipProtocol?: number | undefined;
  readonly sourcePort?: number | undefined;
  readonly destinationPort?: number | undefined;
  /** Of the packet (meta mark of nftables). */
  readonly mark?: number | undefined;
}

export interface RouteAnswer {
  readonly linkIndex: number;
  /** The source address that the host would choose. */
  readonly source: IpAddress | undefined;
  readonly gateway: IpAddress | undefined;
  /** Of the path: the route's, or what ICMP taught, or the link's. */
  readonly mtu: number;
  /** The destination is this host itself. */
  readonly local: boolean;
  /** The table whose route decided; `undefined` when the system does not say. */
  readonly table: number | undefined;
}

/**
 * `no-route`: there is no route, or one forbids it, or this host does not forward; `source`: no packet with such a source may
 * come by that link, which a reverse path filter may say.
 */
export type RouteRefusal = 'no-route' | 'source';

export interface RouteFilter {
  readonly family?: IpFamily;
  readonly table?: number;
  /** Who set it, as in `InstalledRoute`. */
  readonly protocol?: number;
}

/** A change by any program. What is there now may have replaced another thing. */
export type NetworkChange =
  | { readonly kind: 'link'; readonly gone: boolean; readonly link: Link }
  | { readonly kind: 'address'; readonly gone: boolean; readonly address: InterfaceAddress }
  | { readonly kind: 'route'; readonly gone: boolean; readonly route: InstalledRoute }
  | { readonly kind: 'rule'; readonly gone: boolean; readonly rule: InstalledRule }
  /** Reports were lost: anything may have changed. */
  | { readonly kind: 'unknown' };

/** Each method throws an `Error` that says what was attempted and why the system refused. */
export interface HostNetwork {
  link(nameOrIndex: string | number): Link | undefined;
  setLink(index: number, change: LinkChange): void;
  /** The routing domains that there are. Costs next to nothing where the kernel has none. */
  vrfs(): Vrf[];

  addresses(linkIndex?: number): InterfaceAddress[];

  routes(filter?: RouteFilter): InstalledRoute[];
  /**
   * Each replaces one of ours with the same destination, table and metric. @throws Error at the first that is refused, as
   * where another program's route has that place; those before it are set
   */
  addRoutes(routes: readonly Route[]): void;
  /** Deletes routes of ours. Returns how many there were. */
  deleteRoutes(routes: readonly Route[]): number;

  rules(family?: IpFamily): InstalledRule[];
  /** All rules, also those with parts that `Rule` does not describe. */
  seenRules(family: IpFamily): SeenRule[];
  /** Does nothing when it is there. */
  addRule(rule: Rule): void;
  /** Many at a time, none of which is there. @throws Error at the first that is refused; those before it are there */
  addRules(rules: readonly Rule[]): void;
  /** Deletes one of ours. False when it was not there. */
  deleteRule(rule: Rule): boolean;

  /** `undefined` when there is no way, or a route forbids it. */
  routeTo(query: RouteQuery): RouteAnswer | undefined;
  /** The route that decides, as it is set; `undefined` as with `routeTo`, and where this host itself is the destination. */
  routeFor(query: RouteQuery): InstalledRoute | undefined;
  /** Why there is no answer. */
  refusalOf(query: RouteQuery): RouteRefusal | undefined;

  /**
   * Reports each change from now on, our own too; replaces an earlier watch. Parts that are not described here are left out.
   * @throws Error where the kernel does not report changes
   */
  watch(onChange: (change: NetworkChange) => void): void;

  /** Ends the watch too. */
  close(): Promise<void>;
}

/** The table of the tunnel that owns a rule; `undefined` when the rule names none. */
export function ownerOf({ owner, action }: Rule): number | undefined {
  return owner ?? (action.type === 'table' ? action.table : undefined);
}

export function formatPrefix({ address, prefixLength }: Prefix): string {
  return `${formatAddress(address)}/${prefixLength}`;
}

export function samePrefix(a: Prefix | undefined, b: Prefix | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    a.prefixLength === b.prefixLength && a.address.family === b.address.family && a.address.value === b.address.value
  );
}

export function prefixContains({ address, prefixLength }: Prefix, candidate: IpAddress): boolean {
  return rangeContains(prefixRange(address, prefixLength), candidate);
}

/** Whether a rule is for such packets. @param cameBy the name of the link that they come in by, `lo` for the host's own */
export function ruleFits(rule: Rule, query: RouteQuery, cameBy: string | undefined): boolean {
  const { from, to, inputLink, ipProtocol, sourcePorts, destinationPorts } = rule;
  return (
    rule.family === query.destination.family &&
    (rule.mark === undefined || ((query.mark ?? 0) & rule.mark) === rule.mark) &&
    (from === undefined || sourceFits(from, query.source)) &&
    (to === undefined || prefixContains(to, query.destination)) &&
    (inputLink === undefined || inputLink === cameBy) &&
    (ipProtocol === undefined || ipProtocol === query.ipProtocol) &&
    (sourcePorts === undefined || inRange(sourcePorts, query.sourcePort)) &&
    (destinationPorts === undefined || inRange(destinationPorts, query.destinationPort))
  );
}

/** A packet that has no source yet is one from 0.0.0.0 in IPv4; in IPv6 no rule with a source is for it. */
function sourceFits(from: Prefix, source: IpAddress | undefined): boolean {
  const { family } = from.address;
  if (source === undefined) return family === 4 && prefixContains(from, { family, value: 0n });
  return prefixContains(from, source);
}

function inRange({ start, end }: PortRange, port: number | undefined): boolean {
  return port !== undefined && start <= port && port <= end;
}

/** True when both catch the same packets at the same place and do the same with them. */
export function sameRule(a: Rule, b: Rule): boolean {
  return (
    a.family === b.family &&
    a.priority === b.priority &&
    samePrefix(a.from, b.from) &&
    samePrefix(a.to, b.to) &&
    a.inputLink === b.inputLink &&
    (a.ipProtocol ?? 0) === (b.ipProtocol ?? 0) &&
    a.mark === b.mark &&
    a.suppressedGroup === b.suppressedGroup &&
    a.suppressedLength === b.suppressedLength &&
    samePorts(a.sourcePorts, b.sourcePorts) &&
    samePorts(a.destinationPorts, b.destinationPorts) &&
    ownerOf(a) === ownerOf(b) &&
    describeAction(a.action) === describeAction(b.action)
  );
}

function samePorts(a: PortRange | undefined, b: PortRange | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.start === b.start && a.end === b.end;
}

/** The metric that the kernel gives a route without one (IP6_RT_PRIO_USER). */
export function metricOf(route: Route): number {
  return route.metric ?? (route.destination.address.family === 4 ? 0 : 1024);
}

/** For messages. */
export function describeRoute(route: Route): string {
  const type = route.type === 'unicast' ? '' : `${route.type} `;
  return `route ${type}${formatPrefix(route.destination)} in table ${route.table ?? MAIN_TABLE}`;
}

/** For messages. */
export function describeRule(rule: Rule): string {
  const from = rule.from === undefined ? 'all' : formatPrefix(rule.from);
  const to = rule.to === undefined ? '' : ` to ${formatPrefix(rule.to)}`;
  return `rule ${rule.priority}: from ${from}${to} ${describeAction(rule.action)}`;
}

function describeAction(action: RuleAction): string {
  switch (action.type) {
    case 'table':
      return `table ${action.table}`;
    case 'goto':
      return `goto ${action.priority}`;
    case 'nop':
    case 'unreachable':
    case 'blackhole':
      return action.type;
    default:
      return assertNever(action, 'rule action');
  }
}
