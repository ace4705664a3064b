/**
 * Runs an engine on this process's event loop: UDP sockets, packet devices, one timer; packets, where it is asked to, in
 * worker threads. What a daemon is without its control socket, and what a program embeds.
 */
import { SectunnelError } from '../base/error.ts';
import type { PathReport } from '../base/path-report.ts';
import type { TunnelConfig } from '../engine/config.ts';
import type { ControlPlane } from '../engine/control-plane.ts';
import type { EngineEvent } from '../engine/events.ts';
import type { EngineCounters } from '../engine/options.ts';
import type { ClosedSas } from '../engine/tunnels/changes.ts';
import type { DeviceCounters, PacketDevice } from '../tun/device.ts';
import type { OwnerErrorHandler } from '../tun/owner-calls.ts';
import { isUnspecified, type UdpCounters } from '../tun/udp/udp.ts';
import { answerQuestion, isQuestion, type Question } from './answers.ts';
import type { CarrierOptions, PacketCarrier } from './carrier.ts';
import { HostDevices } from './devices.ts';
import { InlineCarrier } from './inline-carrier.ts';
import { noSuchTunnel, Operations } from './operations.ts';
import { engineOptions, type HostOptions } from './options.ts';
import { guarded, unspecifiedFor } from './owner-functions.ts';
import { orUnknown, PathMtus } from './path-mtu.ts';
import { Reach } from './reach/reach.ts';
import { farewell, Removals, settled } from './removals.ts';
import { socketNeeds } from './socket-needs.ts';
import { type SocketNeed, SocketPool } from './sockets.ts';
import { type HostFailure, type HostTunnelStatus, hostTunnelStatus } from './status-view.ts';
import { UpWaits } from './up-waits.ts';
import { WakeTimer } from './wake-timer.ts';
import { WorkerCarrier } from './workers/carrier.ts';
import type { WorkerStatus } from './workers/handle.ts';

/**
 * Runs tunnels on the event loop of this process.
 *
 * @example
 * ```ts
 * await using host = new TunnelHost({ network: nodeUdp, crypto: nodeProvider, secretFor: () => utf8('the key') });
 * await host.add(tunnel, device);
 * await host.up(tunnel.name, { signal: AbortSignal.timeout(30_000) });
 * console.log(host.status(tunnel.name)?.state); // up
 * ```
 */
export class TunnelHost {
  /** The control plane of the tunnels. @internal */
  readonly engine: ControlPlane;
  /** @internal */
  readonly sockets: SocketPool;
  /** What can be asked of tunnels that are up. */
  readonly operations: Operations;
  readonly #options: HostOptions;
  readonly #now: () => number;
  readonly #carrier: PacketCarrier;
  readonly #pathMtus: PathMtus;
  readonly #devices: HostDevices;
  /** Which sockets they need. BOUNDED: the owner's tunnels. */
  readonly #tunnels = new Map<string, readonly SocketNeed[]>();
  readonly #removals = new Removals();
  readonly #timer: WakeTimer;
  readonly #reach: Reach;
  readonly #waits: UpWaits;
  /** The last failure of each tunnel. BOUNDED: the owner's tunnels. */
  readonly #failures = new Map<string, HostFailure>();
  readonly #onError: OwnerErrorHandler;
  /** Set by `close`: what is still under way must not start anything. */
  #closed = false;

  constructor(options: HostOptions) {
    const safe = guarded(options);
    this.#options = options = safe;
    this.#onError = safe.onError;
    this.#now = options.now ?? (() => performance.now());
    const refused = (text: string): void => this.#note(undefined, text);
    const localAddressFor = orUnknown(options.localAddressFor ?? unspecifiedFor, refused);
    const pathMtuFor = orUnknown(options.pathMtuFor, refused);
    const carrier: CarrierOptions = {
      engine: engineOptions(options, localAddressFor),
      sockets: () => this.sockets,
      deviceOf: (tunnel) => this.device(tunnel),
      checkPaths: () => {
        this.#pathMtus.check(this.#now(), () => this.#tunnels.keys());
        this.drain();
      },
      now: this.#now,
      drain: () => this.drain(),
      onError: this.#onError,
      onPathReport: (report) => this.#pathReported(report),
      onRefusal: (remote, error) => this.#reach.refused(remote, error),
      onNote: refused,
    };
    const { workers } = options;
    this.#carrier = workers === undefined ? new InlineCarrier(carrier) : new WorkerCarrier(carrier, workers.pairs);
    this.engine = this.#carrier.engine;
    const means = { engine: this.engine, now: this.#now, drain: () => this.drain() };
    this.operations = new Operations(means);
    this.#waits = new UpWaits(means);
    this.#devices = new HostDevices({ carrier: this.#carrier, engine: this.engine });
    this.#timer = new WakeTimer(this.#now, () => {
      this.refresh();
      this.engine.handleTimeout(this.#now());
      this.drain();
    });
    this.sockets = new SocketPool({
      network: options.network,
      sourceFor: localAddressFor,
      onDatagram: (data, from, local, trafficClass) => this.#carrier.receive(data, from, local, trafficClass),
      onOpened: (socket) => this.#carrier.openSocket(socket),
      onClosing: (socket) => this.#carrier.closeSocket(socket),
      espQueues: this.#carrier.espQueues,
      onErrors: () => this.#carrier.socketErrors(),
      onRefusal: carrier.onRefusal,
      onPathReport: carrier.onPathReport,
    });
    this.#pathMtus = new PathMtus({
      engine: this.engine,
      mtuFor: ({ local, remote }) =>
        pathMtuFor(remote.address, isUnspecified(local.address) ? undefined : local.address, local.vrf),
      tooLarge: () => this.sockets.tooLarge + (this.#carrier.socketCounters()?.sendErrors.EMSGSIZE ?? 0),
    });
    this.#reach = new Reach({
      routeToPeer: options.routeToPeer,
      onPeerRoute: options.onPeerRoute,
      engine: this.engine,
      tunnels: () => this.#tunnels.keys(),
      now: this.#now,
      drain: () => this.drain(),
      refresh: () => this.refresh(),
      rawEsp: options.network.rawEsp?.bind(options.network),
      sourceFor: localAddressFor,
      onRefused: refused,
    });
  }

  #note(tunnel: string | undefined, text: string): void {
    this.#options.onEvent?.({ type: 'note', tunnel, level: 'warn', text });
  }

  /** @internal */
  now(): number {
    return this.#now();
  }

  /**
   * Opens the sockets and puts the tunnel to work on the device, which the host closes with the tunnel.
   * @throws SectunnelError, RangeError, with nothing changed and the device still the caller's, when a socket cannot be opened or
   * the configuration cannot be worked with
   */
  async add(config: TunnelConfig, device: PacketDevice): Promise<void> {
    const sockets = socketNeeds(config, this.#options.network);
    let lost: Error | undefined;
    device.onClosed((reason) => {
      lost = reason;
      if (reason !== undefined && this.device(config.name) === device) this.#lost(config.name, reason);
    });
    this.#devices.check(device);
    await this.#carrier.ready();
    await this.sockets.acquire(sockets);
    const isNew = this.engine.tunnel(config.name) === undefined;
    try {
      if (this.#closed) throw new SectunnelError('invalid-state', 'the host is closed');
      this.engine.addTunnel(this.#on(device, config));
      this.#devices.open(this.engine.tunnel(config.name)!, device);
    } catch (error) {
      const added = isNew ? this.engine.tunnel(config.name) : undefined;
      if (added !== undefined) await this.#devices.remove(this.#now(), added);
      await this.sockets.release(sockets);
      throw error;
    }
    this.#tunnels.set(config.name, sockets);
    this.#reach.added(config.name);
    this.#resume(config);
    this.engine.up(this.#now(), config.name);
    this.drain();
    if (lost !== undefined) this.#lost(config.name, lost);
  }

  /** With the ports that its sockets have. */
  #on(device: PacketDevice, config: TunnelConfig): TunnelConfig {
    return { mtu: device.mtu, ...this.sockets.withPorts(config), device: this.#devices.keyOf(device) };
  }

  /** With the SAs that the process before this one left of a tunnel. */
  #resume(config: TunnelConfig): void {
    const refused = this.#options.inheritance?.()?.resume(this.engine, this.#now(), config) ?? [];
    for (const { child, detail } of refused) {
      const what = child === undefined ? 'an IKE SA' : `a CHILD SA of ${child}`;
      this.#note(config.name, `${what} of the process before this one is not gone on with: ${detail}`);
    }
  }

  /** The device of a tunnel was deleted, or can no longer be used. */
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
   * children has an SA; where packets ask for SAs one by one, there is one. Meanwhile `onEvent` reports what prevents it.
   * @throws what `signal` is aborted with, from when on it is pursued as its `start` says; SectunnelError when there is no such
   * tunnel, or it is removed
   */
  async up(name: string, { signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    await this.#waits.up(name, signal);
  }

  /** As `ControlPlane.changeTunnel`. @throws SectunnelError, RangeError, with nothing changed, as `add` @internal */
  async change(config: TunnelConfig, closed: ClosedSas): Promise<void> {
    const sockets = socketNeeds(config, this.#options.network);
    await this.sockets.acquire(sockets);
    const [former, device] = [this.#tunnels.get(config.name), this.device(config.name)];
    try {
      if (former === undefined || device === undefined) throw noSuchTunnel(config.name);
      this.engine.changeTunnel(this.#now(), this.#on(device, config), closed);
    } catch (error) {
      await this.sockets.release(sockets);
      throw error;
    }
    this.#tunnels.set(config.name, sockets);
    this.#reach.added(config.name);
    this.drain();
    await farewell(this.engine, config);
    await this.sockets.release(former);
  }

  /** The status of a tunnel: plain data, ages in seconds; `undefined` when there is no tunnel of that name. */
  status(name: string): HostTunnelStatus | undefined {
    return hostTunnelStatus(this, name);
  }

  /**
   * Deletes the SAs and tells the peer, closes the device, and the sockets that no other tunnel needs. A call while the tunnel
   * is being removed, as from `onEvent`, ends with that removal.
   */
  async remove(name: string): Promise<void> {
    const sockets = this.#tunnels.get(name);
    if (sockets === undefined) return this.#removals.get(name);
    this.#tunnels.delete(name);
    await this.#removals.run(name, () => this.#takeAway(name, sockets));
  }

  async #takeAway(name: string, sockets: readonly SocketNeed[]): Promise<void> {
    const tunnel = this.engine.tunnel(name)!;
    const device = this.device(name)!;
    const isCarried = this.#devices.remove(this.#now(), tunnel);
    this.drain();
    this.#waits.removed(name);
    this.#failures.delete(name);
    this.#reach.forget(name);
    try {
      await isCarried;
      await device.close();
      await farewell(this.engine, tunnel.config);
    } finally {
      await this.sockets.release(sockets);
    }
  }

  /** Addresses, links or routes of the system changed: routes to peers may have gone or changed. */
  networkChanged(): void {
    this.#reach.networkChanged();
  }

  /** The last failed attempt of a tunnel. */
  lastFailure(name: string): HostFailure | undefined {
    return this.#failures.get(name);
  }

  /** What keeps a tunnel from its peers on this host's side, a sentence each. */
  degraded(name: string): string[] {
    return this.#reach.degraded(name);
  }

  /** CHILD SAs of a tunnel by which packets were sent and none has come, a sentence each. */
  nothingReceived(name: string): string[] {
    return this.#reach.nothingReceived(name);
  }

  /** The machine slept, or the network was away: sets timers anew and asks all peers whether they are alive. */
  probe(): void {
    this.refresh();
    this.#timer.forget();
    this.engine.probe(this.#now());
    this.drain();
  }

  /** The device of a tunnel; `undefined` when no tunnel has this name. */
  device(name: string): PacketDevice | undefined {
    return this.#devices.get(name);
  }

  /** The devices of all tunnels. */
  devices(): PacketDevice[] {
    return this.#devices.all();
  }

  /** What went through the device of a tunnel, and what it lost. */
  deviceCounters(name: string): Readonly<DeviceCounters> | undefined {
    return this.#devices.counters(name);
  }

  /** Of each socket; what workers counted at all of them stands in one more. */
  socketCounters(): Readonly<UdpCounters>[] {
    const counters = [...this.sockets.sockets()].map((socket) => socket.counters);
    const others = this.#carrier.socketCounters();
    return others === undefined ? counters : [...counters, others];
  }

  /** Datagrams that reached neither IKE nor ESP. */
  strayCounters(): Readonly<EngineCounters> {
    return this.#carrier.strayCounters();
  }

  /** Makes what the engine shows of packets up to date. @internal */
  refresh(): void {
    this.#carrier.refresh();
  }

  /** The worker threads, when packets are carried by such. @internal */
  workers(): readonly WorkerStatus[] | undefined {
    return this.#carrier.status();
  }

  /** Removes all tunnels. Afterwards nothing of the host keeps the process alive. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer.close();
    const names = [...this.#tunnels.keys(), ...this.#removals.names()];
    const removals = await Promise.allSettled(names.map((name) => this.remove(name)));
    this.#reach.close();
    await this.#carrier.close();
    const failed = removals.find((removal) => removal.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** Ends without telling the peers. Returns the state for the next process (`docs/state.md`), with keys. @internal */
  async handOver(): Promise<Uint8Array> {
    this.#closed = true;
    await settled(this.engine);
    this.#timer.close();
    await this.#devices.close();
    // From here on nothing of the engine is sent.
    await this.sockets.close();
    this.refresh();
    const state = this.engine.saveState(this.#now());
    this.#reach.close();
    await this.#carrier.close();
    return state;
  }

  /** As `close`: `await using host = new TunnelHost(…)`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Carries out what the engine wants done. To be called after every direct call of the engine. @internal */
  drain(): void {
    this.#carrier.transmit();
    for (let event = this.engine.pollEvent(); event !== undefined; event = this.engine.pollEvent()) {
      if (event.type === 'child-up' || event.type === 'path-changed') {
        this.#pathMtus.refresh(this.#now(), event.tunnel);
      }
      this.#reach.happened(event);
      this.operations.happened(event);
      if (isQuestion(event)) void this.#answerSoon(event);
      else this.#report(event);
    }
    this.#timer.set(this.engine.nextTimeout());
  }

  #report(event: EngineEvent): void {
    if (event.type === 'failed') {
      const { tunnel, reason, detail } = event;
      this.#failures.set(tunnel, { at: this.#now(), reason, detail });
    }
    if (event.type === 'child-up') this.#waits.childUp(event.tunnel);
    this.#options.onEvent?.(event);
  }

  async #answerSoon(question: Question): Promise<void> {
    await answerQuestion(question, this.engine, this.#options, this.#now);
    // ESP may have come before the SA that the answer made.
    this.#carrier.settle();
  }

  /** A packet of ours was too large, as a router says. */
  #pathReported(report: PathReport): void {
    const believed = this.engine.judgePathReport(report);
    if (believed === undefined) return;
    this.#pathMtus.learn(this.#now(), believed);
    this.drain();
  }
}
