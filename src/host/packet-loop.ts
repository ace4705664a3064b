/**
 * Packets in the event loop: from devices into tunnels, and out of them what sockets received. Where workers carry them,
 * only what is for the control plane comes through here.
 */
import type { SocketAddress } from '../base/address.ts';
import { PacketBatch } from '../base/batch.ts';
import { MIN_MTU } from '../base/mtu.ts';
import type { Engine } from '../engine/engine.ts';
import { forEachRun } from '../engine/tags.ts';
import type { PacketDevice } from '../tun/device.ts';
import type { OwnerErrorHandler } from '../tun/owner-calls.ts';
import type { SocketPool } from './sockets.ts';

/** Packets that are read from a device at a time, and batches before other work has its turn. */
const BATCH_PACKETS = 64;
const BATCHES_PER_TURN = 4;
/** No device has larger packets; one byte more, for slots that start where lines of the cache do. */
const MAX_PACKET = 0x1_0000;
/** No answer of the engine to a packet is larger: what every IPv6 link takes. */
const MAX_ANSWER = MIN_MTU[6];

export interface PacketLoopOptions {
  readonly engine: Engine;
  readonly sockets: () => SocketPool;
  readonly deviceOf: (tunnel: string) => PacketDevice | undefined;
  /** Packets of the tunnel are about to be sent. */
  readonly checkPath: (tunnel: string) => void;
  readonly now: () => number;
  /** Carries out what the engine wants done. */
  readonly drain: () => void;
  readonly onError: OwnerErrorHandler;
  readonly allocate: ((bytes: number) => Uint8Array) | undefined;
}

export class PacketLoop {
  readonly #options: PacketLoopOptions;
  /** What was read from a device, until it is sent: for all devices in turn. */
  readonly #outgoing: PacketBatch;
  /** One packet at a time for a device, beside what comes out of its tunnel. */
  readonly #answer = new PacketBatch(1, MAX_ANSWER);
  #flushPlanned = false;

  constructor(options: PacketLoopOptions) {
    this.#options = options;
    this.#outgoing = new PacketBatch(BATCH_PACKETS, MAX_PACKET, undefined, undefined, options.allocate);
  }

  /** A datagram came. */
  received(data: Uint8Array, remote: SocketAddress, local: SocketAddress, trafficClass: number): void {
    const { engine, now, drain } = this.#options;
    const full = engine.receive(now(), { local, remote }, data, trafficClass);
    if (full) {
      this.#flush();
    } else if (engine.hasGathered) {
      // After all datagrams of this turn have been read.
      if (!this.#flushPlanned) setImmediate(() => this.#flush());
      this.#flushPlanned = true;
    } else {
      drain();
    }
  }

  /** What the engine has gathered may have an SA now. */
  settle(): void {
    if (this.#options.engine.hasGathered) this.#flush();
    else this.#options.drain();
  }

  #flush(): void {
    const { engine, now, drain } = this.#options;
    this.#flushPlanned = false;
    engine.flush(now(), (tunnel, batch) => this.#deliver(tunnel, batch));
    drain();
  }

  /** The engine answers a packet of a device. */
  answer(tunnel: string, packet: Uint8Array): void {
    this.#answer.clear();
    this.#answer.push(packet);
    this.#deliver(tunnel, this.#answer);
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

  /** Packets wait in the device of a tunnel. It calls again while some are left, so that one tunnel cannot starve the others. */
  readDevice(tunnel: string): void {
    const { engine, deviceOf, checkPath, now, drain } = this.#options;
    const device = deviceOf(tunnel);
    if (device === undefined) return;
    const batch = this.#outgoing;
    checkPath(tunnel);
    for (let turn = 0; turn < BATCHES_PER_TURN; turn++) {
      batch.clear();
      if (device.read(batch) === 0) break;
      engine.send(now(), tunnel, batch);
      this.#send(batch);
    }
    drain();
  }

  #send(batch: PacketBatch): void {
    const { engine, sockets } = this.#options;
    forEachRun(batch, (tag, first, end) => {
      const path = engine.path(tag);
      if (path !== undefined) sockets().sendBatch(batch, first, end, path.local, path.remote);
    });
  }
}
