/**
 * Writes batches to a TUN device with offloads, joined as far as its kernel takes it: what it refuses is written again
 * packet by packet, and when it goes on refusing, the kind is joined no more.
 */
import type { PacketBatch } from '../../base/batch.ts';
import type { PacketSink } from './join.ts';
import type { OffloadKinds, SharedOffloads } from './shared.ts';
import { GsoType, VIRTIO_GSO_TYPE } from './virtio.ts';

/** Refusals of a kind, none taken between them, after which the kernel is believed. */
const MAX_REFUSALS = 8;

/**
 * Writes `length` bytes at `at`, virtio header and `packets` packets in one. False when the kernel does not take the
 * packets joined; otherwise they were written, or dropped and counted.
 */
export type Emit = (buffer: Uint8Array, at: number, length: number, packets: number) => boolean;

export class OffloadWriter {
  readonly #shared: SharedOffloads;
  readonly #emit: Emit;
  readonly #sink: PacketSink;
  #kinds: OffloadKinds;
  /** In a row. */
  #tcpRefusals = 0;
  #udpRefusals = 0;

  constructor(shared: SharedOffloads, kinds: OffloadKinds, emit: Emit) {
    this.#shared = shared;
    this.#kinds = kinds;
    this.#emit = emit;
    this.#sink = {
      write: (buffer, at, length, packets) => {
        const taken = emit(buffer, at, length, packets);
        if (packets > 1) this.#joinedWrite(taken, buffer, at, length);
      },
    };
  }

  /** What is joined at present. */
  get kinds(): OffloadKinds {
    return this.#kinds;
  }

  /** Returns how many packets are larger than any device takes, and were not written. */
  write(batch: PacketBatch): number {
    const joiner = this.#shared.joiners[this.#kinds];
    const before = joiner.counters.tooLarge;
    joiner.join(batch, this.#sink);
    return joiner.counters.tooLarge - before;
  }

  #joinedWrite(taken: boolean, buffer: Uint8Array, at: number, length: number): void {
    const isUdp = buffer[at + VIRTIO_GSO_TYPE] === GsoType.udpL4;
    if (taken) {
      if (isUdp) this.#udpRefusals = 0;
      else this.#tcpRefusals = 0;
      return;
    }
    if (isUdp && ++this.#udpRefusals === MAX_REFUSALS && this.#kinds === 'all') this.#kinds = 'tcp';
    if (!isUdp && ++this.#tcpRefusals === MAX_REFUSALS) this.#kinds = 'none';
    this.#shared.divide(buffer, at, length, { write: this.#emit });
  }
}
