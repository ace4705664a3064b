/**
 * A device that several tunnels of a host have: each gets a share, which it uses and closes like a device of its own. The device
 * ends with the last share.
 */
import type { PacketBatch } from '../base/batch.ts';
import { SectunnelError } from '../base/error.ts';
import type { DeviceCounters, DeviceDescriptor, PacketDevice } from './device.ts';

/**
 * Shares of one device.
 *
 * @example
 * ```ts
 * const hub = new SharedDevice(openLinuxTun({ name: 'hub', mtu: 1400 }));
 * await host.add(first, hub.share());
 * await host.add(second, hub.share());
 * ```
 */
export class SharedDevice {
  readonly #device: PacketDevice;
  // BOUNDED: by the owner's tunnels.
  readonly #shares = new Set<DeviceShare>();
  #ending: Promise<void> | undefined;

  constructor(device: PacketDevice) {
    this.#device = device;
    device.onClosed((reason) => {
      for (const share of [...this.#shares]) share.ended(reason);
      this.#shares.clear();
      this.#ending ??= Promise.resolve();
    });
  }

  /** One more share. @throws SectunnelError when the device has ended, with its last share or by itself */
  share(): PacketDevice {
    if (this.isEnded) throw new SectunnelError('invalid-state', `device ${this.#device.name} is closed`);
    const share = new DeviceShare(this.#device, () => this.#left(share));
    this.#shares.add(share);
    return share;
  }

  /** Whether there can be no more shares. */
  get isEnded(): boolean {
    return this.#ending !== undefined;
  }

  /** Resolved when the device is closed, at once while it is not about to be. */
  async whenEnded(): Promise<void> {
    await this.#ending?.catch(() => undefined);
  }

  async #left(share: DeviceShare): Promise<void> {
    if (!this.#shares.delete(share) || this.#shares.size > 0) return;
    this.#ending ??= this.#device.close();
    await this.#ending;
  }
}

class DeviceShare implements PacketDevice {
  readonly shareOf: PacketDevice;
  readonly handOver?: () => readonly DeviceDescriptor[];
  readonly checkAttached?: () => void;
  readonly #leave: () => Promise<void>;
  readonly #onClosed = new Set<(reason: Error | undefined) => void>();
  #isEnded = false;

  constructor(device: PacketDevice, leave: () => Promise<void>) {
    this.shareOf = device;
    if (device.handOver !== undefined) this.handOver = device.handOver.bind(device);
    if (device.checkAttached !== undefined) this.checkAttached = device.checkAttached.bind(device);
    this.#leave = leave;
  }

  get name(): string {
    return this.shareOf.name;
  }

  get mtu(): number {
    return this.shareOf.mtu;
  }

  get counters(): Readonly<DeviceCounters> {
    return this.shareOf.counters;
  }

  get features(): readonly string[] {
    return this.shareOf.features;
  }

  read(batch: PacketBatch): number {
    return this.shareOf.read(batch);
  }

  write(batch: PacketBatch): number {
    return this.shareOf.write(batch);
  }

  onReadable(handler: () => void): void {
    this.shareOf.onReadable(handler);
  }

  onClosed(handler: (reason: Error | undefined) => void): void {
    this.#onClosed.add(handler);
  }

  ended(reason: Error | undefined): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    for (const handler of this.#onClosed) handler(reason);
  }

  async close(): Promise<void> {
    try {
      await this.#leave();
    } finally {
      this.ended(undefined);
    }
  }
}
