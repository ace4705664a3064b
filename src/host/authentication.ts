/** Answers an engine that wants something signed, or a peer's signature judged, with a program's own objects. */
import { hostPrefix } from '../base/address.ts';
import type { Identity } from '../base/identity.ts';
import { messageOf } from '../base/text.ts';
import type { EngineEvent } from '../engine/events.ts';
import type { SignatureAnswer, VerificationAnswer } from '../ike/events.ts';
import type { Credentials, Verifier } from '../pki/types.ts';
import { programBytes } from './program-bytes.ts';

/** What credentials are looked up by, when a peer is to be shown a certificate. */
export interface CredentialsQuestion {
  readonly tunnel: string;
  /** Of the tunnel; a tunnel may have several. */
  readonly connection: string;
  /** Who the certificate must say that we are. */
  readonly localId: Identity;
  readonly remoteId: Identity | undefined;
  /** SHA-1 of the SubjectPublicKeyInfo of authorities that the peer trusts; none where it did not say. */
  readonly authorities: readonly Uint8Array[];
}

/** How a host signs, and verifies its peers, where tunnels authenticate with certificates. */
export interface AuthenticationOptions {
  /** What a tunnel signs with; `undefined` when there is nothing. May take its time, as may the signer. */
  readonly credentialsFor?:
    | ((question: CredentialsQuestion) => Credentials | undefined | Promise<Credentials | undefined>)
    | undefined;
  /**
   * Verifies the peer of a tunnel against the trust anchors of the connection; `undefined` when there is no verifier, so that
   * every peer is refused.
   */
  readonly verifierFor?:
    | ((tunnel: string, connection: string) => Verifier | undefined | Promise<Verifier | undefined>)
    | undefined;
}

type Question<T extends EngineEvent['type']> = Extract<EngineEvent, { readonly type: T }>;

/** Never fails: what cannot be signed is said in the answer. */
export async function signatureFor(
  question: Question<'need-signature'>,
  { credentialsFor }: AuthenticationOptions,
): Promise<SignatureAnswer> {
  try {
    const credentials = await credentialsFor?.(question);
    if (credentials === undefined) return { ok: false, detail: 'there is no certificate and key for it' };
    const { certificates, signer } = credentials;
    const { authMethods, hashes } = question.accepted;
    const method = signer.methods.find(
      ({ authMethod, hash }) => authMethods.includes(authMethod) && (hash === undefined || hashes.includes(hash)),
    );
    if (method === undefined) {
      const ours = signer.methods.map(({ name }) => name).join(', ');
      return { ok: false, detail: `our key can do ${ours}, and the peer takes none of them` };
    }
    const signature = programBytes(await signer.sign(method, question.octets), 'sign');
    const sent = certificates.map((certificate) => programBytes(certificate, 'credentialsFor'));
    return { ok: true, authMethod: method.authMethod, algorithm: method.algorithm, signature, certificates: sent };
  } catch (error) {
    return { ok: false, detail: messageOf(error) };
  }
}

/** Never fails: what cannot be judged is not believed. */
export async function verdictFor(
  question: Question<'need-verification'>,
  { verifierFor }: AuthenticationOptions,
): Promise<VerificationAnswer> {
  try {
    const verifier = await verifierFor?.(question.tunnel, question.connection);
    if (verifier === undefined) return { ok: false, reason: 'not-trusted', detail: 'no authority is trusted here' };
    const { from, ...auth } = question.auth;
    const verdict: unknown = await verifier.verify({ ...auth, source: hostPrefix(from), now: Date.now() });
    if (!isVerdict(verdict)) throw new TypeError("an object whose 'ok' is true or false is required of verify");
    return verdict;
  } catch (error) {
    return { ok: false, reason: 'not-verified', detail: messageOf(error) };
  }
}

/** Whether a verifier said yes or no. Programs need not be in TypeScript: a value that is merely truthy does not count as a yes. */
function isVerdict(verdict: unknown): verdict is VerificationAnswer {
  return typeof verdict === 'object' && verdict !== null && 'ok' in verdict && typeof verdict.ok === 'boolean';
}
