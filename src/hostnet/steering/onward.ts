/**
 * What came out of a tunnel goes on by the routes of the main table, in the clear. While the link or the address of the network
 * behind this gateway is gone, the only route left is one for everything, such as the default route, and these packets would
 * leave by the link to the Internet. So each tunnel has two rules for each of its networks that has, or once had, a route of
 * its own; the second one refuses what the first finds no such route for:
 *
 * ```text
 * 32764: from all to 10.1.0.0/24 iif stun-net lookup main suppress_prefixlength 0
 * 32765: from all to 10.1.0.0/24 iif stun-net unreachable
 * ```
 *
 * They stand directly before the main table's own rule: nothing changes while there is a route. Unreachable routes in the main table
 * would be for everyone's packets, and libvirt starts no network for whose addresses it finds a route. A network that
 * has always been reached by the default route has no such rules, nor has a policy for all addresses. Where many tunnels share a
 * table, one pair of rules is for all links: it would be too many rules otherwise, and a packet for a network that is gone has
 * no business on the default route wherever it came from.
 *
 * Where many tables have different networks, their rules form a tree before these priorities (`local-rules.ts`).
 *
 * The installed rules are the memory of these networks: the next daemon finds it there. Pure.
 */
import {
  type AddressRange,
  addressBits,
  type IpAddress,
  type IpFamily,
  intersectRanges,
  prefixRange,
  rangeContains,
  rangeToPrefixes,
  sameAddress,
} from '../../base/address.ts';
import { isWhole, mergeRanges, overlapsMerged, subtractRanges } from '../../base/ranges.ts';
import {
  formatPrefix,
  type InstalledRoute,
  type InstalledRule,
  type InterfaceAddress,
  MAIN_TABLE,
  type Prefix,
  prefixContains,
  type Route,
  type Rule,
  samePrefix,
} from '../routes/routes.ts';
import { isRequired, type RoutingPlan } from './plan.ts';
import { isOnwardRefusal, type OnwardPriorities, onwardPriorities } from './priorities.ts';

const FAMILIES: readonly IpFamily[] = [4, 6];

/** A rule costs each packet some 12 ns. Networks beyond these are not guarded. */
const MAX_GUARDED = 16;

/**
 * Who sets the routes of a gateway's networks (rtm_protocol): the kernel with an address, `ip route`, the administrator, router
 * advertisements, DHCP. Those of routing daemons come and go as a matter of course, and may be very many.
 */
export const NETWORK_PROTOCOLS: readonly number[] = [2, 3, 4, 9, 16];

/** A network that packets out of a tunnel reach by a route of its own only. */
export interface Guarded {
  readonly network: Prefix;
  /** Routes with a prefix of at most so many bits are for everything. */
  readonly general: number;
}

/** By family, merged. */
export type LocalNetworks = Readonly<Record<IpFamily, readonly AddressRange[]>>;

/** The local networks that a policy protects. What is for all addresses is left out. */
export function localNetworks({ inbound }: RoutingPlan): LocalNetworks {
  const locals = inbound.filter(isRequired).map(({ local }) => local);
  const ofFamily = (family: IpFamily): AddressRange[] =>
    mergeRanges(locals.filter((local) => local.start.family === family && !isWhole(local)));
  return { 4: ofFamily(4), 6: ofFamily(6) };
}

/** Whether a route is for everything: the default route, or one by a router that packets to a peer take too. */
export function isGeneral({ destination, gateway }: Route, peers: readonly IpAddress[]): boolean {
  if (destination.prefixLength === 0) return true;
  return gateway !== undefined && peers.some((peer) => prefixContains(destination, peer));
}

/** What of the main table and of the host's addresses decides. */
export interface MainTable {
  readonly routes: (family: IpFamily) => readonly InstalledRoute[];
  readonly addresses: readonly InterfaceAddress[];
}

export interface Onward {
  readonly guarded: readonly Guarded[];
  /** Those of them without a route of their own, as far as `NETWORK_PROTOCOLS` tell. */
  readonly lost: readonly Guarded[];
  /** The links that their routes leave by. */
  readonly links: ReadonlySet<number>;
}

/** @param known networks that once had a route */
export function findOnward(
  networks: LocalNetworks,
  peers: readonly IpAddress[],
  known: readonly Prefix[],
  main: MainTable,
): Onward {
  const parts = FAMILIES.map((family) => familyOnward(networks[family], peers, known, main));
  return {
    guarded: parts.flatMap(({ guarded }) => guarded),
    lost: parts.flatMap(({ lost }) => lost),
    links: new Set(parts.flatMap(({ links }) => [...links])),
  };
}

const NOTHING: Onward = { guarded: [], lost: [], links: new Set() };

function familyOnward(
  networks: readonly AddressRange[],
  peers: readonly IpAddress[],
  known: readonly Prefix[],
  main: MainTable,
): Onward {
  const family = networks[0]?.start.family;
  if (family === undefined) return NOTHING;
  const routes = main.routes(family);
  const wide = routes.filter((route) => isGeneral(route, peers));
  const generalFor = (network: Prefix): number =>
    Math.max(0, ...wide.filter(({ destination }) => covers(destination, network)).map(lengthOf));
  const own = routes.filter((route) => route.type === 'unicast' && !isGeneral(route, peers));
  const isReached = ({ network, general }: Guarded): boolean =>
    own.some((route) => lengthOf(route) > general && meet(route.destination, network));
  const seen = own.flatMap(({ destination }) => partsOf(destination, networks));
  const wanted = [...known.filter((network) => isWithin(network, networks)), ...seen]
    .filter((network) => !isOneOfOwn(network, main.addresses))
    .map((network) => ({ network, general: generalFor(network) }));
  const kept = wanted.filter((one) => isReached(one) || known.some((network) => samePrefix(network, one.network)));
  const guarded = outermost(kept).slice(0, MAX_GUARDED);
  const leading = own.filter(({ destination }) => guarded.some(({ network }) => meet(destination, network)));
  return {
    guarded,
    lost: guarded.filter((one) => !isReached(one)),
    links: new Set(leading.flatMap(({ linkIndex }) => linkIndex ?? [])),
  };
}

function lengthOf({ destination }: Pick<Route, 'destination'>): number {
  return destination.prefixLength;
}

function covers(wide: Prefix, narrow: Prefix): boolean {
  return wide.prefixLength <= narrow.prefixLength && prefixContains(wide, narrow.address);
}

function meet(a: Prefix, b: Prefix): boolean {
  return covers(a, b) || covers(b, a);
}

function rangeOf({ address, prefixLength }: Prefix): AddressRange {
  return prefixRange(address, prefixLength);
}

function partsOf(destination: Prefix, networks: readonly AddressRange[]): Prefix[] {
  return networks.flatMap((network) => {
    const common = intersectRanges(network, rangeOf(destination));
    return common === undefined ? [] : rangeToPrefixes(common);
  });
}

function isWithin(network: Prefix, networks: readonly AddressRange[]): boolean {
  return (
    network.address.family === networks[0]?.start.family && subtractRanges(rangeOf(network), networks).length === 0
  );
}

/** What is for this host itself goes nowhere. */
function isOneOfOwn({ address, prefixLength }: Prefix, addresses: readonly InterfaceAddress[]): boolean {
  return prefixLength === addressBits(address.family) && addresses.some((own) => sameAddress(own.address, address));
}

/** Without repetitions, and without networks within others. */
function outermost(guarded: readonly Guarded[]): Guarded[] {
  return guarded.filter(
    ({ network }, at) =>
      !guarded.some(
        (other, place) =>
          covers(other.network, network) && (other.network.prefixLength < network.prefixLength || place < at),
      ),
  );
}

/** Whether a change of a route or an address may change what is guarded. */
export function mayLead(networks: LocalNetworks, { address, prefixLength }: Prefix): boolean {
  return prefixLength > 0 && overlapsMerged(networks[address.family], prefixRange(address, prefixLength));
}

/**
 * Added from the last to the first: what refuses comes behind what looks up.
 * @param device left out: they are for what comes by any link
 */
export function onwardRules(
  guarded: readonly Guarded[],
  device: string | undefined,
  table: number,
  { lookUp, refuse }: OnwardPriorities = onwardPriorities(device),
): Rule[] {
  const main = { type: 'table', table: MAIN_TABLE } as const;
  return guarded.flatMap(({ network: to, general }): Rule[] => {
    const common = { family: to.address.family, to, inputLink: device };
    return [
      { ...common, priority: refuse, action: { type: 'unreachable' }, owner: table },
      { ...common, priority: lookUp, action: main, suppressedLength: general },
    ];
  });
}

/** The networks that these rules of a tunnel guard. */
export function guardedNetworks(rules: readonly InstalledRule[]): Prefix[] {
  return rules.filter(isOnwardRefusal).flatMap(({ to }) => to ?? []);
}

/** @param lost networks without a route */
export function lostText(lost: readonly Guarded[]): string | undefined {
  if (lost.length === 0) return undefined;
  const names = lost.map(({ network }) => formatPrefix(network));
  const [have, its, is] = lost.length === 1 ? ['it has', 'its', 'it is'] : ['they have', 'their', 'they are'];
  return (
    `packets out of the tunnel for ${names.join(', ')} are refused, as ${have} no route any more and these packets do not leave in the clear by the default route: ` +
    `bring ${its} link and address back, or add a route to where ${is} now (ip route)`
  );
}

/** An address of a network that is not the host's own, to ask for its route. */
export function sampleOf({ network }: Guarded, addresses: readonly InterfaceAddress[]): IpAddress {
  const { start, end } = rangeOf(network);
  const { family } = start;
  const samples = [end.value - 1n, start.value + 1n, start.value, end.value].map((value) => ({ family, value }));
  const isFree = (address: IpAddress): boolean =>
    rangeContains({ start, end }, address) && !addresses.some((own) => sameAddress(own.address, address));
  return samples.find(isFree) ?? start;
}

/**
 * An address of the other side that packets for a network come from: the kernel takes one without a source for a martian, not
 * for one without a route. A third of the way through the range: at its ends, or halfway through all addresses, none is unicast.
 */
export function sourceOf({ network }: Guarded, inbound: RoutingPlan['inbound']): IpAddress | undefined {
  const box = inbound.find((one) => isRequired(one) && intersectRanges(one.local, rangeOf(network)) !== undefined);
  if (box === undefined) return undefined;
  const { start, end } = box.remote;
  return { family: start.family, value: start.value + (end.value - start.value) / 3n };
}
