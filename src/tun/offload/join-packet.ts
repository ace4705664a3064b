/**
 * What joining looks at in a packet: to which flow it belongs, and whether it may be joined with others at all.
 *
 * RFC 791 §3.1, RFC 8200 §3, RFC 9293 §3.1, RFC 768. Hot path: no allocation, no exception.
 */
import { readI32 } from '../../base/bytes.ts';
import {
  IPV4_DF,
  IPV4_FRAGMENT,
  IPV4_HEADER,
  IPV4_PROTOCOL,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  read16,
  TCP_HEADER,
  TCP_OFFSET_AND_FLAGS,
  TcpFlag,
  tcpHeaderLength,
  UDP_CHECKSUM,
  UDP_HEADER,
  UDP_LENGTH,
} from './headers.ts';

/** What may be done with a packet. */
export const Joinable = {
  /** Fragments, IP options, extension headers, other protocols, nonsense: the flow cannot be told. */
  unknownFlow: 0,
  /** Passed on alone, behind what was joined of its flow. */
  alone: 1,
  /** May be the last of a joined packet: it has FIN or PSH set. */
  last: 2,
  yes: 3,
} as const;
export type Joinable = (typeof Joinable)[keyof typeof Joinable];

/** One packet's place and shape. Made once, filled by `readJoinPacket` for each packet. */
export class JoinPacket {
  /** Where it starts in its buffer, and how long it is. */
  at = 0;
  length = 0;
  /** 4, 6, or 0 for what is neither, or cut off before its addresses end. */
  version = 0;
  protocol = 0;
  ipHeaderLength = 0;
  /** IP and transport header; the payload stands behind it. */
  headerLength = 0;
  /** Both ports. */
  ports = 0;
}

/** Looks at the packet of `length` bytes at `at`; of one whose flow is unknown only `version` is set beside its place. */
export function readJoinPacket(
  buffer: Uint8Array,
  at: number,
  length: number,
  packet: JoinPacket,
  joinUdp: boolean,
): Joinable {
  packet.at = at;
  packet.length = length;
  packet.version = versionOf(buffer, at, length);
  if (packet.version === 0 || !hasPlainIpHeader(buffer, packet)) return Joinable.unknownFlow;
  const transport = at + packet.ipHeaderLength;
  const transportLength = length - packet.ipHeaderLength;
  if (packet.protocol === PROTOCOL_TCP) {
    if (transportLength < TCP_HEADER) return Joinable.unknownFlow;
    packet.ports = readI32(buffer, transport);
    return readTcp(buffer, transport, transportLength, packet);
  }
  if (packet.protocol !== PROTOCOL_UDP || transportLength < UDP_HEADER) return Joinable.unknownFlow;
  packet.ports = readI32(buffer, transport);
  packet.headerLength = packet.ipHeaderLength + UDP_HEADER;
  const whole = transportLength > UDP_HEADER && read16(buffer, transport + UDP_LENGTH) === transportLength;
  // A datagram without a checksum (RFC 768) would get one by being joined.
  const summed = read16(buffer, transport + UDP_CHECKSUM) !== 0;
  return joinUdp && whole && summed ? Joinable.yes : Joinable.alone;
}

function versionOf(buffer: Uint8Array, at: number, length: number): number {
  if (length < IPV4_HEADER) return 0;
  const version = buffer[at]! >>> 4;
  if (version === 4) return 4;
  return version === 6 && length >= IPV6_HEADER ? 6 : 0;
}

/** An IP header without options or extensions, of a whole datagram, as long as it says. */
function hasPlainIpHeader(buffer: Uint8Array, packet: JoinPacket): boolean {
  const { at, length } = packet;
  if (packet.version === 4) {
    packet.ipHeaderLength = IPV4_HEADER;
    packet.protocol = buffer[at + IPV4_PROTOCOL]!;
    const whole = (read16(buffer, at + IPV4_FRAGMENT) & ~IPV4_DF) === 0;
    return buffer[at] === 0x45 && whole && read16(buffer, at + IPV4_TOTAL_LENGTH) === length;
  }
  packet.ipHeaderLength = IPV6_HEADER;
  packet.protocol = buffer[at + IPV6_NEXT_HEADER]!;
  return read16(buffer, at + IPV6_PAYLOAD_LENGTH) === length - IPV6_HEADER;
}

/** As in Linux: no bare acknowledgment, no SYN, RST, URG or CWR is joined, and FIN or PSH only as the last. */
function readTcp(buffer: Uint8Array, transport: number, length: number, packet: JoinPacket): Joinable {
  const transportHeader = tcpHeaderLength(buffer, transport);
  packet.headerLength = packet.ipHeaderLength + transportHeader;
  if (transportHeader < TCP_HEADER || transportHeader >= length) return Joinable.alone;
  const flags = buffer[transport + TCP_OFFSET_AND_FLAGS + 1]!;
  if ((flags & (TcpFlag.ack | NEVER_JOINED)) !== TcpFlag.ack) return Joinable.alone;
  return (flags & (TcpFlag.fin | TcpFlag.psh)) === 0 ? Joinable.yes : Joinable.last;
}

const NEVER_JOINED: number = TcpFlag.syn | TcpFlag.rst | TcpFlag.urg | TcpFlag.cwr;
