/**
 * IKE_SA_INIT as initiator (RFC 7296 §1.2, §2.6, §2.7, §2.23).
 *
 * Nothing in the answer is authentic, so that nothing in it ends the attempt at once (§2.21.1): what does not help is
 * remembered as the likely reason, and the attempt goes on for a while, for the real answer may follow a forged one.
 */
import { formatProposal } from '../../crypto/proposal-text.ts';
import type { DhGroup, DhKeyPair } from '../../crypto/types.ts';
import type { ConnectionConfig } from '../config.ts';
import type { Path } from '../events.ts';
import { type Failure, failureFrom, findError } from '../failure.ts';
import { bindKeys, type IkeCrypto, wipeCrypto } from '../keys/ike-crypto.ts';
import { deriveIkeKeys, deriveSkeyseed, type IkeSuite, NONCE_LENGTH, type Nonces } from '../keys/keys.ts';
import { authoritiesOf, hashAlgorithmsNotify, hashAlgorithmsOf, usesSignatures } from '../keys/signature.ts';
import { acceptIke, ikeWireProposals } from '../proposals/proposals.ts';
import { single } from '../protect/outgoing.ts';
import { lacksEncapsulation } from '../session/encapsulation.ts';
import { endSession, failSession } from '../session/lifecycle.ts';
import type { IkeSession } from '../session/session.ts';
import { ExchangeType, NotifyType } from '../wire/iana.ts';
import { encodePlain, type IkeMessage } from '../wire/message.ts';
import { detectNat, mayEncapsulate, type NatStatus, NO_NAT, natDetectionNotifies } from '../wire/nat.ts';
import { findNotify, findPayload, type Payload } from '../wire/payload.ts';
import { type NotifyPayload, notifyPayload } from '../wire/payloads/notify.ts';
import { askOwnProof } from './auth.ts';
import { deriveShared, GroupChoice } from './key-exchange.ts';
import type { Task } from './task.ts';

/** How long an attempt goes on after an answer that refuses it and that anybody could have sent. */
const REFUSAL_GRACE = 3_000;
/** Cookies that are taken up before a peer that demands more is left alone. */
const MAX_COOKIES = 5;

export class InitTask implements Task<IkeSession> {
  readonly kind = 'init' as const;
  readonly exchange: ExchangeType = ExchangeType.IKE_SA_INIT;
  readonly config: ConnectionConfig;
  #group: DhGroup;
  #keyPair: DhKeyPair;
  readonly #nonce: Uint8Array;
  readonly #groups = new GroupChoice();
  #cookie: NotifyPayload | undefined;
  #cookies = 0;
  #request: Uint8Array = new Uint8Array(0);
  /** What the owner is told if nothing better comes. */
  likely: Failure | undefined;

  constructor(session: IkeSession, config: ConnectionConfig) {
    const { env } = session;
    this.config = config;
    this.#group = config.proposals[0]!.dh[0]!;
    this.#keyPair = env.crypto.dhKeyPair(this.#group, env.random);
    this.#nonce = env.random(NONCE_LENGTH);
  }

  build(session: IkeSession): readonly Payload[] {
    const { env, path, spiInitiator } = session;
    const pretendNat = this.#pretendsNat(session) ? env.random : undefined;
    const spis = { initiatorSpi: spiInitiator, responderSpi: 0n };
    return [
      ...(this.#cookie === undefined ? [] : [this.#cookie]),
      { type: 'sa', proposals: ikeWireProposals(this.config.proposals) },
      { type: 'ke', group: this.#group.id, data: this.#keyPair.publicValue },
      { type: 'nonce', data: this.#nonce },
      ...(this.config.nat.mode === 'off'
        ? []
        : natDetectionNotifies(env.crypto, spis, path.local, path.remote, pretendNat)),
      ...(this.config.fragmentSize === 0 ? [] : [notifyPayload(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)]),
      ...(usesSignatures(this.config) ? [hashAlgorithmsNotify()] : []),
      ...env.vendorIds.map((data): Payload => ({ type: 'vendor', data })),
    ];
  }

  #pretendsNat({ env }: IkeSession): boolean {
    return !env.rawEsp || this.config.nat.mode === 'force';
  }

  /** The first request, or the same with a cookie or another group: the message ID stays 0 (RFC 7296 §2.6, §2.7). */
  send(session: IkeSession, now: number): void {
    this.#request = encodePlain(session.headerFor(this.exchange, false, 0), this.build(session));
    const message = single(this.#request);
    if (session.window.idle) session.window.send(now, message);
    else session.window.resend(now, message);
    session.transmit(now, session.path, message);
  }

  /** Responses are handed to `receive`, with the bytes that AUTH will be computed over. */
  process(): void {}

  receive(session: IkeSession, now: number, path: Path, message: IkeMessage, datagram: Uint8Array): void {
    const { payloads } = message;
    const cookie = findNotify(payloads, NotifyType.COOKIE);
    const error = findError(payloads);
    if (error?.notify === NotifyType.INVALID_KE_PAYLOAD) this.#useGroup(session, now, error);
    else if (cookie !== undefined && findPayload(payloads, 'sa') === undefined) this.#useCookie(session, now, cookie);
    else if (error !== undefined) {
      session.env.count('unauthenticated-notify');
      const offered = this.config.proposals.map(formatProposal).join(', ');
      this.#suspect(session, now, failureFrom(error, `offered: ${offered}`, 'ike-sa'));
    } else this.#accept(session, now, path, message, datagram);
  }

  #useCookie(session: IkeSession, now: number, cookie: NotifyPayload): void {
    if (++this.#cookies > MAX_COOKIES) {
      this.#suspect(session, now, { reason: 'peer-misbehaved', detail: 'the peer demands one cookie after the other' });
      return;
    }
    this.#cookie = { ...cookie, data: cookie.data.slice(), spi: new Uint8Array(0) };
    this.send(session, now);
  }

  #useGroup(session: IkeSession, now: number, error: NotifyPayload): void {
    const group = this.#groups.next(error, this.#group, this.config.proposals);
    if (group === undefined) {
      const offered = this.config.proposals.map(formatProposal).join(', ');
      this.#suspect(
        session,
        now,
        failureFrom(error, `it wants a group that was not offered, or was tried: ${offered}`, 'ike-sa'),
      );
      return;
    }
    this.#keyPair.wipe();
    this.#group = group;
    this.#keyPair = session.env.crypto.dhKeyPair(group, session.env.random);
    this.send(session, now);
  }

  /** Remembers the likely reason. Only the first answer sets the clock, so that forgeries cannot keep the attempt alive. */
  #suspect(session: IkeSession, now: number, failure: Failure): void {
    this.likely ??= failure;
    if (session.timers.get('give-up') === undefined) session.timers.set('give-up', now + REFUSAL_GRACE);
  }

  #accept(session: IkeSession, now: number, path: Path, message: IkeMessage, datagram: Uint8Array): void {
    const { header, payloads } = message;
    const { env } = session;
    const sa = findPayload(payloads, 'sa');
    const ke = findPayload(payloads, 'ke');
    const nonce = findPayload(payloads, 'nonce');
    if (sa === undefined || ke === undefined || nonce === undefined || header.responderSpi === 0n) return;
    const chosen = acceptIke(sa.proposals, this.config.proposals, 'ike-sa-init');
    if (chosen === undefined || chosen.suite.dh !== this.#group || ke.group !== this.#group.id) {
      const detail = 'the peer chose algorithms that were not offered, or another group';
      this.#suspect(session, now, { reason: 'peer-misbehaved', detail });
      return;
    }
    session.nat = this.#natOf(session, path, message);
    const problem = lacksEncapsulation(session);
    if (problem !== undefined) {
      this.#suspect(session, now, { reason: 'no-esp-path', detail: problem });
      return;
    }
    const shared = deriveShared(this.#keyPair, ke.data);
    if (shared === undefined) {
      env.count('invalid-key-exchange');
      this.#suspect(session, now, { reason: 'peer-misbehaved', detail: "the peer's public value is not valid" });
      return;
    }
    session.spiResponder = header.responderSpi;
    const nonces: Nonces = { initiator: this.#nonce, responder: nonce.data.slice() };
    const crypto = firstCrypto(session, chosen.suite, nonces, shared);
    this.#keyPair.wipe();

    session.fragments.supported =
      this.config.fragmentSize !== 0 && findNotify(payloads, NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) !== undefined;
    // Where any local address would do, it is the one that the answer came to.
    if (session.path.local.address.value === 0n) session.path = { ...session.path, local: path.local };
    if (session.encapsulated) session.path = natPath(session.path, this.config);
    session.window.finish();
    session.active = undefined;
    session.timers.clear('give-up');
    if (adopted(session, now)) {
      wipeCrypto(crypto);
      return;
    }
    const setUp = {
      initRequest: this.#request,
      initResponse: datagram.slice(),
      nonces,
      childless: findNotify(payloads, NotifyType.CHILDLESS_IKEV2_SUPPORTED) !== undefined,
      peerHashes: usesSignatures(this.config) ? hashAlgorithmsOf(payloads) : undefined,
      authorities: authoritiesOf(payloads),
    };
    if (!setUp.childless && session.wanted.length === 0) {
      wipeCrypto(crypto);
      // RFC 6023 §3: not every peer can do without a first child.
      const detail = `connection ${this.config.name} has no child, and the peer does not allow an IKE SA without one`;
      failSession(session, now, { reason: 'other-error-notify', detail });
      return;
    }
    askOwnProof(session, now, crypto, setUp);
  }

  #natOf(session: IkeSession, path: Path, { header, payloads }: IkeMessage): NatStatus {
    const { env } = session;
    if (this.config.nat.mode === 'off' || !mayEncapsulate(path.local.port, payloads)) return NO_NAT;
    const { initiatorSpi, responderSpi } = header;
    const found = detectNat(env.crypto, { initiatorSpi, responderSpi }, path.local, path.remote, payloads);
    return { ...found, pretended: this.#pretendsNat(session) };
  }

  abandon(): void {
    this.#keyPair.wipe();
  }
}

/**
 * When the peer opened the connection while we did, its IKE SA serves as well as ours would: ours is dropped before it
 * authenticates, and what it was wanted for is done on the other.
 */
function adopted(session: IkeSession, now: number): boolean {
  // One that is to replace the other is wanted beside it.
  if (session.successorOf !== undefined) return false;
  const other = session.registry.establishedOf(session.connectionName, session.path.remote.address);
  if (other === undefined) return false;
  session.registry.bringUp(now, other, session.wanted);
  endSession(session, now, 'redundant', 'the peer opened the connection at the same time', false);
  return true;
}

/** Both move to the ports for NAT traversal, unless they use ports of their own for everything (RFC 7296 §2.23). */
function natPath(path: Path, { local, remote }: ConnectionConfig): Path {
  const move = (end: Path['local'], from: number, to: number): Path['local'] =>
    end.port === from ? { address: end.address, port: to } : end;
  return {
    local: move(path.local, local.port, local.natPort),
    remote: move(path.remote, remote.port, remote.natPort),
  };
}

/** Keys and ciphers of a first IKE SA. Wipes the shared secret. */
function firstCrypto(session: IkeSession, suite: IkeSuite, nonces: Nonces, shared: Uint8Array): IkeCrypto {
  const { env, spiInitiator, spiResponder } = session;
  const skeyseed = deriveSkeyseed(env.crypto, suite.prf, nonces, shared);
  shared.fill(0);
  const keys = deriveIkeKeys(env.crypto, suite, skeyseed, nonces, spiInitiator, spiResponder);
  return bindKeys(env.crypto, suite, keys, true);
}
