/**
 * ICMP messages to the sender of a packet that the tunnel does not carry. Too large for the path: ICMP destination
 * unreachable, fragmentation needed, with the next-hop MTU (RFC 792, RFC 1191 §4), and ICMPv6 packet too big (RFC 4443
 * §3.2). Denied by policy, or no SA available: destination unreachable with the codes of RFC 4301 §5.1.1.
 *
 * The source of the message is the packet's destination. A tunnel device need not have an address, and routes send packets
 * for that destination here: so the message passes the reverse path filters of this host and of those behind it.
 *
 * No message is sent about an ICMP error, a fragment other than the first, or a packet from or to an address that is not
 * that of one host (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)).
 */
import { sumBytes } from '../base/checksum.ts';
import { DESTINATION, type Flow, Fragment, SOURCE } from '../policy/flow.ts';
import { isIcmpError } from '../policy/icmp-error.ts';
import { Protocol } from '../policy/protocols.ts';

const IPV4_HEADER = 20;
const IPV6_HEADER = 40;
const ICMP_HEADER = 8;
const HOP_LIMIT = 64;
/** Precedence of routing and error messages (RFC 1812 §4.3.2.5). */
const INTERNETWORK_CONTROL = 0xc0;
const DONT_FRAGMENT = 0x40;

/** As much of the packet as fits is quoted (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)). */
const MOST_V4 = 576;
const MOST_V6 = 1280;

/** Type and code of a message. */
type TypeCode = readonly [type: number, code: number];

interface Kind {
  readonly 4: TypeCode;
  readonly 6: TypeCode;
}

const TOO_BIG: Kind = { 4: [3, 4], 6: [2, 0] };

/** RFC 4301 §5.1.1: the policy forbids it, here or at the peer; or the peer cannot be reached. */
const UNREACHABLE: Readonly<Record<'prohibited' | 'host', Kind>> = {
  prohibited: { 4: [3, 13], 6: [1, 1] },
  host: { 4: [3, 1], 6: [1, 3] },
};

/** Why a destination is not reached: see `UNREACHABLE`. */
export type UnreachableReason = keyof typeof UNREACHABLE;

const ICMPV6_REDIRECT = 137;

/**
 * The message to the sender of the packet at `at`, whose flow was read; `undefined` when it must not be told.
 * @param mtu the largest packet that fits
 */
export function tooBigMessage(buffer: Uint8Array, at: number, flow: Flow, mtu: number): Uint8Array | undefined {
  return message(buffer, at, flow, TOO_BIG, mtu);
}

/** The same for a packet whose destination is not reached. */
export function unreachableMessage(
  buffer: Uint8Array,
  at: number,
  flow: Flow,
  reason: UnreachableReason,
): Uint8Array | undefined {
  return message(buffer, at, flow, UNREACHABLE[reason], 0);
}

function message(buffer: Uint8Array, at: number, flow: Flow, kind: Kind, mtu: number): Uint8Array | undefined {
  if (!mayBeTold(flow)) return undefined;
  return flow.family === 4 ? messageV4(buffer, at, flow, kind[4], mtu) : messageV6(buffer, at, flow, kind[6], mtu);
}

/** Whether the sender of the packet may be told anything. */
export function mayBeTold(flow: Flow): boolean {
  if (flow.fragment === Fragment.later || isIcmpError(flow)) return false;
  if (flow.family === 4) return isHostV4(flow.words[SOURCE]!) && isHostV4(flow.words[DESTINATION]!);
  if (flow.protocol === Protocol.icmpv6 && flow.srcPort >> 8 === ICMPV6_REDIRECT) return false;
  return isHostV6(flow.words, SOURCE) && isHostV6(flow.words, DESTINATION);
}

/** Neither of "this network", nor loopback, multicast, reserved or broadcast (RFC 6890). */
function isHostV4(address: number): boolean {
  const first = address >>> 24;
  return first !== 0 && first !== 127 && first < 224;
}

/** Neither unspecified, nor loopback, nor multicast (RFC 4291 §2.4). */
function isHostV6(words: Uint32Array, at: number): boolean {
  if (words[at]! >>> 24 === 0xff) return false;
  const high = words[at]! | words[at + 1]! | words[at + 2]!;
  return high !== 0 || words[at + 3]! > 1;
}

function messageV4(buffer: Uint8Array, at: number, flow: Flow, [type, code]: TypeCode, mtu: number): Uint8Array {
  const quoted = Math.min(flow.totalLength, MOST_V4 - IPV4_HEADER - ICMP_HEADER);
  const message = new Uint8Array(IPV4_HEADER + ICMP_HEADER + quoted);
  message[0] = 0x45;
  message[1] = INTERNETWORK_CONTROL;
  write16(message, 2, message.length);
  message[6] = DONT_FRAGMENT;
  message[8] = HOP_LIMIT;
  message[9] = Protocol.icmp;
  copyAddresses(buffer, at + 12, message, 12, 4);
  write16(message, 10, ~sumBytes(message, 0, IPV4_HEADER));
  const icmp = IPV4_HEADER;
  message[icmp] = type;
  message[icmp + 1] = code;
  write16(message, icmp + 6, mtu);
  message.set(buffer.subarray(at, at + quoted), icmp + ICMP_HEADER);
  write16(message, icmp + 2, ~sumBytes(message, icmp, message.length - icmp));
  return message;
}

function messageV6(buffer: Uint8Array, at: number, flow: Flow, [type, code]: TypeCode, mtu: number): Uint8Array {
  const quoted = Math.min(flow.totalLength, MOST_V6 - IPV6_HEADER - ICMP_HEADER);
  const message = new Uint8Array(IPV6_HEADER + ICMP_HEADER + quoted);
  const length = ICMP_HEADER + quoted;
  message[0] = 0x60;
  write16(message, 4, length);
  message[6] = Protocol.icmpv6;
  message[7] = HOP_LIMIT;
  copyAddresses(buffer, at + 8, message, 8, 16);
  const icmp = IPV6_HEADER;
  message[icmp] = type;
  message[icmp + 1] = code;
  // The upper half of the MTU is zero: no packet is larger than its length field can tell.
  write16(message, icmp + 6, mtu);
  message.set(buffer.subarray(at, at + quoted), icmp + ICMP_HEADER);
  // The pseudo-header: addresses, length, next header (RFC 8200 §8.1).
  const pseudo = sumBytes(message, 8, 32, length + Protocol.icmpv6);
  write16(message, icmp + 2, ~sumBytes(message, icmp, length, pseudo));
  return message;
}

/** Back to the source, from the destination. */
function copyAddresses(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, size: number): void {
  to.set(from.subarray(fromAt, fromAt + size), toAt + size);
  to.set(from.subarray(fromAt + size, fromAt + 2 * size), toAt);
}

function write16(buffer: Uint8Array, at: number, value: number): void {
  buffer[at] = value >>> 8;
  buffer[at + 1] = value;
}
