/**
 * The whole of an IPsec implementation as one pure machine (RFC 4301): IKE negotiates, the policy decides, ESP carries.
 *
 * Bytes and the time go in; bytes to send, packets for the devices, events and the next wake-up come out. A poll loop:
 *
 * 1. Give it what arrived: `receive` for each UDP datagram, `send` for packets read from a device, `handleTimeout`
 *    when `nextTimeout` has come.
 * 2. After a round of `receive`, `flush` opens the ESP packets that were gathered and hands them to the devices.
 * 3. Drain `pollTransmit` and `pollEvent` until both return `undefined`; answer `need-secret` events.
 * 4. Sleep until `nextTimeout` or the next arrival.
 */
import { formatAddress, type IpAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import { PacketBatch } from '../base/batch.ts';
import type { CryptoProvider, RandomSource } from '../crypto/types.ts';
import { namedDrops } from '../esp/drops.ts';
import type { ConnectionConfig, EndpointLimits, RetransmitPolicy } from '../ike/config.ts';
import { IkeEndpoint } from '../ike/endpoint.ts';
import type { ChildSa, DownReason, IkeEvent, Path } from '../ike/events.ts';
import type { TunnelConfig } from './config.ts';
import { addMarker, classify, stripMarker } from './demux.ts';
import { type EngineEvent, engineEvent } from './events.ts';
import { type SaObserver, SaTable } from './sa-table.ts';
import { type ChildPlan, Tunnel } from './tunnel.ts';

/** ESP packets that are gathered before they must be flushed, and the largest that fits. */
const SLOTS = 64;
const MAX_PACKET = 16 * 1024;

export interface EngineOptions {
  readonly crypto: CryptoProvider;
  readonly random: RandomSource;
  readonly limits?: Partial<EndpointLimits>;
  readonly retransmit?: Partial<RetransmitPolicy>;
  /** The local address from which packets to `remote` leave; asked when a connection names none. */
  readonly localAddressFor?: (remote: IpAddress) => IpAddress | undefined;
}

/** A UDP payload to send. */
export interface Transmit {
  readonly path: Path;
  readonly data: Uint8Array;
}

/** Datagrams that reached neither IKE nor ESP. */
export interface EngineCounters {
  keepalives: number;
  empty: number;
  oversized: number;
}

export class Engine {
  readonly counters: EngineCounters = { keepalives: 0, empty: 0, oversized: 0 };
  readonly ike: IkeEndpoint;
  readonly #localAddressFor: NonNullable<EngineOptions['localAddressFor']>;
  // BOUNDED: the owner's configuration, all three.
  readonly #tunnels = new Map<string, Tunnel>();
  readonly #byIndex: (Tunnel | undefined)[] = [];
  readonly #byConnection = new Map<string, Tunnel>();
  readonly #sas: SaTable;
  readonly #gathered = new PacketBatch(SLOTS, MAX_PACKET);
  readonly #gatheredPaths: Path[] = [];
  readonly #released = new PacketBatch(SLOTS, MAX_PACKET);
  // BOUNDED: drained by the owner after every call, both.
  readonly #events: EngineEvent[] = [];
  readonly #transmits: Transmit[] = [];
  readonly #observer: SaObserver;
  /** The time of the call that is being served. */
  #now = 0;

  constructor(options: EngineOptions) {
    this.#localAddressFor = options.localAddressFor ?? (() => undefined);
    this.ike = new IkeEndpoint(options);
    this.#sas = new SaTable(options.crypto);
    this.#observer = {
      received: (child, path) => this.ike.childReceived(this.#now, child.summary.spiIn, path),
      limitReached: (child, kind) => {
        if (kind === 'soft') this.ike.childSoftExpired(this.#now, child.summary.spiIn);
        else this.ike.childHardExpired(this.#now, child.summary.spiIn);
      },
    };
  }

  /** @throws RangeError when a name is taken or a policy entry names no child */
  addTunnel(config: TunnelConfig): void {
    if (this.#tunnels.has(config.name)) throw new RangeError(`there is a tunnel named ${config.name} already`);
    for (const { name } of config.connections) {
      if (this.#byConnection.has(name)) throw new RangeError(`there is a connection named ${name} already`);
    }
    const free = this.#byIndex.indexOf(undefined);
    const index = free < 0 ? this.#byIndex.length : free;
    const tunnel = new Tunnel(index, config, (missing, plan, batch, slot) => {
      this.#packetMissesSa(missing, plan, batch.packet(slot));
    });
    this.#byIndex[index] = tunnel;
    this.#tunnels.set(config.name, tunnel);
    for (const connection of config.connections) {
      this.#byConnection.set(connection.name, tunnel);
      this.ike.addConnection(connection);
    }
  }

  /** Deletes the tunnel's SAs, telling the peer, and forgets it. Drain `pollTransmit` afterwards. */
  removeTunnel(now: number, name: string): void {
    const tunnel = this.#tunnel(name);
    this.down(now, name);
    for (const connection of tunnel.config.connections) this.ike.removeConnection(now, connection.name);
    this.#drainIke(now);
    for (const child of [...tunnel.children.values()]) this.#sas.remove(child);
    for (const connection of tunnel.config.connections) this.#byConnection.delete(connection.name);
    this.#byIndex[tunnel.index] = undefined;
    this.#tunnels.delete(name);
  }

  /** The tunnel is wanted: negotiated at once, for the first packet, or when the peer asks, as configured. */
  up(now: number, name: string): void {
    const tunnel = this.#tunnel(name);
    tunnel.wanted = true;
    tunnel.retry.reset();
    if (tunnel.config.start === 'initiate') this.#initiateMissing(now, tunnel);
  }

  /** Closes the tunnel's SAs and starts no new ones. */
  down(now: number, name: string): void {
    const tunnel = this.#tunnel(name);
    tunnel.wanted = false;
    tunnel.retry.reset();
    tunnel.hold.clear();
    for (const connection of tunnel.config.connections) this.ike.closeConnection(now, connection.name);
    this.#drainIke(now);
  }

  /** Takes a UDP datagram. IKE is served at once; ESP is gathered. Returns true when `flush` must not wait. */
  receive(now: number, path: Path, data: Uint8Array): boolean {
    switch (classify(path.local.port, data)) {
      case 'empty':
        this.counters.empty++;
        return false;
      case 'keepalive':
        this.counters.keepalives++;
        return false;
      case 'ike':
        this.ike.handleDatagram(now, path, stripMarker(path.local.port, data));
        this.#drainIke(now);
        return false;
      case 'esp':
        return this.#gather(path, data);
    }
  }

  /** Whether ESP packets wait for `flush`. */
  get hasGathered(): boolean {
    return this.#gathered.count > 0;
  }

  /**
   * Opens the ESP packets that were gathered.
   * @param deliver called once for each tunnel that packets came out for; slots with a length hold its packets
   */
  flush(now: number, deliver: (tunnel: string, batch: PacketBatch) => void): void {
    const batch = this.#gathered;
    if (batch.count === 0) return;
    this.#now = now;
    this.#sas.open(now, batch, this.#gatheredPaths, this.#observer);
    forEachTag(batch, (tag) => {
      const tunnel = this.#byIndex[tag];
      if (tunnel !== undefined) deliver(tunnel.config.name, batch);
    });
    batch.clear();
    this.#drainIke(now);
  }

  /**
   * Takes a batch of packets that were read from the tunnel's device through its policy. Slots that hold a length
   * afterwards are ESP packets to be sent to `path(batch.tag[slot])`.
   */
  send(now: number, name: string, batch: PacketBatch): void {
    this.#now = now;
    const { outbound } = this.#tunnel(name);
    outbound.process(now, batch);
    for (let slot = 0; slot < batch.count; slot++) {
      // A tunnel's device has no way to send in the clear: what a policy lets bypass must not be routed to it.
      if (batch.tag[slot]! < 0) batch.length[slot] = 0;
    }
    for (const { sa, kind } of outbound.takeSignals()) {
      const child = this.#sas.get(sa.id);
      if (child !== undefined) this.#observer.limitReached(child, kind);
    }
    this.#drainIke(now);
  }

  /** Where packets with this tag go; `undefined` when their SA is gone. */
  path(tag: number): Path | undefined {
    return this.#sas.path(tag);
  }

  nextTimeout(): number | undefined {
    let next = this.ike.nextTimeout();
    for (const tunnel of this.#tunnels.values()) {
      for (const at of [tunnel.retry.at, tunnel.hold.next()]) {
        if (at !== undefined && (next === undefined || at < next)) next = at;
      }
    }
    return next;
  }

  handleTimeout(now: number): void {
    this.#now = now;
    this.ike.handleTimeout(now);
    this.#drainIke(now);
    for (const tunnel of this.#tunnels.values()) {
      tunnel.hold.expire(now);
      if (tunnel.retry.take(now)) this.#initiateMissing(now, tunnel);
    }
  }

  pollTransmit(): Transmit | undefined {
    const released = this.#transmits.shift();
    if (released !== undefined) return released;
    const message = this.ike.pollTransmit();
    if (message === undefined) return undefined;
    const { path, data } = message;
    return { path, data: message.keepalive ? data : addMarker(path.local.port, data) };
  }

  pollEvent(): EngineEvent | undefined {
    return this.#events.shift();
  }

  /** Answers a `need-secret` event; `undefined` when there is none. The bytes are copied. */
  answerSecret(now: number, requestId: number, secret: Uint8Array | undefined): void {
    this.ike.answerSecret(now, requestId, secret);
    this.#drainIke(now);
  }

  tunnel(name: string): Tunnel | undefined {
    return this.#tunnels.get(name);
  }

  /** ESP packets that were dropped on the way in, of all tunnels and of none, by reason. */
  inboundDrops(): Record<string, number> {
    return namedDrops(this.#sas.inbound.drops);
  }

  #tunnel(name: string): Tunnel {
    const tunnel = this.#tunnels.get(name);
    if (tunnel === undefined) throw new RangeError(`there is no tunnel named ${name}`);
    return tunnel;
  }

  #gather(path: Path, data: Uint8Array): boolean {
    const slot = this.#gathered.push(data);
    if (slot < 0) {
      this.counters.oversized++;
      return false;
    }
    this.#gatheredPaths[slot] = path;
    return this.#gathered.count === this.#gathered.capacity;
  }

  /** An outbound packet needs an SA that is not there: it waits, and the negotiation begins (RFC 4301 §4.4.1). */
  #packetMissesSa(tunnel: Tunnel, plan: ChildPlan, packet: Uint8Array): void {
    if (!tunnel.wanted || tunnel.config.start === 'respond') return;
    tunnel.hold.add(this.#now, packet);
    if (tunnel.config.start === 'trap' && tunnel.retry.at === undefined)
      this.#initiate(this.#now, tunnel, plan.connection, plan.child.name);
  }

  #initiateMissing(now: number, tunnel: Tunnel): void {
    if (!tunnel.wanted) return;
    const connections = new Set(tunnel.missing().map(({ connection }) => connection));
    for (const connection of connections) this.#initiate(now, tunnel, connection);
    this.#drainIke(now);
  }

  /** One child, or all that the connection lacks. IKE takes another call for what is under negotiation as the same. */
  #initiate(now: number, tunnel: Tunnel, connection: ConnectionConfig, child?: string): void {
    const address = connection.remote.address;
    if (address === undefined) return;
    const source = connection.local.address ?? this.#localAddressFor(address);
    if (source === undefined) {
      this.#events.push({
        type: 'failed',
        tunnel: tunnel.config.name,
        child,
        reason: 'no-route',
        detail: `this host has no route to ${formatAddress(address)}`,
        remote: { address, port: connection.remote.port },
      });
      tunnel.retry.plan(now);
      return;
    }
    const local = { address: source, port: connection.local.port };
    this.ike.initiate(now, connection.name, { child, local });
  }

  #drainIke(now: number): void {
    for (let event = this.ike.pollEvent(); event !== undefined; event = this.ike.pollEvent()) {
      const tunnel = this.#tunnelOf(event);
      const report = this.#apply(now, event, tunnel) ? engineEvent(event, tunnel?.config.name) : undefined;
      if (report !== undefined) this.#events.push(report);
    }
  }

  #tunnelOf(event: IkeEvent): Tunnel | undefined {
    switch (event.type) {
      case 'child-up':
        return this.#byConnection.get(event.child.connection);
      case 'ike-up':
        return this.#byConnection.get(event.ikeSa.connection);
      case 'child-send':
        return this.#sas.get(event.childId)?.tunnel;
      case 'path-changed':
        return this.#sas.ofIkeSa(event.ikeSaId)?.tunnel;
      default:
        return event.connection === undefined ? undefined : this.#byConnection.get(event.connection);
    }
  }

  /** Follows what IKE did. Returns whether the owner is told. */
  #apply(now: number, event: IkeEvent, tunnel: Tunnel | undefined): boolean {
    switch (event.type) {
      case 'child-up':
        return tunnel !== undefined && this.#childUp(now, tunnel, event.child, event.sendNow);
      case 'child-send':
        this.#sas.activate(event.childId);
        if (tunnel !== undefined) this.#release(now, tunnel);
        return false;
      case 'child-down': {
        const child = this.#sas.get(event.childId);
        if (child !== undefined) this.#sas.remove(child);
        if (tunnel !== undefined) this.#pursue(now, tunnel, event.reason);
        return true;
      }
      case 'ike-up':
        if (event.replaces !== undefined) this.#sas.adopt(event.replaces, event.ikeSa.id);
        return true;
      case 'ike-down':
        if (tunnel !== undefined) this.#pursue(now, tunnel, event.reason);
        return true;
      case 'path-changed':
        this.#sas.move(event.ikeSaId, event.path);
        return true;
      case 'failed':
        if (tunnel !== undefined) this.#pursue(now, tunnel, 'failed');
        return true;
      case 'need-secret':
      case 'note':
        return true;
      default:
        return assertNever(event, 'engine event');
    }
  }

  #childUp(now: number, tunnel: Tunnel, sa: ChildSa, sendNow: boolean): boolean {
    const child = this.#sas.install(now, tunnel, sa, sendNow);
    if (child === undefined) {
      this.ike.closeChild(now, sa.id);
      return false;
    }
    if (tunnel.missing().length === 0) tunnel.retry.reset();
    if (sendNow) this.#release(now, tunnel);
    return true;
  }

  /** Sends the packets that waited for an SA. Those that still have none wait again or are dropped. */
  #release(now: number, tunnel: Tunnel): void {
    const batch = this.#released;
    // Once through: what misses its SA again goes back to the queue.
    for (let left = tunnel.hold.length; left > 0; left -= batch.count) {
      batch.clear();
      tunnel.hold.drainInto(batch, left);
      this.#now = now;
      tunnel.outbound.process(now, batch);
      for (let slot = 0; slot < batch.count; slot++) {
        const path = batch.length[slot] === 0 ? undefined : this.#sas.path(batch.tag[slot]!);
        if (path !== undefined) this.#transmits.push({ path, data: batch.packet(slot).slice() });
      }
    }
  }

  /** Something went down or did not come up: what a tunnel that is wanted does about it. */
  #pursue(now: number, tunnel: Tunnel, reason: DownReason): void {
    if (!tunnel.wanted || reason === 'rekeyed' || reason === 'redundant' || reason === 'requested') return;
    const { start, dpdAction } = tunnel.config;
    const dead = reason === 'peer-dead';
    if (dead && dpdAction === 'restart') tunnel.retry.plan(now);
    else if (start === 'initiate' && !(dead && dpdAction !== 'restart')) tunnel.retry.plan(now);
    else if (start === 'trap' && reason === 'failed') tunnel.retry.plan(now);
  }
}

/** Calls `visit` for each tag in the batch, with only the packets of that tag in it. Most batches have one tag. */
function forEachTag(batch: PacketBatch, visit: (tag: number) => void): void {
  const lengths = batch.length.slice(0, batch.count);
  const tags = new Set<number>();
  for (let slot = 0; slot < batch.count; slot++) if (lengths[slot] !== 0) tags.add(batch.tag[slot]!);
  for (const tag of tags) {
    for (let slot = 0; slot < batch.count; slot++) batch.length[slot] = batch.tag[slot] === tag ? lengths[slot]! : 0;
    visit(tag);
  }
}
