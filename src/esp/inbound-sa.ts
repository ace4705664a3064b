/**
 * The receiving half of a CHILD SA: stages 2 to 5 of a packet's way in (`inbound.ts`), from anti-replay and decryption in
 * place to the check of the packet inside (RFC 4303 §3.4, RFC 4301 §5.2).
 */

import type { PacketBatch } from '../base/batch.ts';
import { readI32 } from '../base/bytes.ts';
import { IP_HEADER } from '../base/mtu.ts';
import { MIN_ESP_SPI } from '../base/spi.ts';
import type { PacketCipher } from '../crypto/types.ts';
import type { CompiledSelectors } from '../policy/compiled.ts';
import { Flow, FlowError, Fragment, readFlow } from '../policy/flow.ts';
import type { FragmentTracker } from '../policy/fragments.ts';
import type { InboundGuard } from '../policy/guard.ts';
import { readTurnedTrigger } from '../policy/icmp-error.ts';
import type { TransportHosts } from '../policy/transport.ts';
import { type DropCounters, DropReason, newDropCounters } from './drops.ts';
import { clampMss } from './mss.ts';
import { ESP_HEADER_LENGTH, espAlignment, NextHeader, nextHeaderOf, payloadLengthOf } from './packet.ts';
import { DEFAULT_REPLAY_WINDOW, REPLAYED, ReplayWindow } from './replay.ts';
import { combinedEcn, ECN_DROP, ECN_MASK, ECN_UNEXPECTED, Ecn, writeEcn } from './traffic-class.ts';
import { TransportRebuilder } from './transport.ts';
import { newSaState, SaCounter, type SaLimits, type SaState, SaUsage } from './usage.ts';

const MAX_U32 = 0xffff_ffff;
const MAX_PACKET = 0xffff;

/** Scratch: what an ICMP error is about, turned round. */
const TURNED = new Flow();

export interface InboundSaOptions {
  /** A number of the owner's own: the CHILD SA. */
  readonly id: number;
  /** As we chose it. */
  readonly spi: number;
  /** The SA owns it from now on and wipes it. */
  readonly cipher: PacketCipher;
  readonly esn: boolean;
  /** What the SA carries, seen from here: local is the destination of what comes in. */
  readonly selectors: CompiledSelectors;
  /** What the policy says beside the selectors, where it says more. */
  readonly guard?: InboundGuard | undefined;
  /** The hosts of an SA in transport mode. */
  readonly transport?: TransportHosts | undefined;
  /** What the pipeline tags the packets with: the device that they go to. */
  readonly tag: number;
  readonly limits: SaLimits;
  /** Packets, 64 to 65,536; 1,024 when left out. */
  readonly replayWindow?: number;
  /** Where it goes on; a new one when left out. */
  readonly state?: SaState;
  /** What was dropped after it was known to belong to this SA, by reason. */
  readonly drops?: DropCounters;
}

export class EspInboundSa {
  readonly id: number;
  readonly spi: number;
  readonly esn: boolean;
  readonly selectors: CompiledSelectors;
  readonly usage: SaUsage;
  readonly replay: ReplayWindow;
  /** What was dropped after it was known to belong to this SA, by reason. */
  readonly drops: DropCounters;
  tag: number;
  /** Packets that the MSS of TCP is lowered to: what comes in says how large the answers may be. */
  clampMtu: number = MAX_PACKET;
  /** What decides its packets beside its selectors. */
  guard: InboundGuard | undefined;
  readonly #cipher: PacketCipher;
  readonly #alignment: number;
  readonly #head: number;
  /** In transport mode. */
  readonly #rebuilder: TransportRebuilder | undefined;
  /** Bytes of a packet that the rebuilder writes; 0 in tunnel mode. */
  readonly #rebuiltLength: number;
  #authenticated = false;
  #advanced = false;
  #wiped = false;

  /** @throws RangeError for an SPI below 256 or a replay window out of bounds */
  constructor(options: InboundSaOptions) {
    if (options.spi < MIN_ESP_SPI || options.spi > MAX_U32) throw new RangeError(`SPI ${options.spi} is reserved`);
    this.id = options.id;
    this.spi = options.spi;
    this.esn = options.esn;
    this.selectors = options.selectors;
    this.guard = options.guard;
    this.tag = options.tag;
    this.#cipher = options.cipher;
    this.#alignment = espAlignment(options.cipher);
    this.#head = ESP_HEADER_LENGTH + options.cipher.ivLength;
    const { transport } = options;
    this.#rebuilder = transport && new TransportRebuilder(transport);
    this.#rebuiltLength = transport === undefined ? 0 : IP_HEADER[transport.local.family];
    const { state = newSaState() } = options;
    this.drops = options.drops ?? newDropCounters();
    this.replay = new ReplayWindow({
      size: options.replayWindow ?? DEFAULT_REPLAY_WINDOW,
      esn: options.esn,
      top: state.sequence,
    });
    this.usage = new SaUsage(options.limits, state.counters);
  }

  /** Neither expired nor wiped. */
  get usable(): boolean {
    return !this.#wiped && !this.usage.expired;
  }

  /** At least one authentic packet has come. */
  get used(): boolean {
    return this.usage.counters[SaCounter.lastUsed]! >= 0;
  }

  /** The ICV was right in the last call of `open`, whatever became of the packet. */
  get authenticated(): boolean {
    return this.#authenticated;
  }

  /** The packet of the last call of `open` was authentic and newer than all before it. */
  get advanced(): boolean {
    return this.#advanced;
  }

  /**
   * Opens the ESP packet in a slot; offset and length of the slot then are those of the packet inside, which says what
   * the outer header told of congestion. When a reason is returned, the bytes in the slot may be scrambled and must not
   * be used.
   * @param flow scratch, filled with the flow of the packet inside
   * @param fragments remembers the first fragments that came in
   */
  open(now: number, batch: PacketBatch, slot: number, flow: Flow, fragments: FragmentTracker): DropReason {
    this.#authenticated = false;
    this.#advanced = false;
    // Each stage after one that returned 0: `DropReason.none`.
    const reason =
      this.#decrypt(now, batch, slot) ||
      this.#decapsulate(batch, slot, flow) ||
      this.#check(now, batch, slot, flow, fragments) ||
      this.#finish(batch, slot, flow);
    if (reason !== DropReason.none) this.drops[reason]!++;
    return reason;
  }

  /** Forgets the keys. */
  wipe(): void {
    if (this.#wiped) return;
    this.#wiped = true;
    this.#cipher.wipe();
  }

  /** Stage 2 (RFC 4303 §3.4.3, §3.4.4): the slot then holds plaintext with its trailer, without IV. */
  #decrypt(now: number, batch: PacketBatch, slot: number): DropReason {
    if (!this.usable) return DropReason.lifetimeExpired;
    const buffer = batch.buffer;
    const at = batch.offset[slot]!;
    const cipher = this.#cipher;
    const dataLength = batch.length[slot]! - this.#head - cipher.icvLength;
    if (dataLength < this.#alignment) return DropReason.tooShort;
    if ((dataLength & (this.#alignment - 1)) !== 0) return DropReason.badLength;
    const low = readI32(buffer, at + 4);
    const high = this.replay.check(low);
    if (high < 0) return high === REPLAYED ? DropReason.replay : DropReason.tooOld;
    if (!cipher.open(buffer, at, at + ESP_HEADER_LENGTH, dataLength, this.esn ? high : -1)) return DropReason.badIcv;
    this.#authenticated = true;
    this.#advanced = this.replay.accept(high, low);
    if (!this.usage.charge(now, dataLength)) return DropReason.lifetimeExpired;
    batch.offset[slot] = at + this.#head;
    batch.length[slot] = dataLength;
    return DropReason.none;
  }

  /** Stage 3: from plaintext with trailer to the packet inside. */
  #decapsulate(batch: PacketBatch, slot: number, flow: Flow): DropReason {
    const buffer = batch.buffer;
    const at = batch.offset[slot]!;
    const dataLength = batch.length[slot]!;
    const payloadLength = payloadLengthOf(buffer, at, dataLength);
    if (payloadLength < 0) return DropReason.badPadding;
    const nextHeader = nextHeaderOf(buffer, at, dataLength);
    if (nextHeader === NextHeader.none) {
      this.usage.counters[SaCounter.dummies]!++;
      return DropReason.dummy;
    }
    const rebuilder = this.#rebuilder;
    if (rebuilder !== undefined) return rebuilder.rebuild(batch, slot, payloadLength, nextHeader, flow);
    if (nextHeader !== NextHeader.ipv4 && nextHeader !== NextHeader.ipv6) return DropReason.badNextHeader;
    if (readFlow(buffer, at, payloadLength, flow) !== FlowError.none) return DropReason.badInnerPacket;
    if (flow.family !== (nextHeader === NextHeader.ipv4 ? 4 : 6)) return DropReason.badInnerPacket;
    // What lies behind the inner packet is padding for traffic flow confidentiality (RFC 4303 §2.7).
    batch.length[slot] = flow.totalLength;
    return DropReason.none;
  }

  /** Stage 4: whether the packet is one that the SA is for, by its selectors and the policy (RFC 4301 §5.2). */
  #check(now: number, batch: PacketBatch, slot: number, flow: Flow, fragments: FragmentTracker): DropReason {
    const { guard } = this;
    let refusal: DropReason = DropReason.none;
    if (flow.fragment === Fragment.later) fragments.resolve(flow, now);
    if (!this.selectors.matchesFlow(flow, false)) refusal = this.#mismatch(batch.buffer, batch.offset[slot]!, flow);
    else if (guard !== undefined && !guard.allows(flow)) refusal = DropReason.policyMismatch;
    // A first fragment is remembered only now: no SA may speak for the fragments of another.
    if (flow.fragment === Fragment.first && refusal === DropReason.none) fragments.resolve(flow, now);
    return refusal;
  }

  /**
   * Stage 4, the selectors do not match. In tunnel mode an ICMP error may be about a packet that they match: a router on
   * its way reports it (RFC 4301 §6.2).
   */
  #mismatch(buffer: Uint8Array, at: number, flow: Flow): DropReason {
    const { guard } = this;
    if (flow.fragment === Fragment.later && !flow.firstSeen) return DropReason.fragment;
    const isAbout =
      this.#rebuilder === undefined &&
      readTurnedTrigger(buffer, at, flow, TURNED) &&
      this.selectors.matchesFlow(TURNED, false) &&
      (guard === undefined || guard.allows(TURNED));
    return isAbout ? DropReason.none : DropReason.selectorMismatch;
  }

  /** Stage 5. */
  #finish(batch: PacketBatch, slot: number, flow: Flow): DropReason {
    const at = batch.offset[slot]!;
    const outer = batch.trafficClass[slot]!;
    // In transport mode the header was written with the class of the outer one.
    if (((outer ^ flow.trafficClass) & ECN_MASK) !== 0 && !this.#passCongestionOn(batch.buffer, at, flow, outer)) {
      return DropReason.congestion;
    }
    clampMss(batch.buffer, at, flow, this.clampMtu);
    const { counters } = this.usage;
    counters[SaCounter.packets]!++;
    counters[SaCounter.bytes]! += flow.totalLength - this.#rebuiltLength;
    return DropReason.none;
  }

  /** Combines the ECN of both headers (RFC 6040 §4.2). False when the packet must be dropped in place of being marked. */
  #passCongestionOn(buffer: Uint8Array, at: number, flow: Flow, outer: number): boolean {
    const { counters } = this.usage;
    const combined = combinedEcn(flow.trafficClass, outer);
    if ((combined & ECN_UNEXPECTED) !== 0) counters[SaCounter.ecnUnexpected]!++;
    if ((combined & ECN_DROP) !== 0) return false;
    const ecn = combined & ECN_MASK;
    if (ecn === (flow.trafficClass & ECN_MASK)) return true;
    if (ecn === Ecn.ce) counters[SaCounter.ecnMarked]!++;
    writeEcn(buffer, at, ecn);
    return true;
  }
}
