/**
 * CREATE_CHILD_SA that replaces the IKE SA (RFC 7296 §1.3.2, §2.8, §2.8.2, §2.18, §2.25.2).
 *
 * The children go over to the new IKE SA, and the side that began deletes the old one. When both begin at the same
 * time two new ones come up, and the one from the exchange with the lowest of the four nonces is deleted by the side
 * that began it; the children go to the other.
 */
import type { DhGroup, DhKeyPair } from '../../crypto/types.ts';
import type { ConnectionConfig } from '../config.ts';
import { settleNewcomer } from '../duplicates.ts';
import { type Failure, failureFrom, findError, misbehaved } from '../failure.ts';
import { bindKeys } from '../keys/ike-crypto.ts';
import {
  deriveIkeKeys,
  deriveRekeySkeyseed,
  type IkeSpis,
  type IkeSuite,
  NONCE_LENGTH,
  type Nonces,
} from '../keys/keys.ts';
import { GroupChoice } from '../proposals/groups.ts';
import { acceptIke, answerProposal, chooseIke, ikeWireProposals } from '../proposals/proposals.ts';
import { explainNoProposal } from '../proposals/report.ts';
import { endSession, moveChildren } from '../session/lifecycle.ts';
import { IkeSession } from '../session/session.ts';
import { isInUse, isLive, liveOf, newLife } from '../session/state.ts';
import { MessageWindow } from '../session/window.ts';
import { ExchangeType, NotifyType } from '../wire/iana.ts';
import { ikeSpiBytes, readIkeSpi } from '../wire/message.ts';
import { findPayload, type Payload } from '../wire/payload.ts';
import { notifyPayload } from '../wire/payloads/notify.ts';
import type { Answer } from './answer.ts';
import { losesAgainst } from './collision.ts';
import { closeSession } from './delete.ts';
import { answerKeyExchange, deriveShared } from './key-exchange.ts';
import type { Task } from './task.ts';
import { answered, DELETE_WAIT, REFUSED_WAIT, retryTime } from './waits.ts';

/** BOUNDED: IKE SAs with one peer that were rekeyed and wait for their delete. */
const MAX_REPLACED = 4;

/** The IKE SA that the peer made while our request was out. */
interface IkeCollision {
  readonly session: IkeSession;
  readonly nonces: Nonces;
}

interface IkeOffer {
  readonly config: ConnectionConfig;
  readonly spi: bigint;
  readonly nonce: Uint8Array;
  readonly keyPair: DhKeyPair;
}

export class RekeyIkeTask implements Task<IkeSession> {
  readonly kind = 'rekey-ike' as const;
  readonly exchange: ExchangeType = ExchangeType.CREATE_CHILD_SA;
  collision: IkeCollision | undefined;
  readonly #groups = new GroupChoice();
  #group: DhGroup | undefined;
  #offer: IkeOffer | undefined;

  build(session: IkeSession): readonly Payload[] | undefined {
    const { env, registry, state } = session;
    if (state.name !== 'established') return undefined;
    const config = session.current(state.config);
    const group = this.#group ?? config.proposals[0]!.dh[0]!;
    const keyPair = env.crypto.dhKeyPair(group, env.random);
    const offer: IkeOffer = { config, spi: registry.newIkeSpi(), nonce: env.random(NONCE_LENGTH), keyPair };
    this.#offer = offer;
    return [
      { type: 'sa', proposals: ikeWireProposals(config.proposals, ikeSpiBytes(offer.spi)) },
      { type: 'nonce', data: offer.nonce },
      { type: 'ke', group: group.id, data: keyPair.publicValue },
    ];
  }

  process(session: IkeSession, now: number, payloads: readonly Payload[]): void {
    const offer = this.#offer!;
    const error = findError(payloads);
    if (error?.notify === NotifyType.TEMPORARY_FAILURE) {
      this.#busy(session, now);
      return;
    }
    answered(session);
    if (error?.notify === NotifyType.INVALID_KE_PAYLOAD) {
      this.#group = this.#groups.next(error, offer.keyPair.group, offer.config.proposals);
      offer.keyPair.wipe();
      if (this.#group !== undefined) {
        session.restart(now, this);
        return;
      }
    }
    if (error !== undefined) {
      this.#fail(session, now, failureFrom(error, 'the IKE SA was not rekeyed', 'ike-sa'));
      return;
    }
    const made = this.#accept(session, now, offer, payloads);
    this.abandon();
    if (made === undefined) {
      this.#fail(session, now, misbehaved('the response to the rekeying is not valid'));
      return;
    }
    this.#decide(session, now, made.successor, made.nonces);
  }

  #accept(
    session: IkeSession,
    now: number,
    offer: IkeOffer,
    payloads: readonly Payload[],
  ): { readonly successor: IkeSession; readonly nonces: Nonces } | undefined {
    const sa = findPayload(payloads, 'sa');
    const ke = findPayload(payloads, 'ke');
    const nonce = findPayload(payloads, 'nonce');
    if (sa === undefined || ke === undefined || nonce === undefined) return undefined;
    const chosen = acceptIke(sa.proposals, offer.config.proposals, 'rekey-ike');
    const spi = chosen && readIkeSpi(chosen.peerSpi);
    if (chosen === undefined || spi === undefined) return undefined;
    if (chosen.suite.dh !== offer.keyPair.group || ke.group !== chosen.suite.dh.id) return undefined;
    const shared = deriveShared(offer.keyPair, ke.data);
    if (shared === undefined) return undefined;
    const nonces: Nonces = { initiator: offer.nonce, responder: nonce.data.slice() };
    const spis = { initiator: offer.spi, responder: spi };
    const negotiated: Negotiated = { suite: chosen.suite, nonces, spis, shared, we: 'initiator' };
    return { successor: makeSuccessor(session, now, negotiated), nonces };
  }

  /** RFC 7296 §2.8.2 */
  #decide(session: IkeSession, now: number, successor: IkeSession, nonces: Nonces): void {
    const theirs = this.#theirs;
    if (theirs !== undefined && losesAgainst(nonces, theirs.nonces)) {
      session.registry.addSession(successor);
      closeSession(successor, now, 'redundant', 'both sides rekeyed');
      this.#yield(now, theirs.session);
      return;
    }
    session.registry.addSession(successor);
    takeOver(session, successor, now);
    if (theirs !== undefined) {
      // It may have taken the place already, when the time of the old one was over.
      moveChildren(theirs.session, successor);
      markRedundant(theirs.session);
    }
    closeSession(session, now, 'rekeyed', `replaced by IKE SA ${successor.id}`);
    successor.startNext(now);
  }

  #busy(session: IkeSession, now: number): void {
    this.abandon();
    if (this.#yieldToTheirs(now)) return;
    const at = retryTime(session, now);
    if (at !== undefined) session.timers.set('rekey', at);
  }

  #fail(session: IkeSession, now: number, failure: Failure): void {
    this.abandon();
    if (this.#yieldToTheirs(now)) return;
    session.fail(failure, { initiator: true });
    session.timers.set('rekey', now + REFUSED_WAIT);
  }

  /**
   * Ours came to nothing. Where the peer has rekeyed the same IKE SA meanwhile, its new one takes the place: its delete of the
   * old one, which would tell so too, may come late or never.
   */
  #yieldToTheirs(now: number): boolean {
    const theirs = this.#theirs;
    if (theirs !== undefined) this.#yield(now, theirs.session);
    return theirs !== undefined;
  }

  #yield(now: number, theirs: IkeSession): void {
    adopt(theirs, now);
    // The peer may have been asked about it when it did not know of it yet.
    theirs.window.hurry(now);
    theirs.startNext(now);
  }

  /** What the peer has made of the same IKE SA meanwhile. */
  get #theirs(): IkeCollision | undefined {
    return this.collision?.session.state.name === 'established' ? this.collision : undefined;
  }

  abandon(): void {
    this.#offer?.keyPair.wipe();
  }
}

/** What the exchange has agreed on. */
interface Negotiated {
  readonly suite: IkeSuite;
  readonly nonces: Nonces;
  readonly spis: IkeSpis;
  /** Wiped when the keys are made. */
  readonly shared: Uint8Array;
  readonly we: 'initiator' | 'responder';
  /** Both sides are rekeying: id of the IKE SA. */
  readonly pendingFor?: number | undefined;
}

/** The new IKE SA: other keys and SPIs, message IDs from 0, else as the old one (RFC 7296 §2.18). */
function makeSuccessor(old: IkeSession, now: number, negotiated: Negotiated): IkeSession {
  const { suite, nonces, spis, shared, we, pendingFor } = negotiated;
  const { env } = old;
  const { crypto: before, peers, origin, config } = liveOf(old.state);
  const skeyseed = deriveRekeySkeyseed(env.crypto, before.suite.prf, before.keys.d, nonces, shared);
  shared.fill(0);
  const keys = deriveIkeKeys(env.crypto, suite, skeyseed, nonces, spis);
  const crypto = bindKeys(env.crypto, suite, keys, we);
  const current = old.current(config);
  const life = newLife({ config: current, crypto, peers, origin, establishedAt: undefined, replaces: undefined });
  const successor = new IkeSession(old.registry, {
    initiator: we === 'initiator',
    spiInitiator: spis.initiator,
    spiResponder: spis.responder,
    path: old.path,
    state: { name: 'established', ...life, pendingFor },
    window: new MessageWindow(env.retransmit),
    now,
  });
  successor.nat = old.nat;
  successor.fragments.inherit(old.fragments);
  successor.lastHeardAt = now;
  return successor;
}

/** `successor` becomes the IKE SA of the connection, `old` waits for its delete. */
export function takeOver(old: IkeSession, successor: IkeSession, now: number): void {
  const state = liveOf(old.state);
  const { config, crypto, origin } = liveOf(successor.state);
  successor.establish(now, { config, crypto, peers: state.peers, origin, replaces: old.id });
  moveChildren(old, successor);
  successor.announce();
  old.timers.clearAll();
  old.timers.set('give-up', now + DELETE_WAIT);
  if (state.name === 'established') old.enter({ ...state, name: 'rekeyed' });
  settleNewcomer(successor, now, { initialContact: false });
}

/** The peer uses an IKE SA that came out of a collision, or deleted its predecessor: that IKE SA stays. */
export function adopt(pending: IkeSession, now: number): void {
  const { state, registry } = pending;
  if (!isLive(state) || state.pendingFor === undefined) return;
  const old = registry.session(state.pendingFor);
  state.pendingFor = undefined;
  if (old?.state.name === 'established') takeOver(old, pending, now);
}

/** The redundant IKE SA of a collision: the peer made it and deletes it, unless it forgets it before our answer arrives. */
function markRedundant(session: IkeSession): void {
  const { state } = session;
  if (state.name === 'established') session.enter({ ...state, name: 'rekeyed' });
}

/** Answers a request to replace the IKE SA. */
export function respondRekeyIke(session: IkeSession, now: number, payloads: readonly Payload[]): Answer {
  const { env, registry, state, active } = session;
  const refuse = (notify: number, data?: Uint8Array): Answer => ({ payloads: [notifyPayload(notify, data)] });
  // RFC 7296 §2.25.2: while a child is made, replaced or deleted, and after the IKE SA was replaced.
  const busy = active !== undefined && active.kind !== 'liveness' && active.kind !== 'rekey-ike';
  if (state.name !== 'established' || busy) return refuse(NotifyType.TEMPORARY_FAILURE);
  if (!registry.hasRoom()) return refuse(NotifyType.NO_ADDITIONAL_SAS);
  // Each waits for the peer's DELETE. Only a peer that never sends one reaches the limit.
  const replaced = registry.withSamePeer(session).filter((other) => other.state.name === 'rekeyed').length;
  if (replaced >= MAX_REPLACED) return refuse(NotifyType.TEMPORARY_FAILURE);
  const config = session.current(state.config);
  const offered = findPayload(payloads, 'sa')!.proposals;
  const chosen = chooseIke(offered, config.proposals, 'rekey-ike');
  const spi = chosen && readIkeSpi(chosen.peerSpi);
  if (chosen === undefined || spi === undefined) {
    const detail = explainNoProposal(offered, config.proposals, 'ike');
    session.fail({ reason: 'NO_PROPOSAL_CHOSEN', detail }, { initiator: false });
    return refuse(NotifyType.NO_PROPOSAL_CHOSEN);
  }
  const keyExchange = answerKeyExchange(session, chosen.suite.dh, payloads);
  if (!keyExchange.ok) return { payloads: [keyExchange.notify] };
  const nonce = env.random(NONCE_LENGTH);
  const nonces: Nonces = { initiator: findPayload(payloads, 'nonce')!.data.slice(), responder: nonce };
  const spis = { initiator: spi, responder: registry.newIkeSpi() };
  const collides = active instanceof RekeyIkeTask;
  const successor = makeSuccessor(session, now, {
    suite: chosen.suite,
    nonces,
    spis,
    shared: keyExchange.shared,
    we: 'responder',
    pendingFor: collides ? session.id : undefined,
  });
  registry.addSession(successor);
  const answer: Payload[] = [
    { type: 'sa', proposals: [answerProposal(chosen, ikeSpiBytes(spis.responder))] },
    { type: 'nonce', data: nonce },
    ...keyExchange.payloads,
  ];
  if (collides) {
    active.collision = { session: successor, nonces };
    successor.timers.set('give-up', now + DELETE_WAIT);
    return { payloads: answer };
  }
  return {
    payloads: answer,
    after: () => {
      takeOver(session, successor, now);
      successor.startNext(now);
    },
  };
}

/** What the peer has made of an IKE SA while our own rekeying of it is under way, if that can take its place. */
function successorByPeer({ active }: IkeSession): IkeSession | undefined {
  const made = active instanceof RekeyIkeTask ? active.collision?.session : undefined;
  return made?.state.name === 'established' ? made : undefined;
}

/**
 * The time of an IKE SA is over while both sides rekey it: the one that the peer has made of it takes its place. The peer may
 * have it, with the children, or may not have heard of it: it has to be asked.
 */
export function settleExpired(session: IkeSession, now: number): IkeSession | undefined {
  const successor = successorByPeer(session);
  if (successor !== undefined) adopt(successor, now);
  return successor;
}

/** The peer deleted the IKE SA that both were rekeying: the one that it made of it takes its place (RFC 7296 §2.25.2). */
export function settleDeleted(session: IkeSession, now: number): boolean {
  const successor = successorByPeer(session);
  if (successor === undefined) return false;
  adopt(successor, now);
  endSession(session, now, { reason: 'rekeyed', detail: `replaced by IKE SA ${successor.id}`, linger: true });
  successor.startNext(now);
  return true;
}

/** Begins to rekey an IKE SA, unless it is being closed or rekeyed already. */
export function rekeyIkeSa(session: IkeSession, now: number): void {
  if (!isInUse(session.state)) return;
  if ([session.active, ...session.queue].some((task) => task instanceof RekeyIkeTask)) return;
  session.enqueue(now, new RekeyIkeTask());
}
