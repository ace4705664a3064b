/**
 * Where a certificate says that one can learn whether it was revoked: CRL distribution points (RFC 5280 §4.2.1.13) and
 * OCSP responders (§4.2.2.1). The issuer wrote it: it must not be used before the path is trusted.
 */

import { checkDer, DerTag, derChildren, derContents } from '../../base/asn1/der.ts';
import { MAX_CERTIFICATE_ELEMENTS } from '../../base/asn1/x509-limits.ts';
import { toHex } from '../../base/bytes.ts';
import type { Certificate } from '../certificate.ts';
import { readGeneralName, readGeneralNames } from '../general-name.ts';

/** Contents of id-ad-ocsp, hexadecimal. */
const OCSP_ACCESS = '2b06010505073001';

/** URLs of whole lists by the issuer of the certificate itself; none where the extension makes no sense. */
export function listUrls({ extensions: { crlDistributionPoints: der } }: Certificate): string[] {
  return reading(der, (value) =>
    derChildren(value, DerTag.SEQUENCE).flatMap((point) => {
      const parts = derChildren(point, DerTag.SEQUENCE);
      // Those for some reasons [1], and those of another issuer [2], are not lists that are understood.
      const [name] = parts.length === 1 && parts[0]?.[0] === 0xa0 ? derChildren(parts[0], 0xa0) : [];
      return pointUrls(name);
    }),
  );
}

/** The URLs of a DistributionPointName: a list may be had from each of them. */
export function pointUrls(name: Uint8Array | undefined): string[] {
  if (name?.[0] !== 0xa0) return [];
  return readGeneralNames(name, 0xa0).flatMap((found) => (found.kind === 'uri' ? [found.text] : []));
}

/** URLs of OCSP responders; none where the extension makes no sense. */
export function responderUrls({ extensions: { authorityInfoAccess: der } }: Certificate): string[] {
  return reading(der, (value) =>
    derChildren(value, DerTag.SEQUENCE).flatMap((description) => {
      const [method, location] = derChildren(description, DerTag.SEQUENCE);
      if (method === undefined || location === undefined || toHex(derContents(method)) !== OCSP_ACCESS) return [];
      const found = readGeneralName(location);
      return found.kind === 'uri' ? [found.text] : [];
    }),
  );
}

function reading(der: Uint8Array | undefined, read: (der: Uint8Array) => string[]): string[] {
  if (der === undefined) return [];
  try {
    checkDer(der, MAX_CERTIFICATE_ELEMENTS);
    return read(der);
  } catch {
    // The certificate is as good as before: it only does not say where to ask.
    return [];
  }
}
