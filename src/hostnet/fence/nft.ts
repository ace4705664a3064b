/**
 * The fence as text for nft(8). Pure. One table, five base chains, and for each part chains of its own that these jump to:
 *
 * ```text
 *   fragments   what arrives in pieces, before anything puts it together     fragments alone
 *   input       what is delivered                                           not by lo
 *   forward     what is forwarded, as it left and as it arrives
 *   output      the host's own, by the link that they leave by              not by lo
 *   host        of these, what leaves by no tunnel, whatever its source (host-dispatch.ts)
 *   translated  what leaves, once its source has been translated             not by lo
 * ```
 *
 * Each asks the bridges first, then the tunnel that a map finds, then the tunnels that overlap with others. `input` and
 * `forward` come before the chains of firewalls and of libvirt (priority -10), and behind the translation of destinations
 * (-100). A part that a packet does not concern returns, so no part lets through what another one drops.
 *
 * `output` stands in the hook behind routing. A new destination or mark gives a packet of the host another route; in the
 * hook before, all chains see the link of its first route, even after the route has changed.
 */
import { assertNever } from '../../base/assert.ts';
import type { Direction } from '../../policy/direction.ts';
import { dispatchElements, dispatchJumps, dispatchMaps, dispatchRules, type Unmapped } from './dispatch.ts';
import { type BridgeFence, FENCE_COUNTERS, type FencePart, type UntranslatedFence } from './fence.ts';
import {
  type HostDispatch,
  hostAdditions,
  hostFoundation,
  hostRemovals,
  hostRule,
  NO_HOST_DISPATCH,
} from './host-dispatch.ts';
import { isInVrf, kindOf } from './ids.ts';
import type { MappedPart } from './mapped.ts';
import { add, counterName, quoted, TABLE, TABLE_LINE, word } from './nft-words.ts';
import { extensionsSet, laterFragment, readableMatches, WHOLE } from './readable.ts';
import { deletedMarkRules, setsOf, TUNNEL_CHAINS, TUNNEL_SETS, tunnelRules } from './tunnel.ts';
import { devicesInVrfs, VRF_RULES, vrfFoundation, vrfRules } from './vrf.ts';

interface BaseChain {
  readonly hook: string;
  readonly priority: number;
  /** Rules before those of all parts, and before those of tunnels: they let packets pass. */
  readonly first: readonly string[];
  readonly second: readonly string[];
  /** Which ways of tunnels are asked. */
  readonly directions: readonly Direction[];
  /** Rules behind those of all parts. */
  readonly last?: readonly string[];
}

const BASE_CHAINS = {
  input: { hook: 'input', priority: -10, first: [], second: ['iifname "lo" accept'], directions: ['in'] },
  forward: { hook: 'forward', priority: -10, first: [], second: [], directions: ['out', 'in'] },
  output: {
    hook: 'postrouting',
    // Before the translation of sources (100), which may give the tunnel's own packets any port.
    priority: 80,
    // Those that a device of the host wraps (GRE, VXLAN) seem to have come by it: all are looked at.
    first: [],
    second: ['oifname "lo" accept'],
    directions: ['out'],
    last: [hostRule()],
  },
  fragments: {
    hook: 'prerouting',
    // Before connection tracking puts fragments together (-400).
    priority: -450,
    first: [...WHOLE, 'iifname "lo"'].map((match) => `${match} accept`),
    second: [],
    directions: ['in'],
  },
  // Behind the translation of sources (100).
  translated: { hook: 'postrouting', priority: 300, first: [], second: ['oifname "lo" accept'], directions: ['out'] },
} as const satisfies Readonly<Record<string, BaseChain>>;
type BaseName = keyof typeof BASE_CHAINS;
const BASE_NAMES = Object.keys(BASE_CHAINS) as readonly BaseName[];

/** Before the chains of libvirt and firewalls that translate. It stands only where it is needed: it has the kernel track flows. */
const TRANSLATION = 'postrouting';

/** Chains and sets of each kind of part, behind its id. */
const CHAINS = {
  tunnel: TUNNEL_CHAINS,
  bridge: [...BASE_NAMES, 'hostread'],
  untranslated: [TRANSLATION],
} as const satisfies Readonly<Record<FencePart['kind'], readonly string[]>>;
const SETS: Readonly<Record<FencePart['kind'], Readonly<Record<string, string>>>> = {
  tunnel: TUNNEL_SETS,
  bridge: {},
  untranslated: {},
};

/** A part's id: begins with the first letter of its kind, the rest is letters and digits. */
export interface NamedPart {
  readonly id: string;
  readonly part: FencePart;
}

/** What is to be done, and what is there afterwards. */
export interface FenceChange {
  readonly added: readonly NamedPart[];
  /** Ids of parts. */
  readonly removed: readonly string[];
  /** Ids of all parts that are there afterwards. */
  readonly present: readonly string[];
  /** Those of them that are in no map, where others than before; all that maps hold is new then. */
  readonly unmappable: readonly Unmapped[] | undefined;
  /** Base chains of other hooks may stand there, of a version before this one. */
  readonly inherited: boolean;
  readonly mapped: readonly MappedPart[];
  readonly unmapped: readonly MappedPart[];
  /** What leads the host's own packets to parts; `before` is left out where all of it is new. */
  readonly host: { readonly before: HostDispatch | undefined; readonly after: HostDispatch };
  /** Devices of all tunnels in VRFs that are there afterwards. */
  readonly vrfDevices: readonly string[];
}

/** The batch that carries out a change. */
export function fenceBatch(change: FenceChange): string {
  const { added, removed, present, unmappable, inherited, mapped, unmapped, host, vrfDevices } = change;
  if (present.length === 0) return `add table ${TABLE}\ndelete table ${TABLE}\n`;
  const { before = NO_HOST_DISPATCH, after } = host;
  const concernsVrfs = [...added.map(({ id }) => id), ...removed].some(isInVrf);
  const lines = [
    ...(unmappable === undefined ? [] : foundation(inherited)),
    ...unmapped.flatMap(({ id, pairs }) => dispatchElements('delete', id, pairs)),
    ...hostRemovals(before, after),
    ...[...added.map(({ id }) => id), ...removed].flatMap(emptied),
    ...[...added.map(({ id }) => id), ...removed].flatMap((id) =>
      kindOf(id) === 'tunnel' ? deletedMarkRules(id) : [],
    ),
    ...(unmappable === undefined ? [] : BASE_NAMES.flatMap((name) => baseRules(name, unmappable))),
    ...(unmappable === undefined ? [] : vrfRules(unmappable.filter(({ id }) => isInVrf(id)))),
    ...translation([...present, ...removed], present),
    ...added.flatMap(({ id, part }) => (part.kind === 'tunnel' ? deletedSets(id, setsOf(part)) : [])),
    ...added.flatMap(partRules),
    ...mapped.flatMap(({ id, pairs }) => dispatchElements('add', id, pairs)),
    ...hostAdditions(before, after, { anew: host.before === undefined }),
    ...(unmappable === undefined && !concernsVrfs ? [] : devicesInVrfs(vrfDevices)),
    ...removed.flatMap(deleted),
  ];
  return `${lines.join('\n')}\n`;
}

/**
 * The table with its base chains, empty. A batch for a table that should exist goes without it, so that the kernel reports
 * one that is gone. `inherited`: from another daemon, whose chains may have other hooks.
 */
function foundation(inherited: boolean): string[] {
  return [
    TABLE_LINE,
    ...BASE_NAMES.flatMap((name) => {
      const { hook, priority } = BASE_CHAINS[name];
      // The kernel changes no chain's hook.
      const removed = ['add', 'flush', 'delete'].map((verb) => `${verb} chain ${TABLE} ${name}`);
      return [
        ...(inherited ? removed : []),
        `add chain ${TABLE} ${name} { type filter hook ${hook} priority ${priority}; policy accept; }`,
        `flush chain ${TABLE} ${name}`,
      ];
    }),
    ...extensionsSet(),
    ...dispatchMaps('add'),
    ...dispatchMaps('flush'),
    ...hostFoundation(),
    ...vrfFoundation(),
  ];
}

function baseRules(name: BaseName, unmappable: readonly Unmapped[]): string[] {
  const { first, second, directions, last = [] }: BaseChain = BASE_CHAINS[name];
  const rules = [
    ...first,
    ...unmappable.filter(({ id }) => kindOf(id) === 'bridge').map(({ id }) => `jump ${id}_${name}`),
    ...second,
    ...VRF_RULES[name],
    ...directions.flatMap(dispatchRules),
    ...unmappable
      .filter(({ id }) => kindOf(id) === 'tunnel' && !isInVrf(id))
      .flatMap((part) => directions.flatMap((direction) => dispatchJumps(direction, part))),
    ...last,
  ];
  return rules.map((rule) => add(name, rule));
}

/** @param concerned ids of the parts that there are or were */
function translation(concerned: readonly string[], present: readonly string[]): string[] {
  if (!concerned.some((id) => kindOf(id) === 'untranslated')) return [];
  const parts = present.filter((id) => kindOf(id) === 'untranslated');
  return [
    `add chain ${TABLE} ${TRANSLATION} { type nat hook postrouting priority 90; policy accept; }`,
    `flush chain ${TABLE} ${TRANSLATION}`,
    ...parts.map((id) => add(TRANSLATION, `jump ${id}_${TRANSLATION}`)),
    ...(parts.length === 0 ? [`delete chain ${TABLE} ${TRANSLATION}`] : []),
  ];
}

/** Makes what a part is made of, or empties it. */
function emptied(id: string): string[] {
  const kind = kindOf(id);
  return [
    ...FENCE_COUNTERS[kind].map((name) => `add counter ${TABLE} ${counterName(id, name)}`),
    ...CHAINS[kind].flatMap((chain) => [`add chain ${TABLE} ${id}_${chain}`, `flush chain ${TABLE} ${id}_${chain}`]),
    ...Object.entries(SETS[kind]).flatMap(([set, what]) => [
      `add set ${TABLE} ${id}_${set} { ${what} }`,
      `flush set ${TABLE} ${id}_${set}`,
    ]),
  ];
}

function deleted(id: string): string[] {
  const kind = kindOf(id);
  return [
    ...CHAINS[kind].map((chain) => `delete chain ${TABLE} ${id}_${chain}`),
    ...deletedSets(id),
    ...FENCE_COUNTERS[kind].map((name) => `delete counter ${TABLE} ${counterName(id, name)}`),
  ];
}

/** @param used those that stay */
function deletedSets(id: string, used: readonly string[] = []): string[] {
  const unused = Object.keys(SETS[kindOf(id)]).filter((set) => !used.includes(set));
  return unused.map((set) => `delete set ${TABLE} ${id}_${set}`);
}

function partRules({ id, part }: NamedPart): string[] {
  switch (part.kind) {
    case 'tunnel':
      return tunnelRules(id, part);
    case 'bridge':
      return bridgeRules(id, part);
    case 'untranslated':
      return untranslatedRules(id, part);
    default:
      return assertNever(part, 'partRules');
  }
}

function bridgeRules(id: string, { bridge, devices, closed, dns }: BridgeFence): string[] {
  const name = quoted(bridge);
  const open = `{ ${[bridge, ...devices].map(quoted).join(', ')} }`;
  const count = (counter: string): string => `counter name ${counterName(id, counter)}`;
  const host = 'fib daddr . iif type { local, broadcast, multicast, anycast } accept';
  // The host's addresses of other links are no way around the tunnel.
  const toHost = (chain: string): string[] => [
    add(chain, host),
    ...(closed ? [add(chain, `${count('host')} drop`)] : []),
  ];
  return [
    // What guests send in pieces is no clear text of the other side.
    add(`${id}_fragments`, `iifname ${name} accept`),
    add(`${id}_forward`, `iifname ${name} oifname ${name} accept`),
    add(`${id}_forward`, `iifname != ${name} oifname != ${name} return`),
    ...(closed
      ? [
          add(`${id}_forward`, `iifname ${name} oifname ${open} return`),
          add(`${id}_forward`, `oifname ${name} iifname ${open} return`),
          add(`${id}_forward`, `iifname ${name} ${count('forward-out')} reject with icmpx admin-prohibited`),
          add(`${id}_forward`, `${count('forward-in')} drop`),
        ]
      : []),
    add(`${id}_translated`, `iifname ${name} oifname ${name} accept`),
    add(`${id}_translated`, `iif 0 oifname ${name} accept`),
    add(`${id}_input`, `iifname != ${name} return`),
    ...(dns ? [] : noDns(id, count('host'))),
    ...(dns ? toHost(`${id}_input`) : toHost(`${id}_hostread`)),
    add(`${id}_output`, `oifname ${name} accept`),
  ];
}

/**
 * What cannot be read may be a question to the name server. IPv4 comes whole, with its protocol; a later fragment of IPv6 is
 * nothing without its first one, which is looked at.
 */
function noDns(id: string, count: string): string[] {
  const host = ['meta nfproto ipv4', ...readableMatches(6), laterFragment(6)];
  return [
    ...host.map((match) => add(`${id}_input`, `${match} goto ${id}_hostread`)),
    add(`${id}_input`, `${count} drop`),
    add(`${id}_hostread`, `meta l4proto { 6, 17 } th dport { 53, 853 } ${count} drop`),
  ];
}

/** To its own address: what has been translated once is left alone by the chains behind. */
function untranslatedRules(id: string, { bridge, device }: UntranslatedFence): string[] {
  return ([4, 6] as const).map((family) =>
    add(
      `${id}_${TRANSLATION}`,
      `meta nfproto ipv${family} iifname ${quoted(bridge)} oifname ${quoted(device)} snat ${word(family)} to ${word(family)} saddr`,
    ),
  );
}

/** Counters of these parts that go on where they were. @param counted values, by name */
export function countersAgain(parts: readonly NamedPart[], counted: ReadonlyMap<string, number>): string[] {
  const names = parts.flatMap(({ id, part }) => FENCE_COUNTERS[part.kind].map((name) => counterName(id, name)));
  const lines = names.flatMap((name) => {
    const packets = counted.get(name) ?? 0;
    return packets > 0 ? [`add counter ${TABLE} ${name} { packets ${packets} bytes 0 }`] : [];
  });
  return [TABLE_LINE, ...lines];
}
