/**
 * The fence as text for nft(8). Pure. One table, three base chains (input, forward, output at priority -10, before those
 * of firewalls and of libvirt), and for each part chains of its own that these jump to:
 *
 * ```text
 *   output   each bridge   lo: pass   the tunnel that a map finds   tunnels that overlap with others
 *   forward  each bridge              the tunnel that a map finds   tunnels that overlap with others
 *   input    each bridge   lo: pass   the tunnel that a map finds   tunnels that overlap with others
 * ```
 *
 * A part of which a packet is no business returns; so no part lets through what another one drops.
 */
import { assertNever } from '../base/assert.ts';
import { type BridgeFence, FENCE_COUNTERS, type FencePart, type UntranslatedFence } from './fence.ts';
import { type AddressPair, dispatchElements, dispatchJumps, dispatchMaps, dispatchRules } from './fence-dispatch.ts';
import { deletedMarkRules, hasSets, TUNNEL_CHAINS, TUNNEL_SETS, tunnelRules } from './fence-tunnel.ts';
import { add, counterName, quoted, TABLE, TABLE_LINE, word } from './nft-words.ts';

const HOOKS = ['input', 'forward', 'output'] as const;
/** Before the chains of libvirt and firewalls that translate. It stands only where it is needed: it has the kernel track flows. */
const TRANSLATION = 'postrouting';
type Hook = (typeof HOOKS)[number];

/** Chains and sets of each kind of part, behind its id. */
const CHAINS = {
  tunnel: TUNNEL_CHAINS,
  bridge: ['input', 'forward', 'output'],
  untranslated: [TRANSLATION],
} as const satisfies Readonly<Record<FencePart['kind'], readonly string[]>>;
const SETS = { tunnel: TUNNEL_SETS, bridge: [], untranslated: [] } as const;

/** A part's id: begins with the first letter of its kind, the rest is letters and digits. */
export interface NamedPart {
  readonly id: string;
  readonly part: FencePart;
}

export function kindOf(id: string): FencePart['kind'] {
  return id.startsWith('t') ? 'tunnel' : id.startsWith('b') ? 'bridge' : 'untranslated';
}

/** A part that is in no map, and the addresses that it is for; all where they are not known. */
export interface Unmapped {
  readonly id: string;
  readonly pairs: readonly AddressPair[] | undefined;
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
  readonly mapped: readonly { readonly id: string; readonly pairs: readonly AddressPair[] }[];
  readonly unmapped: readonly { readonly id: string; readonly pairs: readonly AddressPair[] }[];
}

/** The batch that carries out a change. */
export function fenceBatch({ added, removed, present, unmappable, mapped, unmapped }: FenceChange): string {
  if (present.length === 0) return `add table ${TABLE}\ndelete table ${TABLE}\n`;
  const lines = [
    ...(unmappable === undefined ? [] : foundation()),
    ...unmapped.flatMap(({ id, pairs }) => dispatchElements('delete', id, pairs)),
    ...[...added.map(({ id }) => id), ...removed].flatMap(emptied),
    ...[...added.map(({ id }) => id), ...removed].flatMap((id) =>
      kindOf(id) === 'tunnel' ? deletedMarkRules(id) : [],
    ),
    ...(unmappable === undefined ? [] : HOOKS.flatMap((hook) => baseRules(hook, unmappable))),
    ...translation([...present, ...removed], present),
    ...added.flatMap(({ id, part }) => (part.kind === 'tunnel' && !hasSets(part) ? deletedSets(id) : [])),
    ...added.flatMap(partRules),
    ...mapped.flatMap(({ id, pairs }) => dispatchElements('add', id, pairs)),
    ...removed.flatMap(deleted),
  ];
  return `${lines.join('\n')}\n`;
}

/** What all stands on, empty. Where it should be there, it is not made: the kernel tells then when it is not. */
function foundation(): string[] {
  return [
    TABLE_LINE,
    ...HOOKS.flatMap((hook) => [
      `add chain ${TABLE} ${hook} { type filter hook ${hook} priority -10; policy accept; }`,
      `flush chain ${TABLE} ${hook}`,
    ]),
    ...dispatchMaps('add'),
    ...dispatchMaps('flush'),
  ];
}

function baseRules(hook: Hook, unmappable: readonly Unmapped[]): string[] {
  const rules = [
    ...unmappable.filter(({ id }) => kindOf(id) === 'bridge').map(({ id }) => `jump ${id}_${hook}`),
    ...prelude(hook),
    ...dispatchRules(hook),
    ...unmappable.filter(({ id }) => kindOf(id) === 'tunnel').flatMap((part) => dispatchJumps(hook, part)),
  ];
  return rules.map((rule) => add(hook, rule));
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
    ...SETS[kind].flatMap((set) => [
      `add set ${TABLE} ${id}_${set} { type ${set === 'remote4' ? 'ipv4_addr' : 'ipv6_addr'}; flags interval; }`,
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

function deletedSets(id: string): string[] {
  return SETS[kindOf(id)].map((set) => `delete set ${TABLE} ${id}_${set}`);
}

function prelude(hook: Hook): string[] {
  if (hook === 'forward') return [];
  return [`${hook === 'input' ? 'iifname' : 'oifname'} "lo" accept`];
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
  const host = 'fib daddr . iif type { local, broadcast, multicast, anycast }';
  return [
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
    add(`${id}_input`, `iifname != ${name} return`),
    ...(dns ? [] : [add(`${id}_input`, `meta l4proto { 6, 17 } th dport { 53, 853 } ${count('host')} drop`)]),
    add(`${id}_input`, `${host} accept`),
    // The host's addresses of other links are no way around the tunnel.
    ...(closed ? [add(`${id}_input`, `${count('host')} drop`)] : []),
    add(`${id}_output`, `oifname ${name} accept`),
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
