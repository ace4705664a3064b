/**
 * A Linux TUN device on a non-blocking descriptor that belongs to the network namespace in which it was opened. The
 * interface lives as long as the descriptor.
 *
 * A read and a write pass one IP packet, or, where the kernel leaves segmentation and checksums to the program
 * (IFF_VNET_HDR, TUNSETOFFLOAD), a run of up to 64 KiB that is divided and joined here (`offload/`).
 */
import type { PacketBatch } from '../base/batch.ts';
import type { DeviceCounters, DeviceDropReason, PacketDevice } from './device.ts';
import { newDeviceCounters } from './device.ts';
import { addressOf, ERRNO, libc, SystemError } from './libc.ts';
import { type OffloadKinds, SharedOffloads } from './offload/shared.ts';
import type { Splitter } from './offload/split.ts';
import { readVirtioHdrLen, VIRTIO_NET_HDR_SIZE } from './offload/virtio.ts';
import { OffloadWriter } from './offload/writer.ts';
import type { Watch } from './poller.ts';
import { watchReadable } from './poller.ts';
import { checkInterfaceName } from './tun-errors.ts';
import type { TunInterface } from './tun-interface.ts';
import { createTun, detachedError, interfaceIndex, interfaceMtu, setInterfaceMtu } from './tun-interface.ts';

export interface LinuxTunOptions {
  /** At most 15 bytes; `%d` in it stands for the first free number. Default `sec%d`. */
  readonly name?: string;
  /** 68 to 65535; the kernel starts with 1500. */
  readonly mtu?: number;
  /** The most that is asked of the kernel. Default `all`; it may have less. */
  readonly offload?: OffloadKinds;
  /** What this device shares with others. Batches in its memory (`HostOptions.allocate`) are quickest. Default: its own. */
  readonly shared?: SharedOffloads;
}

/**
 * Creates the interface, still down and without addresses (`LinuxHostNetwork` sees to them).
 *
 * @throws Error that says what is missing and how to get it, or which name is taken
 */
export function openLinuxTun(options: LinuxTunOptions = {}): LinuxTun {
  const wanted = options.name ?? 'sec%d';
  checkInterfaceName(wanted);
  const created = createTun(wanted, options.offload ?? 'all');
  try {
    if (options.mtu !== undefined) setInterfaceMtu(created.name, options.mtu);
    return new LinuxTun(created, options.shared);
  } catch (error) {
    libc().close(created.fd);
    throw error;
  }
}

/** So many packets are read in one turn at most; then other sockets and timers have theirs. */
const PACKETS_PER_TURN = 256;

/** Of a device whose kernel has them. */
interface Offloads {
  readonly shared: SharedOffloads;
  /** What the kernel agreed to hand over joined. */
  readonly kinds: 'all' | 'tcp';
  readonly splitter: Splitter;
  readonly writer: OffloadWriter;
}

export class LinuxTun implements PacketDevice {
  readonly name: string;
  /** The number by which routes and rules name the interface. */
  readonly index: number;
  readonly counters: DeviceCounters = newDeviceCounters();
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #offloads: Offloads | undefined;
  #mtu: number;
  #onReadable: (() => void) | undefined;
  #onClosed: ((reason: Error | undefined) => void) | undefined;
  /** Packets that this turn may still read; unlimited outside of a turn. */
  #budget = Number.POSITIVE_INFINITY;
  #drained = true;
  #ended: Promise<void> | undefined;

  /** Takes over the descriptor. */
  constructor({ fd, name, offload }: TunInterface, shared: SharedOffloads | undefined) {
    this.name = name;
    this.index = interfaceIndex(name);
    this.#mtu = interfaceMtu(name);
    this.#fd = fd;
    this.#offloads = offload === 'none' ? undefined : this.#startOffloads(offload, shared ?? new SharedOffloads());
    this.#watch = watchReadable(fd, (failed) => {
      if (failed) this.#checkAttached();
      this.#turn();
    });
  }

  #startOffloads(kinds: Offloads['kinds'], shared: SharedOffloads): Offloads {
    const emit = this.#emit.bind(this);
    return { shared, kinds, splitter: shared.takeSplitter(), writer: new OffloadWriter(shared, kinds, emit) };
  }

  get mtu(): number {
    return this.#mtu;
  }

  /** @throws SystemError when the kernel refuses the value */
  setMtu(mtu: number): void {
    setInterfaceMtu(this.name, mtu);
    this.#mtu = mtu;
  }

  get features(): readonly string[] {
    if (this.#offloads === undefined) return [];
    const { kinds, writer } = this.#offloads;
    const joined = { all: ['gro', 'udp-gro'], tcp: ['gro'], none: [] }[writer.kinds];
    return ['csum', 'tso', ...(kinds === 'all' ? ['uso'] : []), ...joined];
  }

  read(batch: PacketBatch): number {
    if (this.#ended !== undefined) return 0;
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
    while (batch.count < batch.capacity && this.#budget > 0) {
      const at = batch.slotStart(batch.count);
      const length = this.#receive(base + at, room);
      if (length === 0) return;
      this.#budget--;
      // The kernel cuts off silently what does not fit.
      if (length === room) this.counters.dropped['too-large']++;
      else batch.claim(length);
    }
  }

  /** A run that the batch has no room for goes on in the next one. */
  #readRuns(batch: PacketBatch, splitter: Splitter): void {
    const { dropped } = this.counters;
    while (batch.count < batch.capacity && this.#budget > 0) {
      if (!splitter.pending) {
        const length = this.#receive(addressOf(splitter.input), splitter.input.length);
        if (length === 0) return;
        this.#budget--;
        if (!splitter.start(length)) {
          dropped['bad-offload']++;
          continue;
        }
      }
      const tooLarge = splitter.drops['too-large'];
      this.#budget -= splitter.fill(batch);
      dropped['too-large'] += splitter.drops['too-large'] - tooLarge;
    }
  }

  /** One read. 0: nothing is left, or can be had. */
  #receive(address: number, room: number): number {
    const { read, errno } = libc();
    const length = read(this.#fd, address, room);
    if (length > 0) {
      // Others wait behind it, or a part of it does.
      this.#drained = false;
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
    if (this.#ended !== undefined) {
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

  onReadable(handler: () => void): void {
    const first = this.#onReadable === undefined;
    this.#onReadable = handler;
    if (first && this.#ended === undefined) this.#watch.arm();
  }

  onClosed(handler: (reason: Error | undefined) => void): void {
    this.#onClosed = handler;
  }

  close(): Promise<void> {
    return this.#end(undefined);
  }

  #turn(): void {
    if (this.#ended !== undefined || this.#onReadable === undefined) return;
    this.#budget = PACKETS_PER_TURN;
    this.#drained = false;
    const before = this.counters.readPackets;
    this.#onReadable();
    this.#budget = Number.POSITIVE_INFINITY;
    // To be woken by the kernel takes longer than to look once more: under load there is more by then.
    if (!this.#drained || this.counters.readPackets > before) setImmediate(() => this.#turn());
    // `close()` may have been called by the handler, and a device taken away noticed by its reads.
    else this.#watch.arm();
  }

  #readFailed(errno: number): void {
    if (errno === ERRNO.EINTR) return;
    this.#drained = true;
    if (errno === ERRNO.EAGAIN) return;
    this.counters.dropped['io-error']++;
    this.#checkAttached();
  }

  #writeFailed(errno: number, packets: number): void {
    const reason = writeDropReason(errno);
    this.counters.dropped[reason] += packets;
    if (reason === 'closed') this.#checkAttached();
  }

  /** Ends the device when its interface is gone. */
  #checkAttached(): void {
    const errno = this.#ended === undefined ? detachedError(this.#fd) : undefined;
    if (errno === undefined) return;
    const detail = 'The interface was deleted or moved away by another program; the tunnel needs it again';
    void this.#end(new SystemError(`TUN device ${this.name}`, errno, detail));
  }

  #end(reason: Error | undefined): Promise<void> {
    if (this.#ended !== undefined) return this.#ended;
    this.#ended = this.#watch.close();
    libc().close(this.#fd);
    this.#offloads?.shared.giveBack(this.#offloads.splitter);
    this.#onClosed?.(reason);
    return this.#ended;
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
