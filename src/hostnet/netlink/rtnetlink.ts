/**
 * What routing netlink messages say of links, addresses and routes (rtnetlink(7), linux/rtnetlink.h, linux/if_addr.h); of
 * rules in `rtnetlink-rules.ts`. Pure: requests are built from, and answers turned into, the types of `routes.ts`.
 */
import type { IpAddress, IpFamily } from '../../base/address.ts';
import { addressBits, addressFromBytes, addressToBytes } from '../../base/address.ts';
import { DecodeError } from '../../base/bytes.ts';
import { utf8 } from '../../base/text.ts';
import type {
  InstalledRoute,
  InterfaceAddress,
  Link,
  LinkChange,
  Prefix,
  Route,
  RouteFilter,
  RouteQuery,
  RouteType,
} from '../routes/routes.ts';
import { MAIN_TABLE, metricOf, OWN_PROTOCOL } from '../routes/routes.ts';
import type { Attributes } from './netlink.ts';
import { hostU32, NetlinkRequest, NLM_F, parseAttributes, readHostU32, readName } from './netlink.ts';

export const RTM = {
  NEWLINK: 16,
  DELLINK: 17,
  GETLINK: 18,
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
} as const;

const AF_INET = 2;
const AF_INET6 = 10;
const IFF_UP = 1;
const IFLA = { IFNAME: 3, MTU: 4, MASTER: 10, TXQLEN: 13, LINKINFO: 18, GROUP: 27 } as const;
const IFLA_INFO = { KIND: 1, DATA: 2 } as const;
const IFLA_VRF_TABLE = 1;
const VRF = 'vrf';
const IFA = { ADDRESS: 1, LOCAL: 2, FLAGS: 8 } as const;
const IFA_F_OPTIMISTIC = 0x04;
const IFA_F_DADFAILED = 0x08;
const IFA_F_DEPRECATED = 0x20;
const IFA_F_TENTATIVE = 0x40;
const RTA = {
  DST: 1,
  SRC: 2,
  IIF: 3,
  OIF: 4,
  GATEWAY: 5,
  PRIORITY: 6,
  PREFSRC: 7,
  METRICS: 8,
  CACHEINFO: 12,
  TABLE: 15,
  MARK: 16,
  IP_PROTO: 27,
  SPORT: 28,
  DPORT: 29,
} as const;
const RTAX_MTU = 2;
/** IPv4: the answer names the table that decided, instead of the main one. IPv6 always does, and refuses the flag. */
const RTM_F_LOOKUP_TABLE = 0x1000;
/** The answer is the route as it was configured, without what the kernel has learnt of the path since. */
const RTM_F_FIB_MATCH = 0x2000;
/** Offset of the expiry in struct rta_cacheinfo; only what the kernel learnt from ICMP has one. */
const CACHEINFO_EXPIRES = 8;
const RTN_UNICAST = 1;
const RTN_LOCAL = 2;
const ROUTE_TYPES: Readonly<Record<RouteType, number>> = {
  unicast: RTN_UNICAST,
  blackhole: 6,
  unreachable: 7,
  prohibit: 8,
  throw: 9,
};
const RT_SCOPE = { UNIVERSE: 0, LINK: 253, NOWHERE: 255 } as const;
const LINK_SIZE = 16;
const ADDRESS_SIZE = 8;
/** Of rtmsg and fib_rule_hdr, which have the same layout. */
export const ROUTE_SIZE = 12;

export function linkRequest(nameOrIndex: string | number): NetlinkRequest {
  if (typeof nameOrIndex === 'number') return new NetlinkRequest(RTM.GETLINK, 0, linkHeader(nameOrIndex, 0, 0));
  return new NetlinkRequest(RTM.GETLINK, 0, linkHeader(0, 0, 0)).attribute(IFLA.IFNAME, utf8(`${nameOrIndex}\0`));
}

export function setLinkRequest(index: number, { up, mtu, queue, group, master }: LinkChange): NetlinkRequest {
  const flags = up === true ? IFF_UP : 0;
  const mask = up === undefined ? 0 : IFF_UP;
  const request = new NetlinkRequest(RTM.NEWLINK, 0, linkHeader(index, flags, mask));
  if (mtu !== undefined) request.attributeU32(IFLA.MTU, mtu);
  if (queue !== undefined) request.attributeU32(IFLA.TXQLEN, queue);
  if (group !== undefined) request.attributeU32(IFLA.GROUP, group);
  if (master !== undefined) request.attributeU32(IFLA.MASTER, master);
  return request;
}

export function parseLink(body: Uint8Array): Link {
  const attributes = parseAttributes(fixed(body, LINK_SIZE), LINK_SIZE);
  return {
    index: readHostU32(body.subarray(4)),
    name: readName(attributes.get(IFLA.IFNAME) ?? new Uint8Array(0)),
    mtu: readHostU32(attributes.get(IFLA.MTU)) ?? 0,
    up: (readHostU32(body.subarray(8)) & IFF_UP) !== 0,
    group: readHostU32(attributes.get(IFLA.GROUP)) ?? 0,
    master: readHostU32(attributes.get(IFLA.MASTER)),
  };
}

/** All VRFs; with `master` the slaves of that link. Some kernels answer with other links besides. */
export function linksRequest({ master }: { readonly master?: number } = {}): NetlinkRequest {
  const request = new NetlinkRequest(RTM.GETLINK, NLM_F.DUMP, linkHeader(0, 0, 0));
  if (master !== undefined) return request.attributeU32(IFLA.MASTER, master);
  const kind = utf8(VRF);
  return request.attribute(IFLA.LINKINFO, Uint8Array.of(4 + kind.length, 0, IFLA_INFO.KIND, 0, ...kind, 0));
}

/** The link and the number of its table, if it is a VRF. */
export function parseVrf(body: Uint8Array): { readonly link: Link; readonly table: number } | undefined {
  const info = parseAttributes(fixed(body, LINK_SIZE), LINK_SIZE).get(IFLA.LINKINFO);
  const parts = info && parseAttributes(info, 0);
  if (parts === undefined || readName(parts.get(IFLA_INFO.KIND) ?? new Uint8Array(0)) !== VRF) return undefined;
  const data = parts.get(IFLA_INFO.DATA);
  const table = readHostU32(data && parseAttributes(data, 0).get(IFLA_VRF_TABLE));
  return table === undefined ? undefined : { link: parseLink(body), table };
}

export function addressesRequest(linkIndex: number | undefined): NetlinkRequest {
  return new NetlinkRequest(RTM.GETADDR, NLM_F.DUMP, Uint8Array.of(0, 0, 0, 0, ...hostU32(linkIndex ?? 0)));
}

/** `undefined` for an address of another family. */
export function parseInterfaceAddress(body: Uint8Array): InterfaceAddress | undefined {
  const attributes = parseAttributes(fixed(body, ADDRESS_SIZE), ADDRESS_SIZE);
  // On point-to-point links IFA_ADDRESS is the other end.
  const bytes = attributes.get(IFA.LOCAL) ?? attributes.get(IFA.ADDRESS);
  const family = familyOf(body[0]!);
  if (bytes === undefined || family === undefined) return undefined;
  const state = addressState(readHostU32(attributes.get(IFA.FLAGS)) ?? body[2]!);
  return {
    linkIndex: readHostU32(body.subarray(4)),
    address: ipAddress(bytes, family),
    prefixLength: body[1]!,
    ...(state && { state }),
  };
}

/** An optimistic address may be used before it is known to be the only one (RFC 4429). */
function addressState(flags: number): InterfaceAddress['state'] {
  if ((flags & IFA_F_DADFAILED) !== 0) return 'tentative';
  if ((flags & IFA_F_TENTATIVE) !== 0 && (flags & IFA_F_OPTIMISTIC) === 0) return 'tentative';
  return (flags & IFA_F_DEPRECATED) === 0 ? undefined : 'deprecated';
}

export function routesRequest(family: IpFamily, filter: RouteFilter): NetlinkRequest {
  const request = new NetlinkRequest(
    RTM.GETROUTE,
    NLM_F.DUMP,
    routeHeader({ family, table: filter.table ?? 0, protocol: filter.protocol ?? 0 }),
  );
  return filter.table === undefined ? request : request.attributeU32(RTA.TABLE, filter.table);
}

/** With `replace`, stands in for the route with the same destination, table and metric. */
export function addRouteRequest(route: Route, { replace }: { readonly replace: boolean }): NetlinkRequest {
  return routeRequest(RTM.NEWROUTE, NLM_F.CREATE | (replace ? NLM_F.REPLACE : NLM_F.EXCLUSIVE), route);
}

export function deleteRouteRequest(route: Route): NetlinkRequest {
  return routeRequest(RTM.DELROUTE, 0, route);
}

/** `undefined` for a route of a kind that is not described here (local, multicast, …). */
export function parseRoute(body: Uint8Array): InstalledRoute | undefined {
  const attributes = parseAttributes(fixed(body, ROUTE_SIZE), ROUTE_SIZE);
  const family = familyOf(body[0]!);
  const type = (Object.keys(ROUTE_TYPES) as RouteType[]).find((name) => ROUTE_TYPES[name] === body[7]);
  if (family === undefined || type === undefined) return undefined;
  const destination = prefix(attributes.get(RTA.DST), body[1]!, family) ?? anyPrefix(family);
  return {
    type,
    destination,
    table: readHostU32(attributes.get(RTA.TABLE)) ?? body[4]!,
    // The kernel gives IPv6 routes that lead nowhere the loopback link.
    linkIndex: type === 'unicast' ? readHostU32(attributes.get(RTA.OIF)) : undefined,
    gateway: optionalAddress(attributes.get(RTA.GATEWAY), family),
    source: optionalAddress(attributes.get(RTA.PREFSRC), family),
    metric: readHostU32(attributes.get(RTA.PRIORITY)) ?? 0,
    mtu: routeMtu(attributes),
    protocol: body[5]!,
  };
}

/** `configured`: asks for the route as it is set, not for the path that the kernel makes of it. */
export function routeQueryRequest(
  query: RouteQuery,
  { configured = false }: { readonly configured?: boolean } = {},
): NetlinkRequest {
  const { family } = query.destination;
  const bits = addressBits(family);
  const sourceLength = query.source === undefined ? 0 : bits;
  const flags = (family === 4 ? RTM_F_LOOKUP_TABLE : 0) | (configured ? RTM_F_FIB_MATCH : 0);
  const header = routeHeader({ family, destinationLength: bits, sourceLength, flags });
  const request = new NetlinkRequest(RTM.GETROUTE, 0, header).attribute(RTA.DST, addressToBytes(query.destination));
  if (query.source !== undefined) request.attribute(RTA.SRC, addressToBytes(query.source));
  if (query.inputLinkIndex !== undefined) request.attributeU32(RTA.IIF, query.inputLinkIndex);
  if (query.outputLinkIndex !== undefined) request.attributeU32(RTA.OIF, query.outputLinkIndex);
  if (query.mark !== undefined) request.attributeU32(RTA.MARK, query.mark);
  if (query.ipProtocol !== undefined) request.attributeU8(RTA.IP_PROTO, query.ipProtocol);
  if (query.sourcePort !== undefined) request.attribute(RTA.SPORT, networkPort(query.sourcePort));
  if (query.destinationPort !== undefined) request.attribute(RTA.DPORT, networkPort(query.destinationPort));
  return request;
}

/** What a route query was answered; the MTU only if the route has one of its own. */
export interface RouteReply {
  readonly linkIndex: number;
  readonly source: IpAddress | undefined;
  readonly gateway: IpAddress | undefined;
  readonly mtu: number | undefined;
  /** The kernel learnt the MTU from ICMP. */
  readonly learnt: boolean;
  readonly local: boolean;
  readonly table: number | undefined;
}

/** `undefined` when the route leads nowhere. */
export function parseRouteReply(body: Uint8Array): RouteReply | undefined {
  const attributes = parseAttributes(fixed(body, ROUTE_SIZE), ROUTE_SIZE);
  const family = familyOf(body[0]!);
  const linkIndex = readHostU32(attributes.get(RTA.OIF));
  const type = body[7]!;
  if (family === undefined || linkIndex === undefined || (type !== RTN_UNICAST && type !== RTN_LOCAL)) return undefined;
  return {
    linkIndex,
    source: optionalAddress(attributes.get(RTA.PREFSRC), family),
    gateway: optionalAddress(attributes.get(RTA.GATEWAY), family),
    mtu: routeMtu(attributes),
    learnt: (readHostU32(attributes.get(RTA.CACHEINFO)?.subarray(CACHEINFO_EXPIRES)) ?? 0) !== 0,
    local: type === RTN_LOCAL,
    table: readHostU32(attributes.get(RTA.TABLE)),
  };
}

/** The MTU of a route as it was configured. */
export function parseConfiguredMtu(body: Uint8Array): number | undefined {
  return routeMtu(parseAttributes(fixed(body, ROUTE_SIZE), ROUTE_SIZE));
}

function linkHeader(index: number, flags: number, mask: number): Uint8Array {
  return Uint8Array.of(0, 0, 0, 0, ...hostU32(index), ...hostU32(flags), ...hostU32(mask));
}

export interface RouteHeader {
  readonly family: IpFamily;
  readonly destinationLength?: number;
  readonly sourceLength?: number;
  readonly table?: number;
  readonly protocol?: number;
  readonly scope?: number;
  /** In a rule this byte is the action. */
  readonly type?: number;
  readonly flags?: number;
}

/** rtmsg, or fib_rule_hdr. */
export function routeHeader(header: RouteHeader): Uint8Array {
  const {
    family,
    destinationLength = 0,
    sourceLength = 0,
    table = 0,
    protocol = 0,
    scope = 0,
    type = 0,
    flags = 0,
  } = header;
  // The byte holds small table numbers only; the attribute holds all.
  const tableByte = table < 0x100 ? table : 0;
  return Uint8Array.of(
    family === 4 ? AF_INET : AF_INET6,
    destinationLength,
    sourceLength,
    0,
    tableByte,
    protocol,
    scope,
    type,
    ...hostU32(flags),
  );
}

function routeRequest(type: number, flags: number, route: Route): NetlinkRequest {
  const { destination, table = MAIN_TABLE } = route;
  const { family } = destination.address;
  const adding = type === RTM.NEWROUTE;
  const onLink = route.type === 'unicast' && route.gateway === undefined && family === 4;
  const header = routeHeader({
    family,
    destinationLength: destination.prefixLength,
    table,
    protocol: OWN_PROTOCOL,
    scope: adding ? (onLink ? RT_SCOPE.LINK : RT_SCOPE.UNIVERSE) : RT_SCOPE.NOWHERE,
    type: ROUTE_TYPES[route.type],
  });
  const request = new NetlinkRequest(type, flags, header).attributeU32(RTA.TABLE, table);
  if (destination.prefixLength > 0) request.attribute(RTA.DST, addressToBytes(destination.address));
  if (route.linkIndex !== undefined) request.attributeU32(RTA.OIF, route.linkIndex);
  if (route.gateway !== undefined) request.attribute(RTA.GATEWAY, addressToBytes(route.gateway));
  if (route.source !== undefined && adding) request.attribute(RTA.PREFSRC, addressToBytes(route.source));
  request.attributeU32(RTA.PRIORITY, metricOf(route));
  if (route.mtu !== undefined && adding) {
    request.attribute(RTA.METRICS, Uint8Array.of(8, 0, RTAX_MTU, 0, ...hostU32(route.mtu)));
  }
  return request;
}

function routeMtu(attributes: Attributes): number | undefined {
  const metrics = attributes.get(RTA.METRICS);
  return metrics === undefined ? undefined : readHostU32(parseAttributes(metrics, 0).get(RTAX_MTU));
}

/** The same bytes. @throws DecodeError when they do not hold the fixed structure */
export function fixed(body: Uint8Array, size: number): Uint8Array {
  if (body.length < size) throw new DecodeError('truncated', 0, `${size} bytes expected, ${body.length} left`);
  return body;
}

/** `undefined` for a family other than IP. */
export function familyOf(addressFamily: number): IpFamily | undefined {
  if (addressFamily === AF_INET) return 4;
  return addressFamily === AF_INET6 ? 6 : undefined;
}

function ipAddress(bytes: Uint8Array, family: IpFamily): IpAddress {
  const length = addressBits(family) / 8;
  if (bytes.length !== length)
    throw new DecodeError('bad-length', 0, `an IPv${family} address of ${bytes.length} bytes`);
  return addressFromBytes(bytes);
}

function optionalAddress(bytes: Uint8Array | undefined, family: IpFamily): IpAddress | undefined {
  return bytes === undefined ? undefined : ipAddress(bytes, family);
}

/** @throws DecodeError when the length is not that of the family */
export function prefix(bytes: Uint8Array | undefined, prefixLength: number, family: IpFamily): Prefix | undefined {
  return bytes === undefined ? undefined : { address: ipAddress(bytes, family), prefixLength };
}

function anyPrefix(family: IpFamily): Prefix {
  return { address: { family, value: 0n }, prefixLength: 0 };
}

/** In network order, other than those of a rule. */
function networkPort(port: number): Uint8Array {
  return Uint8Array.of(port >>> 8, port & 0xff);
}
