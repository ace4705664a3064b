/**
 * Message IDs, retransmission and the response cache of one IKE SA (RFC 7296 §2.1–§2.3): a window of one in each
 * direction.
 *
 * One request of ours is out at a time and is sent again, byte for byte, until its response comes or the peer counts
 * as dead. The peer's next request is accepted, its last one is answered again from the cache, and any other is ignored.
 * A message that stays unanswered is sent in smaller fragments, where the peer supports them (RFC 7383 §2.5.2).
 */
import { equalBytes } from '../../base/bytes.ts';
import type { RetransmitPolicy } from '../config.ts';
import { type Outgoing, sealed } from '../protect/outgoing.ts';

/** Where the message ID of a request stands in the window. */
export type RequestClass =
  /** The next one: verify it, then `accept` it. */
  | 'new'
  /** The same bytes as the request that is being worked on, or was answered. */
  | 'pending'
  | 'answered'
  /** The ID of the last one with other bytes: perhaps a fragment of it. */
  | 'differs'
  /** An ID before the window. */
  | 'old'
  /** Beyond the window of one. */
  | 'ahead';

interface Outstanding {
  readonly id: number;
  message: Outgoing;
  readonly sentAt: number;
  /** Transmissions so far. */
  sent: number;
  tries: number;
  maxTries: number;
  wait: number;
  due: number;
}

/** The last message ID. An SA that reaches it cannot go on (RFC 7296 §2.2). */
export const MAX_MESSAGE_ID = 0xffffffff;
/** Retransmissions to a peer that may have lost the IKE SA; a peer that still has it answers sooner. */
const TRIES_IN_DOUBT = 2;
/** Transmissions of a message before we assume that the path drops it because of its size. */
const SENT_AS_IT_IS = 2;

/** A window as another process goes on with it. Messages are datagrams, as they were sent last. */
export interface SavedWindow {
  readonly nextRequest: number;
  readonly nextFromPeer: number;
  /** Our request that is out. */
  readonly request: readonly Uint8Array[] | undefined;
  /** The peer's last request, and the response to it. */
  readonly lastRequest: Uint8Array | undefined;
  readonly lastResponse: readonly Uint8Array[] | undefined;
}

export class MessageWindow {
  readonly #policy: RetransmitPolicy;
  #nextRequest: number;
  #nextFromPeer: number;
  #outstanding: Outstanding | undefined;
  #lastRequest: Uint8Array | undefined;
  #lastResponse: Outgoing | undefined;
  #repeats = 0;

  /** @param nextRequest our next message ID; @param nextFromPeer the one that the peer's next request must have */
  constructor(policy: RetransmitPolicy, nextRequest = 0, nextFromPeer = 0) {
    this.#policy = policy;
    this.#nextRequest = nextRequest;
    this.#nextFromPeer = nextFromPeer;
  }

  save(): SavedWindow {
    return {
      nextRequest: this.#nextRequest,
      nextFromPeer: this.#nextFromPeer,
      request: this.#outstanding?.message.datagrams,
      lastRequest: this.#lastRequest,
      lastResponse: this.#lastResponse?.datagrams,
    };
  }

  /** A window that goes on from there. The request that was out is due at once: its response may be lost. */
  static resume(policy: RetransmitPolicy, now: number, saved: SavedWindow): MessageWindow {
    const window = new MessageWindow(policy, saved.nextRequest, saved.nextFromPeer);
    const { request, lastRequest, lastResponse } = saved;
    if (request !== undefined) {
      window.resend(now, sealed(request));
      window.hurry(now);
    }
    window.#lastRequest = lastRequest;
    window.#lastResponse = lastResponse && sealed(lastResponse);
    return window;
  }

  /** No request of ours is out. */
  get idle(): boolean {
    return this.#outstanding === undefined;
  }

  /** The message ID for the next request; `undefined` when they are used up. */
  get nextRequest(): number | undefined {
    return this.#nextRequest > MAX_MESSAGE_ID ? undefined : this.#nextRequest;
  }

  /** The message ID that the peer's next request has. */
  get nextFromPeer(): number {
    return this.#nextFromPeer;
  }

  /** When the request that is out is sent again, or given up. */
  get due(): number | undefined {
    return this.#outstanding?.due;
  }

  /** The request that is out, as it was sent last. */
  get request(): Outgoing | undefined {
    return this.#outstanding?.message;
  }

  /** Since when an answer is waited for. */
  get waitingSince(): number | undefined {
    return this.#outstanding?.sentAt;
  }

  /** How often the request that is out was sent. */
  get sent(): number {
    return this.#outstanding?.sent ?? 0;
  }

  /** Notes a request of ours, made with `nextRequest`, that is being sent. */
  send(now: number, message: Outgoing): void {
    this.#outstanding = this.#request(now, this.#nextRequest, message);
    this.#nextRequest++;
  }

  /** Puts another request in place of the one that is out, with its message ID: IKE_SA_INIT with a cookie or a new group. */
  resend(now: number, message: Outgoing): void {
    const id = this.#outstanding?.id ?? this.#nextRequest - 1;
    this.#outstanding = this.#request(now, id, message);
  }

  #request(now: number, id: number, message: Outgoing): Outstanding {
    const { initial: wait, tries: maxTries } = this.#policy;
    return { id, message, sentAt: now, sent: 1, tries: 0, maxTries, wait, due: now + wait };
  }

  /** Makes the outstanding request due now, and again after the first wait: the host slept, or lost its network. */
  hurry(now: number): void {
    const request = this.#outstanding;
    if (request === undefined) return;
    // The next time that it is sent counts as the first.
    request.tries = -1;
    request.wait = this.#policy.initial / this.#policy.factor;
    request.due = now;
  }

  /** The peer may have lost the IKE SA: without a response the request is given up soon. */
  doubt(): void {
    const request = this.#outstanding;
    if (request !== undefined)
      request.maxTries = Math.min(request.maxTries, Math.max(0, request.tries) + TRIES_IN_DOUBT);
  }

  /** Whether a response with this ID is the one that is waited for. */
  expectsResponse(id: number): boolean {
    return this.#outstanding?.id === id;
  }

  /** The response came, was authentic, and is being worked on: the request is not sent again. */
  finish(): void {
    this.#outstanding = undefined;
  }

  /** What to do when `due` has come: the message to send again, all of it, or `dead` after the last try. */
  retransmit(now: number): Outgoing | 'dead' | undefined {
    const request = this.#outstanding;
    if (request === undefined || now < request.due) return undefined;
    if (request.tries >= request.maxTries) return 'dead';
    request.tries++;
    request.sent++;
    request.wait = Math.min(request.wait * this.#policy.factor, this.#policy.max);
    request.due = now + request.wait;
    if (request.tries % SENT_AS_IT_IS === 0) request.message = request.message.smaller() ?? request.message;
    return request.message;
  }

  /** Sorts a request before it is verified. Only bytes that were authentic once count as its retransmission. */
  classify(id: number, datagram: Uint8Array): RequestClass {
    if (id === this.#nextFromPeer) return 'new';
    if (id > this.#nextFromPeer) return 'ahead';
    if (id !== this.#nextFromPeer - 1 || this.#lastRequest === undefined) return 'old';
    if (!equalBytes(this.#lastRequest, datagram)) return 'differs';
    return this.#lastResponse === undefined ? 'pending' : 'answered';
  }

  /**
   * Notes that the request `nextFromPeer` was authentic and is being worked on. Its bytes are copied.
   * @param datagram of several fragments the first, which alone is answered again (RFC 7383 §2.6.1)
   */
  accept(datagram: Uint8Array): void {
    this.#nextFromPeer++;
    this.#lastRequest = datagram.slice();
    this.#lastResponse = undefined;
    this.#repeats = 0;
  }

  /** Notes the response to the request that was accepted last. */
  respond(message: Outgoing): void {
    this.#lastResponse = message;
  }

  /** The answer to the request that was accepted last. */
  get lastResponse(): Outgoing | undefined {
    return this.#lastResponse;
  }

  /**
   * That answer, for the request that came again.
   * @param inFragments the peer sent it in other fragments than before: it assumes that the path drops large packets
   */
  answerAgain({ inFragments }: { readonly inFragments: boolean }): Outgoing | undefined {
    this.#repeats++;
    if (inFragments || this.#repeats % SENT_AS_IT_IS === 0) {
      this.#lastResponse = this.#lastResponse?.smaller() ?? this.#lastResponse;
    }
    return this.#lastResponse;
  }
}
