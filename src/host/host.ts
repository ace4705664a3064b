/**
 * Runs an engine on this process's event loop: UDP sockets, packet devices, one timer; packets, where it is asked to, in
 * worker threads. What a daemon is without its control socket, and what a program embeds.
 */
import { randomFillSync } from 'node:crypto';
import { readU32 } from '../base/bytes.ts';
import { deferred } from '../base/deferred.ts';
import type { PathReport } from '../base/path-report.ts';
import { secretBytes } from '../base/secret-bytes.ts';
import type { RandomSource } from '../crypto/types.ts';
import type { TunnelConfig } from '../engine/config.ts';
import { Engine } from '../engine/engine.ts';
import type { EngineEvent } from '../engine/events.ts';
import type { EngineCounters, Transmit } from '../engine/options.ts';
import type { DeviceCounters, PacketDevice } from '../tun/device.ts';
import type { OwnerErrorHandler } from '../tun/owner-calls.ts';
import { isUnspecified, type UdpCounters } from '../tun/udp/udp.ts';
import { answerQuestion, isQuestion, type Question } from './answers.ts';
import type { HostOptions } from './options.ts';
import { guarded, unspecifiedFor } from './owner-functions.ts';
import { PacketLoop } from './packet-loop.ts';
import { orUnknown, PathMtus } from './path-mtu.ts';
import { Reach } from './reach.ts';
import { socketNeeds } from './socket-needs.ts';
import { type SocketNeed, SocketPool } from './sockets.ts';
import { type HostFailure, type HostTunnelStatus, hostTunnelStatus, isUp } from './status-view.ts';
import { UpWaits } from './up-waits.ts';
import { WakeTimer } from './wake-timer.ts';
import type { WorkerStatus } from './workers/link.ts';
import { WorkerPlanes } from './workers/planes.ts';

/** How often it is asked whether the peers confirmed a deletion before the sockets close, and the milliseconds between. */
const FAREWELL_CHECKS = 100;
const FAREWELL_PAUSE = 10;
/** How often paths are asked for while workers carry the packets, in milliseconds. */
const PATH_CHECK = 10_000;
const PATH_CHECK_SOON = 150;
interface RunningTunnel {
  readonly device: PacketDevice;
  readonly sockets: readonly SocketNeed[];
}

export class TunnelHost {
  readonly engine: Engine;
  readonly sockets: SocketPool;
  readonly #options: HostOptions;
  readonly #now: () => number;
  readonly #packets: PacketLoop;
  readonly #pathMtus: PathMtus;
  // BOUNDED: the owner's tunnels.
  readonly #tunnels = new Map<string, RunningTunnel>();
  /** Of tunnels that are being removed. BOUNDED: as those are. */
  readonly #removals = new Map<string, Promise<void>>();
  readonly #timer: WakeTimer;
  /** The data plane, where that is in worker threads. */
  readonly #workers: WorkerPlanes | undefined;
  readonly #reach: Reach;
  readonly #waits = new UpWaits();
  /** The last failure of each tunnel. BOUNDED: the owner's tunnels. */
  readonly #failures = new Map<string, HostFailure>();
  readonly #onError: OwnerErrorHandler;
  #pathCheck: NodeJS.Timeout | undefined;
  #pathCheckSoon: NodeJS.Timeout | undefined;
  /** Answers that are still under way must not start anything any more. */
  #closed = false;

  constructor(options: HostOptions) {
    const safe = guarded(options);
    this.#options = options = safe;
    this.#onError = safe.onError;
    this.#now = options.now ?? (() => performance.now());
    const refused = (text: string): void => this.#note(undefined, text);
    const localAddressFor = orUnknown(options.localAddressFor ?? unspecifiedFor, refused);
    const pathMtuFor = orUnknown(options.pathMtuFor, refused);
    const random = options.random ?? systemRandom;
    this.#workers = options.workers === undefined ? undefined : this.#startWorkers(options.workers, random);
    this.engine = new Engine({
      crypto: options.crypto,
      random,
      planes: this.#workers,
      ...(this.#workers === undefined ? {} : { counterMemory: (bytes: number) => new SharedArrayBuffer(bytes) }),
      localAddressFor,
      rawEsp: options.network.rawEsp !== undefined,
      allocate: options.allocate,
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      ...(options.retransmit === undefined ? {} : { retransmit: options.retransmit }),
    });
    this.#timer = new WakeTimer(this.#now, () => {
      this.refresh();
      this.engine.handleTimeout(this.#now());
      this.drain();
    });
    this.#packets = new PacketLoop({
      engine: this.engine,
      sockets: () => this.sockets,
      deviceOf: (tunnel) => this.device(tunnel),
      checkPath: (tunnel) => this.#pathMtus.check(this.#now(), tunnel),
      now: this.#now,
      drain: () => this.drain(),
      onError: this.#onError,
      allocate: options.allocate,
    });
    this.sockets = new SocketPool({
      network: options.network,
      sourceFor: localAddressFor,
      onDatagram: (data, from, local, trafficClass) => this.#packets.received(data, from, local, trafficClass),
      onOpened: (socket) => this.#workers?.openSocket(socket),
      onClosing: (socket) => this.#workers?.closeSocket(socket),
      espQueues: options.workers?.pairs ?? 0,
      onErrors: () => {
        if (this.#workers !== undefined) this.#checkPathsSoon();
      },
      onRefusal: (remote, error) => this.#reach.refused(remote, error),
      onPathReport: (report) => this.#pathReported(report),
    });
    this.#pathMtus = new PathMtus({
      engine: this.engine,
      mtuFor: ({ local, remote }) =>
        pathMtuFor(remote.address, isUnspecified(local.address) ? undefined : local.address),
      tooLarge: () => this.sockets.tooLarge + (this.#workers?.socketCounters().sendErrors.EMSGSIZE ?? 0),
    });
    this.#reach = new Reach({
      wayTo: options.wayTo,
      onWay: options.onWay,
      engine: this.engine,
      tunnels: () => this.#tunnels.keys(),
      now: this.#now,
      drain: () => this.drain(),
      sourceFor: localAddressFor,
      onRefused: refused,
    });
  }

  #startWorkers({ pairs }: NonNullable<HostOptions['workers']>, random: RandomSource): WorkerPlanes {
    return new WorkerPlanes({
      pairs,
      crypto: this.#options.crypto.name,
      fragmentSeed: readU32(random(4), 0),
      now: this.#now,
      onReport: (report) => {
        this.engine.report(this.#now(), report);
        this.drain();
      },
      onDatagram: (data, from, local) => this.#packets.received(data, from, local, 0),
      onTransmit: ({ data, path, trafficClass }) => this.sockets.send(data, path.local, path.remote, trafficClass),
      onDeviceLost: (tunnel) => void this.#deviceLost(tunnel),
      onTooLarge: () => this.#checkPathsSoon(),
      onPathReport: (report) => this.#pathReported(report),
      onRefusal: (remote, error) => this.#reach.refused(remote, error),
      onCrash: (text) => this.#note(undefined, text),
    });
  }

  #note(tunnel: string | undefined, text: string): void {
    this.#options.onEvent?.({ type: 'note', tunnel, level: 'warn', text });
  }

  now(): number {
    return this.#now();
  }

  /**
   * Opens the sockets and puts the tunnel to work on the device, which the host closes with the tunnel.
   * @throws Error, with nothing changed and the device still the caller's, when a socket cannot be had or the
   * configuration cannot be worked with
   */
  async add(config: TunnelConfig, device: PacketDevice): Promise<void> {
    const sockets = socketNeeds(config, this.#options.network.rawEsp !== undefined);
    let lost: Error | undefined;
    device.onClosed((reason) => {
      lost = reason;
      if (reason !== undefined && this.device(config.name) === device) this.#lost(config.name, reason);
    });
    if (this.#workers !== undefined && device.handOver === undefined) {
      throw new Error(`device ${device.name} cannot be handed to worker threads: leave them out, or use a TUN device`);
    }
    await this.#workers?.ready();
    await this.sockets.acquire(sockets);
    const isNew = this.engine.tunnel(config.name) === undefined;
    try {
      if (this.#closed) throw new Error('the host is closed');
      this.engine.addTunnel({ mtu: device.mtu, ...this.sockets.withPorts(config) });
      this.#read(config.name, device);
    } catch (error) {
      if (isNew && this.engine.tunnel(config.name) !== undefined) this.engine.removeTunnel(this.#now(), config.name);
      await this.sockets.release(sockets);
      throw error;
    }
    this.#tunnels.set(config.name, { device, sockets });
    this.#reach.added(config.name);
    this.engine.up(this.#now(), config.name);
    this.drain();
    if (lost !== undefined) this.#lost(config.name, lost);
  }

  /** The device of a tunnel was taken away. */
  #lost(name: string, reason: Error): void {
    const { onDeviceLost } = this.#options;
    if (onDeviceLost !== undefined) {
      onDeviceLost(name, reason);
      return;
    }
    this.#note(name, `device ${this.device(name)?.name} was taken away, the tunnel is removed: ${reason.message}`);
    this.remove(name).catch((error: unknown) => this.#onError(error, 'the end of a device'));
  }

  /**
   * Negotiates what a tunnel lacks, whatever its `start` says, as often as it takes, and waits until it is up: each of its
   * children has an SA; where packets call for SAs one by one, there is one. Meanwhile `onEvent` tells what is in the way.
   * @throws what `signal` is aborted with, from when on it is pursued as its `start` says; Error when there is no such tunnel,
   * or it is removed
   */
  async up(name: string, { signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    signal?.throwIfAborted();
    const tunnel = this.engine.tunnel(name);
    if (tunnel === undefined) throw new Error(`there is no tunnel '${name}' in this host`);
    if (isUp(tunnel)) return;
    const givenUp = (): void => {
      if (this.engine.tunnel(name) !== tunnel) return;
      this.engine.up(this.#now(), name);
      this.drain();
    };
    const isFirst = !this.#waits.isWaitedFor(name);
    const up = this.#waits.wait(name, signal, givenUp);
    if (isFirst) this.engine.pursue(this.#now(), name);
    this.drain();
    await up;
  }

  /** How a tunnel fares: plain data, ages in seconds; `undefined` when there is none of that name. */
  status(name: string): HostTunnelStatus | undefined {
    return hostTunnelStatus(this, name);
  }

  /** Has the packets of a device read from now on. @throws Error when a worker cannot take it */
  #read(name: string, device: PacketDevice): void {
    if (this.#workers === undefined) {
      device.onReadable(() => this.#packets.readDevice(name));
      return;
    }
    this.#workers.openDevice(this.engine.tunnel(name)!.index, device);
    this.#pathCheck ??= setInterval(() => this.#checkPaths(), PATH_CHECK);
  }

  /**
   * Deletes the SAs, telling the peer, closes the device and the sockets that nobody else needs. It may be called while the
   * tunnel is being removed, as out of `onEvent`: then it ends with that.
   */
  async remove(name: string): Promise<void> {
    const running = this.#tunnels.get(name);
    if (running === undefined) return this.#removals.get(name);
    this.#tunnels.delete(name);
    const { promise, resolve, reject } = deferred();
    this.#removals.set(name, promise);
    this.#takeAway(name, running).then(resolve, reject);
    try {
      await promise;
    } finally {
      if (this.#removals.get(name) === promise) this.#removals.delete(name);
    }
  }

  async #takeAway(name: string, running: RunningTunnel): Promise<void> {
    const tunnel = this.engine.tunnel(name)!;
    const connections = new Set(tunnel.config.connections.map((connection) => connection.name));
    this.engine.removeTunnel(this.#now(), name);
    this.drain();
    this.#waits.end(name, new Error(`tunnel '${name}' was removed before it was up`));
    this.#failures.delete(name);
    this.#pathMtus.forget(name);
    this.#reach.forget(name);
    try {
      await this.#workers?.closeDevice(tunnel.index);
      await running.device.close();
      await this.#farewell(connections);
    } finally {
      await this.sockets.release(running.sockets);
    }
  }

  /** Lets the answers to our deletions come in. A peer that is dead does not hold us up for long. */
  async #farewell(connections: ReadonlySet<string>): Promise<void> {
    const leaving = (): boolean =>
      this.engine.ike
        .status()
        .some(({ connection, state }) => connection !== undefined && connections.has(connection) && state !== 'closed');
    for (let check = 0; check < FAREWELL_CHECKS && leaving(); check++) {
      await new Promise((resolve) => setTimeout(resolve, FAREWELL_PAUSE));
    }
  }

  /** A worker found that the device of a tunnel is gone: when nobody uses it any more, it may end. */
  async #deviceLost(index: number): Promise<void> {
    const name = [...this.#tunnels.keys()].find((other) => this.engine.tunnel(other)?.index === index);
    if (name === undefined) return;
    const device = this.device(name);
    await this.#workers?.closeDevice(index);
    device?.checkAttached?.();
  }

  /** Addresses, links or routes of the system changed: ways to peers may be gone, or other ones. */
  networkChanged(): void {
    this.#reach.networkChanged();
  }

  /** The last attempt of a tunnel that came to nothing. */
  lastFailure(name: string): HostFailure | undefined {
    return this.#failures.get(name);
  }

  /** What keeps a tunnel from its peers, as far as this host is concerned, a sentence each. */
  degraded(name: string): string[] {
    return this.#reach.degraded(name);
  }

  /** Time went by unseen, or the network was away: timers are set anew, and peers asked whether they are there. */
  probe(): void {
    this.refresh();
    this.#timer.forget();
    this.engine.probe(this.#now());
    this.drain();
  }

  device(name: string): PacketDevice | undefined {
    return this.#tunnels.get(name)?.device;
  }

  devices(): PacketDevice[] {
    return [...this.#tunnels.values()].map(({ device }) => device);
  }

  /** What went through the device of a tunnel, and what it lost. */
  deviceCounters(name: string): Readonly<DeviceCounters> | undefined {
    const index = this.engine.tunnel(name)?.index;
    if (this.#workers === undefined || index === undefined) return this.device(name)?.counters;
    return this.#workers.deviceCounters(index);
  }

  /** Of each socket; what workers counted at all of them stands in one more. */
  socketCounters(): Readonly<UdpCounters>[] {
    const counters = [...this.sockets.sockets()].map((socket) => socket.counters);
    return this.#workers === undefined ? counters : [...counters, this.#workers.socketCounters()];
  }

  /** Datagrams that reached neither IKE nor ESP. */
  strayCounters(): Readonly<EngineCounters> {
    const { counters } = this.engine;
    const more = this.#workers?.strayCounters();
    if (more === undefined) return counters;
    return {
      keepalives: counters.keepalives + more.keepalives,
      empty: counters.empty + more.empty,
      oversized: counters.oversized + more.oversized,
      overflow: counters.overflow + more.overflow,
      'path-report-ignored': counters['path-report-ignored'],
    };
  }

  /** Makes what the engine shows of packets up to date. */
  refresh(): void {
    this.#workers?.refresh();
  }

  /** The worker threads, when packets are carried by such. */
  workers(): readonly WorkerStatus[] | undefined {
    return this.#workers?.status();
  }

  /** Removes all tunnels. Afterwards nothing of the host keeps the process alive. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer.close();
    const names = [...this.#tunnels.keys(), ...this.#removals.keys()];
    const removals = await Promise.allSettled(names.map((name) => this.remove(name)));
    this.#reach.close();
    clearInterval(this.#pathCheck);
    clearTimeout(this.#pathCheckSoon);
    await this.#workers?.close();
    const failed = removals.find((removal) => removal.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** As `close`: `await using host = new TunnelHost(…)`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Carries out what the engine wants done. To be called after every direct call of the engine. */
  drain(): void {
    const messages: Transmit[] = [];
    for (let message = this.engine.pollTransmit(); message !== undefined; message = this.engine.pollTransmit()) {
      if (this.#workers !== undefined) messages.push(message);
      else this.sockets.send(message.data, message.path.local, message.path.remote, message.trafficClass);
    }
    this.#workers?.transmit(messages);
    for (let answer = this.engine.pollAnswer(); answer !== undefined; answer = this.engine.pollAnswer()) {
      this.#packets.answer(answer.tunnel, answer.packet);
    }
    for (let event = this.engine.pollEvent(); event !== undefined; event = this.engine.pollEvent()) {
      if (event.type === 'child-up' || event.type === 'path-changed') {
        this.#pathMtus.refresh(this.#now(), event.tunnel);
      }
      this.#reach.happened(event);
      if (isQuestion(event)) void this.#answerSoon(event);
      else this.#tell(event);
    }
    this.#timer.set(this.engine.nextTimeout());
  }

  #tell(event: EngineEvent): void {
    if (event.type === 'failed') {
      const { tunnel, reason, detail } = event;
      this.#failures.set(tunnel, { at: this.#now(), reason, detail });
    }
    if (event.type === 'child-up') {
      const tunnel = this.engine.tunnel(event.tunnel);
      if (tunnel !== undefined && isUp(tunnel)) this.#waits.came(event.tunnel);
    }
    this.#options.onEvent?.(event);
  }

  async #answerSoon(question: Question): Promise<void> {
    await answerQuestion(question, this.engine, this.#options, this.#now);
    // ESP may have come before the SA that the answer made.
    this.#packets.settle();
  }

  /** At once, and again when a path that was asked for a moment ago may be asked for again. */
  #checkPathsSoon(): void {
    this.#checkPaths();
    if (this.#pathCheckSoon !== undefined || this.#closed) return;
    this.#pathCheckSoon = setTimeout(() => {
      this.#pathCheckSoon = undefined;
      this.#checkPaths();
    }, PATH_CHECK_SOON);
  }

  /** A packet of ours was too large, as a router says. */
  #pathReported(report: PathReport): void {
    const believed = this.engine.judgePathReport(report);
    if (believed === undefined) return;
    this.#pathMtus.learn(this.#now(), believed);
    this.drain();
  }

  /** What packets in the event loop see to on their way, workers do not. */
  #checkPaths(): void {
    for (const name of this.#tunnels.keys()) this.#pathMtus.check(this.#now(), name);
    this.drain();
  }
}

function systemRandom(length: number): Uint8Array {
  return randomFillSync(secretBytes(length));
}
