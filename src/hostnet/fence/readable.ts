/**
 * Which packets the fence can read, and what it decides of those that it cannot. The principle:
 *
 * - A packet is **readable** when its transport header stands where every receiver finds it: behind an IPv4 header without
 *   options, or behind an IPv6 header and at most one extension header that all hosts know and skip; the packet is no
 *   later fragment, and the first four bytes of that header (ports, or type and code) are there.
 * - Every other packet is **opaque**. It shows its addresses and the protocol field of its IP header, and nothing more. An
 *   entry that guards or discards is for it if nothing that it shows speaks against that; an entry that lets pass is for it
 *   only if all that the entry names can be seen.
 *
 * Readable is what the rules prove, opaque is the rest. So a header that is unknown, repeated, cut off, or read differently
 * by another host never makes a packet pass.
 *
 * RFC 791 §3.1 (options), RFC 8200 §4 (extension headers, fragments), RFC 7112 (the first fragment holds all headers),
 * RFC 5722 (no overlapping fragments), RFC 6946 (atomic fragments), RFC 4301 §4.4.1.1 and §7 (OPAQUE).
 */
import type { IpFamily } from '../../base/address.ts';
import type { PortRange } from '../routes/routes.ts';
import type { FenceEntry } from './fence.ts';
import { TABLE } from './nft-words.ts';

/** Options of a hop, a routing header, a fragment header, options of the destination: the chain goes on behind them. */
const FOLLOWED: readonly PortRange[] = [
  { start: 0, end: 0 },
  { start: 43, end: 44 },
  { start: 60, end: 60 },
];
/**
 * Other numbers of IPv6 behind which the chain goes on, or may: AH, Shim6, experiments, and what IANA has given to nothing
 * yet (RFC 7045 §4, IANA "IPv6 Extension Header Types"). A policy can name them. ESP hides what follows; behind the
 * headers of Mobile IPv6 and HIP nothing follows (RFC 6275 §9.2, RFC 7401 §5.1).
 */
const UNFOLLOWED: readonly PortRange[] = [
  { start: 51, end: 51 },
  { start: 140, end: 140 },
  { start: 148, end: 255 },
];
const EXTENSIONS = 'extensions';

/** Whether a next header of IPv6 leaves open what the packet is. */
export function isExtension(nextHeader: number): boolean {
  return [...FOLLOWED, ...UNFOLLOWED].some((range) => within(range, nextHeader));
}

/** The set of such numbers, which the rules below look up. */
export function extensionsSet(): string[] {
  const elements = [...FOLLOWED, ...UNFOLLOWED].map(({ start, end }) =>
    start === end ? `${start}` : `${start}-${end}`,
  );
  return [
    `add set ${TABLE} ${EXTENSIONS} { type inet_proto; flags interval; }`,
    `flush set ${TABLE} ${EXTENSIONS}`,
    `add element ${TABLE} ${EXTENSIONS} { ${elements.join(', ')} }`,
  ];
}

/** The transport header can be read: the kernel followed the chain to its end, and there are four bytes. */
const TRANSPORT = '@th,0,32 >= 0';

/** Matches a readable packet whose transport header follows the IP header. */
export function plainMatch(family: IpFamily): string {
  return family === 4
    ? `ip hdrlength 5 ip frag-off & 0x1fff == 0 ${TRANSPORT}`
    : `ip6 nexthdr != @${EXTENSIONS} ${TRANSPORT}`;
}

/** Matches for nft(8), one of which a readable packet of the family fits. A routing header names other addresses. */
export function readableMatches(family: IpFamily): string[] {
  if (family === 4) return [plainMatch(4)];
  return [
    plainMatch(6),
    `ip6 nexthdr 0 hbh nexthdr != @${EXTENSIONS} ${TRANSPORT}`,
    `ip6 nexthdr 60 dst nexthdr != @${EXTENSIONS} ${TRANSPORT}`,
    `ip6 nexthdr 44 frag nexthdr != @${EXTENSIONS} frag frag-off 0 ${TRANSPORT}`,
  ];
}

/** Matches for packets of either family that are no fragments, and for those that are, first ones included. */
export const WHOLE: readonly string[] = ['ip frag-off & 0x3fff == 0', 'meta nfproto ipv6 exthdr frag missing'];
export const FRAGMENTS: readonly string[] = ['ip frag-off & 0x3fff != 0', 'meta nfproto ipv6 exthdr frag exists'];

/** Matches a fragment behind the first. */
export function laterFragment(family: IpFamily): string {
  return family === 4 ? 'ip frag-off & 0x1fff != 0' : 'exthdr frag exists frag frag-off != 0';
}

/** Whether the entry asks for more than an opaque packet shows. */
export function asksTransport({ local, protocol, localPorts, remotePorts, icmp }: FenceEntry): boolean {
  if (local.start.family === 6) return protocol !== undefined;
  return (localPorts ?? remotePorts ?? icmp) !== undefined;
}

/**
 * The entries as opaque packets meet them, in their order. `protocol` is the field of the IP header: for IPv4 the protocol
 * of all fragments, for IPv6 the first next header.
 */
export function opaqueEntries(entries: readonly FenceEntry[]): FenceEntry[] {
  return entries.flatMap((entry): FenceEntry[] => {
    if (!asksTransport(entry)) return [entry];
    const { action, local, remote, protocol } = entry;
    if (action !== 'pass')
      return [{ action, local, remote, protocol: local.start.family === 4 ? protocol : undefined }];
    const namesHeader = local.start.family === 6 && UNFOLLOWED.some((range) => within(range, protocol!));
    return namesHeader ? [{ action, local, remote, protocol }] : [];
  });
}

function within({ start, end }: PortRange, value: number): boolean {
  return start <= value && value <= end;
}
