/**
 * The response to our IKE_AUTH (RFC 7296 §1.2, §2.15): authenticates the peer, with a secret or a verdict that the owner may
 * be asked for, and then takes the IKE SA and its first CHILD SA into use.
 */
import { formatTypedIdentity, sameIdentity } from '../../base/identity.ts';
import { settleNewcomer } from '../duplicates.ts';
import type { VerificationAnswer } from '../events.ts';
import { failureFrom, findError } from '../failure.ts';
import { verifyPskAuth } from '../keys/auth.ts';
import { singlePair, want } from '../session/child-request.ts';
import { failSession, installChild } from '../session/lifecycle.ts';
import type { IkeSession } from '../session/session.ts';
import type { AuthResponse, FirstChild, StateOf } from '../session/state.ts';
import { AuthMethodId, authMethodName, NotifyType } from '../wire/iana.ts';
import { findPayload } from '../wire/payload.ts';
import type { NotifyPayload } from '../wire/payloads/notify.ts';
import { askVerdict, formatVerdict, signedBy } from './authentication.ts';
import { acceptAnswer } from './child-exchange.ts';
import { DeleteChildTask, rejectPeer } from './delete.ts';
import { settleSuccessor, TakeOverTask } from './successor.ts';

type Verifying = StateOf<'verifying'>;

/**
 * Verifies the peer by what we have, or asks the owner.
 * @param secret the pre-shared key that we authenticated with; `undefined` when we signed
 */
export function judgePeer(
  session: IkeSession,
  now: number,
  response: AuthResponse,
  secret: Uint8Array | undefined,
): void {
  const { id: wanted, auth: method } = response.attempt.config.remote;
  const { localId, remoteId } = response.peers;
  const used = findPayload(response.payloads, 'auth')!.method;
  if (wanted !== undefined && !sameIdentity(wanted, remoteId)) {
    reject(session, now, response, `${formatTypedIdentity(wanted)} is required`);
  } else if (method === 'signature') {
    const { payloads, crypto, setUp } = response;
    const asked = askVerdict(session, { side: 'responder', localId, remoteId, payloads, crypto, setUp });
    if (typeof asked === 'string') reject(session, now, response, asked);
    else wait(session, now, response, asked);
  } else if (used !== AuthMethodId.SHARED_KEY) {
    const found = authMethodName(used);
    reject(session, now, response, `method not allowed: it authenticates with ${found}; a pre-shared key is required`);
  } else if (secret !== undefined) {
    checkSecret(session, now, response, secret);
  } else {
    wait(session, now, response, session.registry.ask(session, { type: 'need-secret', localId, remoteId }));
  }
}

function wait(session: IkeSession, now: number, response: AuthResponse, requestId: number): void {
  session.timers.set('give-up', now + session.env.limits.halfOpenTimeout);
  const { attempt, crypto } = response;
  session.enter({ name: 'verifying', attempt, crypto, requestId, response });
}

/** Goes on with the secret that the owner was asked for. */
export function answerPeerSecret(
  session: IkeSession,
  now: number,
  { response }: Verifying,
  secret: Uint8Array | undefined,
): void {
  if (secret !== undefined) checkSecret(session, now, response, secret);
  else reject(session, now, response, 'no pre-shared key is configured for the two', 'no-secret');
}

/** Goes on with the owner's verdict on the peer's signature and certificates. */
export function answerPeerVerdict(
  session: IkeSession,
  now: number,
  { response }: Verifying,
  verdict: VerificationAnswer,
): void {
  if (verdict.ok) settle(session, now, response);
  else reject(session, now, response, formatVerdict(verdict));
}

/** The owner's answer did not come in time. */
export function expireVerification(session: IkeSession, now: number, { response }: Verifying): void {
  const [what, reason] =
    response.peers.credential === 'certificate'
      ? (['verdict on its certificate', 'no-verdict'] as const)
      : (['pre-shared key', 'no-secret'] as const);
  reject(session, now, response, `the ${what} did not arrive in time`, reason);
}

function checkSecret(session: IkeSession, now: number, response: AuthResponse, secret: Uint8Array): void {
  const { payloads, peers, crypto, setUp } = response;
  const parts = signedBy('responder', peers.remoteId, crypto, setUp);
  const { data } = findPayload(payloads, 'auth')!;
  if (verifyPskAuth(session.env.crypto, crypto.suite.prf, secret, parts, data)) settle(session, now, response);
  else reject(session, now, response, 'the identities match, but the pre-shared keys differ');
}

/** The peer is authenticated: from here on what it sent is believed. */
function settle(session: IkeSession, now: number, response: AuthResponse): void {
  const { attempt, payloads, peers, crypto, setUp, first } = response;
  const error = findError(payloads);
  if (error?.notify === NotifyType.INVALID_SYNTAX) {
    failAsMalformed(session, now, error, { childless: first !== undefined && setUp.childless });
    return;
  }
  session.establish(now, { config: attempt.config, crypto, peers, replaces: undefined });
  session.announce(attempt.reauthenticates);
  if (first !== undefined) finishChild(session, now, response, first);
  settleNewcomer(session, now, { initialContact: false });
  session.registry.bringUp(now, session, attempt.wanted);
  if (attempt.successorOf !== undefined) settleSuccessor(session, now, attempt.successorOf);
  if (attempt.reauthenticates !== undefined) session.enqueue(now, new TakeOverTask(attempt.reauthenticates));
}

function reject(
  session: IkeSession,
  now: number,
  { peers }: AuthResponse,
  why: string,
  reason: 'AUTHENTICATION_FAILED' | 'no-secret' | 'no-verdict' = 'AUTHENTICATION_FAILED',
): void {
  const [ours, theirs] = [peers.localId, peers.remoteId].map(formatTypedIdentity);
  session.env.count('authentication-failed');
  rejectPeer(session, now, { reason, detail: `we are ${ours}, the peer identifies itself as ${theirs}; ${why}` });
}

/**
 * To the peer our request was malformed, so it has no IKE SA, whatever else it answered (RFC 7296 §2.21.2). Some peers say so
 * of any CHILD SA in IKE_AUTH.
 * @param childless the peer can do without one (RFC 6023): the next attempt leaves it out
 */
export function failAsMalformed(
  session: IkeSession,
  now: number,
  error: NotifyPayload,
  { childless }: { readonly childless: boolean },
): void {
  if (childless) session.env.goChildless(session.connectionName);
  const next = childless ? '; the next attempt, at once, makes the CHILD SA in an exchange of its own' : '';
  const said = `it found the request malformed and has dropped the IKE SA${next}`;
  failSession(session, now, { ...failureFrom(error, said, 'ike-sa'), again: childless });
}

/** RFC 7296 §1.2: when the child is refused, the IKE SA is up nevertheless. */
function finishChild(
  session: IkeSession,
  now: number,
  { attempt, payloads, setUp }: AuthResponse,
  { request, offer }: FirstChild,
): void {
  const outcome = acceptAnswer(session, now, offer, { payloads, nonces: setUp.nonces });
  if (outcome.ok) {
    installChild(session, now, outcome.child, { sendNow: true });
    // What the peer narrowed away is requested next. For SAs that packets call for, the next packet does that.
    if (request.trigger === undefined) want(attempt.wanted, [request]);
    return;
  }
  const narrower = singlePair(request, findError(payloads)?.notify);
  if (narrower !== undefined) want(attempt.wanted, [narrower]);
  else session.fail(outcome.failure, { child: offer.ask.config, part: offer.ask.part, initiator: true });
  if (outcome.created) session.enqueue(now, new DeleteChildTask(offer.spiIn, 'failed'));
}
