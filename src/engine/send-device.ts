/**
 * A device in the sending half of the data plane. The tunnels that share it have one policy database, in which a packet finds
 * its tunnel (RFC 4301 §4.4.1). Hot path: no allocation.
 */
import type { PacketBatch } from '../base/batch.ts';
import { type DropCounters, DropReason } from '../esp/drops.ts';
import { FlowReader } from '../esp/flow-reader.ts';
import type { OutboundPipeline } from '../esp/outbound.ts';
import type { CompiledPolicy } from '../policy/database.ts';
import { Flow } from '../policy/flow.ts';
import { FlowCache } from '../policy/flow-cache.ts';
import { readTurnedTrigger } from '../policy/icmp-error.ts';
import { SharedPolicy } from '../policy/shared-policy.ts';

/** Flows that are remembered at most, of all tunnels together. */
const MAX_FLOWS = 65_536;

/** What a device needs to know of a tunnel. */
export interface DeviceTunnel {
  readonly index: number;
  readonly outbound: OutboundPipeline;
}

export interface SendDeviceOptions {
  readonly fragmentSeed: number;
  /** Packets that are for none of several tunnels. */
  readonly drops: DropCounters;
  /** Called for each packet that the policy of no tunnel matches, before it is dropped. */
  readonly onDenied: (batch: PacketBatch, slot: number, flow: Flow) => void;
}

export class SendDevice<T extends DeviceTunnel> {
  readonly reader: FlowReader;
  readonly #options: SendDeviceOptions;
  /** BOUNDED: by the owner, who deletes what was added; so are those below. */
  readonly #tunnels = new Map<number, T>();
  readonly #policy = new SharedPolicy();
  readonly #flows = new FlowCache(MAX_FLOWS);
  readonly #turned = new Flow();
  /** The tunnel of a device that has one. */
  #only: T | undefined;
  /** Tunnels that packets of the current batch are for. */
  readonly #touched = new Set<T>();

  constructor(options: SendDeviceOptions) {
    this.#options = options;
    this.reader = new FlowReader({ seed: options.fragmentSeed });
  }

  add(tunnel: T, policy: CompiledPolicy): void {
    this.#tunnels.set(tunnel.index, tunnel);
    this.#policy.set(tunnel.index, policy);
    this.#changed();
  }

  delete(index: number): void {
    this.#tunnels.delete(index);
    this.#policy.delete(index);
    this.#changed();
  }

  #changed(): void {
    this.#flows.clear();
    const [first, second] = this.#tunnels.values();
    this.#only = second === undefined ? first : undefined;
  }

  /**
   * Takes a batch of packets that were read from the device through the pipelines of their tunnels.
   * @param done called once for each tunnel that packets were for
   */
  process(now: number, batch: PacketBatch, done: (tunnel: T) => void): void {
    const only = this.#only;
    if (only !== undefined) {
      only.outbound.process(now, batch);
      done(only);
      return;
    }
    const touched = this.#touched;
    for (let slot = 0; slot < batch.count; slot++) {
      if (batch.length[slot] === 0) continue;
      const tunnel = this.#tunnelOf(now, batch, slot);
      if (tunnel === undefined) continue;
      tunnel.outbound.processRead(now, batch, slot);
      touched.add(tunnel);
    }
    for (const tunnel of touched) done(tunnel);
    touched.clear();
  }

  /** Reads the packet in a slot; drops it when it is for no tunnel. */
  #tunnelOf(now: number, batch: PacketBatch, slot: number): T | undefined {
    const { flow } = this.reader;
    if (!this.reader.read(now, batch, slot)) {
      this.#drop(batch, slot, DropReason.badInnerPacket);
      return undefined;
    }
    const tunnel = this.#tunnels.get(this.#lookup(batch, slot, flow));
    if (tunnel === undefined) {
      this.#options.onDenied(batch, slot, flow);
      this.#drop(batch, slot, DropReason.noPolicy);
    }
    return tunnel;
  }

  /** An ICMP error that no policy matches goes with the traffic that it is about (RFC 4301 §6.2). */
  #lookup(batch: PacketBatch, slot: number, flow: Flow): number {
    const found = this.#flows.lookup(this.#policy, flow);
    if (found >= 0 || !readTurnedTrigger(batch.buffer, batch.offset[slot]!, flow, this.#turned)) return found;
    return this.#policy.lookup(this.#turned);
  }

  #drop(batch: PacketBatch, slot: number, reason: DropReason): void {
    this.#options.drops[reason]!++;
    batch.length[slot] = 0;
  }
}
