/**
 * Ways to sign, by the DER of their AlgorithmIdentifier (RFC 4055, 5758, 8410; the list of RFC 7427 appendix A), and the
 * keys that can and may be used with them.
 *
 * An AlgorithmIdentifier is known when it is, byte by byte, one of those that are listed here; only RSASSA-PSS has
 * parameters, and each of them is checked.
 */
import type { KeyObject } from 'node:crypto';
import { DerTag, derChildren, derElement } from '../base/asn1/der.ts';
import { DecodeError, fromHex, toHex } from '../base/bytes.ts';

export type HashName = 'sha1' | 'sha256' | 'sha384' | 'sha512';

export type SignatureScheme =
  | { readonly kind: 'rsa-pkcs1'; readonly hash: HashName }
  | { readonly kind: 'rsa-pss'; readonly hash: HashName; readonly saltLength: number }
  /** The signature is a DER sequence, or with `fixed` r and s one behind the other (RFC 4754 §3). */
  | { readonly kind: 'ecdsa'; readonly hash: HashName; readonly fixed: boolean }
  | { readonly kind: 'ed25519' | 'ed448' };

export const HASH_LENGTH: Readonly<Record<HashName, number>> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 };

/** Contents of object identifiers, hexadecimal. */
const HASH_OID: Readonly<Record<HashName, string>> = {
  sha1: '2b0e03021a',
  sha256: '608648016503040201',
  sha384: '608648016503040202',
  sha512: '608648016503040203',
};
const RSASSA_PSS = '2a864886f70d01010a';
const MGF1 = '2a864886f70d010108';
const NULL = Uint8Array.of(DerTag.NULL, 0);

const oid = (hex: string): Uint8Array => derElement(DerTag.OBJECT_IDENTIFIER, fromHex(hex));
const identifier = (hex: string, ...parameters: Uint8Array[]): Uint8Array =>
  derElement(DerTag.SEQUENCE, oid(hex), ...parameters);

/** Those without parameters to read: RSA's are null, the others' left out. */
const FIXED: readonly { readonly der: Uint8Array; readonly scheme: SignatureScheme }[] = [
  { der: identifier('2a864886f70d010105', NULL), scheme: { kind: 'rsa-pkcs1', hash: 'sha1' } },
  { der: identifier('2a864886f70d01010b', NULL), scheme: { kind: 'rsa-pkcs1', hash: 'sha256' } },
  { der: identifier('2a864886f70d01010c', NULL), scheme: { kind: 'rsa-pkcs1', hash: 'sha384' } },
  { der: identifier('2a864886f70d01010d', NULL), scheme: { kind: 'rsa-pkcs1', hash: 'sha512' } },
  { der: identifier('2a8648ce3d0401'), scheme: { kind: 'ecdsa', hash: 'sha1', fixed: false } },
  { der: identifier('2a8648ce3d040302'), scheme: { kind: 'ecdsa', hash: 'sha256', fixed: false } },
  { der: identifier('2a8648ce3d040303'), scheme: { kind: 'ecdsa', hash: 'sha384', fixed: false } },
  { der: identifier('2a8648ce3d040304'), scheme: { kind: 'ecdsa', hash: 'sha512', fixed: false } },
  { der: identifier('2b6570'), scheme: { kind: 'ed25519' } },
  { der: identifier('2b6571'), scheme: { kind: 'ed448' } },
];
const byDer: ReadonlyMap<string, SignatureScheme> = new Map(FIXED.map(({ der, scheme }) => [toHex(der), scheme]));

/** Refused algorithms that have a name in messages; the others are shown by their object identifier. */
const REFUSED: ReadonlyMap<string, string> = new Map([
  ['2a864886f70d010102', 'md2WithRSAEncryption'],
  ['2a864886f70d010104', 'md5WithRSAEncryption'],
  ['2a864886f70d01010e', 'sha224WithRSAEncryption'],
  ['2a8648ce380403', 'dsa-with-sha1'],
  ['608648016503040302', 'dsa-with-sha256'],
]);

/** Hash identifiers come with a null and without (RFC 4055 §2.1): both are right. */
const hashIdentifiers: ReadonlyMap<string, HashName> = new Map(
  (Object.keys(HASH_OID) as HashName[]).flatMap((hash) => [
    [toHex(identifier(HASH_OID[hash], NULL)), hash] as const,
    [toHex(identifier(HASH_OID[hash])), hash] as const,
  ]),
);

/** Whether the scheme hashes with SHA-1, which is accepted only where a document says so. */
export function usesSha1(scheme: SignatureScheme): boolean {
  return 'hash' in scheme && scheme.hash === 'sha1';
}

/** The scheme, `undefined` for one that is not known or not written as it must be. */
export function schemeOf(algorithm: Uint8Array): SignatureScheme | undefined {
  return byDer.get(toHex(algorithm)) ?? pssScheme(algorithm);
}

/** All three parameters, since their defaults are SHA-1's; one hash for message and mask; no trailer but the default. */
function pssScheme(algorithm: Uint8Array): SignatureScheme | undefined {
  try {
    const [type, parameters, ...more] = derChildren(algorithm, DerTag.SEQUENCE);
    if (type === undefined || toHex(type) !== toHex(oid(RSASSA_PSS)) || parameters === undefined || more.length > 0) {
      return undefined;
    }
    const [hashPart, maskPart, saltPart, ...others] = derChildren(parameters, DerTag.SEQUENCE);
    if (hashPart === undefined || maskPart === undefined || saltPart === undefined || others.length > 0)
      return undefined;
    const hash = hashIdentifiers.get(toHex(onlyChild(hashPart, 0xa0)));
    const [maskType, maskHash, ...rest] = derChildren(onlyChild(maskPart, 0xa1), DerTag.SEQUENCE);
    if (hash === undefined || maskType === undefined || maskHash === undefined || rest.length > 0) return undefined;
    if (toHex(maskType) !== toHex(oid(MGF1)) || hashIdentifiers.get(toHex(maskHash)) !== hash) return undefined;
    const salt = onlyChild(saltPart, 0xa2);
    // An integer of one or two bytes, not negative.
    if (salt[0] !== DerTag.INTEGER || salt.length > 4 || salt[2]! >= 0x80) return undefined;
    const saltLength = salt.subarray(2).reduce((value, byte) => value * 256 + byte, 0);
    return { kind: 'rsa-pss', hash, saltLength };
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}

function onlyChild(der: Uint8Array, tag: number): Uint8Array {
  const [child, ...more] = derChildren(der, tag);
  if (child === undefined || more.length > 0) throw new DecodeError('bad-value', 0, 'one element is required');
  return child;
}

/** DER of the AlgorithmIdentifier, as RFC 7427 appendix A prints it. */
export function algorithmOf(scheme: SignatureScheme): Uint8Array {
  if (scheme.kind !== 'rsa-pss') {
    const name = schemeName(scheme);
    return FIXED.find((entry) => schemeName(entry.scheme) === name)!.der;
  }
  const hash = identifier(HASH_OID[scheme.hash], NULL);
  return identifier(
    RSASSA_PSS,
    derElement(
      DerTag.SEQUENCE,
      derElement(0xa0, hash),
      derElement(0xa1, identifier(MGF1, hash)),
      derElement(0xa2, derElement(DerTag.INTEGER, Uint8Array.of(scheme.saltLength))),
    ),
  );
}

/** `rsa-pss-sha256`, `ed25519` */
export function schemeName(scheme: SignatureScheme): string {
  return 'hash' in scheme ? `${scheme.kind}-${scheme.hash}` : scheme.kind;
}

/** For messages: what an AlgorithmIdentifier says, also when it is not one that we take. */
export function algorithmName(algorithm: Uint8Array): string {
  const scheme = schemeOf(algorithm);
  if (scheme !== undefined) return schemeName(scheme);
  const hex = toHex(algorithm.subarray(0, 32));
  // Tag and length of the sequence, tag and length of the object identifier.
  const length = algorithm[3] ?? 0;
  const found = toHex(algorithm.subarray(4, 4 + length));
  if (found === RSASSA_PSS) return `rsa-pss with unsupported parameters (${hex})`;
  return REFUSED.get(found) ?? `algorithm ${hex}`;
}

/** Keys are used for nothing but what their type says. */
export function fitsKey(scheme: SignatureScheme, key: KeyObject): boolean {
  switch (key.asymmetricKeyType) {
    case 'rsa':
      return scheme.kind === 'rsa-pkcs1' || scheme.kind === 'rsa-pss';
    case 'rsa-pss':
      return scheme.kind === 'rsa-pss';
    case 'ec':
      return scheme.kind === 'ecdsa';
    default:
      return scheme.kind === key.asymmetricKeyType;
  }
}

const MIN_RSA_BITS = 2048;
/** OpenSSL takes long over longer ones, and an exponent of that length: a peer chooses both. */
const MAX_RSA_BITS = 8192;
const MAX_RSA_EXPONENT = 0xffff_ffffn;
/** Keys longer than that take the usual exponent alone: the time grows with the square of the one and with the other. */
const MAX_BITS_OF_LONG_EXPONENT = 4096;
const USUAL_RSA_EXPONENT = 65_537n;
/** Node's names of P-256, P-384 and P-521. */
export const CURVES: readonly string[] = ['prime256v1', 'secp384r1', 'secp521r1'];

/** Why a key is refused; `undefined` for one that is accepted. */
export function keyProblem(key: KeyObject): string | undefined {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details = {} } = key;
  switch (type) {
    case 'rsa':
    case 'rsa-pss': {
      const { modulusLength: bits = 0, publicExponent: exponent = 0n } = details;
      if (bits < MIN_RSA_BITS) return `an RSA key of ${bits} bits; the minimum is ${MIN_RSA_BITS}`;
      if (bits > MAX_RSA_BITS) return `an RSA key of ${bits} bits; the limit is ${MAX_RSA_BITS}`;
      if (exponent < 3n || exponent % 2n === 0n || exponent > MAX_RSA_EXPONENT) {
        return `an RSA key with the exponent ${exponent}; 65537 is usual`;
      }
      if (bits > MAX_BITS_OF_LONG_EXPONENT && exponent > USUAL_RSA_EXPONENT) {
        return `an RSA key of ${bits} bits with the exponent ${exponent}; above 4096 bits the limit is 65537`;
      }
      return undefined;
    }
    case 'ec': {
      const curve = details.namedCurve ?? 'that is not named';
      if (CURVES.includes(curve)) return undefined;
      return `a key on the curve ${curve}; use P-256, P-384 or P-521`;
    }
    case 'ed25519':
    case 'ed448':
      return undefined;
    default:
      return `a key of type ${type}; use RSA, ECDSA, Ed25519 or Ed448`;
  }
}
