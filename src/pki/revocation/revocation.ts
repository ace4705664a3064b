/**
 * Whether certificates of a trusted path were revoked, by lists at hand and by what is asked over the network.
 *
 * Any source that reports a certificate as revoked counts. OCSP is asked first where it is wanted, also about a certificate that a list at
 * hand does not have: a peer may send a list along from before it was revoked. Lists are fetched where OCSP did not know.
 */
import type { Certificate } from '../certificate.ts';
import { type Refusal, revocationRefusal } from '../path.ts';
import { type RevocationStatus, revocationStatus } from './crl.ts';
import type { Occasion, OnlineRevocation } from './online.ts';

/** What is asked over the network, and through whom. */
export interface OnlineSources {
  readonly through: OnlineRevocation;
  readonly ocsp: boolean;
  readonly lists: boolean;
}

/** What is known of each certificate of a path but the trusted one, which is the last. Never throws. */
export async function revocationOf(
  path: readonly Certificate[],
  occasion: Occasion,
  sources: OnlineSources | undefined,
): Promise<readonly RevocationStatus[]> {
  return await Promise.all(
    path.slice(0, -1).map((certificate, at) => statusOf(certificate, path[at + 1]!, occasion, sources)),
  );
}

async function statusOf(
  certificate: Certificate,
  issuer: Certificate,
  occasion: Occasion,
  sources: OnlineSources | undefined,
): Promise<RevocationStatus> {
  const { crls, now, clockSkew } = occasion;
  const atHand = await revocationStatus(certificate, issuer, crls, now, clockSkew);
  if (atHand.status === 'revoked' || sources === undefined) return atHand;
  const { through, ocsp, lists } = sources;
  const why: string[] = [];
  for (const asked of [ocsp && through.ask.bind(through), lists && through.list.bind(through)]) {
    if (asked === false) continue;
    const found = await asked(certificate, issuer, occasion);
    if (found.status !== 'unknown') return found;
    why.push(found.detail);
  }
  return atHand.status === 'good' ? atHand : { status: 'unknown', detail: [...why, atHand.detail].join('; ') };
}

/** Why a peer is not believed. A certificate that was revoked says more than one of which that is not known. */
export function refusalOf(
  path: readonly Certificate[],
  found: readonly RevocationStatus[],
  policy: 'strict' | 'ifpresent',
): Refusal | undefined {
  const refusals = found.flatMap((status, at) => revocationRefusal(path[at]!, status, policy) ?? []);
  return refusals.find(({ reason }) => reason === 'revoked') ?? refusals[0];
}
