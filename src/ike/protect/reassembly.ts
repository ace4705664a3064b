/**
 * Fragments of a message that is on its way in (RFC 7383 §2.6). Only fragments with a valid ICV are kept, so only the
 * peer can use up the room.
 */
import { concatBytes } from '../../base/bytes.ts';
import type { IkeHeader } from '../wire/message.ts';
import type { FragmentPlace } from './protect.ts';

/** A message of all its fragments. */
export interface Whole {
  /** Content of all fragments, in order. */
  readonly content: Uint8Array;
  readonly firstPayload: number;
  /** The datagram of fragment 1, by which a retransmission is known (RFC 7383 §2.6.1). */
  readonly first: Uint8Array;
}

/** More than ten certificates of 20 KiB take, in the smallest fragments that there are. */
export const MAX_FRAGMENTS = 1_024;
const MAX_CONTENT = 0x4_0000;
/** Fragments are kept so long after the last one: the peer sends again what is missing, up to a minute later. */
export const FRAGMENTS_TIMEOUT = 60_000;
/** Of all IKE SAs of an endpoint together: `SMALL` for each of 1,024, of which 512 may be half-open. */
const MAX_HELD = 0x200_0000;
/** Beyond that a message competes with others of its kind for half of the room, and for none of the rest. */
const SMALL = 0x8000;

/** Bytes that an endpoint holds for messages that are not complete. */
export class FragmentBudget {
  #held = 0;

  get held(): number {
    return this.#held;
  }

  /**
   * So many bytes more for a message that has some already. A few large ones, of peers that have proved nothing yet,
   * must not keep others out whose certificates are of the usual size.
   */
  take(bytes: number, already: number): boolean {
    if (this.#held + bytes > (already + bytes > SMALL ? MAX_HELD / 2 : MAX_HELD)) return false;
    this.#held += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#held -= bytes;
  }
}

/** The fragments of one direction of an IKE SA: as the window is one, those of one message. */
export class Reassembly {
  readonly #budget: FragmentBudget;
  #header: IkeHeader | undefined;
  #total = 0;
  /** By number, from 0. BOUNDED: MAX_FRAGMENTS, MAX_CONTENT, and the endpoint's budget. */
  #pieces: (Uint8Array | undefined)[] = [];
  #missing = 0;
  #bytes = 0;
  #first: { readonly datagram: Uint8Array; readonly payload: number } | undefined;

  constructor(budget: FragmentBudget) {
    this.#budget = budget;
  }

  get isEmpty(): boolean {
    return this.#header === undefined;
  }

  /**
   * What a fragment is before anything is spent on it: `known` when it is here already or belongs to a set that was
   * given up, `refused` when its total exceeds what is held here.
   */
  judge(header: IkeHeader, { number, total }: FragmentPlace): 'new' | 'known' | 'refused' {
    if (total > MAX_FRAGMENTS) return 'refused';
    if (!this.#continues(header)) return 'new';
    // RFC 7383 §2.6: a smaller total is of an older set, a larger one replaces what is here.
    if (total < this.#total) return 'known';
    if (total > this.#total) return 'new';
    if (header.exchange !== this.#header?.exchange) return 'refused';
    return this.#pieces[number - 1] === undefined ? 'new' : 'known';
  }

  #continues({ messageId }: IkeHeader): boolean {
    return this.#header?.messageId === messageId;
  }

  /**
   * Takes a fragment that `judge` called new and whose ICV was right.
   * @returns the message when this was the last that was missing; `full` when there is no room for it: the others are of no use then
   */
  add(
    header: IkeHeader,
    place: FragmentPlace,
    firstPayload: number,
    content: Uint8Array,
    datagram: Uint8Array,
  ): Whole | 'full' | undefined {
    if (!this.#continues(header) || place.total > this.#total) this.#begin(header, place.total);
    const bytes = content.length + (place.number === 1 ? datagram.length : 0);
    if (this.#bytes + bytes > MAX_CONTENT || !this.#budget.take(bytes, this.#bytes)) {
      return 'full';
    }
    this.#bytes += bytes;
    this.#pieces[place.number - 1] = content.slice();
    this.#missing--;
    if (place.number === 1) this.#first = { datagram: datagram.slice(), payload: firstPayload };
    return this.#missing === 0 ? this.#finish() : undefined;
  }

  #begin(header: IkeHeader, total: number): void {
    this.drop();
    this.#header = header;
    this.#total = total;
    this.#missing = total;
    this.#pieces = new Array<Uint8Array | undefined>(total).fill(undefined);
  }

  #finish(): Whole {
    const content = concatBytes(...this.#pieces.map((piece) => piece!));
    const { datagram, payload } = this.#first!;
    this.drop();
    return { content, firstPayload: payload, first: datagram };
  }

  /** Forgets what is here. */
  drop(): void {
    this.#budget.give(this.#bytes);
    this.#bytes = 0;
    this.#header = undefined;
    this.#total = 0;
    this.#pieces = [];
    this.#first = undefined;
  }
}

/** What an IKE SA has to do with fragments. */
export class Fragments {
  /** Both sides said IKEV2_FRAGMENTATION_SUPPORTED (RFC 7383 §2.3). */
  supported = false;
  readonly #budget: FragmentBudget;
  #learned: number | undefined;
  /** Most IKE SAs never see a fragment. */
  #request: Reassembly | undefined;
  #response: Reassembly | undefined;

  constructor(budget: FragmentBudget) {
    this.#budget = budget;
  }

  /** Bytes of the smallest fragments that got through, either way: the path may not take larger ones (§2.5.2). */
  get learned(): number | undefined {
    return this.#learned;
  }

  /** A message came through in fragments, of which this is the first. */
  learn({ length }: Uint8Array): void {
    this.#learned = Math.min(this.#learned ?? length, length);
  }

  /** The IKE SA takes the place of another. */
  inherit({ supported, learned }: Pick<Fragments, 'supported' | 'learned'>): void {
    this.supported = supported;
    this.#learned = learned;
  }

  /** Where the fragments of a request or of a response gather. */
  of(kind: 'request' | 'response'): Reassembly {
    if (kind === 'response') {
      this.#response ??= new Reassembly(this.#budget);
      return this.#response;
    }
    this.#request ??= new Reassembly(this.#budget);
    return this.#request;
  }

  get isEmpty(): boolean {
    return (this.#request?.isEmpty ?? true) && (this.#response?.isEmpty ?? true);
  }

  /** Forgets those of a request or of a response, or all. */
  drop(kind?: 'request' | 'response'): void {
    if (kind !== 'response') this.#request?.drop();
    if (kind !== 'request') this.#response?.drop();
  }
}
