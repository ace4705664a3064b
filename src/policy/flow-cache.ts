/**
 * A cache in front of the policy database: packets of a known flow cost a hash and a comparison,
 * however many policies there are. It starts small and grows with the number of flows, because most tunnels have
 * few. Hot path: no allocation but for that growth.
 */
import { DESTINATION, type Flow, Fragment, SOURCE } from './flow.ts';
import { mixHash } from './words.ts';

/** Words of a record: what kind of packet, the ports, both addresses, the answer. */
const STRIDE = 11;
const KIND = 0;
const PORTS = 1;
const ADDRESSES = 2;
const ANSWER = 10;

const FIRST_SLOTS = 64;
const DEFAULT_MAX_SLOTS = 4_096;

/** What answers where the cache does not: a policy database. */
export interface FlowPolicy {
  /** Depends on nothing but the flow. */
  lookup(flow: Flow): number;
}

/** Two-way: of the flows that share a set the last two decided stay; the others are looked up again. */
export class FlowCache {
  // BOUNDED: `#maxSlots` records. A set is two records, the newer first.
  #records: Int32Array;
  #mask: number;
  readonly #maxSlots: number;
  /** Flows that were pushed out since the cache has had its size. */
  #evicted = 0;
  #policy: FlowPolicy | undefined;

  /** @param maxSlots flows that are remembered at most; rounded up to a power of two */
  constructor(maxSlots: number = DEFAULT_MAX_SLOTS) {
    this.#maxSlots = 2 ** Math.ceil(Math.log2(Math.max(maxSlots, 2)));
    const slots = Math.min(FIRST_SLOTS, this.#maxSlots);
    this.#records = new Int32Array(slots * STRIDE);
    this.#mask = slots / 2 - 1;
  }

  /** Flows that it has room for now. */
  get slots(): number {
    return 2 * (this.#mask + 1);
  }

  /** What `policy.lookup(flow)` returns. Another policy than the last time empties the cache. */
  lookup(policy: FlowPolicy, flow: Flow): number {
    if (policy !== this.#policy) this.#start(policy);
    const records = this.#records;
    // A packet of any kind has a bit set, so an empty record never matches one.
    const undecided = flow.fragment === Fragment.later && !flow.firstSeen ? 0x1000 : 0;
    const kind = (flow.family << 16) | undecided | (flow.srcPort < 0 ? 0x2000 : 0) | (flow.protocol + 1);
    const ports = (flow.srcPort << 16) | (flow.dstPort & 0xffff);
    const set = (flow.family === 4 ? hash4(flow, kind, ports) : hash6(flow, kind, ports)) & this.#mask;
    const newer = 2 * set * STRIDE;
    if (this.#holds(newer, flow, kind, ports)) return records[newer + ANSWER]!;
    const older = newer + STRIDE;
    if (this.#holds(older, flow, kind, ports)) return records[older + ANSWER]!;
    const answer = policy.lookup(flow);
    if (records[older + KIND] !== 0 && ++this.#evicted > this.slots && this.slots < this.#maxSlots) {
      this.#grow();
      return answer;
    }
    records.copyWithin(older, newer, older);
    records[newer + KIND] = kind;
    records[newer + PORTS] = ports;
    for (let i = 0; i < 8; i++) records[newer + ADDRESSES + i] = flow.words[i]!;
    records[newer + ANSWER] = answer;
    return answer;
  }

  /** To be called when the policy has changed and is the same object. */
  clear(): void {
    this.#policy = undefined;
  }

  #start(policy: FlowPolicy): void {
    this.#records.fill(0);
    this.#policy = policy;
  }

  /** Begins anew, with room for twice as many: what is remembered is soon found again. */
  #grow(): void {
    const slots = 2 * this.slots;
    this.#records = new Int32Array(slots * STRIDE);
    this.#mask = slots / 2 - 1;
    this.#evicted = 0;
  }

  #holds(at: number, flow: Flow, kind: number, ports: number): boolean {
    const records = this.#records;
    if (records[at + KIND] !== kind || records[at + PORTS] !== ports) return false;
    const words = flow.words;
    const step = flow.family === 4 ? DESTINATION - SOURCE : 1;
    for (let i = 0; i < 8; i += step) if (records[at + ADDRESSES + i] !== (words[i]! | 0)) return false;
    return true;
  }
}

// `| 0` makes small integers of the words: a call that is not inlined then puts none on the heap.
function hash4(flow: Flow, kind: number, ports: number): number {
  return mixHash(mixHash(mixHash(kind, ports), flow.words[SOURCE]! | 0), flow.words[DESTINATION]! | 0);
}

function hash6(flow: Flow, kind: number, ports: number): number {
  let hash = mixHash(kind, ports);
  for (let i = 0; i < 8; i++) hash = mixHash(hash, flow.words[i]! | 0);
  return hash;
}
