/** Authentication payload (RFC 7296 §3.8). */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';

export interface AuthPayload {
  readonly type: 'auth';
  /** One of `AuthMethodId`, or what the peer sent. */
  readonly method: number;
  readonly data: Uint8Array;
}

export function decodeAuth(reader: ByteReader): AuthPayload {
  const method = reader.u8();
  reader.skip(3);
  return { type: 'auth', method, data: reader.rest() };
}

export function encodeAuth(writer: ByteWriter, payload: AuthPayload): void {
  writer.u8(payload.method);
  writer.zeros(3);
  writer.bytes(payload.data);
}
