/** Times in certificates, lists and OCSP responses: UTCTime and GeneralizedTime by RFC 5280 §4.1.2.5, in GMT and with seconds. */
import { DerTag, derChildren, derContents } from '../base/asn1/der.ts';
import { decodeText } from '../base/text.ts';

/** Milliseconds since 1970 of an element that `checkDer` went through. @throws Error when it is not a time */
export function readTime(der: Uint8Array): number {
  const text = decodeText(derContents(der));
  const fields = der[0] === DerTag.UTC_TIME ? utcFields(text) : der[0] === DerTag.GENERALIZED_TIME ? text : '';
  const [, year, month, day, hour, minute, second] =
    /^([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z$/.exec(fields) ?? [];
  const value = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  // The parser turns a 31st of February into another day.
  if (Number.isNaN(value) || new Date(value).getUTCDate() !== Number(day)) throw new Error('a time is malformed');
  return value;
}

/** The Validity of a certificate (RFC 5280 §4.1.2.5). @throws Error when it is not two times */
export function readValidity(der: Uint8Array): { readonly notBefore: number; readonly notAfter: number } {
  const [from, to, ...more] = derChildren(der, DerTag.SEQUENCE);
  if (from === undefined || to === undefined || more.length > 0) throw new Error('its validity is not two times');
  return { notBefore: readTime(from), notAfter: readTime(to) };
}

/** Two digits of a year are of 1950 to 2049. */
function utcFields(text: string): string {
  return `${text >= '5' ? '19' : '20'}${text}`;
}

/** `2026-06-01T12:00:00.000Z`, for messages. */
export function formatTime(time: number): string {
  return new Date(time).toISOString();
}

/** `2026-06-01` */
export function formatDay(time: number): string {
  return new Date(time).toISOString().slice(0, 10);
}
