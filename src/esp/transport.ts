/**
 * Transport mode (RFC 4303 §3.1.1): ESP carries a packet without its IP header, and the outer header replaces it. Outbound
 * the header is removed. Inbound a new one is written from the SA's two hosts, since devices take whole packets, and
 * checksums are corrected for addresses that a NAT translated (RFC 3948 §3.1.2).
 *
 * Of the header only addresses, protocol and traffic class reach the peer, since the system writes the outer one. So packets
 * with IPv4 options, or with IPv6 headers that routers read, are refused, and so are fragments: transport mode protects
 * whole packets (RFC 4303 §3.3.4). Destination options are part of the payload unless a header that routers read follows
 * them.
 *
 * Hot path: no allocation, no exception.
 */
import { addressToBytes } from '../base/address.ts';
import type { PacketBatch } from '../base/batch.ts';
import { sumBytes, updatedChecksum } from '../base/checksum.ts';
import { IP_HEADER } from '../base/mtu.ts';
import { type Flow, FlowError, Fragment, readFlow } from '../policy/flow.ts';
import { Protocol } from '../policy/protocols.ts';
import type { HostPair, TransportHosts } from '../policy/transport.ts';
import { DropReason } from './drops.ts';

const MAX_PACKET = 0xffff;
const DONT_FRAGMENT = 0x40;
/** The rebuilt packet is for this host: no router lowers it. */
const HOP_LIMIT = 64;

/** The one IPv6 extension header that may stand in ESP; others stand before it (RFC 4303 §3.1.1). */
const DESTINATION_OPTIONS = 60;

const UDP_CHECKSUM = 6;
/** Offsets of the checksums that cover addresses. */
const CHECKSUM_AT: Readonly<Record<number, number>> = {
  [Protocol.tcp]: 16,
  [Protocol.udp]: UDP_CHECKSUM,
  [Protocol.dccp]: 6,
  [Protocol.icmpv6]: 2,
  [Protocol.udplite]: 6,
};

/**
 * Whether the packet at `at`, whose flow was read, can be carried in transport mode. `none` when it can.
 */
export function transportProblem(buffer: Uint8Array, at: number, flow: Flow): DropReason {
  if (flow.fragment !== Fragment.none) return DropReason.transportFragment;
  if (flow.family === 4) return flow.headerLength === IP_HEADER[4] ? DropReason.none : DropReason.transportHeaders;
  return onlyDestinationOptions(buffer, at, flow) ? DropReason.none : DropReason.transportHeaders;
}

/** Takes the IP header off a packet that can be carried. Returns the protocol of what is left in the slot. */
export function stripHeader(batch: PacketBatch, slot: number, flow: Flow): number {
  const at = batch.offset[slot]!;
  const header = IP_HEADER[flow.family];
  batch.offset[slot] = at + header;
  batch.length[slot] = flow.totalLength - header;
  return batch.buffer[at + (flow.family === 4 ? 9 : 6)]!;
}

/** Puts the slot back to the packet that it was before `stripHeader`: the header still stands there. */
export function restoreHeader(batch: PacketBatch, slot: number, flow: Flow): void {
  batch.offset[slot]! -= IP_HEADER[flow.family];
  batch.length[slot] = flow.totalLength;
}

/** Whether nothing but destination options stands between the IPv6 header and what it carries. */
function onlyDestinationOptions(buffer: Uint8Array, at: number, { headerLength }: Flow): boolean {
  const end = at + headerLength;
  let next = buffer[at + 6]!;
  for (let header = at + IP_HEADER[6]; header < end; header += (buffer[header + 1]! + 1) * 8) {
    if (next !== DESTINATION_OPTIONS) return false;
    next = buffer[header]!;
  }
  return true;
}

/** Makes headers for what comes through one SA. */
export class TransportRebuilder {
  readonly #header: Uint8Array;
  readonly #family: 4 | 6;
  /** Sums of both addresses as the peer has them, and as they are written here. */
  readonly #before: number;
  readonly #after: number;

  constructor({ local, remote, asPeerHasThem }: TransportHosts) {
    this.#family = local.family;
    this.#header = headerFrom({ local, remote });
    this.#before = addressSum(asPeerHasThem);
    this.#after = addressSum({ local, remote });
  }

  /**
   * Writes a header before the payload in the slot, which then holds the whole packet, and corrects its checksum.
   * @param flow filled with that of the packet
   */
  rebuild(batch: PacketBatch, slot: number, payloadLength: number, nextHeader: number, flow: Flow): DropReason {
    const length = this.#header.length + payloadLength;
    if (length > MAX_PACKET || !batch.makeRoom(slot, this.#header.length)) return DropReason.noRoom;
    const at = batch.offset[slot]! - this.#header.length;
    const { buffer } = batch;
    buffer.set(this.#header, at);
    const trafficClass = batch.trafficClass[slot]!;
    if (this.#family === 4) finishV4(buffer, at, length, nextHeader, trafficClass);
    else finishV6(buffer, at, payloadLength, nextHeader, trafficClass);
    if (readFlow(buffer, at, length, flow) !== FlowError.none) return DropReason.badInnerPacket;
    if (this.#family === 6 && !onlyDestinationOptions(buffer, at, flow)) return DropReason.badNextHeader;
    if (this.#before !== this.#after) this.#correct(buffer, at, flow);
    batch.offset[slot] = at;
    batch.length[slot] = length;
    return DropReason.none;
  }

  /** RFC 3948 §3.1.2: from the addresses that the peer took into the sum to those that stand in the header. */
  #correct(buffer: Uint8Array, at: number, { protocol, headerLength, totalLength }: Flow): void {
    const field = CHECKSUM_AT[protocol];
    if (field === undefined || headerLength + field + 2 > totalLength) return;
    const checksumAt = at + headerLength + field;
    const checksum = (buffer[checksumAt]! << 8) | buffer[checksumAt + 1]!;
    // In IPv4 UDP may go without (RFC 768).
    if (protocol === Protocol.udp && checksum === 0) return;
    const updated = updatedChecksum(checksum, this.#before, this.#after);
    const written = updated === 0 && protocol === Protocol.udp ? 0xffff : updated;
    buffer[checksumAt] = written >>> 8;
    buffer[checksumAt + 1] = written;
  }
}

/** From the remote host to the local one; lengths, protocol and class are still to be written. */
function headerFrom({ local, remote }: HostPair): Uint8Array {
  const header = new Uint8Array(IP_HEADER[local.family]);
  if (local.family === 4) {
    header[0] = 0x45;
    // Whole, and for this host: an identification would say nothing (RFC 6864 §4).
    header[6] = DONT_FRAGMENT;
    header[8] = HOP_LIMIT;
  } else {
    header[0] = 0x60;
    header[7] = HOP_LIMIT;
  }
  const size = addressToBytes(local).length;
  header.set(addressToBytes(remote), header.length - 2 * size);
  header.set(addressToBytes(local), header.length - size);
  return header;
}

function finishV4(buffer: Uint8Array, at: number, length: number, protocol: number, trafficClass: number): void {
  buffer[at + 1] = trafficClass;
  buffer[at + 2] = length >>> 8;
  buffer[at + 3] = length;
  buffer[at + 9] = protocol;
  const checksum = ~sumBytes(buffer, at, IP_HEADER[4]);
  buffer[at + 10] = checksum >>> 8;
  buffer[at + 11] = checksum;
}

function finishV6(buffer: Uint8Array, at: number, payloadLength: number, next: number, trafficClass: number): void {
  buffer[at] = 0x60 | (trafficClass >>> 4);
  buffer[at + 1] = (trafficClass & 0x0f) << 4;
  buffer[at + 4] = payloadLength >>> 8;
  buffer[at + 5] = payloadLength;
  buffer[at + 6] = next;
}

function addressSum({ local, remote }: HostPair): number {
  const bytes = [local, remote].map(addressToBytes);
  return bytes.reduce((sum, address) => sumBytes(address, 0, address.length, sum), 0);
}
