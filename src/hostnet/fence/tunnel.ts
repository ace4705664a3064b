/**
 * The part of the fence around one tunnel, as rules for nft(8). Most packets of a host do not concern the tunnel, and their
 * addresses alone let them pass:
 *
 * ```text
 *   leave    what goes to the other side       link scope: return   own of the host: hostout   all else: out
 *   arrive   what comes from the other side    link scope: return   to the host:     hostin    all else: in
 *   hostout, hostin   readable: the tunnel's own packets: return   then out, in
 *   out, in           readable: outread, inread                    opaque: the entries as opaque packets meet them
 *   outread, inread   the policy's entries in their order
 *   hostany  the host's own, whatever their source, by no tunnel: as hostout, then any, anyread with entries for any source
 * ```
 *
 * `readable.ts` says which packets are readable and which opaque. `leave` is asked by a host's own packets when they
 * leave, by others when they are forwarded, and by all once more when their source has been translated; `arrive` by
 * fragments before they are put together, and by all packets when they are delivered or forwarded. No sets without a name:
 * they would be as many as the tunnels, and the kernel looks a set up by its name among all.
 */
import { type AddressRange, formatAddress, formatRange, type IpFamily } from '../../base/address.ts';
import { assertNever } from '../../base/assert.ts';
import { isWhole, mergeRanges } from '../../base/ranges.ts';
import { type AddressPair, dispatchPairs, mirroredPairs } from './dispatch.ts';
import { DEVICE_MARK, type FenceEntry, type OwnPackets, ofAnyTunnel, PASS_MARK, type TunnelFence } from './fence.ts';
import { type Course, headerMatch, icmpMatch, packetMatch } from './match.ts';
import { add, counterName, quoted, TABLE, word } from './nft-words.ts';
import {
  asksTransport,
  FRAGMENTS,
  laterFragment,
  opaqueEntries,
  plainMatch,
  readableMatches,
  WHOLE,
} from './readable.ts';

/** Chains and sets, behind the part's id. */
export const TUNNEL_CHAINS = [
  'leave',
  'hostout',
  'hostoutread',
  'out',
  'outread',
  'arrive',
  'hostin',
  'hostinread',
  'in',
  'inread',
  'hostany',
  'hostanyread',
  'any',
  'anyread',
] as const;
export const TUNNEL_SETS: Readonly<Record<SetName, string>> = {
  remote4: 'type ipv4_addr; flags interval;',
  remote6: 'type ipv6_addr; flags interval;',
  beside: 'type ifname;',
};
type SetName = 'remote4' | 'remote6' | 'beside';

/** More rules than these are too many to look at for a packet: then the addresses of the other side decide alone. */
export const MAX_FENCE_RULES = 256;
/** With more rules than these a packet is better looked up in a set first. */
const FEW_RULES = 8;

const ESP = 50;
const UDP = 17;
const FAMILIES: readonly IpFamily[] = [4, 6];

export function tunnelRules(id: string, part: TunnelFence): string[] {
  const { vrf, beside, own, outbound, inbound, marked } = part;
  const closed = [...outbound, ...inbound].filter(({ action }) => action !== 'pass');
  const families = FAMILIES.filter((family) => closed.some(({ remote }) => remote.start.family === family));
  const remote = hasRemoteSets({ outbound, inbound }) ? remoteRanges(closed) : undefined;
  const toRemote = (field: 'saddr' | 'daddr'): string[] =>
    remote?.map(({ family, ranges }) => remoteMatch(id, family, ranges, field)) ?? [''];
  return [
    ...(remote ?? []).flatMap(({ family, ranges }) => remoteSet(id, family, ranges)),
    ...besideSet(id, beside),
    ...(vrf === undefined ? [] : outsideOf(id, vrf)),
    // What came out of the tunnel is delivered; what goes into it comes from the other side in the clear.
    ...[...throughDevices(id, part), ...linkScope(families)].flatMap((rule) => [
      add(`${id}_leave`, rule),
      add(`${id}_arrive`, rule),
    ]),
    // Without a link that it came by a packet is the host's own; without one that it leaves by it is for the host.
    ...toRemote('daddr').flatMap((match) => [
      add(`${id}_leave`, `iif 0 ${match} goto ${id}_hostout`),
      add(`${id}_leave`, `${match} goto ${id}_out`),
    ]),
    ...toRemote('saddr').flatMap((match) => [
      add(`${id}_arrive`, `oif 0 ${match} goto ${id}_hostin`),
      add(`${id}_arrive`, `${match} goto ${id}_in`),
    ]),
    ...hostRules(id, 'out', families, own),
    ...(vrf === undefined ? mirroredFragments(id, dispatchPairs({ outbound, inbound })) : []),
    ...hostRules(id, 'in', families, own),
    ...entryRules(id, 'out', outbound),
    ...entryRules(id, 'in', inbound),
    ...anySourceRules(id, part),
    ...(marked.length === 0 ? [] : markRules(id, part)),
  ];
}

/**
 * Where packets fit both ways a fragment that is forwarded may be one that goes into the tunnel, which is not known before
 * it is routed: it is looked at when it is forwarded.
 */
function mirroredFragments(id: string, pairs: readonly AddressPair[] | undefined): string[] {
  const mirrored = pairs && mirroredPairs(pairs);
  const matches =
    mirrored === undefined || mirrored.length > FEW_RULES ? [[]] : mirrored.map((pair) => packetMatch('out', pair));
  // Where IPv6 has no direction by the main table rules may know one.
  return matches.flatMap((match) =>
    ['unicast', 'unreachable'].map((type) =>
      add(`${id}_hostin`, [...match, `fib daddr type ${type} return`].join(' ')),
    ),
  );
}

/** Chains of their own in the hooks before routing: few tunnels need them. Those of the host's own packets route anew. */
const MARK_CHAINS = {
  markhost: 'type route hook output priority -150; policy accept;',
  markforward: 'type filter hook prerouting priority -150; policy accept;',
} as const;

/** Removes the mark chains of a part, whether they exist or not. */
export function deletedMarkRules(id: string): string[] {
  return Object.entries(MARK_CHAINS).flatMap(([chain, what]) => [
    `add chain ${TABLE} ${id}_${chain} { ${what} }`,
    `flush chain ${TABLE} ${id}_${chain}`,
    `delete chain ${TABLE} ${id}_${chain}`,
  ]);
}

function markRules(id: string, { vrf, device, marked: entries }: TunnelFence): string[] {
  const passing = entries.some(marksPass);
  const rules = entries.flatMap((entry) => markRule(entry));
  const chain = (name: keyof typeof MARK_CHAINS, own: readonly string[]): string[] => [
    `add chain ${TABLE} ${id}_${name} { ${MARK_CHAINS[name]} }`,
    ...[...own, ...rules].map((rule) => add(`${id}_${name}`, rule)),
  ];
  // Where fragments alone are marked, all else passes first; the host's own are made behind the rules.
  const whole = WHOLE.map((match) => `${match} return`);
  const [ownOutside, outside] =
    vrf === undefined
      ? ['meta oifkind "vrf" return', 'meta iifkind "vrf" return']
      : [`oifname != ${quoted(vrf)} return`, `iifname != ${quoted(vrf)} return`];
  return [
    ...(passing ? chain('markhost', [ownOutside]) : []),
    ...chain('markforward', [outside, `iifname ${quoted(device)} return`, ...(passing ? [] : whole)]),
  ];
}

function marksPass({ action, icmp }: FenceEntry): boolean {
  return action === 'pass' && icmp !== undefined;
}

/**
 * The protocol field of the IP header decides what passes, and a type that can be read: an opaque packet is not marked to pass, nor kept out of the device by an entry that lets pass.
 */
function markRule(entry: FenceEntry): string[] {
  const { action, local, remote, protocol, localPorts, remotePorts, icmp } = entry;
  const set = (mark: number): string => `meta mark set meta mark or ${mark} return`;
  const shown = [...packetMatch('out', { local, remote }), ...headerMatch(local.start.family, protocol)];
  if (marksPass(entry)) {
    return [[...shown, plainMatch(local.start.family), ...icmpMatch(icmp), set(PASS_MARK)].join(' ')];
  }
  if ((localPorts ?? remotePorts ?? icmp) === undefined) return [[...shown, 'return'].join(' ')];
  if (action !== 'guard' || icmp !== undefined) return [];
  // Rules see no ports in the first fragment either.
  const opaque = opaqueEntries([entry]).map((box) => [...packetMatch('out', box), laterFragment(local.start.family)]);
  return [packetMatch('out', entry), ...opaque].map((match) => [...match, set(DEVICE_MARK)].join(' '));
}

/** The sets that a part needs. */
export function setsOf(part: Pick<TunnelFence, 'outbound' | 'inbound' | 'beside'>): SetName[] {
  return [
    ...(hasRemoteSets(part) ? (['remote4', 'remote6'] as const) : []),
    ...(part.beside.length > FEW_RULES ? (['beside'] as const) : []),
  ];
}

function hasRemoteSets({ outbound, inbound }: Pick<TunnelFence, 'outbound' | 'inbound'>): boolean {
  return Math.max(outbound.length, inbound.length) > FEW_RULES;
}

/** What goes by the device of the tunnel, or by one beside it. */
function throughDevices(id: string, { vrf, device, beside }: TunnelFence): string[] {
  const few = beside.length <= FEW_RULES;
  const names = [quoted(device), ...(few ? beside.map(quoted) : [`@${id}_beside`])];
  const cameBy = vrf === undefined ? 'iifname' : 'meta sdifname';
  return names.flatMap((name) => [`oifname ${name} return`, `${cameBy} ${name} return`]);
}

/** First in each chain that packets of other VRFs may come to; and what this host sends itself is not clear text. */
function outsideOf(id: string, vrf: string): string[] {
  const name = quoted(vrf);
  return [
    ...['leave', 'arrive', 'hostout', 'hostany'].map((chain) => add(`${id}_${chain}`, `iifname != ${name} return`)),
    add(`${id}_arrive`, `meta sdifname ${name} return`),
  ];
}

function besideSet(id: string, beside: readonly string[]): string[] {
  if (beside.length <= FEW_RULES) return [];
  return [`add element ${TABLE} ${id}_beside { ${beside.map(quoted).join(', ')} }`];
}

interface RemoteRanges {
  readonly family: IpFamily;
  readonly ranges: readonly AddressRange[];
}

/** The other side of entries. */
function remoteRanges(entries: readonly FenceEntry[]): RemoteRanges[] {
  const closed = entries.map(({ remote }) => remote);
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

/** Packets that never leave a link, which the link needs: no tunnel carries them. */
export function linkScope(families: readonly IpFamily[]): string[] {
  const rules = {
    4: ['ip daddr 224.0.0.0/24 return', 'ip daddr 255.255.255.255 return'],
    6: [
      `${plainMatch(6)} ip6 nexthdr 58 ip6 hoplimit 255 icmpv6 type 133-137 return`,
      'ip6 daddr fe80::/10 return',
      'ip6 daddr ff01::-ff02:ffff:ffff:ffff:ffff:ffff:ffff:ffff return',
    ],
  } as const satisfies Readonly<Record<IpFamily, readonly string[]>>;
  return families.flatMap((family) => rules[family]);
}

/**
 * IKE and ESP of another tunnel are not clear text either. The entries name their destinations although the map does too: while
 * another daemon takes over, the chain is shown packets for elsewhere.
 */
function anySourceRules(id: string, { device, own, anySource }: TunnelFence): string[] {
  const families = FAMILIES.filter((family) => anySource.some(({ remote }) => remote.start.family === family));
  if (families.length === 0) return [];
  return [
    ...[`oifname ${quoted(device)} return`, ...linkScope(families)].map((rule) => add(`${id}_hostany`, rule)),
    ...hostRules(id, 'any', families, own),
    ...entryRules(id, 'any', anySource),
  ];
}

/** The host's own packets, or those for it: the tunnel's own pass where they are readable. */
function hostRules(id: string, direction: Course, families: readonly IpFamily[], own: OwnPackets): string[] {
  const chain = `${id}_host${direction}`;
  const passes = {
    out: ownPasses(own, 'd'),
    in: [...ownPasses(own, 's'), ...ownErrors(own, families)],
    any: [...ownPasses(own, 'd'), ...ownPasses(ofAnyTunnel(own), 'd')],
  }[direction];
  const rules = [
    // Before they are put together fragments may be for another host: then none is the tunnel's own.
    ...(direction === 'in' ? FRAGMENTS.map((match) => `${match} fib daddr type != local goto ${id}_in`) : []),
    ...families.flatMap(readableMatches).map((match) => `${match} goto ${chain}read`),
    ...(direction === 'in' ? families.flatMap((family) => ownFragments(own, family)) : []),
    `goto ${id}_${direction}`,
  ];
  return [
    ...rules.map((rule) => add(chain, rule)),
    ...passes.map((rule) => add(`${chain}read`, rule)),
    add(`${chain}read`, `goto ${id}_${direction}`),
  ];
}

/** @param peerAt `d`: the peer is the destination */
function ownPasses({ peer, ports, peerPorts }: OwnPackets, peerAt: 's' | 'd'): string[] {
  const address = peer === undefined ? '' : `${word(peer.family)} ${peerAt}addr ${formatAddress(peer)} `;
  const port = peerAt === 'd' ? 'sport' : 'dport';
  // A peer that is not known is answered, and answers keep their ports when they are translated.
  const asked = peerAt === 'd' && peer !== undefined ? peerPorts : [];
  return [
    `${address}meta l4proto ${ESP} return`,
    ...ports.map((own) => `${address}udp ${port} ${own} return`),
    ...asked.map((there) => `${address}udp dport ${there} return`),
  ];
}

/**
 * Later fragments of the tunnel's own packets. They are useless without the first one, which the
 * fence reads: this host's kernel reassembles them, and accepts none that overlap (RFC 5722). In IPv6 only the first one
 * shows the protocol.
 */
function ownFragments({ peer }: OwnPackets, family: IpFamily): string[] {
  if (peer !== undefined && peer.family !== family) return [];
  const address = peer === undefined ? '' : `${word(family)} saddr ${formatAddress(peer)} `;
  const protocols = family === 4 ? [ESP, UDP].map((protocol) => `ip protocol ${protocol} `) : [''];
  return protocols.map((protocol) => `${address}${protocol}${laterFragment(family)} return`);
}

/**
 * ICMP errors on the tunnel's own packets come in the clear from any router: without them no path MTU is learnt. They
 * quote the IP header behind eight bytes, and behind that the UDP ports; in IPv4 where that header has no options.
 */
function ownErrors({ ports }: OwnPackets, families: readonly IpFamily[]): string[] {
  const rules = {
    4: ['icmp type 3', 'icmp type 11-12'].flatMap((type) => [
      `${type} @th,136,8 ${ESP} return`,
      ...ports.map((port) => `${type} @th,64,8 0x45 @th,136,8 ${UDP} @th,224,16 ${port} return`),
    ]),
    6: [
      `icmpv6 type 1-4 @th,112,8 ${ESP} return`,
      ...ports.map((port) => `icmpv6 type 1-4 @th,112,8 ${UDP} @th,384,16 ${port} return`),
    ],
  } as const satisfies Readonly<Record<IpFamily, readonly string[]>>;
  return families.flatMap((family) => rules[family]);
}

/** Where they are too many, all that came so far is dropped: its addresses are those of the other side. */
function entryRules(id: string, direction: Course, entries: readonly FenceEntry[]): string[] {
  const asking = FAMILIES.filter((family) =>
    entries.some((entry) => entry.local.start.family === family && asksTransport(entry)),
  );
  const exact = entries.filter(({ local }) => asking.includes(local.start.family));
  // BOUNDED: by the entries. Many of them are the same to an opaque packet.
  const opaque = new Set(opaqueEntries(entries).map((entry) => opaqueRule(id, direction, entry)));
  if (exact.length + opaque.size > MAX_FENCE_RULES)
    return [add(`${id}_${direction}`, verdictOf(id, direction, 'guard'))];
  return [
    ...asking
      .flatMap(readableMatches)
      .map((match) => add(`${id}_${direction}`, `${match} goto ${id}_${direction}read`)),
    ...[...opaque].map((rule) => add(`${id}_${direction}`, rule)),
    ...exact.map((entry) => {
      return add(
        `${id}_${direction}read`,
        [...packetMatch(direction, entry), verdictOf(id, direction, entry.action)].join(' '),
      );
    }),
  ];
}

function opaqueRule(id: string, direction: Course, { action, local, remote, protocol }: FenceEntry): string {
  const match = [...packetMatch(direction, { local, remote }), ...headerMatch(local.start.family, protocol)];
  return [...match, verdictOf(id, direction, action)].join(' ');
}

function verdictOf(id: string, direction: Course, action: FenceEntry['action']): string {
  switch (action) {
    case 'pass':
      return 'return';
    case 'guard':
      return `counter name ${counterName(id, direction === 'in' ? 'clear-in' : 'clear-out')} drop`;
    case 'discard':
      return `counter name ${counterName(id, 'discarded')} drop`;
    default:
      return assertNever(action, 'verdictOf');
  }
}
