/**
 * IKE_AUTH with pre-shared keys as initiator (RFC 7296 §1.2, §2.15, §2.21.2, RFC 6023): identities, AUTH, and the first
 * CHILD SA.
 */

import { formatIdentity, type Identity, sameIdentity } from '../../base/identity.ts';
import { pskAuth, type SignedParts, verifyPskAuth } from '../auth.ts';
import type { ChildConfig } from '../config.ts';
import { failureFrom, findError, misbehaved } from '../failure.ts';
import { AuthMethodId, ExchangeType, NotifyType, notifyName } from '../iana.ts';
import { breakOff, failSession, installChild } from '../lifecycle.ts';
import { findPayload, type Payload } from '../payload.ts';
import { notifyPayload } from '../payloads/notify.ts';
import type { IkeSession } from '../session.ts';
import type { IkeCrypto, SetUp } from '../session-state.ts';
import { acceptAnswer, type ChildOffer, makeOffer, offerPayloads } from './child-exchange.ts';
import { DeleteChildTask, rejectPeer } from './delete.ts';
import type { Task } from './task.ts';

/** What the AUTH payload of a side is computed over. */
export function signedBy(
  side: 'initiator' | 'responder',
  identity: Identity,
  crypto: IkeCrypto,
  setUp: SetUp,
): SignedParts {
  return side === 'initiator'
    ? { initMessage: setUp.initRequest, peerNonce: setUp.nonces.responder, skP: crypto.keys.pi, identity }
    : { initMessage: setUp.initResponse, peerNonce: setUp.nonces.initiator, skP: crypto.keys.pr, identity };
}

export class AuthTask implements Task {
  readonly kind = 'auth' as const;
  readonly exchange: ExchangeType = ExchangeType.IKE_AUTH;
  readonly #crypto: IkeCrypto;
  readonly #setUp: SetUp;
  readonly #localId: Identity;
  /** Kept to verify the peer's AUTH with, and wiped then. */
  readonly #secret: Uint8Array;
  #offer: ChildOffer | undefined;

  constructor(crypto: IkeCrypto, setUp: SetUp, localId: Identity, secret: Uint8Array) {
    this.#crypto = crypto;
    this.#setUp = setUp;
    this.#localId = localId;
    // Not slice(): that of a Node Buffer is a view.
    this.#secret = new Uint8Array(secret);
  }

  build(session: IkeSession): readonly Payload[] {
    const { host } = session;
    const config = session.config!;
    const parts = signedBy('initiator', this.#localId, this.#crypto, this.#setUp);
    const auth = pskAuth(host.crypto, this.#crypto.suite.prf, this.#secret, parts);
    const payloads: Payload[] = [{ type: 'idi', identity: this.#localId }];
    if (config.remote.id !== undefined) payloads.push({ type: 'idr', identity: config.remote.id });
    payloads.push({ type: 'auth', method: AuthMethodId.SHARED_KEY, data: auth });
    // RFC 7296 §2.4: we have no other IKE SA with this peer, so whatever it still has is from before we started.
    if (!host.knowsPeer(session, this.#localId)) payloads.push(notifyPayload(NotifyType.INITIAL_CONTACT));
    const child = takeFirstChild(session);
    if (child !== undefined) {
      this.#offer = makeOffer(session, child, 'ike-auth');
      payloads.push(...offerPayloads(this.#offer));
    }
    return payloads;
  }

  process(session: IkeSession, now: number, payloads: readonly Payload[]): void {
    const auth = findPayload(payloads, 'auth');
    if (auth === undefined) {
      this.#refused(session, now, payloads);
      return;
    }
    const remoteId = copyIdentity(findPayload(payloads, 'idr')!.identity);
    const config = session.config!;
    const met = (): string =>
      `we are ${formatIdentity(this.#localId)}, the peer says it is ${formatIdentity(remoteId)}`;
    const wanted = config.remote.id;
    if (wanted !== undefined && !sameIdentity(wanted, remoteId)) {
      this.#reject(session, now, `${met()}, ${formatIdentity(wanted)} was wanted`);
      return;
    }
    if (auth.method !== AuthMethodId.SHARED_KEY) {
      this.#reject(session, now, `${met()} and proves it by method ${auth.method}, a pre-shared key was wanted`);
      return;
    }
    const parts = signedBy('responder', remoteId, this.#crypto, this.#setUp);
    const proven = verifyPskAuth(session.host.crypto, this.#crypto.suite.prf, this.#secret, parts, auth.data);
    if (!proven) {
      this.#reject(session, now, `${met()}; its pre-shared key is not ours`);
      return;
    }
    session.establish(now, this.#crypto, { localId: this.#localId, remoteId });
    session.announce();
    this.#finishChild(session, now, payloads);
    this.abandon();
    session.host.established(now, session, false);
  }

  #reject(session: IkeSession, now: number, detail: string): void {
    session.host.count('authentication-failed');
    this.abandon();
    rejectPeer(session, now, detail);
  }

  #refused(session: IkeSession, now: number, payloads: readonly Payload[]): void {
    const error = findError(payloads);
    this.abandon();
    if (error === undefined) {
      breakOff(session, now, misbehaved('the answer to IKE_AUTH has no AUTH payload'), false);
      return;
    }
    const wanted = session.config!.remote.id;
    const who = `we are ${formatIdentity(this.#localId)} and want ${wanted === undefined ? 'anybody' : formatIdentity(wanted)}`;
    const hint =
      error.notify === NotifyType.AUTHENTICATION_FAILED ? '; look at the identities and the pre-shared key' : '';
    failSession(session, now, failureFrom(error, `${who}${hint}`));
  }

  /** RFC 7296 §1.2: when the child is refused, the IKE SA is up nevertheless. */
  #finishChild(session: IkeSession, now: number, payloads: readonly Payload[]): void {
    const offer = this.#offer;
    if (offer === undefined) return;
    const outcome = acceptAnswer(session, offer, payloads, this.#setUp.nonces, undefined);
    if (outcome.ok) {
      installChild(session, now, outcome.child, true);
      return;
    }
    session.fail(outcome.failure, offer.config.name, true);
    if (outcome.created) session.enqueue(now, new DeleteChildTask(offer.spiIn, 'failed'));
  }

  abandon(): void {
    this.#secret.fill(0);
  }
}

/** The first of the children that are wanted; the others follow in exchanges of their own. */
function takeFirstChild(session: IkeSession): ChildConfig | undefined {
  const { children } = session.config!;
  for (;;) {
    const name = session.wanted.shift();
    if (name === undefined) return undefined;
    const child = children.find((entry) => entry.name === name);
    if (child !== undefined) return child;
  }
}

/** Payloads are views into a datagram that is not ours to keep. */
export function copyIdentity({ type, data }: Identity): Identity {
  return { type, data: data.slice() };
}

/** Notes what the peer says of itself and we have no use for. */
export function noteNotifies(session: IkeSession, payloads: readonly Payload[]): void {
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
  NotifyType.NAT_DETECTION_SOURCE_IP,
  NotifyType.NAT_DETECTION_DESTINATION_IP,
  NotifyType.CHILDLESS_IKEV2_SUPPORTED,
  NotifyType.COOKIE,
]);
