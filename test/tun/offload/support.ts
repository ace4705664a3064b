/** Packets, virtio headers and slow, obvious checksums for the tests of segmentation and joining. */
import { PacketBatch } from '../../../src/base/batch.ts';
import type { PacketMemory } from '../../../src/tun/offload/memory.ts';
import type { VirtioHeader } from '../../../src/tun/offload/virtio.ts';
import {
  GsoType,
  newVirtioHeader,
  readVirtioHeader,
  VIRTIO_NET_HDR_SIZE,
  VirtioFlag,
  writeVirtioHeader,
} from '../../../src/tun/offload/virtio.ts';

export const ACK = 0x10;
export const PSH = 0x08;
export const FIN = 0x01;

/** RFC 1071 as it is written, one byte at a time. */
export function slowSum(bytes: Uint8Array, initial = 0): number {
  let sum = initial;
  for (const [i, byte] of bytes.entries()) sum += i % 2 === 0 ? byte * 256 : byte;
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

export interface PacketShape {
  readonly version?: 4 | 6;
  readonly protocol?: 'tcp' | 'udp';
  readonly payload?: Uint8Array;
  readonly source?: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly sequence?: number;
  readonly acknowledgment?: number;
  readonly window?: number;
  readonly flags?: number;
  readonly tcpOptions?: Uint8Array;
  readonly id?: number;
  readonly dontFragment?: boolean;
  readonly trafficClass?: number;
  readonly ttl?: number;
  /** IPv4 options, or IPv6 extension headers of which the first has type `extension`. */
  readonly ipOptions?: Uint8Array;
  readonly extension?: number;
  readonly udpWithoutChecksum?: boolean;
  /** Leave the pseudo-header's sum in the checksum field, as the kernel does for packets with NEEDS_CSUM. */
  readonly partial?: boolean;
}

const TIMESTAMPS = Uint8Array.of(1, 1, 8, 10, 0, 1, 2, 3, 0, 4, 5, 6);

/** An IP packet with right checksums. */
export function packetOf(shape: PacketShape = {}): Uint8Array {
  const { version = 4, protocol = 'tcp' } = shape;
  const transport = protocol === 'tcp' ? tcpOf(shape) : udpOf(shape);
  const ip = version === 4 ? ipv4Of(shape, transport.length) : ipv6Of(shape, transport.length);
  const number = protocol === 'tcp' ? 6 : 17;
  const addresses = version === 4 ? ip.subarray(12, 20) : ip.subarray(8, 40);
  const pseudo = slowSum(addresses, number + transport.length);
  const field = protocol === 'tcp' ? 16 : 6;
  let checksum = shape.partial === true ? pseudo : ~slowSum(transport, pseudo) & 0xffff;
  if (protocol === 'udp' && checksum === 0) checksum = 0xffff;
  if (protocol === 'udp' && shape.udpWithoutChecksum === true) checksum = 0;
  new DataView(transport.buffer).setUint16(field, checksum);
  return join(ip, transport);
}

function tcpOf(shape: PacketShape): Uint8Array<ArrayBuffer> {
  const { payload = new Uint8Array(100), tcpOptions = TIMESTAMPS } = shape;
  const header = new Uint8Array(20 + tcpOptions.length);
  const view = new DataView(header.buffer);
  view.setUint16(0, shape.sourcePort ?? 5001);
  view.setUint16(2, shape.destinationPort ?? 443);
  view.setUint32(4, shape.sequence ?? 1000);
  view.setUint32(8, shape.acknowledgment ?? 77);
  view.setUint8(12, (header.length / 4) << 4);
  view.setUint8(13, shape.flags ?? ACK);
  view.setUint16(14, shape.window ?? 502);
  header.set(tcpOptions, 20);
  return join(header, payload);
}

function udpOf(shape: PacketShape): Uint8Array<ArrayBuffer> {
  const { payload = new Uint8Array(100) } = shape;
  const header = new Uint8Array(8);
  const view = new DataView(header.buffer);
  view.setUint16(0, shape.sourcePort ?? 5001);
  view.setUint16(2, shape.destinationPort ?? 443);
  view.setUint16(4, 8 + payload.length);
  return join(header, payload);
}

function ipv4Of(shape: PacketShape, length: number): Uint8Array {
  const { ipOptions = new Uint8Array(0) } = shape;
  const header = new Uint8Array(20 + ipOptions.length);
  const view = new DataView(header.buffer);
  view.setUint8(0, 0x40 | (header.length / 4));
  view.setUint8(1, shape.trafficClass ?? 0);
  view.setUint16(2, header.length + length);
  view.setUint16(4, shape.id ?? 7);
  view.setUint16(6, (shape.dontFragment ?? true) ? 0x4000 : 0);
  view.setUint8(8, shape.ttl ?? 64);
  view.setUint8(9, shape.protocol === 'udp' ? 17 : 6);
  header.set([192, 0, 2, shape.source ?? 1, 198, 51, 100, 9], 12);
  header.set(ipOptions, 20);
  view.setUint16(10, ~slowSum(header) & 0xffff);
  return header;
}

function ipv6Of(shape: PacketShape, length: number): Uint8Array {
  const { ipOptions = new Uint8Array(0) } = shape;
  const header = new Uint8Array(40 + ipOptions.length);
  const view = new DataView(header.buffer);
  view.setUint32(0, 0x6000_0000 | ((shape.trafficClass ?? 0) << 20) | 0x12345);
  view.setUint16(4, ipOptions.length + length);
  view.setUint8(6, shape.extension ?? (shape.protocol === 'udp' ? 17 : 6));
  view.setUint8(7, shape.ttl ?? 64);
  header.set([0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, shape.source ?? 1], 8);
  header.set([0x20, 0x01, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], 24);
  header.set(ipOptions, 40);
  return header;
}

export function join(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Where the transport header starts in a packet of `packetOf`. */
export function transportOf(shape: PacketShape): number {
  return (shape.version === 6 ? 40 : 20) + (shape.ipOptions?.length ?? 0);
}

/** What a TUN device with offloads hands over: the packet, still without checksum, behind its virtio header. */
export function gsoOf(shape: PacketShape, gsoSize: number): Uint8Array {
  const packet = packetOf({ ...shape, partial: true });
  const isTcp = shape.protocol !== 'udp';
  const csumStart = transportOf(shape);
  return withHeader(packet, {
    flags: VirtioFlag.needsCsum,
    gsoType: isTcp ? (shape.version === 6 ? GsoType.tcp6 : GsoType.tcp4) : GsoType.udpL4,
    // As from a forwarding kernel: not to be relied on.
    hdrLen: packet.length,
    gsoSize,
    csumStart,
    csumOffset: isTcp ? 16 : 6,
  });
}

export function withHeader(packet: Uint8Array, header: Partial<VirtioHeader> = {}): Uint8Array {
  const front = new Uint8Array(VIRTIO_NET_HDR_SIZE);
  writeVirtioHeader(front, 0, { ...newVirtioHeader(), ...header });
  return join(front, packet);
}

/** The header in front of what was written, and the packet. */
export function withoutHeader(written: Uint8Array): { header: VirtioHeader; packet: Uint8Array } {
  const header = newVirtioHeader();
  readVirtioHeader(written, 0, header);
  return { header, packet: written.slice(VIRTIO_NET_HDR_SIZE) };
}

export function batchOf(packets: readonly Uint8Array[], memory?: PacketMemory, headroom = 64): PacketBatch {
  const largest = Math.max(1500, ...packets.map((packet) => packet.length));
  const batch = new PacketBatch(Math.max(packets.length, 1), largest, headroom, 0, memory?.allocate);
  for (const packet of packets) batch.push(packet);
  return batch;
}

export function packetsOf(batch: PacketBatch): Uint8Array[] {
  return Array.from({ length: batch.count }, (_, slot) => batch.packet(slot).slice());
}

/** Bytes that differ from one another in a way that a wrong place would show. */
export function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  let state = seed >>> 0;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}
