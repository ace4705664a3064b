/**
 * Certificate revocation lists (RFC 5280 §5): full ones, signed by the authority itself. Delta lists, lists of other
 * authorities and lists for some reasons only are not supported, and ignored.
 */

import { checkDer, DerTag, derChildren, readDerLength, readElement } from '../../base/asn1/der.ts';
import { canonicalDn } from '../../base/asn1/dn.ts';
import { formatDn } from '../../base/asn1/dn-text.ts';
import { ByteReader, toHex } from '../../base/bytes.ts';
import { type Certificate, KeyUsage, sameNames } from '../certificate.ts';
import { type Extension, readExtensions } from '../extensions.ts';
import { algorithmName, keyProblem, schemeOf, usesSha1 } from '../scheme.ts';
import { verifySignature } from '../signature.ts';
import { readSigned } from '../signed.ts';
import { formatDay, formatTime, readTime } from '../time.ts';
import { listUrls, pointUrls } from './locations.ts';

/** Largest list that is read, in bytes: some hundred thousand certificates. */
export const MAX_CRL: number = 15 * 1024 * 1024;

const ISSUING_DISTRIBUTION_POINT = '551d1c';
const DELTA_CRL_INDICATOR = '551d1b';
const REASON_CODE = '551d15';
/** Extensions that change nothing of what a list says: authority key identifier, CRL number, and where newer ones are. */
const HARMLESS = new Set(['551d23', '551d14', '551d2e', ISSUING_DISTRIBUTION_POINT]);
/** RFC 5280 §5.3.1. */
const REASONS: readonly string[] = [
  'no reason given',
  'its key was stolen',
  "its authority's key was stolen",
  'its content has changed',
  'it was replaced',
  'it is no longer used',
  'it is on hold',
];

/** A certificate revocation list (RFC 5280 §5). Made by `parseCrl`. */
export interface Crl {
  readonly der: Uint8Array;
  readonly tbs: Uint8Array;
  readonly issuerName: readonly string[];
  /** For messages. */
  readonly issuer: string;
  /** Milliseconds since 1970. */
  readonly thisUpdate: number;
  readonly nextUpdate: number | undefined;
  /** By serial number, hexadecimal: where in `tbs` the entry begins. */
  readonly revoked: ReadonlyMap<string, number>;
  /** Which certificates the list covers: others may be revoked without being in it. */
  readonly covers: 'all' | 'users' | 'authorities';
  /** Distribution points, if the list covers only certificates that name one of them. */
  readonly points: readonly string[] | undefined;
  readonly signatureAlgorithm: Uint8Array;
  readonly signature: Uint8Array;
}

/** @throws Error, for people, whatever the bytes are */
export function parseCrl(der: Uint8Array): Crl {
  if (der.length > MAX_CRL) throw new Error(`a list of ${der.length} bytes; the limit is ${MAX_CRL}`);
  try {
    return read(der);
  } catch (error) {
    throw new Error(`not a usable revocation list: ${error instanceof Error ? error.message : error}`);
  }
}

function read(der: Uint8Array): Crl {
  checkDer(der);
  const { tbs, signatureAlgorithm, signature, more } = readSigned(der);
  if (more.length > 0) throw new Error('it has more than three parts');
  const fields = derChildren(tbs, DerTag.SEQUENCE);
  if (fields[0]?.[0] === DerTag.INTEGER) fields.shift();
  const [innerAlgorithm, issuer, thisUpdate, ...rest] = fields;
  if (innerAlgorithm === undefined || issuer === undefined || thisUpdate === undefined)
    throw new Error('a part is missing');
  if (toHex(innerAlgorithm) !== toHex(signatureAlgorithm)) throw new Error('its two signature algorithms differ');
  const issuerName = canonicalDn(issuer);
  if (issuerName === undefined) throw new Error('its issuer is not a distinguished name');
  const nextUpdate =
    rest[0]?.[0] === DerTag.UTC_TIME || rest[0]?.[0] === DerTag.GENERALIZED_TIME ? rest.shift() : undefined;
  const entries = rest[0]?.[0] === DerTag.SEQUENCE ? rest.shift() : undefined;
  const extensions = rest[0] === undefined ? [] : readExtensions(derChildren(rest[0], 0xa0)[0] ?? new Uint8Array(0));
  return {
    der,
    tbs,
    issuerName,
    issuer: formatDn(issuer) ?? '',
    thisUpdate: readTime(thisUpdate),
    nextUpdate: nextUpdate && readTime(nextUpdate),
    revoked: entries === undefined ? new Map() : readEntries(tbs, entries),
    ...coverage(extensions),
    signatureAlgorithm,
    signature,
  };
}

/** Only the position of each entry is kept, as lists can have very many; an entry is read on use. */
function readEntries(tbs: Uint8Array, entries: Uint8Array): Map<string, number> {
  const start = entries.byteOffset - tbs.byteOffset;
  const list = readElement(new ByteReader(tbs, start, start + entries.length), DerTag.SEQUENCE);
  // BOUNDED: by the size of a list.
  const revoked = new Map<string, number>();
  while (list.remaining > 0) {
    const at = list.position;
    const entry = readElement(list, DerTag.SEQUENCE);
    revoked.set(toHex(readElement(entry, DerTag.INTEGER).rest()), at);
    entry.u8();
    entry.skip(readDerLength(entry));
    if (entry.remaining === 0) continue;
    // Such as the one that names another issuer for this entry and all that follow.
    const other = readExtensions(entry.rest()).find(({ id, critical }) => critical && id !== REASON_CODE);
    if (other !== undefined) throw new Error(`an entry with the critical extension ${other.id}`);
  }
  return revoked;
}

/** Since when and why, for people; `undefined` for a certificate that is not in the list. */
function revokedSince({ revoked, tbs }: Crl, serial: string): string | undefined {
  const at = revoked.get(serial);
  if (at === undefined) return undefined;
  const entry = readElement(new ByteReader(tbs, at), DerTag.SEQUENCE);
  const [, date, extensions] = derChildren(tbs.subarray(at, entry.position + entry.remaining), DerTag.SEQUENCE);
  const reason = (extensions === undefined ? [] : readExtensions(extensions)).find(({ id }) => id === REASON_CODE);
  return describeRevocation(date, reason?.value[2]);
}

/** @param date DER of a time @param reason of RFC 5280 §5.3.1 */
export function describeRevocation(date: Uint8Array | undefined, reason: number | undefined): string {
  return `since ${dayOf(date)}: ${REASONS[reason ?? 0] ?? REASONS[0]}`;
}

function dayOf(date: Uint8Array | undefined): string {
  try {
    if (date !== undefined) return formatDay(readTime(date));
  } catch {
    // It is revoked even if the date cannot be read.
  }
  return 'an unknown time';
}

function coverage(extensions: readonly Extension[]): Pick<Crl, 'covers' | 'points'> {
  if (extensions.some(({ id }) => id === DELTA_CRL_INDICATOR)) {
    throw new Error('it has only the changes since another list (a delta list); a complete list is required');
  }
  const unknown = extensions.find(({ id, critical }) => critical && !HARMLESS.has(id));
  if (unknown !== undefined) throw new Error(`it has the critical extension ${unknown.id}`);
  const point = extensions.find(({ id }) => id === ISSUING_DISTRIBUTION_POINT);
  if (point === undefined) return { covers: 'all', points: undefined };
  const parts = derChildren(point.value, DerTag.SEQUENCE);
  const has = (tag: number): boolean => parts.some((part) => part[0] === tag);
  // §5.2.5: some reasons, indirect lists, attribute certificates.
  if (has(0x83) || has(0x84) || has(0x85)) {
    throw new Error(
      'it covers only some reasons, certificates of other issuers (an indirect list), or attribute certificates',
    );
  }
  const name = parts.find((part) => part[0] === 0xa0);
  return {
    covers: has(0x81) ? 'users' : has(0x82) ? 'authorities' : 'all',
    points: name && pointUrls(derChildren(name, 0xa0)[0]),
  };
}

/** What a list, or a responder, says of a certificate. */
export type RevocationStatus =
  | { readonly status: 'good' }
  | { readonly status: 'revoked' | 'unknown'; readonly detail: string };

/** The status of a certificate by the lists. `now` and `skew` in milliseconds. */
export async function revocationStatus(
  certificate: Certificate,
  issuer: Certificate,
  crls: readonly Crl[],
  now: number,
  skew: number,
): Promise<RevocationStatus> {
  const own = crls.filter(({ issuerName }) => sameNames(issuerName, certificate.issuerName));
  let detail = 'there is no revocation list of its issuer';
  let good = false;
  for (const crl of own) {
    const problem = await crlProblem(crl, issuer);
    if (problem !== undefined) {
      detail = `the revocation list of '${crl.issuer}' cannot be used: ${problem}`;
      continue;
    }
    // Also in an expired list: a revoked certificate stays revoked.
    const entry = revokedSince(crl, certificate.serial);
    if (entry !== undefined) return { status: 'revoked', detail: entry };
    const stale = staleness(crl, now, skew);
    if (stale !== undefined) detail = `the revocation list of '${crl.issuer}' ${stale}`;
    else if (coversCertificate(crl, certificate)) good = true;
    else detail = `the revocation list of '${crl.issuer}' is for other certificates`;
  }
  return good ? { status: 'good' } : { status: 'unknown', detail };
}

/** RFC 5280 §6.3.3 b. */
function coversCertificate({ covers, points }: Crl, certificate: Certificate): boolean {
  const authority = certificate.extensions.basicConstraints?.ca === true;
  if (covers !== 'all' && covers !== (authority ? 'authorities' : 'users')) return false;
  return points === undefined || listUrls(certificate).some((url) => points.includes(url));
}

export function staleness({ thisUpdate, nextUpdate }: Crl, now: number, skew: number): string | undefined {
  if (thisUpdate > now + skew) return `is dated ${formatTime(thisUpdate)}, in the future`;
  if (nextUpdate === undefined) return 'has no date until which it is valid';
  if (nextUpdate < now - skew) return `expired on ${formatTime(nextUpdate)}`;
  return undefined;
}

/** Results by list and key: lists are large and used again and again. */
const problems = new WeakMap<Crl, Map<string, Promise<string | undefined>>>();

/** Why a list of this issuer cannot be used, its dates aside. */
export function crlProblem(crl: Crl, issuer: Certificate): Promise<string | undefined> {
  // BOUNDED: by the authorities of one name.
  const known = problems.get(crl) ?? new Map<string, Promise<string | undefined>>();
  problems.set(crl, known);
  const key = toHex(issuer.publicKeyInfo);
  const found = known.get(key) ?? findCrlProblem(crl, issuer);
  known.set(key, found);
  return found;
}

async function findCrlProblem(crl: Crl, issuer: Certificate): Promise<string | undefined> {
  const { keyUsage } = issuer.extensions;
  if (keyUsage !== undefined && (keyUsage & KeyUsage.cRLSign) === 0) return 'its issuer may not sign lists (cRLSign)';
  const scheme = schemeOf(crl.signatureAlgorithm);
  if (scheme === undefined || usesSha1(scheme)) {
    return `it is signed with ${algorithmName(crl.signatureAlgorithm)}`;
  }
  const weak = keyProblem(issuer.publicKey);
  if (weak !== undefined) return `its issuer has ${weak}`;
  const right = await verifySignature(scheme, issuer.publicKey, crl.tbs, crl.signature);
  return right ? undefined : 'its signature is wrong';
}
