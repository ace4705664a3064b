/**
 * The ESP packet format (RFC 4303 §2), on a packet that lies in a long-lived buffer and is sealed where it lies:
 *
 * ```text
 *   SPI (4) | sequence number (4) | IV | payload | padding 1, 2, 3 … | pad length | next header | ICV
 *                                       └────────────── encrypted ───────────────────────────┘
 * ```
 *
 * Nothing here knows SAs, modes or policies. No function allocates or throws on what it finds in a packet.
 */

import { writeU32 } from '../base/bytes.ts';
import type { PacketCipher } from '../crypto/types.ts';

/** SPI and the low half of the sequence number. */
export const ESP_HEADER_LENGTH = 8;
/** Pad length and next header. */
const TRAILER_LENGTH = 2;

/** Next header values that tunnel mode knows (RFC 4303 §2.6). */
export const NextHeader = { ipv4: 4, ipv6: 41, none: 59 } as const;

/** What the length of an ESP packet depends on, of a cipher or of algorithms alone. */
export type EspShape = Pick<PacketCipher, 'ivLength' | 'icvLength' | 'blockSize'>;

/** What the encrypted part is a multiple of: the cipher's block, and 4 bytes in any case (RFC 4303 §2.4). */
export function espAlignment(cipher: EspShape): number {
  return Math.max(4, cipher.blockSize);
}

/** Length of the encrypted part for a payload: padded, with its trailer. `alignment` is a power of two. */
export function encryptedLength(payloadLength: number, alignment: number): number {
  return (payloadLength + TRAILER_LENGTH + alignment - 1) & -alignment;
}

/** Length of the whole ESP packet for a payload, from SPI to ICV. */
export function espLength(payloadLength: number, cipher: EspShape): number {
  return ESP_HEADER_LENGTH + cipher.ivLength + encryptedLength(payloadLength, espAlignment(cipher)) + cipher.icvLength;
}

/** The largest payload whose ESP packet is at most `limit` bytes long: what an MTU is computed from. May be negative. */
export function maxPayload(limit: number, cipher: EspShape): number {
  const room = limit - ESP_HEADER_LENGTH - cipher.ivLength - cipher.icvLength;
  return (room & -espAlignment(cipher)) - TRAILER_LENGTH;
}

/**
 * Turns the payload of `payloadLength` bytes at `payloadAt` into an ESP packet that starts 8 + IV length before it.
 * The caller has checked that there is room on both sides. The sequence number is also the cipher's IV counter.
 * SPI and low half are 32 bits, signed or not.
 * @param esn authenticate the high half of the sequence number too
 */
export function writeEspPacket(
  cipher: PacketCipher,
  buffer: Uint8Array,
  payloadAt: number,
  payloadLength: number,
  nextHeader: number,
  spi: number,
  sequenceHigh: number,
  sequenceLow: number,
  esn: boolean,
): void {
  const ivAt = payloadAt - cipher.ivLength;
  const start = ivAt - ESP_HEADER_LENGTH;
  writeU32(buffer, start, spi);
  writeU32(buffer, start + 4, sequenceLow);
  const dataLength = encryptedLength(payloadLength, espAlignment(cipher));
  writeTrailer(buffer, payloadAt + payloadLength, dataLength - payloadLength - TRAILER_LENGTH, nextHeader);
  cipher.seal(buffer, start, ivAt, dataLength, sequenceHigh, sequenceLow, esn ? sequenceHigh : -1);
}

/** Writes padding, pad length and next header at `at` (RFC 4303 §2.4 to §2.6). */
export function writeTrailer(buffer: Uint8Array, at: number, padLength: number, nextHeader: number): void {
  for (let i = 1; i <= padLength; i++) buffer[at + i - 1] = i;
  buffer[at + padLength] = padLength;
  buffer[at + padLength + 1] = nextHeader;
}

/**
 * Length of the payload in decrypted data, its padding checked (RFC 4303 §3.4.4.1); -1 when the padding lies.
 * The next header is the last byte of the data, see `nextHeaderOf`.
 */
export function payloadLengthOf(buffer: Uint8Array, dataAt: number, dataLength: number): number {
  if (dataLength < TRAILER_LENGTH) return -1;
  const padAt = dataAt + dataLength - TRAILER_LENGTH;
  const padLength = buffer[padAt]!;
  const payloadLength = dataLength - TRAILER_LENGTH - padLength;
  if (payloadLength < 0) return -1;
  for (let i = 1, at = padAt - padLength; i <= padLength; i++, at++) {
    if (buffer[at] !== i) return -1;
  }
  return payloadLength;
}

export function nextHeaderOf(buffer: Uint8Array, dataAt: number, dataLength: number): number {
  return buffer[dataAt + dataLength - 1]!;
}
