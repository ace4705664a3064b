/**
 * The part of the fence around one tunnel, as rules for nft(8). Most packets of a host have nothing to do with it, and are
 * let go by their addresses before anything else is looked at:
 *
 * ```text
 *   output   to the other side          hostout   the tunnel's own, link scope: return   out
 *   forward  to the other side                                                           out
 *            from the other side                                                         in
 *   input    from the other side        hostin    the tunnel's own, link scope: return   in
 * ```
 *
 * `out` and `in` are the policy's entries in their order. No sets without a name: nft reads all sets there are at each
 * change, which would be slow with many tunnels.
 */
import { type AddressRange, formatAddress, formatRange, type IpFamily } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import { isWhole, mergeRanges } from '../base/ranges.ts';
import { type FenceEntry, LEAD_MARK, type OwnPackets, PASS_MARK, type PacketBox, type TunnelFence } from './fence.ts';
import { add, counterName, quoted, TABLE, word } from './nft-words.ts';
import type { PortRange } from './routes.ts';

/** Chains and sets, behind the part's id. */
export const TUNNEL_CHAINS = ['input', 'forward', 'output', 'hostin', 'hostout', 'in', 'out'] as const;
export const TUNNEL_SETS = ['remote4', 'remote6'] as const;

/** More rules than these are too many to look at for a packet: then the addresses of the other side decide alone. */
export const MAX_FENCE_RULES = 256;
/** With more rules than these a packet is better looked up in a set first; nft reads all sets at each change. */
const FEW_RULES = 8;

const ESP = 50;
const UDP = 17;
const FAMILIES: readonly IpFamily[] = [4, 6];

export function tunnelRules(id: string, { device, own, outbound, inbound, marked }: TunnelFence): string[] {
  const name = quoted(device);
  const remote = hasSets({ outbound, inbound }) ? remoteRanges([...outbound, ...inbound]) : undefined;
  const to = (chain: string, field: 'saddr' | 'daddr', verdict: string): string[] =>
    remote?.map(({ family, ranges }) =>
      add(`${id}_${chain}`, `${remoteMatch(id, family, ranges, field)} ${verdict}`),
    ) ?? [add(`${id}_${chain}`, verdict)];
  return [
    ...(remote ?? []).flatMap(({ family, ranges }) => remoteSet(id, family, ranges)),
    add(`${id}_output`, `oifname ${name} return`),
    ...to('output', 'daddr', `goto ${id}_hostout`),
    ...[...ownPasses(own, 'd'), ...linkScope()].map((rule) => add(`${id}_hostout`, rule)),
    add(`${id}_hostout`, `goto ${id}_out`),
    // What came out of the tunnel is delivered; what goes into it comes from the other side in the clear.
    add(`${id}_forward`, `oifname ${name} return`),
    add(`${id}_forward`, `iifname ${name} return`),
    ...to('forward', 'daddr', `jump ${id}_out`),
    ...to('forward', 'saddr', `jump ${id}_in`),
    add(`${id}_input`, `iifname ${name} return`),
    ...to('input', 'saddr', `goto ${id}_hostin`),
    // IPv6 is put together behind this hook; without its first fragment, which is looked at, a packet never is.
    add(`${id}_hostin`, 'exthdr frag exists frag frag-off != 0 return'),
    ...[...ownPasses(own, 's'), ...ownErrors(own), ...linkScope()].map((rule) => add(`${id}_hostin`, rule)),
    add(`${id}_hostin`, `goto ${id}_in`),
    ...entryRules(id, 'out', outbound),
    ...entryRules(id, 'in', inbound),
    ...(marked.length === 0 ? [] : markRules(id, name, marked)),
  ];
}

/** Chains of their own in the hooks before routing: few tunnels need them. Those of the host's own packets route anew. */
const MARK_CHAINS = {
  markhost: 'type route hook output priority -150; policy accept;',
  markforward: 'type filter hook prerouting priority -150; policy accept;',
} as const;

/** Takes away what a part had of them. */
export function deletedMarkRules(id: string): string[] {
  return Object.entries(MARK_CHAINS).flatMap(([chain, what]) => [
    `add chain ${TABLE} ${id}_${chain} { ${what} }`,
    `flush chain ${TABLE} ${id}_${chain}`,
    `delete chain ${TABLE} ${id}_${chain}`,
  ]);
}

function markRules(id: string, device: string, entries: readonly FenceEntry[]): string[] {
  const passing = entries.some(marksPass);
  const rules = entries.flatMap((entry) => markRule(entry));
  const chain = (name: keyof typeof MARK_CHAINS, own: readonly string[]): string[] => [
    `add chain ${TABLE} ${id}_${name} { ${MARK_CHAINS[name]} }`,
    ...[...own, ...rules].map((rule) => add(`${id}_${name}`, rule)),
  ];
  // Where fragments alone are marked, all else is let go first; the host's own are made behind the rules.
  const whole = ['ip frag-off & 0x3fff == 0 return', 'meta nfproto ipv6 exthdr frag missing return'];
  return [
    ...(passing ? chain('markhost', []) : []),
    ...chain('markforward', [`iifname ${device} return`, ...(passing ? [] : whole)]),
  ];
}

function marksPass({ action, icmp }: FenceEntry): boolean {
  return action === 'pass' && icmp !== undefined;
}

function markRule(entry: FenceEntry): string[] {
  const { action, localPorts, remotePorts, icmp } = entry;
  const set = (mark: number): string => `meta mark set meta mark or ${mark} return`;
  if (marksPass(entry)) return [[...packetMatch('out', entry), set(PASS_MARK)].join(' ')];
  if ((localPorts ?? remotePorts ?? icmp) === undefined) return [[...packetMatch('out', entry), 'return'].join(' ')];
  if (action !== 'guard' || icmp !== undefined) return [];
  // Rules see no ports in the first fragment either.
  return [packetMatch('out', entry), fragmentMatch('out', entry)].map((match) => [...match, set(LEAD_MARK)].join(' '));
}

/** Whether the part has sets of the addresses of the other side. */
export function hasSets({ outbound, inbound }: Pick<TunnelFence, 'outbound' | 'inbound'>): boolean {
  return Math.max(outbound.length, inbound.length) > FEW_RULES;
}

interface RemoteRanges {
  readonly family: IpFamily;
  readonly ranges: readonly AddressRange[];
}

/** The other side of all that is not let pass. */
function remoteRanges(entries: readonly FenceEntry[]): RemoteRanges[] {
  const closed = entries.filter(({ action }) => action !== 'pass').map(({ remote }) => remote);
  return FAMILIES.map((family) => ({
    family,
    ranges: mergeRanges(closed.filter(({ start }) => start.family === family)),
  })).filter(({ ranges }) => ranges.length > 0);
}

function isAll([first]: readonly AddressRange[]): boolean {
  return first !== undefined && isWhole(first);
}

function remoteSet(id: string, family: IpFamily, ranges: readonly AddressRange[]): string[] {
  if (isAll(ranges)) return [];
  return [`add element ${TABLE} ${id}_remote${family} { ${ranges.map(formatRange).join(', ')} }`];
}

function remoteMatch(id: string, family: IpFamily, ranges: readonly AddressRange[], field: 'saddr' | 'daddr'): string {
  return isAll(ranges) ? `meta nfproto ipv${family}` : `${word(family)} ${field} @${id}_remote${family}`;
}

/** What never leaves a link is no matter of a tunnel, and without it there is no link. */
function linkScope(): string[] {
  return [
    'icmpv6 type 133-137 ip6 hoplimit 255 return',
    'ip6 daddr fe80::/10 return',
    'ip6 daddr ff01::-ff02:ffff:ffff:ffff:ffff:ffff:ffff:ffff return',
    'ip daddr 224.0.0.0/24 return',
    'ip daddr 255.255.255.255 return',
  ];
}

/** @param peerAt `d`: the peer is the destination */
function ownPasses({ peer, ports }: OwnPackets, peerAt: 's' | 'd'): string[] {
  const address = peer === undefined ? '' : `${word(peer.family)} ${peerAt}addr ${formatAddress(peer)} `;
  const port = peerAt === 'd' ? 'sport' : 'dport';
  return [`${address}meta l4proto ${ESP} return`, ...ports.map((own) => `${address}udp ${port} ${own} return`)];
}

/**
 * ICMP errors on the tunnel's own packets come in the clear from any router: without them no path MTU is learnt. They
 * quote the IP header behind eight bytes, and behind that the UDP ports.
 */
function ownErrors({ ports }: OwnPackets): string[] {
  const v4 = ['icmp type 3', 'icmp type 11-12'];
  const v6 = 'icmpv6 type 1-4';
  return [
    ...v4.map((type) => `${type} @th,136,8 ${ESP} return`),
    `${v6} @th,112,8 ${ESP} return`,
    ...ports.flatMap((port) => [
      ...v4.map((type) => `${type} @th,136,8 ${UDP} @th,224,16 ${port} return`),
      `${v6} @th,112,8 ${UDP} @th,384,16 ${port} return`,
    ]),
  ];
}

type Way = 'in' | 'out';

/** Where they are too many, all that came so far is dropped: its addresses are those of the other side. */
function entryRules(id: string, way: Way, entries: readonly FenceEntry[]): string[] {
  const rules = entries.flatMap((entry) => entryRule(id, way, entry));
  const all = rules.length <= MAX_FENCE_RULES ? rules : [verdictOf(id, way, 'guard')];
  return all.map((rule) => add(`${id}_${way}`, rule));
}

/** For an entry with ports there is one more: a later fragment has none, and what cannot be told is not let through. */
function entryRule(id: string, way: Way, { action, ...box }: FenceEntry): string[] {
  const verdict = verdictOf(id, way, action);
  const rule = [...packetMatch(way, box), verdict].join(' ');
  const { localPorts, remotePorts, icmp } = box;
  if (action === 'pass' || (localPorts ?? remotePorts ?? icmp) === undefined) return [rule];
  return [rule, [...fragmentMatch(way, box), verdict].join(' ')];
}

/** Later fragments that may be of these packets. In IPv6 their protocol may be another one than that of the packet. */
function fragmentMatch(way: Way, box: PacketBox): string[] {
  const v4 = box.local.start.family === 4;
  const fragment = v4 ? ['ip frag-off & 0x1fff != 0'] : ['exthdr frag exists', 'frag frag-off != 0'];
  const { local, remote, protocol } = box;
  return [...packetMatch(way, { local, remote, protocol: v4 ? protocol : undefined }), ...fragment];
}

function packetMatch(way: Way, { local, remote, protocol, localPorts, remotePorts, icmp }: PacketBox): string[] {
  const { family } = local.start;
  const [source, destination] = way === 'out' ? [local, remote] : [remote, local];
  const [sourcePorts, destinationPorts] = way === 'out' ? [localPorts, remotePorts] : [remotePorts, localPorts];
  return [
    ...addressMatch(family, 'saddr', source),
    ...addressMatch(family, 'daddr', destination),
    ...(isWhole(source) && isWhole(destination) ? [`meta nfproto ipv${family}`] : []),
    ...(protocol === undefined ? [] : [`meta l4proto ${protocol}`]),
    ...portMatch('sport', sourcePorts),
    ...portMatch('dport', destinationPorts),
    ...icmpMatch(icmp),
  ];
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
  return isWhole(range) ? [] : [`${word(family)} ${field} ${formatRange(range)}`];
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
