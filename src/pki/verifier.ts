/**
 * Verifies a peer's authentication: the signature, the path of its certificate, its identity, and whether it is allowed.
 */
import type { KeyObject } from 'node:crypto';
import { formatDn } from '../base/asn1/dn-text.ts';
import {
  MAX_CHAIN,
  MAX_CHAIN_BYTES,
  MAX_PEER_CRL,
  MAX_PEER_CRL_BYTES,
  MAX_PEER_CRLS,
} from '../base/asn1/x509-limits.ts';
import { authorityHash, type Certificate, describeCertificate } from './certificate.ts';
import { CertificateCache, ownOutline } from './certificate-cache.ts';
import { describeIdentity, matchesDnPattern, provenIdentities, provesIdentity } from './identity.ts';
import { MalformedCertificateError } from './malformed.ts';
import { authSchemes } from './methods.ts';
import { ElementAllowance, type Outline } from './outline.ts';
import { type PathOptions, type Refusal, refuse, validatePath } from './path.ts';
import { type Crl, parseCrl } from './revocation/crl.ts';
import { type OnlineSources, refusalOf, revocationOf } from './revocation/revocation.ts';
import { keyProblem } from './scheme.ts';
import { verifySignature } from './signature.ts';
import type { PeerAuth, Verdict, Verifier } from './types.ts';

/** How far the clocks of others may be off, milliseconds. */
const CLOCK_SKEW = 5 * 60_000;
/** Characters of a subject that a refusal names. */
const MAX_QUOTED = 256;

/** Whom a `pathVerifier` trusts, and what it demands. */
export interface VerifierOptions {
  /** Certificates of the authorities that are trusted. */
  readonly anchors: readonly Certificate[];
  /** Certificates of authorities between, which peers may leave out. */
  readonly intermediates?: readonly Certificate[] | undefined;
  readonly crls?: readonly Crl[] | undefined;
  /** What becomes of a certificate that no list speaks of. Default: `ifpresent`, it is taken. */
  readonly crlPolicy?: PathOptions['crlPolicy'] | undefined;
  /** What is asked over the network; nothing where it is left out. */
  readonly online?: OnlineSources | undefined;
  /** Patterns over the subject, one of which must fit; empty for any. */
  readonly allowedDns?: readonly string[] | undefined;
  /** Whether a common name proves a host name where there is no alternative name. Default: no. */
  readonly allowCommonName?: boolean | undefined;
  /** Whether SHA-1 is taken in certificates and in AUTH. Default: no. */
  readonly allowSha1?: boolean | undefined;
  /** `ike`: an extended key usage must be one of RFC 4945 §5.1.3.12. Default: `ignore`. */
  readonly extendedKeyUsage?: PathOptions['extendedKeyUsage'] | undefined;
  /** Milliseconds. Default: five minutes. */
  readonly clockSkew?: number | undefined;
}

/** A verifier that wants a valid path from the peer's certificate to one of the trust anchors (RFC 5280 §6). */
export function pathVerifier(options: VerifierOptions): Verifier {
  const cache = new CertificateCache();
  return {
    authorities: options.anchors.map(authorityHash),
    verify: (auth) => judgeAuth(auth, options, cache),
  };
}

/**
 * Verifies one peer, as the verifier of `pathVerifier` does.
 * @param cache of what was read before with the same options
 * @param onWaiting called when all is done but what is asked over the network, if anything is
 */
export async function judgeAuth(
  auth: PeerAuth,
  options: VerifierOptions,
  cache: CertificateCache,
  onWaiting?: () => void,
): Promise<Verdict> {
  try {
    return await judge(auth, options, cache, onWaiting);
  } catch (error) {
    if (error instanceof MalformedCertificateError) {
      return refuse('malformed-certificate', `the peer sent a certificate that cannot be read: ${error.message}`);
    }
    throw error;
  }
}

/**
 * The signature comes first: a peer that does not have the key of the certificate that it sent has nothing else read. Of
 * the certificates sizes alone are looked at before, and of its own the key.
 */
async function judge(
  auth: PeerAuth,
  options: VerifierOptions,
  cache: CertificateCache,
  onWaiting: (() => void) | undefined,
): Promise<Verdict> {
  const [own, ...sent] = auth.certificates;
  if (own === undefined) return refuse('no-certificate', 'the peer signed but sent no certificate');
  const tooMuch = tooManyCertificates(auth);
  if (tooMuch !== undefined) return refuse('too-many-certificates', tooMuch);
  const allowance = new ElementAllowance();
  const known = cache.find(own);
  const outline = known === undefined ? ownOutline(own, allowance) : undefined;
  const key = outline?.publicKey() ?? known!.publicKey;
  const wrong = await checkSignature(outline ?? known!, key, auth, options);
  if (wrong !== undefined) return wrong;
  const leaf = known ?? cache.read(outline!, allowance);
  const others = sent.map((der) => cache.parse(der, allowance));
  // What more there is to know of revocation is looked at last of all: nothing is fetched for a peer that is not
  // believed, and no lists of its own are read, which are long.
  const more = options.online !== undefined || auth.crls.length > 0;
  const wanted = pathOptions(others, auth.now, options);
  const path = await validatePath(leaf, more ? { ...wanted, crlPolicy: 'ifpresent' } : wanted);
  if (!path.ok) return path;
  const mismatch = checkIdentity(leaf, auth, options);
  if (mismatch !== undefined) return mismatch;
  if (options.online !== undefined) onWaiting?.();
  const revoked = more ? await checkRevocation(path.path, auth, wanted, options.online) : undefined;
  return revoked ?? { ok: true, subject: formatDn(leaf.subject) ?? '', validUntil: path.validUntil };
}

/** Which limit the certificates exceed, for people. */
function tooManyCertificates({ certificates }: PeerAuth): string | undefined {
  const { length } = certificates;
  if (length > MAX_CHAIN) return `the peer sent ${length} certificates; the limit is ${MAX_CHAIN}`;
  const bytes = certificates.reduce((sum, der) => sum + der.length, 0);
  if (bytes <= MAX_CHAIN_BYTES) return undefined;
  return `the peer sent certificates of ${bytes} bytes; the limit is ${MAX_CHAIN_BYTES}`;
}

/** By the lists at hand, those of the peer, and what is asked over the network. */
async function checkRevocation(
  path: readonly Certificate[],
  { crls }: PeerAuth,
  wanted: PathOptions,
  online: OnlineSources | undefined,
): Promise<Refusal | undefined> {
  const occasion = { ...wanted, crls: [...wanted.crls, ...peerCrls(crls)] };
  return refusalOf(path, await revocationOf(path, occasion, online), wanted.crlPolicy);
}

/** The policy of a verifier for a path. */
function pathOptions(others: readonly Certificate[], now: number, options: VerifierOptions): PathOptions {
  return {
    anchors: options.anchors,
    intermediates: [...others, ...(options.intermediates ?? [])],
    crls: options.crls ?? [],
    crlPolicy: options.crlPolicy ?? 'ifpresent',
    now,
    clockSkew: options.clockSkew ?? CLOCK_SKEW,
    allowSha1: options.allowSha1 ?? false,
    extendedKeyUsage: options.extendedKeyUsage ?? 'ignore',
  };
}

/** Lists that cannot be read, or are too long, are ignored: a peer need not send any. */
function peerCrls(list: readonly Uint8Array[]): Crl[] {
  let left = MAX_PEER_CRL_BYTES;
  return list.slice(0, MAX_PEER_CRLS).flatMap((der) => {
    if (der.length > Math.min(left, MAX_PEER_CRL)) return [];
    left -= der.length;
    try {
      return [parseCrl(der)];
    } catch {
      return [];
    }
  });
}

function checkIdentity(leaf: Certificate, { id }: PeerAuth, options: VerifierOptions): Refusal | undefined {
  const identityOptions = { allowCommonName: options.allowCommonName ?? false };
  if (!provesIdentity(leaf, id, identityOptions)) {
    const proven = provenIdentities(leaf, identityOptions).map(describeIdentity).join('; ');
    return refuse(
      'identity-mismatch',
      `the peer identifies itself as ${describeIdentity(id)}, but its certificate proves only: ${proven || 'nothing'}`,
    );
  }
  const allowed = options.allowedDns ?? [];
  if (allowed.length === 0 || allowed.some((pattern) => matchesDnPattern(leaf.subject, pattern))) return undefined;
  const patterns = allowed.map((pattern) => `'${pattern}'`).join(', ');
  return refuse('not-allowed', `${describeCertificate(leaf)} matches none of the allowed names: ${patterns}`);
}

/** With the key alone of the peer's certificate, of which nothing is believed. */
async function checkSignature(
  own: Subject,
  key: KeyObject,
  auth: PeerAuth,
  options: VerifierOptions,
): Promise<Refusal | undefined> {
  const weak = keyProblem(key);
  if (weak !== undefined) return refuse('weak-key', `${formatSubject(own)} has ${weak}`);
  const found = authSchemes(auth.authMethod, auth.algorithm, key, { allowSha1: options.allowSha1 });
  if ('refused' in found) return refuse('method-refused', `the peer authenticates with ${found.refused}`);
  for (const scheme of found.schemes) {
    if (await verifySignature(scheme, key, auth.octets, auth.signature)) return undefined;
  }
  return refuse('bad-signature', `the signature was not made with the key of ${formatSubject(own)}`);
}

type Subject = Pick<Outline, 'subject'>;

/** For the message of a refusal. */
function formatSubject({ subject }: Subject): string {
  const text = formatDn(subject);
  return text === undefined || text === '' ? 'the certificate it sent' : `'${text.slice(0, MAX_QUOTED)}'`;
}
