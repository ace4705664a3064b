/**
 * A Linux TUN device on a non-blocking descriptor that belongs to the network namespace in which it was opened. The
 * interface lives as long as the descriptor.
 *
 * A read and a write pass one IP packet, or, where the kernel leaves segmentation and checksums to the program
 * (IFF_VNET_HDR, TUNSETOFFLOAD), a run of up to 64 KiB that is divided and joined here (`offload/`).
 */
import type { PacketBatch } from '../base/batch.ts';
import { Turns } from '../base/turns.ts';
import { SystemError } from '../sys/errno.ts';
import { libc } from '../sys/libc.ts';
import type { Watch } from '../sys/poller.ts';
import { watchReadable } from '../sys/poller.ts';
import type { DeviceCounters, DeviceDescriptor, PacketDevice } from './device.ts';
import { checkInterfaceName } from './errors.ts';
import type { TunInterface } from './interface.ts';
import { createTun, interfaceIndex, interfaceMtu, setInterfaceMtu } from './interface.ts';
import type { OffloadKinds, SharedOffloads } from './offload/shared.ts';
import { TunQueue } from './queue.ts';

/** How a TUN device is created. */
export interface LinuxTunOptions {
  /** At most 15 bytes; `%d` in it stands for the first free number. Default `sec%d`. */
  readonly name?: string;
  /** 68 to 65535; the kernel starts with 1500. */
  readonly mtu?: number;
  /** The most that is asked of the kernel. Default `all`; it may have less. */
  readonly offload?: OffloadKinds;
  /** Queues among which the kernel divides the flows, one for each thread that reads. Default: 1. */
  readonly queues?: number;
  /** What this device shares with others. Batches in its memory (`HostOptions.allocate`) are quickest. Default: its own. */
  readonly shared?: SharedOffloads;
}

/**
 * Creates the interface, down and without addresses.
 *
 * @throws Error that says what is missing and how to get it, or which name is taken
 */
export function openLinuxTun(options: LinuxTunOptions = {}): LinuxTun {
  const wanted = options.name ?? 'sec%d';
  checkInterfaceName(wanted);
  const created = createTun(wanted, options.offload ?? 'all', options.queues);
  try {
    if (options.mtu !== undefined) setInterfaceMtu(created.name, options.mtu);
    return new LinuxTun(created, options.shared);
  } catch (error) {
    for (const fd of created.fds) libc().close(fd);
    throw error;
  }
}

/** The most packets that are read in one turn, before other sockets and timers have theirs. */
const PACKETS_PER_TURN = 256;

/** A TUN device of Linux. Its interface lives until it is closed. */
export class LinuxTun implements PacketDevice {
  readonly name: string;
  /** The number by which routes and rules name the interface. */
  readonly index: number;
  readonly counters: DeviceCounters;
  readonly #queues: readonly DeviceDescriptor[];
  readonly #end: TunQueue;
  readonly #watch: Watch;
  readonly mtu: number;
  #onReadable: (() => void) | undefined;
  readonly #onClosed = new Set<(reason: Error | undefined) => void>();
  #handedOver = false;
  #ended: Promise<void> | undefined;

  /** Takes over the descriptor. @internal */
  constructor({ fds, name, offload }: TunInterface, shared: SharedOffloads | undefined) {
    this.name = name;
    this.index = interfaceIndex(name);
    this.mtu = interfaceMtu(name);
    this.#queues = fds.map((fd) => ({ fd, offload }));
    const [first] = this.#queues;
    this.#end = new TunQueue(first!, shared, (errno) => this.#detached(errno));
    this.counters = this.#end.counters;
    try {
      this.#watch = watchReadable(first!.fd, (failed) => {
        if (failed) this.#end.checkAttached();
        this.#turn();
      });
    } catch (error) {
      this.#end.release();
      throw error;
    }
  }

  get features(): readonly string[] {
    return this.#end.features;
  }

  read(batch: PacketBatch): number {
    return this.#end.read(batch);
  }

  write(batch: PacketBatch): number {
    return this.#end.write(batch);
  }

  onReadable(handler: () => void): void {
    const first = this.#onReadable === undefined;
    this.#onReadable = handler;
    if (first && this.#ended === undefined) this.#watch.arm();
  }

  onClosed(handler: (reason: Error | undefined) => void): void {
    this.#onClosed.add(handler);
  }

  close(): Promise<void> {
    return this.#close(undefined);
  }

  handOver(): readonly DeviceDescriptor[] {
    this.#handedOver = true;
    return this.#queues;
  }

  checkAttached(): void {
    this.#end.checkAttached();
  }

  #turn(): void {
    if (this.#ended !== undefined || this.#handedOver || this.#onReadable === undefined) return;
    this.#end.budget = PACKETS_PER_TURN;
    this.#end.drained = false;
    const before = this.counters.readPackets;
    this.#onReadable();
    this.#end.budget = Number.POSITIVE_INFINITY;
    // Looking once more is faster than being woken by the kernel: under load more has arrived by then.
    if (!this.#end.drained || this.counters.readPackets > before) setImmediate(() => this.#turn());
    // The handler may have called `close()`, and its reads may have found the device gone.
    else this.#watch.arm();
  }

  #detached(errno: number): void {
    const detail = 'The interface was deleted or moved away by another program; the tunnel needs it again';
    void this.#close(new SystemError(`TUN device ${this.name}`, errno, detail));
  }

  #close(reason: Error | undefined): Promise<void> {
    if (this.#ended !== undefined) return this.#ended;
    this.#end.release();
    this.#ended = Promise.all([this.#watch.close(), ...this.#queues.map(({ fd }) => closeQueue(fd))]).then(
      () => undefined,
    );
    for (const handler of this.#onClosed) handler(reason);
    return this.#ended;
  }
}

/** Queues that are closed at the same time. */
const CLOSED_AT_ONCE = 4;
const closing = new Turns(CLOSED_AT_ONCE);

/**
 * The kernel takes some 20 ms for the last queue of a device, most of which it waits for other processors: in threads, several
 * go at the same time, and the event loop goes on.
 */
function closeQueue(fd: number): Promise<void> {
  return closing.run(String(fd), () => new Promise((resolve) => libc().closeInThread(fd, resolve)));
}
