/**
 * What both roles of IKE_AUTH have in common (RFC 7296 §2.15): what a side signs, and the questions about signatures and
 * certificates that the owner answers.
 */
import type { Identity } from '../../base/identity.ts';
import type { SignatureAnswer, VerificationAnswer } from '../events.ts';
import { type SignedParts, signedOctets } from '../keys/auth.ts';
import type { IkeCrypto } from '../keys/ike-crypto.ts';
import { certificatePayloads, findCredentials, methodsFor, signatureAuth } from '../keys/signature.ts';
import type { IkeSession } from '../session/session.ts';
import type { SetUp } from '../session/state.ts';
import { findPayload, type Payload } from '../wire/payload.ts';

type Side = 'initiator' | 'responder';

/** Payloads are views into a datagram that is not ours to keep. */
export function copyIdentity({ type, data }: Identity): Identity {
  return { type, data: data.slice() };
}

/** What the AUTH payload of a side is computed over. */
export function signedBy(side: Side, identity: Identity, crypto: IkeCrypto, setUp: SetUp): SignedParts {
  return side === 'initiator'
    ? { initMessage: setUp.initRequest, peerNonce: setUp.nonces.responder, skP: crypto.keys.pi, identity }
    : { initMessage: setUp.initResponse, peerNonce: setUp.nonces.initiator, skP: crypto.keys.pr, identity };
}

/** The side of IKE_AUTH that a question is about, and what its AUTH is computed from. */
interface Authentication {
  /** Whose AUTH it is. */
  readonly side: Side;
  readonly localId: Identity;
  readonly crypto: IkeCrypto;
  readonly setUp: SetUp;
}

/**
 * Asks the owner to sign for us.
 * @param authorities those that the peer asked for certificates of
 * @returns the request's id; a text, for people, when the peer verifies no signature of ours
 */
export function askSignature(
  session: IkeSession,
  ours: Authentication & { readonly remoteId: Identity | undefined },
  authorities: readonly Uint8Array[],
): number | string {
  const { side, localId, remoteId, crypto, setUp } = ours;
  const accepted = methodsFor(setUp.peerHashes);
  if (typeof accepted === 'string') return accepted;
  const { env, registry } = session;
  const octets = signedOctets(env.crypto, crypto.suite.prf, signedBy(side, localId, crypto, setUp));
  return registry.ask(session, { type: 'need-signature', localId, remoteId, octets, accepted, authorities });
}

/** CERT and AUTH payloads of what the owner answered; a text, for people, when the peer could do nothing with it. */
export function signaturePayloads(answer: SignatureAnswer, setUp: SetUp): readonly Payload[] | string {
  if (!answer.ok) return answer.detail;
  const { authMethod, algorithm, signature, certificates } = answer;
  const accepted = methodsFor(setUp.peerHashes);
  const auth = signatureAuth(authMethod, algorithm, signature);
  if (typeof accepted === 'string' || !accepted.authMethods.includes(authMethod) || auth === undefined) {
    return `a signature by method ${authMethod}, which the peer does not take`;
  }
  return [...certificatePayloads(certificates), auth];
}

/**
 * Asks the owner to verify the credentials of a peer. The side is the peer's.
 * @returns the request's id; a text, for people, when there is nothing to judge
 */
export function askVerdict(
  session: IkeSession,
  theirs: Authentication & { readonly remoteId: Identity; readonly payloads: readonly Payload[] },
): number | string {
  const { side, localId, remoteId, payloads, crypto, setUp } = theirs;
  const found = findCredentials(payloads, findPayload(payloads, 'auth')!, { digital: setUp.peerHashes !== undefined });
  if (!found.ok) return found.detail;
  const { env, registry } = session;
  const octets = signedOctets(env.crypto, crypto.suite.prf, signedBy(side, remoteId, crypto, setUp));
  const from = session.askedFrom.remote.address;
  return registry.ask(session, {
    type: 'need-verification',
    localId,
    auth: { ...found.auth, id: remoteId, octets, from },
  });
}

/** `not trusted: …` */
export function formatVerdict({ reason, detail }: Extract<VerificationAnswer, { readonly ok: false }>): string {
  return `${reason.replaceAll('-', ' ')}: ${detail}`;
}
