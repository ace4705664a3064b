/**
 * X.509 certificates (RFC 5280 §4) as plain values: what path validation and identities ask for, checked on the way in.
 * PKI.js reads the structure, after the bytes were found to be strict DER; Node reads the public key.
 */
import { createHash, type KeyObject } from 'node:crypto';
import { fromBER } from 'asn1js';
import {
  AuthorityKeyIdentifier,
  BasicConstraints,
  type Extension,
  ExtKeyUsage,
  Certificate as PkijsCertificate,
} from 'pkijs';
import { toHex } from '../base/bytes.ts';
import { checkDer, DerTag, derChildren, derContents } from '../base/der.ts';
import { canonicalDn } from '../base/dn.ts';
import { formatDn } from '../base/dn-text.ts';
import {
  formatGeneralName,
  type GeneralName,
  type NameSubtrees,
  readGeneralNames,
  readNameConstraints,
} from './general-name.ts';
import { readPublicKey } from './public-key.ts';

/** Largest certificate that is looked at, in bytes. */
export const MAX_CERTIFICATE: number = 20 * 1024;

/** Bits of the key usage extension (RFC 5280 §4.2.1.3), the first in the highest place of 16. */
export const KeyUsage = {
  digitalSignature: 0x8000,
  nonRepudiation: 0x4000,
  keyCertSign: 0x0400,
  cRLSign: 0x0200,
} as const;

/** Dotted object identifiers of the extensions that are understood (RFC 5280 §4.2.1). */
const ExtensionId = {
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  certificatePolicies: '2.5.29.32',
  authorityKeyIdentifier: '2.5.29.35',
  extKeyUsage: '2.5.29.37',
} as const;

/** Of those that only revocation is interested in, and that nobody may mark as critical who wants to be understood. */
const LocationId = {
  crlDistributionPoints: '2.5.29.31',
  authorityInfoAccess: '1.3.6.1.5.5.7.1.1',
  ocspNoCheck: '1.3.6.1.5.5.7.48.1.5',
} as const;

export interface Certificate {
  readonly der: Uint8Array;
  /** The part that is signed. */
  readonly tbs: Uint8Array;
  /** 1 to 3. */
  readonly version: number;
  /** Hexadecimal. */
  readonly serial: string;
  /** DER names. */
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  /** The names as `canonicalDn` has them. */
  readonly issuerName: readonly string[];
  readonly subjectName: readonly string[];
  /** Milliseconds since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** DER of the SubjectPublicKeyInfo. */
  readonly publicKeyInfo: Uint8Array;
  readonly publicKey: KeyObject;
  /** DER of the AlgorithmIdentifier. */
  readonly signatureAlgorithm: Uint8Array;
  readonly signature: Uint8Array;
  readonly extensions: CertificateExtensions;
}

export interface CertificateExtensions {
  readonly basicConstraints: { readonly ca: boolean; readonly pathLength: number | undefined } | undefined;
  /** Of `KeyUsage`. */
  readonly keyUsage: number | undefined;
  /** Dotted object identifiers. */
  readonly extendedKeyUsage: readonly string[] | undefined;
  readonly subjectAltName: readonly GeneralName[] | undefined;
  readonly nameConstraints: NameSubtrees | undefined;
  /** Hexadecimal. */
  readonly subjectKeyId: string | undefined;
  readonly authorityKeyId: string | undefined;
  /** DER, read when it is asked for (`locations.ts`): nothing but revocation needs it. */
  readonly crlDistributionPoints: Uint8Array | undefined;
  readonly authorityInfoAccess: Uint8Array | undefined;
  /** Whether nobody is to ask if it was revoked (RFC 6960 §4.2.2.2.1). */
  readonly ocspNoCheck: boolean;
  /** Object identifiers of extensions that must not be passed over (RFC 5280 §4.2) and are not understood. */
  readonly unknownCritical: readonly string[];
}

/** Bytes that are no certificate, or one that must not be worked with. The message is for people. */
export class MalformedCertificateError extends Error {
  override readonly name = 'MalformedCertificateError';
}

/** @throws MalformedCertificateError, whatever the bytes are */
export function parseCertificate(der: Uint8Array): Certificate {
  if (der.length > MAX_CERTIFICATE) {
    throw new MalformedCertificateError(`a certificate of ${der.length} bytes; at most ${MAX_CERTIFICATE} are read`);
  }
  try {
    return read(der);
  } catch (error) {
    if (error instanceof MalformedCertificateError) throw error;
    // PKI.js throws errors of its own; none of ours can be told from them, and all of them mean the same.
    throw new MalformedCertificateError(`not an X.509 certificate: ${error instanceof Error ? error.message : error}`);
  }
}

function read(der: Uint8Array): Certificate {
  checkDer(der);
  const [tbs, algorithm, signature, ...more] = derChildren(der, DerTag.SEQUENCE);
  if (tbs === undefined || algorithm === undefined || signature === undefined || more.length > 0) {
    throw new MalformedCertificateError('not an X.509 certificate: it has not three parts');
  }
  const fields = derChildren(tbs, DerTag.SEQUENCE);
  // The version has a tag of its own, and is left out when it is 1.
  if (fields[0]?.[0] === 0xa0) fields.shift();
  const [serial, innerAlgorithm, issuer, , subject, publicKeyInfo] = fields;
  if (serial === undefined || issuer === undefined || subject === undefined || publicKeyInfo === undefined) {
    throw new MalformedCertificateError('not an X.509 certificate: a name or the key is missing');
  }
  if (toHex(innerAlgorithm ?? algorithm) !== toHex(algorithm)) {
    throw new MalformedCertificateError('its two signature algorithms differ (RFC 5280 §4.1.1.2)');
  }
  const [issuerName, subjectName] = [canonicalDn(issuer), canonicalDn(subject)];
  if (issuerName === undefined || subjectName === undefined) {
    throw new MalformedCertificateError('a name in it is no distinguished name');
  }
  const parsed = PkijsCertificate.fromBER(der);
  const version = parsed.version + 1;
  const extensions = readExtensions(parsed.extensions ?? []);
  if (version < 3 && parsed.extensions !== undefined) {
    throw new MalformedCertificateError(`it has extensions, but its version is ${version} (RFC 5280 §4.1.2.1)`);
  }
  return {
    der,
    tbs,
    version,
    serial: toHex(derContents(serial)),
    issuer,
    subject,
    issuerName,
    subjectName,
    notBefore: time(parsed.notBefore.value),
    notAfter: time(parsed.notAfter.value),
    publicKeyInfo,
    publicKey: readPublicKey(publicKeyInfo),
    signatureAlgorithm: algorithm,
    signature: wholeBits(parsed.signatureValue.valueBlock),
    extensions,
  };
}

function time(date: Date): number {
  const value = date.getTime();
  if (Number.isNaN(value)) throw new MalformedCertificateError('its validity is no time');
  return value;
}

function wholeBits(bits: { readonly unusedBits: number; readonly valueHexView: Uint8Array }): Uint8Array {
  if (bits.unusedBits !== 0) throw new MalformedCertificateError('its signature is not whole bytes');
  return new Uint8Array(bits.valueHexView);
}

function readExtensions(list: readonly Extension[]): CertificateExtensions {
  // BOUNDED: by the size of a certificate.
  const byId = new Map<string, Uint8Array>();
  const unknownCritical: string[] = [];
  const known = new Set<string>(Object.values(ExtensionId));
  for (const { extnID, critical, extnValue } of list) {
    if (byId.has(extnID)) throw new MalformedCertificateError(`extension ${extnID} stands in it twice`);
    byId.set(extnID, new Uint8Array(extnValue.valueBlock.valueHexView));
    if (critical && !known.has(extnID)) unknownCritical.push(extnID);
  }
  const value = <T>(id: string, decode: (der: Uint8Array) => T): T | undefined => {
    const der = byId.get(id);
    if (der === undefined) return undefined;
    checkDer(der);
    return decode(der);
  };
  return {
    basicConstraints: value(ExtensionId.basicConstraints, basicConstraints),
    keyUsage: value(ExtensionId.keyUsage, keyUsage),
    extendedKeyUsage: value(
      ExtensionId.extKeyUsage,
      (der) => new ExtKeyUsage({ schema: fromBER(der).result }).keyPurposes,
    ),
    subjectAltName: value(ExtensionId.subjectAltName, readGeneralNames),
    nameConstraints: value(ExtensionId.nameConstraints, readNameConstraints),
    subjectKeyId: value(ExtensionId.subjectKeyIdentifier, (der) => toHex(derContents(der))),
    authorityKeyId: value(ExtensionId.authorityKeyIdentifier, authorityKeyId),
    crlDistributionPoints: byId.get(LocationId.crlDistributionPoints),
    authorityInfoAccess: byId.get(LocationId.authorityInfoAccess),
    ocspNoCheck: byId.has(LocationId.ocspNoCheck),
    unknownCritical,
  };
}

function basicConstraints(der: Uint8Array): CertificateExtensions['basicConstraints'] {
  const { cA: ca, pathLenConstraint } = new BasicConstraints({ schema: fromBER(der).result });
  const pathLength = typeof pathLenConstraint === 'object' ? Number(pathLenConstraint.toBigInt()) : pathLenConstraint;
  if (pathLength !== undefined && pathLength < 0) {
    throw new MalformedCertificateError('its path length is less than none');
  }
  return { ca, pathLength };
}

function keyUsage(der: Uint8Array): number {
  // A bit string of at most nine bits: tag, length, unused bits, one or two bytes.
  if (der[0] !== DerTag.BIT_STRING) throw new MalformedCertificateError('its key usage is no bit string');
  return ((der[3] ?? 0) << 8) | (der[4] ?? 0);
}

function authorityKeyId(der: Uint8Array): string | undefined {
  const { keyIdentifier } = new AuthorityKeyIdentifier({ schema: fromBER(der).result });
  return keyIdentifier && toHex(new Uint8Array(keyIdentifier.valueBlock.valueHexView));
}

/** Whether two canonical names are equal (RFC 5280 §7.1). */
export function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((set, at) => set === b[at]);
}

export function isSelfIssued({ issuerName, subjectName }: Certificate): boolean {
  return sameNames(issuerName, subjectName);
}

/** For messages: the subject, or the names of one that has no subject. */
export function describeCertificate({ subject, serial, extensions }: Certificate): string {
  const text = formatDn(subject);
  if (text !== undefined && text !== '') return `'${text}'`;
  const [name] = extensions.subjectAltName ?? [];
  return name === undefined ? `serial number ${serial}` : `'${formatGeneralName(name)}'`;
}

/** As it stands in a CERTREQ payload: SHA-1 of the SubjectPublicKeyInfo (RFC 7296 §3.7). */
export function authorityHash({ publicKeyInfo }: Certificate): Uint8Array {
  return new Uint8Array(createHash('sha1').update(publicKeyInfo).digest());
}
