/**
 * A packet device in memory: the twin of the Linux TUN, for embedding and tests. One side is the `PacketDevice` that
 * the engine works with; the other stands for the host's IP stack: `inject` sends into the tunnel, `onDelivered` or
 * `takeDelivered` receives what came out.
 */
import type { PacketBatch } from '../base/batch.ts';
import type { DeviceCounters, PacketDevice } from './device.ts';
import { newDeviceCounters, startsIpPacket } from './device.ts';
import { errorHandler, type OwnerErrorHandler, ownerCall } from './owner-calls.ts';

/** How a `MemoryDevice` is made. Sizes are bytes. */
export interface MemoryDeviceOptions {
  readonly name?: string;
  /** Default 1400. */
  readonly mtu?: number;
  /** The most packets that wait in either direction; default 512. What comes after is dropped and counted. */
  readonly queueLength?: number;
  /** Called with what a handler threw, whose packet is lost. Default: a warning of the process. */
  readonly onError?: OwnerErrorHandler;
}

/** An IP packet's length has 16 bits. */
const MAX_PACKET = 65_535;

/**
 * A packet device in memory: a tunnel writes to and reads from it on one side, the program on the other.
 *
 * @example
 * ```ts
 * const device = new MemoryDevice({ mtu: 1400 });
 * device.onDelivered((packet) => console.log(packet.length)); // out of the tunnel
 * device.inject(packet); // into the tunnel
 * ```
 */
export class MemoryDevice implements PacketDevice {
  readonly name: string;
  readonly mtu: number;
  readonly counters: DeviceCounters = newDeviceCounters();
  readonly features: readonly string[] = [];
  readonly #queueLength: number;
  // BOUNDED: `queueLength` packets each.
  readonly #injected: Uint8Array[] = [];
  readonly #delivered: Uint8Array[] = [];
  #onReadable: (() => void) | undefined;
  readonly #onClosed = new Set<(reason: Error | undefined) => void>();
  #onDelivered: ((packet: Uint8Array) => void) | undefined;
  #turnPending = false;
  #closed = false;

  readonly #onError: OwnerErrorHandler;

  constructor(options: MemoryDeviceOptions = {}) {
    this.#onError = errorHandler(options.onError);
    this.name = options.name ?? 'memory';
    this.mtu = options.mtu ?? 1400;
    this.#queueLength = options.queueLength ?? 512;
  }

  /** Sends a packet (copied) into the tunnel. False when it was dropped; the counters say why. */
  inject(packet: Uint8Array): boolean {
    if (!this.#accepts(packet, this.mtu, this.#injected)) return false;
    this.#injected.push(packet.slice());
    this.#schedule();
    return true;
  }

  /** Hands each packet that comes out of the tunnel to `handler`, which owns it; those that wait already at once. */
  onDelivered(handler: (packet: Uint8Array) => void): void {
    const deliver = ownerCall('onDelivered', handler, this.#onError);
    this.#onDelivered = deliver;
    for (const packet of this.takeDelivered()) deliver(packet);
  }

  /** The packets that came out of the tunnel since the last call, when there is no `onDelivered` handler. */
  takeDelivered(): Uint8Array[] {
    return this.#delivered.splice(0);
  }

  read(batch: PacketBatch): number {
    const before = batch.count;
    let taken = 0;
    while (taken < this.#injected.length && batch.count < batch.capacity) {
      const packet = this.#injected[taken++]!;
      if (batch.push(packet) < 0) {
        this.counters.dropped['too-large']++;
        continue;
      }
      this.counters.readPackets++;
      this.counters.readBytes += packet.length;
    }
    this.#injected.splice(0, taken);
    return batch.count - before;
  }

  write(batch: PacketBatch): number {
    let written = 0;
    for (let slot = 0; slot < batch.count; slot++) {
      if (batch.length[slot] === 0) continue;
      const packet = batch.packet(slot);
      if (!this.#accepts(packet, MAX_PACKET, this.#delivered)) continue;
      written++;
      this.counters.writtenPackets++;
      this.counters.writtenBytes += packet.length;
      const copy = packet.slice();
      if (this.#onDelivered === undefined) this.#delivered.push(copy);
      else this.#onDelivered(copy);
    }
    return written;
  }

  onReadable(handler: () => void): void {
    this.#onReadable = handler;
    this.#schedule();
  }

  onClosed(handler: (reason: Error | undefined) => void): void {
    this.#onClosed.add(ownerCall('onClosed', handler, this.#onError));
  }

  close(): Promise<void> {
    this.#end(undefined);
    return Promise.resolve();
  }

  /** Deletes the device while its owner uses it, as `ip link delete` does to a TUN. */
  fail(reason: Error): void {
    this.#end(reason);
  }

  #end(reason: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#injected.length = 0;
    for (const handler of this.#onClosed) handler(reason);
  }

  #accepts(packet: Uint8Array, most: number, queue: readonly Uint8Array[]): boolean {
    const { dropped } = this.counters;
    if (this.#closed) dropped.closed++;
    else if (packet.length > most) dropped['too-large']++;
    else if (packet.length === 0 || !startsIpPacket(packet[0]!)) dropped['not-ip']++;
    else if (queue.length >= this.#queueLength) dropped['queue-full']++;
    else return true;
    return false;
  }

  /** One turn at a time; another one while the owner has left packets. */
  #schedule(): void {
    if (this.#turnPending || this.#onReadable === undefined || this.#injected.length === 0) return;
    this.#turnPending = true;
    setImmediate(() => {
      this.#turnPending = false;
      if (this.#closed || this.#injected.length === 0) return;
      this.#onReadable?.();
      this.#schedule();
    });
  }
}
