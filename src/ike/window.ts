/**
 * Message IDs, retransmission and the response cache of one IKE SA (RFC 7296 §2.1–§2.3): a window of one in each
 * direction.
 *
 * One request of ours is out at a time and is sent again, byte for byte, until its response comes or the peer counts
 * as dead. Of the peer's requests the next one is taken, the last one is answered again from the cache, and any other
 * is ignored.
 */
import { equalBytes } from '../base/bytes.ts';
import type { RetransmitPolicy } from './config.ts';

/** What a request with some message ID is to us. */
export type RequestClass =
  /** The next one: verify it, then `accept` it. */
  | 'new'
  /** The same bytes as the request that is being worked on, or was answered. */
  | 'pending'
  | 'answered'
  /** An ID that is behind us, or the last one with other bytes. */
  | 'old'
  /** Beyond the window of one. */
  | 'ahead';

interface Outstanding {
  readonly id: number;
  readonly datagram: Uint8Array;
  readonly sentAt: number;
  tries: number;
  wait: number;
  due: number;
}

/** The last message ID. An SA that reaches it cannot go on (RFC 7296 §2.2). */
export const MAX_MESSAGE_ID = 0xffffffff;

export class MessageWindow {
  readonly #policy: RetransmitPolicy;
  #nextRequest: number;
  #nextFromPeer: number;
  #outstanding: Outstanding | undefined;
  #lastRequest: Uint8Array | undefined;
  #lastResponse: Uint8Array | undefined;

  /** @param nextRequest our next message ID; @param nextFromPeer the one that the peer's next request must have */
  constructor(policy: RetransmitPolicy, nextRequest = 0, nextFromPeer = 0) {
    this.#policy = policy;
    this.#nextRequest = nextRequest;
    this.#nextFromPeer = nextFromPeer;
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

  /** Since when an answer is waited for. */
  get waitingSince(): number | undefined {
    return this.#outstanding?.sentAt;
  }

  /** Notes a request of ours, made with `nextRequest`, that is being sent. */
  send(now: number, datagram: Uint8Array): void {
    this.#outstanding = this.#request(now, this.#nextRequest, datagram);
    this.#nextRequest++;
  }

  /** Puts another request in place of the one that is out, with its message ID: IKE_SA_INIT with a cookie or a new group. */
  resend(now: number, datagram: Uint8Array): void {
    const id = this.#outstanding?.id ?? this.#nextRequest - 1;
    this.#outstanding = this.#request(now, id, datagram);
  }

  #request(now: number, id: number, datagram: Uint8Array): Outstanding {
    return { id, datagram, sentAt: now, tries: 0, wait: this.#policy.initial, due: now + this.#policy.initial };
  }

  /** Whether a response with this ID is the one that is waited for. */
  expectsResponse(id: number): boolean {
    return this.#outstanding?.id === id;
  }

  /** The response came, was authentic, and is being worked on: the request is not sent again. */
  finish(): void {
    this.#outstanding = undefined;
  }

  /** What to do when `due` has come: the datagram to send again, or `dead` after the last try. */
  retransmit(now: number): Uint8Array | 'dead' | undefined {
    const request = this.#outstanding;
    if (request === undefined || now < request.due) return undefined;
    if (request.tries >= this.#policy.tries) return 'dead';
    request.tries++;
    request.wait = Math.min(request.wait * this.#policy.factor, this.#policy.max);
    request.due = now + request.wait;
    return request.datagram;
  }

  /** Sorts a request before it is verified. Only bytes that were authentic once count as its retransmission. */
  classify(id: number, datagram: Uint8Array): RequestClass {
    if (id === this.#nextFromPeer) return 'new';
    if (id > this.#nextFromPeer) return 'ahead';
    if (id !== this.#nextFromPeer - 1 || this.#lastRequest === undefined) return 'old';
    if (!equalBytes(this.#lastRequest, datagram)) return 'old';
    return this.#lastResponse === undefined ? 'pending' : 'answered';
  }

  /** Notes that the request `nextFromPeer` was authentic and is being worked on. Its bytes are copied. */
  accept(datagram: Uint8Array): void {
    this.#nextFromPeer++;
    this.#lastRequest = datagram.slice();
    this.#lastResponse = undefined;
  }

  /** Notes the response to the request that was accepted last. */
  respond(datagram: Uint8Array): void {
    this.#lastResponse = datagram;
  }

  /** The answer to the request that was accepted last. */
  get lastResponse(): Uint8Array | undefined {
    return this.#lastResponse;
  }
}
