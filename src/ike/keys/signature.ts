/**
 * Signatures in IKE_AUTH, as far as the protocol knows of them: which methods both sides have (RFC 7427 §4, RFC 8420), what
 * the AUTH payload holds (RFC 7427 §3), which certificates and authorities were sent (RFC 7296 §3.6, §3.7). Keys,
 * certificates and trust are the owner's.
 */

import { DerTag, derChildren } from '../../base/asn1/der.ts';
import {
  MAX_CERTIFICATE,
  MAX_CHAIN,
  MAX_CHAIN_BYTES,
  MAX_PEER_CRL,
  MAX_PEER_CRL_BYTES,
  MAX_PEER_CRLS,
} from '../../base/asn1/x509-limits.ts';
import { ByteReader, concatBytes, DecodeError, toHex } from '../../base/bytes.ts';
import type { ConnectionConfig } from '../config.ts';
import type { ReceivedAuth, SignatureMethods } from '../events.ts';
import {
  AuthMethodId,
  authMethodName,
  CertEncoding,
  certEncodingName,
  HashAlgorithm,
  hashName,
  NotifyType,
} from '../wire/iana.ts';
import { findNotify, type Payload } from '../wire/payload.ts';
import type { AuthPayload } from '../wire/payloads/auth.ts';
import type { CertPayload } from '../wire/payloads/cert.ts';
import { type NotifyPayload, notifyPayload } from '../wire/payloads/notify.ts';

/** What we verify, and so what a peer may sign with. SHA-1 is not among it. */
const OUR_HASHES: readonly number[] = [
  HashAlgorithm.SHA2_256,
  HashAlgorithm.SHA2_384,
  HashAlgorithm.SHA2_512,
  HashAlgorithm.IDENTITY,
];
/** More than IANA has numbers for. */
const MAX_HASHES = 32;

/** Whether either side of a connection signs. */
export function usesSignatures({ local, remote }: ConnectionConfig): boolean {
  return local.auth === 'signature' || remote.auth === 'signature';
}

export function hashAlgorithmsNotify(): NotifyPayload {
  const data = Uint8Array.from(OUR_HASHES.flatMap((hash) => [hash >>> 8, hash]));
  return notifyPayload(NotifyType.SIGNATURE_HASH_ALGORITHMS, data);
}

/** The hash algorithms that the peer verifies; `undefined` when it has only the methods from before RFC 7427. */
export function hashAlgorithmsOf(payloads: readonly Payload[]): readonly number[] | undefined {
  const notify = findNotify(payloads, NotifyType.SIGNATURE_HASH_ALGORITHMS);
  if (notify === undefined) return undefined;
  const reader = new ByteReader(notify.data);
  const hashes: number[] = [];
  while (reader.remaining >= 2 && hashes.length < MAX_HASHES) hashes.push(reader.u16());
  return hashes;
}

/** Methods from before RFC 7427 whose hash is known by their number (RFC 4754 §3). */
const ECDSA_METHODS: readonly number[] = [
  AuthMethodId.ECDSA_SHA256_P256,
  AuthMethodId.ECDSA_SHA384_P384,
  AuthMethodId.ECDSA_SHA512_P521,
];

/** What may be sent to a peer with these hash algorithms; a text, for people, when there is nothing in common. */
export function methodsFor(peerHashes: readonly number[] | undefined): SignatureMethods | string {
  if (peerHashes === undefined) return { authMethods: [AuthMethodId.RSA_SIGNATURE, ...ECDSA_METHODS], hashes: [] };
  const hashes = OUR_HASHES.filter((hash) => peerHashes.includes(hash));
  if (hashes.length > 0) return { authMethods: [AuthMethodId.DIGITAL_SIGNATURE], hashes };
  return `the peer verifies signatures only with ${names(peerHashes)}; one of ${names(OUR_HASHES)} is required`;
}

const names = (hashes: readonly number[]): string =>
  hashes.length === 0 ? 'no hash' : hashes.map(hashName).join(', ');

/**
 * The AUTH payload for a signature.
 * @param algorithm with method 14 the AlgorithmIdentifier, DER, sent behind its length of one byte (RFC 7427 §3)
 * @returns `undefined` where that is missing, or too long
 */
export function signatureAuth(
  authMethod: number,
  algorithm: Uint8Array | undefined,
  signature: Uint8Array,
): AuthPayload | undefined {
  if (authMethod !== AuthMethodId.DIGITAL_SIGNATURE) return { type: 'auth', method: authMethod, data: signature };
  if (algorithm === undefined || algorithm.length === 0 || algorithm.length > 0xff) return undefined;
  const data = concatBytes(Uint8Array.of(algorithm.length), algorithm, signature);
  return { type: 'auth', method: authMethod, data };
}

export function certificatePayloads(certificates: readonly Uint8Array[]): CertPayload[] {
  return certificates.map((data) => ({ type: 'cert', encoding: CertEncoding.X509_SIGNATURE, data }));
}

/** Bytes of a SHA-1 hash. */
const AUTHORITY = 20;
/** Authorities that are asked for, and of those that a peer asks for are looked at. */
const MAX_AUTHORITIES = 256;

/** CERTREQ for a peer of one of these connections; none where none of them trusts any authority. */
export function certificateRequests(configs: readonly ConnectionConfig[], max: number = MAX_AUTHORITIES): Payload[] {
  const asked = new Map<string, Uint8Array>();
  // Thousands of connections may share the list of one.
  const lists = new Set(configs.map(({ remote }) => (remote.auth === 'signature' ? remote.authorities : undefined)));
  for (const list of lists) {
    for (const authority of list ?? []) {
      if (asked.size < max) asked.set(toHex(authority), authority);
    }
  }
  if (asked.size === 0) return [];
  return [{ type: 'certreq', encoding: CertEncoding.X509_SIGNATURE, authorities: concatBytes(...asked.values()) }];
}

/** The authorities that a peer trusts, as its CERTREQ payloads say. Copies. */
export function authoritiesOf(payloads: readonly Payload[]): readonly Uint8Array[] {
  const asked: Uint8Array[] = [];
  for (const payload of payloads) {
    if (payload.type !== 'certreq' || payload.encoding !== CertEncoding.X509_SIGNATURE) continue;
    for (let at = 0; at + AUTHORITY <= payload.authorities.length && asked.length < MAX_AUTHORITIES; at += AUTHORITY) {
      asked.push(payload.authorities.slice(at, at + AUTHORITY));
    }
  }
  return asked;
}

type Certificates =
  | { readonly ok: true; readonly certificates: readonly Uint8Array[]; readonly crls: readonly Uint8Array[] }
  | { readonly ok: false; readonly detail: string };

/** What came in CERT payloads; `detail` says, for people, what cannot be worked with. */
function certificatesOf(payloads: readonly Payload[]): Certificates {
  const refuse = (detail: string): Certificates => ({ ok: false, detail });
  const certificates: Uint8Array[] = [];
  const crls: Uint8Array[] = [];
  const others = new Set<number>();
  for (const payload of payloads) {
    if (payload.type !== 'cert') continue;
    if (payload.encoding === CertEncoding.X509_SIGNATURE) certificates.push(payload.data);
    else if (payload.encoding === CertEncoding.CRL) crls.push(payload.data);
    else others.add(payload.encoding);
  }
  const tooMuch =
    exceeding('certificate', certificates, MAX_CHAIN, MAX_CERTIFICATE, MAX_CHAIN_BYTES) ??
    exceeding('CRL', crls, MAX_PEER_CRLS, MAX_PEER_CRL, MAX_PEER_CRL_BYTES);
  if (tooMuch !== undefined) return refuse(tooMuch);
  // RFC 7296 §3.6: hash and URL only where HTTP_CERT_LOOKUP_SUPPORTED was sent, which we never do.
  if (certificates.length === 0 && others.size > 0) {
    const found = [...others].map(certEncodingName).join(', ');
    return refuse(`no certificate: it came as ${found}, X509_SIGNATURE is required`);
  }
  return { ok: true, certificates, crls };
}

/** What of a list is more than is looked at, for people. */
function exceeding(
  what: string,
  list: readonly Uint8Array[],
  most: number,
  mostBytes: number,
  mostOfAll: number,
): string | undefined {
  if (list.length > most) return `${list.length} ${what}s; no more than ${most} are looked at`;
  const largest = Math.max(0, ...list.map(({ length }) => length));
  if (largest > mostBytes) return `a ${what} of ${largest} bytes; no more than ${mostBytes} are looked at`;
  const sum = list.reduce((bytes, { length }) => bytes + length, 0);
  return sum > mostOfAll ? `${what}s of ${sum} bytes; no more than ${mostOfAll} are looked at` : undefined;
}

type FoundCredentials =
  | { readonly ok: true; readonly auth: Omit<ReceivedAuth, 'id' | 'octets' | 'from'> }
  | { readonly ok: false; readonly detail: string };

/**
 * A peer's signature and what came with it, before anything of it is believed.
 * @param digital both sides sent SIGNATURE_HASH_ALGORITHMS
 */
export function findCredentials(
  payloads: readonly Payload[],
  { method, data }: AuthPayload,
  { digital }: { readonly digital: boolean },
): FoundCredentials {
  const refused = digital ? refusedMethod(method) : refusedOldMethod(method);
  if (refused !== undefined) return { ok: false, detail: `method not allowed: ${refused}` };
  const parts =
    method === AuthMethodId.DIGITAL_SIGNATURE ? splitSignature(data) : { algorithm: undefined, signature: data };
  if (typeof parts === 'string') return { ok: false, detail: `method not allowed: ${parts}` };
  if (parts.signature.length === 0) return { ok: false, detail: 'signature wrong: it is empty' };
  const found = certificatesOf(payloads);
  if (!found.ok) return found;
  const { certificates, crls } = found;
  return { ok: true, auth: { certificates, crls, authMethod: method, ...parts } };
}

function refusedMethod(method: number): string | undefined {
  if (method === AuthMethodId.DIGITAL_SIGNATURE || ECDSA_METHODS.includes(method)) return undefined;
  // It does not name its hash, which is mostly SHA-1. A peer with RFC 7427 does not need it.
  return `${authMethodName(method)}; DIGITAL_SIGNATURE was agreed on`;
}

function refusedOldMethod(method: number): string | undefined {
  if (method === AuthMethodId.RSA_SIGNATURE || ECDSA_METHODS.includes(method)) return undefined;
  const found = authMethodName(method);
  return method === AuthMethodId.DIGITAL_SIGNATURE
    ? `${found} without SIGNATURE_HASH_ALGORITHMS from both sides`
    : `${found}; a signature is required`;
}

interface SignatureParts {
  readonly algorithm: Uint8Array;
  readonly signature: Uint8Array;
}

/** RFC 7427 §3. A text when there is no AlgorithmIdentifier, or one with a hash that was not offered. */
function splitSignature(data: Uint8Array): SignatureParts | string {
  const length = data[0] ?? 0;
  if (length === 0 || 1 + length > data.length) return 'a digital signature without AlgorithmIdentifier';
  const algorithm = data.subarray(1, 1 + length);
  const hash = hashOf(algorithm);
  if (hash === undefined) return `a digital signature by an algorithm that is not known: 0x${toHex(algorithm)}`;
  if (!OUR_HASHES.includes(hash)) return `a digital signature with ${hashName(hash)}, which was not offered`;
  return { algorithm, signature: data.subarray(1 + length) };
}

const RSASSA_PSS = '2a864886f70d01010a';
/** Object identifiers of signature algorithms (RFC 7427 appendix A, RFC 8420) and of the hash in each. */
const SIGNATURE_HASHES: ReadonlyMap<string, number> = new Map([
  ['2a864886f70d010105', HashAlgorithm.SHA1], // sha1WithRSAEncryption
  ['2a864886f70d01010b', HashAlgorithm.SHA2_256],
  ['2a864886f70d01010c', HashAlgorithm.SHA2_384],
  ['2a864886f70d01010d', HashAlgorithm.SHA2_512],
  ['2a8648ce3d0401', HashAlgorithm.SHA1], // ecdsa-with-SHA1
  ['2a8648ce3d040302', HashAlgorithm.SHA2_256],
  ['2a8648ce3d040303', HashAlgorithm.SHA2_384],
  ['2a8648ce3d040304', HashAlgorithm.SHA2_512],
  ['2a8648ce380403', HashAlgorithm.SHA1], // dsa-with-sha1
  ['2b6570', HashAlgorithm.IDENTITY], // Ed25519
  ['2b6571', HashAlgorithm.IDENTITY], // Ed448
]);
/** Hash algorithms in the parameters of RSASSA-PSS (RFC 4055 §2.1). */
const PSS_HASHES: ReadonlyMap<string, number> = new Map([
  ['2b0e03021a', HashAlgorithm.SHA1],
  ['608648016503040201', HashAlgorithm.SHA2_256],
  ['608648016503040202', HashAlgorithm.SHA2_384],
  ['608648016503040203', HashAlgorithm.SHA2_512],
]);
/** [0] EXPLICIT, the hash of RSASSA-PSS; SHA-1 where it is left out (RFC 4055 §3.1). */
const PSS_HASH_TAG = 0xa0;

/** The hash in an AlgorithmIdentifier; whether the rest of it is as it must be the verifier says. */
function hashOf(algorithm: Uint8Array): number | undefined {
  try {
    const [oid, parameters] = derChildren(algorithm, DerTag.SEQUENCE);
    const name = oidOf(oid);
    if (name !== RSASSA_PSS) return name === undefined ? undefined : SIGNATURE_HASHES.get(name);
    if (parameters === undefined) return undefined;
    const tagged = derChildren(parameters, DerTag.SEQUENCE).find(([tag]) => tag === PSS_HASH_TAG);
    if (tagged === undefined) return HashAlgorithm.SHA1;
    const [identifier] = derChildren(tagged, PSS_HASH_TAG);
    const [hash] = identifier === undefined ? [] : derChildren(identifier, DerTag.SEQUENCE);
    return PSS_HASHES.get(oidOf(hash) ?? '');
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}

/** The value of an object identifier, in hexadecimal. */
function oidOf(element: Uint8Array | undefined): string | undefined {
  return element?.[0] === DerTag.OBJECT_IDENTIFIER ? toHex(element.subarray(2)) : undefined;
}
