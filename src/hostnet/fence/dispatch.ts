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
import { TABLE, word } from './nft-words.ts';

/** Addresses on both sides. */
export interface AddressPair {
  readonly local: AddressRange;
  readonly remote: AddressRange;
}

/** BOUNDED: more pairs than these are not worth their place in the map. */
const MAX_PAIRS = 64;
/** BOUNDED: rules of a base chain that say for which packets a part in no map is. */
const FEW_PAIRS = 8;
const FAMILIES: readonly IpFamily[] = [4, 6];

const DIRECTIONS: readonly Direction[] = ['out', 'in'];
/** The chain of a part that is shown what leaves, and what arrives. */
const ENTRANCE: Readonly<Record<Direction, string>> = { out: 'leave', in: 'arrive' };

/** What a part is for; `undefined` when it is to be shown all packets. */
export function dispatchPairs({
  outbound,
  inbound,
}: Pick<TunnelFence, 'outbound' | 'inbound'>): AddressPair[] | undefined {
  const closed = [...outbound, ...inbound].filter(({ action }) => action !== 'pass');
  const pairs = FAMILIES.flatMap((family) => {
    const entries = closed.filter(({ remote }) => remote.start.family === family);
    const locals = mergeRanges(entries.map(({ local }) => local));
    const local = locals.length === 1 ? locals[0]! : anyRange(family);
    return mergeRanges(entries.map(({ remote }) => remote)).map((remote) => ({ local, remote }));
  });
  return pairs.length > MAX_PAIRS ? undefined : pairs;
}

export function overlap(some: readonly AddressPair[], others: readonly AddressPair[]): boolean {
  return some.some((a) =>
    others.some(
      (b) => intersectRanges(a.remote, b.remote) !== undefined && intersectRanges(a.local, b.local) !== undefined,
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
export function dispatchJumps(
  direction: Direction,
  { id, pairs }: { readonly id: string; readonly pairs: readonly AddressPair[] | undefined },
): string[] {
  const jump = `jump ${id}_${ENTRANCE[direction]}`;
  if (pairs === undefined || pairs.length > FEW_PAIRS) return [jump];
  const [localField, remoteField] = direction === 'out' ? (['saddr', 'daddr'] as const) : (['daddr', 'saddr'] as const);
  return pairs.map(({ local, remote }) =>
    [...addressMatch(localField, local), ...addressMatch(remoteField, remote), jump].join(' '),
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
  return DIRECTIONS.flatMap((direction) =>
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
export function mapOf(family: IpFamily): string {
  return `type ipv${family}_addr . ipv${family}_addr : verdict; flags interval;`;
}

function mapName(direction: Direction, family: IpFamily): string {
  return `${direction}${family}`;
}

/** As a key of a map. */
export function pairText({ local, remote }: AddressPair): string {
  return `${rangeText(local)} . ${rangeText(remote)}`;
}

/** All of a family is no prefix to a map. */
function rangeText(range: AddressRange): string {
  return isWhole(range) ? `${formatAddress(range.start)}-${formatAddress(range.end)}` : formatRange(range);
}
