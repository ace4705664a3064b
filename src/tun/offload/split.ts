/**
 * Segmentation: what was read from a TUN device with offloads, one packet of up to 64 KiB behind a virtio header,
 * becomes packets in the slots of a batch, as a network card would send them.
 *
 * TCP over IPv4 and IPv6 (TSO), runs of UDP datagrams (USO), packets that lack their checksum, and packets that lack
 * nothing. VIRTIO 1.2 §5.1.6.2; RFC 9293 §3.1, RFC 768, RFC 3168 §6.1.2 (CWR), RFC 6864 (IPv4 identification).
 * Hot path: no allocation for a packet or a segment, no exception; what is refused is counted by reason.
 */
import type { PacketBatch } from '../../base/batch.ts';
import { readI32, writeU32 } from '../../base/bytes.ts';
import { foldSum } from '../../base/checksum.ts';
import type { Checksums } from './checksum.ts';
import {
  IPV4_ADDRESSES,
  IPV4_CHECKSUM,
  IPV4_DF,
  IPV4_FRAGMENT,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_PROTOCOL,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  read16,
  TCP_ACKNOWLEDGMENT,
  TCP_CHECKSUM,
  TCP_HEADER,
  TCP_OFFSET_AND_FLAGS,
  TCP_SEQUENCE,
  TCP_URGENT,
  TCP_WINDOW,
  TcpFlag,
  tcpHeaderLength,
  UDP_CHECKSUM,
  UDP_HEADER,
  UDP_LENGTH,
  write16,
} from './headers.ts';
import type { PacketMemory } from './memory.ts';
import type { VirtioHeader } from './virtio.ts';
import {
  GsoType,
  newVirtioHeader,
  readVirtioHeader,
  VIRTIO_GSO_TYPE,
  VIRTIO_NET_HDR_SIZE,
  VirtioFlag,
} from './virtio.ts';

/** Why a packet that was read is lost. */
export type SplitDrop =
  /** Shorter than a virtio header and one byte, or it filled the whole input: cut off. */
  | 'bad-length'
  | 'not-ip'
  /** A kind of segmentation that was never asked for. */
  | 'unknown-gso'
  /** The checksum's place is outside of the packet, or not where the protocol has it, or missing in a GSO packet. */
  | 'bad-checksum-place'
  /** The IP header of a GSO packet: its length, its total length, a fragment, not the protocol that was announced. */
  | 'bad-ip-header'
  /** The TCP or UDP header of a GSO packet, a segment size of zero, or no payload. */
  | 'bad-transport-header'
  /** A segment does not fit into a slot: the rest of its packet is lost. */
  | 'too-large';

/** IPv6 payload length is 16 bits: 40 bytes more than an IPv4 packet, and one more byte to see that it was cut off. */
const INPUT_SIZE = VIRTIO_NET_HDR_SIZE + IPV6_HEADER + 65_535 + 1;
/** The most memory that a splitter takes. */
export const SPLITTER_SIZE: number = INPUT_SIZE + 64;
const PACKET: number = VIRTIO_NET_HDR_SIZE;
const GSO_KINDS: number = 0xff & ~GsoType.ecn;

const NEXT_HOP_BY_HOP = 0;
const NEXT_ROUTING = 43;
const NEXT_DESTINATION_OPTIONS = 60;
/** As many as the policy's packet reader goes through. */
const MAX_EXTENSION_HEADERS = 8;

const ALL_FLAGS = 0xffff;
const NOT_FIRST_FLAGS: number = ~TcpFlag.cwr;
const NOT_LAST_FLAGS: number = ~(TcpFlag.fin | TcpFlag.psh);

/**
 * Use in turns: read from the device into `input`, `start` with the number of bytes, `fill` until nothing is pending.
 * One packet may take many batches.
 */
export class Splitter {
  /** Where the device reads to: virtio header and packet. Lives in the packet memory. */
  readonly input: Uint8Array;
  readonly drops: Record<SplitDrop, number> = {
    'bad-length': 0,
    'not-ip': 0,
    'unknown-gso': 0,
    'bad-checksum-place': 0,
    'bad-ip-header': 0,
    'bad-transport-header': 0,
    'too-large': 0,
  };
  readonly #memory: PacketMemory;
  readonly #checksums: Checksums;
  readonly #header: VirtioHeader = newVirtioHeader();

  /** Bytes of payload that are still to be put into batches, and where they start in `input`. */
  #left = 0;
  #next = 0;
  /** Segments handed out of this packet. */
  #index = 0;
  /** Payload of each segment but the last. */
  #size = 0;
  /** Of all headers; 0 for a packet that is passed on as it is. */
  #headerLength = 0;
  /** From the start of the packet. */
  #transport = 0;
  #protocol = 0;
  #version = 0;
  #id = 0;
  #sequence = 0;
  #offsetAndFlags = 0;
  /** Sums of the fields that are the same in all segments. */
  #ipSum = 0;
  #transportSum = 0;

  constructor(memory: PacketMemory) {
    this.#memory = memory;
    this.#checksums = memory.checksums;
    this.input = memory.allocate(INPUT_SIZE);
  }

  /** Something of the last packet waits for room in a batch: `start` may not be called yet. */
  get pending(): boolean {
    return this.#left > 0;
  }

  /** What was taken up last was a packet that is passed on as it is. */
  get whole(): boolean {
    return this.#headerLength === 0;
  }

  /** Forgets what is pending. */
  discard(): void {
    this.#left = 0;
  }

  /** Takes up the packet of which `length` bytes, virtio header included, stand in `input`. False: refused and counted. */
  start(length: number): boolean {
    this.#left = 0;
    const refusal = this.#prepare(length);
    if (refusal === undefined) return true;
    this.drops[refusal]++;
    return false;
  }

  /**
   * For a packet of `length` bytes, virtio header included, that was read to `at` elsewhere, in the packet memory. True:
   * it is whole, and its checksum, if that was missing, was put in. False: it is for `input` and `start`, and unchanged.
   */
  finishWhole(buffer: Uint8Array, at: number, length: number): boolean {
    if (length <= PACKET || length >= INPUT_SIZE || buffer[at + VIRTIO_GSO_TYPE] !== GsoType.none) return false;
    const version = buffer[at + PACKET]! >>> 4;
    if (version !== 4 && version !== 6) return false;
    readVirtioHeader(buffer, at, this.#header);
    return this.#completeChecksum(buffer, at + PACKET, length - PACKET);
  }

  /** Appends segments until the batch is full or nothing is pending. Returns how many. */
  fill(batch: PacketBatch): number {
    const before = batch.count;
    const checksums = this.#memory.checksumsFor(batch.buffer);
    while (this.#left > 0 && batch.count < batch.capacity) {
      const payload = Math.min(this.#size, this.#left);
      const slot = batch.claim(this.#headerLength + payload);
      if (slot < 0) {
        this.drops['too-large']++;
        this.#left = 0;
        break;
      }
      this.#left -= payload;
      this.#write(checksums, batch.buffer, batch.offset[slot]!, payload);
      this.#next += payload;
      this.#index++;
    }
    return batch.count - before;
  }

  #prepare(length: number): SplitDrop | undefined {
    if (length <= PACKET || length >= INPUT_SIZE) return 'bad-length';
    const header = this.#header;
    readVirtioHeader(this.input, 0, header);
    this.#version = this.input[PACKET]! >>> 4;
    if (this.#version !== 4 && this.#version !== 6) return 'not-ip';
    const packetLength = length - PACKET;
    switch (header.gsoType & GSO_KINDS) {
      case GsoType.none:
        return this.#prepareWhole(packetLength);
      case GsoType.tcp4:
        return this.#version === 4 ? this.#prepareRun(packetLength, PROTOCOL_TCP) : 'bad-ip-header';
      case GsoType.tcp6:
        return this.#version === 6 ? this.#prepareRun(packetLength, PROTOCOL_TCP) : 'bad-ip-header';
      case GsoType.udpL4:
        return this.#prepareRun(packetLength, PROTOCOL_UDP);
      default:
        return 'unknown-gso';
    }
  }

  /** A packet of its own, whose checksum may still have to be computed over whatever the kernel says. */
  #prepareWhole(length: number): SplitDrop | undefined {
    if (!this.#completeChecksum(this.input, PACKET, length)) return 'bad-checksum-place';
    this.#headerLength = 0;
    this.#begin(0, length, length);
    return undefined;
  }

  /** Puts the checksum of the packet at `at` in, if the header says that it is missing. False: it has no place. */
  #completeChecksum(buffer: Uint8Array, at: number, length: number): boolean {
    const { flags, csumStart, csumOffset } = this.#header;
    if ((flags & VirtioFlag.needsCsum) === 0) return true;
    const field = csumStart + csumOffset;
    if (field + 2 > length) return false;
    const sum = this.#memory.checksumsFor(buffer).sum(buffer, at + csumStart, length - csumStart, 0);
    write16(buffer, at + field, nonZero(~sum & 0xffff));
    return true;
  }

  /** A packet that is a run of segments: headers and payload. */
  #prepareRun(length: number, protocol: number): SplitDrop | undefined {
    const { flags, csumStart, csumOffset, gsoSize } = this.#header;
    const isTcp = protocol === PROTOCOL_TCP;
    if ((flags & VirtioFlag.needsCsum) === 0 || csumOffset !== (isTcp ? TCP_CHECKSUM : UDP_CHECKSUM)) {
      return 'bad-checksum-place';
    }
    if (csumStart + (isTcp ? TCP_HEADER : UDP_HEADER) > length) return 'bad-transport-header';
    const goodIp = this.#version === 4 ? this.#checkV4(length, protocol) : this.#checkV6(length, protocol);
    if (!goodIp) return 'bad-ip-header';
    // The kernel's `hdrLen` may be as long as the whole packet where it forwards: the headers say it themselves.
    const transport = PACKET + csumStart;
    const transportHeader = isTcp ? tcpHeaderLength(this.input, transport) : UDP_HEADER;
    const headerLength = csumStart + transportHeader;
    if (isTcp ? transportHeader < TCP_HEADER : read16(this.input, transport + UDP_LENGTH) !== length - csumStart) {
      return 'bad-transport-header';
    }
    if (headerLength >= length || gsoSize === 0) return 'bad-transport-header';

    this.#protocol = protocol;
    this.#transport = csumStart;
    this.#headerLength = headerLength;
    this.#sumConstants(length, transport, transportHeader);
    this.#begin(headerLength, length, gsoSize);
    return undefined;
  }

  #begin(payloadAt: number, length: number, size: number): void {
    this.#next = PACKET + payloadAt;
    this.#left = length - payloadAt;
    this.#size = size;
    this.#index = 0;
  }

  #checkV4(length: number, protocol: number): boolean {
    const { input } = this;
    const headerLength = (input[PACKET]! & 0x0f) * 4;
    return (
      headerLength >= IPV4_HEADER &&
      headerLength === this.#header.csumStart &&
      read16(input, PACKET + IPV4_TOTAL_LENGTH) === length &&
      (read16(input, PACKET + IPV4_FRAGMENT) & ~IPV4_DF) === 0 &&
      input[PACKET + IPV4_PROTOCOL] === protocol
    );
  }

  /** Follows the chain of extension headers: it must lead to the transport header where the checksum starts. */
  #checkV6(length: number, protocol: number): boolean {
    const { input } = this;
    const { csumStart } = this.#header;
    if (length < IPV6_HEADER || read16(input, PACKET + IPV6_PAYLOAD_LENGTH) !== length - IPV6_HEADER) return false;
    let next = input[PACKET + IPV6_NEXT_HEADER]!;
    let at = IPV6_HEADER;
    for (let headers = 0; headers < MAX_EXTENSION_HEADERS && at < csumStart; headers++) {
      if (next !== NEXT_HOP_BY_HOP && next !== NEXT_ROUTING && next !== NEXT_DESTINATION_OPTIONS) return false;
      next = input[PACKET + at]!;
      at += (input[PACKET + at + 1]! + 1) * 8;
    }
    return at === csumStart && next === protocol;
  }

  /**
   * The pseudo-header's sum is taken from the checksum field, where the kernel put it for the whole packet: so it is
   * right with a routing header too, whose last address it has. Only the length in it changes.
   */
  #sumConstants(length: number, transport: number, transportHeader: number): void {
    const { input } = this;
    const sums = this.#checksums;
    const wholeLength = length - this.#header.csumStart;
    const ports = sums.sum(input, transport, 4, ~wholeLength & 0xffff);
    if (this.#protocol === PROTOCOL_TCP) {
      // All but sequence number, flags and checksum.
      const acknowledged = sums.sum(input, transport + TCP_ACKNOWLEDGMENT, 4, ports);
      const window = read16(input, transport + TCP_WINDOW) + read16(input, transport + TCP_CHECKSUM);
      const options = sums.sum(input, transport + TCP_URGENT, transportHeader - TCP_URGENT, acknowledged);
      this.#transportSum = foldSum(options + window);
      this.#sequence = readI32(input, transport + TCP_SEQUENCE);
      this.#offsetAndFlags = read16(input, transport + TCP_OFFSET_AND_FLAGS);
    } else {
      this.#transportSum = foldSum(read16(input, transport + UDP_CHECKSUM) + ports);
    }
    if (this.#version === 4) {
      // All but total length, identification and checksum.
      const addressesAndOptions = this.#header.csumStart - IPV4_ADDRESSES;
      const first = sums.sum(input, PACKET + IPV4_FRAGMENT, 4, read16(input, PACKET));
      this.#ipSum = sums.sum(input, PACKET + IPV4_ADDRESSES, addressesAndOptions, first);
      this.#id = read16(input, PACKET + IPV4_ID);
    }
  }

  /** Writes the next segment, or the whole packet, to `at`. */
  #write(sums: Checksums, to: Uint8Array, at: number, payload: number): void {
    const { input } = this;
    const headerLength = this.#headerLength;
    if (headerLength === 0) {
      sums.copySum(input, this.#next, to, at, payload, 0);
      return;
    }
    sums.copySum(input, PACKET, to, at, headerLength, 0);
    const payloadSum = sums.copySum(input, this.#next, to, at + headerLength, payload, 0);
    const length = headerLength + payload;
    if (this.#version === 4) this.#writeV4(to, at, length);
    else write16(to, at + IPV6_PAYLOAD_LENGTH, length - IPV6_HEADER);
    const transport = at + this.#transport;
    const transportLength = length - this.#transport;
    if (this.#protocol === PROTOCOL_TCP) this.#writeTcp(to, transport, transportLength, payloadSum);
    else this.#writeUdp(to, transport, transportLength, payloadSum);
  }

  #writeV4(to: Uint8Array, at: number, length: number): void {
    const id = (this.#id + this.#index) & 0xffff;
    write16(to, at + IPV4_TOTAL_LENGTH, length);
    write16(to, at + IPV4_ID, id);
    write16(to, at + IPV4_CHECKSUM, ~foldSum(this.#ipSum + length + id));
  }

  #writeTcp(to: Uint8Array, at: number, length: number, payloadSum: number): void {
    const sequence = (this.#sequence + this.#index * this.#size) | 0;
    const first = this.#index === 0 ? ALL_FLAGS : NOT_FIRST_FLAGS;
    const last = this.#left === 0 ? ALL_FLAGS : NOT_LAST_FLAGS;
    const offsetAndFlags = this.#offsetAndFlags & first & last;
    writeU32(to, at + TCP_SEQUENCE, sequence);
    write16(to, at + TCP_OFFSET_AND_FLAGS, offsetAndFlags);
    const varying = (sequence >>> 16) + (sequence & 0xffff) + offsetAndFlags + length;
    write16(to, at + TCP_CHECKSUM, ~foldSum(this.#transportSum + payloadSum + varying));
  }

  /** The length counts twice: in the pseudo-header and in the header. */
  #writeUdp(to: Uint8Array, at: number, length: number, payloadSum: number): void {
    write16(to, at + UDP_LENGTH, length);
    write16(to, at + UDP_CHECKSUM, nonZero(~foldSum(this.#transportSum + payloadSum + 2 * length) & 0xffff));
  }
}

/** In ones' complement 0xffff is zero too; in a UDP header zero means that there is no checksum (RFC 768). */
function nonZero(checksum: number): number {
  return checksum === 0 ? 0xffff : checksum;
}
