/** Nonce payload (RFC 7296 §3.9). */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';

export interface NoncePayload {
  readonly type: 'nonce';
  /** 16 to 256 bytes. */
  readonly data: Uint8Array;
}

const MIN_NONCE = 16;
const MAX_NONCE = 256;

export function decodeNonce(reader: ByteReader): NoncePayload {
  const length = reader.remaining;
  if (length < MIN_NONCE || length > MAX_NONCE) reader.fail('bad-length', `nonce of ${length} bytes`);
  return { type: 'nonce', data: reader.rest() };
}

export function encodeNonce(writer: ByteWriter, payload: NoncePayload): void {
  writer.bytes(payload.data);
}
