/**
 * The SK payload: what protects all messages after IKE_SA_INIT (RFC 7296 §3.14, with an AEAD RFC 5282), and the SKF
 * payload, which protects a fragment of one in the same way (RFC 7383 §2.5).
 *
 * ```text
 *   | IKE header | generic header (SKF: number, total) | IV | content | padding | pad length | ICV |
 *   '--------------- associated data -----------------'     '-------- encrypted -----------'
 * ```
 */
import { ByteWriter, DecodeError } from '../../base/bytes.ts';
import type { PacketCipher } from '../../crypto/types.ts';
import { PayloadType } from '../wire/iana.ts';
import { encodeHeader, finishHeader, IKE_HEADER_LENGTH, type IkeHeader } from '../wire/message.ts';
import { decodePayloads, encodePayloads, type Payload, type ProtectedPart } from '../wire/payload.ts';

/** SK has no extended sequence number. */
const NO_ESN = -1;
/** A message has to fit the 16-bit length of its SK payload. */
const MAX_SK_LENGTH = 0xffff;
/** Before the IV: the generic header, and for a fragment its number and how many there are. */
const SK_HEADER = 4;
const SKF_HEADER = 8;

/** A fragment's place in its message: `number` counts from 1 to `total` (RFC 7383 §2.5). */
export interface FragmentPlace {
  readonly number: number;
  readonly total: number;
}

/** What is sealed as SK, or as SKF. */
export interface SealedPart {
  /** The type of the first payload in the content; 0 in all fragments but the first (RFC 7383 §2.5). */
  readonly firstPayload: number;
  readonly content: Uint8Array;
  /** Of a fragment. */
  readonly place?: FragmentPlace | undefined;
}

/** What a protected message adds to its padded content, in bytes. */
export function protectionOverhead(cipher: PacketCipher, kind: ProtectedPart['kind']): number {
  return IKE_HEADER_LENGTH + (kind === 'skf' ? SKF_HEADER : SK_HEADER) + cipher.ivLength + cipher.icvLength;
}

/**
 * Encodes, pads, encrypts and authenticates a message of which SK is the only payload.
 * @param counter makes the IV; must never repeat for the cipher's key
 * @throws RangeError when the payloads are longer than SK can carry
 */
export function protectMessage(
  header: IkeHeader,
  payloads: readonly Payload[],
  cipher: PacketCipher,
  counter: number,
): Uint8Array {
  const writer = new ByteWriter(1024);
  const firstPayload = encodePayloads(writer, payloads);
  return sealPart(header, { firstPayload, content: writer.finish() }, cipher, counter);
}

/**
 * Seals content as the SK payload of a message, or as the SKF payload of one of its fragments.
 * @throws RangeError when it does not fit
 */
export function sealPart(header: IkeHeader, part: SealedPart, cipher: PacketCipher, counter: number): Uint8Array {
  const { firstPayload, content, place } = part;
  const padLength = paddingFor(content.length + 1, cipher.blockSize);
  const dataLength = content.length + padLength + 1;
  const length = protectionOverhead(cipher, place === undefined ? 'sk' : 'skf') + dataLength;
  const partLength = length - IKE_HEADER_LENGTH;
  if (partLength > MAX_SK_LENGTH) throw new RangeError(`payloads of ${content.length} bytes do not fit into SK`);
  const writer = new ByteWriter(length);
  encodeHeader(writer, header);
  writer.u8(firstPayload);
  writer.u8(0);
  writer.u16(partLength);
  if (place !== undefined) {
    writer.u16(place.number);
    writer.u16(place.total);
  }
  const ivAt = writer.length;
  writer.zeros(cipher.ivLength);
  writer.bytes(content);
  writer.zeros(padLength);
  writer.u8(padLength);
  writer.zeros(cipher.icvLength);
  finishHeader(writer, place === undefined ? PayloadType.SK : PayloadType.SKF, length);

  const message = writer.finish();
  const high = Math.floor(counter / 2 ** 32);
  cipher.seal(message, 0, ivAt, dataLength, high, counter >>> 0, NO_ESN);
  return message;
}

function paddingFor(length: number, blockSize: number): number {
  return (blockSize - (length % blockSize)) % blockSize;
}

/** What a protected part holds, without its padding. */
export interface OpenedPart {
  /** A copy of the message with the part decrypted in place. */
  readonly message: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/**
 * Verifies and decrypts an SK or SKF payload. The datagram is left as it was.
 * @returns `undefined` when the message is not authentic: nothing in it may be believed, and nothing is answered.
 * @throws DecodeError when the peer itself sealed what cannot be: the message is authentic, and is answered.
 */
export function openPart(datagram: Uint8Array, part: ProtectedPart, cipher: PacketCipher): OpenedPart | undefined {
  const dataAt = part.ivAt + cipher.ivLength;
  const dataLength = part.end - cipher.icvLength - dataAt;
  // At least the pad length must be there. A length that is no multiple of the block cannot have been sealed by the peer.
  if (dataLength < 1 || dataLength % cipher.blockSize !== 0) return undefined;
  const message = datagram.slice(0, part.end);
  if (!cipher.open(message, 0, part.ivAt, dataLength, NO_ESN)) return undefined;
  // The padding may have any content and any length that fits (RFC 7296 §3.14).
  const padLength = message[dataAt + dataLength - 1]!;
  const contentLength = dataLength - 1 - padLength;
  if (contentLength < 0) {
    throw new DecodeError('bad-length', dataAt, `pad length ${padLength} in ${dataLength} bytes of SK`);
  }
  return { message, start: dataAt, end: dataAt + contentLength };
}

/**
 * Opens the SK payload of a message and decodes what is inside; the payloads are views into a copy.
 * @returns `undefined` when the message is not authentic, or is only a fragment of one
 * @throws DecodeError (RefusedMessageError for an unknown critical payload) when the peer itself sent malformed contents
 */
export function openMessage(
  datagram: Uint8Array,
  part: ProtectedPart,
  cipher: PacketCipher,
): readonly Payload[] | undefined {
  const opened = part.kind === 'sk' ? openPart(datagram, part, cipher) : undefined;
  return opened && decodePayloads(opened.message, opened.start, opened.end, part.firstPayload).payloads;
}
