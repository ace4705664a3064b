/**
 * A CHILD SA pair as IKE keeps it after its keys were given to ESP: state, lifetimes, which IKE SA it belongs to.
 */
import { invariant } from '../../base/assert.ts';
import { readU32, writeU32 } from '../../base/bytes.ts';
import { Deadlines } from '../../base/deadlines.ts';
import { formatSuite } from '../../crypto/proposal-text.ts';
import type { RandomSource } from '../../crypto/types.ts';
import { containsPair, samePair } from '../../policy/selector.ts';
import type { ChildSa } from '../events.ts';
import type { ChildSaStatus } from '../status.ts';
import { ProtocolId } from '../wire/iana.ts';

export type ChildState = ChildSaStatus['state'] | 'closed';

/** `installed` may go back from `rekeying`: the peer was busy, or refused. */
const TRANSITIONS: Readonly<Record<ChildState, readonly ChildState[]>> = {
  installed: ['rekeying', 'rekeyed', 'deleting', 'closed'],
  rekeying: ['installed', 'rekeyed', 'deleting', 'closed'],
  rekeyed: ['deleting', 'closed'],
  deleting: ['closed'],
  closed: [],
};

/** `rekey` and `expire` end its lifetime, `linger` the wait for the delete of an SA that was replaced. */
export type ChildTimer = 'rekey' | 'expire' | 'linger';

/** Everything of a `ChildSa` that is not secret. */
export type ChildFacts = Omit<ChildSa, 'keysIn' | 'keysOut' | 'ikeSaId' | 'path'>;

interface ChildStart {
  readonly now: number;
  readonly sending: boolean;
  /** For the jitter of its lifetime. */
  readonly random: RandomSource;
}

export class ChildRecord {
  readonly facts: ChildFacts;
  readonly createdAt: number;
  readonly timers: Deadlines<ChildTimer> = new Deadlines();
  /** Id of the IKE SA that it belongs to; changes when that is rekeyed. */
  ikeSaId: number;
  /** Packets leave on it, as far as the owner was told. */
  sending: boolean;
  /** Packets have left on it: from then on the peer's first packet on it says nothing new. */
  everSent: boolean;
  /** The peer has refused to replace it. */
  rekeyRefused = false;
  /** Its hard lifetime is over. */
  isExpired = false;
  /** `child-down` was reported to the owner. */
  reportedDown = false;
  #state: ChildState = 'installed';

  constructor(ikeSaId: number, facts: ChildFacts, { now, sending, random }: ChildStart) {
    this.ikeSaId = ikeSaId;
    this.facts = facts;
    this.createdAt = now;
    this.sending = sending;
    this.everSent = sending;
    const { soft, hard, jitter } = facts.config.lifetime;
    if (soft > 0) this.timers.set('rekey', now + softDeadline(soft, jitter, random));
    if (hard > 0) this.timers.set('expire', now + hard);
  }

  get id(): number {
    return this.facts.id;
  }

  get state(): ChildState {
    return this.#state;
  }

  enter(state: ChildState): void {
    invariant(TRANSITIONS[this.#state].includes(state), `CHILD SA from ${this.#state} to ${state}`);
    this.#state = state;
    if (state === 'rekeying') this.timers.clear('rekey');
    if (state === 'rekeyed' || state === 'deleting') this.timers.clear('rekey');
    if (state === 'deleting') this.timers.clear('linger');
    if (state === 'closed') this.timers.clearAll();
  }

  /** Whether it can carry traffic for some time. */
  get usable(): boolean {
    return this.#state === 'installed' || this.#state === 'rekeying';
  }

  status(): ChildSaStatus | undefined {
    if (this.#state === 'closed') return undefined;
    const { id, config, mode, spiIn, spiOut, selectors, encapsulated } = this.facts;
    return {
      id,
      name: config.name,
      state: this.#state,
      mode,
      suite: childSuiteName(this.facts),
      spiIn,
      spiOut,
      selectors,
      encapsulated,
      createdAt: this.createdAt,
      rekeyAt: this.timers.get('rekey'),
      expiresAt: this.timers.get('expire'),
    };
  }
}

/**
 * Whether two SAs carry the same traffic, so that one replaces or duplicates the other. A child of the configuration may have
 * several SAs, each for a part of its traffic; the successor of a part may be narrower, or wider again.
 */
export function carrySameTraffic(a: ChildRecord, b: ChildRecord): boolean {
  const [mine, theirs] = [a.facts, b.facts];
  if (mine.config.name !== theirs.config.name) return false;
  if (mine.replaces === theirs.id || theirs.replaces === mine.id) return true;
  if (mine.config.pfp !== undefined) return samePair(mine.selectors, theirs.selectors);
  return covers(a, b) || covers(b, a);
}

/** Whether packets of `inner` may all go on `outer`. */
export function covers(outer: ChildRecord, inner: ChildRecord): boolean {
  return containsPair(outer.facts.selectors, inner.facts.selectors);
}

function childSuiteName({ suite, dhGroup, esn }: ChildFacts): string {
  const name = formatSuite({ encryption: suite.encryption, integrity: suite.integrity });
  return [name, ...(dhGroup === undefined ? [] : [dhGroup]), ...(esn ? ['esn'] : [])].join('-');
}

/** `soft` less a random part of `jitter`: peers with equal lifetimes should not rekey at once (RFC 7296 §2.8). */
export function softDeadline(soft: number, jitter: number, random: RandomSource): number {
  return Math.max(0, soft - randomBelow(random, jitter));
}

/** A number from 0 up to, not including, `limit`; 0 when the limit is. */
export function randomBelow(random: RandomSource, limit: number): number {
  const bytes = random(4);
  const value = ((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!) >>> 0;
  return Math.floor((value / 0x1_0000_0000) * limit);
}

/** A CHILD SA's SPI as it stands on the wire. */
export function childSpiBytes(spi: number): Uint8Array {
  const bytes = new Uint8Array(4);
  writeU32(bytes, 0, spi);
  return bytes;
}

/** The SPI in a REKEY_SA, CHILD_SA_NOT_FOUND or DELETE payload; `undefined` when it is not one of ESP. */
export function readChildSpi(protocol: number, spi: Uint8Array): number | undefined {
  return protocol === ProtocolId.ESP && spi.length === 4 ? readU32(spi, 0) : undefined;
}
