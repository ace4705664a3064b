/**
 * IKE_AUTH as initiator (RFC 7296 §1.2, §2.15, §2.21.2, RFC 6023): identities, AUTH, and the first CHILD SA. Each side proves
 * itself in its own way, with a pre-shared key or a signature. What is the owner's to say may take its time.
 */

import { formatTypedIdentity, type Identity, sameIdentity } from '../../base/identity.ts';
import { secretCopy } from '../../base/secret-bytes.ts';
import type { VerificationAnswer } from '../events.ts';
import { failureFrom, findError, misbehaved } from '../failure.ts';
import { pskAuth, verifyPskAuth } from '../keys/auth.ts';
import { certificateRequests } from '../keys/signature.ts';
import { credentialOf } from '../peers.ts';
import { CAPABILITY_NOTIFIES, capabilitiesAsked } from '../proposals/capabilities.ts';
import { askFor, type ChildAsk, type ChildRequest, singlePair } from '../session/child-request.ts';
import { breakOff, endSession, failSession, installChild } from '../session/lifecycle.ts';
import type { IkeSession } from '../session/session.ts';
import { type IkeCrypto, type SessionState, type SetUp, type Verifying, wipeCrypto } from '../session/state.ts';
import { settleSuccessor } from '../session/successor.ts';
import { AuthMethodId, authMethodName, ExchangeType, NotifyType, notifyName } from '../wire/iana.ts';
import { findPayload, type Payload } from '../wire/payload.ts';
import { type NotifyPayload, notifyPayload } from '../wire/payloads/notify.ts';
import { acceptAnswer } from './child-exchange.ts';
import { type ChildOffer, explainRefusal, makeOffer, offerPayloads } from './child-offer.ts';
import { DeleteChildTask, rejectPeer } from './delete.ts';
import { askSignature, askVerdict, copyIdentity, formatVerdict, signedBy } from './proof.ts';
import type { Task } from './task.ts';

type ProofWanted = Extract<SessionState, { readonly name: 'proof-wanted' }>;

/** What the owner of the task has to prove itself with. */
export type OwnProof =
  | { readonly kind: 'psk'; readonly secret: Uint8Array }
  /** CERT and AUTH payloads. */
  | { readonly kind: 'signature'; readonly payloads: readonly Payload[] };

/** Asks the owner for what we prove ourselves with; IKE_AUTH follows when it has come. */
export function askOwnProof(session: IkeSession, now: number, crypto: IkeCrypto, setUp: SetUp): void {
  const { host } = session;
  const { local, remote } = session.config!;
  let requestId: number | undefined;
  if (local.auth === 'psk') {
    requestId = host.ask(session, { type: 'need-secret', localId: local.id, remoteId: remote.id });
  } else {
    const asked = askSignature(session, 'initiator', local.id, remote.id, crypto, setUp, setUp.authorities);
    if (typeof asked === 'string') {
      wipeCrypto(crypto);
      failSession(session, now, { reason: 'AUTHENTICATION_FAILED', detail: `we are to sign, and ${asked}` });
      return;
    }
    requestId = asked;
  }
  session.timers.set('give-up', now + host.limits.halfOpenTimeout);
  session.enter({ name: 'proof-wanted', crypto, setUp, requestId });
}

/** Sends IKE_AUTH with what the owner answered. */
export function beginAuth(session: IkeSession, now: number, state: ProofWanted, proof: OwnProof): void {
  const { crypto, setUp } = state;
  session.timers.clear('give-up');
  session.enter({ name: 'auth-sent', crypto, setUp });
  session.enqueue(now, new AuthTask(crypto, setUp, session.config!.local.id, proof));
}

export class AuthTask implements Task, Verifying {
  readonly kind = 'auth' as const;
  readonly exchange: ExchangeType = ExchangeType.IKE_AUTH;
  readonly #crypto: IkeCrypto;
  readonly #setUp: SetUp;
  readonly #localId: Identity;
  readonly #proof: OwnProof;
  #offer: ChildOffer | undefined;
  #request: ChildRequest | undefined;
  /** The peer's answer, while its proof is judged. */
  #answer: { readonly payloads: readonly Payload[]; readonly remoteId: Identity } | undefined;

  constructor(crypto: IkeCrypto, setUp: SetUp, localId: Identity, proof: OwnProof) {
    this.#crypto = crypto;
    this.#setUp = setUp;
    this.#localId = localId;
    // Kept to verify the peer's AUTH with, and wiped then.
    this.#proof = proof.kind === 'psk' ? { ...proof, secret: secretCopy(proof.secret) } : proof;
  }

  build(session: IkeSession): readonly Payload[] {
    const config = session.config!;
    const payloads: Payload[] = [{ type: 'idi', identity: this.#localId }];
    if (config.remote.id !== undefined) payloads.push({ type: 'idr', identity: config.remote.id });
    payloads.push(...this.#prove(session), ...certificateRequests([config]));
    // RFC 7296 §2.4: we have no other IKE SA with this peer, so whatever it still has is from before we started.
    if (!session.host.knowsPeer(session, this.#localId)) payloads.push(notifyPayload(NotifyType.INITIAL_CONTACT));
    const ask = this.#setUp.childless && session.host.isChildless(config.name) ? undefined : this.#takeFirst(session);
    if (ask !== undefined) {
      this.#offer = makeOffer(session, ask, 'ike-auth');
      payloads.push(...offerPayloads(this.#offer));
    }
    return payloads;
  }

  /** The first of the children that are wanted; the others follow in exchanges of their own. */
  #takeFirst(session: IkeSession): ChildAsk | undefined {
    for (;;) {
      this.#request = session.wanted.shift();
      if (this.#request === undefined) return undefined;
      const ask = askFor(session, this.#request);
      if (ask !== undefined) return ask;
    }
  }

  #prove({ host, config }: IkeSession): readonly Payload[] {
    const proof = this.#proof;
    if (proof.kind === 'signature') return proof.payloads;
    const parts = signedBy('initiator', this.#localId, this.#crypto, this.#setUp);
    const data = pskAuth(host.crypto, this.#crypto.suite.prf, proof.secret, parts);
    if (config!.remote.auth !== 'psk') this.abandon();
    return [{ type: 'auth', method: AuthMethodId.SHARED_KEY, data }];
  }

  process(session: IkeSession, now: number, payloads: readonly Payload[]): void {
    const auth = findPayload(payloads, 'auth');
    if (auth === undefined) {
      this.#refused(session, now, payloads);
      return;
    }
    const remoteId = copyIdentity(findPayload(payloads, 'idr')!.identity);
    this.#answer = { payloads, remoteId };
    const { id: wanted, auth: method } = session.config!.remote;
    if (wanted !== undefined && !sameIdentity(wanted, remoteId)) {
      this.#reject(session, now, `${formatTypedIdentity(wanted)} was wanted`);
    } else if (method === 'signature') {
      this.#askVerdict(session, now);
    } else if (auth.method !== AuthMethodId.SHARED_KEY) {
      const found = authMethodName(auth.method);
      this.#reject(session, now, `method not allowed: it proves it by ${found}, a pre-shared key was wanted`);
    } else if (this.#proof.kind === 'psk') {
      this.#checkSecret(session, now, this.#proof.secret);
    } else {
      const { host } = session;
      const question = { type: 'need-secret', localId: this.#localId, remoteId } as const;
      this.#wait(session, now, host.ask(session, question));
    }
  }

  #askVerdict(session: IkeSession, now: number): void {
    const { payloads, remoteId } = this.#answer!;
    const asked = askVerdict(session, 'responder', this.#localId, remoteId, payloads, this.#crypto, this.#setUp);
    if (typeof asked === 'string') this.#reject(session, now, asked);
    else this.#wait(session, now, asked);
  }

  #wait(session: IkeSession, now: number, requestId: number): void {
    session.timers.set('give-up', now + session.host.limits.halfOpenTimeout);
    session.enter({ name: 'verifying', crypto: this.#crypto, requestId, step: this });
  }

  secretCame(session: IkeSession, now: number, secret: Uint8Array | undefined): void {
    if (secret === undefined) this.#reject(session, now, 'there is no pre-shared key for the two', 'no-secret');
    else this.#checkSecret(session, now, secret);
  }

  verdictCame(session: IkeSession, now: number, verdict: VerificationAnswer): void {
    if (verdict.ok) this.#settle(session, now);
    else this.#reject(session, now, formatVerdict(verdict));
  }

  expired(session: IkeSession, now: number): void {
    const [what, reason] =
      session.config!.remote.auth === 'signature'
        ? (['verdict on its certificate', 'no-verdict'] as const)
        : (['pre-shared key', 'no-secret'] as const);
    this.#reject(session, now, `the ${what} was asked for and did not come`, reason);
  }

  #checkSecret(session: IkeSession, now: number, secret: Uint8Array): void {
    const { payloads, remoteId } = this.#answer!;
    const parts = signedBy('responder', remoteId, this.#crypto, this.#setUp);
    const { data } = findPayload(payloads, 'auth')!;
    const proven = verifyPskAuth(session.host.crypto, this.#crypto.suite.prf, secret, parts, data);
    if (proven) this.#settle(session, now);
    else this.#reject(session, now, 'the identities fit, its pre-shared key is not ours');
  }

  /** The peer proved who it is: from here on what it sent is believed. */
  #settle(session: IkeSession, now: number): void {
    const { payloads, remoteId } = this.#answer!;
    const error = findError(payloads);
    if (error?.notify === NotifyType.INVALID_SYNTAX) {
      this.#refusedAsMalformed(session, now, error);
      return;
    }
    const credential = credentialOf(session.config!.remote);
    session.establish(now, this.#crypto, { localId: this.#localId, remoteId, credential });
    session.announce();
    this.#finishChild(session, now, payloads);
    this.abandon();
    session.host.established(now, session, false);
    if (session.successorOf !== undefined) settleSuccessor(session, now);
  }

  #reject(
    session: IkeSession,
    now: number,
    why: string,
    reason: 'AUTHENTICATION_FAILED' | 'no-secret' | 'no-verdict' = 'AUTHENTICATION_FAILED',
  ): void {
    const [ours, theirs] = [this.#localId, this.#answer!.remoteId].map(formatTypedIdentity);
    const met = `we are ${ours}, the peer says it is ${theirs}`;
    session.host.count('authentication-failed');
    this.abandon();
    rejectPeer(session, now, { reason, detail: `${met}; ${why}` });
  }

  /**
   * To the peer our request was malformed, so it has no IKE SA, whatever else it answered (RFC 7296 §2.21.2). Some peers say so
   * of any CHILD SA in IKE_AUTH: where they can do without one (RFC 6023) the next attempt does.
   */
  #refusedAsMalformed(session: IkeSession, now: number, error: NotifyPayload): void {
    const childless = this.#offer !== undefined && this.#setUp.childless;
    if (childless) session.host.goChildless(session.connectionName);
    const next = childless ? '; the next attempt, at once, makes the CHILD SA in an exchange of its own' : '';
    this.abandon();
    const said = `the request was malformed to it, and the IKE SA is gone${next}`;
    failSession(session, now, { ...failureFrom(error, said, 'ike-sa'), again: childless });
  }

  #refused(session: IkeSession, now: number, payloads: readonly Payload[]): void {
    const error = findError(payloads);
    if (error?.notify === NotifyType.INVALID_SYNTAX) {
      this.#refusedAsMalformed(session, now, error);
      return;
    }
    this.abandon();
    if (error === undefined) {
      breakOff(session, now, misbehaved('the answer to IKE_AUTH has no AUTH payload'), false);
      return;
    }
    if (this.#offer !== undefined && CHILD_REFUSALS.includes(error.notify)) {
      // Without AUTH there is no IKE SA, as OpenIKED has it; it is the CHILD SA that was refused all the same.
      const { config, part } = this.#offer.ask;
      const failure = explainRefusal(error, this.#offer);
      session.fail(failure, config, true, part);
      endSession(session, now, 'failed', failure.detail, false);
      return;
    }
    const wanted = session.config!.remote.id;
    const who = `we are ${formatTypedIdentity(this.#localId)} and want ${wanted === undefined ? 'anybody' : formatTypedIdentity(wanted)}`;
    const proof = this.#proof.kind === 'psk' ? 'a pre-shared key' : 'a certificate';
    failSession(session, now, failureFrom(error, `${who}, and proved it with ${proof}`, this.#proof.kind));
  }

  /** RFC 7296 §1.2: when the child is refused, the IKE SA is up nevertheless. */
  #finishChild(session: IkeSession, now: number, payloads: readonly Payload[]): void {
    const offer = this.#offer;
    const request = this.#request;
    if (offer === undefined || request === undefined) return;
    const outcome = acceptAnswer(session, now, offer, payloads, this.#setUp.nonces, undefined);
    if (outcome.ok) {
      installChild(session, now, outcome.child, true);
      // What the peer has taken away is asked for as well; of what packets call for, when one does.
      if (request.trigger === undefined) session.want([request]);
      return;
    }
    const narrower = singlePair(request, findError(payloads)?.notify);
    if (narrower !== undefined) session.want([narrower]);
    else session.fail(outcome.failure, offer.ask.config, true, offer.ask.part);
    if (outcome.created) session.enqueue(now, new DeleteChildTask(offer.spiIn, 'failed'));
  }

  abandon(): void {
    if (this.#proof.kind === 'psk') this.#proof.secret.fill(0);
  }
}

/** What a peer refuses of a CHILD SA (RFC 7296 §1.2), with AUTH if it keeps to the rules. */
const CHILD_REFUSALS: readonly number[] = [
  NotifyType.NO_PROPOSAL_CHOSEN,
  NotifyType.TS_UNACCEPTABLE,
  NotifyType.SINGLE_PAIR_REQUIRED,
  NotifyType.INTERNAL_ADDRESS_FAILURE,
  NotifyType.FAILED_CP_REQUIRED,
];

/** Tells what a peer that has proved itself asks for and cannot have, and notes what else it says of itself. */
export function noteNotifies(session: IkeSession, payloads: readonly Payload[]): void {
  for (const capability of new Set([...session.askedOpenly, ...capabilitiesAsked(payloads)])) {
    session.host.emit({ type: 'declined', connection: session.connectionName, capability });
  }
  session.askedOpenly = [];
  for (const payload of payloads) {
    if (payload.type !== 'notify' || EXPECTED.has(payload.notify)) continue;
    session.note('debug', `the peer sent ${notifyName(payload.notify)}, which is passed over`);
  }
}

/** What is acted upon, or needs no word. */
const EXPECTED: ReadonlySet<number> = new Set<number>([
  NotifyType.INITIAL_CONTACT,
  NotifyType.USE_TRANSPORT_MODE,
  NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED,
  NotifyType.REKEY_SA,
  NotifyType.ADDITIONAL_TS_POSSIBLE,
  NotifyType.NAT_DETECTION_SOURCE_IP,
  NotifyType.NAT_DETECTION_DESTINATION_IP,
  NotifyType.CHILDLESS_IKEV2_SUPPORTED,
  NotifyType.COOKIE,
  ...CAPABILITY_NOTIFIES,
]);
