/** Key Exchange payload (RFC 7296 §3.4). */
import type { ByteReader, ByteWriter } from '../../base/bytes.ts';

export interface KePayload {
  readonly type: 'ke';
  /** Transform id of the Diffie-Hellman group. */
  readonly group: number;
  readonly data: Uint8Array;
}

export function decodeKe(reader: ByteReader): KePayload {
  const group = reader.u16();
  reader.skip(2);
  // Whether the length fits the group is the key exchange's to say; nothing at all fits none.
  if (reader.remaining === 0) reader.fail('bad-length', 'KE payload without key exchange data');
  return { type: 'ke', group, data: reader.rest() };
}

export function encodeKe(writer: ByteWriter, payload: KePayload): void {
  writer.u16(payload.group);
  writer.u16(0);
  writer.bytes(payload.data);
}
