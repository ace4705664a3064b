/**
 * IKE SAs whose initiators have not authenticated (RFC 7296 §2.6, §2.21.4): found by SPI and source, counted by source.
 *
 * Sources that a connection names as its remote address have places of their own, so that others cannot keep them out.
 * The others are counted by address and by network. A table that is full still admits: a random one of the older SAs of
 * the most crowded network gives way. How often that happens is bounded, because each admission costs a key exchange;
 * a source that has fewer places than the most crowded one does not wait for those that have as many.
 */
import { addressKey, type IpAddress } from '../../base/address.ts';
import { readU32 } from '../../base/bytes.ts';
import { TokenBucket } from '../../base/token-bucket.ts';
import type { RandomSource } from '../../crypto/types.ts';
import type { EndpointLimits } from '../config.ts';
import type { Path } from '../events.ts';
import type { IkeSession } from '../session/session.ts';
import { Places } from './places.ts';

/** Half-open SAs of one source from which on it has to show a cookie, whatever the others have. */
const UNPROVEN_PER_SOURCE = 4;
/** Prefix lengths that sources are counted by, the widest first, and the part of all places that each may have. */
const NETWORKS = { 4: [24, 32], 6: [48, 56, 64] } as const;
const SHARES = { 4: [1 / 4, 1 / 8], 6: [1 / 4, 3 / 16, 1 / 8] } as const;
/** The part of all places that named sources may have together, and the places that each may have. */
const NAMED_PART = 3 / 4;
const PLACES_PER_NAMED = 16;
/**
 * Displacements a second, and at once: by sources with fewer places than the most crowded one, and by those that have
 * as many, or all that their source may have.
 */
const FAIR = [32, 32] as const;
const CROWDED = [4, 8] as const;

/** A place for a new SA; `displaced` has to be ended first. */
export interface Place {
  readonly displaced: IkeSession | undefined;
}

export class HalfOpenTable {
  /** BOUNDED: `maxHalfOpen`. */
  readonly #byAsker = new Map<string, IkeSession>();
  readonly #named: Places;
  readonly #others: Places;
  /** Which of the two an SA is counted in: the connections may change meanwhile. BOUNDED: as the table above. */
  readonly #poolOf = new Map<IkeSession, Places>();
  readonly #limits: EndpointLimits;
  readonly #isNamed: (remote: IpAddress) => boolean;
  readonly #random: RandomSource;
  readonly #fair = new TokenBucket(...FAIR);
  readonly #crowded = new TokenBucket(...CROWDED);
  readonly #crowdedNamed = new TokenBucket(...CROWDED);

  /** @param isNamed whether a connection names the address as its remote one */
  constructor(limits: EndpointLimits, isNamed: (remote: IpAddress) => boolean, random: RandomSource) {
    const { maxHalfOpen, cookieThreshold } = limits;
    this.#limits = limits;
    this.#isNamed = isNamed;
    this.#random = random;
    const reserve = Math.max(1, Math.floor(maxHalfOpen * NAMED_PART));
    this.#named = new Places(reserve, (address) => [{ key: addressKey(address), most: PLACES_PER_NAMED }]);
    // Below the threshold no cookie is asked for: forged requests must not use up the share of the address they name.
    const most = (share: number): number => Math.max(2 * cookieThreshold, Math.ceil(maxHalfOpen * share));
    this.#others = new Places(maxHalfOpen, (address) => {
      const { family, value } = address;
      const bits = family === 4 ? 32 : 128;
      return NETWORKS[family].map((length, level) => ({
        key: `${family} ${length} ${value >> BigInt(bits - length)}`,
        most: most(SHARES[family][level]!),
      }));
    });
  }

  get size(): number {
    return this.#byAsker.size;
  }

  find(spiInitiator: bigint, from: Path): IkeSession | undefined {
    return this.#byAsker.get(askerKey(spiInitiator, from));
  }

  /** Whether a source has to show first that it receives where it sends from (RFC 7296 §2.6). */
  wantsCookie({ remote }: Path): boolean {
    const { cookieThreshold, maxHalfOpen } = this.#limits;
    if (this.size >= Math.min(cookieThreshold, maxHalfOpen)) return true;
    return this.#poolFor(remote.address).ofSource(remote.address) >= UNPROVEN_PER_SOURCE;
  }

  /** A place for an SA of a source that has shown its cookie, where one was wanted; `undefined` when there is none now. */
  admit(now: number, { remote: { address } }: Path): Place | undefined {
    const pool = this.#poolFor(address);
    const named = pool === this.#named;
    const isFull = this.size >= this.#limits.maxHalfOpen;
    const spent = pool.spentShare(address);
    if (spent === undefined && !isFull && !pool.isFull) return { displaced: undefined };
    // Connections come and go: there may be others only, or named sources only.
    const from = pool.isFull || spent !== undefined || this.#others.size === 0 ? pool : this.#others;
    if (from.size === 0) return undefined;
    if (!(named && from === this.#others) && !this.#bucketFor(pool, address, spent).take(now)) return undefined;
    return { displaced: from.pick(spent, (below) => readU32(this.#random(4), 0) % below) };
  }

  add(session: IkeSession): void {
    const { spiInitiator, askedFrom } = session;
    const pool = this.#poolFor(askedFrom.remote.address);
    this.#byAsker.set(askerKey(spiInitiator, askedFrom), session);
    this.#poolOf.set(session, pool);
    pool.add(session);
  }

  /** Does nothing when the session is not there. */
  drop(session: IkeSession): void {
    const pool = this.#poolOf.get(session);
    if (pool === undefined) return;
    this.#poolOf.delete(session);
    this.#byAsker.delete(askerKey(session.spiInitiator, session.askedFrom));
    pool.drop(session);
  }

  #poolFor(address: IpAddress): Places {
    return this.#isNamed(address) ? this.#named : this.#others;
  }

  #bucketFor(pool: Places, address: IpAddress, spent: string | undefined): TokenBucket {
    if (pool === this.#named) return this.#crowdedNamed;
    return spent === undefined && pool.isLessCrowded(address) ? this.#fair : this.#crowded;
  }
}

function askerKey(spiInitiator: bigint, { remote }: Path): string {
  return `${spiInitiator} ${remote.address.value} ${remote.port}`;
}
