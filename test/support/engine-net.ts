/**
 * Engines over a simulated network with a virtual clock that jumps to the next thing that happens: what the host loop
 * does, without an event loop. All randomness comes from one seed, so that every run can be repeated.
 */
import { makeUdpPacket, readUdpPacket } from '../../examples/packet.ts';
import { formatAddress } from '../../src/base/address.ts';
import { PacketBatch } from '../../src/base/batch.ts';
import { utf8 } from '../../src/base/text.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import { Engine } from '../../src/engine/engine.ts';
import type { EngineEvent } from '../../src/engine/events.ts';
import type { EngineOptions } from '../../src/engine/options.ts';
import type { EngineChild, Tunnel } from '../../src/engine/tunnel.ts';
import { namedDrops } from '../../src/esp/drops.ts';
import type { EspInboundSa } from '../../src/esp/inbound-sa.ts';
import type { EspOutboundSa } from '../../src/esp/outbound-sa.ts';
import type { Path } from '../../src/ike/events.ts';
import type { PolicyEntry } from '../../src/policy/database.ts';
import { connection, mirrored, net, type Pki, Random } from './ike-pair.ts';

type Question = Extract<EngineEvent, { readonly requestId: number }>;

/** An outbound entry that child `c` protects. */
export function protect(change: Partial<PolicyEntry> = {}): PolicyEntry {
  return {
    name: 'lan',
    direction: 'out',
    action: 'protect',
    priority: 0,
    selectors: { local: [net('10.1.0.0/24')], remote: [net('10.2.0.0/24')] },
    child: 'c',
    level: 'require',
    ...change,
  };
}

/** A tunnel `t` between 192.0.2.1 and 192.0.2.2 for 10.1.0.0/24 and 10.2.0.0/24. */
export function tunnel(change: Partial<TunnelConfig> = {}): TunnelConfig {
  return {
    name: 't',
    connections: [connection()],
    policy: [protect()],
    start: 'trap',
    dpdAction: 'trap',
    replayWindow: 1024,
    ...change,
  };
}

/** The same tunnel as the other end has it, which waits to be called. */
export function opposite(config: TunnelConfig, change: Partial<TunnelConfig> = {}): TunnelConfig {
  return {
    ...config,
    connections: config.connections.map(mirrored),
    policy: config.policy.map((entry) => ({
      ...entry,
      selectors: { local: entry.selectors.remote, remote: entry.selectors.local },
    })),
    start: 'respond',
    dpdAction: 'clear',
    ...change,
  };
}

/** A packet that says who sent it to whom, and carries a text. */
export function packet(source: string, destination: string, text: string, destinationPort = 2000): Uint8Array {
  return new Uint8Array(makeUdpPacket({ source, sourcePort: 1000, destination, destinationPort, text }));
}

export interface Datagram {
  readonly from: Peer;
  /** As the sender sees it; a filter may rewrite it. */
  path: Path;
  data: Uint8Array;
  /** DSCP and ECN of its IP header. */
  trafficClass: number;
}

export class Peer {
  readonly name: string;
  readonly address: string;
  engine: Engine;
  readonly events: EngineEvent[] = [];
  /** Texts of the packets that came out, by tunnel. */
  readonly delivered: Map<string, string[]> = new Map();
  /** The last packet that came out of a tunnel. */
  lastPacket: Uint8Array | undefined;
  /** Calls of `handleTimeout`. */
  wakeUps = 0;
  secret: string | undefined = 'a secret';
  /** Of tunnels that have one of their own, by name. */
  readonly secrets: Map<string, string> = new Map();
  holdSecrets = false;
  /** Signs and judges; left out, such questions are kept for the test to answer. */
  pki: Pki | undefined;
  /** It does nothing, and what comes for it is lost. */
  isAsleep = false;

  readonly #options: EngineOptions;

  constructor(name: string, address: string, options: EngineOptions) {
    this.name = name;
    this.address = address;
    this.#options = options;
    this.engine = new Engine(options);
  }

  /** Loses everything, as a host does that is switched off and on. */
  restart(): void {
    this.engine = new Engine(this.#options);
  }

  of<T extends EngineEvent['type']>(type: T): Extract<EngineEvent, { readonly type: T }>[] {
    return this.events.filter((event): event is Extract<EngineEvent, { readonly type: T }> => event.type === type);
  }

  tunnel(name = 't'): Tunnel {
    const found = this.engine.tunnel(name);
    if (found === undefined) throw new Error(`${this.name} has no tunnel ${name}`);
    return found;
  }

  /** The only CHILD SA of a tunnel. */
  child(name = 't'): EngineChild {
    const children = [...this.tunnel(name).children.values()];
    if (children.length !== 1) throw new Error(`tunnel ${name} of ${this.name} has ${children.length} SAs`);
    return children[0]!;
  }

  /** Both halves of the only CHILD SA of a tunnel, which stay what they are when it goes. */
  halves(name = 't'): { readonly inbound: EspInboundSa; readonly outbound: EspOutboundSa } {
    const { id } = this.child(name).summary;
    const { sending, receiving } = this.engine.planes;
    return { inbound: receiving.sa(id)!, outbound: sending.sa(id)! };
  }

  texts(name = 't'): string[] {
    return this.delivered.get(name) ?? [];
  }

  drops(name = 't'): Record<string, number> {
    return namedDrops(this.tunnel(name).drops());
  }
}

export class Net {
  now = 1_000;
  readonly random: Random;
  readonly peers: Peer[] = [];
  /** One-way delay in ms; may draw from `random`. */
  delay: () => number = () => 10;
  /** Whether a datagram arrives; may rewrite it. */
  filter: (datagram: Datagram) => boolean = () => true;
  readonly sent: Datagram[] = [];
  #flying: { readonly at: number; readonly order: number; readonly datagram: Datagram }[] = [];
  #order = 0;

  constructor(seed = 1) {
    this.random = new Random(seed);
  }

  peer(name: string, address: string, options: Partial<EngineOptions> = {}): Peer {
    const peer = new Peer(name, address, { crypto: nodeProvider, random: this.random.bytes, ...options });
    this.peers.push(peer);
    return peer;
  }

  /** Adds a tunnel and wants it. */
  add(peer: Peer, config: TunnelConfig): void {
    peer.engine.addTunnel(config);
    this.act(peer, (engine, now) => engine.up(now, config.name));
  }

  act(peer: Peer, action: (engine: Engine, now: number) => void): void {
    action(peer.engine, this.now);
    this.drain(peer);
  }

  /** Gives packets to a tunnel in one batch. */
  send(peer: Peer, packets: readonly Uint8Array[], name = 't'): void {
    const batch = new PacketBatch(Math.max(1, packets.length), 2_000);
    for (const data of packets) if (batch.push(data) < 0) throw new Error('the packet does not fit');
    peer.engine.send(this.now, name, batch);
    for (let slot = 0; slot < batch.count; slot++) {
      if (batch.length[slot] === 0) continue;
      const path = peer.engine.path(batch.tag[slot]!);
      if (path === undefined) throw new Error('a sealed packet without a path');
      this.#transmit(peer, path, batch.packet(slot), batch.trafficClass[slot]!);
    }
    this.drain(peer);
  }

  drain(peer: Peer): void {
    const { engine } = peer;
    for (let out = engine.pollTransmit(); out !== undefined; out = engine.pollTransmit()) {
      this.#transmit(peer, out.path, out.data, out.trafficClass);
    }
    for (let event = engine.pollEvent(); event !== undefined; event = engine.pollEvent()) {
      peer.events.push(event);
      if (!('requestId' in event)) continue;
      this.#answer(peer, event);
      this.drain(peer);
    }
  }

  #answer({ engine, pki, holdSecrets, secrets, secret }: Peer, event: Question): void {
    const { requestId } = event;
    if (event.type === 'need-secret') {
      const value = secrets.get(event.tunnel) ?? secret;
      if (!holdSecrets) engine.answerSecret(this.now, requestId, value === undefined ? undefined : utf8(value));
    } else if (pki !== undefined) {
      if (event.type === 'need-signature') engine.answerSignature(this.now, requestId, pki.sign(event));
      else engine.answerVerification(this.now, requestId, pki.verify(event));
    }
  }

  #transmit(from: Peer, path: Path, data: Uint8Array, trafficClass: number): void {
    const datagram = { from, path, data: data.slice(), trafficClass };
    this.sent.push(datagram);
    if (this.filter(datagram)) this.fly(datagram);
  }

  fly(datagram: Datagram): void {
    this.#flying.push({ at: this.now + this.delay(), order: this.#order++, datagram });
  }

  /** Hands datagrams to a peer as a socket would: all that wait, then a flush. */
  deliver(peer: Peer, datagrams: readonly (Pick<Datagram, 'path' | 'data'> & Partial<Datagram>)[]): void {
    for (const { path, data, trafficClass } of datagrams) {
      const seen: Path = { local: path.remote, remote: path.local };
      if (peer.engine.receive(this.now, seen, data.slice(), trafficClass)) this.flush(peer);
    }
    this.flush(peer);
    this.drain(peer);
  }

  flush(peer: Peer): void {
    peer.engine.flush(this.now, (name, batch) => {
      const texts = peer.delivered.get(name) ?? [];
      peer.delivered.set(name, texts);
      for (let slot = 0; slot < batch.count; slot++) {
        if (batch.length[slot] === 0) continue;
        const data = batch.packet(slot).slice();
        texts.push(readUdpPacket(data).text);
        peer.lastPacket = data;
      }
    });
  }

  /** When something happens next; `undefined` for never. */
  next(): number | undefined {
    const awake = this.peers.filter(({ isAsleep }) => !isAsleep);
    const times = [...awake.map((peer) => peer.engine.nextTimeout()), ...this.#flying.map(({ at }) => at)];
    const due = times.filter((time) => time !== undefined);
    return due.length === 0 ? undefined : Math.max(this.now, Math.min(...due));
  }

  runUntil(until: number): void {
    for (let steps = 0; ; steps++) {
      if (steps > 100_000) throw new Error(`no end at ${this.now}`);
      const next = this.next();
      if (next === undefined || next > until) break;
      this.now = next;
      this.#step();
    }
    this.now = Math.max(this.now, until);
  }

  /** Lets `duration` ms pass; long enough for the exchanges that are under way to end. */
  run(duration = 500): void {
    this.runUntil(this.now + duration);
  }

  #step(): void {
    const due = this.#flying.filter(({ at }) => at <= this.now).sort((x, y) => x.at - y.at || x.order - y.order);
    this.#flying = this.#flying.filter(({ at }) => at > this.now);
    for (const peer of this.peers) {
      if (peer.isAsleep) continue;
      const mine = due.map(({ datagram }) => datagram).filter(({ path }) => this.#listens(peer, path));
      if (mine.length > 0) this.deliver(peer, mine);
      const at = peer.engine.nextTimeout();
      if (at === undefined || at > this.now) continue;
      peer.wakeUps++;
      peer.engine.handleTimeout(this.now);
      this.drain(peer);
      const next = peer.engine.nextTimeout();
      if (next !== undefined && next <= this.now) throw new Error(`${peer.name} is called again at ${next}`);
    }
  }

  #listens({ address }: Peer, { remote }: Path): boolean {
    return formatAddress(remote.address) === address;
  }
}

/** Two peers, `a` at 192.0.2.1 and `b` at 192.0.2.2, with a tunnel between them. */
export interface EnginePair {
  readonly net: Net;
  readonly a: Peer;
  readonly b: Peer;
}

export interface PairOptions {
  readonly seed?: number;
  readonly a?: TunnelConfig;
  readonly b?: TunnelConfig;
  readonly options?: Partial<EngineOptions>;
}

export function enginePair({ seed, a: config = tunnel(), b: other, options }: PairOptions = {}): EnginePair {
  const network = new Net(seed);
  const a = network.peer('a', '192.0.2.1', options);
  const b = network.peer('b', '192.0.2.2', options);
  network.add(b, other ?? opposite(config));
  network.add(a, config);
  return { net: network, a, b };
}
