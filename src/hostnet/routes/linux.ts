/**
 * The network configuration of the Linux network namespace in which it was opened, by rtnetlink: no helper program.
 * Reading needs no privilege; changing takes CAP_NET_ADMIN.
 */
import { existsSync } from 'node:fs';
import type { IpFamily } from '../../base/address.ts';
import { formatAddress } from '../../base/address.ts';
import { ERRNO, SystemError } from '../../sys/errno.ts';
import { NEEDS_NET_ADMIN } from '../../tun/errors.ts';
import { NetlinkListener } from '../netlink/listener.ts';
import type { NetlinkRequest } from '../netlink/netlink.ts';
import * as message from '../netlink/rtnetlink.ts';
import { CHANGE_GROUPS, parseChange } from '../netlink/rtnetlink-changes.ts';
import {
  addRuleRequest,
  deleteRuleRequest,
  parseRule,
  parseSeenRule,
  rulesRequest,
} from '../netlink/rtnetlink-rules.ts';
import { NETLINK_ROUTE, type NetlinkData, NetlinkSocket } from '../netlink/socket.ts';
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
import { describeRoute, describeRule, formatPrefix, MAIN_TABLE, metricOf, OWN_PROTOCOL, sameRule } from './routes.ts';

const FAMILIES: readonly IpFamily[] = [4, 6];
/** Is there once the kernel has loaded what VRFs take, in every namespace. Without it a list would be of all links. */
const VRF_SYSCTLS = '/proc/sys/net/vrf';
/** What a kernel without IPv6 answers about it: rules, and routes. It has none of them. */
const NO_FAMILY: readonly number[] = [ERRNO.EAFNOSUPPORT, ERRNO.EOPNOTSUPP];
/**
 * How the kernel says that a packet has no way. EINVAL and EACCES: IPv4 routes of the types blackhole and prohibit; EXDEV,
 * and EINVAL since Linux 6.14: the reverse path filter.
 */
const NO_WAY: readonly number[] = [
  ...[ERRNO.ENETUNREACH, ERRNO.EHOSTUNREACH, ERRNO.EINVAL, ERRNO.EACCES, ERRNO.EXDEV],
  ...NO_FAMILY,
];

export class LinuxHostNetwork implements HostNetwork {
  readonly #socket: NetlinkSocket;
  readonly #within: <T>(work: () => T) => T;
  #listener: NetlinkListener | undefined;

  /** @param within opens sockets in the network namespace that is meant; left out: in that of the thread */
  constructor(within: <T>(work: () => T) => T = (work) => work()) {
    this.#within = within;
    this.#socket = within(() => new NetlinkSocket());
  }

  link(nameOrIndex: string | number): Link | undefined {
    const data = this.#ask(message.linkRequest(nameOrIndex), `query link ${nameOrIndex}`, [ERRNO.ENODEV]);
    return data?.[0] === undefined ? undefined : message.parseLink(data[0].body);
  }

  setLink(index: number, change: LinkChange): void {
    this.#change(message.setLinkRequest(index, change), `change link ${index} (${JSON.stringify(change)})`, []);
  }

  vrfs(): Vrf[] {
    if (!existsSync(VRF_SYSCTLS)) return [];
    return parseAll(this.#ask(message.linksRequest(), 'list VRFs', []), message.parseVrf).map(({ link, table }) => {
      const { index, name, up } = link;
      const slaves = this.#ask(message.linksRequest({ master: index }), `list the links of VRF ${name}`, []);
      const links = parseAll(slaves, message.parseLink).filter(({ master }) => master === index);
      return { index, name, up, table, links: new Set(links.map((slave) => slave.index)) };
    });
  }

  addresses(linkIndex?: number): InterfaceAddress[] {
    const data = this.#ask(message.addressesRequest(linkIndex), 'list addresses', [ERRNO.ENODEV]);
    return parseAll(data, message.parseInterfaceAddress).filter(
      (address) => linkIndex === undefined || address.linkIndex === linkIndex,
    );
  }

  routes(filter: RouteFilter = {}): InstalledRoute[] {
    const families = filter.family === undefined ? FAMILIES : [filter.family];
    // Kernels that do not filter by themselves answer with everything, those without IPv6 with the routes of IPv4.
    return families
      .flatMap((family) => {
        // ENOENT: there is no such table (yet).
        const data = this.#ask(message.routesRequest(family, filter), 'list routes', [ERRNO.ENOENT, ...NO_FAMILY]);
        return parseAll(data, message.parseRoute).filter((route) => route.destination.address.family === family);
      })
      .filter(
        ({ table, protocol }) =>
          (filter.table === undefined || table === filter.table) &&
          (filter.protocol === undefined || protocol === filter.protocol),
      );
  }

  addRoutes(routes: readonly Route[]): void {
    const refused = this.#addRoutes(routes, false);
    for (const error of refused.values()) if (error.errno !== ERRNO.EEXIST) throw explained(error);
    const taken = [...refused.keys()].map((at) => routes[at]!);
    if (taken.length === 0) return;
    this.#refuseForeign(taken);
    for (const error of this.#addRoutes(taken, true).values()) throw explained(error);
  }

  #addRoutes(routes: readonly Route[], replace: boolean): ReadonlyMap<number, SystemError> {
    const requests = routes.map((route) => message.addRouteRequest(route, { replace }));
    return this.#socket.requestAll(requests, (at) => `add ${describeRoute(routes[at]!)}`);
  }

  /** @throws SystemError when another program's route stands in the place of one of these */
  #refuseForeign(routes: readonly Route[]): void {
    const tables = new Set(routes.map(({ table }) => table ?? MAIN_TABLE));
    const foreign = new Map(
      [...tables]
        .flatMap((table) => this.routes({ table }))
        .filter(({ protocol }) => protocol !== OWN_PROTOCOL)
        .map((route) => [placeOf(route), route]),
    );
    for (const route of routes) {
      const rival = foreign.get(placeOf(route));
      if (rival === undefined) continue;
      const detail =
        `Another program's route (protocol ${rival.protocol}; see: ip route show table ${rival.table}) stands ` +
        'there: remove it, or give the tunnel a routing table of its own or another metric';
      throw new SystemError(`add ${describeRoute(route)}`, ERRNO.EEXIST, detail);
    }
  }

  deleteRoutes(routes: readonly Route[]): number {
    const requests = routes.map((route) => message.deleteRouteRequest(route));
    const refused = this.#socket.requestAll(requests, (at) => `delete ${describeRoute(routes[at]!)}`);
    for (const error of refused.values()) {
      if (error.errno !== ERRNO.ESRCH && error.errno !== ERRNO.ENODEV) throw explained(error);
    }
    return routes.length - refused.size;
  }

  rules(family?: IpFamily): InstalledRule[] {
    const families = family === undefined ? FAMILIES : [family];
    return families.flatMap((one) => parseAll(this.#ask(rulesRequest(one), 'list rules', NO_FAMILY), parseRule));
  }

  seenRules(family: IpFamily): SeenRule[] {
    return parseAll(this.#ask(rulesRequest(family), 'list rules', NO_FAMILY), parseSeenRule);
  }

  addRule(rule: Rule): void {
    // Some kernels take the same rule twice.
    if (this.rules(rule.family).some((other) => other.protocol === OWN_PROTOCOL && sameRule(other, rule))) return;
    this.#change(addRuleRequest(rule), `add ${describeRule(rule)}`, []);
  }

  addRules(rules: readonly Rule[]): void {
    const refused = this.#socket.requestAll(rules.map(addRuleRequest), (at) => `add ${describeRule(rules[at]!)}`);
    for (const error of refused.values()) if (error.errno !== ERRNO.EEXIST) throw explained(error);
  }

  deleteRule(rule: Rule): boolean {
    const gone = [ERRNO.ENOENT, ERRNO.ESRCH];
    return this.#change(deleteRuleRequest(rule), `delete ${describeRule(rule)}`, gone);
  }

  routeTo(query: RouteQuery): RouteAnswer | undefined {
    const what = `look up the route to ${formatAddress(query.destination)}`;
    const data = this.#ask(message.routeQueryRequest(query), what, NO_WAY);
    const reply = data?.[0] === undefined ? undefined : message.parseRouteReply(data[0].body);
    if (reply === undefined) return undefined;
    const { learnt, ...answer } = reply;
    // The kernel checks no more of an ICMP message than addresses and ports, so the MTU it learnt there is not believed.
    const own = learnt ? this.#configuredMtu(query, what) : reply.mtu;
    const mtu = own ?? this.link(reply.linkIndex)?.mtu;
    return mtu === undefined ? undefined : { ...answer, mtu };
  }

  refusalOf(query: RouteQuery): RouteRefusal | undefined {
    try {
      this.#socket.request(
        message.routeQueryRequest(query),
        `look up the route to ${formatAddress(query.destination)}`,
      );
      return undefined;
    } catch (error) {
      if (!(error instanceof SystemError) || !NO_WAY.includes(error.errno)) throw error;
      // Without a link that the packet comes by EINVAL is how a blackhole is reported.
      const isOfSource = error.errno === ERRNO.EXDEV || error.errno === ERRNO.EINVAL;
      return isOfSource && query.inputLinkIndex !== undefined ? 'source' : 'no-route';
    }
  }

  routeFor(query: RouteQuery): InstalledRoute | undefined {
    const what = `look up the route to ${formatAddress(query.destination)}`;
    const data = this.#ask(message.routeQueryRequest(query, { configured: true }), what, NO_WAY);
    return data?.[0] === undefined ? undefined : message.parseRoute(data[0].body);
  }

  #configuredMtu(query: RouteQuery, what: string): number | undefined {
    const data = this.#ask(message.routeQueryRequest(query, { configured: true }), what, NO_WAY);
    return data?.[0] === undefined ? undefined : message.parseConfiguredMtu(data[0].body);
  }

  watch(onChange: (change: NetworkChange) => void): void {
    if (this.#listener !== undefined) throw new Error('bug: the host network is watched already');
    this.#listener = this.#within(
      () =>
        new NetlinkListener({
          protocol: NETLINK_ROUTE,
          groups: CHANGE_GROUPS,
          onMessage: ({ type, body }) => {
            const change = parseChange(type, body);
            if (change !== undefined) onChange(change);
          },
          onOverrun: () => onChange({ kind: 'unknown' }),
        }),
    );
  }

  async close(): Promise<void> {
    this.#socket.close();
    await this.#listener?.close();
  }

  /** False when the system answers with one of `expected`. */
  #change(request: NetlinkRequest, what: string, expected: readonly number[]): boolean {
    return this.#ask(request, what, expected) !== undefined;
  }

  #ask(request: NetlinkRequest, what: string, expected: readonly number[]): NetlinkData[] | undefined {
    try {
      return this.#socket.request(request, what);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      if (expected.includes(error.errno)) return undefined;
      throw explained(error);
    }
  }
}

const NEEDS_IPV6 =
  'This kernel has no IPv6, but the document has IPv6 addresses or ranges: leave them out, or boot a kernel that ' +
  'has it (CONFIG_IPV6, without ipv6.disable=1)';
const IPV6_SWITCHED_OFF =
  'IPv6 is disabled on the device, as on every new interface here, but the tunnel has IPv6 ranges: ' +
  'sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0, or leave those ranges out of the document';

/** What one route replaces another by. */
function placeOf(route: Route): string {
  const { destination, table = MAIN_TABLE } = route;
  return `${formatPrefix(destination)} ${table} ${metricOf(route)}`;
}

function explained(error: SystemError): SystemError {
  const advice = adviceOn(error);
  return advice === undefined ? error : new SystemError(error.call, error.errno, advice);
}

function adviceOn({ errno, message: text }: SystemError): string | undefined {
  if (errno === ERRNO.EPERM) return NEEDS_NET_ADMIN;
  if (NO_FAMILY.includes(errno)) return NEEDS_IPV6;
  return errno === ERRNO.EACCES && text.includes('IPv6 is disabled') ? IPV6_SWITCHED_OFF : undefined;
}

function parseAll<T>(data: readonly NetlinkData[] | undefined, parse: (body: Uint8Array) => T | undefined): T[] {
  return (data ?? []).map(({ body }) => parse(body)).filter((item) => item !== undefined);
}
