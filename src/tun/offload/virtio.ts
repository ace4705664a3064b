/**
 * The header that stands before each packet of a TUN device with IFF_VNET_HDR: `struct virtio_net_hdr`.
 *
 * Virtual I/O Device (VIRTIO) 1.2 §5.1.6; linux/virtio_net.h. A TUN device uses the machine's own byte order unless
 * told otherwise; all machines that sectunnel supports are little-endian.
 */

export const VIRTIO_NET_HDR_SIZE = 10;
/** Where `gsoType` and `hdrLen` stand in it. */
export const VIRTIO_GSO_TYPE = 1;
const HDR_LEN = 2;

/** Bits of `VirtioHeader.flags`. */
export const VirtioFlag = {
  /** From `csumStart` to the end the checksum is still to be computed; its field holds the pseudo-header's sum. */
  needsCsum: 0x01,
  /** The checksum was verified already. */
  dataValid: 0x02,
} as const;

/** `VirtioHeader.gsoType`: how a packet that is larger than the path allows is to be divided. */
export const GsoType = {
  none: 0,
  tcp4: 1,
  /** One UDP datagram to be fragmented (UFO): obsolete, and never asked for. */
  udp: 3,
  tcp6: 4,
  /** A run of UDP datagrams of equal size (USO), IPv4 or IPv6. */
  udpL4: 5,
  /** Bit beside the TCP types: the packet has CWR set (RFC 3168 §6.1.2). */
  ecn: 0x80,
} as const;

export interface VirtioHeader {
  flags: number;
  gsoType: number;
  /** Length of all headers of the packet: a hint, which may be too large. */
  hdrLen: number;
  /** Payload bytes in each segment but the last. */
  gsoSize: number;
  /** Where the checksummed part starts, from the start of the packet. */
  csumStart: number;
  /** Where the checksum field is, from `csumStart`. */
  csumOffset: number;
}

export function newVirtioHeader(): VirtioHeader {
  return { flags: 0, gsoType: GsoType.none, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 };
}

/** `hdrLen` alone. */
export function readVirtioHdrLen(buffer: Uint8Array, at: number): number {
  return readLittle16(buffer, at + HDR_LEN);
}

/** Reads the `VIRTIO_NET_HDR_SIZE` bytes at `at` into `header`. */
export function readVirtioHeader(buffer: Uint8Array, at: number, header: VirtioHeader): void {
  header.flags = buffer[at]!;
  header.gsoType = buffer[at + VIRTIO_GSO_TYPE]!;
  header.hdrLen = readVirtioHdrLen(buffer, at);
  header.gsoSize = readLittle16(buffer, at + 4);
  header.csumStart = readLittle16(buffer, at + 6);
  header.csumOffset = readLittle16(buffer, at + 8);
}

export function writeVirtioHeader(buffer: Uint8Array, at: number, header: Readonly<VirtioHeader>): void {
  buffer[at] = header.flags;
  buffer[at + VIRTIO_GSO_TYPE] = header.gsoType;
  writeLittle16(buffer, at + HDR_LEN, header.hdrLen);
  writeLittle16(buffer, at + 4, header.gsoSize);
  writeLittle16(buffer, at + 6, header.csumStart);
  writeLittle16(buffer, at + 8, header.csumOffset);
}

function readLittle16(buffer: Uint8Array, at: number): number {
  return buffer[at]! | (buffer[at + 1]! << 8);
}

function writeLittle16(buffer: Uint8Array, at: number, value: number): void {
  buffer[at] = value;
  buffer[at + 1] = value >>> 8;
}
