/** The receiving worker: from the sockets, through cipher and selectors, to the devices. IKE goes to the main thread. */
import type { SocketAddress } from '../../base/address.ts';
import type { PacketBatch } from '../../base/batch.ts';
import type { CryptoProvider } from '../../crypto/types.ts';
import { newPacketBatch } from '../../engine/batches.ts';
import { classify } from '../../engine/demux.ts';
import { ReceivePlane } from '../../engine/receive-plane.ts';
import { forEachTag } from '../../engine/tags.ts';
import type { Path } from '../../ike/events.ts';
import { addCounters, writeCounters } from '../../tun/counters.ts';
import { SharedOffloads } from '../../tun/offload/shared.ts';
import { TunQueue } from '../../tun/queue.ts';
import type { DatagramReader } from '../../tun/udp/linux-read.ts';
import { READER_BYTES, readerInto, UdpQueue } from '../../tun/udp/queue.ts';
import { QUIET, WorkerLoop } from './loop.ts';
import { Control, MAX_UNDER_WAY, type WorkerCommand, type WorkerSetup } from './messages.ts';
import { SendTroubles } from './send-troubles.ts';

/** Milliseconds that the worker does not read a socket that keeps failing without an error in its queue. */
const PAUSE_AFTER_FAILURES = 100;

interface Device {
  readonly end: TunQueue;
  readonly counters: Float64Array;
}

interface Socket {
  readonly end: UdpQueue;
  readonly counters: Float64Array;
  readonly fd: number;
}

export class ReceiveWorker {
  readonly #control: Int32Array;
  readonly #loop: WorkerLoop;
  readonly #plane: ReceivePlane;
  readonly #troubles: SendTroubles;
  readonly #offloads = new SharedOffloads();
  /** Its landing area is what the sockets are read to, so that ESP is opened where it is. */
  readonly #batch: PacketBatch;
  readonly #reader: DatagramReader;
  readonly #paths: Path[] = [];
  #lastPath: Path | undefined;
  #lastPacket = 0;
  // BOUNDED: the host's tunnels and sockets.
  readonly #devices = new Map<number, Device>();
  readonly #sockets = new Map<number, Socket>();
  // BOUNDED: by the sockets.
  readonly #paused = new Map<number, number>();

  constructor(setup: WorkerSetup, crypto: CryptoProvider) {
    this.#control = setup.control;
    this.#batch = newPacketBatch((bytes) => this.#offloads.memory.allocate(bytes + READER_BYTES));
    this.#reader = readerInto(this.#batch.landing);
    this.#plane = new ReceivePlane({
      crypto,
      fragmentSeed: setup.fragmentSeed,
      drops: setup.inboundDrops,
      report: (report) => this.#loop.report(report),
    });
    this.#loop = new WorkerLoop(setup, {
      apply: (command) => this.#apply(command),
      nextDeadline: () => this.#nextDeadline(),
      expire: (now) => this.#expire(now),
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
      case 'receive-plane':
        this.#plane.apply(command.command);
        this.#openEarly();
        return;
      case 'open-device': {
        const { device: number, descriptor, counters } = command;
        const end = new TunQueue(descriptor, this.#offloads, () => this.#lost(number));
        // A worker that replaces another continues its counters.
        addCounters(counters, end.counters);
        this.#devices.set(number, { end, counters });
        return;
      }
      case 'close-device':
        this.#devices.get(command.device)?.end.release();
        this.#devices.delete(command.device);
        return;
      case 'open-socket': {
        const { socket, descriptor, counters } = command;
        const end = new UdpQueue(descriptor, this.#reader);
        this.#troubles.watch(end);
        addCounters(counters, end.counters);
        this.#sockets.set(socket, { end, counters, fd: descriptor.fd });
        this.#watch(socket);
        return;
      }
      case 'close-socket':
        this.#loop.unwatch(command.socket);
        this.#paused.delete(command.socket);
        this.#sockets.get(command.socket)?.end.release();
        this.#sockets.delete(command.socket);
        return;
      case 'send-plane':
      case 'alive':
      case 'stop':
    }
  }

  #watch(key: number): void {
    const socket = this.#sockets.get(key);
    if (socket === undefined) return;
    this.#loop.watch(key, {
      fd: socket.fd,
      serve: () => this.#readSocket(key, socket),
      failed: () => void socket.end.takeErrors(),
    });
  }

  /** The device is gone: nothing is written until the main thread closes it. */
  #lost(device: number): void {
    this.#devices.get(device)?.end.release();
    this.#loop.report({ type: 'device-lost', device });
  }

  #nextDeadline(): number {
    let next = this.#plane.nextDeadline();
    for (const until of this.#paused.values()) next = Math.min(next, until);
    return next;
  }

  #expire(now: number): void {
    this.#plane.expire(now);
    for (const [key, until] of this.#paused) {
      if (until > now) continue;
      this.#paused.delete(key);
      this.#watch(key);
    }
  }

  /** Returns whether there may be more. */
  #readSocket(key: number, { end }: Socket): boolean {
    const left = end.receive(
      (data, from, local, trafficClass) => this.#receive(data, from, local, trafficClass),
      () => this.#flush(),
    );
    if (left === 'failing') {
      this.#loop.unwatch(key);
      this.#paused.set(key, this.#loop.now() + PAUSE_AFTER_FAILURES);
    }
    return left === 'more';
  }

  /** ICMP errors about what the sender sent are read here as a rule, because this worker polls the socket. */
  #afterTurn(): void {
    let tooLarge = 0;
    for (const { end, counters } of this.#sockets.values()) {
      writeCounters(end.counters, counters);
      tooLarge += end.counters.sendErrors.EMSGSIZE;
    }
    this.#troubles.reportTooLarge(tooLarge);
  }

  #receive(data: Uint8Array, from: SocketAddress, local: SocketAddress, trafficClass: number): void {
    switch (classify(local.port, data)) {
      case 'empty':
        Atomics.add(this.#control, Control.empty, 1);
        return;
      case 'keepalive':
        Atomics.add(this.#control, Control.keepalives, 1);
        return;
      case 'ike':
        this.#handOver(data, from, local);
        return;
      case 'esp':
        this.#gather(this.#batch.place(data), from, local, trafficClass);
    }
  }

  #handOver(data: Uint8Array, from: SocketAddress, local: SocketAddress): void {
    if (Atomics.load(this.#control, Control.underWay) >= MAX_UNDER_WAY) {
      Atomics.add(this.#control, Control.overflow, 1);
      return;
    }
    Atomics.add(this.#control, Control.underWay, 1);
    this.#loop.report({ type: 'datagram', data: data.slice(), from, local });
  }

  /** @param slot of the packet, in the batch; negative when it was not taken */
  #gather(slot: number, remote: SocketAddress, local: SocketAddress, trafficClass: number): void {
    const batch = this.#batch;
    if (slot < 0) {
      Atomics.add(this.#control, Control.oversized, 1);
      return;
    }
    const last = this.#lastPath;
    // A socket gives the same objects for the addresses of each datagram of a peer.
    const path = last !== undefined && last.remote === remote && last.local === local ? last : { local, remote };
    this.#lastPath = path;
    this.#paths[slot] = path;
    batch.trafficClass[slot] = trafficClass;
    if (batch.count === batch.capacity) this.#flush();
  }

  /** Opens packets that came before their SA was installed. */
  #openEarly(): void {
    for (const { data, path, trafficClass } of this.#plane.takeEarly()) {
      this.#gather(this.#batch.push(data), path.remote, path.local, trafficClass);
    }
    this.#flush();
  }

  /** Opens what was gathered, and writes it to the devices. */
  #flush(): void {
    const batch = this.#batch;
    if (batch.count === 0) return;
    const now = this.#loop.now();
    const lone = batch.count === 1 && now - this.#lastPacket > QUIET;
    this.#lastPacket = now;
    this.#plane.open(now, batch, this.#paths);
    forEachTag(batch, (tag) => {
      const device = this.#devices.get(tag);
      if (device === undefined) return;
      device.end.write(batch);
      if (lone) this.#loop.deferRest();
      writeCounters(device.end.counters, device.counters);
    });
    batch.clear();
  }
}
