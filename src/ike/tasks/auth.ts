/**
 * IKE_AUTH as initiator (RFC 7296 §1.2, §2.15, §2.21.2, RFC 6023): our identity, our AUTH, and the offer for the first CHILD
 * SA. Each side authenticates in its own way, with a pre-shared key or a signature. `auth-response.ts` verifies the peer.
 */

import { formatTypedIdentity } from '../../base/identity.ts';
import { secretCopy } from '../../base/secret-bytes.ts';
import { failureFrom, findError, misbehaved } from '../failure.ts';
import { pskAuth } from '../keys/auth.ts';
import { type IkeCrypto, wipeCrypto } from '../keys/ike-crypto.ts';
import { certificateRequests } from '../keys/signature.ts';
import { askFor } from '../session/child-ask.ts';
import type { ChildRequest } from '../session/child-request.ts';
import { credentialOf } from '../session/credential.ts';
import { endSession, failSession } from '../session/lifecycle.ts';
import type { IkeSession } from '../session/session.ts';
import type { Attempt, AuthResponse, FirstChild, SetUp, StateOf } from '../session/state.ts';
import { AuthMethodId, ExchangeType, NotifyType } from '../wire/iana.ts';
import { findPayload, type Payload } from '../wire/payload.ts';
import { notifyPayload } from '../wire/payloads/notify.ts';
import { failAsMalformed, judgePeer } from './auth-response.ts';
import { askSignature, copyIdentity, signedBy } from './authentication.ts';
import { explainRefusal, makeOffer, offerPayloads } from './child-offer.ts';
import { declineAnswer } from './delete.ts';
import type { Task } from './task.ts';

type CredentialsWanted = StateOf<'credentials-wanted'>;

/** What we authenticate with. */
export type OwnCredentials =
  | { readonly kind: 'psk'; readonly secret: Uint8Array }
  /** CERT and AUTH payloads. */
  | { readonly kind: 'signature'; readonly payloads: readonly Payload[] };

/** Asks the owner for our credentials; IKE_AUTH follows when they are here. */
export function askOwnCredentials(
  session: IkeSession,
  now: number,
  attempt: Attempt,
  crypto: IkeCrypto,
  setUp: SetUp,
): void {
  const { env, registry } = session;
  const { local, remote } = attempt.config;
  let requestId: number;
  if (local.auth === 'psk') {
    requestId = registry.ask(session, { type: 'need-secret', localId: local.id, remoteId: remote.id });
  } else {
    const ours = { side: 'initiator', localId: local.id, remoteId: remote.id, crypto, setUp } as const;
    const asked = askSignature(session, ours, setUp.authorities);
    if (typeof asked === 'string') {
      wipeCrypto(crypto);
      failSession(session, now, { reason: 'AUTHENTICATION_FAILED', detail: `we must sign, but ${asked}` });
      return;
    }
    requestId = asked;
  }
  session.timers.set('give-up', now + env.limits.halfOpenTimeout);
  session.enter({ name: 'credentials-wanted', attempt, crypto, setUp, requestId });
}

/** Sends IKE_AUTH with what the owner answered. */
export function beginAuth(
  session: IkeSession,
  now: number,
  state: CredentialsWanted,
  credentials: OwnCredentials,
): void {
  const { attempt, crypto } = state;
  session.timers.clear('give-up');
  session.enter({ name: 'auth-sent', attempt, crypto });
  session.enqueue(now, new AuthTask(state, credentials));
}

export class AuthTask implements Task<IkeSession> {
  readonly kind = 'auth' as const;
  readonly exchange: ExchangeType = ExchangeType.IKE_AUTH;
  readonly #attempt: Attempt;
  readonly #crypto: IkeCrypto;
  readonly #setUp: SetUp;
  readonly #credentials: OwnCredentials;
  #first: FirstChild | undefined;

  constructor({ attempt, crypto, setUp }: CredentialsWanted, credentials: OwnCredentials) {
    this.#attempt = attempt;
    this.#crypto = crypto;
    this.#setUp = setUp;
    // Kept to verify the peer's AUTH with, and wiped then.
    this.#credentials =
      credentials.kind === 'psk' ? { ...credentials, secret: secretCopy(credentials.secret) } : credentials;
  }

  build(session: IkeSession): readonly Payload[] {
    const { config, wanted } = this.#attempt;
    const { name, local, remote } = config;
    const payloads: Payload[] = [{ type: 'idi', identity: local.id }];
    if (remote.id !== undefined) payloads.push({ type: 'idr', identity: remote.id });
    payloads.push(...this.#authenticate(session), ...certificateRequests([config]));
    // RFC 7296 §2.4: we have no other IKE SA with this peer, so whatever it still has is from before we started.
    if (!session.registry.knowsPeer(session, local.id)) payloads.push(notifyPayload(NotifyType.INITIAL_CONTACT));
    if (!(this.#setUp.childless && session.env.isChildless(name))) this.#first = takeFirst(session, wanted);
    if (this.#first !== undefined) payloads.push(...offerPayloads(this.#first.offer));
    return payloads;
  }

  #authenticate({ env }: IkeSession): readonly Payload[] {
    const own = this.#credentials;
    const { local, remote } = this.#attempt.config;
    if (own.kind === 'signature') return own.payloads;
    const parts = signedBy('initiator', local.id, this.#crypto, this.#setUp);
    const data = pskAuth(env.crypto, this.#crypto.suite.prf, own.secret, parts);
    if (remote.auth !== 'psk') this.abandon();
    return [{ type: 'auth', method: AuthMethodId.SHARED_KEY, data }];
  }

  process(session: IkeSession, now: number, payloads: readonly Payload[]): void {
    const response = this.#responseOf(payloads);
    if (response === undefined) this.#refused(session, now, payloads);
    else {
      const secret = this.#credentials.kind === 'psk' ? this.#credentials.secret : undefined;
      judgePeer(session, now, response, secret);
    }
    this.abandon();
  }

  /** `undefined` without an AUTH payload: the peer refuses the IKE SA. */
  #responseOf(payloads: readonly Payload[]): AuthResponse | undefined {
    if (findPayload(payloads, 'auth') === undefined) return undefined;
    const { local, remote } = this.#attempt.config;
    const remoteId = copyIdentity(findPayload(payloads, 'idr')!.identity);
    const peers = { localId: local.id, remoteId, credential: credentialOf(remote) };
    const [attempt, crypto, setUp, first] = [this.#attempt, this.#crypto, this.#setUp, this.#first];
    return { attempt, crypto, setUp, payloads, peers, first };
  }

  /** The response has no AUTH payload (RFC 7296 §2.21.2). */
  #refused(session: IkeSession, now: number, payloads: readonly Payload[]): void {
    const error = findError(payloads);
    const first = this.#first;
    if (error === undefined) {
      declineAnswer(session, now, misbehaved('the response to IKE_AUTH has no AUTH payload'));
    } else if (error.notify === NotifyType.INVALID_SYNTAX) {
      failAsMalformed(session, now, error, { childless: first !== undefined && this.#setUp.childless });
    } else if (first !== undefined && CHILD_REFUSALS.includes(error.notify)) {
      // Without AUTH there is no IKE SA, as OpenIKED has it; it is the CHILD SA that was refused all the same.
      const { config, part } = first.offer.ask;
      const failure = explainRefusal(error, first.offer);
      session.fail(failure, { child: config, part, initiator: true });
      endSession(session, now, { reason: 'failed', detail: failure.detail });
    } else {
      failSession(session, now, failureFrom(error, this.#whoWeAre(), this.#credentials.kind));
    }
  }

  #whoWeAre(): string {
    const { local, remote } = this.#attempt.config;
    const wanted = remote.id === undefined ? 'any identity' : formatTypedIdentity(remote.id);
    const means = this.#credentials.kind === 'psk' ? 'a pre-shared key' : 'a certificate';
    return `we are ${formatTypedIdentity(local.id)} and want ${wanted}, and authenticated with ${means}`;
  }

  abandon(): void {
    if (this.#credentials.kind === 'psk') this.#credentials.secret.fill(0);
  }
}

/** The first of the children that are wanted; the others follow in exchanges of their own. */
function takeFirst(session: IkeSession, wanted: ChildRequest[]): FirstChild | undefined {
  for (;;) {
    const request = wanted.shift();
    if (request === undefined) return undefined;
    const ask = askFor(session, request);
    if (ask !== undefined) return { request, offer: makeOffer(session, ask, 'ike-auth') };
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
