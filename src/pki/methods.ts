/**
 * The signature methods of IKEv2: which of them a key can do, and what an AUTH payload that a peer sent means (RFC 7427,
 * RFC 8420; the older methods of RFC 7296 §3.8 and RFC 4754 for peers without them).
 */
import type { KeyObject } from 'node:crypto';
import {
  algorithmName,
  algorithmOf,
  CURVES,
  fitsKey,
  HASH_LENGTH,
  type HashName,
  type SignatureScheme,
  schemeName,
  schemeOf,
  usesSha1,
} from './scheme.ts';
import type { SignatureMethod } from './types.ts';

/** IKEv2 authentication methods (RFC 7296 §3.8, RFC 4754 §7, RFC 7427 §7). */
const RSA_SIGNATURE = 1;
const FIRST_ECDSA = 9;
const DIGITAL_SIGNATURE = 14;

/** Numbers in SIGNATURE_HASH_ALGORITHMS (RFC 7427 §7, RFC 8420 §3). */
const HASH_ID: Readonly<Record<HashName, number>> = { sha1: 1, sha256: 2, sha384: 3, sha512: 4 };
const IDENTITY_HASH = 5;

/** RFC 4754 §3: each curve has one hash. */
const CURVE_HASH: readonly HashName[] = ['sha256', 'sha384', 'sha512'];
const CURVE_BITS: readonly number[] = [256, 384, 521];

const STRONG: readonly HashName[] = ['sha256', 'sha384', 'sha512'];

/** Whether to use SHA-1 with peers that support nothing else. */
export interface MethodOptions {
  readonly allowSha1?: boolean | undefined;
}

/** What the key can do, the preferred first: RFC 7427 before the rest, the hash of the key's own strength before others. */
export function methodsOf(key: KeyObject, options: MethodOptions = {}): readonly SignatureMethod[] {
  switch (key.asymmetricKeyType) {
    case 'rsa': {
      const digital = [...STRONG.map(pss), ...STRONG.map(pkcs1)].map(digitalMethod);
      // RFC 7296 §3.8 does not name the hash; all peers accept SHA-1.
      return [...digital, options.allowSha1 === true ? rsaMethod('sha1') : rsaMethod('sha256')];
    }
    case 'rsa-pss':
      return STRONG.map(pss).map(digitalMethod);
    case 'ec': {
      const at = CURVES.indexOf(key.asymmetricKeyDetails?.namedCurve ?? '');
      const own = CURVE_HASH[at];
      if (own === undefined) return [];
      const hashes = [own, ...STRONG.filter((hash) => hash !== own)];
      return [...hashes.map((hash) => digitalMethod({ kind: 'ecdsa', hash, fixed: false })), ecdsaMethod(at)];
    }
    case 'ed25519':
    case 'ed448':
      return [digitalMethod({ kind: key.asymmetricKeyType })];
    default:
      return [];
  }
}

const pss = (hash: HashName): SignatureScheme => ({ kind: 'rsa-pss', hash, saltLength: HASH_LENGTH[hash] });
const pkcs1 = (hash: HashName): SignatureScheme => ({ kind: 'rsa-pkcs1', hash });

function digitalMethod(scheme: SignatureScheme): SignatureMethod {
  return {
    name: schemeName(scheme),
    authMethod: DIGITAL_SIGNATURE,
    hash: 'hash' in scheme ? HASH_ID[scheme.hash] : IDENTITY_HASH,
    algorithm: algorithmOf(scheme),
  };
}

function rsaMethod(hash: HashName): SignatureMethod {
  return { name: `rsa-signature-${hash}`, authMethod: RSA_SIGNATURE, hash: undefined, algorithm: undefined };
}

function ecdsaMethod(curve: number): SignatureMethod {
  const name = `ecdsa-${CURVE_BITS[curve]}`;
  return { name, authMethod: FIRST_ECDSA + curve, hash: undefined, algorithm: undefined };
}

/** What an AUTH payload of a peer may be: the schemes to try in turn, or why it is not looked at. */
export type AuthSchemes = { readonly schemes: readonly SignatureScheme[] } | { readonly refused: string };

/** @param algorithm DER, with method 14 only */
export function authSchemes(
  authMethod: number,
  algorithm: Uint8Array | undefined,
  key: KeyObject,
  options: MethodOptions = {},
): AuthSchemes {
  switch (authMethod) {
    case DIGITAL_SIGNATURE:
      return digitalSchemes(algorithm ?? new Uint8Array(0), key);
    case RSA_SIGNATURE:
      if (key.asymmetricKeyType !== 'rsa') return { refused: wrongKey('an RSA signature', key) };
      return { schemes: (options.allowSha1 === true ? [...STRONG, 'sha1' as const] : STRONG).map(pkcs1) };
    default: {
      const curve = authMethod - FIRST_ECDSA;
      const hash = CURVE_HASH[curve];
      if (hash === undefined) return { refused: `authentication method ${authMethod}: not a signature method` };
      if (key.asymmetricKeyDetails?.namedCurve !== CURVES[curve]) {
        return { refused: wrongKey(`an ECDSA signature for P-${CURVE_BITS[curve]}`, key) };
      }
      return { schemes: [{ kind: 'ecdsa', hash, fixed: true }] };
    }
  }
}

function digitalSchemes(algorithm: Uint8Array, key: KeyObject): AuthSchemes {
  const scheme = schemeOf(algorithm);
  if (scheme === undefined) return { refused: `a digital signature with ${algorithmName(algorithm)}` };
  // Also where SHA-1 is allowed: it is for peers without RFC 7427, and never announced to those with it.
  if (usesSha1(scheme)) {
    return { refused: `a digital signature with ${schemeName(scheme)}: we did not offer SHA-1` };
  }
  if (scheme.kind === 'rsa-pss' && scheme.saltLength !== HASH_LENGTH[scheme.hash]) {
    const wanted = `${HASH_LENGTH[scheme.hash]}, the length of the hash, is required`;
    return {
      refused: `a digital signature with ${schemeName(scheme)} and a salt of ${scheme.saltLength} bytes; ${wanted}`,
    };
  }
  if (!fitsKey(scheme, key)) return { refused: wrongKey(`a digital signature with ${schemeName(scheme)}`, key) };
  return { schemes: [scheme] };
}

function wrongKey(what: string, { asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): string {
  const curve = details?.namedCurve === undefined ? '' : ` on ${details.namedCurve}`;
  return `${what}, but the key of the certificate is ${type}${curve}`;
}

/** The scheme behind one of our own methods. */
export function schemeOfMethod({ authMethod, algorithm, name }: SignatureMethod): SignatureScheme | undefined {
  if (authMethod === DIGITAL_SIGNATURE) return algorithm && schemeOf(algorithm);
  if (authMethod === RSA_SIGNATURE) return pkcs1(name.endsWith('sha1') ? 'sha1' : 'sha256');
  const hash = CURVE_HASH[authMethod - FIRST_ECDSA];
  return hash && { kind: 'ecdsa', hash, fixed: true };
}
