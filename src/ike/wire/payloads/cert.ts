/** Certificate payload (RFC 7296 §3.6). */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';

export interface CertPayload {
  readonly type: 'cert';
  /** One of `CertEncoding`, or what the peer sent. */
  readonly encoding: number;
  readonly data: Uint8Array;
}

export function decodeCert(reader: ByteReader): CertPayload {
  return { type: 'cert', encoding: reader.u8(), data: reader.rest() };
}

export function encodeCert(writer: ByteWriter, payload: CertPayload): void {
  writer.u8(payload.encoding);
  writer.bytes(payload.data);
}
