/** Extensible Authentication payload (RFC 7296 §3.16, RFC 3748 §4). */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';
import { EapCode } from '../iana.ts';

export interface EapPayload {
  readonly type: 'eap';
  /** One of `EapCode`. */
  readonly code: number;
  readonly identifier: number;
  /** What follows the EAP header: type and type data of a request or response; empty for success and failure. */
  readonly data: Uint8Array;
}

const EAP_HEADER = 4;

export function decodeEap(reader: ByteReader): EapPayload {
  const code = reader.u8();
  const identifier = reader.u8();
  const length = reader.u16();
  if (length < EAP_HEADER || length - EAP_HEADER !== reader.remaining) {
    reader.fail('bad-length', `EAP length ${length} in a payload of ${reader.remaining + EAP_HEADER} bytes`);
  }
  const data = reader.rest();
  switch (code) {
    case EapCode.REQUEST:
    case EapCode.RESPONSE:
      if (data.length === 0) reader.fail('bad-length', 'EAP message without a type');
      break;
    case EapCode.SUCCESS:
    case EapCode.FAILURE:
      if (data.length !== 0) reader.fail('bad-length', 'EAP result with data');
      break;
    default:
      reader.fail('bad-value', `EAP code ${code}`);
  }
  return { type: 'eap', code, identifier, data };
}

export function encodeEap(writer: ByteWriter, payload: EapPayload): void {
  writer.u8(payload.code);
  writer.u8(payload.identifier);
  writer.u16(EAP_HEADER + payload.data.length);
  writer.bytes(payload.data);
}
