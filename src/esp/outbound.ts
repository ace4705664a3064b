/**
 * The sending pipeline of one tunnel device: plain packets in, ESP packets out, in place (RFC 4301 §5.1). A packet passes
 * these stages, whose functions follow in this order:
 *
 * 1. look up: reads its flow, and finds the policy entry that decides it;
 * 2. decide: discard, bypass, or protect;
 * 3. select SA: the best of the entry's SAs that carries the flow (`EntrySas`);
 * 4. prepare: the path's size, what transport mode can carry, the MSS of TCP;
 * 5. encapsulate: padding (`EspOutboundSa.encapsulate`), in transport mode in place of the IP header;
 * 6. encrypt: sequence number, ESP header and trailer, cipher (`EspOutboundSa.#encrypt`);
 * 7. address: the tag of the path and the traffic class of the outer header.
 */
import { assertNever } from '../base/assert.ts';
import type { PacketBatch } from '../base/batch.ts';
import { MIN_MTU } from '../base/mtu.ts';
import { SetMap } from '../base/set-map.ts';
import { type CompiledPolicy, FRAGMENT_UNDECIDED } from '../policy/database.ts';
import { Flow } from '../policy/flow.ts';
import { FlowCache } from '../policy/flow-cache.ts';
import { readTurnedTrigger } from '../policy/icmp-error.ts';
import { type DropCounters, DropReason, newDropCounters } from './drops.ts';
import { FlowReader } from './flow-reader.ts';
import { clampMss } from './mss.ts';
import { EntrySas } from './outbound-entry.ts';
import type { EspOutboundSa } from './outbound-sa.ts';
import { NextHeader } from './packet.ts';
import { outerTrafficClass } from './traffic-class.ts';
import { restoreHeader, stripHeader, transportProblem } from './transport.ts';
import { drainSignals, Expiry, type SaSignal } from './usage.ts';

/** Tag of a packet that leaves in the clear. */
export const BYPASS_TAG = -1;

/** Stage 3 found no SA for a packet. */
const NO_SA = -1;

export interface OutboundPipelineOptions {
  /**
   * Called for each packet that met a protect entry without a usable SA, before the packet is dropped as `noSa`, or
   * tagged with `BYPASS_TAG` when the entry's level is `use`: the moment to copy it and to begin a negotiation.
   * `flow` is that of the packet. True when the peer has just refused such an SA: the packet counts as `narrowed` where the
   * entry has others.
   */
  readonly onMissing: (entryIndex: number, batch: PacketBatch, slot: number, flow: Flow) => boolean | undefined;
  /**
   * Called for each packet that is dropped because the policy says so, here or at the peer (`noPolicy`, `discarded`,
   * `narrowed`): the moment to tell its sender (RFC 4301 §5.1.1).
   */
  readonly onDenied?: (batch: PacketBatch, slot: number, flow: Flow) => void;
  /**
   * Called for each packet that the path does not take in one piece and that must not be fragmented, before it is
   * dropped as `tooBig`: the moment to tell its sender. `mtu` is what fits; `flow` is that of the packet.
   */
  readonly onTooBig?: (batch: PacketBatch, slot: number, flow: Flow, mtu: number) => void;
  readonly drops?: DropCounters;
  /**
   * Of this device: pipelines of tunnels that share it have the same.
   */
  readonly reader?: FlowReader;
}

export class OutboundPipeline {
  /** All drops, by reason. */
  readonly drops: DropCounters;
  /** Packets that were tagged to leave in the clear. */
  bypassed = 0;
  readonly #onMissing: OutboundPipelineOptions['onMissing'];
  readonly #onDenied: OutboundPipelineOptions['onDenied'];
  readonly #onTooBig: OutboundPipelineOptions['onTooBig'];
  readonly #policy: CompiledPolicy;
  /** By entry index. BOUNDED: the entries of the policy. */
  readonly #entries: readonly EntrySas[];
  /** Where an SA stands, so that thousands of entries need not be looked through. BOUNDED: by them. */
  readonly #entriesOf = new SetMap<EspOutboundSa, EntrySas>();
  readonly #reader: FlowReader;
  readonly #flow: Flow;
  /** Of the packet that an ICMP error is about, turned round. */
  readonly #turned = new Flow();
  readonly #expiry = new Expiry<EspOutboundSa>();
  readonly #flows = new FlowCache();
  // BOUNDED: an SA enters at most twice in its life.
  #signals: SaSignal<EspOutboundSa>[] = [];

  constructor(policy: CompiledPolicy, options: OutboundPipelineOptions) {
    this.#onMissing = options.onMissing;
    this.#onDenied = options.onDenied;
    this.#onTooBig = options.onTooBig;
    this.drops = options.drops ?? newDropCounters();
    this.#reader = options.reader ?? new FlowReader();
    this.#flow = this.#reader.flow;
    this.#policy = policy;
    this.#entries = policy.entries.map(({ pfp }) => new EntrySas(pfp));
  }

  /**
   * Installs an SA for an entry; one SA may serve several. It is sent on at once if `active`, else after
   * `activate(sa)`. Returns `false`, and changes nothing, when the entry has too many SAs.
   */
  add(entryIndex: number, sa: EspOutboundSa, { active }: { readonly active: boolean }): boolean {
    const entry = this.#entries[entryIndex];
    if (entry?.add(sa, { active }) !== true) return false;
    this.#entriesOf.add(sa, entry);
    this.#expiry.add(sa);
    return true;
  }

  /** From now on packets of its entries leave on this SA if it fits them. */
  activate(sa: EspOutboundSa): void {
    for (const entry of this.#entriesOf.get(sa)) entry.activate(sa);
  }

  /** Removes the SA from all its entries and wipes its keys. */
  remove(sa: EspOutboundSa): void {
    for (const entry of [...this.#entriesOf.get(sa)]) {
      entry.remove(sa);
      this.#entriesOf.delete(sa, entry);
    }
    sa.wipe();
  }

  /** All SAs, each once. */
  sas(): Set<EspOutboundSa> {
    return new Set(this.#entries.flatMap((entry) => [...entry.sas()]));
  }

  /**
   * Takes every plain packet of the batch through the policy. A slot then holds an ESP packet and has the tag of its
   * SA's path and the traffic class of its outer header; or is untouched with `BYPASS_TAG`; or has length 0, and the
   * reason was counted.
   */
  process(now: number, batch: PacketBatch): void {
    for (let slot = 0; slot < batch.count; slot++) {
      if (batch.length[slot] === 0) continue;
      if (this.#reader.read(now, batch, slot)) this.processRead(now, batch, slot);
      else this.#drop(batch, slot, DropReason.badInnerPacket);
    }
  }

  /** The same for one packet, which the reader has just read. */
  processRead(now: number, batch: PacketBatch, slot: number): void {
    const reason = this.#lookUp(now, batch, slot);
    if (reason !== DropReason.none) this.#drop(batch, slot, reason);
  }

  #drop(batch: PacketBatch, slot: number, reason: DropReason): void {
    this.drops[reason]!++;
    batch.length[slot] = 0;
  }

  /** Puts a dummy packet of one of the SAs into the next slot of the batch, tagged, if it may send (RFC 4303 §2.6). */
  addDummy(now: number, sa: EspOutboundSa, batch: PacketBatch, length: number): void {
    if (!sa.usable) return;
    sa.addDummy(now, batch, length);
    if (sa.usage.signalled) drainSignals(sa, this.#signals);
  }

  /** Applies time limits to SAs that may be idle. Costs nothing before `nextDeadline`. */
  expire(now: number): void {
    if (now >= this.#expiry.next) this.#expiry.run(now, this.sas(), this.#signals);
  }

  /** When `expire` should be called next; `Infinity` for never. May be too early, never too late. */
  nextDeadline(): number {
    return this.#expiry.next;
  }

  /** SAs that reached a limit since the last call. */
  takeSignals(): SaSignal<EspOutboundSa>[] {
    const taken = this.#signals;
    if (taken.length > 0) this.#signals = [];
    return taken;
  }

  /** Stage 1, from the flow on. */
  #lookUp(now: number, batch: PacketBatch, slot: number): DropReason {
    const index = this.#flows.lookup(this.#policy, this.#flow);
    return index < 0 ? this.#unmatched(now, batch, slot, index) : this.#decide(now, batch, slot, index);
  }

  /** Stage 1, no entry matches. An ICMP error then goes with the traffic that it is about (RFC 4301 §6.2). */
  #unmatched(now: number, batch: PacketBatch, slot: number, why: number): DropReason {
    const flow = this.#flow;
    const turned = this.#turned;
    if (why === FRAGMENT_UNDECIDED) return DropReason.fragment;
    if (readTurnedTrigger(batch.buffer, batch.offset[slot]!, flow, turned)) {
      const index = this.#policy.lookup(turned);
      if (index >= 0 && this.#policy.entries[index]!.action === 'protect') {
        // An SA that is missing is not asked for.
        const reason = this.#protect(now, batch, slot, this.#entries[index]!, turned);
        if (reason !== NO_SA) return reason;
      }
    }
    this.#onDenied?.(batch, slot, flow);
    return DropReason.noPolicy;
  }

  /** Stage 2. */
  #decide(now: number, batch: PacketBatch, slot: number, index: number): DropReason {
    const flow = this.#flow;
    const { action, level } = this.#policy.entries[index]!;
    switch (action) {
      case 'discard':
        this.#onDenied?.(batch, slot, flow);
        return DropReason.discarded;
      case 'bypass':
        return this.#bypass(batch, slot);
      case 'protect': {
        const entry = this.#entries[index]!;
        const reason = this.#protect(now, batch, slot, entry, flow);
        if (reason !== NO_SA) return reason;
        const refused = this.#onMissing(index, batch, slot, flow);
        if (refused && entry.carriesOthers(flow)) return DropReason.narrowed;
        return level === 'use' ? this.#bypass(batch, slot) : DropReason.noSa;
      }
      default:
        return assertNever(action, 'policy action');
    }
  }

  #bypass(batch: PacketBatch, slot: number): DropReason {
    this.bypassed++;
    batch.tag[slot] = BYPASS_TAG;
    return DropReason.none;
  }

  /** Stages 3 to 7 on an SA of the entry that carries `as`: the packet's flow, or the one that an ICMP error is about. */
  #protect(now: number, batch: PacketBatch, slot: number, entry: EntrySas, as: Flow): DropReason | typeof NO_SA {
    const flow = this.#flow;
    batch.length[slot] = flow.totalLength;
    for (;;) {
      const sa = entry.select(as, as === flow ? 'any' : 'tunnel');
      if (sa === undefined) return NO_SA;
      // The second stage after the first returned 0: `DropReason.none`.
      const reason = this.#prepare(batch, slot, sa) || this.#encapsulate(now, batch, slot, sa);
      if (sa.usage.signalled) drainSignals(sa, this.#signals);
      // An SA that has just run out leaves the packet as it was, and is not selected again: another may take it.
      if (!sa.usable) continue;
      // Stage 7.
      batch.tag[slot] = sa.pathIndex;
      batch.trafficClass[slot] = outerTrafficClass(flow.trafficClass, sa.dscp);
      return reason;
    }
  }

  /** Stage 4. */
  #prepare(batch: PacketBatch, slot: number, sa: EspOutboundSa): DropReason {
    const flow = this.#flow;
    if (flow.totalLength > sa.mtu && flow.dontFragment && this.#isTooBig(batch, slot, sa)) return DropReason.tooBig;
    if (sa.transport) {
      const problem = transportProblem(batch.buffer, batch.offset[slot]!, flow);
      if (problem !== DropReason.none) return problem;
    }
    clampMss(batch.buffer, batch.offset[slot]!, flow, sa.clampMtu);
    return DropReason.none;
  }

  /** Stages 5 and 6: the packet in the slot, or what transport mode leaves of it. */
  #encapsulate(now: number, batch: PacketBatch, slot: number, sa: EspOutboundSa): DropReason {
    const flow = this.#flow;
    if (!sa.transport) return sa.encapsulate(now, batch, slot, flow.family === 4 ? NextHeader.ipv4 : NextHeader.ipv6);
    const reason = sa.encapsulate(now, batch, slot, stripHeader(batch, slot, flow));
    if (reason !== DropReason.none) restoreHeader(batch, slot, flow);
    return reason;
  }

  /** RFC 4301 §8.2.1: the sender finds the path's MTU. What may be fragmented is fragmented outside, as an ESP packet. */
  #isTooBig(batch: PacketBatch, slot: number, sa: EspOutboundSa): boolean {
    const mtu = Math.max(sa.mtu, MIN_MTU[this.#flow.family]);
    if (this.#flow.totalLength <= mtu) return false;
    this.#onTooBig?.(batch, slot, this.#flow, mtu);
    return true;
  }
}
