/** Vendor ID payload (RFC 7296 §3.12). */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';

export interface VendorPayload {
  readonly type: 'vendor';
  readonly data: Uint8Array;
}

export function decodeVendor(reader: ByteReader): VendorPayload {
  return { type: 'vendor', data: reader.rest() };
}

export function encodeVendor(writer: ByteWriter, payload: VendorPayload): void {
  writer.bytes(payload.data);
}
