/**
 * The room `pki`: files of keys and certificates, their parsing, path validation and revocation. This file is the X.509
 * certificate (RFC 5280 §4) as plain values, checked on the way in.
 *
 * Two readers share the parsing of a certificate, and no file uses both:
 * - Our own (`base/asn1/der.ts`, `outline.ts`) reads first, and reads all that a certificate can hold many of: it accepts only strict DER within limits of
 *   size and number (`base/asn1/x509-limits.ts`), and returns views into the bytes that were signed. Names, validity, the list of
 *   extensions, alternative names and name constraints are its, as are revocation lists and OCSP responses. Any host can make us
 *   read these, by a certificate that it signed itself: no such certificate may cost three times an honest one
 *   (`test/pki/cost.test.ts`).
 * - PKI.js (`extension-values.ts`) parses the extensions of fixed size after that: basic constraints, key usage, the
 *   subject's key identifier. Of 128 alternative names it would make 40 ms, of 256 name constraints 120 ms, and an honest peer costs one.
 *
 * Node reads public keys and verifies signatures.
 */
import { createHash, type KeyObject } from 'node:crypto';
import { canonicalDn } from '../base/asn1/dn.ts';
import { formatDn } from '../base/asn1/dn-text.ts';
import { fromHex, toHex } from '../base/bytes.ts';
import { basicConstraints, keyUsage, subjectKeyId } from './extension-values.ts';
import { type Extension, oidText, readAuthorityKeyId, readExtensions, readKeyPurposes } from './extensions.ts';
import {
  formatGeneralName,
  type GeneralName,
  type NameSubtrees,
  readGeneralNames,
  readNameConstraints,
} from './general-name.ts';
import { MalformedCertificateError, readingCertificate } from './malformed.ts';
import { ElementAllowance, type Outline, outlineCertificate } from './outline.ts';
import { readValidity } from './time.ts';

/** Bits of the key usage extension (RFC 5280 §4.2.1.3), the first in the highest place of 16. */
export const KeyUsage = {
  /** digitalSignature or nonRepudiation. */
  anySignature: 0xc000,
  keyCertSign: 0x0400,
  cRLSign: 0x0200,
} as const;

/** Contents of the object identifiers, hexadecimal, of the extensions that are understood (RFC 5280 §4.2.1). */
const ExtensionId = {
  subjectKeyIdentifier: '551d0e',
  keyUsage: '551d0f',
  subjectAltName: '551d11',
  basicConstraints: '551d13',
  nameConstraints: '551d1e',
  certificatePolicies: '551d20',
  authorityKeyIdentifier: '551d23',
  extKeyUsage: '551d25',
} as const;

/** Those that only revocation uses, and that must not be critical. */
const LocationId = {
  crlDistributionPoints: '551d1f',
  authorityInfoAccess: '2b06010505070101',
  ocspNoCheck: '2b0601050507300105',
} as const;

/** An X.509 certificate (RFC 5280 §4) as plain values. Made by `parseCertificate`. */
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
  /** Read on first use. @throws MalformedCertificateError then */
  readonly publicKey: KeyObject;
  /** DER of the AlgorithmIdentifier. */
  readonly signatureAlgorithm: Uint8Array;
  readonly signature: Uint8Array;
  readonly extensions: CertificateExtensions;
}

/** The extensions of a certificate that path validation, identities and revocation need. */
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
  /** DER, read on use (`locations.ts`): only revocation needs it. */
  readonly crlDistributionPoints: Uint8Array | undefined;
  readonly authorityInfoAccess: Uint8Array | undefined;
  /** Whether its revocation status need not be requested (RFC 6960 §4.2.2.2.1). */
  readonly ocspNoCheck: boolean;
  /** Object identifiers of critical extensions (RFC 5280 §4.2) that sectunnel does not support. */
  readonly unknownCritical: readonly string[];
}

/**
 * Reads all of a certificate, its key too.
 * @throws MalformedCertificateError, whatever the bytes are
 */
export function parseCertificate(der: Uint8Array): Certificate {
  const allowance = new ElementAllowance();
  const outline = outlineCertificate(der, allowance);
  outline.publicKey();
  return readCertificate(outline, allowance);
}

/**
 * Reads a certificate except for its key, which is read on first use and may turn out malformed then.
 * @param allowance of the elements that its extensions may have, shared by the certificates of one message
 * @throws MalformedCertificateError, whatever the bytes are
 */
export function readCertificate(outline: Outline, allowance: ElementAllowance): Certificate {
  return readingCertificate(() => {
    const { der, tbs, version, serial, issuer, subject, publicKeyInfo, signatureAlgorithm, signature } = outline;
    const [issuerName, subjectName] = [canonicalDn(issuer), canonicalDn(subject)];
    if (issuerName === undefined || subjectName === undefined) {
      throw new MalformedCertificateError('its issuer or subject is not a distinguished name');
    }
    return {
      ...{ der, tbs, version, serial: toHex(serial), issuer, subject, issuerName, subjectName },
      ...readValidity(outline.validity),
      publicKeyInfo,
      get publicKey() {
        return outline.publicKey();
      },
      ...{ signatureAlgorithm, signature },
      extensions: interpret(outline.extensions === undefined ? [] : readExtensions(outline.extensions), allowance),
    };
  });
}

function interpret(list: readonly Extension[], allowance: ElementAllowance): CertificateExtensions {
  const known = new Set<string>(Object.values(ExtensionId));
  const find = (id: string): Uint8Array | undefined => list.find((extension) => extension.id === id)?.value;
  const value = <T>(id: string, decode: (der: Uint8Array) => T): T | undefined => {
    const der = find(id);
    if (der === undefined) return undefined;
    allowance.check(der);
    return decode(der);
  };
  return {
    basicConstraints: value(ExtensionId.basicConstraints, basicConstraints),
    keyUsage: value(ExtensionId.keyUsage, keyUsage),
    extendedKeyUsage: value(ExtensionId.extKeyUsage, readKeyPurposes),
    subjectAltName: value(ExtensionId.subjectAltName, readGeneralNames),
    nameConstraints: value(ExtensionId.nameConstraints, readNameConstraints),
    subjectKeyId: value(ExtensionId.subjectKeyIdentifier, subjectKeyId),
    authorityKeyId: value(ExtensionId.authorityKeyIdentifier, readAuthorityKeyId),
    crlDistributionPoints: find(LocationId.crlDistributionPoints),
    authorityInfoAccess: find(LocationId.authorityInfoAccess),
    ocspNoCheck: find(LocationId.ocspNoCheck) !== undefined,
    unknownCritical: list
      .filter(({ id, critical }) => critical && !known.has(id))
      .map(({ id }) => oidText(fromHex(id))),
  };
}

/** Whether two canonical names are equal (RFC 5280 §7.1). */
export function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((set, at) => set === b[at]);
}

export function isSelfIssued({ issuerName, subjectName }: Certificate): boolean {
  return sameNames(issuerName, subjectName);
}

/** For messages: the subject, or else the first alternative name, or else the serial number. */
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
