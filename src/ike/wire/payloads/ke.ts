/** Key Exchange payload (RFC 7296 §3.4). */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';

export interface KePayload {
  readonly type: 'ke';
  /** Transform id of the Diffie-Hellman group. */
  readonly group: number;
  /**
   * Whether its length fits the group is the key exchange's to say, where there is one. libreswan (4.10, `pfs=no`) has a KE
   * payload without data in its answer when it chooses a proposal without a group, where there should be none (RFC 7296
   * §1.3.1).
   */
  readonly data: Uint8Array;
}

export function decodeKe(reader: ByteReader): KePayload {
  const group = reader.u16();
  reader.skip(2);
  return { type: 'ke', group, data: reader.rest() };
}

export function encodeKe(writer: ByteWriter, payload: KePayload): void {
  writer.u16(payload.group);
  writer.u16(0);
  writer.bytes(payload.data);
}
