/**
 * The Online Certificate Status Protocol (RFC 6960): the request about one certificate, and the evaluation of a response,
 * which any host on the way may have forged until its signature is verified.
 *
 * A response must be signed by the issuer, or by a responder that the issuer certified for that (§4.2.2.2).
 * SHA-1 names the issuer in the request, as all responders support it (RFC 5019 §2.1.1); security does not depend on it, as
 * the signer is identified by its key.
 */
import { createHash } from 'node:crypto';
import { checkDer, DerTag, derChildren, derContents, derElement } from '../../base/asn1/der.ts';
import { canonicalDn } from '../../base/asn1/dn.ts';
import { MAX_CHAIN_ELEMENTS } from '../../base/asn1/x509-limits.ts';
import { concatBytes, equalBytes, fromHex, toHex } from '../../base/bytes.ts';
import { type Certificate, describeCertificate, KeyUsage, parseCertificate, sameNames } from '../certificate.ts';
import { readExtensions } from '../extensions.ts';
import { algorithmName, keyProblem, schemeOf, usesSha1 } from '../scheme.ts';
import { isSignedBy, verifySignature } from '../signature.ts';
import { readSigned, wholeBytes } from '../signed.ts';
import { formatTime, readTime } from '../time.ts';
import { type Crl, describeRevocation, revocationStatus } from './crl.ts';

/** Largest response that is read, bytes: about one certificate, with the signer's chain. */
export const MAX_OCSP_RESPONSE: number = 64 * 1024;
/** Certificates of a response that are tried as the signer's. */
const MAX_RESPONDERS = 4;
/** Maximum age of a response without nextUpdate, milliseconds; the tolerated clock difference is added. */
const MAX_AGE = 3_600_000;

const SHA1 = derElement(DerTag.OBJECT_IDENTIFIER, fromHex('2b0e03021a'));
const BASIC_RESPONSE = derElement(DerTag.OBJECT_IDENTIFIER, fromHex('2b0601050507300101'));
const NONCE = '2b0601050507300102';
const OCSP_SIGNING = '1.3.6.1.5.5.7.3.9';
const ENUMERATED = 0x0a;

/** §4.2.1, by number; 0 is success. */
const FAILURES: Readonly<Record<number, string>> = {
  1: 'that the request is malformed (malformedRequest)',
  2: 'that it has an internal error (internalError)',
  3: 'to try again later (tryLater)',
  5: 'that the request must be signed (sigRequired)',
  6: 'that it does not answer for this issuer, or not to us (unauthorized)',
};

export interface OcspQuestion {
  readonly certificate: Certificate;
  /** Of a path that is trusted. */
  readonly issuer: Certificate;
  /** Random bytes, 32 as RFC 8954 wants: an answer that repeats others is an old one. Many responders repeat none. */
  readonly nonce: Uint8Array;
}

export interface OcspAnswer {
  readonly status: 'good' | 'revoked' | 'unknown';
  /** For people. */
  readonly detail: string;
  /** Milliseconds since 1970 until which it holds; `undefined`: it may be another one at any time. */
  readonly nextUpdate: number | undefined;
}

export interface OcspConditions {
  /** Milliseconds since 1970. */
  readonly now: number;
  /** How far the clocks of others may be off, milliseconds. */
  readonly skew: number;
  /** Lists at hand, in which a responder's certificate may be. */
  readonly crls: readonly Crl[];
}

/** DER of an OCSPRequest (§4.1.1), not signed. */
export function ocspRequest({ certificate, issuer, nonce }: OcspQuestion): Uint8Array {
  const algorithm = derElement(DerTag.SEQUENCE, SHA1, Uint8Array.of(DerTag.NULL, 0));
  const names = certIdParts(certificate, issuer);
  const request = derElement(DerTag.SEQUENCE, derElement(DerTag.SEQUENCE, algorithm, ...names));
  const extension = derElement(
    DerTag.SEQUENCE,
    derElement(DerTag.OBJECT_IDENTIFIER, fromHex(NONCE)),
    derElement(DerTag.OCTET_STRING, derElement(DerTag.OCTET_STRING, nonce)),
  );
  return derElement(
    DerTag.SEQUENCE,
    derElement(
      DerTag.SEQUENCE,
      derElement(DerTag.SEQUENCE, request),
      derElement(0xa2, derElement(DerTag.SEQUENCE, extension)),
    ),
  );
}

/** What stands behind the hash algorithm in a CertID. */
function certIdParts(certificate: Certificate, issuer: Certificate): Uint8Array[] {
  return [
    derElement(DerTag.OCTET_STRING, sha1(certificate.issuer)),
    derElement(DerTag.OCTET_STRING, keyHash(issuer)),
    derElement(DerTag.INTEGER, fromHex(certificate.serial)),
  ];
}

/** SHA-1 of the key's bits, without the algorithm. */
function keyHash({ publicKeyInfo }: Certificate): Uint8Array {
  const [, bits] = derChildren(publicKeyInfo, DerTag.SEQUENCE);
  return sha1(bits === undefined ? publicKeyInfo : wholeBytes(bits, 'the key'));
}

function sha1(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha1').update(bytes).digest());
}

/**
 * The status that a response gives the certificate of the request.
 * @throws Error, for people, for a response that gives none, whatever the bytes are
 */
export async function readOcspResponse(
  der: Uint8Array,
  question: OcspQuestion,
  conditions: OcspConditions,
): Promise<OcspAnswer> {
  if (der.length > MAX_OCSP_RESPONSE) {
    throw new Error(`a response of ${der.length} bytes; the limit is ${MAX_OCSP_RESPONSE}`);
  }
  const response = reading(() => basicResponse(der));
  checkNonce(response, question.nonce);
  await checkSigned(response, question.issuer, conditions);
  return reading(() => answerOf(response, question, conditions));
}

/** What the bytes say of themselves. */
interface BasicResponse {
  readonly tbs: Uint8Array;
  /** Tag 0xa1 by name, 0xa2 by the hash of the key. */
  readonly responder: Uint8Array;
  readonly single: readonly Uint8Array[];
  readonly nonce: Uint8Array | undefined;
  readonly signatureAlgorithm: Uint8Array;
  readonly signature: Uint8Array;
  readonly certificates: readonly Uint8Array[];
}

/** A response that cannot be used; the message says why. */
class OcspError extends Error {
  override readonly name = 'OcspError';
}

function reading<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof OcspError) throw error;
    throw new OcspError(`not a usable response: ${error instanceof Error ? error.message : error}`);
  }
}

function basicResponse(der: Uint8Array): BasicResponse {
  checkDer(der, MAX_CHAIN_ELEMENTS);
  const [status, wrapped] = derChildren(der, DerTag.SEQUENCE);
  const [code, ...more] = status?.[0] === ENUMERATED ? derContents(status) : [];
  if (code === undefined || more.length > 0) throw new Error('its status is not a number of one byte');
  if (code !== 0) throw new OcspError(`the responder says ${FAILURES[code] ?? `something unknown (${code})`}`);
  if (wrapped === undefined) throw new Error('it is empty');
  const [type, octets] = derChildren(only(derChildren(wrapped, 0xa0)), DerTag.SEQUENCE);
  if (type === undefined || octets?.[0] !== DerTag.OCTET_STRING || !equalBytes(type, BASIC_RESPONSE)) {
    throw new Error('its type is not the basic one');
  }
  const basic = derContents(octets);
  checkDer(basic, MAX_CHAIN_ELEMENTS);
  const {
    tbs,
    signatureAlgorithm,
    signature,
    more: [certificates],
  } = readSigned(basic);
  return {
    ...{ tbs, ...responseData(tbs), signatureAlgorithm, signature },
    certificates: certificates === undefined ? [] : derChildren(only(derChildren(certificates, 0xa0)), DerTag.SEQUENCE),
  };
}

function responseData(tbs: Uint8Array): Pick<BasicResponse, 'responder' | 'single' | 'nonce'> {
  const fields = derChildren(tbs, DerTag.SEQUENCE);
  // There is version 1 alone, which DER leaves out; not all do.
  if (fields[0]?.[0] === 0xa0 && toHex(fields.shift()!) !== 'a003020100') throw new Error('it is of another version');
  const [responder, , responses, extensions] = fields;
  if (responder === undefined || responses === undefined) throw new Error('a part is missing');
  return {
    responder,
    single: derChildren(responses, DerTag.SEQUENCE),
    nonce: extensions && nonceOf(extensions),
  };
}

/** The value of the nonce, if there is one. @throws Error for a critical extension that is not understood */
function nonceOf(wrapped: Uint8Array): Uint8Array | undefined {
  const extensions = readExtensions(only(derChildren(wrapped, 0xa1)));
  const unknown = extensions.find(({ id, critical }) => critical && id !== NONCE);
  if (unknown !== undefined) throw new Error(`it has the critical extension ${unknown.id}`);
  return extensions.find(({ id }) => id === NONCE)?.value;
}

function only(list: readonly Uint8Array[]): Uint8Array {
  const [first, ...more] = list;
  if (first === undefined || more.length > 0) throw new Error('one element is required');
  return first;
}

/** §4.4.1: responders that sign in advance repeat no nonce; then the times limit the age of a response. */
function checkNonce({ nonce }: BasicResponse, sent: Uint8Array): void {
  if (nonce === undefined || equalBytes(nonce, derElement(DerTag.OCTET_STRING, sent))) return;
  throw new OcspError('the response answers another request (its nonce is not ours)');
}

/** §4.2.2.2. @throws OcspError unless an authorized signer signed */
async function checkSigned(response: BasicResponse, issuer: Certificate, conditions: OcspConditions): Promise<void> {
  const { signatureAlgorithm, signature, tbs } = response;
  const scheme = schemeOf(signatureAlgorithm);
  if (scheme === undefined || usesSha1(scheme)) {
    throw new OcspError(`the response is signed with ${algorithmName(signatureAlgorithm)}, which is not accepted`);
  }
  const signer = isResponder(response, issuer) ? issuer : await delegate(response, issuer, conditions);
  const weak = keyProblem(signer.publicKey);
  if (weak !== undefined) throw new OcspError(`the responder ${describeCertificate(signer)} has ${weak}`);
  if (await verifySignature(scheme, signer.publicKey, tbs, signature)) return;
  throw new OcspError(`the response was not signed by ${describeCertificate(signer)}`);
}

function isResponder({ responder }: BasicResponse, certificate: Certificate): boolean {
  const [id] = reading(() => derChildren(responder, responder[0]!));
  if (id === undefined) return false;
  if (responder[0] === 0xa2) return equalBytes(derContents(id), keyHash(certificate));
  const name = responder[0] === 0xa1 ? canonicalDn(id) : undefined;
  return name !== undefined && sameNames(name, certificate.subjectName);
}

/** The certificate of a responder that the issuer authorized. */
async function delegate(
  response: BasicResponse,
  issuer: Certificate,
  conditions: OcspConditions,
): Promise<Certificate> {
  let problem = 'it contains no certificate of its signer';
  for (const der of response.certificates.slice(0, MAX_RESPONDERS)) {
    const certificate = reading(() => parseCertificate(der));
    if (!isResponder(response, certificate)) continue;
    const found = await delegateProblem(certificate, issuer, conditions);
    if (found === undefined) return certificate;
    problem = `${describeCertificate(certificate)} signed it, but ${found}`;
  }
  throw new OcspError(`the response is not from ${describeCertificate(issuer)}: ${problem}`);
}

async function delegateProblem(
  certificate: Certificate,
  issuer: Certificate,
  { now, skew, crls }: OcspConditions,
): Promise<string | undefined> {
  const { extensions, notBefore, notAfter, signatureAlgorithm } = certificate;
  if (!sameNames(certificate.issuerName, issuer.subjectName)) return 'was certified by another authority';
  if (extensions.extendedKeyUsage?.includes(OCSP_SIGNING) !== true) {
    return 'may not: its extended key usage lacks OCSPSigning';
  }
  const { keyUsage } = extensions;
  if (keyUsage !== undefined && (keyUsage & KeyUsage.anySignature) === 0) {
    return 'may not: its key usage lacks digitalSignature';
  }
  if (notAfter < now - skew || notBefore > now + skew) return 'its certificate has expired or is not valid yet';
  const [unknown] = extensions.unknownCritical;
  if (unknown !== undefined) return `its certificate has the critical extension ${unknown}`;
  const scheme = schemeOf(signatureAlgorithm);
  if (scheme === undefined || usesSha1(scheme)) {
    return `its certificate is signed with ${algorithmName(signatureAlgorithm)}`;
  }
  if (!(await isSignedBy(certificate, issuer, scheme))) return 'was certified by another authority of that name';
  if (extensions.ocspNoCheck) return undefined;
  // §4.2.2.2.1 leaves it to us: to ask for it as well could go round in circles.
  const { status } = await revocationStatus(certificate, issuer, crls, now, skew);
  return status === 'revoked' ? 'its certificate was revoked' : undefined;
}

function answerOf(
  { single }: BasicResponse,
  { certificate, issuer }: OcspQuestion,
  conditions: OcspConditions,
): OcspAnswer {
  const wanted = concatBytes(...certIdParts(certificate, issuer));
  for (const response of single) {
    const [id, status, thisUpdate, ...rest] = derChildren(response, DerTag.SEQUENCE);
    if (id === undefined || status === undefined || thisUpdate === undefined) throw new Error('a part is missing');
    const [algorithm, ...names] = derChildren(id, DerTag.SEQUENCE);
    const [hash] = algorithm === undefined ? [] : derChildren(algorithm, DerTag.SEQUENCE);
    if (hash === undefined || !equalBytes(hash, SHA1) || !equalBytes(concatBytes(...names), wanted)) continue;
    const next = rest[0]?.[0] === 0xa0 ? rest.shift() : undefined;
    if (rest[0] !== undefined) nonceOf(rest[0]);
    const nextUpdate = next && readTime(only(derChildren(next, 0xa0)));
    const found = { ...statusOf(status), nextUpdate };
    // Also in an expired response: a revoked certificate stays revoked.
    if (found.status !== 'revoked') checkTimes(readTime(thisUpdate), nextUpdate, conditions);
    return found;
  }
  throw new OcspError('the response is about other certificates');
}

function statusOf(status: Uint8Array): Pick<OcspAnswer, 'status' | 'detail'> {
  switch (status[0]) {
    case 0x80:
      return { status: 'good', detail: '' };
    case 0x82:
      return { status: 'unknown', detail: 'the responder does not know the certificate' };
    case 0xa1: {
      const [date, reason] = derChildren(status, 0xa1);
      const [code] = reason?.[0] === 0xa0 ? derChildren(reason, 0xa0) : [];
      return { status: 'revoked', detail: describeRevocation(date, code?.[2]) };
    }
    default:
      throw new Error('its status is not good, revoked or unknown');
  }
}

/** §3.2. */
function checkTimes(thisUpdate: number, nextUpdate: number | undefined, { now, skew }: OcspConditions): void {
  if (thisUpdate > now + skew) throw new OcspError(`the response is dated ${formatTime(thisUpdate)}, in the future`);
  const until = nextUpdate ?? thisUpdate + MAX_AGE;
  if (until < now - skew) throw new OcspError(`the response expired on ${formatTime(until)}`);
}
