/**
 * What selectors look at in an IP packet: reads the headers of an inner packet into one reused object.
 *
 * RFC 791, RFC 8200 (extension headers §4, fragments §4.5), RFC 7112 (the first fragment holds all headers),
 * RFC 4301 §4.4.1.1 and §7 (selectors of fragments). Hot path: no allocation, no exception.
 */
import { hasPorts, isIcmp, Protocol } from './protocols.ts';

/** Where the source address starts in `Flow.words`. */
export const SOURCE = 0;
/** Where the destination address starts in `Flow.words`. */
export const DESTINATION = 4;

/** A port that cannot be seen: OPAQUE in RFC 4301. */
export const PORT_HIDDEN = -1;
/** The protocol of a later IPv6 fragment whose fragmentable part starts with an extension header. */
export const PROTOCOL_HIDDEN = -1;

export const Fragment = { none: 0, first: 1, later: 2 } as const;
export type Fragment = (typeof Fragment)[keyof typeof Fragment];

/** Why `readFlow` refused a packet; 0 for none. */
export const FlowError = {
  none: 0,
  notIp: 1,
  truncated: 2,
  badHeaderLength: 3,
  /** The header claims more than there is, or less than itself. `Flow.totalLength` holds the claim. */
  badTotalLength: 4,
  /** A fragment that ends past 65,535, or with two fragment headers. */
  badFragment: 5,
  /** A first fragment too short for the ports or the chain of headers (RFC 1858, RFC 7112). */
  tinyFragment: 6,
  truncatedTransport: 7,
  badExtensionHeader: 8,
  tooManyHeaders: 9,
} as const;
export type FlowError = (typeof FlowError)[keyof typeof FlowError];

/** Counter names of the codes of `FlowError`, by code. */
export const flowErrorNames: readonly string[] = [
  'none',
  'not-ip',
  'truncated',
  'bad-header-length',
  'bad-total-length',
  'bad-fragment',
  'tiny-fragment',
  'truncated-transport',
  'bad-extension-header',
  'too-many-headers',
];

/** More extension headers than this before the next-layer protocol: the packet is refused. */
const MAX_EXTENSION_HEADERS = 8;

const NH_HOP_BY_HOP = 0;
const NH_ROUTING = 43;
const NH_FRAGMENT = 44;
const NH_DESTINATION_OPTIONS = 60;

/**
 * The selectors of one packet. Made once, filled by `readFlow` for each packet; its fields are meaningless after an
 * error, but for `totalLength` after `badTotalLength`.
 *
 * For ICMP, ICMPv6 and the Mobility Header both ports hold type × 256 + code (RFC 4301 §4.4.1.1); see
 * `CompiledSelectors` for how they match. Both are `PORT_HIDDEN` when the packet has no ports or does not show them.
 */
export class Flow {
  family: 4 | 6 = 4;
  /** The next-layer protocol behind all extension headers (AH and ESP end the walk), or `PROTOCOL_HIDDEN`. */
  protocol = 0;
  /** Source at 0, destination at 4; each four big-endian words, of which IPv4 uses the first and leaves the others. */
  readonly words: Uint32Array = new Uint32Array(8);
  srcPort: number = PORT_HIDDEN;
  dstPort: number = PORT_HIDDEN;
  fragment: Fragment = Fragment.none;
  /**
   * For a later fragment: its first was seen, and protocol and ports are those of the first. Set by
   * `FragmentTracker`; false after `readFlow`.
   */
  firstSeen = false;
  /** Identification field; 0 for IPv6 without a fragment header. */
  fragmentId = 0;
  /** In bytes, from the start of the fragmentable part. */
  fragmentOffset = 0;
  /** Length of the packet by its own header: what lies behind it is padding. */
  totalLength = 0;
  /** From the start of the packet to the next-layer header (to the data, in a later fragment). */
  headerLength = 0;
  /** DSCP × 4 + ECN. */
  trafficClass = 0;
  hopLimit = 0;
  /** The DF bit; true for IPv6, which routers never fragment. */
  dontFragment = false;
}

/**
 * Reads the packet at `offset` into `flow`. `length` is how much may be read; it may be more than the packet
 * (ESP dummy padding, RFC 4303 §2.7): trim to `flow.totalLength`.
 *
 * @returns 0, or a code of `FlowError`
 */
export function readFlow(buffer: Uint8Array, offset: number, length: number, flow: Flow): FlowError {
  if (length < 1) return FlowError.truncated;
  flow.firstSeen = false;
  const version = buffer[offset]! >>> 4;
  if (version === 4) return readV4(buffer, offset, length, flow, false);
  if (version === 6) return readV6(buffer, offset, length, flow, false);
  return FlowError.notIp;
}

/** The same for a packet of which an ICMP error quotes the beginning: there may be less than its header claims. */
export function readQuotedFlow(buffer: Uint8Array, offset: number, length: number, flow: Flow): FlowError {
  if (length < 1) return FlowError.truncated;
  flow.firstSeen = false;
  const version = buffer[offset]! >>> 4;
  if (version === 4) return readV4(buffer, offset, length, flow, true);
  if (version === 6) return readV6(buffer, offset, length, flow, true);
  return FlowError.notIp;
}

/** Whether the ports of the packet (or the type and code) could be seen. */
export function portsKnown(flow: Flow): boolean {
  return flow.srcPort !== PORT_HIDDEN;
}

function readV4(buffer: Uint8Array, offset: number, length: number, flow: Flow, quoted: boolean): FlowError {
  if (length < 20) return FlowError.truncated;
  const headerLength = (buffer[offset]! & 0x0f) * 4;
  const totalLength = (buffer[offset + 2]! << 8) | buffer[offset + 3]!;
  flow.totalLength = totalLength;
  if (headerLength < 20) return FlowError.badHeaderLength;
  if ((totalLength > length && !quoted) || totalLength < headerLength) return FlowError.badTotalLength;

  flow.family = 4;
  flow.headerLength = headerLength;
  flow.trafficClass = buffer[offset + 1]!;
  flow.hopLimit = buffer[offset + 8]!;
  flow.protocol = buffer[offset + 9]!;
  flow.fragmentId = (buffer[offset + 4]! << 8) | buffer[offset + 5]!;
  const words = flow.words;
  words[SOURCE] = word(buffer, offset + 12);
  words[DESTINATION] = word(buffer, offset + 16);

  const flags = buffer[offset + 6]!;
  flow.dontFragment = (flags & 0x40) !== 0;
  const fragmentOffset = (((flags & 0x1f) << 8) | buffer[offset + 7]!) * 8;
  if (!setFragment(flow, fragmentOffset, (flags & 0x20) !== 0, totalLength - headerLength)) {
    return FlowError.badFragment;
  }
  return readPorts(buffer, offset + headerLength, offset + Math.min(totalLength, length), flow);
}

function readV6(buffer: Uint8Array, offset: number, length: number, flow: Flow, quoted: boolean): FlowError {
  if (length < 40) return FlowError.truncated;
  // A payload length of 0 with a jumbo option (RFC 2675) is not taken: it fails as an empty packet does.
  const totalLength = 40 + ((buffer[offset + 4]! << 8) | buffer[offset + 5]!);
  flow.totalLength = totalLength;
  if (totalLength > length && !quoted) return FlowError.badTotalLength;

  flow.family = 6;
  flow.trafficClass = ((buffer[offset]! & 0x0f) << 4) | (buffer[offset + 1]! >>> 4);
  flow.hopLimit = buffer[offset + 7]!;
  flow.dontFragment = true;
  flow.fragment = Fragment.none;
  flow.fragmentId = 0;
  flow.fragmentOffset = 0;
  const words = flow.words;
  for (let i = 0; i < 8; i++) words[i] = word(buffer, offset + 8 + 4 * i);
  return walkHeaders(buffer, offset, offset + Math.min(totalLength, length), flow);
}

/** Follows the chain of IPv6 extension headers to the next-layer protocol (RFC 8200 §4). */
function walkHeaders(buffer: Uint8Array, start: number, end: number, flow: Flow): FlowError {
  let next = buffer[start + 6]!;
  let at = start + 40;
  let fragmented = false;
  for (let headers = 0; isExtensionHeader(next); headers++) {
    if (headers === MAX_EXTENSION_HEADERS) return FlowError.tooManyHeaders;
    // Hop-by-hop options stand first or not at all (RFC 8200 §4.1).
    if (next === NH_HOP_BY_HOP && headers > 0) return FlowError.badExtensionHeader;
    if (at + 8 > end) return shortHeaders(flow);
    if (next === NH_FRAGMENT) {
      if (fragmented) return FlowError.badFragment;
      fragmented = true;
      const field = (buffer[at + 2]! << 8) | buffer[at + 3]!;
      flow.fragmentId = word(buffer, at + 4) >>> 0;
      if (!setFragment(flow, field & 0xfff8, (field & 1) !== 0, end - at - 8)) return FlowError.badFragment;
      next = buffer[at]!;
      at += 8;
      if (flow.fragment === Fragment.later) {
        flow.protocol = isExtensionHeader(next) ? PROTOCOL_HIDDEN : next;
        flow.headerLength = at - start;
        return readPorts(buffer, at, end, flow);
      }
    } else {
      next = buffer[at]!;
      at += (buffer[at + 1]! + 1) * 8;
      if (at > end) return shortHeaders(flow);
    }
  }
  flow.protocol = next;
  flow.headerLength = at - start;
  return readPorts(buffer, at, end, flow);
}

function isExtensionHeader(next: number): boolean {
  return next === NH_HOP_BY_HOP || next === NH_ROUTING || next === NH_FRAGMENT || next === NH_DESTINATION_OPTIONS;
}

/** A chain of headers that does not fit: the reason depends on whether it was cut by fragmentation. */
function shortHeaders(flow: Flow): FlowError {
  return flow.fragment === Fragment.first ? FlowError.tinyFragment : FlowError.truncated;
}

/** Sets the fragment fields. False when the datagram would be longer than 65,535 bytes. */
function setFragment(flow: Flow, offset: number, more: boolean, payload: number): boolean {
  flow.fragmentOffset = offset;
  flow.fragment = offset !== 0 ? Fragment.later : more ? Fragment.first : Fragment.none;
  return offset + payload <= 0xffff;
}

/** Reads what stands where ports do. A packet that should have ports but ends before them is refused. */
function readPorts(buffer: Uint8Array, at: number, end: number, flow: Flow): FlowError {
  flow.srcPort = PORT_HIDDEN;
  flow.dstPort = PORT_HIDDEN;
  if (flow.fragment === Fragment.later) return FlowError.none;
  const protocol = flow.protocol;
  if (hasPorts(protocol)) {
    if (at + 4 > end) return shortTransport(flow);
    flow.srcPort = (buffer[at]! << 8) | buffer[at + 1]!;
    flow.dstPort = (buffer[at + 2]! << 8) | buffer[at + 3]!;
  } else if (isIcmp(protocol)) {
    if (at + 2 > end) return shortTransport(flow);
    flow.srcPort = (buffer[at]! << 8) | buffer[at + 1]!;
    flow.dstPort = flow.srcPort;
  } else if (protocol === Protocol.mobility) {
    if (at + 3 > end) return shortTransport(flow);
    flow.srcPort = buffer[at + 2]! << 8;
    flow.dstPort = flow.srcPort;
  }
  return FlowError.none;
}

function shortTransport(flow: Flow): FlowError {
  return flow.fragment === Fragment.first ? FlowError.tinyFragment : FlowError.truncatedTransport;
}

/** A big-endian word, signed: it is stored into a `Uint32Array`, which makes it unsigned again. */
function word(buffer: Uint8Array, at: number): number {
  return (buffer[at]! << 24) | (buffer[at + 1]! << 16) | (buffer[at + 2]! << 8) | buffer[at + 3]!;
}
