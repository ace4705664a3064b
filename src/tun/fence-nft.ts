/**
 * The fence as text for nft(8). Pure. One table, three base chains (input, forward, output at priority -10, before those
 * of firewalls and of libvirt), and for each part chains of its own that these jump to:
 *
 * ```text
 *   output   each bridge   lo, neighbour discovery, link scope: pass   each tunnel
 *   forward  each bridge                                               each tunnel
 *   input    each bridge   lo, neighbour discovery, link scope: pass   each tunnel
 * ```
 *
 * A part of which a packet is no business returns; so no part lets through what another one drops.
 */
import { type AddressRange, formatAddress, formatRange, type IpFamily } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import { isWhole, mergeRanges } from '../base/ranges.ts';
import {
  type BridgeFence,
  FENCE_COUNTERS,
  type FenceEntry,
  type FencePart,
  type OwnPackets,
  type TunnelFence,
  type UntranslatedFence,
} from './fence.ts';
import type { PortRange } from './routes.ts';

export const FENCE_TABLE = 'sectunnel';
const TABLE = `inet ${FENCE_TABLE}`;
const HOOKS = ['input', 'forward', 'output'] as const;
/** Before the chains of libvirt and firewalls that translate. It stands only where it is needed: it has the kernel track flows. */
const TRANSLATION = 'postrouting';
type Hook = (typeof HOOKS)[number];

/** Chains and sets of each kind of part, behind its id. */
const CHAINS = {
  tunnel: ['input', 'forward', 'output', 'in', 'out'],
  bridge: ['input', 'forward', 'output'],
  untranslated: [TRANSLATION],
} as const satisfies Readonly<Record<FencePart['kind'], readonly string[]>>;
const SETS = { tunnel: ['remote4', 'remote6'], bridge: [], untranslated: [] } as const;

/** More rules than these are too many to look at for every packet: then the addresses of the other side decide alone. */
export const MAX_FENCE_RULES = 256;

const ESP = 50;
const UDP = 17;

/** A part's id: begins with the first letter of its kind, the rest is letters and digits. */
export interface NamedPart {
  readonly id: string;
  readonly part: FencePart;
}

export function kindOf(id: string): FencePart['kind'] {
  return id.startsWith('t') ? 'tunnel' : id.startsWith('b') ? 'bridge' : 'untranslated';
}

/**
 * The batch that puts `added` in place or takes `removed` away.
 *
 * @param present ids of all parts that are there afterwards
 */
export function fenceBatch(
  present: readonly string[],
  added: readonly NamedPart[],
  removed: readonly string[] = [],
): string {
  if (present.length === 0) return `add table ${TABLE}\ndelete table ${TABLE}\n`;
  const translated = present.filter((id) => kindOf(id) === 'untranslated');
  const lines = [
    `add table ${TABLE} { comment "kept by sectunnel"; }`,
    ...HOOKS.flatMap((hook) => [
      `add chain ${TABLE} ${hook} { type filter hook ${hook} priority -10; policy accept; }`,
      `flush chain ${TABLE} ${hook}`,
    ]),
    ...[...added.map(({ id }) => id), ...removed].flatMap(emptied),
    ...HOOKS.flatMap((hook) =>
      [...jumps(hook, 'bridge', present), ...prelude(hook), ...jumps(hook, 'tunnel', present)].map((rule) =>
        add(hook, rule),
      ),
    ),
    `add chain ${TABLE} ${TRANSLATION} { type nat hook postrouting priority 90; policy accept; }`,
    `flush chain ${TABLE} ${TRANSLATION}`,
    ...translated.map((id) => add(TRANSLATION, `jump ${id}_${TRANSLATION}`)),
    ...(translated.length === 0 ? [`delete chain ${TABLE} ${TRANSLATION}`] : []),
    ...added.flatMap(partRules),
    ...removed.flatMap(deleted),
  ];
  return `${lines.join('\n')}\n`;
}

function add(chain: string, rule: string): string {
  return `add rule ${TABLE} ${chain} ${rule}`;
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
    ...SETS[kind].map((set) => `delete set ${TABLE} ${id}_${set}`),
    ...FENCE_COUNTERS[kind].map((name) => `delete counter ${TABLE} ${counterName(id, name)}`),
  ];
}

export function counterName(id: string, name: string): string {
  return `${id}_${name}`;
}

/** What never leaves a link is no matter of a tunnel, and without it there is no link. */
function prelude(hook: Hook): string[] {
  if (hook === 'forward') return [];
  return [
    `${hook === 'input' ? 'iifname' : 'oifname'} "lo" accept`,
    'icmpv6 type { 133, 134, 135, 136, 137 } ip6 hoplimit 255 accept',
    'ip6 daddr { fe80::/10, ff01::/16, ff02::/16 } accept',
    'ip daddr { 224.0.0.0/24, 255.255.255.255 } accept',
  ];
}

function jumps(hook: Hook, kind: FencePart['kind'], present: readonly string[]): string[] {
  return present.filter((id) => kindOf(id) === kind).map((id) => `jump ${id}_${hook}`);
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

function tunnelRules(id: string, { device, own, outbound, inbound }: TunnelFence): string[] {
  const name = quoted(device);
  return [
    add(`${id}_output`, `oifname ${name} return`),
    ...ownPasses(own, 'd').map((rule) => add(`${id}_output`, rule)),
    add(`${id}_output`, `jump ${id}_out`),
    // What came out of the tunnel is delivered; what goes into it comes from the other side in the clear.
    add(`${id}_forward`, `iifname ${name} return`),
    add(`${id}_forward`, `oifname ${name} return`),
    add(`${id}_forward`, `jump ${id}_out`),
    add(`${id}_forward`, `jump ${id}_in`),
    add(`${id}_input`, `iifname ${name} return`),
    // IPv6 is put together behind this hook; without its first fragment, which is looked at, a packet never is.
    add(`${id}_input`, 'exthdr frag exists frag frag-off != 0 return'),
    ...ownPasses(own, 's').map((rule) => add(`${id}_input`, rule)),
    ...ownErrors(own).map((rule) => add(`${id}_input`, rule)),
    add(`${id}_input`, `jump ${id}_in`),
    ...entryRules(id, 'out', outbound),
    ...entryRules(id, 'in', inbound),
  ];
}

/** @param peerAt `d`: the peer is the destination */
function ownPasses({ peer, ports }: OwnPackets, peerAt: 's' | 'd'): string[] {
  const address = peer === undefined ? '' : `${word(peer.family)} ${peerAt}addr ${formatAddress(peer)} `;
  const port = peerAt === 'd' ? 'sport' : 'dport';
  return [
    `${address}meta l4proto ${ESP} return`,
    ...(ports.length === 0 ? [] : [`${address}udp ${port} { ${ports.join(', ')} } return`]),
  ];
}

/**
 * ICMP errors on the tunnel's own packets come in the clear from any router: without them no path MTU is learnt. They
 * quote the IP header behind eight bytes, and behind that the UDP ports.
 */
function ownErrors({ ports }: OwnPackets): string[] {
  const v4 = 'icmp type { 3, 11, 12 }';
  const v6 = 'icmpv6 type { 1, 2, 3, 4 }';
  const source = (at: number): string => `@th,${at},16 { ${ports.join(', ')} }`;
  return [
    `${v4} @th,136,8 ${ESP} return`,
    `${v6} @th,112,8 ${ESP} return`,
    ...(ports.length === 0
      ? []
      : [`${v4} @th,136,8 ${UDP} ${source(224)} return`, `${v6} @th,112,8 ${UDP} ${source(384)} return`]),
  ];
}

type Way = 'in' | 'out';

function entryRules(id: string, way: Way, entries: readonly FenceEntry[]): string[] {
  const rules = entries.flatMap((entry) => entryRule(id, way, entry));
  if (rules.length <= MAX_FENCE_RULES) return rules.map((rule) => add(`${id}_${way}`, rule));
  return ([4, 6] as const).flatMap((family) => {
    const ranges = mergeRanges(
      entries.filter(({ action, remote }) => action !== 'pass' && remote.start.family === family).map((e) => e.remote),
    );
    if (ranges.length === 0) return [];
    const set = `${id}_remote${family}`;
    return [
      ...(way === 'out' ? [`add element ${TABLE} ${set} { ${ranges.map(rangeText).join(', ')} }`] : []),
      add(
        `${id}_${way}`,
        `${word(family)} ${way === 'out' ? 'daddr' : 'saddr'} @${set} counter name ${counterName(id, `clear-${way}`)} drop`,
      ),
    ];
  });
}

/** For an entry with ports there is one more: a later fragment has none, and what cannot be told is not let through. */
function entryRule(id: string, way: Way, entry: FenceEntry): string[] {
  const { local, remote, protocol, localPorts, remotePorts, icmp, action } = entry;
  const { family } = local.start;
  const [source, destination] = way === 'out' ? [local, remote] : [remote, local];
  const [sourcePorts, destinationPorts] = way === 'out' ? [localPorts, remotePorts] : [remotePorts, localPorts];
  const addresses = [
    ...addressMatch(family, 'saddr', source),
    ...addressMatch(family, 'daddr', destination),
    ...(isWhole(source) && isWhole(destination) ? [`meta nfproto ipv${family}`] : []),
  ];
  const protocolMatch = protocol === undefined ? [] : [`meta l4proto ${protocol}`];
  const upper = [...portMatch('sport', sourcePorts), ...portMatch('dport', destinationPorts), ...icmpMatch(icmp)];
  const verdict = verdictOf(id, way, action);
  const rule = [...addresses, ...protocolMatch, ...upper, verdict].join(' ');
  if (upper.length === 0 || action === 'pass') return [rule];
  // In IPv6 the protocol of a later fragment may be another one than that of the packet.
  const fragment =
    family === 4 ? [...protocolMatch, 'ip frag-off & 0x1fff != 0'] : ['exthdr frag exists', 'frag frag-off != 0'];
  return [rule, [...addresses, ...fragment, verdict].join(' ')];
}

function verdictOf(id: string, way: Way, action: FenceEntry['action']): string {
  switch (action) {
    case 'pass':
      return 'return';
    case 'guard':
      return `counter name ${counterName(id, `clear-${way}`)} drop`;
    case 'discard':
      return `counter name ${counterName(id, 'discarded')} drop`;
    default:
      return assertNever(action, 'verdictOf');
  }
}

function addressMatch(family: IpFamily, field: 'saddr' | 'daddr', range: AddressRange): string[] {
  return isWhole(range) ? [] : [`${word(family)} ${field} ${rangeText(range)}`];
}

/** nft writes them as people do: prefixes, or ranges. */
function rangeText(range: AddressRange): string {
  return formatRange(range);
}

function portMatch(field: 'sport' | 'dport', ports: PortRange | undefined): string[] {
  return ports === undefined ? [] : [`th ${field} ${span(ports)}`];
}

/** Type and code as the one number that they are on the wire. */
function icmpMatch(icmp: PortRange | undefined): string[] {
  return icmp === undefined ? [] : [`@th,0,16 ${span(icmp)}`];
}

function span({ start, end }: PortRange): string {
  return start === end ? String(start) : `${start}-${end}`;
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

function word(family: IpFamily): string {
  return family === 4 ? 'ip' : 'ip6';
}

/** @throws Error for names of links that nft would read as something else */
function quoted(link: string): string {
  if (!/^[^"\\*\s]{1,15}$/.test(link)) {
    throw new Error(`the link name '${link}' cannot stand in a fence: leave out quotes, backslashes, asterisks`);
  }
  return `"${link}"`;
}
