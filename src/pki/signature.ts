/**
 * Makes and checks signatures through Node, with the schemes of `scheme.ts`.
 *
 * The way to a thread of libuv's pool and back takes 50 µs of processor time, 160 µs when the thread has slept. What takes
 * no more than a third of a millisecond itself is computed on the spot: signing with P-256 (30 µs), Ed25519 (45 µs), Ed448
 * (0.2 ms) and RSA of 2,048 bits (0.3 ms), checking theirs and those of RSA up to 4,096 bits (25 to 110 µs). The rest, from
 * P-384 (0.8 ms) to signing with RSA of 4,096 bits (4 ms), goes to the pool, where it holds up no other negotiation.
 */
import { constants, type KeyObject, sign as nodeSign, verify as nodeVerify } from 'node:crypto';
import { equalBytes } from '../base/bytes.ts';
import type { Certificate } from './certificate.ts';
import { fitsKey, type HashName, type SignatureScheme } from './scheme.ts';

/** What is hashed on the spot, bytes: any certificate, but no list of revocations. Some 15 µs. */
const MAX_QUICK_DATA = 20 * 1024;
const MAX_QUICK_RSA_BITS = { sign: 2048, verify: 4096 } as const;
/** A longer exponent takes up to four times as long, and a peer chooses it. */
const MAX_QUICK_RSA_EXPONENT = 65_537n;

/** Whether the signature is right. `false` too for keys and signatures that Node refuses to work with. */
export function verifySignature(
  scheme: SignatureScheme,
  key: KeyObject,
  data: Uint8Array,
  signature: Uint8Array,
): Promise<boolean> {
  if (!fitsKey(scheme, key) || !hasLength(scheme, key, signature)) return Promise.resolve(false);
  const options = { key, ...nodeOptions(scheme) };
  if (data.length <= MAX_QUICK_DATA && isQuickKey(key, 'verify')) {
    try {
      return Promise.resolve(nodeVerify(hashOf(scheme), data, options, signature));
    } catch {
      return Promise.resolve(false);
    }
  }
  return new Promise((resolve) => {
    nodeVerify(hashOf(scheme), data, options, signature, (error, ok) => {
      resolve(error === null && ok);
    });
  });
}

/** RFC 8017 §8.1.2: an RSA signature is as long as the modulus; OpenSSL does without leading zeros in RSASSA-PSS. */
function hasLength({ kind }: SignatureScheme, key: KeyObject, { length }: Uint8Array): boolean {
  if (kind !== 'rsa-pkcs1' && kind !== 'rsa-pss') return true;
  return length === Math.ceil((key.asymmetricKeyDetails?.modulusLength ?? 0) / 8);
}

/** The promise is rejected when the key cannot sign so. */
export async function makeSignature(scheme: SignatureScheme, key: KeyObject, data: Uint8Array): Promise<Uint8Array> {
  const options = { key, ...nodeOptions(scheme) };
  if (data.length <= MAX_QUICK_DATA && isQuickKey(key, 'sign'))
    return new Uint8Array(nodeSign(hashOf(scheme), data, options));
  return await new Promise((resolve, reject) => {
    nodeSign(hashOf(scheme), data, options, (error, signature) => {
      if (error === null) resolve(new Uint8Array(signature));
      else reject(error);
    });
  });
}

function isQuickKey(
  { asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject,
  use: 'sign' | 'verify',
): boolean {
  switch (type) {
    case 'ed25519':
    case 'ed448':
      return true;
    case 'ec':
      return details?.namedCurve === 'prime256v1';
    case 'rsa':
    case 'rsa-pss': {
      const { modulusLength = Number.POSITIVE_INFINITY, publicExponent = 0n } = details ?? {};
      return modulusLength <= MAX_QUICK_RSA_BITS[use] && publicExponent <= MAX_QUICK_RSA_EXPONENT;
    }
    default:
      return false;
  }
}

function hashOf(scheme: SignatureScheme): HashName | undefined {
  return 'hash' in scheme ? scheme.hash : undefined;
}

interface NodeOptions {
  padding?: number;
  saltLength?: number;
  dsaEncoding?: 'der' | 'ieee-p1363';
}

function nodeOptions(scheme: SignatureScheme): NodeOptions {
  switch (scheme.kind) {
    case 'rsa-pkcs1':
      return { padding: constants.RSA_PKCS1_PADDING };
    case 'rsa-pss':
      return { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: scheme.saltLength };
    case 'ecdsa':
      return { dsaEncoding: scheme.fixed ? 'ieee-p1363' : 'der' };
    default:
      return {};
  }
}

/**
 * SubjectPublicKeyInfo of the key that a certificate was found to be signed with. That is a fact about its bytes and that
 * key, which no time or policy changes; all else that a path must be is looked at each time.
 * BOUNDED: by the certificates that are kept, one key each.
 */
const signedWith = new WeakMap<Certificate, Uint8Array>();

/** Whether the key of `issuer` signed `certificate`, with the scheme of its own that the caller has found to be taken. */
export async function isSignedBy(
  certificate: Certificate,
  issuer: Certificate,
  scheme: SignatureScheme,
): Promise<boolean> {
  const known = signedWith.get(certificate);
  if (known !== undefined && equalBytes(known, issuer.publicKeyInfo)) return true;
  if (!(await verifySignature(scheme, issuer.publicKey, certificate.tbs, certificate.signature))) return false;
  signedWith.set(certificate, issuer.publicKeyInfo);
  return true;
}
