/**
 * What the extensions of fixed size say (RFC 5280 §4.2.1): PKI.js parses them. The only file that uses PKI.js, and it does
 * not use our own reader; `certificate.ts` says which of the two reads what, and why. The bytes passed in are strict DER of
 * bounded size.
 */
import { type AsnType, BitString, fromBER, OctetString } from 'asn1js';
import { BasicConstraints } from 'pkijs';
import { keyIdText } from './key-id.ts';
import { MalformedCertificateError } from './malformed.ts';

/** Basic constraints have three elements, the others one. Without the last, octet strings would be parsed as well. */
const LIMITS = { maxNodes: 3, parseEmbedded: false } as const;

/** A path length with more bytes exceeds any path. */
const MAX_PATH_LENGTH_BYTES = 4;

/** @throws Error */
export function basicConstraints(der: Uint8Array): { readonly ca: boolean; readonly pathLength: number | undefined } {
  const { cA: ca, pathLenConstraint } = new BasicConstraints({ schema: decode(der) });
  if (typeof pathLenConstraint !== 'object') return { ca, pathLength: notNegative(pathLenConstraint) };
  if (pathLenConstraint.valueBlock.valueHexView.length > MAX_PATH_LENGTH_BYTES) {
    throw new MalformedCertificateError('its path length is larger than any path');
  }
  return { ca, pathLength: notNegative(Number(pathLenConstraint.toBigInt())) };
}

function notNegative(pathLength: number | undefined): number | undefined {
  if (pathLength !== undefined && pathLength < 0) {
    throw new MalformedCertificateError('its path length is negative');
  }
  return pathLength;
}

/** The first bit is the highest of 16. @throws Error */
export function keyUsage(der: Uint8Array): number {
  const result = decode(der);
  if (!(result instanceof BitString)) throw new MalformedCertificateError('its key usage is not a bit string');
  const [first = 0, second = 0] = result.valueBlock.valueHexView;
  return (first << 8) | second;
}

/** Hexadecimal. @throws Error */
export function subjectKeyId(der: Uint8Array): string {
  const result = decode(der);
  if (!(result instanceof OctetString))
    throw new MalformedCertificateError('its key identifier is not an octet string');
  return keyIdText(result.valueBlock.valueHexView);
}

function decode(der: Uint8Array): AsnType {
  const { offset, result } = fromBER(der, LIMITS);
  if (offset === -1) throw new MalformedCertificateError(`an extension cannot be parsed: ${result.error}`);
  return result;
}
