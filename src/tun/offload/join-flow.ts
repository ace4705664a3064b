/**
 * One flow of which packets are being joined: its first packet where it lies, and from the second on a copy of all in
 * a buffer of its own, which ends as one GSO packet behind a virtio header.
 *
 * What may be joined follows Linux (tcp_gro_receive, udp_gro_receive, inet_gro_receive): what comes of it is divided
 * again into the same segments. Checksums are verified while the payload is copied. VIRTIO 1.2 §5.1.6.2, RFC 9293 §3.1,
 * RFC 768, RFC 6864 §4.1, RFC 8200 §8.1. Hot path: no allocation, no exception.
 */
import { readI32 } from '../../base/bytes.ts';
import { foldSum } from '../../base/checksum.ts';
import type { Checksums } from './checksum.ts';
import { SUM_OF_VALID } from './checksum.ts';
import {
  IPV4_ADDRESSES,
  IPV4_ADDRESSES_LENGTH,
  IPV4_CHECKSUM,
  IPV4_DF,
  IPV4_FRAGMENT,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  IPV6_ADDRESSES,
  IPV6_ADDRESSES_LENGTH,
  IPV6_HEADER,
  IPV6_HOP_LIMIT,
  IPV6_PAYLOAD_LENGTH,
  MAX_JOINED,
  PROTOCOL_TCP,
  read16,
  TCP_ACKNOWLEDGMENT,
  TCP_CHECKSUM,
  TCP_OFFSET_AND_FLAGS,
  TCP_SEQUENCE,
  TCP_URGENT,
  TcpFlag,
  UDP_CHECKSUM,
  UDP_LENGTH,
  write16,
} from './headers.ts';
import type { JoinPacket } from './join-packet.ts';
import type { PacketMemory } from './memory.ts';
import type { VirtioHeader } from './virtio.ts';
import { GsoType, newVirtioHeader, VIRTIO_NET_HDR_SIZE, VirtioFlag, writeVirtioHeader } from './virtio.ts';

/** Where the packet starts in a flow's buffer. */
const PACKET: number = VIRTIO_NET_HDR_SIZE;
/** Linux refuses longer runs of datagrams (UDP_MAX_SEGMENTS, 64 before it became 128). */
const MAX_DATAGRAMS = 64;
/** FIN and PSH in the 32 bits that start with the TCP header's data offset. */
const MAY_DIFFER: number = (TcpFlag.fin | TcpFlag.psh) << 16;

export class JoinFlow {
  /** Virtio header and joined packet, of `PACKET + length` bytes, once there are two. */
  readonly buffer: Uint8Array;
  /** Slot of the first packet, or -1: the flow is free. */
  slot = -1;
  /** Packets, and their length as one. */
  packets = 0;
  length = 0;
  readonly #header: VirtioHeader = newVirtioHeader();
  /** Where the first packet starts in the batch. */
  #at = 0;
  #version = 0;
  #protocol = 0;
  #ports = 0;
  #ipHeaderLength = 0;
  #headerLength = 0;
  /** Payload of the first packet. */
  #size = 0;
  #nextSequence = 0;
  #nextId = 0;
  /** Sum of the pseudo-header without its length. */
  #pseudo = 0;
  /** Sums of what is the same in all packets: of the IPv4 header; of pseudo-header, without length, and transport header. */
  #ipConstant = 0;
  #transportConstant = 0;

  constructor(memory: PacketMemory) {
    this.buffer = memory.allocate(PACKET + MAX_JOINED);
  }

  /** Starts with a packet, which stays where it is. */
  begin(batchBuffer: Uint8Array, slot: number, packet: JoinPacket): void {
    this.slot = slot;
    this.packets = 1;
    this.length = packet.length;
    this.#at = packet.at;
    this.#version = packet.version;
    this.#protocol = packet.protocol;
    this.#ports = packet.ports;
    this.#ipHeaderLength = packet.ipHeaderLength;
    this.#headerLength = packet.headerLength;
    this.#size = packet.length - packet.headerLength;
    const transport = packet.at + packet.ipHeaderLength;
    if (packet.protocol === PROTOCOL_TCP) {
      this.#nextSequence = (readI32(batchBuffer, transport + TCP_SEQUENCE) + this.#size) | 0;
    }
    if (packet.version === 4) this.#nextId = (read16(batchBuffer, packet.at + IPV4_ID) + 1) & 0xffff;
  }

  /** Whether the packet is of this flow. */
  owns(buffer: Uint8Array, packet: JoinPacket): boolean {
    return packet.ports === this.#ports && packet.protocol === this.#protocol && this.sameAddresses(buffer, packet);
  }

  /** Whether the packet, of which no more may be known, goes between the same hosts. */
  sameAddresses(buffer: Uint8Array, packet: JoinPacket): boolean {
    if (packet.version !== this.#version) return false;
    if (packet.version === 4) {
      return sameBytes(buffer, this.#at + IPV4_ADDRESSES, packet.at + IPV4_ADDRESSES, IPV4_ADDRESSES_LENGTH);
    }
    return sameBytes(buffer, this.#at + IPV6_ADDRESSES, packet.at + IPV6_ADDRESSES, IPV6_ADDRESSES_LENGTH);
  }

  /** Whether a packet of this flow that may be joined continues what is here: header lengths are compared by the way. */
  isContinuedBy(buffer: Uint8Array, packet: JoinPacket): boolean {
    const payload = packet.length - packet.headerLength;
    if (payload > this.#size || this.length + payload > MAX_JOINED || !this.#sameIpHeader(buffer, packet.at)) {
      return false;
    }
    if (this.#protocol !== PROTOCOL_TCP) return this.packets < MAX_DATAGRAMS;
    const first = this.#at + this.#ipHeaderLength;
    const next = packet.at + this.#ipHeaderLength;
    const flagsAndWindow = readI32(buffer, first + TCP_OFFSET_AND_FLAGS) ^ readI32(buffer, next + TCP_OFFSET_AND_FLAGS);
    return (
      readI32(buffer, next + TCP_SEQUENCE) === this.#nextSequence &&
      readI32(buffer, next + TCP_ACKNOWLEDGMENT) === readI32(buffer, first + TCP_ACKNOWLEDGMENT) &&
      (flagsAndWindow & ~MAY_DIFFER) === 0 &&
      sameBytes(buffer, first + TCP_URGENT, next + TCP_URGENT, this.#headerLength - this.#ipHeaderLength - TCP_URGENT)
    );
  }

  /**
   * DSCP and ECN, hop limit, DF and flow label. The identification of IPv4 counts up in the packets that come of one
   * that is divided; where DF is set it means nothing (RFC 6864 §4.1), and need not.
   */
  #sameIpHeader(buffer: Uint8Array, next: number): boolean {
    const first = this.#at;
    if (this.#version === 6) {
      return (
        readI32(buffer, first) === readI32(buffer, next) &&
        buffer[first + IPV6_HOP_LIMIT] === buffer[next + IPV6_HOP_LIMIT]
      );
    }
    const fragment = read16(buffer, next + IPV4_FRAGMENT);
    return (
      read16(buffer, first) === read16(buffer, next) &&
      buffer[first + IPV4_TTL] === buffer[next + IPV4_TTL] &&
      read16(buffer, first + IPV4_FRAGMENT) === fragment &&
      (fragment === IPV4_DF || read16(buffer, next + IPV4_ID) === this.#nextId)
    );
  }

  /** Verifies the first packet and copies it, when the second comes. False: a checksum is wrong, nothing was changed. */
  open(sums: Checksums, batchBuffer: Uint8Array): boolean {
    const { buffer } = this;
    const at = this.#at;
    const ipLength = this.#ipHeaderLength;
    this.#pseudo =
      this.#version === 4
        ? sums.sum(batchBuffer, at + IPV4_ADDRESSES, IPV4_ADDRESSES_LENGTH, this.#protocol)
        : sums.sum(batchBuffer, at + IPV6_ADDRESSES, IPV6_ADDRESSES_LENGTH, this.#protocol);
    const ipSum = sums.copySum(batchBuffer, at, buffer, PACKET, ipLength, 0);
    if (this.#version === 4 && ipSum !== SUM_OF_VALID) return false;
    const rest = this.length - ipLength;
    const sum = sums.copySum(batchBuffer, at + ipLength, buffer, PACKET + ipLength, rest, this.#pseudo + rest);
    if (sum !== SUM_OF_VALID) return false;
    const transportHeader = sums.sum(buffer, PACKET + ipLength, this.#headerLength - ipLength, this.#pseudo);
    this.#ipConstant = ipSum + complement(this.#ipVarying(buffer, PACKET));
    this.#transportConstant = transportHeader + complement(this.#transportVarying(buffer, PACKET + ipLength));
    return true;
  }

  /** Verifies a packet that continues the flow and appends its payload. False: a checksum is wrong, nothing was changed. */
  append(sums: Checksums, batchBuffer: Uint8Array, packet: JoinPacket): boolean {
    const { at, headerLength } = packet;
    const transport = at + this.#ipHeaderLength;
    const payload = packet.length - headerLength;
    const ipSum = foldSum(this.#ipConstant + this.#ipVarying(batchBuffer, at));
    if (this.#version === 4 && ipSum !== SUM_OF_VALID) return false;
    // What may differ was compared, and the rest is in the constant: the payload alone is gone through.
    const length = packet.length - this.#ipHeaderLength;
    const header = this.#transportConstant + this.#transportVarying(batchBuffer, transport) + length;
    // Beyond `length` the buffer holds nothing yet: a bad packet may lie there.
    const end = PACKET + this.length;
    const sum = sums.copySum(batchBuffer, at + headerLength, this.buffer, end, payload, header);
    if (sum !== SUM_OF_VALID) return false;
    this.packets++;
    this.length += payload;
    this.#nextSequence = (this.#nextSequence + payload) | 0;
    this.#nextId = (this.#nextId + 1) & 0xffff;
    return true;
  }

  /** The fields of an IPv4 header that differ between packets that are joined, not folded. */
  #ipVarying(buffer: Uint8Array, at: number): number {
    if (this.#version === 6) return 0;
    return read16(buffer, at + IPV4_TOTAL_LENGTH) + read16(buffer, at + IPV4_ID) + read16(buffer, at + IPV4_CHECKSUM);
  }

  /** The same for the TCP or UDP header. */
  #transportVarying(buffer: Uint8Array, at: number): number {
    if (this.#protocol !== PROTOCOL_TCP) return read16(buffer, at + UDP_LENGTH) + read16(buffer, at + UDP_CHECKSUM);
    return (
      read16(buffer, at + TCP_SEQUENCE) +
      read16(buffer, at + TCP_SEQUENCE + 2) +
      read16(buffer, at + TCP_OFFSET_AND_FLAGS) +
      read16(buffer, at + TCP_CHECKSUM)
    );
  }

  /** Whether nothing may follow a packet that was just appended: a short one, or one with FIN or PSH, which it passes on. */
  endsWith(batchBuffer: Uint8Array, packet: JoinPacket): boolean {
    const short = packet.length - packet.headerLength < this.#size;
    if (this.#protocol !== PROTOCOL_TCP) return short;
    const flagsAt = this.#ipHeaderLength + TCP_OFFSET_AND_FLAGS + 1;
    const flags = batchBuffer[packet.at + flagsAt]! & (TcpFlag.fin | TcpFlag.psh);
    this.buffer[PACKET + flagsAt]! |= flags;
    return short || flags !== 0;
  }

  /** Completes the headers of what was joined, which now is `PACKET + length` bytes of `buffer`. */
  finish(sums: Checksums): void {
    const { buffer, length } = this;
    const isTcp = this.#protocol === PROTOCOL_TCP;
    const transport = PACKET + this.#ipHeaderLength;
    const transportLength = length - this.#ipHeaderLength;
    if (this.#version === 4) {
      write16(buffer, PACKET + IPV4_TOTAL_LENGTH, length);
      write16(buffer, PACKET + IPV4_CHECKSUM, 0);
      write16(buffer, PACKET + IPV4_CHECKSUM, ~sums.sum(buffer, PACKET, IPV4_HEADER, 0));
    } else {
      write16(buffer, PACKET + IPV6_PAYLOAD_LENGTH, length - IPV6_HEADER);
    }
    if (!isTcp) write16(buffer, transport + UDP_LENGTH, transportLength);
    const checksumAt = isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    // Uncomplemented: the code that splits or checks the packet adds the sum of the rest.
    write16(buffer, transport + checksumAt, foldSum(this.#pseudo + transportLength));
    const header = this.#header;
    header.flags = VirtioFlag.needsCsum;
    header.gsoType = isTcp ? (this.#version === 4 ? GsoType.tcp4 : GsoType.tcp6) : GsoType.udpL4;
    header.hdrLen = this.#headerLength;
    header.gsoSize = this.#size;
    header.csumStart = this.#ipHeaderLength;
    header.csumOffset = checksumAt;
    writeVirtioHeader(buffer, 0, header);
  }
}

/** What takes a sum away when it is added. */
function complement(sum: number): number {
  return ~foldSum(sum) & 0xffff;
}

function sameBytes(buffer: Uint8Array, first: number, second: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (buffer[first + i] !== buffer[second + i]) return false;
  return true;
}
