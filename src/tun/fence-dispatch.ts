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
} from '../base/address.ts';
import { isWhole, mergeRanges } from '../base/ranges.ts';
import type { TunnelFence } from './fence.ts';
import { TABLE } from './nft-words.ts';

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

/** A map for each hook and family; a packet is looked up as local and remote address. */
export const DISPATCH_HOOKS = ['input', 'forward', 'output'] as const;

/** What a part is for; `undefined` when it is to be shown all packets. */
export function dispatchPairs({ outbound, inbound }: TunnelFence): AddressPair[] | undefined {
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

export function samePairs(some: readonly AddressPair[], others: readonly AddressPair[]): boolean {
  return some.length === others.length && some.every((pair, at) => pairText(pair) === pairText(others[at]!));
}

/** What a base chain does for a part that is in no map: by its addresses where they are few, for every packet otherwise. */
export function dispatchJumps(
  hook: (typeof DISPATCH_HOOKS)[number],
  { id, pairs }: { readonly id: string; readonly pairs: readonly AddressPair[] | undefined },
): string[] {
  const jump = `jump ${id}_${hook}`;
  if (pairs === undefined || pairs.length > FEW_PAIRS) return [jump];
  return pairs.flatMap(({ local, remote }) => {
    const out = [...addressMatch('saddr', local), ...addressMatch('daddr', remote), jump].join(' ');
    const back = [...addressMatch('daddr', local), ...addressMatch('saddr', remote), jump].join(' ');
    if (hook === 'forward') return [out, back];
    return hook === 'output' ? [out] : [back];
  });
}

function addressMatch(field: 'saddr' | 'daddr', range: AddressRange): string[] {
  const { family } = range.start;
  return isWhole(range)
    ? [`meta nfproto ipv${family}`]
    : [`${family === 4 ? 'ip' : 'ip6'} ${field} ${formatRange(range)}`];
}

/** Makes the maps. */
export function dispatchMaps(verb: 'add' | 'flush'): string[] {
  return DISPATCH_HOOKS.flatMap((hook) =>
    FAMILIES.map((family) => {
      const type = `ipv${family}_addr . ipv${family}_addr : verdict`;
      const what = verb === 'add' ? ` { type ${type}; flags interval; }` : '';
      return `${verb} map ${TABLE} ${mapName(hook, family)}${what}`;
    }),
  );
}

/** The look-ups of a base chain. */
export function dispatchRules(hook: (typeof DISPATCH_HOOKS)[number]): string[] {
  return FAMILIES.flatMap((family) => {
    const word = family === 4 ? 'ip' : 'ip6';
    const out = `${word} saddr . ${word} daddr vmap @${mapName(hook, family)}`;
    const back = `${word} daddr . ${word} saddr vmap @${mapName(hook, family)}`;
    if (hook === 'forward') return [out, back];
    return hook === 'output' ? [out] : [back];
  });
}

/** @param id the part whose chains packets are shown to */
export function dispatchElements(verb: 'add' | 'delete', id: string, pairs: readonly AddressPair[]): string[] {
  return DISPATCH_HOOKS.flatMap((hook) =>
    FAMILIES.flatMap((family) => {
      const fitting = pairs.filter(({ remote }) => remote.start.family === family).map(pairText);
      if (fitting.length === 0) return [];
      const verdict = verb === 'add' ? ` : jump ${id}_${hook}` : '';
      const elements = fitting.map((pair) => `${pair}${verdict}`).join(', ');
      return [`${verb} element ${TABLE} ${mapName(hook, family)} { ${elements} }`];
    }),
  );
}

function mapName(hook: string, family: IpFamily): string {
  return `${hook}${family}`;
}

function pairText({ local, remote }: AddressPair): string {
  return `${rangeText(local)} . ${rangeText(remote)}`;
}

/** All of a family is no prefix to a map. */
function rangeText(range: AddressRange): string {
  return isWhole(range) ? `${formatAddress(range.start)}-${formatAddress(range.end)}` : formatRange(range);
}
