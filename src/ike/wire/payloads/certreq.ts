/** Certificate Request payload (RFC 7296 §3.7). */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';
import { CertEncoding } from '../iana.ts';

export interface CertReqPayload {
  readonly type: 'certreq';
  /** One of `CertEncoding`, or what the peer sent. */
  readonly encoding: number;
  /** For X.509 encodings: SHA-1 hashes of the public keys of accepted authorities, 20 bytes each, one after the other. */
  readonly authorities: Uint8Array;
}

const AUTHORITY_HASH = 20;

export function decodeCertReq(reader: ByteReader): CertReqPayload {
  const encoding = reader.u8();
  const hashes =
    encoding === CertEncoding.X509_SIGNATURE ||
    encoding === CertEncoding.HASH_AND_URL_X509 ||
    encoding === CertEncoding.HASH_AND_URL_BUNDLE;
  if (hashes && reader.remaining % AUTHORITY_HASH !== 0) {
    reader.fail('bad-length', `${reader.remaining} bytes of authority hashes in CERTREQ`);
  }
  return { type: 'certreq', encoding, authorities: reader.rest() };
}

export function encodeCertReq(writer: ByteWriter, payload: CertReqPayload): void {
  writer.u8(payload.encoding);
  writer.bytes(payload.authorities);
}
