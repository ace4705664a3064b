/**
 * What certificates, revocation lists and OCSP responses have in common: `SIGNED{…}` (RFC 5280 §4.1, §5.1; RFC 6960
 * §4.2.1), that is the signed part, the AlgorithmIdentifier and the signature.
 */
import { DerTag, derChildren, derContents } from '../base/asn1/der.ts';

/** Views into the bytes that were read. */
export interface Signed {
  /** The part that is signed, with tag and length. */
  readonly tbs: Uint8Array;
  /** DER of the AlgorithmIdentifier. */
  readonly signatureAlgorithm: Uint8Array;
  readonly signature: Uint8Array;
  /** Elements that follow: the certificates of an OCSP response. */
  readonly more: readonly Uint8Array[];
}

/** @param der that `checkDer` accepted @throws Error for people */
export function readSigned(der: Uint8Array): Signed {
  const [tbs, signatureAlgorithm, signature, ...more] = derChildren(der, DerTag.SEQUENCE);
  if (tbs === undefined || signatureAlgorithm === undefined || signature === undefined) {
    throw new Error('the signed part, the algorithm or the signature is missing');
  }
  return { tbs, signatureAlgorithm, signature: wholeBytes(signature, 'its signature'), more };
}

/** The bytes of a bit string. @param what it is, for messages @throws Error when it is none, or ends within a byte */
export function wholeBytes(element: Uint8Array, what: string): Uint8Array {
  if (element[0] !== DerTag.BIT_STRING) throw new Error(`${what} is not a bit string`);
  const bits = derContents(element);
  if (bits[0] !== 0) throw new Error(`${what} is not a whole number of bytes`);
  return bits.subarray(1);
}
