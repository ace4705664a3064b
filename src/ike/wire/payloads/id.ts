/** Identification payloads, IDi and IDr (RFC 7296 §3.5). */
import { type ByteReader, ByteWriter } from '../../../base/bytes.ts';
import { type Identity, IdType } from '../../../base/identity.ts';

export interface IdPayload {
  readonly type: 'idi' | 'idr';
  readonly identity: Identity;
}

export function decodeId(reader: ByteReader, type: IdPayload['type']): IdPayload {
  const idType = reader.u8();
  reader.skip(3);
  const data = reader.rest();
  const wanted = idType === IdType.Ipv4Address ? 4 : idType === IdType.Ipv6Address ? 16 : data.length;
  if (data.length !== wanted)
    reader.fail('bad-length', `address of ${data.length} bytes in an identity of type ${idType}`);
  return { type, identity: { type: idType, data } };
}

export function encodeId(writer: ByteWriter, payload: IdPayload): void {
  writer.u8(payload.identity.type);
  writer.zeros(3);
  writer.bytes(payload.identity.data);
}

/** The payload without its generic header, as AUTH covers it: IDi' and IDr' of RFC 7296 §2.15. */
export function idPayloadBody(identity: Identity): Uint8Array {
  const writer = new ByteWriter(4 + identity.data.length);
  encodeId(writer, { type: 'idi', identity });
  return writer.finish();
}
