/**
 * The control plane: IKE, the tunnels with their CHILD SAs, and what is done to keep them up. It commands a data plane,
 * which carries the packets, and learns from its reports what they need.
 */
import { assertNever } from '../base/assert.ts';
import { readU32 } from '../base/bytes.ts';
import type { PathReport } from '../base/path-report.ts';
import { namedDrops } from '../esp/drops.ts';
import { IkeEndpoint } from '../ike/endpoint.ts';
import type { ChildSa, IkeEvent, Path, SignatureAnswer, VerificationAnswer } from '../ike/events.ts';
import type { RestoreRefusal } from '../ike/state/restore.ts';
import type { DataPlane, PlaneReport } from './commands.ts';
import type { TunnelConfig } from './config.ts';
import { ConnectionKeeper } from './connection-keeper.ts';
import { addMarker, classify, stripMarker } from './demux.ts';
import { EARLY_WAIT } from './early.ts';
import { type EngineEvent, engineEvent } from './events.ts';
import type { ControlCounters, ControlPlaneOptions, Transmit } from './options.ts';
import type { BelievedReport } from './path-reports.ts';
import { closeChildren } from './sa-operations.ts';
import { SaTable } from './sa-table.ts';
import { encodeState, type SavedEngine } from './state/record.ts';
import type { Tunnel } from './tunnel.ts';
import { type ClosedSas, TunnelChanges } from './tunnels/changes.ts';
import { DeviceTable, type TunnelDevice } from './tunnels/device-table.ts';
import { TunnelTable } from './tunnels/tunnel-table.ts';

/** The counters of datagrams that are not IKE's. */
const COUNTED_AS = { empty: 'empty', keepalive: 'keepalives', esp: 'overflow' } as const;

/** The part of an engine that negotiates and keeps tunnels up. Times are milliseconds of the owner's clock. */
export class ControlPlane {
  readonly counters: ControlCounters = { keepalives: 0, empty: 0, overflow: 0, 'path-report-ignored': 0 };
  readonly ike: IkeEndpoint;
  readonly #tunnels = new TunnelTable();
  readonly #devices: DeviceTable;
  readonly #sas: SaTable;
  readonly #changes: TunnelChanges;
  readonly #keeper: ConnectionKeeper;
  /** Carries the packets. */
  readonly #plane: DataPlane;
  // BOUNDED: drained by the owner after every call.
  readonly #events: EngineEvent[] = [];
  /** The time of the call that is being served. */
  #now = 0;

  /** @internal */
  constructor(options: ControlPlaneOptions) {
    this.ike = new IkeEndpoint({ ...options, lastUsed: (childId) => this.#sas.lastUsed(childId) });
    const fragmentSeed = readU32(options.random(4), 0);
    this.#plane = options.plane(fragmentSeed);
    const memory = options.counterMemory ?? ((bytes) => new ArrayBuffer(bytes));
    this.#keeper = new ConnectionKeeper({
      ike: this.ike,
      plane: this.#plane,
      localAddressFor: options.localAddressFor ?? (() => undefined),
      report: (event) => this.#events.push(event),
    });
    this.#devices = new DeviceTable(this.#plane, memory, fragmentSeed);
    const { resumable = false } = options;
    this.#sas = new SaTable(this.#plane, memory, this.#devices, { keepsKeys: resumable });
    this.#changes = new TunnelChanges({
      ...{ ike: this.ike, plane: this.#plane, tunnels: this.#tunnels, devices: this.#devices, sas: this.#sas, memory },
      random: () => readU32(options.random(4), 0) / 2 ** 32,
    });
  }

  /** @throws RangeError, with nothing changed, when a name is taken or the configuration cannot be worked with */
  addTunnel(config: TunnelConfig): void {
    this.#changes.add(config);
  }

  /**
   * Gives a tunnel another configuration, as `TunnelChanges.change`, and pursues it as when it is started.
   * @param closed SAs that do not fit it; others stay as they are until they are rekeyed. @throws RangeError with nothing changed
   */
  changeTunnel(now: number, config: TunnelConfig, closed: ClosedSas): void {
    const tunnel = this.tunnelNamed(config.name);
    this.#changes.change(tunnel, config, () => {
      if (closed === 'all') this.down(now, config.name);
      else this.act(now, () => closeChildren(this.ike, now, tunnel, closed));
    });
    this.up(now, config.name);
  }

  /** Deletes the tunnel's SAs, telling the peer, and forgets it. Drain `pollTransmit` afterwards. */
  removeTunnel(now: number, name: string): void {
    const tunnel = this.tunnelNamed(name);
    this.down(now, name);
    this.act(now, () => {
      for (const connection of tunnel.config.connections) this.ike.removeConnection(now, connection.name);
    });
    this.#changes.remove(tunnel);
  }

  /** Wants the tunnel up: negotiates it at once, for the first packet, or when the peer asks, as configured. */
  up(now: number, name: string): void {
    this.act(now, () => this.#keeper.start(now, this.tunnelNamed(name)));
  }

  /** Negotiates what the tunnel lacks, now and again until it is up, whatever its `start` says. */
  bringUp(now: number, name: string): void {
    this.act(now, () => this.#keeper.bringUp(now, this.tunnelNamed(name)));
  }

  /** The machine slept, or the network was away: does what is due, and asks all peers whether they are alive. */
  probe(now: number): void {
    for (const { retry } of this.#tunnels.values()) if (retry.at !== undefined) retry.planNow(now);
    this.handleTimeout(now);
    this.act(now, () => this.ike.probe(now));
  }

  /** The route to the peer of an IKE SA changed, or came back: asks the peer whether it is alive. */
  probeIkeSa(now: number, ikeSaId: number): void {
    this.act(now, () => this.ike.probeIkeSa(now, ikeSaId));
  }

  /** Carries out what an operator asks of the SAs of a tunnel: one of `sa-operations.ts`. @internal */
  operate<T>(now: number, name: string, operation: (ike: IkeEndpoint, now: number, tunnel: Tunnel) => T): T {
    return this.act(now, () => operation(this.ike, now, this.tunnelNamed(name)));
  }

  /** The local address of an IKE SA is gone: ends the SA, and negotiates a new one where this end initiates. */
  pathLost(now: number, ikeSaId: number, detail: string): void {
    this.act(now, () => this.ike.abandonIkeSa(now, ikeSaId, detail));
    this.handleTimeout(now);
  }

  /** Makes a planned attempt at once: it now has a better chance than before. */
  retryNow(now: number, name: string): void {
    const { retry } = this.tunnelNamed(name);
    if (retry.at === undefined) return;
    retry.planNow(now);
    this.handleTimeout(now);
  }

  /** Closes the tunnel's SAs and starts no new ones. */
  down(now: number, name: string): void {
    const tunnel = this.tunnelNamed(name);
    this.act(now, () => {
      this.#keeper.stop(tunnel);
      for (const connection of tunnel.config.connections) this.ike.closeConnection(now, connection.name);
    });
  }

  /** Takes a UDP datagram; ESP is the data plane's, and only counted here. Returns false: nothing waits for `flush`. */
  receive(now: number, path: Path, data: Uint8Array): boolean {
    const kind = classify(path.local.port, data);
    if (kind === 'ike') this.act(now, () => this.ike.handleDatagram(now, path, stripMarker(path.local.port, data)));
    else this.counters[COUNTED_AS[kind]]++;
    return false;
  }

  /** Takes a report of a data plane that works in another thread. @internal */
  onReport(now: number, report: PlaneReport): void {
    this.act(now, () => this.applyReport(report));
  }

  /**
   * The path takes IP packets of up to `mtu` bytes in one piece. From now on packets that would be larger once they are
   * sealed, and that must not be fragmented, are dropped and their senders told the size that fits. To be called when a
   * CHILD SA comes up or its path changes, and when the system reports another size.
   */
  setPathMtu(path: Path, mtu: number): void {
    this.#sas.setPathMtu(path, mtu);
  }

  /** Judges a router's report about a packet of ours. Returns the path and its size when it is credible; else counts it. */
  judgePathReport(report: PathReport): BelievedReport | undefined {
    const believed = this.#sas.judge(report);
    if (believed === undefined) this.counters['path-report-ignored']++;
    return believed;
  }

  /** When `handleTimeout` is to be called next; `undefined` while nothing is due. */
  nextTimeout(): number | undefined {
    const never = Number.POSITIVE_INFINITY;
    const plane = this.#plane.nextDeadline?.() ?? never;
    const retry = this.#tunnels.nextRetry() ?? never;
    const turn = this.#keeper.nextDeadline() ?? never;
    const next = Math.min(this.ike.nextTimeout() ?? never, this.#sas.nextDeadline(), plane, retry, turn);
    return next === never ? undefined : next;
  }

  /** Does what is due: retransmissions, rekeying, expiry, retries. May be called early. */
  handleTimeout(now: number): void {
    this.act(now, () => {
      this.ike.handleTimeout(now);
      this.#sas.expire(now);
      this.#plane.expire?.(now);
    });
    this.act(now, () => {
      for (const tunnel of this.#tunnels.takeRetries(now)) this.#keeper.retryIfDue(now, tunnel);
    });
  }

  /** The next IKE message or NAT keepalive to be sent. */
  pollTransmit(): Transmit | undefined {
    const message = this.ike.pollTransmit();
    if (message === undefined) return undefined;
    const { path, data } = message;
    return { path, data: message.keepalive ? data : addMarker(path.local.port, data), trafficClass: 0 };
  }

  /** Takes the next event; `undefined` when there is none. To be drained after each call. */
  pollEvent(): EngineEvent | undefined {
    return this.#events.shift();
  }

  /** Answers a `need-secret` event; `undefined` when there is none. The bytes are copied. */
  answerSecret(now: number, requestId: number, secret: Uint8Array | undefined): void {
    this.act(now, () => this.ike.answerSecret(now, requestId, secret));
  }

  /** Answers a `need-signature` event. */
  answerSignature(now: number, requestId: number, answer: SignatureAnswer): void {
    this.act(now, () => this.ike.answerSignature(now, requestId, answer));
  }

  /** Answers a `need-verification` event. */
  answerVerification(now: number, requestId: number, verdict: VerificationAnswer): void {
    this.act(now, () => this.ike.answerVerification(now, requestId, verdict));
  }

  /**
   * The SAs in use as a record with which the engine of another process goes on (`docs/state.md`), for an engine that is
   * `resumable`. It contains keys: the owner seals and erases it. This engine must send nothing afterwards. @internal
   */
  saveState(now: number): Uint8Array {
    return encodeState({ at: now, ikeSas: this.ike.save(now), espSas: this.#sas.save(now) });
  }

  /** Goes on with saved SAs, once their tunnels are added and before they are wanted. Returns those it refuses. @internal */
  resumeState(now: number, { at, ikeSas, espSas }: SavedEngine): RestoreRefusal[] {
    return this.#sas.resume(at, espSas, (keysOf) => this.act(now, () => this.ike.resume(now, ikeSas, { at, keysOf })));
  }

  /** The time of the call that is being served. @internal */
  protected get now(): number {
    return this.#now;
  }

  /** A tunnel of the device that the data plane knows by this number. @internal */
  protected tunnelOfDevice(index: number): string | undefined {
    return this.#devices.anyOf(index)?.config.name;
  }

  /** The device of a tunnel. @internal */
  deviceOf(tunnel: Tunnel): TunnelDevice {
    return this.#devices.of(tunnel);
  }

  /** What is known of a tunnel. @internal */
  tunnel(name: string): Tunnel | undefined {
    return this.#tunnels.get(name);
  }

  /** ESP packets that were dropped on the way in, of all tunnels and of none, by reason. */
  inboundDrops(): Record<string, number> {
    return namedDrops(this.#plane.inboundDrops);
  }

  /** ESP packets that were dropped on the way in and belong to no tunnel, by reason. Those of tunnels are theirs. */
  strayDrops(): Record<string, number> {
    return namedDrops(this.#tunnels.strayDrops(this.#plane.inboundDrops));
  }

  /** Runs a call of the owner: what it makes IKE do is followed. @internal */
  protected act<T>(now: number, action: () => T): T {
    this.#now = now;
    const result = action();
    do this.#applyIkeEvents(now);
    while (this.#keeper.takeTurn(now, (connection) => this.#tunnels.of(connection)));
    return result;
  }

  /** Whether an attempt of the tunnel waits until others are over. @internal */
  awaitsTurn(tunnel: Tunnel): boolean {
    return this.#keeper.awaitsTurn(tunnel);
  }

  /** @throws RangeError when there is no such tunnel @internal */
  protected tunnelNamed(name: string): Tunnel {
    const tunnel = this.#tunnels.get(name);
    if (tunnel === undefined) throw new RangeError(`there is no tunnel named ${name}`);
    return tunnel;
  }

  /** Follows what the data plane reports, in the call that is being served. @internal */
  protected applyReport(report: PlaneReport): void {
    const now = this.#now;
    switch (report.type) {
      case 'missing': {
        const tunnel = this.#tunnels.at(report.tunnel);
        const plan = tunnel?.plan(report.child);
        if (tunnel !== undefined && plan !== undefined) this.#keeper.packetMissesSa(now, tunnel, plan, report);
        return;
      }
      case 'limit': {
        const { spiIn } = this.#sas.get(report.id)?.summary ?? {};
        if (spiIn === undefined) return;
        if (report.kind === 'soft') this.ike.childSoftExpired(now, spiIn);
        else this.ike.childHardExpired(now, spiIn);
        return;
      }
      case 'received': {
        const child = this.#sas.get(report.id);
        if (child === undefined) return;
        child.receivesBare = report.bare;
        this.ike.childReceived(now, child.summary.spiIn, report.path);
        return;
      }
      default:
        assertNever(report, 'report of the data plane');
    }
  }

  #applyIkeEvents(now: number): void {
    for (let event = this.ike.pollEvent(); event !== undefined; event = this.ike.pollEvent()) {
      const tunnel = this.#tunnels.ofEvent(event, this.#sas);
      const report = this.#apply(now, event, tunnel) ? engineEvent(event, tunnel?.config.name) : undefined;
      if (report !== undefined) this.#events.push(report);
    }
  }

  /** Applies an event of IKE. Returns whether the owner gets it too. */
  #apply(now: number, event: IkeEvent, tunnel: Tunnel | undefined): boolean {
    switch (event.type) {
      case 'child-up':
        return tunnel !== undefined && this.#childUp(now, tunnel, event.child, event.sendNow);
      case 'child-offered':
        this.#plane.commandReceiver({ type: 'expect', spi: event.spiIn, until: now + EARLY_WAIT });
        return false;
      case 'child-send':
        this.#sas.activate(event.childId, { afterIke: false });
        return false;
      case 'child-down': {
        const child = this.#sas.get(event.childId);
        // One that could not be installed was never up for the owner.
        if (child === undefined) return false;
        this.#sas.close(now, child, event);
        if (tunnel !== undefined) this.#keeper.childWentDown(now, tunnel, event.reason, child.summary);
        return true;
      }
      case 'ike-up':
        this.#keeper.settled(event.ikeSa.connection);
        if (event.replaces !== undefined) this.#sas.adopt(event.replaces, event.ikeSa.id);
        return true;
      case 'ike-down':
        if (event.connection !== undefined) this.#keeper.settled(event.connection);
        if (tunnel !== undefined) this.#keeper.wentDown(now, tunnel, event.reason);
        return true;
      case 'path-changed':
        this.#sas.move(event.ikeSaId, event.path);
        return true;
      case 'failed':
        // A failed attempt of the peer says nothing about our own.
        if (event.initiator && event.connection !== undefined) this.#keeper.settled(event.connection);
        if (tunnel !== undefined && event.initiator) this.#keeper.failed(now, tunnel, event);
        return true;
      case 'alive':
      case 'declined':
      case 'need-secret':
      case 'need-signature':
      case 'need-verification':
      case 'note':
        return true;
      default:
        return assertNever(event, 'engine event');
    }
  }

  #childUp(now: number, tunnel: Tunnel, sa: ChildSa, sendNow: boolean): boolean {
    const child = this.#sas.install(now, tunnel, sa);
    if (child === undefined) {
      this.ike.closeChild(now, sa.id);
      this.#note(tunnel, `CHILD SA ${sa.config.name} is closed: its traffic has the most SAs that are allowed`);
      this.#keeper.wentDown(now, tunnel, 'failed');
      return false;
    }
    this.#keeper.cameUp(tunnel);
    const narrowing = tunnel.narrowingNote(child);
    if (narrowing !== undefined) this.#note(tunnel, narrowing);
    // A peer that asked for its first SA has it when it has read our answer; one that is replaced must not be missed.
    if (sendNow) this.#sas.activate(sa.id, { afterIke: sa.replaces === undefined });
    return true;
  }

  #note({ config: { name } }: Tunnel, text: string): void {
    this.#events.push({ type: 'note', tunnel: name, level: 'warn', text });
  }
}
