/**
 * Messages on their way out: in one datagram, or in fragments where it does not fit (RFC 7383 §2.4, §2.5).
 *
 * What is too large for the path is found out as RFC 7383 §2.5.2 says: a message that stays without an answer is sent
 * again in more and smaller fragments.
 */
import type { IpFamily } from '../../base/address.ts';
import { ByteWriter } from '../../base/bytes.ts';
import type { PacketCipher } from '../../crypto/types.ts';
import { PayloadType } from '../wire/iana.ts';
import type { IkeHeader } from '../wire/message.ts';
import { encodePayloads, type Payload } from '../wire/payload.ts';
import { protectionOverhead, sealPart } from './protect.ts';

export interface Outgoing {
  readonly datagrams: readonly Uint8Array[];
  /** The same in smaller fragments; `undefined` when there is nothing smaller, or the keys are gone. */
  readonly smaller: () => Outgoing | undefined;
}

/** A message that is sent as it is, whatever its size. */
export function single(datagram: Uint8Array): Outgoing {
  return sealed([datagram]);
}

/** The same of a message that was sealed before, perhaps in fragments. */
export function sealed(datagrams: readonly Uint8Array[]): Outgoing {
  return { datagrams, smaller: nothingSmaller };
}

/** One for all: the last response of each IKE SA stays, and must not keep what it was made of. */
function nothingSmaller(): undefined {
  return undefined;
}

/** Any IPv6 link takes so much, and nearly any path over IPv4. */
export const DEFAULT_FRAGMENT_SIZE = 1_280;
/** Any host takes packets of this size (RFC 791 §3.1, RFC 8200 §5): no fragment is made smaller. */
export const SMALLEST_PACKET: Readonly<Record<IpFamily, number>> = { 4: 576, 6: 1_280 };
const IP_HEADER: Readonly<Record<IpFamily, number>> = { 4: 20, 6: 40 };
const UDP_HEADER = 8;
const NON_ESP_MARKER = 4;
/** Fragment numbers have 16 bits. */
const MAX_FRAGMENTS = 0xffff;

/**
 * Sizes of datagrams, without non-ESP marker, for IP packets of `packet` bytes and then for those that are tried when
 * no answer comes: each smaller than the one before.
 * @param learned size of fragments that got through where larger ones may not have
 */
export function datagramSizes(packet: number, family: IpFamily, learned?: number): readonly number[] {
  const headers = IP_HEADER[family] + UDP_HEADER + NON_ESP_MARKER;
  const smallest = SMALLEST_PACKET[family];
  const first = learned === undefined ? packet : Math.min(packet, Math.max(learned + headers, smallest));
  const fallbacks = [DEFAULT_FRAGMENT_SIZE, smallest].filter((size) => size < first);
  return [...new Set([first, ...fallbacks])].map((size) => size - headers);
}

/** What seals a message. */
interface Sealing {
  readonly header: IkeHeader;
  readonly cipher: PacketCipher;
  /** Makes the IV of each fragment; never the same twice for the cipher's key. */
  readonly nextCounter: () => number;
  /** Whether the cipher still has its key. */
  readonly alive: () => boolean;
}

export interface Unsealed extends Sealing {
  readonly payloads: readonly Payload[];
}

/**
 * Seals a message for the first of `sizes`; `smaller` goes on to the others.
 * @param sizes empty where no fragments may be sent: then it goes in one datagram, however large
 * @throws RangeError when a message that must not be fragmented is longer than SK can carry
 */
export function sealOutgoing({ payloads, ...sealing }: Unsealed, sizes: readonly number[]): Outgoing {
  const writer = new ByteWriter(1024);
  const firstPayload = encodePayloads(writer, payloads);
  return seal(sealing, firstPayload, writer.finish(), sizes);
}

function seal(sealing: Sealing, firstPayload: number, content: Uint8Array, sizes: readonly number[]): Outgoing {
  const [size = Number.POSITIVE_INFINITY, ...others] = sizes;
  const total = countFor(content.length, sealing.cipher, size);
  const datagrams = sealAll(sealing, { firstPayload, content }, total, size);
  // RFC 7383 §2.5.2: by its larger total the receiver knows the newer set.
  const next = others.findIndex((other) => countFor(content.length, sealing.cipher, other) > total);
  if (next < 0) return { datagrams, smaller: nothingSmaller };
  return { datagrams, smaller: () => sealSmaller(sealing, firstPayload, content, others.slice(next)) };
}

function sealSmaller(
  sealing: Sealing,
  firstPayload: number,
  content: Uint8Array,
  sizes: readonly number[],
): Outgoing | undefined {
  return sealing.alive() ? seal(sealing, firstPayload, content, sizes) : undefined;
}

function sealAll(
  { header, cipher, nextCounter }: Sealing,
  { firstPayload, content }: { readonly firstPayload: number; readonly content: Uint8Array },
  total: number,
  size: number,
): readonly Uint8Array[] {
  if (total === 1) return [sealPart(header, { firstPayload, content }, cipher, nextCounter())];
  const capacity = capacityOf(cipher, size, 'skf');
  return Array.from({ length: total }, (_, i) => {
    const part = {
      firstPayload: i === 0 ? firstPayload : PayloadType.NONE,
      content: content.subarray(i * capacity, (i + 1) * capacity),
      place: { number: i + 1, total },
    };
    return sealPart(header, part, cipher, nextCounter());
  });
}

/** The number of datagrams for a message; 1 if it fits whole, or would need more than `MAX_FRAGMENTS`. */
function countFor(length: number, cipher: PacketCipher, size: number): number {
  if (length <= capacityOf(cipher, size, 'sk')) return 1;
  const count = Math.ceil(length / capacityOf(cipher, size, 'skf'));
  return count > MAX_FRAGMENTS ? 1 : count;
}

/** Bytes of content in a datagram: padded and with the pad length they fill whole blocks. */
function capacityOf(cipher: PacketCipher, size: number, kind: 'sk' | 'skf'): number {
  const blocks = Math.floor((size - protectionOverhead(cipher, kind)) / cipher.blockSize);
  return blocks * cipher.blockSize - 1;
}
