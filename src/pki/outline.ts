/**
 * The first look at a certificate (RFC 5280 §4.1): strict DER of sane size, and where its parts are. Nothing is decoded and
 * nothing is built from the content of the parts: a peer that has proved nothing must not cost more. What the parts say is
 * read by `certificate.ts`.
 */
import type { KeyObject } from 'node:crypto';
import { checkDer, DerTag, derChildren, derContents } from '../base/asn1/der.ts';
import {
  MAX_ALGORITHM,
  MAX_CERTIFICATE,
  MAX_CERTIFICATE_ELEMENTS,
  MAX_CHAIN_ELEMENTS,
  MAX_KEY_INFO,
  MAX_NAME,
  MAX_SERIAL,
} from '../base/asn1/x509-limits.ts';
import { equalBytes } from '../base/bytes.ts';
import { MalformedCertificateError, readingCertificate } from './malformed.ts';
import { readPublicKey } from './public-key.ts';
import { readSigned } from './signed.ts';

/** Views into a certificate, each with its tag and length where nothing else is said. */
export interface Outline {
  readonly der: Uint8Array;
  /** The part that is signed. */
  readonly tbs: Uint8Array;
  /** 1 to 3. */
  readonly version: number;
  /** Its contents. */
  readonly serial: Uint8Array;
  readonly issuer: Uint8Array;
  readonly validity: Uint8Array;
  readonly subject: Uint8Array;
  readonly publicKeyInfo: Uint8Array;
  /** The sequence of extensions. */
  readonly extensions: Uint8Array | undefined;
  readonly signatureAlgorithm: Uint8Array;
  /** Its bytes. */
  readonly signature: Uint8Array;
  /**
   * Of `publicKeyInfo`, read when it is asked for first: that takes longer than to check a signature.
   * @throws MalformedCertificateError when it is not a usable key
   */
  readonly publicKey: () => KeyObject;
}

/** How many DER elements may still be looked at: of a certificate, and of all that one message brings. */
export class ElementAllowance {
  #ofAll: number = MAX_CHAIN_ELEMENTS;
  #ofOne: number = MAX_CERTIFICATE_ELEMENTS;

  /** What follows is of another certificate. */
  next(): void {
    this.#ofOne = MAX_CERTIFICATE_ELEMENTS;
  }

  /** Goes through an element and counts its parts. @throws DecodeError when it is no DER, or has more parts than are left */
  check(der: Uint8Array): void {
    const elements = checkDer(der, Math.min(this.#ofOne, this.#ofAll));
    this.#ofOne -= elements;
    this.#ofAll -= elements;
  }
}

/** @throws MalformedCertificateError, whatever the bytes are */
export function outlineCertificate(der: Uint8Array, allowance: ElementAllowance = new ElementAllowance()): Outline {
  if (der.length > MAX_CERTIFICATE) {
    throw new MalformedCertificateError(`a certificate of ${der.length} bytes; the limit is ${MAX_CERTIFICATE}`);
  }
  return readingCertificate(() => {
    allowance.next();
    allowance.check(der);
    const { tbs, signatureAlgorithm, signature, more } = readSigned(der);
    if (more.length > 0) throw new Error('it has more than three parts');
    const { algorithm, ...fields } = readFields(tbs);
    atMost('its signature algorithm', signatureAlgorithm, MAX_ALGORITHM);
    if (!equalBytes(algorithm, signatureAlgorithm)) {
      throw new MalformedCertificateError('its two signature algorithms differ (RFC 5280 §4.1.1.2)');
    }
    const publicKey = readOnce(fields.publicKeyInfo);
    return { der, tbs, ...fields, signatureAlgorithm, signature, publicKey };
  });
}

function readOnce(publicKeyInfo: Uint8Array): () => KeyObject {
  let key: KeyObject | undefined;
  return () => {
    key ??= readingCertificate(() => readPublicKey(publicKeyInfo));
    return key;
  };
}

type Fields = Omit<Outline, 'der' | 'tbs' | 'signatureAlgorithm' | 'signature' | 'publicKey'> & {
  readonly algorithm: Uint8Array;
};

/** Tags of what may be left out: the version, unique identifiers of version 2, extensions. */
const VERSION = 0xa0;
const UNIQUE_IDS: readonly number[] = [0x81, 0x82];
const EXTENSIONS = 0xa3;

function readFields(tbs: Uint8Array): Fields {
  const fields = derChildren(tbs, DerTag.SEQUENCE);
  // The version has a tag of its own, and is left out when it is 1.
  const version = fields[0]?.[0] === VERSION ? readVersion(fields.shift()!) : 1;
  const [serial, algorithm, issuer, validity, subject, publicKeyInfo, ...rest] = fields;
  if (serial?.[0] !== DerTag.INTEGER || algorithm === undefined || issuer === undefined || validity === undefined) {
    throw new MalformedCertificateError(
      'not an X.509 certificate: its serial number, algorithm, issuer or validity is missing',
    );
  }
  if (subject === undefined || publicKeyInfo === undefined) {
    throw new MalformedCertificateError('not an X.509 certificate: its subject or key is missing');
  }
  while (UNIQUE_IDS.includes(rest[0]?.[0] ?? -1)) rest.shift();
  const wrapped = rest[0]?.[0] === EXTENSIONS ? rest.shift() : undefined;
  if (rest.length > 0) throw new MalformedCertificateError('not an X.509 certificate: it has an extra part');
  if (wrapped !== undefined && version < 3) {
    throw new MalformedCertificateError(`it has extensions, but its version is ${version} (RFC 5280 §4.1.2.1)`);
  }
  atMost('its issuer', issuer, MAX_NAME);
  atMost('its subject', subject, MAX_NAME);
  atMost('its key', publicKeyInfo, MAX_KEY_INFO);
  return {
    version,
    serial: readSerial(serial),
    algorithm,
    issuer,
    validity,
    subject,
    publicKeyInfo,
    extensions: wrapped && onlyExtensions(wrapped),
  };
}

function readVersion(wrapped: Uint8Array): number {
  const [value] = derChildren(wrapped, VERSION);
  const number = value?.[0] === DerTag.INTEGER && value.length === 3 ? value[2]! : -1;
  if (number < 0 || number > 2) throw new MalformedCertificateError('its version is not 1, 2 or 3');
  return number + 1;
}

/** A leading zero that keeps a number positive is not counted. */
function readSerial(element: Uint8Array): Uint8Array {
  const serial = derContents(element);
  const { length } = serial[0] === 0 ? serial.subarray(1) : serial;
  if (length <= MAX_SERIAL) return serial;
  throw new MalformedCertificateError(
    `its serial number has ${length} octets; the limit is ${MAX_SERIAL} (RFC 5280 §4.1.2.2)`,
  );
}

function onlyExtensions(wrapped: Uint8Array): Uint8Array {
  const [list, ...more] = derChildren(wrapped, EXTENSIONS);
  if (list === undefined || more.length > 0) throw new MalformedCertificateError('its extensions are not a sequence');
  return list;
}

function atMost(what: string, { length }: Uint8Array, most: number): void {
  if (length > most) throw new MalformedCertificateError(`${what} has ${length} bytes; the limit is ${most}`);
}
