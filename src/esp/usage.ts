/**
 * What an SA has carried and how long it may live: counters, soft and hard limits (RFC 4301 §4.4.2.1).
 *
 * Both directions use it. Passing a soft limit is signalled once and asks for a rekey; at a hard limit the SA
 * becomes unusable. Times are milliseconds of the caller's monotonic clock.
 */

/** Limits of one SA; `Infinity` where there is none. Times are points of the caller's clock, not durations. */
export interface SaLimits {
  readonly softTime: number;
  readonly hardTime: number;
  /** Bytes that go through the cipher, padding and trailer included. */
  readonly softBytes: number;
  readonly hardBytes: number;
  readonly softPackets: number;
  readonly hardPackets: number;
}

export const UNLIMITED: SaLimits = {
  softTime: Number.POSITIVE_INFINITY,
  hardTime: Number.POSITIVE_INFINITY,
  softBytes: Number.POSITIVE_INFINITY,
  hardBytes: Number.POSITIVE_INFINITY,
  softPackets: Number.POSITIVE_INFINITY,
  hardPackets: Number.POSITIVE_INFINITY,
};

export type LimitKind = 'soft' | 'hard';
export type LimitCause = 'time' | 'bytes' | 'packets' | 'sequence';

/** An SA that reached a limit. */
export interface SaSignal<Sa> {
  readonly sa: Sa;
  readonly kind: LimitKind;
  readonly cause: LimitCause;
}

/** Indexes of an SA's counters. */
export const SaCounter = {
  /** Packets that carried something, dummies not included. */
  packets: 0,
  /** Bytes of those packets as they are without ESP. */
  bytes: 1,
  dummies: 2,
  /** All packets and bytes that went through the cipher: what the limits are about. */
  cipherPackets: 3,
  cipherBytes: 4,
  /** When a packet was last sealed, or authenticated; -1 for never. */
  lastUsed: 5,
  /** Received packets that were marked outside as having met congestion (CE), and go on so inside. */
  ecnMarked: 6,
  /** Received packets whose two headers have ECN that no tunnel makes (RFC 6040 §4.2). */
  ecnUnexpected: 7,
} as const;

export const SA_COUNTERS = 8;

/**
 * What an SA has done so far, in memory that other threads may read. A thread that takes the SA over from another begins
 * there: no sequence number is used twice, and none is received twice.
 */
export interface SaState {
  /** By `SaCounter`. */
  readonly counters: Float64Array;
  /** High and low half of the last sequence number that was used, or of the highest that was authenticated. */
  readonly sequence: Uint32Array;
}

/** Of an SA that is new. @param memory hands out zeros */
export function newSaState(memory: (bytes: number) => ArrayBufferLike = (bytes) => new ArrayBuffer(bytes)): SaState {
  const bytes = SA_COUNTERS * Float64Array.BYTES_PER_ELEMENT;
  const buffer = memory(bytes + 2 * Uint32Array.BYTES_PER_ELEMENT);
  const counters = new Float64Array(buffer, 0, SA_COUNTERS);
  counters[SaCounter.lastUsed] = -1;
  return { counters, sequence: new Uint32Array(buffer, bytes, 2) };
}

export class SaUsage {
  readonly counters: Float64Array;
  readonly limits: SaLimits;
  #stage: 'fresh' | 'soft' | 'hard' = 'fresh';
  #pending: { kind: LimitKind; cause: LimitCause } | undefined;
  /** The limits that come next: the soft ones first, then the hard ones. Time, bytes, packets. */
  readonly #next: Float64Array;

  /** @param counters of the SA's state, from which it goes on */
  constructor(limits: SaLimits, counters: Float64Array = newSaState().counters) {
    this.limits = limits;
    this.counters = counters;
    this.#next = new Float64Array([
      Math.min(limits.softTime, limits.hardTime),
      Math.min(limits.softBytes, limits.hardBytes),
      Math.min(limits.softPackets, limits.hardPackets),
    ]);
  }

  /** Past a hard limit: must carry nothing any more. */
  get expired(): boolean {
    return this.#stage === 'hard';
  }

  /** A limit was passed and `takeSignal` has not been called since. */
  get signalled(): boolean {
    return this.#pending !== undefined;
  }

  /** When a time limit comes next; `Infinity` for never. */
  get nextDeadline(): number {
    return this.#stage === 'hard' ? Number.POSITIVE_INFINITY : this.#next[0]!;
  }

  /**
   * Counts one packet. Returns `false`, and counts nothing, when it does not fit under the hard limits.
   * @param cipherBytes length of its encrypted part
   */
  charge(now: number, cipherBytes: number): boolean {
    const counters = this.counters;
    const packets = counters[SaCounter.cipherPackets]! + 1;
    const bytes = counters[SaCounter.cipherBytes]! + cipherBytes;
    const next = this.#next;
    if (now >= next[0]! || bytes > next[1]! || packets > next[2]!) {
      this.#cross(now, bytes, packets);
      if (this.#stage === 'hard') return false;
    }
    counters[SaCounter.cipherPackets] = packets;
    counters[SaCounter.cipherBytes] = bytes;
    counters[SaCounter.lastUsed] = now;
    return true;
  }

  /** Applies the time limits to an SA that may be idle. */
  expire(now: number): void {
    if (now >= this.nextDeadline) this.#cross(now, 0, 0);
  }

  /** Ends the SA for a reason that no limit knows of. */
  end(cause: LimitCause): void {
    if (this.#stage === 'hard') return;
    this.#enter('hard', cause);
  }

  /** The limit that was passed since the last call. A hard one hides a soft one that was not taken in time. */
  takeSignal(): { kind: LimitKind; cause: LimitCause } | undefined {
    const pending = this.#pending;
    this.#pending = undefined;
    return pending;
  }

  #cross(now: number, bytes: number, packets: number): void {
    if (this.#stage === 'hard') return;
    const { limits } = this;
    const hard = causeOf(now >= limits.hardTime, bytes > limits.hardBytes, packets > limits.hardPackets);
    if (hard !== undefined) {
      this.#enter('hard', hard);
      return;
    }
    const soft = causeOf(now >= limits.softTime, bytes > limits.softBytes, packets > limits.softPackets);
    if (soft !== undefined) this.#enter('soft', soft);
  }

  #enter(stage: LimitKind, cause: LimitCause): void {
    this.#stage = stage;
    this.#pending = { kind: stage, cause };
    this.#next[0] = this.limits.hardTime;
    this.#next[1] = this.limits.hardBytes;
    this.#next[2] = this.limits.hardPackets;
  }
}

/** Applies the time limits of many SAs and knows when that is due next, without looking at all of them. */
export class Expiry<Sa extends { readonly usage: SaUsage }> {
  #next = Number.POSITIVE_INFINITY;

  /** No time limit comes before this; `Infinity` for never. */
  get next(): number {
    return this.#next;
  }

  /** Takes an SA into account that was added to the many. */
  add(sa: Sa): void {
    this.#next = Math.min(this.#next, sa.usage.nextDeadline);
  }

  run(now: number, sas: Iterable<Sa>, signals: SaSignal<Sa>[]): void {
    this.#next = Number.POSITIVE_INFINITY;
    for (const sa of sas) {
      sa.usage.expire(now);
      drainSignals(sa, signals);
      this.add(sa);
    }
  }
}

/** Moves the signal of an SA, if it has one, to the end of a list. */
export function drainSignals<Sa extends { readonly usage: SaUsage }>(sa: Sa, into: SaSignal<Sa>[]): void {
  const signal = sa.usage.takeSignal();
  if (signal !== undefined) into.push({ sa, kind: signal.kind, cause: signal.cause });
}

function causeOf(time: boolean, bytes: boolean, packets: boolean): LimitCause | undefined {
  if (time) return 'time';
  if (bytes) return 'bytes';
  return packets ? 'packets' : undefined;
}
