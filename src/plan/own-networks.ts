/**
 * Networks of this host that lie within protected destinations: what it sends there goes into the tunnel, or the fence drops
 * it, so that hosts there get no reply.
 */
import {
  type AddressRange,
  addressBits,
  formatAddress,
  formatRange,
  type IpAddress,
  intersectRanges,
  prefixRange,
  rangeContains,
  rangeToPrefixes,
} from '../base/address.ts';
import { subtractRanges } from '../base/ranges.ts';
import { ELSEWHERE, type TunnelFence } from '../hostnet/fence/fence.ts';
import { DEVICE_GROUP, type InterfaceAddress } from '../hostnet/routes/routes.ts';
import { narrowRanges } from '../hostnet/steering/any-source.ts';
import { isRequired, type RoutingPlan } from '../hostnet/steering/plan.ts';
import { isOfGuests } from '../hostnet/steering/sources.ts';
import { tunnelFence } from '../hostnet/steering/tunnel-fence.ts';
import type { HostView } from '../hostnet/view.ts';
import type { PolicyEntry } from '../policy/database.ts';
import { Protocol } from '../policy/protocols.ts';

/** What of a network namespace decides here. */
export interface HostAround {
  readonly routing: Pick<HostView['routing'], 'addresses' | 'link' | 'routeTo'>;
  readonly bridges?: HostView['bridges'];
}

/** A network of this host, or its router. */
interface Place {
  readonly range: AddressRange;
  /** The address that this host has there. */
  readonly source: IpAddress;
  readonly linkIndex: number;
}

/** A place that lies within protected destinations. */
export interface CutOff extends Place {
  /** The protected destinations. */
  readonly within: AddressRange;
  /** `tunnel`: packets of this host go into the tunnel; `fence`: they are dropped. */
  readonly loss: 'tunnel' | 'fence';
  /** Name of the link. */
  readonly link: string;
  /** The host's router, if it is there. */
  readonly router: IpAddress | undefined;
}

/** The highest that an `<sp>` may have. */
const MAX_PRIORITY = 0x7fff_ffff;

/** @param addresses those of the host that are valid beyond their link */
export function cutOffNetworks(
  plan: RoutingPlan,
  addresses: readonly InterfaceAddress[],
  { routing, bridges = [] }: HostAround,
): CutOff[] {
  const held = new Set(bridges.map((name) => routing.link(name)?.index));
  const guests = addresses.filter(({ linkIndex }) => held.has(linkIndex));
  const fence = tunnelFence(plan, '', { isOfGuests: (local) => isOfGuests(local, guests) });
  const router = routerOf(plan, { routing });
  const cutOff = (place: Place): CutOff[] => {
    const within = destinationsAround(plan, place.range);
    const loss = within && lossAt(place, fence);
    const link = loss && routing.link(place.linkIndex);
    if (within === undefined || loss === undefined || link === undefined || link.group === DEVICE_GROUP) return [];
    const there = router !== undefined && rangeContains(place.range, router.range.start);
    return [{ ...place, within, loss, link: link.name, router: there ? router.range.start : undefined }];
  };
  const networks = networksOf(addresses.filter(({ linkIndex }) => !held.has(linkIndex))).flatMap(cutOff);
  const isNamed = router === undefined || networks.some((network) => network.router !== undefined);
  return isNamed ? networks : [...networks, ...cutOff(router)];
}

function networksOf(addresses: readonly InterfaceAddress[]): Place[] {
  return addresses
    .filter(({ address: { family }, prefixLength }) => prefixLength < addressBits(family))
    .map(({ address, prefixLength, linkIndex }) => ({
      ...{ range: prefixRange(address, prefixLength), source: address, linkIndex },
    }));
}

/** The router by which the peer is reached, where the policy is not for it alone. */
function routerOf({ own, outbound }: RoutingPlan, { routing }: Pick<HostAround, 'routing'>): Place | undefined {
  if (own.peer === undefined || own === ELSEWHERE) return undefined;
  const { gateway, source, linkIndex } = routing.routeTo({ destination: own.peer, ipProtocol: Protocol.esp }) ?? {};
  if (gateway === undefined || source === undefined || linkIndex === undefined) return undefined;
  const isMeant = outbound.some(
    ({ remote: { start, end } }) => start.value === gateway.value && end.value === start.value,
  );
  return isMeant ? undefined : { range: { start: gateway, end: gateway }, source, linkIndex };
}

/** Protected destinations that all of a range lies in, if they are narrow enough to be dropped whatever the source. */
function destinationsAround({ outbound }: RoutingPlan, range: AddressRange): AddressRange | undefined {
  const { family } = range.start;
  const remotes = outbound.filter(isRequired).map(({ remote }) => remote);
  return narrowRanges(remotes.filter(({ start }) => start.family === family)).find(
    (one) => rangeContains(one, range.start) && rangeContains(one, range.end),
  );
}

/** What the first entry that protects does to packets there; entries before it may let pass, or discard, all of them. */
function lossAt({ range, source }: Place, { outbound, anySource }: TunnelFence): CutOff['loss'] | undefined {
  const entries = [
    ...outbound.map((entry) => ({ ...entry, loss: 'tunnel' as const })),
    ...anySource.map((entry) => ({ ...entry, loss: 'fence' as const })),
  ];
  let left = [range];
  for (const { action, local, remote, protocol, loss } of entries) {
    if (!rangeContains(local, source) || !left.some((one) => intersectRanges(one, remote) !== undefined)) continue;
    if (action === 'guard') return loss;
    if (protocol === undefined) left = left.flatMap((one) => subtractRanges(one, [remote]));
  }
  return undefined;
}

/** @param entry that protects what lies there */
export function cutOffText(
  { range, source, within, loss, link, router }: CutOff,
  { priority, selectors }: PolicyEntry,
): string {
  const isRouter = range.start.value === range.end.value;
  const place = isRouter ? `the router ${formatAddress(range.start)}` : `the network ${formatRange(range)}`;
  const among = !isRouter && router !== undefined ? `, with the router ${formatAddress(router)}` : '';
  const what = selectors.remote.every(({ protocol }) => protocol === Protocol.any)
    ? 'what'
    : 'what is protected of what';
  const fate = loss === 'tunnel' ? 'goes into the tunnel' : 'is dropped by the fence';
  return (
    `${place} of this host (${link}) lies within ${formatRange(within)}, which is protected${among}: ${what} this host sends ` +
    `there from ${formatAddress(source)}, replies included, ${fate}, so it cannot be reached from there ` +
    `(remote logins, DNS, DHCP). To let it pass in the clear, add ${exception(isRouter ? { start: source, end: source } : range, range, priority)}`
  );
}

/** Before the entry that protects: for a source that this one is for, and for packets that have none yet. */
function exception(source: AddressRange, destination: AddressRange, priority: number): string {
  const side = (name: string, range: AddressRange): string => {
    const [{ address, prefixLength }] = rangeToPrefixes(range) as [{ address: IpAddress; prefixLength: number }];
    return `<${name} address='${formatAddress(address)}' prefixlen='${prefixLength}'/>`;
  };
  return (
    `<sp priority='${Math.min(priority + 1, MAX_PRIORITY)}'>${side('src_range', source)}${side('dst_range', destination)}` +
    "<upperspec protocol='any'/><policy direction='both' action='none'/></sp>"
  );
}
