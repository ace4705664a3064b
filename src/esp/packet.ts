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

/** Writes SPI and the low half of the sequence number at `at`: 32 bits each, signed or not. */
export function writeEspHeader(buffer: Uint8Array, at: number, spi: number, sequenceLow: number): void {
  writeU32(buffer, at, spi);
  writeU32(buffer, at + 4, sequenceLow);
}

/**
 * Writes padding, pad length and next header behind a payload (RFC 4303 §2.4 to §2.6).
 * @param end where they end: the encrypted part does
 */
export function writeTrailer(buffer: Uint8Array, payloadEnd: number, end: number, nextHeader: number): void {
  const padLength = end - payloadEnd - TRAILER_LENGTH;
  for (let i = 1; i <= padLength; i++) buffer[payloadEnd + i - 1] = i;
  buffer[end - 2] = padLength;
  buffer[end - 1] = nextHeader;
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
