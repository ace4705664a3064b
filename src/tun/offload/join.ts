/**
 * Joining (GRO): the packets of a batch that belong together leave for a TUN device with offloads as few large ones.
 *
 * Segments of a TCP flow, and datagrams of equal size, that follow one another become one GSO packet; everything else
 * leaves as it is. Order is kept within a flow, not between flows. Nothing is held back over the end of a call.
 * Hot path: no allocation, no exception.
 */
import type { PacketBatch } from '../../base/batch.ts';
import type { Checksums } from './checksum.ts';
import { MAX_JOINED } from './headers.ts';
import { JoinFlow } from './join-flow.ts';
import { Joinable, JoinPacket, readJoinPacket } from './join-packet.ts';
import type { PacketMemory } from './memory.ts';
import type { VirtioHeader } from './virtio.ts';
import { newVirtioHeader, VIRTIO_NET_HDR_SIZE, writeVirtioHeader } from './virtio.ts';

const AS_IT_IS: Readonly<VirtioHeader> = newVirtioHeader();

/** Takes what is ready: the device. */
export interface PacketSink {
  /** `length` bytes at `at` are a virtio header and a packet, in which `packets` packets of the batch were joined. */
  write(buffer: Uint8Array, at: number, length: number, packets: number): void;
}

export interface JoinerOptions {
  /** Join datagrams: the kernel takes GsoType.udpL4 (Linux 6.2). Default false. */
  readonly udp?: boolean;
  /** Flows that are joined at a time, of 64 KiB each. Default 16. Packets of more flows are passed on singly. */
  readonly flows?: number;
}

export interface JoinCounters {
  /** Packets that left as a part of a larger one, and how many those were. */
  joinedPackets: number;
  joinedWrites: number;
  /** Packets that were not joined, and passed on unchanged, because a checksum in them is wrong. */
  badChecksums: number;
  /** Larger than any IP packet, without headroom for the virtio header: dropped. */
  tooLarge: number;
}

export class Joiner {
  readonly counters: JoinCounters = { joinedPackets: 0, joinedWrites: 0, badChecksums: 0, tooLarge: 0 };
  readonly #memory: PacketMemory;
  // BOUNDED: `options.flows`.
  readonly #flows: readonly JoinFlow[];
  readonly #udp: boolean;
  /** For packets in slots without room for a virtio header in front. */
  readonly #staging: Uint8Array;
  readonly #packet: JoinPacket = new JoinPacket();
  /** Flows from this one on were not used in this batch. */
  #used = 0;

  /** @param memory has room for `flows` + 1 regions of 64 KiB */
  constructor(memory: PacketMemory, options: JoinerOptions = {}) {
    this.#memory = memory;
    this.#udp = options.udp ?? false;
    this.#flows = Array.from({ length: options.flows ?? 16 }, () => new JoinFlow(memory));
    this.#staging = memory.allocate(VIRTIO_NET_HDR_SIZE + MAX_JOINED);
  }

  /**
   * Hands every packet of the batch to the sink, joined where that may be. The `VIRTIO_NET_HDR_SIZE` bytes in front of
   * a packet, where its slot has them, are overwritten; slots, offsets and lengths stay as they are.
   */
  join(batch: PacketBatch, sink: PacketSink): void {
    const sums = this.#memory.checksumsFor(batch.buffer);
    this.#used = 0;
    for (let slot = 0; slot < batch.count; slot++) {
      if (batch.length[slot] !== 0) this.#take(batch, slot, sums, sink);
    }
    for (let i = 0; i < this.#used; i++) this.#flush(this.#flows[i]!, batch, sums, sink);
  }

  #take(batch: PacketBatch, slot: number, sums: Checksums, sink: PacketSink): void {
    const { buffer } = batch;
    const packet = this.#packet;
    const joinable = readJoinPacket(buffer, batch.offset[slot]!, batch.length[slot]!, packet, this.#udp);
    if (joinable === Joinable.unknownFlow) {
      this.#flushHosts(batch, sums, sink);
      this.#writeAlone(batch, slot, sink);
      return;
    }
    const flow = this.#find(buffer);
    if (flow !== undefined) {
      const continues = joinable !== Joinable.alone && flow.isContinuedBy(buffer, packet);
      if (continues && this.#openChecked(flow, batch, sums)) {
        if (flow.append(sums, buffer, packet)) {
          if (flow.endsWith(buffer, packet)) this.#flush(flow, batch, sums, sink);
          return;
        }
        this.counters.badChecksums++;
        this.#flush(flow, batch, sums, sink);
        this.#writeAlone(batch, slot, sink);
        return;
      }
      this.#flush(flow, batch, sums, sink);
    }
    const free = joinable === Joinable.yes ? this.#free() : undefined;
    if (free === undefined) this.#writeAlone(batch, slot, sink);
    else free.begin(buffer, slot, packet);
  }

  /** The checksums of a flow's first packet are verified when there is a second one to join with. */
  #openChecked(flow: JoinFlow, batch: PacketBatch, sums: Checksums): boolean {
    if (flow.packets > 1 || flow.open(sums, batch.buffer)) return true;
    this.counters.badChecksums++;
    return false;
  }

  #find(buffer: Uint8Array): JoinFlow | undefined {
    for (let i = 0; i < this.#used; i++) {
      const flow = this.#flows[i]!;
      if (flow.slot >= 0 && flow.owns(buffer, this.#packet)) return flow;
    }
    return undefined;
  }

  #free(): JoinFlow | undefined {
    for (let i = 0; i < this.#used; i++) if (this.#flows[i]!.slot < 0) return this.#flows[i];
    return this.#used < this.#flows.length ? this.#flows[this.#used++] : undefined;
  }

  /** A packet whose flow cannot be told may be of any flow between its hosts. */
  #flushHosts(batch: PacketBatch, sums: Checksums, sink: PacketSink): void {
    for (let i = 0; i < this.#used; i++) {
      const flow = this.#flows[i]!;
      if (flow.slot >= 0 && flow.sameAddresses(batch.buffer, this.#packet)) this.#flush(flow, batch, sums, sink);
    }
  }

  #flush(flow: JoinFlow, batch: PacketBatch, sums: Checksums, sink: PacketSink): void {
    if (flow.slot < 0) return;
    if (flow.packets === 1) {
      this.#writeAlone(batch, flow.slot, sink);
    } else {
      flow.finish(sums);
      this.counters.joinedPackets += flow.packets;
      this.counters.joinedWrites++;
      sink.write(flow.buffer, 0, VIRTIO_NET_HDR_SIZE + flow.length, flow.packets);
    }
    flow.slot = -1;
  }

  /** Passes a packet on as it is, behind a virtio header of zeros: the kernel verifies its checksum. */
  #writeAlone(batch: PacketBatch, slot: number, sink: PacketSink): void {
    const at = batch.offset[slot]!;
    const length = batch.length[slot]!;
    const front = at - VIRTIO_NET_HDR_SIZE;
    if (front >= batch.slotBegin(slot)) {
      writeVirtioHeader(batch.buffer, front, AS_IT_IS);
      sink.write(batch.buffer, front, VIRTIO_NET_HDR_SIZE + length, 1);
    } else if (length <= MAX_JOINED) {
      this.#memory.checksumsFor(batch.buffer).copySum(batch.buffer, at, this.#staging, VIRTIO_NET_HDR_SIZE, length, 0);
      sink.write(this.#staging, 0, VIRTIO_NET_HDR_SIZE + length, 1);
    } else {
      this.counters.tooLarge++;
    }
  }
}
