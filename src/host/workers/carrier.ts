/**
 * Carries packets in worker threads. Only IKE passes the event loop, and packets that no worker can
 * send or receive.
 */

import type { SocketAddress } from '../../base/address.ts';
import { invariant } from '../../base/assert.ts';
import { SectunnelError } from '../../base/error.ts';
import { ControlPlane } from '../../engine/control-plane.ts';
import type { EngineCounters, Transmit } from '../../engine/options.ts';
import type { DeviceCounters, PacketDevice } from '../../tun/device.ts';
import type { UdpCounters, UdpSocket } from '../../tun/udp/udp.ts';
import type { CarrierOptions, PacketCarrier } from '../carrier.ts';
import type { WorkerStatus } from './handle.ts';
import { WorkerPlanes } from './planes.ts';

/** How often paths are asked for, and how soon again after a packet was too large, in milliseconds. */
const PATH_CHECK = 10_000;
const PATH_CHECK_SOON = 150;

export class WorkerCarrier implements PacketCarrier {
  readonly engine: ControlPlane;
  readonly espQueues: number;
  readonly #planes: WorkerPlanes;
  readonly #options: CarrierOptions;
  /** By the engine's number. BOUNDED: the host's tunnels. */
  readonly #devices = new Map<number, PacketDevice>();
  #pathCheck: NodeJS.Timeout | undefined;
  #pathCheckSoon: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: CarrierOptions, pairs: number) {
    const { now, sockets, onPathReport, onRefusal, onNote } = options;
    this.#options = options;
    this.espQueues = pairs;
    let planes = undefined as WorkerPlanes | undefined;
    this.engine = new ControlPlane({
      ...options.engine,
      counterMemory: (bytes) => new SharedArrayBuffer(bytes),
      plane: (fragmentSeed) => {
        planes = new WorkerPlanes({
          pairs,
          crypto: options.engine.crypto.name,
          fragmentSeed,
          now,
          onReport: (report) => {
            this.engine.onReport(now(), report);
            options.drain();
          },
          onDatagram: (data, from, local) => this.receive(data, from, local),
          onTransmit: ({ data, path, trafficClass }) => sockets().send(data, path.local, path.remote, trafficClass),
          onDeviceLost: (device) => void this.#deviceLost(device),
          onTooLarge: () => this.#checkPathsSoon(),
          onPathReport,
          onRefusal,
          onCrash: onNote,
        });
        return planes;
      },
    });
    invariant(planes !== undefined, 'a control plane without its data plane');
    this.#planes = planes;
  }

  ready(): Promise<void> {
    return this.#planes.ready();
  }

  receive(data: Uint8Array, remote: SocketAddress, local: SocketAddress): void {
    this.engine.receive(this.#options.now(), { local, remote }, data);
    this.#options.drain();
  }

  openSocket(socket: UdpSocket): void {
    this.#planes.openSocket(socket);
  }

  closeSocket(socket: UdpSocket): Promise<void> {
    return this.#planes.closeSocket(socket);
  }

  socketErrors(): void {
    this.#checkPathsSoon();
  }

  checkDevice({ name, handOver }: PacketDevice): void {
    if (handOver === undefined) {
      throw new SectunnelError(
        'unsupported',
        `device ${name} cannot be handed to worker threads: leave them out, or use a TUN device`,
      );
    }
  }

  openDevice(index: number, device: PacketDevice): void {
    this.#planes.openDevice(index, device);
    this.#devices.set(index, device);
    this.#pathCheck ??= setInterval(() => this.#options.checkPaths(), PATH_CHECK);
  }

  async closeDevice(index: number): Promise<void> {
    this.#devices.delete(index);
    await this.#planes.closeDevice(index);
  }

  /** A worker found that a device is gone: when no worker uses it any more, it may end. */
  async #deviceLost(index: number): Promise<void> {
    const device = this.#devices.get(index);
    if (device === undefined) return;
    await this.#planes.closeDevice(index);
    device.checkAttached?.();
  }

  transmit(): void {
    const messages: Transmit[] = [];
    for (let next = this.engine.pollTransmit(); next !== undefined; next = this.engine.pollTransmit()) {
      messages.push(next);
    }
    this.#planes.transmit(messages);
  }

  settle(): void {
    this.#options.drain();
  }

  deviceCounters(index: number): DeviceCounters {
    return this.#planes.deviceCounters(index);
  }

  socketCounters(): UdpCounters {
    return this.#planes.socketCounters();
  }

  strayCounters(): EngineCounters {
    const { keepalives, empty, overflow, 'path-report-ignored': ignored } = this.engine.counters;
    const more = this.#planes.strayCounters();
    return {
      keepalives: keepalives + more.keepalives,
      empty: empty + more.empty,
      oversized: more.oversized,
      overflow: overflow + more.overflow,
      'path-report-ignored': ignored,
    };
  }

  refresh(): void {
    this.#planes.refresh();
  }

  status(): readonly WorkerStatus[] {
    return this.#planes.status();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#pathCheck);
    clearTimeout(this.#pathCheckSoon);
    await this.#planes.close();
  }

  /** At once, and again when a path that was asked for a moment ago may be asked for again. */
  #checkPathsSoon(): void {
    this.#options.checkPaths();
    if (this.#pathCheckSoon !== undefined || this.#closed) return;
    this.#pathCheckSoon = setTimeout(() => {
      this.#pathCheckSoon = undefined;
      this.#options.checkPaths();
    }, PATH_CHECK_SOON);
  }
}
