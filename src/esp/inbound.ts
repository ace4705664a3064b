/**
 * The receiving pipeline of an engine: ESP packets in, plain packets out, in place (RFC 4301 §5.2, RFC 4303 §3.4). A
 * packet passes these stages, the later ones in `EspInboundSa.open`, whose functions follow in this order:
 *
 * 1. look up: the SA, by SPI;
 * 2. decrypt: lengths, replay window, ICV, limits;
 * 3. decapsulate: the trailer, and the packet inside; in transport mode its header is written;
 * 4. check: the selectors of the SA, and the policy;
 * 5. finish: congestion marks, the MSS of TCP, counters.
 */
import type { PacketBatch } from '../base/batch.ts';
import { readI32 } from '../base/bytes.ts';
import { Flow } from '../policy/flow.ts';
import { FragmentTracker } from '../policy/fragments.ts';
import { type DropCounters, DropReason, newDropCounters } from './drops.ts';
import type { EspInboundSa } from './inbound-sa.ts';
import { ESP_HEADER_LENGTH } from './packet.ts';
import { drainSignals, Expiry, type SaSignal } from './usage.ts';

/** The most SAs at a time, unless told otherwise. */
export const MAX_SAS = 65_536;

export interface InboundPipelineOptions {
  /** The most SAs at a time; 65,536 when left out. */
  readonly maxSas?: number;
  readonly drops?: DropCounters;
  /** Of what came in; one with a random seed is safer against floods of fragments. */
  readonly fragments?: FragmentTracker;
  /** Called for a packet of no SA; true when it is kept, and so not dropped. */
  readonly onUnknown?: (batch: PacketBatch, slot: number) => boolean;
}

export class InboundPipeline {
  /** All drops, by reason. */
  readonly drops: DropCounters;
  /**
   * After `process`, for each slot of the batch: the SA that authenticated its packet, also when the packet was
   * dropped afterwards. `undefined` where nothing was authenticated.
   */
  readonly slotSa: (EspInboundSa | undefined)[] = [];
  /** After `process`, for each slot: 1 when its packet was authentic and the newest of its SA so far. */
  slotAdvanced: Uint8Array = new Uint8Array(0);
  readonly #maxSas: number;
  /** Keyed by the SPI as a signed integer. BOUNDED: `maxSas`. */
  readonly #sas = new Map<number, EspInboundSa>();
  readonly #flow = new Flow();
  readonly #expiry = new Expiry<EspInboundSa>();
  readonly #fragments: FragmentTracker;
  readonly #onUnknown: InboundPipelineOptions['onUnknown'];
  // BOUNDED: an SA enters at most twice in its life.
  #signals: SaSignal<EspInboundSa>[] = [];

  constructor(options: InboundPipelineOptions = {}) {
    this.#maxSas = options.maxSas ?? MAX_SAS;
    this.drops = options.drops ?? newDropCounters();
    this.#fragments = options.fragments ?? new FragmentTracker();
    this.#onUnknown = options.onUnknown;
  }

  get size(): number {
    return this.#sas.size;
  }

  sas(): IterableIterator<EspInboundSa> {
    return this.#sas.values();
  }

  get(spi: number): EspInboundSa | undefined {
    return this.#sas.get(spi | 0);
  }

  /** Returns `false`, and changes nothing, when the SPI is taken or there are too many SAs. */
  add(sa: EspInboundSa): boolean {
    const key = sa.spi | 0;
    if (this.#sas.has(key) || this.#sas.size >= this.#maxSas) return false;
    this.#sas.set(key, sa);
    this.#expiry.add(sa);
    return true;
  }

  /** Removes the SA and wipes its keys. */
  remove(sa: EspInboundSa): void {
    if (this.#sas.get(sa.spi | 0) !== sa) return;
    this.#sas.delete(sa.spi | 0);
    sa.wipe();
  }

  /**
   * Opens every ESP packet of the batch; `batch.offset` points to the SPI. A slot then holds the packet that was
   * inside and has the tag of its SA; or has length 0, and the reason was counted.
   */
  process(now: number, batch: PacketBatch): void {
    if (this.slotAdvanced.length < batch.capacity) this.slotAdvanced = new Uint8Array(batch.capacity);
    for (let slot = 0; slot < batch.count; slot++) {
      this.slotSa[slot] = undefined;
      this.slotAdvanced[slot] = 0;
      if (batch.length[slot] === 0) continue;
      const reason = this.#lookUp(now, batch, slot);
      if (reason !== DropReason.none) {
        this.drops[reason]!++;
        batch.length[slot] = 0;
      }
    }
  }

  /** Applies time limits to SAs that may be idle. Costs nothing before `nextDeadline`. */
  expire(now: number): void {
    if (now >= this.#expiry.next) this.#expiry.run(now, this.#sas.values(), this.#signals);
  }

  /** When `expire` should be called next; `Infinity` for never. May be too early, never too late. */
  nextDeadline(): number {
    return this.#expiry.next;
  }

  /** SAs that reached a limit since the last call. */
  takeSignals(): SaSignal<EspInboundSa>[] {
    const taken = this.#signals;
    if (taken.length > 0) this.#signals = [];
    return taken;
  }

  /** Stage 1, and the others on the SA that was found. */
  #lookUp(now: number, batch: PacketBatch, slot: number): DropReason {
    if (batch.length[slot]! < ESP_HEADER_LENGTH) return DropReason.tooShort;
    const sa = this.#sas.get(readI32(batch.buffer, batch.offset[slot]!));
    if (sa === undefined) return this.#unknown(batch, slot);
    const reason = sa.open(now, batch, slot, this.#flow, this.#fragments);
    if (sa.authenticated) {
      this.slotSa[slot] = sa;
      this.slotAdvanced[slot] = sa.advanced ? 1 : 0;
    }
    if (sa.usage.signalled) drainSignals(sa, this.#signals);
    batch.tag[slot] = sa.tag;
    return reason;
  }

  #unknown(batch: PacketBatch, slot: number): DropReason {
    if (this.#onUnknown?.(batch, slot) !== true) return DropReason.unknownSpi;
    batch.length[slot] = 0;
    return DropReason.none;
  }
}
