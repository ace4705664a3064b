/**
 * What the TUN devices of a thread share: the packet memory, and everything that works in it and keeps nothing from one
 * call to the next. Batches that are read from and written to these devices live there too, where checksums are quickest.
 */
import { PacketBatch } from '../../base/batch.ts';
import { MAX_JOINED } from './headers.ts';
import type { PacketSink } from './join.ts';
import { Joiner } from './join.ts';
import { PacketMemory } from './memory.ts';
import { SPLITTER_SIZE, Splitter } from './split.ts';
import { VIRTIO_NET_HDR_SIZE } from './virtio.ts';

/** The batches of a host and the joiners take a third of it; the rest is for 300 devices. Untouched, it costs nothing. */
const MEMORY_SIZE = 32 * 1024 * 1024;

/** What passes a device joined: segments of TCP and datagrams (Linux 6.2), segments only, or nothing. */
export type OffloadKinds = 'all' | 'tcp' | 'none';

/** What the TUN devices of a program share to divide and join packets. Give its `memory.allocate` to the host. */
export class SharedOffloads {
  readonly memory: PacketMemory;
  /** @internal */
  readonly joiners: Readonly<Record<OffloadKinds, Joiner>>;
  /** Of devices that were closed. BOUNDED: by the most devices that were open at a time. */
  readonly #splitters: Splitter[] = [];
  readonly #divider: Splitter;
  readonly #divided: PacketBatch;

  /** @param memory of 4 MiB at least, beside the batches that its owner puts there */
  constructor(memory: PacketMemory = new PacketMemory(MEMORY_SIZE)) {
    this.memory = memory;
    this.joiners = {
      all: new Joiner(memory, { udp: true }),
      tcp: new Joiner(memory),
      none: new Joiner(memory, { flows: 0 }),
    };
    this.#divider = new Splitter(memory);
    this.#divided = new PacketBatch(1, MAX_JOINED, VIRTIO_NET_HDR_SIZE, 0, memory.allocate);
  }

  /**
   * A splitter for a device's life, to be given back. Those of too many devices have a memory of their own.
   * @internal
   */
  takeSplitter(): Splitter {
    const used = this.#splitters.pop();
    if (used !== undefined) return used;
    const memory = this.memory.left < SPLITTER_SIZE ? new PacketMemory(SPLITTER_SIZE, { wasm: false }) : this.memory;
    return new Splitter(memory);
  }

  /** @internal */
  giveBack(splitter: Splitter): void {
    splitter.discard();
    this.#splitters.push(splitter);
  }

  /**
   * Hands the packets of a joined one, which a sink was given, to `sink` one by one: it refused the whole.
   * @internal
   */
  divide(buffer: Uint8Array, at: number, length: number, sink: PacketSink): void {
    const splitter = this.#divider;
    const batch = this.#divided;
    splitter.input.set(buffer.subarray(at, at + length));
    splitter.start(length);
    while (splitter.pending) {
      batch.clear();
      splitter.fill(batch);
      this.joiners.none.join(batch, sink);
    }
  }
}
