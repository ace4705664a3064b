/** The sending worker: from the devices, through the policy and the cipher, to the sockets. */
import { randomFillSync } from 'node:crypto';
import type { PacketBatch } from '../../base/batch.ts';
import type { CryptoProvider } from '../../crypto/types.ts';
import { MAX_PACKET, newPacketBatch } from '../../engine/batches.ts';
import { SendPlane } from '../../engine/send-plane.ts';
import { addCounters, writeCounters } from '../../tun/counters.ts';
import { SharedOffloads } from '../../tun/offload/shared.ts';
import { TunQueue } from '../../tun/queue.ts';
import { UdpQueue } from '../../tun/udp/queue.ts';
import { BATCHES_PER_TURN, DeviceWriteBatch, readTurn } from '../device-turn.ts';
import { Outlets } from '../outlets.ts';
import { LocalSockets } from './local-sockets.ts';
import { QUIET, WorkerLoop } from './loop.ts';
import type { WorkerCommand, WorkerSetup } from './messages.ts';
import { SendTroubles } from './send-troubles.ts';

interface Device {
  readonly end: TunQueue;
  readonly counters: Float64Array;
  readonly carry: (batch: PacketBatch) => void;
}

export class SendWorker {
  readonly #loop: WorkerLoop;
  readonly #plane: SendPlane;
  readonly #offloads = new SharedOffloads();
  readonly #batch: PacketBatch;
  readonly #deviceWrites = new DeviceWriteBatch();
  /** By the number of the device. BOUNDED: the host's tunnels. */
  readonly #devices = new Map<number, Device>();
  readonly #sockets = new LocalSockets<UdpQueue>();
  readonly #outlets = new Outlets({
    pathOf: (tag) => this.#plane.path(tag),
    socketOf: (local) => this.#sockets.find(local),
  });
  readonly #troubles: SendTroubles;
  #lastPacket = 0;

  constructor(setup: WorkerSetup, crypto: CryptoProvider) {
    this.#batch = newPacketBatch(this.#offloads.memory.allocate);
    this.#plane = new SendPlane({
      crypto,
      random: (length) => randomFillSync(new Uint8Array(length)),
      maxPacket: MAX_PACKET,
      report: (report) => this.#loop.report(report),
      onReleased: (batch) => this.#outlets.send(batch),
      onDeviceWrite: (device, packet) => {
        this.#devices.get(device)?.end.write(this.#deviceWrites.holding(packet));
      },
    });
    this.#loop = new WorkerLoop(setup, {
      apply: (command) => this.#apply(command),
      nextDeadline: () => this.#plane.nextDeadline(),
      expire: (now) => this.#plane.expire(now),
      afterTurn: () => this.#afterTurn(),
    });
    this.#troubles = new SendTroubles(this.#loop);
  }

  run(): void {
    try {
      this.#loop.run();
    } finally {
      this.#plane.wipe();
    }
  }

  #apply(command: WorkerCommand): void {
    switch (command.type) {
      case 'send-plane':
        if (command.scope !== 0) this.#learnScope(command);
        this.#plane.apply(this.#loop.now(), command.command);
        return;
      case 'open-device': {
        const { device: number, descriptor, counters } = command;
        const end = new TunQueue(descriptor, this.#offloads, () => this.#lost(number));
        // A worker that replaces another continues its counters.
        addCounters(counters, end.counters);
        const device = { end, counters, carry: (batch: PacketBatch) => this.#carry(number, batch) };
        this.#devices.set(number, device);
        this.#loop.watch(number, {
          fd: descriptor.fd,
          serve: () => this.#readDevice(device),
          failed: () => end.checkAttached(),
        });
        return;
      }
      case 'close-device':
        this.#loop.unwatch(command.device);
        this.#devices.get(command.device)?.end.release();
        this.#devices.delete(command.device);
        return;
      case 'open-socket':
        this.#openSocket(command);
        return;
      case 'close-socket':
        this.#sockets.remove(command.socket)?.release();
        this.#outlets.forget();
        return;
      case 'receive-plane':
      case 'alive':
      case 'stop':
    }
  }

  #learnScope({ command, scope }: Extract<WorkerCommand, { type: 'send-plane' }>): void {
    if (!('path' in command)) return;
    for (const { socket } of this.#sockets) socket.learnScope(command.path.remote.address, scope);
  }

  #openSocket({ socket, descriptor, counters }: Extract<WorkerCommand, { type: 'open-socket' }>): void {
    const end = new UdpQueue(descriptor);
    this.#troubles.watch(end);
    addCounters(counters, end.counters);
    this.#sockets.add(socket, end, counters);
    this.#outlets.forget();
  }

  /** The device is gone: nothing is read until the main thread closes it. */
  #lost(device: number): void {
    this.#loop.unwatch(device);
    this.#devices.get(device)?.end.release();
    this.#loop.report({ type: 'device-lost', device });
  }

  /** Returns whether there may be more. */
  #readDevice({ end, counters, carry }: Device): boolean {
    const lone = !end.pending && this.#loop.now() - this.#lastPacket > QUIET;
    if (lone) end.budget = 1;
    readTurn(end, this.#batch, carry, lone ? 1 : BATCHES_PER_TURN);
    end.budget = Number.POSITIVE_INFINITY;
    writeCounters(end.counters, counters);
    if (!lone) return !end.drained;
    if (this.#batch.count > 0) this.#loop.deferRest();
    // Whether another packet follows, the next poll tells.
    return end.pending;
  }

  /** Seals a batch that was read from a device, and sends it. */
  #carry(device: number, batch: PacketBatch): void {
    const now = this.#loop.now();
    this.#plane.process(now, device, batch);
    this.#outlets.send(batch);
    this.#lastPacket = now;
  }

  #afterTurn(): void {
    let tooLarge = 0;
    for (const { socket, counters } of this.#sockets) {
      writeCounters(socket.counters, counters);
      tooLarge += socket.counters.sendErrors.EMSGSIZE;
    }
    this.#troubles.reportTooLarge(tooLarge);
  }
}
