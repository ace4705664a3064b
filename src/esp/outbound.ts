/**
 * The sending pipeline of one tunnel device: plain packets in, ESP packets out, in place (RFC 4301 §5.1).
 */
import type { PacketBatch } from '../base/batch.ts';
import { Flow, FlowError, readFlow } from '../policy/flow.ts';
import { type DropCounters, DropReason, newDropCounters } from './drops.ts';
import type { EspOutboundSa } from './outbound-sa.ts';
import { NextHeader } from './packet.ts';
import { drainSignals, type SaSignal } from './usage.ts';

/** Tag of a packet that leaves in the clear. */
export const BYPASS_TAG = -1;

/** Old and new SAs of an entry, narrowed ones and those of several peers included. */
const MAX_SAS_PER_ENTRY = 16;

/** What a policy entry wants for the packets that it matches. `use` protects when there is an SA (else in the clear). */
export type OutboundAction = 'discard' | 'bypass' | 'use' | 'require';

/** What the pipeline needs to know of a compiled policy. */
export interface OutboundPolicy {
  /** Index of the first entry that matches, or -1. */
  lookup(flow: Flow): number;
  /** By index. */
  readonly actions: readonly OutboundAction[];
}

export interface OutboundPipelineOptions {
  /**
   * Called for each packet that met a protect entry without a usable SA, before the packet is dropped (or tagged
   * with `BYPASS_TAG` when the entry says `use`): the moment to copy it and to begin a negotiation.
   */
  readonly onMissing: (entryIndex: number, batch: PacketBatch, slot: number) => void;
  readonly drops?: DropCounters;
}

/** The SAs of one policy entry. */
interface EntrySas {
  /** The sending one first; the others take over when its selectors do not fit or it expires. BOUNDED: MAX_SAS_PER_ENTRY with `standby`. */
  active: EspOutboundSa[];
  /** Installed, but not to be sent on until `activate`. */
  standby: EspOutboundSa[];
}

export class OutboundPipeline {
  /** All drops, by reason. */
  readonly drops: DropCounters;
  /** Packets that were tagged to leave in the clear. */
  bypassed = 0;
  readonly #onMissing: OutboundPipelineOptions['onMissing'];
  #policy: OutboundPolicy;
  /** By entry index. BOUNDED: the entries of the policy. */
  #entries: EntrySas[];
  readonly #flow = new Flow();
  // BOUNDED: an SA enters at most twice in its life.
  #signals: SaSignal<EspOutboundSa>[] = [];

  constructor(policy: OutboundPolicy, options: OutboundPipelineOptions) {
    this.#onMissing = options.onMissing;
    this.drops = options.drops ?? newDropCounters();
    this.#policy = policy;
    this.#entries = policy.actions.map(() => ({ active: [], standby: [] }));
  }

  /**
   * Replaces the policy.
   * @param newIndexOf index in the new policy of an entry of the old one, or -1 when it is gone. SAs that are left
   * without an entry are returned and are the caller's to wipe.
   */
  setPolicy(policy: OutboundPolicy, newIndexOf: (oldIndex: number) => number): EspOutboundSa[] {
    throw new Error(`${policy} ${newIndexOf}`);
  }

  /**
   * Installs an SA for an entry; one SA may serve several. It is sent on at once if `activate`, else after
   * `activate(sa)`. Returns `false`, and changes nothing, when the entry has too many SAs.
   */
  add(entryIndex: number, sa: EspOutboundSa, activate: boolean): boolean {
    throw new Error(`${entryIndex} ${sa} ${activate}`);
  }

  /** From now on packets of its entries leave on this SA if it fits them. */
  activate(sa: EspOutboundSa): void {
    throw new Error(`${sa}`);
  }

  /** Removes the SA from all its entries and wipes its keys. */
  remove(sa: EspOutboundSa): void {
    throw new Error(`${sa}`);
  }

  /**
   * Takes every plain packet of the batch through the policy. A slot then holds an ESP packet and has the tag of its
   * SA's path; or is untouched with `BYPASS_TAG`; or has length 0, and the reason was counted.
   */
  process(now: number, batch: PacketBatch): void {
    for (let slot = 0; slot < batch.count; slot++) {
      if (batch.length[slot] === 0) continue;
      const reason = this.#processSlot(now, batch, slot);
      if (reason !== DropReason.none) {
        this.drops[reason]!++;
        batch.length[slot] = 0;
      }
    }
  }

  /** Applies time limits to SAs that may be idle. */
  expire(now: number): void {
    throw new Error(`${now}`);
  }

  /** When `expire` should be called next; `Infinity` for never. */
  nextDeadline(): number {
    throw new Error();
  }

  /** SAs that reached a limit since the last call. */
  takeSignals(): SaSignal<EspOutboundSa>[] {
    const taken = this.#signals;
    if (taken.length > 0) this.#signals = [];
    return taken;
  }

  #processSlot(now: number, batch: PacketBatch, slot: number): DropReason {
    const flow = this.#flow;
    if (readFlow(batch.buffer, batch.offset[slot]!, batch.length[slot]!, flow) !== FlowError.none) {
      return DropReason.badInnerPacket;
    }
    const index = this.#policy.lookup(flow);
    const entry = this.#entries[index];
    if (entry === undefined) return DropReason.noPolicy;
    for (const sa of entry.active) {
      if (sa.usable && sa.selectors.matchesFlow(flow, true)) {
        const nextHeader = flow.family === 4 ? NextHeader.ipv4 : NextHeader.ipv6;
        const reason = sa.seal(now, batch, slot, nextHeader);
        drainSignals(sa, this.#signals);
        batch.tag[slot] = sa.pathIndex;
        return reason;
      }
    }
    this.#onMissing(index, batch, slot);
    return DropReason.noSa;
  }
}
