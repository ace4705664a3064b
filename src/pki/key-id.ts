/** Key identifiers of certificates (RFC 5280 §4.2.1.1, §4.2.1.2) as text. */

import { MAX_KEY_ID } from '../base/asn1/x509-limits.ts';
import { toHex } from '../base/bytes.ts';
import { MalformedCertificateError } from './malformed.ts';

/** Hexadecimal. @throws MalformedCertificateError for a longer one than any hash */
export function keyIdText(id: Uint8Array): string {
  if (id.length > MAX_KEY_ID) {
    throw new MalformedCertificateError(`its key identifier has ${id.length} bytes; the limit is ${MAX_KEY_ID}`);
  }
  return toHex(id);
}
