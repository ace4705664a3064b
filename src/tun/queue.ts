/**
 * One thread's end of a TUN device: reads and writes packets by a descriptor that it neither opens nor closes, and never
 * waits. One thread may read and another write.
 */
import type { PacketBatch } from '../base/batch.ts';
import { ERRNO } from '../sys/errno.ts';
import { libc } from '../sys/libc.ts';
import { addressOf } from '../sys/native-memory.ts';
import type { DeviceCounters, DeviceDescriptor, DeviceDropReason } from './device.ts';
import { newDeviceCounters } from './device.ts';
import { detachedError } from './interface.ts';
import { SharedOffloads } from './offload/shared.ts';
import type { Splitter } from './offload/split.ts';
import { readVirtioHdrLen, VIRTIO_NET_HDR_SIZE } from './offload/virtio.ts';
import { OffloadWriter } from './offload/writer.ts';

/** After so many packets that were not joined, the first of a batch is read to where it stays: it need not be divided. */
const WHOLE_IN_A_ROW = 4;

/** Of a device whose kernel has them. */
interface Offloads {
  readonly shared: SharedOffloads;
  /** What the kernel agreed to hand over joined. */
  readonly kinds: 'all' | 'tcp';
  readonly splitter: Splitter;
  readonly writer: OffloadWriter;
}

export class TunQueue {
  readonly counters: DeviceCounters = newDeviceCounters();
  readonly #fd: number;
  readonly #offloads: Offloads | undefined;
  /** Called when the interface seems to be gone, with the errno that says so. */
  readonly #onDetached: (errno: number) => void;
  /** Packets that may still be read; unlimited outside of a turn. */
  budget: number = Number.POSITIVE_INFINITY;
  /** The last read found nothing. */
  drained = true;
  #released = false;
  #wholeInARow = 0;

  constructor(
    { fd, offload }: Pick<DeviceDescriptor, 'fd' | 'offload'>,
    shared: SharedOffloads | undefined,
    onDetached: (errno: number) => void,
  ) {
    this.#fd = fd;
    this.#onDetached = onDetached;
    this.#offloads = offload === 'none' ? undefined : this.#startOffloads(offload, shared ?? new SharedOffloads());
  }

  #startOffloads(kinds: Offloads['kinds'], shared: SharedOffloads): Offloads {
    const emit = this.#emit.bind(this);
    return { shared, kinds, splitter: shared.takeSplitter(), writer: new OffloadWriter(shared, kinds, emit) };
  }

  get features(): readonly string[] {
    if (this.#offloads === undefined) return [];
    const { kinds, writer } = this.#offloads;
    const joined = { all: ['gro', 'udp-gro'], tcp: ['gro'], none: [] }[writer.kinds];
    return ['csum', 'tso', ...(kinds === 'all' ? ['uso'] : []), ...joined];
  }

  /** A part of what was read last is still to be handed out, which is not waited for. */
  get pending(): boolean {
    return this.#offloads?.splitter.pending ?? false;
  }

  read(batch: PacketBatch): number {
    if (this.#released) return 0;
    const before = batch.count;
    if (this.#offloads === undefined) this.#readPackets(batch);
    else this.#readRuns(batch, this.#offloads.splitter);
    for (let slot = before; slot < batch.count; slot++) this.counters.readBytes += batch.length[slot]!;
    this.counters.readPackets += batch.count - before;
    return batch.count - before;
  }

  #readPackets(batch: PacketBatch): void {
    const base = addressOf(batch.buffer);
    const room = batch.slotRoom;
    while (batch.count < batch.capacity && this.budget > 0) {
      const at = batch.slotStart(batch.count);
      const length = this.#receive(base + at, room);
      if (length === 0) return;
      this.budget--;
      // The kernel cuts off silently what does not fit.
      if (length === room) this.counters.dropped['too-large']++;
      else batch.claim(length);
    }
  }

  /** A run that the batch has no room for goes on in the next one. */
  #readRuns(batch: PacketBatch, splitter: Splitter): void {
    const { dropped } = this.counters;
    const inPlace = batch.headroom >= VIRTIO_NET_HDR_SIZE && batch.slotRoom >= splitter.input.length;
    while (batch.count < batch.capacity && this.budget > 0) {
      if (!splitter.pending) {
        // The first alone: each slot that a run is read to by mistake would take 64 KiB of memory for ever.
        const expectWhole = inPlace && batch.count === 0 && this.#wholeInARow >= WHOLE_IN_A_ROW;
        const length = expectWhole ? this.#readWhole(batch, splitter) : this.#readInput(splitter);
        if (length === 0) return;
        this.budget--;
        if (length < 0) continue;
        if (!splitter.start(length)) {
          dropped['bad-offload']++;
          continue;
        }
        this.#wholeInARow = splitter.whole ? this.#wholeInARow + 1 : 0;
      }
      const tooLarge = splitter.drops['too-large'];
      this.budget -= splitter.fill(batch);
      dropped['too-large'] += splitter.drops['too-large'] - tooLarge;
    }
  }

  #readInput({ input }: Splitter): number {
    return this.#receive(addressOf(input), input.length);
  }

  /** Reads to where a whole packet stays. Negative: that it is, and was taken; what is not is in the splitter's input. */
  #readWhole(batch: PacketBatch, splitter: Splitter): number {
    const { buffer } = batch;
    const { input } = splitter;
    const at = batch.slotStart(batch.count) - VIRTIO_NET_HDR_SIZE;
    const length = this.#receive(addressOf(buffer) + at, input.length);
    if (length === 0) return 0;
    if (splitter.finishWhole(buffer, at, length)) {
      batch.claim(length - VIRTIO_NET_HDR_SIZE);
      return -1;
    }
    input.set(buffer.subarray(at, at + length));
    return length;
  }

  /** One read. 0: nothing is left, or the device is gone. */
  #receive(address: number, room: number): number {
    const { read, errno } = libc();
    const length = read(this.#fd, address, room);
    if (length > 0) {
      // Others wait behind it, or a part of it does.
      this.drained = false;
      return length;
    }
    this.#readFailed(length === 0 ? ERRNO.EAGAIN : errno());
    return 0;
  }

  write(batch: PacketBatch): number {
    const { counters } = this;
    const before = counters.writtenPackets;
    if (this.#offloads !== undefined) {
      counters.dropped['too-large'] += this.#offloads.writer.write(batch);
    } else {
      for (let slot = 0; slot < batch.count; slot++) {
        const length = batch.length[slot]!;
        if (length > 0) this.#send(batch.buffer, batch.offset[slot]!, length, 1, length);
      }
    }
    return counters.writtenPackets - before;
  }

  /** Writes a virtio header with a packet, or with several in one. False: the kernel does not take them so. */
  #emit(buffer: Uint8Array, at: number, length: number, packets: number): boolean {
    // Joined ones have their headers once.
    const bytes = length - VIRTIO_NET_HDR_SIZE + (packets - 1) * readVirtioHdrLen(buffer, at);
    return this.#send(buffer, at, length, packets, bytes);
  }

  /** One write, counted as what it is made of. False only for several packets that the kernel does not take in one. */
  #send(buffer: Uint8Array, at: number, length: number, packets: number, bytes: number): boolean {
    const { write, errno } = libc();
    if (this.#released) {
      this.counters.dropped.closed += packets;
    } else if (write(this.#fd, addressOf(buffer) + at, length) === length) {
      this.counters.writtenPackets += packets;
      this.counters.writtenBytes += bytes;
    } else {
      const error = errno();
      if (packets > 1 && error === ERRNO.EINVAL) return false;
      this.#writeFailed(error, packets);
    }
    return true;
  }

  /** The descriptor is not used after it. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#offloads?.shared.giveBack(this.#offloads.splitter);
  }

  #readFailed(errno: number): void {
    if (errno === ERRNO.EINTR) return;
    this.drained = true;
    if (errno === ERRNO.EAGAIN) return;
    this.counters.dropped['io-error']++;
    this.checkAttached();
  }

  #writeFailed(errno: number, packets: number): void {
    const reason = writeDropReason(errno);
    this.counters.dropped[reason] += packets;
    if (reason === 'closed') this.checkAttached();
  }

  /** Reports that the interface is gone: it was deleted or moved away. */
  checkAttached(): void {
    const errno = this.#released ? undefined : detachedError(this.#fd);
    if (errno !== undefined) this.#onDetached(errno);
  }
}

function writeDropReason(errno: number): DeviceDropReason {
  switch (errno) {
    case ERRNO.EIO:
      return 'interface-down';
    case ERRNO.EINVAL:
      return 'not-ip';
    case ERRNO.EAGAIN:
    case ERRNO.ENOBUFS:
      return 'queue-full';
    case ERRNO.EMSGSIZE:
      return 'too-large';
    case ERRNO.EBADFD:
    case ERRNO.EBADF:
    case ERRNO.ENODEV:
      return 'closed';
    default:
      return 'io-error';
  }
}
