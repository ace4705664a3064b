/** CREATE_CHILD_SA for a new CHILD SA (RFC 7296 §1.3.1). */
import type { DhGroup } from '../../crypto/types.ts';
import { samePair } from '../../policy/selector.ts';
import { type Failure, findError } from '../failure.ts';
import type { Nonces } from '../keys/keys.ts';
import { GroupChoice } from '../proposals/groups.ts';
import type { AgreedChild } from '../session/agreed-child.ts';
import { type ChildRecord, carrySameTraffic, childSpiBytes } from '../session/child.ts';
import { askFor } from '../session/child-ask.ts';
import { type ChildAsk, type ChildOffer, type ChildRequest, singlePair } from '../session/child-request.ts';
import { lacksEspPort } from '../session/encapsulation.ts';
import { installChild } from '../session/lifecycle.ts';
import type { IkeSession } from '../session/session.ts';
import type { Established } from '../session/state.ts';
import { ExchangeType, NotifyType, ProtocolId } from '../wire/iana.ts';
import { findNotify, findPayload, type Payload } from '../wire/payload.ts';
import { notifyPayload, saNotifyPayload } from '../wire/payloads/notify.ts';
import { acceptAnswer, answerOffer } from './child-exchange.ts';
import { makeOffer, offerPayloads } from './child-offer.ts';
import { losesAgainst } from './collision.ts';
import { closeChild, DeleteChildTask } from './delete.ts';
import { supersede } from './open.ts';
import type { Task } from './task.ts';
import { answered, DELETE_WAIT, retryTime } from './waits.ts';

/** BOUNDED: SPIs that the peer deleted while our exchange was under way. */
const MAX_DELETED_SPIS = 16;

/** A CHILD SA that the peer made at the same time for the same purpose, and the nonces that decide (RFC 7296 §2.8.1). */
export interface ChildCollision {
  readonly child: ChildRecord;
  readonly nonces: Nonces;
}

/** The SA was replaced or is redundant; the peer deletes it. */
export function awaitDelete(now: number, child: ChildRecord): void {
  if (!child.usable) return;
  child.enter('rekeyed');
  child.timers.set('linger', now + DELETE_WAIT);
}

/** The common part of creating a CHILD SA and of rekeying one. */
export abstract class ChildTask implements Task<IkeSession> {
  abstract readonly kind: 'create-child' | 'rekey-child';
  readonly exchange: ExchangeType = ExchangeType.CREATE_CHILD_SA;
  /** What the peer made of the same while our request was out. */
  collision: ChildCollision | undefined;
  readonly #groups = new GroupChoice();
  readonly #deleted = new Set<number>();
  #offer: ChildOffer | undefined;
  #group: DhGroup | undefined;

  abstract build(session: IkeSession, now: number): readonly Payload[] | undefined;
  protected abstract succeed(session: IkeSession, now: number, agreed: AgreedChild, deletedByPeer: boolean): void;
  protected abstract fail(session: IkeSession, now: number, notify: number | undefined, failure: Failure): void;
  protected abstract busy(session: IkeSession, now: number): void;
  protected abstract get replaced(): ChildRecord | undefined;

  protected offer(session: IkeSession, ask: ChildAsk): Payload[] {
    this.#offer = makeOffer(session, ask, 'create-child', this.replaced, this.#group);
    this.collision = undefined;
    return offerPayloads(this.#offer);
  }

  peerDeleted(spi: number): void {
    if (this.#deleted.size < MAX_DELETED_SPIS) this.#deleted.add(spi);
  }

  process(session: IkeSession, now: number, payloads: readonly Payload[]): void {
    const offer = this.#offer!;
    const error = findError(payloads);
    if (error?.notify === NotifyType.TEMPORARY_FAILURE) {
      this.busy(session, now);
      return;
    }
    answered(session);
    if (error?.notify === NotifyType.INVALID_KE_PAYLOAD && offer.keyPair !== undefined) {
      this.#group = this.#groups.next(error, offer.keyPair.group, offer.ask.config.proposals);
      if (this.#group !== undefined) {
        this.#again(session, now);
        return;
      }
    }
    const theirNonce = findPayload(payloads, 'nonce')?.data ?? new Uint8Array(0);
    const nonces: Nonces = { initiator: offer.nonce, responder: theirNonce.slice() };
    const outcome = acceptAnswer(session, now, offer, { payloads, nonces, replaces: this.replaced?.id });
    this.abandon();
    if (!outcome.ok) {
      if (outcome.created) session.enqueue(now, new DeleteChildTask(offer.spiIn, 'failed'));
      this.fail(session, now, error?.notify, outcome.failure);
      return;
    }
    this.succeed(session, now, outcome.child, this.#deleted.has(outcome.child.facts.spiOut));
  }

  #again(session: IkeSession, now: number): void {
    this.#offer?.keyPair?.wipe();
    session.restart(now, this);
  }

  /** Whether the CHILD SA that we made is the one to go. */
  protected lost(agreed: AgreedChild): boolean {
    return this.collision !== undefined && losesAgainst(agreed.nonces, this.collision.nonces);
  }

  abandon(): void {
    this.#offer?.keyPair?.wipe();
  }
}

/** Drops a CHILD SA that the owner was not told of, and deletes it with the peer. */
export function discard(session: IkeSession, now: number, agreed: AgreedChild): void {
  agreed.keys.wipe();
  session.enqueue(now, new DeleteChildTask(agreed.facts.spiIn, 'redundant'));
}

export class CreateChildTask extends ChildTask {
  readonly kind = 'create-child' as const;
  readonly request: ChildRequest;
  /** What the peer made of the child while our request was out. BOUNDED: as the children of the IKE SA. */
  readonly #made: ChildCollision[] = [];
  #ask: ChildAsk | undefined;

  constructor(request: ChildRequest) {
    super();
    this.request = request;
  }

  protected get replaced(): undefined {
    return undefined;
  }

  build(session: IkeSession): readonly Payload[] | undefined {
    this.#made.length = 0;
    this.#ask = session.state.name === 'established' ? askFor(session, this.request) : undefined;
    if (this.#ask === undefined) return undefined;
    const detail = lacksEspPort(session);
    if (detail === undefined) return this.offer(session, this.#ask);
    session.env.count('path-refused');
    this.#report(session, { reason: 'no-esp-path', detail });
    return undefined;
  }

  /** The peer made a CHILD SA while our request was out: perhaps what we are asking for. */
  peerMade(made: ChildCollision): void {
    if (made.child.facts.config.name === this.request.name) this.#made.push(made);
  }

  protected succeed(session: IkeSession, now: number, agreed: AgreedChild, deletedByPeer: boolean): void {
    if (deletedByPeer) {
      agreed.keys.wipe();
      return;
    }
    // The same child was made from both sides at once: one is enough, and the nonces say which.
    this.collision = this.#made.find(({ child }) => samePair(child.facts.selectors, agreed.facts.selectors));
    // Theirs may have been replaced since, while our request was lost again and again: then it surely stays.
    const theirs = this.collision?.child;
    const outlived = theirs !== undefined && !theirs.usable && hasUsableDuplicate(session, theirs);
    if (outlived || this.lost(agreed)) {
      // The peer, which had no other, may have sent on it already: it is received on until the peer has confirmed.
      const redundant = installChild(session, now, agreed, { sendNow: false });
      closeChild(session, now, redundant, 'redundant');
      return;
    }
    installChild(session, now, agreed, { sendNow: true });
    // Theirs goes, by them; by us if they never saw the collision.
    if (theirs !== undefined) awaitDelete(now, theirs);
    followUp(session, now, this.request);
  }

  protected fail(session: IkeSession, now: number, notify: number | undefined, failure: Failure): void {
    if (askFor(session, this.request) === undefined) return;
    const narrower = singlePair(this.request, notify);
    if (narrower !== undefined) session.enqueue(now, new CreateChildTask(narrower));
    else if (hasUsable(session) || !supersede(session, now, notify, this.request)) this.#report(session, failure);
  }

  #report(session: IkeSession, failure: Failure): void {
    session.fail(failure, { child: this.#ask?.config, part: this.#ask?.part, initiator: true });
  }

  protected busy(session: IkeSession, now: number): void {
    this.abandon();
    const at = retryTime(session, now);
    if (at !== undefined) session.defer(at, new CreateChildTask(this.request));
  }
}

function hasUsable(session: IkeSession): boolean {
  return [...session.children.values()].some(({ usable }) => usable);
}

function hasUsableDuplicate(session: IkeSession, child: ChildRecord): boolean {
  return [...session.children.values()].some(
    (other) => other !== child && other.usable && carrySameTraffic(other, child),
  );
}

/** Requests what the peer narrowed away. For SAs that packets call for, the next packet does that. */
function followUp(session: IkeSession, now: number, request: ChildRequest): void {
  if (request.trigger === undefined) session.registry.bringUp(now, session, [request]);
}

/** Answers a request for a new CHILD SA. */
export function respondCreateChild(
  session: IkeSession,
  now: number,
  state: Established,
  payloads: readonly Payload[],
): readonly Payload[] {
  const config = session.current(state.config);
  if (session.children.size >= session.env.limits.maxChildrenPerIkeSa)
    return [notifyPayload(NotifyType.NO_ADDITIONAL_SAS)];
  const answer = answerOffer(session, now, config.children, { payloads });
  if (!answer.ok) {
    if (answer.notify.notify !== NotifyType.INVALID_KE_PAYLOAD)
      session.fail(answer.failure, { child: answer.config, initiator: false });
    return [answer.notify];
  }
  const { active } = session;
  const child = installChild(session, now, answer.child, { sendNow: true });
  if (active instanceof CreateChildTask) active.peerMade({ child, nonces: answer.child.nonces });
  return answer.payloads;
}

/** The REKEY_SA notify of a request, if it has one. */
export function rekeyNotify(payloads: readonly Payload[]): ReturnType<typeof findNotify> {
  return findNotify(payloads, NotifyType.REKEY_SA);
}

/** Names the CHILD SA that a request replaces, by our inbound SPI (RFC 7296 §1.3.3). */
export function rekeysChild(child: ChildRecord): Payload {
  return saNotifyPayload(NotifyType.REKEY_SA, ProtocolId.ESP, childSpiBytes(child.facts.spiIn));
}
