/**
 * Which parts are shown the host's own packets for their destination alone, whatever the source. A map finds the part, however
 * many tunnels there are; destinations of several tunnels lead to a chain that asks these in turn. What leaves by a tunnel is
 * asked nothing: its policy decides.
 *
 * ```text
 *   output   own, by a link that is no tunnel's: host
 *   host     maps host4, host6: the part's hostany, or hostshared
 * ```
 */
import { type AddressRange, anyRange, formatRange, type IpFamily } from '../../base/address.ts';
import { mergeRanges } from '../../base/ranges.ts';
import { DEVICE_GROUP } from '../routes/routes.ts';
import { mapOf, pairText } from './dispatch.ts';
import type { FencePart, TunnelFence } from './fence.ts';
import { isInVrf, kindOf } from './ids.ts';
import { add, TABLE, word } from './nft-words.ts';
import { VRF_HOST, VRF_SHARED } from './vrf.ts';

const HOST = 'host';
const SHARED = 'hostshared';
const FAMILIES: readonly IpFamily[] = [4, 6];

/** A part, and the destinations that it is for; `undefined` where they are not known. */
export interface HostPart {
  readonly id: string;
  readonly vrf?: string | undefined;
  readonly destinations: readonly AddressRange[] | undefined;
  /** It is shown all packets, whatever the map says. */
  readonly isShownAll?: boolean;
}

/** What map and chains hold. */
export interface HostDispatch {
  /** Verdicts, by the map's name and its key: `host4 0.0.0.0-255.255.255.255 . 10.2.0.0/24`. BOUNDED: by the parts' destinations. */
  readonly elements: ReadonlyMap<string, string>;
  /** Rules of the chain for destinations of several parts, and of that for VRFs. */
  readonly shared: readonly string[];
  readonly vrfShared: readonly string[];
  /** Ids of parts that are shown all. */
  readonly unknown: readonly string[];
}

export const NO_HOST_DISPATCH: HostDispatch = { elements: new Map(), shared: [], vrfShared: [], unknown: [] };

/** The tunnels among these parts. @param parts those that are known @param shownAll those that are to be shown all besides */
export function hostParts(
  ids: Iterable<string>,
  parts: ReadonlyMap<string, FencePart>,
  shownAll: ReadonlySet<string> = new Set(),
): HostPart[] {
  const tunnels = [...ids].filter((id) => kindOf(id) === 'tunnel');
  return tunnels.map((id) => {
    const part = parts.get(id);
    if (part?.kind !== 'tunnel') return { id, vrf: undefined, destinations: undefined };
    return { id, vrf: part.vrf, destinations: hostDestinations(part), isShownAll: shownAll.has(id) };
  });
}

/** As they were found: parts are many, and each change looks at all. */
const found = new WeakMap<Pick<TunnelFence, 'anySource'>, readonly AddressRange[]>();

/** The destinations of `anySource` that are not let pass. */
function hostDestinations(part: Pick<TunnelFence, 'anySource'>): readonly AddressRange[] {
  const known = found.get(part) ?? findDestinations(part);
  found.set(part, known);
  return known;
}

function findDestinations({ anySource }: Pick<TunnelFence, 'anySource'>): AddressRange[] {
  const closed = anySource.filter(({ action }) => action !== 'pass').map(({ remote }) => remote);
  return FAMILIES.flatMap((family) => mergeRanges(closed.filter(({ start }) => start.family === family)));
}

export function hostDispatch(parts: readonly HostPart[]): HostDispatch {
  // BOUNDED: by the parts' destinations.
  const elements = new Map<string, string>();
  const [shared, vrfShared]: [string[], string[]] = [[], []];
  for (const [vrf, members] of byDomain(parts)) {
    const [map, chain, rules] =
      vrf === undefined ? ([HOST, SHARED, shared] as const) : ([VRF_HOST, VRF_SHARED, vrfShared] as const);
    for (const family of FAMILIES) {
      for (const { range, claims } of clusters(members, family)) {
        const ids = new Set(claims.map(({ id }) => id));
        const [only] = ids;
        elements.set(`${map}${family} ${keyOf(vrf, range)}`, ids.size === 1 ? jump(only!) : `jump ${chain}`);
        // A part in a VRF lets pass what is of another domain.
        if (ids.size > 1)
          rules.push(...claims.map((claim) => `${word(family)} daddr ${formatRange(claim.range)} ${jump(claim.id)}`));
      }
    }
  }
  return {
    elements,
    shared,
    vrfShared,
    unknown: parts.flatMap(({ id, destinations, isShownAll }) =>
      destinations === undefined || isShownAll === true ? [id] : [],
    ),
  };
}

function byDomain(parts: readonly HostPart[]): ReadonlyMap<string | undefined, HostPart[]> {
  // BOUNDED: by the parts.
  const found = new Map<string | undefined, HostPart[]>();
  for (const part of parts) {
    const members = found.get(part.vrf);
    if (members === undefined) found.set(part.vrf, [part]);
    else members.push(part);
  }
  return found;
}

interface Key {
  readonly vrf: string | undefined;
  readonly text: string;
}

const keys = new WeakMap<AddressRange, Key>();

/** Of the map, without its name and family: `0.0.0.0-255.255.255.255 . 10.2.0.0/24` */
function keyOf(vrf: string | undefined, range: AddressRange): string {
  const known = keys.get(range);
  if (known?.vrf === vrf && known !== undefined) return known.text;
  const text = pairText({ vrf, local: anyRange(range.start.family), remote: range });
  keys.set(range, { vrf, text });
  return text;
}

interface Claim {
  readonly id: string;
  readonly range: AddressRange;
}

/** Destinations that overlap, joined. */
function clusters(parts: readonly HostPart[], family: IpFamily): { range: AddressRange; claims: Claim[] }[] {
  const claims = parts
    .flatMap(({ id, destinations = [] }) => destinations.map((range) => ({ id, range })))
    .filter(({ range }) => range.start.family === family)
    .sort((a, b) => (a.range.start.value < b.range.start.value ? -1 : 1));
  const found: { range: AddressRange; claims: Claim[] }[] = [];
  for (const claim of claims) {
    const last = found.at(-1);
    if (last === undefined || claim.range.start.value > last.range.end.value) {
      found.push({ range: claim.range, claims: [claim] });
      continue;
    }
    last.claims.push(claim);
    if (claim.range.end.value > last.range.end.value) last.range = { start: last.range.start, end: claim.range.end };
  }
  return found;
}

function jump(id: string): string {
  return `jump ${id}_hostany`;
}

/** What all stands on, empty. */
export function hostFoundation(): string[] {
  return [
    ...[HOST, SHARED].flatMap((chain) => [`add chain ${TABLE} ${chain}`, `flush chain ${TABLE} ${chain}`]),
    ...FAMILIES.flatMap((family) => [
      `add map ${TABLE} host${family} { ${mapOf(family)} }`,
      `flush map ${TABLE} host${family}`,
    ]),
  ];
}

/** Of the base chain, behind its other rules. */
export function hostRule(): string {
  return `iif 0 oifgroup != ${DEVICE_GROUP} jump ${HOST}`;
}

/** What leads to parts: taken away, as far as it is different afterwards. */
export function hostRemovals(before: HostDispatch, after: HostDispatch): string[] {
  const gone = [...before.elements].filter(([key, verdict]) => after.elements.get(key) !== verdict);
  return [
    ...elementLines(
      'delete',
      gone.map(([key]) => key),
    ),
    ...(same(before.shared, after.shared) ? [] : [`flush chain ${TABLE} ${SHARED}`]),
    ...(same(before.vrfShared, after.vrfShared) ? [] : [`flush chain ${TABLE} ${VRF_SHARED}`]),
  ];
}

/** What leads to parts, as far as it was not there before. @param anew the chain `host` is empty */
export function hostAdditions(
  before: HostDispatch,
  after: HostDispatch,
  { anew }: { readonly anew: boolean },
): string[] {
  const added = [...after.elements].filter(([key, verdict]) => before.elements.get(key) !== verdict);
  const [ofVrf, ofDefault] = [true, false].map((wanted) => after.unknown.filter((id) => isInVrf(id) === wanted));
  const lookUp = (map: string, before: string): string[] =>
    FAMILIES.map((family) => `${before}${word(family)} saddr . ${word(family)} daddr vmap @${map}${family}`);
  const rules = [
    ...[...lookUp(VRF_HOST, 'iifname . '), ...ofVrf!.map(jump)].map((rule) => add(VRF_HOST, rule)),
    ...[...lookUp(HOST, ''), ...ofDefault!.map(jump)].map((rule) => add(HOST, rule)),
  ];
  return [
    // A version before this one left none.
    ...after.unknown.map((id) => `add chain ${TABLE} ${id}_hostany`),
    ...(same(before.shared, after.shared) ? [] : after.shared.map((rule) => add(SHARED, rule))),
    ...(same(before.vrfShared, after.vrfShared) ? [] : after.vrfShared.map((rule) => add(VRF_SHARED, rule))),
    ...(anew || !same(before.unknown, after.unknown)
      ? [HOST, VRF_HOST].map((chain) => `flush chain ${TABLE} ${chain}`).concat(rules)
      : []),
    ...elementLines(
      'add',
      added.map(([key, verdict]) => `${key} : ${verdict}`),
    ),
  ];
}

/** A line for each map. */
function elementLines(verb: 'add' | 'delete', elements: readonly string[]): string[] {
  const names = [HOST, VRF_HOST].flatMap((map) => FAMILIES.map((family) => `${map}${family}`));
  return names.flatMap((name) => {
    const own = elements
      .filter((element) => element.startsWith(`${name} `))
      .map((element) => element.slice(name.length + 1));
    return own.length === 0 ? [] : [`${verb} element ${TABLE} ${name} { ${own.join(', ')} }`];
  });
}

function same(some: readonly string[], others: readonly string[]): boolean {
  return some.length === others.length && some.every((one, at) => one === others[at]);
}
