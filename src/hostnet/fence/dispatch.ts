/**
 * Which packets the part of a tunnel is shown: those between its local and remote addresses. A map finds the one part that
 * a packet concerns, however many tunnels there are; so what it holds may not overlap. Tunnels whose addresses overlap with
 * those of others, or are very many, are asked one after another instead.
 */
import {
  type AddressRange,
  anyRange,
  formatAddress,
  formatRange,
  type IpFamily,
  intersectRanges,
} from '../../base/address.ts';
import { isWhole, mergeRanges } from '../../base/ranges.ts';
import type { Direction } from '../../policy/direction.ts';
import type { TunnelFence } from './fence.ts';
import { quoted, TABLE, word } from './nft-words.ts';

/** Addresses on both sides, in a VRF or, where it is left out, in the default domain. */
export interface AddressPair {
  readonly vrf?: string | undefined;
  readonly local: AddressRange;
  readonly remote: AddressRange;
}

/** BOUNDED: more pairs than these are not worth their place in the map. */
const MAX_PAIRS = 64;
/** BOUNDED: rules of a base chain that say for which packets a part in no map is. */
const FEW_PAIRS = 8;
const FAMILIES: readonly IpFamily[] = [4, 6];

const DIRECTIONS: readonly Direction[] = ['out', 'in'];
const VRF_MAPS = ['vrfout', 'vrfin', 'vrfown'] as const;
/** Maps, without the family; in VRFs the host's own packets have one of their own. */
type DispatchMap = Direction | 'vrfout' | 'vrfin' | 'vrfown';
/** The chain of a part that is shown what leaves, and what arrives. */
const ENTRANCE: Readonly<Record<DispatchMap, string>> = {
  out: 'leave',
  in: 'arrive',
  vrfout: 'leave',
  vrfin: 'arrive',
  vrfown: 'hostout',
};

/** A part that is in no map, and the addresses that it is for; all where they are not known. */
export interface Unmapped {
  readonly id: string;
  readonly pairs: readonly AddressPair[] | undefined;
}

export function sameUnmapped(some: readonly Unmapped[], others: readonly Unmapped[]): boolean {
  return (
    some.length === others.length &&
    some.every(({ id, pairs }, at) => id === others[at]!.id && samePairs(pairs ?? [], others[at]!.pairs ?? []))
  );
}

/** What a part is for; `undefined` when it is to be shown all packets. */
export function dispatchPairs({
  vrf,
  outbound,
  inbound,
}: Pick<TunnelFence, 'vrf' | 'outbound' | 'inbound'>): AddressPair[] | undefined {
  const closed = [...outbound, ...inbound].filter(({ action }) => action !== 'pass');
  const pairs = FAMILIES.flatMap((family) => {
    const entries = closed.filter(({ remote }) => remote.start.family === family);
    const locals = mergeRanges(entries.map(({ local }) => local));
    const local = locals.length === 1 ? locals[0]! : anyRange(family);
    return mergeRanges(entries.map(({ remote }) => remote)).map((remote) => ({ vrf, local, remote }));
  });
  return pairs.length > MAX_PAIRS ? undefined : pairs;
}

export function overlap(some: readonly AddressPair[], others: readonly AddressPair[]): boolean {
  return some.some((a) =>
    others.some(
      (b) =>
        a.vrf === b.vrf &&
        intersectRanges(a.remote, b.remote) !== undefined &&
        intersectRanges(a.local, b.local) !== undefined,
    ),
  );
}

/** The packets that are of some pair as what goes out, and of some pair as what comes in: `local` is their source. */
export function mirroredPairs(pairs: readonly AddressPair[]): AddressPair[] {
  // BOUNDED: by the square of the pairs.
  const found = new Map<string, AddressPair>();
  for (const out of pairs) {
    for (const back of pairs) {
      const local = intersectRanges(out.local, back.remote);
      const remote = intersectRanges(out.remote, back.local);
      if (local !== undefined && remote !== undefined) found.set(pairText({ local, remote }), { local, remote });
    }
  }
  return [...found.values()];
}

export function samePairs(some: readonly AddressPair[], others: readonly AddressPair[]): boolean {
  return some.length === others.length && some.every((pair, at) => pairText(pair) === pairText(others[at]!));
}

/** What a base chain does for a part that is in no map: by its addresses where they are few, for every packet otherwise. */
export function dispatchJumps(map: DispatchMap, { id, pairs }: Unmapped): string[] {
  const jump = `jump ${id}_${ENTRANCE[map]}`;
  if (pairs === undefined || pairs.length > FEW_PAIRS) return [jump];
  const isInbound = map === 'in' || map === 'vrfin';
  const [localField, remoteField] = isInbound ? (['daddr', 'saddr'] as const) : (['saddr', 'daddr'] as const);
  return pairs.map(({ vrf, local, remote }) =>
    [
      ...(vrf === undefined ? [] : [`iifname ${quoted(vrf)}`]),
      ...addressMatch(localField, local),
      ...addressMatch(remoteField, remote),
      jump,
    ].join(' '),
  );
}

function addressMatch(field: 'saddr' | 'daddr', range: AddressRange): string[] {
  const { family } = range.start;
  return isWhole(range) ? [`meta nfproto ipv${family}`] : [`${word(family)} ${field} ${formatRange(range)}`];
}

/** Makes the maps: one for each way and family, whose key is the local and the remote address of a packet. */
export function dispatchMaps(verb: 'add' | 'flush'): string[] {
  return DIRECTIONS.flatMap((direction) =>
    FAMILIES.map((family) => {
      const what = verb === 'add' ? ` { ${mapOf(family)} }` : '';
      return `${verb} map ${TABLE} ${mapName(direction, family)}${what}`;
    }),
  );
}

/** The look-ups of a base chain. */
export function dispatchRules(direction: Direction): string[] {
  return FAMILIES.map((family) => {
    const name = word(family);
    const key = direction === 'out' ? `${name} saddr . ${name} daddr` : `${name} daddr . ${name} saddr`;
    return `${key} vmap @${mapName(direction, family)}`;
  });
}

/** @param id the part whose chains packets are shown to */
export function dispatchElements(verb: 'add' | 'delete', id: string, pairs: readonly AddressPair[]): string[] {
  const maps = pairs[0]?.vrf === undefined ? DIRECTIONS : VRF_MAPS;
  return maps.flatMap((direction) =>
    FAMILIES.flatMap((family) => {
      const fitting = pairs.filter(({ remote }) => remote.start.family === family).map(pairText);
      if (fitting.length === 0) return [];
      const verdict = verb === 'add' ? ` : jump ${id}_${ENTRANCE[direction]}` : '';
      const elements = fitting.map((pair) => `${pair}${verdict}`).join(', ');
      return [`${verb} element ${TABLE} ${mapName(direction, family)} { ${elements} }`];
    }),
  );
}

/** What a map from two addresses to a verdict is. */
export function mapOf(family: IpFamily, { ofVrf = false }: { readonly ofVrf?: boolean } = {}): string {
  return `type ${ofVrf ? 'ifname . ' : ''}ipv${family}_addr . ipv${family}_addr : verdict; flags interval;`;
}

function mapName(map: DispatchMap, family: IpFamily): string {
  return `${map}${family}`;
}

/** As a key of a map. */
export function pairText({ vrf, local, remote }: AddressPair): string {
  return `${vrf === undefined ? '' : `${quoted(vrf)} . `}${rangeText(local)} . ${rangeText(remote)}`;
}

/** All of a family is no prefix to a map. */
function rangeText(range: AddressRange): string {
  return isWhole(range) ? `${formatAddress(range.start)}-${formatAddress(range.end)}` : formatRange(range);
}
