/** Carries packets in the event loop: from devices into tunnels, and out of them what sockets received. */
import type { SocketAddress } from '../base/address.ts';
import type { PacketBatch } from '../base/batch.ts';
import { newPacketBatch } from '../engine/batches.ts';
import { Engine } from '../engine/engine.ts';
import type { EngineCounters } from '../engine/options.ts';
import type { DeviceCounters, PacketDevice } from '../tun/device.ts';
import type { CarrierOptions, PacketCarrier } from './carrier.ts';
import { DeviceWriteBatch, readTurn } from './device-turn.ts';
import { Outlets } from './outlets.ts';

export class InlineCarrier implements PacketCarrier {
  readonly engine: Engine;
  readonly espQueues = 0;
  readonly #options: CarrierOptions;
  /** What was read from a device, until it is sent: for all devices in turn. */
  readonly #outgoing: PacketBatch;
  readonly #deviceWrites = new DeviceWriteBatch();
  readonly #outlets: Outlets;
  #flushPlanned = false;

  constructor(options: CarrierOptions) {
    this.#options = options;
    this.engine = new Engine(options.engine);
    this.#outlets = new Outlets({
      pathOf: (tag) => this.engine.path(tag),
      socketOf: (local) => options.sockets().find(local),
      onHomeless: (packets) => {
        options.sockets().homeless += packets;
      },
    });
    this.#outgoing = newPacketBatch(options.engine.allocate);
  }

  async ready(): Promise<void> {}

  receive(data: Uint8Array, remote: SocketAddress, local: SocketAddress, trafficClass: number): void {
    const { now, drain } = this.#options;
    const full = this.engine.receive(now(), { local, remote }, data, trafficClass);
    if (full) {
      this.#flush();
    } else if (this.engine.hasGathered) {
      // After all datagrams of this turn have been read.
      if (!this.#flushPlanned) setImmediate(() => this.#flush());
      this.#flushPlanned = true;
    } else {
      drain();
    }
  }

  settle(): void {
    if (this.engine.hasGathered) this.#flush();
    else this.#options.drain();
  }

  #flush(): void {
    const { now, drain } = this.#options;
    this.#flushPlanned = false;
    this.engine.flush(now(), (tunnel, batch) => this.#deliver(tunnel, batch));
    drain();
  }

  /** What comes out of a tunnel. A device of the program's that throws loses packets of its own, and nothing else. */
  #deliver(tunnel: string, batch: PacketBatch): void {
    const { deviceOf, onError } = this.#options;
    try {
      deviceOf(tunnel)?.write(batch);
    } catch (error) {
      onError(error, 'write of a device');
    }
  }

  async closeSocket(): Promise<void> {
    this.#outlets.forget();
  }

  openDevice(index: number, device: PacketDevice): void {
    device.onReadable(() => this.#readDevice(index, device));
  }

  /** Packets wait in a device. It calls again while some are left, so that one device cannot starve the others. */
  #readDevice(index: number, device: PacketDevice): void {
    const { checkPaths, now, drain } = this.#options;
    checkPaths();
    readTurn(device, this.#outgoing, (batch) => {
      this.engine.sendFrom(now(), index, batch);
      this.#outlets.send(batch);
    });
    drain();
  }

  transmit(): void {
    const { engine } = this;
    const sockets = this.#options.sockets();
    for (let next = engine.pollTransmit(); next !== undefined; next = engine.pollTransmit()) {
      sockets.send(next.data, next.path.local, next.path.remote, next.trafficClass);
    }
    for (let next = engine.pollDeviceWrite(); next !== undefined; next = engine.pollDeviceWrite()) {
      this.#deliver(next.tunnel, this.#deviceWrites.holding(next.packet));
    }
  }

  deviceCounters(_: number, device: PacketDevice): Readonly<DeviceCounters> {
    return device.counters;
  }

  strayCounters(): Readonly<EngineCounters> {
    return this.engine.counters;
  }

  // The event loop's own sockets and devices are the host's to open, count and close.
  checkDevice(): void {}

  openSocket(): void {}

  socketErrors(): void {}

  async closeDevice(): Promise<void> {}

  socketCounters(): undefined {
    return undefined;
  }

  refresh(): void {}

  status(): undefined {
    return undefined;
  }

  async close(): Promise<void> {}
}
