/**
 * Stateful fragment checking (RFC 4301 §7.3): remembers the ports of first fragments, so that the later fragments of a
 * datagram are decided as its first was.
 *
 * One tracker serves one direction of one device. Hot path: no allocation. A later fragment that comes before its
 * first keeps its ports hidden.
 */
import { type Flow, Fragment, SOURCE } from './flow.ts';
import { mixHash } from './words.ts';

/** Ways of a set: a datagram may stand in any of them. */
const WAYS = 4;

/** Words of a key: family and protocol, identification, source, destination. */
const KEY_WORDS = 10;

/** How long the later fragments of a datagram are awaited: as long as Linux awaits them. */
const DEFAULT_LIFETIME = 30_000;

export interface FragmentTrackerOptions {
  /** Datagrams that are remembered at once: rounded up to a power of two, at least 4. Default 1,024. */
  readonly capacity?: number;
  /** Milliseconds that a first fragment is remembered. Default 30,000. */
  readonly lifetime?: number;
  /** A random word that makes it hard to fill one set on purpose. */
  readonly seed?: number;
}

/** Remembers first fragments, keyed by what reassembly keys on (RFC 791 §3.2, RFC 8200 §4.5). */
export class FragmentTracker {
  /** First fragments that were pushed out by newer ones before their time. */
  evicted = 0;
  readonly #lifetime: number;
  readonly #seed: number;
  readonly #setMask: number;
  // BOUNDED: `capacity` records; a set that is full loses its oldest.
  readonly #keys: Uint32Array;
  readonly #protocol: Uint8Array;
  readonly #ports: Int32Array;
  readonly #expires: Float64Array;
  readonly #key: Uint32Array = new Uint32Array(KEY_WORDS);

  constructor({ capacity = 1024, lifetime = DEFAULT_LIFETIME, seed = 0 }: FragmentTrackerOptions = {}) {
    const records = 2 ** Math.ceil(Math.log2(Math.max(capacity, WAYS)));
    this.#lifetime = lifetime;
    this.#seed = seed;
    this.#setMask = records / WAYS - 1;
    this.#keys = new Uint32Array(records * KEY_WORDS);
    this.#protocol = new Uint8Array(records);
    this.#ports = new Int32Array(2 * records);
    this.#expires = new Float64Array(records).fill(Number.NEGATIVE_INFINITY);
  }

  /**
   * Call for each packet whose `fragment` is not `none`. A first fragment is remembered; a later one gets protocol
   * and ports of its first and `firstSeen`, if that is remembered. `now` is the caller's monotonic clock in ms.
   *
   * @returns false for a later fragment whose first is not known
   */
  resolve(flow: Flow, now: number): boolean {
    if (flow.fragment === Fragment.none) return true;
    const set = this.#locate(flow);
    if (flow.fragment === Fragment.first) {
      this.#remember(set, flow, now);
      return true;
    }
    const record = this.#find(set, now);
    if (record < 0) return false;
    flow.protocol = this.#protocol[record]!;
    flow.srcPort = this.#ports[2 * record]!;
    flow.dstPort = this.#ports[2 * record + 1]!;
    flow.firstSeen = true;
    return true;
  }

  /** Forgets all: for a device that was taken down. */
  clear(): void {
    this.#expires.fill(Number.NEGATIVE_INFINITY);
  }

  #remember(set: number, flow: Flow, now: number): void {
    let record = this.#find(set, now);
    if (record < 0) {
      record = this.#oldest(set);
      if (this.#expires[record]! > now) this.evicted++;
      this.#keys.set(this.#key, record * KEY_WORDS);
    }
    this.#protocol[record] = flow.protocol;
    this.#ports[2 * record] = flow.srcPort;
    this.#ports[2 * record + 1] = flow.dstPort;
    this.#expires[record] = now + this.#lifetime;
  }

  /** Writes the key of the packet into the scratch key; returns the first record of its set. */
  #locate(flow: Flow): number {
    const key = this.#key;
    // Only the first fragment's next header counts in IPv6, so the protocol is no part of the key there.
    key[0] = flow.family === 4 ? 0x400 | flow.protocol : 0x600;
    key[1] = flow.fragmentId;
    for (let i = 0; i < 8; i++) {
      key[2 + i] = flow.family === 6 || (i & 3) === 0 ? flow.words[SOURCE + i]! : 0;
    }
    let hash = this.#seed | 0;
    for (let i = 0; i < KEY_WORDS; i++) hash = mixHash(hash, key[i]!);
    return (hash & this.#setMask) * WAYS;
  }

  #find(set: number, now: number): number {
    for (let record = set; record < set + WAYS; record++) {
      if (this.#expires[record]! > now && this.#keyIs(record)) return record;
    }
    return -1;
  }

  #keyIs(record: number): boolean {
    const at = record * KEY_WORDS;
    for (let i = 0; i < KEY_WORDS; i++) if (this.#keys[at + i] !== this.#key[i]) return false;
    return true;
  }

  #oldest(set: number): number {
    let oldest = set;
    for (let record = set + 1; record < set + WAYS; record++) {
      if (this.#expires[record]! < this.#expires[oldest]!) oldest = record;
    }
    return oldest;
  }
}
