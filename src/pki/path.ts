/**
 * Path validation (RFC 5280 §6): from a peer's certificate over those that came with it to a trusted one. Every
 * refusal says why, in words.
 *
 * Looser than RFC 4945: extended key usage is checked only on request (strongSwan does not check it
 * either, and libvirt's certificates have serverAuth or clientAuth); an identity in the subject need not be in a SAN
 * as well. Stricter than RFC 5280: SHA-1 and short keys are refused. Policies are not processed: a
 * certificate that constrains them critically is refused, like one with any other unsupported critical extension.
 */

import { formatDn } from '../base/asn1/dn-text.ts';
import { MAX_CHAIN } from '../base/asn1/x509-limits.ts';
import { listSome } from '../base/text.ts';
import { type Certificate, describeCertificate, isSelfIssued, KeyUsage, sameNames } from './certificate.ts';
import type { NameSubtrees } from './general-name.ts';
import { MalformedCertificateError } from './malformed.ts';
import { constraintProblem } from './name-constraints.ts';
import { type Crl, type RevocationStatus, revocationStatus } from './revocation/crl.ts';
import { algorithmName, keyProblem, schemeOf, usesSha1 } from './scheme.ts';
import { isSignedBy } from './signature.ts';
import { formatTime } from './time.ts';
import type { RefusalReason } from './types.ts';

/** Certificates that are tried as issuers in one search: names can be equal and form rings. */
const MAX_TRIES = 64;
/** Wrong signatures after which the search ends: more than an authority has keys. */
const MAX_WRONG_SIGNATURES = 6;

/** RFC 4945 §5.1.3.12: IKE's own, any, and the three that were before it. */
const IKE_KEY_PURPOSES = new Set([
  '1.3.6.1.5.5.7.3.17',
  '2.5.29.37.0',
  '1.3.6.1.5.5.7.3.5',
  '1.3.6.1.5.5.7.3.6',
  '1.3.6.1.5.5.7.3.7',
]);

/** How the path from a certificate to a trust anchor is validated (RFC 5280 §6). */
export interface PathOptions {
  readonly anchors: readonly Certificate[];
  /** Certificates that may lead to an anchor; not trusted. */
  readonly intermediates: readonly Certificate[];
  readonly crls: readonly Crl[];
  /** `strict`: every certificate must be known not to be revoked. */
  readonly crlPolicy: 'strict' | 'ifpresent';
  /** Milliseconds since 1970. */
  readonly now: number;
  /** Tolerated difference between clocks, milliseconds. */
  readonly clockSkew: number;
  readonly allowSha1: boolean;
  /** `ike`: an extended key usage must name a purpose of RFC 4945 §5.1.3.12. */
  readonly extendedKeyUsage: 'ignore' | 'ike';
}

export interface Refusal {
  readonly ok: false;
  readonly reason: RefusalReason;
  readonly detail: string;
}

export type PathResult =
  | {
      readonly ok: true;
      /** The peer's first, the trusted one last. */
      readonly path: readonly Certificate[];
      readonly validUntil: number;
    }
  | Refusal;

export function refuse(reason: RefusalReason, detail: string): Refusal {
  return { ok: false, reason, detail };
}

/**
 * Wrong signatures in one search for a path: of authorities with the same name, which are tried in turn,
 * and of certificates that only claim their issuer, which a peer can make in any number.
 */
class WrongSignatures {
  // BOUNDED: MAX_WRONG_SIGNATURES, then the search ends.
  readonly #found = new Map<Certificate, Set<Certificate>>();
  #count = 0;

  get tooMany(): boolean {
    return this.#count >= MAX_WRONG_SIGNATURES;
  }

  has(certificate: Certificate, issuer: Certificate): boolean {
    return this.#found.get(certificate)?.has(issuer) === true;
  }

  add(certificate: Certificate, issuer: Certificate): void {
    this.#count++;
    this.#found.set(certificate, (this.#found.get(certificate) ?? new Set()).add(issuer));
  }
}

/** Never throws for what a peer sent. */
export async function validatePath(leaf: Certificate, options: PathOptions): Promise<PathResult> {
  let found: Refusal | undefined;
  const wrong = new WrongSignatures();
  for (const path of candidatePaths(leaf, options)) {
    if (wrong.tooMany) break;
    const refusal = await checkPath(path, options, wrong);
    if (refusal === undefined) {
      return { ok: true, path, validUntil: Math.min(...path.map(({ notAfter }) => notAfter)) };
    }
    // A wrong signature matters less than a refusal of another path.
    if (found === undefined || found.reason === 'bad-certificate-signature') found = refusal;
  }
  return found ?? untrusted(leaf, options);
}

/** Paths to a trust anchor by their names, the short ones first. */
function* candidatePaths(leaf: Certificate, options: PathOptions): Generator<readonly Certificate[]> {
  // BOUNDED: MAX_TRIES.
  const open: (readonly Certificate[])[] = [[leaf]];
  let tries = 0;
  for (let path = open.shift(); path !== undefined; path = open.shift()) {
    const last = path[path.length - 1]!;
    for (const anchor of options.anchors) {
      if (!mayHaveIssued(anchor, last)) continue;
      if (++tries > MAX_TRIES) return;
      yield [...path, anchor];
    }
    for (const issuer of path.length < MAX_CHAIN - 1 ? options.intermediates : []) {
      if (path.includes(issuer) || !mayHaveIssued(issuer, last)) continue;
      if (++tries > MAX_TRIES) return;
      open.push([...path, issuer]);
    }
  }
}

/** By name, and by key id where both have one. */
function mayHaveIssued(issuer: Certificate, certificate: Certificate): boolean {
  if (!sameNames(issuer.subjectName, certificate.issuerName)) return false;
  const [has, wanted] = [issuer.extensions.subjectKeyId, certificate.extensions.authorityKeyId];
  return has === undefined || wanted === undefined || has === wanted;
}

function untrusted(leaf: Certificate, { anchors, intermediates }: PathOptions): Refusal {
  // As far as it goes without branches: for the message only.
  const chain = [leaf];
  for (let next: Certificate | undefined = leaf; next !== undefined && chain.length < MAX_CHAIN; ) {
    const last: Certificate = next;
    next = intermediates.find((issuer) => !chain.includes(issuer) && mayHaveIssued(issuer, last));
    if (next !== undefined) chain.push(next);
  }
  const top = chain[chain.length - 1]!;
  const trusted = listSome(anchors.map(describeCertificate), 3);
  const issuer = isSelfIssued(top) ? 'itself' : `'${formatDn(top.issuer)}'`;
  const missing = isSelfIssued(top) ? '' : ', and the peer sent no certificate that links it to one of them';
  return refuse(
    'untrusted',
    `${describeCertificate(top)} was issued by ${issuer}, which is not among the trusted authorities (${trusted})${missing}`,
  );
}

/**
 * What is wrong with a path, from the trusted end to the peer's; `undefined` for nothing. Nothing in a certificate is
 * processed before its signature was verified: a forger could make name constraints arbitrarily costly.
 */
async function checkPath(
  path: readonly Certificate[],
  options: PathOptions,
  wrong: WrongSignatures,
): Promise<Refusal | undefined> {
  const last = path.length - 1;
  const constraints: NameSubtrees[] = [];
  let below = Number.POSITIVE_INFINITY;
  for (let at = last; at >= 0; at--) {
    const certificate = path[at]!;
    const issuer = path[at + 1];
    const refusal =
      checkAlone(certificate, options) ??
      (at === 0 ? checkEnd(certificate, options) : checkIssuer(certificate, at === last)) ??
      (issuer && (await checkSigned(certificate, issuer, options, wrong))) ??
      checkKey(certificate) ??
      (at === 0 || !isSelfIssued(certificate) ? checkNames(certificate, constraints) : undefined) ??
      (issuer && (await checkRevoked(certificate, issuer, options)));
    if (refusal !== undefined) return refusal;
    if (at === 0) break;
    // §6.1.4 l, m; the trusted certificate's own constraints hold as well (RFC 5937).
    if (at < last && !isSelfIssued(certificate)) below--;
    if (below < 0) return tooLong(certificate);
    const { basicConstraints, nameConstraints } = certificate.extensions;
    below = Math.min(below, basicConstraints?.pathLength ?? below);
    if (nameConstraints !== undefined) constraints.push(nameConstraints);
  }
  return undefined;
}

function checkNames(certificate: Certificate, constraints: readonly NameSubtrees[]): Refusal | undefined {
  const problem = constraintProblem(certificate, constraints);
  if (problem === undefined) return undefined;
  return refuse('name-constraint', `${describeCertificate(certificate)}: ${problem} by its issuers' name constraints`);
}

function tooLong(certificate: Certificate): Refusal {
  return refuse('path-too-long', `${describeCertificate(certificate)} exceeds the path length that its issuers allow`);
}

/** Requirements for any certificate of a path. */
function checkAlone(certificate: Certificate, { now, clockSkew }: PathOptions): Refusal | undefined {
  const { notBefore, notAfter, extensions } = certificate;
  const of = (reason: RefusalReason, detail: string): Refusal =>
    refuse(reason, `${describeCertificate(certificate)} ${detail}`);
  const [unknown] = extensions.unknownCritical;
  if (unknown !== undefined) {
    return of('unknown-critical-extension', `has the critical extension ${unknown}, which sectunnel does not support`);
  }
  if (notAfter < now - clockSkew)
    return of('expired', `expired on ${formatTime(notAfter)}; the clock says ${formatTime(now)}`);
  if (notBefore > now + clockSkew) {
    return of('not-yet-valid', `is not valid before ${formatTime(notBefore)}; the clock says ${formatTime(now)}`);
  }
  return undefined;
}

/** Before anything is done with it: an issuer's comes before what it signed. */
function checkKey(certificate: Certificate): Refusal | undefined {
  try {
    const weak = keyProblem(certificate.publicKey);
    return weak === undefined ? undefined : refuse('weak-key', `${describeCertificate(certificate)} has ${weak}`);
  } catch (error) {
    if (!(error instanceof MalformedCertificateError)) throw error;
    return refuse('malformed-certificate', `${describeCertificate(certificate)} cannot be read: ${error.message}`);
  }
}

function checkEnd(certificate: Certificate, options: PathOptions): Refusal | undefined {
  const unfit = (what: string): Refusal =>
    refuse('key-usage', `${describeCertificate(certificate)} must not be used for ${what}`);
  const { keyUsage, extendedKeyUsage } = certificate.extensions;
  // RFC 4945 §5.1.3.2.
  if (keyUsage !== undefined && (keyUsage & KeyUsage.anySignature) === 0) {
    return unfit('signatures: its key usage has neither digitalSignature nor nonRepudiation');
  }
  if (options.extendedKeyUsage === 'ike' && extendedKeyUsage?.some((id) => IKE_KEY_PURPOSES.has(id)) === false) {
    return unfit(`IKE: its extended key usage is ${extendedKeyUsage.join(', ')}`);
  }
  return undefined;
}

function checkIssuer(certificate: Certificate, trusted: boolean): Refusal | undefined {
  const none = (why: string): Refusal =>
    refuse('not-an-authority', `${describeCertificate(certificate)} issued a certificate, but it must not: ${why}`);
  const { version, extensions } = certificate;
  // Roots of version 1 cannot state it; the operator did so by trusting one.
  const ca = trusted && version === 1 ? true : extensions.basicConstraints?.ca === true;
  if (!ca) return none('its basic constraints do not name it an authority');
  const { keyUsage } = extensions;
  const mayNot = keyUsage !== undefined && (keyUsage & KeyUsage.keyCertSign) === 0;
  return mayNot ? none('its key usage lacks keyCertSign') : undefined;
}

async function checkSigned(
  certificate: Certificate,
  issuer: Certificate,
  options: PathOptions,
  wrong: WrongSignatures,
): Promise<Refusal | undefined> {
  const { signatureAlgorithm: algorithm } = certificate;
  const weak = (why: string): Refusal =>
    refuse('weak-algorithm', `${describeCertificate(certificate)} is signed with ${algorithmName(algorithm)}${why}`);
  const scheme = schemeOf(algorithm);
  if (scheme === undefined) return weak(', which is not accepted');
  if (usesSha1(scheme) && !options.allowSha1) return weak('; SHA-256 or stronger is required');
  if (!wrong.has(certificate, issuer)) {
    if (await isSignedBy(certificate, issuer, scheme)) return undefined;
    wrong.add(certificate, issuer);
  }
  return refuse(
    'bad-certificate-signature',
    `${describeCertificate(certificate)} was not signed by ${describeCertificate(issuer)}: it was changed, or another authority has the same name`,
  );
}

async function checkRevoked(
  certificate: Certificate,
  issuer: Certificate,
  options: PathOptions,
): Promise<Refusal | undefined> {
  const { crls, crlPolicy, now, clockSkew } = options;
  return revocationRefusal(certificate, await revocationStatus(certificate, issuer, crls, now, clockSkew), crlPolicy);
}

/** What the policy makes of a certificate's revocation status. */
export function revocationRefusal(
  certificate: Certificate,
  found: RevocationStatus,
  policy: PathOptions['crlPolicy'],
): Refusal | undefined {
  if (found.status === 'revoked') {
    return refuse('revoked', `${describeCertificate(certificate)} was revoked ${found.detail}`);
  }
  if (found.status === 'unknown' && policy === 'strict') {
    return refuse(
      'revocation-unknown',
      `whether ${describeCertificate(certificate)} was revoked is not known: ${found.detail} (policy='strict')`,
    );
  }
  return undefined;
}
