/** What the owner's answers do to the IKE SA that asked: who waits for one depends on its state. */
import type { SignatureAnswer, VerificationAnswer } from './events.ts';
import { failSession } from './session/lifecycle.ts';
import type { IkeSession } from './session/session.ts';
import { beginAuth } from './tasks/auth.ts';
import { answerSecret, answerSignature, answerVerdict } from './tasks/auth-responder.ts';
import { answerPeerSecret, answerPeerVerdict } from './tasks/auth-response.ts';
import { signaturePayloads } from './tasks/authentication.ts';

export function secretCame(session: IkeSession, now: number, secret: Uint8Array | undefined): void {
  const { state } = session;
  if (state.name === 'authenticating') answerSecret(session, now, state, secret);
  else if (state.name === 'verifying') answerPeerSecret(session, now, state, secret);
  else if (state.name === 'credentials-wanted') {
    if (secret !== undefined) beginAuth(session, now, state, { kind: 'psk', secret });
    else failSession(session, now, { reason: 'no-secret', detail: 'there is no pre-shared key for the connection' });
  }
}

export function signatureCame(session: IkeSession, now: number, answer: SignatureAnswer): void {
  const { state } = session;
  if (state.name === 'authenticating') answerSignature(session, now, state, answer);
  else if (state.name === 'credentials-wanted') {
    const payloads = signaturePayloads(answer, state.setUp);
    if (typeof payloads !== 'string') beginAuth(session, now, state, { kind: 'signature', payloads });
    else failSession(session, now, { reason: 'no-signature', detail: `we cannot sign: ${payloads}` });
  }
}

export function verdictCame(session: IkeSession, now: number, verdict: VerificationAnswer): void {
  const { state } = session;
  if (state.name === 'authenticating') answerVerdict(session, now, state, verdict);
  else if (state.name === 'verifying') answerPeerVerdict(session, now, state, verdict);
}
