/**
 * Where the fields of IP, TCP and UDP headers are that segmentation and joining read and write.
 *
 * RFC 791 §3.1, RFC 8200 §3 and §4, RFC 9293 §3.1, RFC 768.
 */

/** No IP packet without jumbo payload (RFC 2675) is joined beyond it; nor does Linux take more from a TUN device. */
export const MAX_JOINED = 65_535;

export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;

export const IPV4_HEADER = 20;
export const IPV4_TOTAL_LENGTH = 2;
export const IPV4_ID = 4;
export const IPV4_FRAGMENT = 6;
export const IPV4_TTL = 8;
export const IPV4_PROTOCOL = 9;
export const IPV4_CHECKSUM = 10;
export const IPV4_ADDRESSES = 12;
/** Both addresses. */
export const IPV4_ADDRESSES_LENGTH = 8;
export const IPV4_DF = 0x4000;

export const IPV6_HEADER = 40;
export const IPV6_PAYLOAD_LENGTH = 4;
export const IPV6_NEXT_HEADER = 6;
export const IPV6_HOP_LIMIT = 7;
export const IPV6_ADDRESSES = 8;
export const IPV6_ADDRESSES_LENGTH = 32;

export const TCP_HEADER = 20;
export const TCP_SEQUENCE = 4;
export const TCP_ACKNOWLEDGMENT = 8;
/** Data offset, reserved bits and control bits, 16 bits; the window behind them. */
export const TCP_OFFSET_AND_FLAGS = 12;
export const TCP_WINDOW = 14;
export const TCP_CHECKSUM = 16;
export const TCP_URGENT = 18;

export const TcpFlag = { fin: 0x01, syn: 0x02, rst: 0x04, psh: 0x08, ack: 0x10, urg: 0x20, cwr: 0x80 } as const;

export const UDP_HEADER = 8;
export const UDP_LENGTH = 4;
export const UDP_CHECKSUM = 6;

export function read16(buffer: Uint8Array, at: number): number {
  return (buffer[at]! << 8) | buffer[at + 1]!;
}

export function write16(buffer: Uint8Array, at: number, value: number): void {
  buffer[at] = value >>> 8;
  buffer[at + 1] = value;
}

/** Length of the TCP header at `at`, options included; less than `TCP_HEADER` when the header is wrong. */
export function tcpHeaderLength(buffer: Uint8Array, at: number): number {
  return (buffer[at + TCP_OFFSET_AND_FLAGS]! >>> 4) * 4;
}
