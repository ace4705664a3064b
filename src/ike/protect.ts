/**
 * The SK payload: what protects all messages after IKE_SA_INIT (RFC 7296 §3.14, with an AEAD RFC 5282).
 *
 * ```text
 *   | IKE header | generic header of SK | IV | payloads | padding | pad length | ICV |
 *   '--------- associated data ---------'    '--------- encrypted -----------'
 * ```
 */
import { ByteWriter, DecodeError } from '../base/bytes.ts';
import type { PacketCipher } from '../crypto/types.ts';
import { PayloadType } from './iana.ts';
import { encodeHeader, finishHeader, IKE_HEADER_LENGTH, type IkeHeader } from './message.ts';
import { decodePayloads, encodePayloads, type Payload, type ProtectedPart } from './payload.ts';

/** SK has no extended sequence number. */
const NO_ESN = -1;
/** A message has to fit the 16-bit length of its SK payload. */
const MAX_SK_LENGTH = 0xffff;

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
  encodeHeader(writer, header);
  writer.zeros(4);
  const ivAt = writer.length;
  writer.zeros(cipher.ivLength);
  const dataAt = writer.length;
  const firstPayload = encodePayloads(writer, payloads);
  const padLength = paddingFor(writer.length - dataAt + 1, cipher.blockSize);
  writer.zeros(padLength);
  writer.u8(padLength);
  const dataLength = writer.length - dataAt;
  writer.zeros(cipher.icvLength);

  const skLength = writer.length - IKE_HEADER_LENGTH;
  if (skLength > MAX_SK_LENGTH) throw new RangeError(`payloads of ${dataLength} bytes do not fit into SK`);
  writer.patchU8(IKE_HEADER_LENGTH, firstPayload);
  writer.patchU16(IKE_HEADER_LENGTH + 2, skLength);
  finishHeader(writer, PayloadType.SK, writer.length);

  const message = writer.finish();
  const high = Math.floor(counter / 2 ** 32);
  cipher.seal(message, 0, ivAt, dataLength, high, counter >>> 0, NO_ESN);
  return message;
}

function paddingFor(length: number, blockSize: number): number {
  return (blockSize - (length % blockSize)) % blockSize;
}

/**
 * Verifies and decrypts the SK payload of a message and decodes what is inside. The datagram is left as it was; the
 * payloads are views into a copy.
 * @returns `undefined` when the message is not authentic: nothing in it may be believed, and nothing is answered.
 * @throws DecodeError (RefusedMessageError for an unknown critical payload) when the peer itself sent malformed
 * contents: the message is authentic, and is answered.
 */
export function openMessage(
  datagram: Uint8Array,
  part: ProtectedPart,
  cipher: PacketCipher,
): readonly Payload[] | undefined {
  const dataAt = part.ivAt + cipher.ivLength;
  const dataLength = part.end - cipher.icvLength - dataAt;
  // At least the pad length must be there. A length that is no multiple of the block cannot have been sealed by the peer.
  if (part.kind !== 'sk' || dataLength < 1 || dataLength % cipher.blockSize !== 0) return undefined;
  const message = datagram.slice(0, part.end);
  if (!cipher.open(message, 0, part.ivAt, dataLength, NO_ESN)) return undefined;
  // The padding may have any content and any length that fits (RFC 7296 §3.14).
  const padLength = message[dataAt + dataLength - 1]!;
  const contentLength = dataLength - 1 - padLength;
  if (contentLength < 0) {
    throw new DecodeError('bad-length', dataAt, `pad length ${padLength} in ${dataLength} bytes of SK`);
  }
  return decodePayloads(message, dataAt, dataAt + contentLength, part.firstPayload, false).payloads;
}
