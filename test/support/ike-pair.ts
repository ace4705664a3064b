/**
 * Two IKE endpoints over a simulated network with a virtual clock that jumps to the next thing that happens. All
 * randomness comes from one seed, so that every run can be repeated.
 */
import { parseAddress, prefixRange, type SocketAddress } from '../../src/base/address.ts';
import { identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import type { RandomSource } from '../../src/crypto/types.ts';
import type { ChildConfig, ConnectionConfig } from '../../src/ike/config.ts';
import { IkeEndpoint } from '../../src/ike/endpoint.ts';
import type { ChildSa, IkeEvent, Path, SignatureAnswer, VerificationAnswer } from '../../src/ike/events.ts';
import type { IkeEndpointOptions } from '../../src/ike/options.ts';
import { makeSelector } from '../../src/policy/selector.ts';

/** A small generator (mulberry32): the same seed, the same run. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 up to, not including, 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  readonly bytes: RandomSource = (length) => Uint8Array.from({ length }, () => this.below(256));
}

export function at(address: string, port: number): SocketAddress {
  return { address: parseAddress(address)!, port };
}

export function net(cidr: string): ReturnType<typeof makeSelector> {
  const [address, length] = cidr.split('/');
  return makeSelector(prefixRange(parseAddress(address!)!, Number(length ?? 32)));
}

export function child(name: string, change: Partial<ChildConfig> = {}): ChildConfig {
  return {
    name,
    mode: 'tunnel',
    proposals: [parseEspProposalString('aes128gcm16')],
    selectors: { local: [net('10.1.0.0/24')], remote: [net('10.2.0.0/24')] },
    lifetime: { soft: 3_600_000, hard: 4_000_000, jitter: 0 },
    ...change,
  };
}

export function connection(change: Partial<ConnectionConfig> = {}): ConnectionConfig {
  return {
    name: 'net',
    local: {
      address: parseAddress('192.0.2.1')!,
      port: 500,
      natPort: 4500,
      id: identityFromText('fqdn', 'a'),
      auth: 'psk',
    },
    remote: {
      address: parseAddress('192.0.2.2')!,
      port: 500,
      natPort: 4500,
      id: identityFromText('fqdn', 'b'),
      auth: 'psk',
    },
    proposals: [parseIkeProposalString('aes128gcm16-prfsha256-x25519')],
    lifetime: { soft: 14_400_000, hard: 16_000_000, jitter: 0 },
    dpd: { interval: 0 },
    nat: { mode: 'auto', keepalive: 20_000 },
    children: [child('c')],
    ...change,
  };
}

/** The same connection as the other side has it. */
export function mirrored(config: ConnectionConfig): ConnectionConfig {
  return {
    ...config,
    local: { ...config.remote, address: config.remote.address, id: config.remote.id ?? identityFromText('fqdn', 'b') },
    remote: config.local,
    children: config.children.map((entry) => ({
      ...entry,
      selectors: { local: entry.selectors.remote, remote: entry.selectors.local },
    })),
  };
}

export interface Datagram {
  readonly from: Host;
  readonly to: Host;
  path: Path;
  data: Uint8Array;
}

/** One side, with everything it told its owner. */
export class Host {
  readonly name: string;
  endpoint: IkeEndpoint;
  readonly events: IkeEvent[] = [];
  /** CHILD SAs that are up, by id. */
  readonly children: Map<number, ChildSa> = new Map();
  readonly ikeSas: Set<number> = new Set();
  /** The CHILD SA that packets leave on, by the child's name. */
  readonly sending: Map<string, number> = new Map();
  keepalives = 0;
  secret: string | undefined = 'a secret';
  /** Keeps `need-secret` for the test to answer. */
  holdSecrets = false;
  /** Answers `need-signature` and `need-verification`; left out, they are kept for the test to answer. */
  pki: Pki | undefined;

  readonly #options: IkeEndpointOptions;

  constructor(name: string, options: IkeEndpointOptions) {
    this.name = name;
    this.#options = options;
    this.endpoint = new IkeEndpoint(options);
  }

  /** Loses everything, as a host does that is switched off and on. */
  restart(...configs: readonly ConnectionConfig[]): void {
    this.endpoint = new IkeEndpoint(this.#options);
    this.children.clear();
    this.ikeSas.clear();
    this.sending.clear();
    for (const config of configs) this.endpoint.addConnection(config);
  }

  of<T extends IkeEvent['type']>(type: T): Extract<IkeEvent, { readonly type: T }>[] {
    return this.events.filter((event): event is Extract<IkeEvent, { readonly type: T }> => event.type === type);
  }

  /** The only child that is up. */
  get child(): ChildSa {
    if (this.children.size !== 1) throw new Error(`${this.name} has ${this.children.size} children`);
    return [...this.children.values()][0]!;
  }

  get ikeSa(): ReturnType<IkeEndpoint['status']>[number] {
    const up = this.endpoint.status().filter((sa) => sa.state === 'established');
    if (up.length !== 1) throw new Error(`${this.name} has ${up.length} IKE SAs`);
    return up[0]!;
  }

  #send(childId: number): void {
    const sa = this.children.get(childId);
    if (sa === undefined) throw new Error('child-send of what is not up');
    if (this.sending.get(sa.config.name) === childId) throw new Error('child-send of what is sent on');
    this.sending.set(sa.config.name, childId);
  }

  note(now: number, event: IkeEvent): void {
    this.events.push(event);
    switch (event.type) {
      case 'ike-up':
        if (this.ikeSas.has(event.ikeSa.id)) throw new Error('ike-up twice');
        this.ikeSas.add(event.ikeSa.id);
        break;
      case 'ike-down':
        if (!this.ikeSas.delete(event.ikeSaId)) throw new Error('ike-down of what is not up');
        break;
      case 'child-up':
        if (this.children.has(event.child.id)) throw new Error('child-up twice');
        this.children.set(event.child.id, event.child);
        if (event.sendNow) this.sending.set(event.child.config.name, event.child.id);
        break;
      case 'child-send':
        this.#send(event.childId);
        break;
      case 'child-down':
        if (!this.children.delete(event.childId)) throw new Error('child-down of what is not up');
        if (this.sending.get(event.child) === event.childId) this.sending.delete(event.child);
        break;
      case 'need-secret':
        if (!this.holdSecrets) {
          this.endpoint.answerSecret(now, event.requestId, this.secret === undefined ? undefined : utf8(this.secret));
        }
        break;
      case 'need-signature':
        if (this.pki !== undefined) this.endpoint.answerSignature(now, event.requestId, this.pki.sign(event));
        break;
      case 'need-verification':
        if (this.pki !== undefined) this.endpoint.answerVerification(now, event.requestId, this.pki.verify(event));
        break;
      default:
        break;
    }
  }
}

/** Holds a key and judges others. */
export interface Pki {
  sign(question: Extract<IkeEvent, { readonly type: 'need-signature' }>): SignatureAnswer;
  verify(question: Extract<IkeEvent, { readonly type: 'need-verification' }>): VerificationAnswer;
}

export interface PairOptions {
  readonly seed?: number;
  readonly a?: ConnectionConfig | readonly ConnectionConfig[];
  readonly b?: ConnectionConfig | readonly ConnectionConfig[];
  readonly aOptions?: Partial<IkeEndpointOptions>;
  readonly bOptions?: Partial<IkeEndpointOptions>;
}

type Fate = 'deliver' | 'drop' | 'hold';

export class Pair {
  now = 1_000;
  readonly random: Random;
  readonly a: Host;
  readonly b: Host;
  /** One-way delay in ms; may draw from `random`. */
  delay: () => number = () => 10;
  /** Decides what becomes of a datagram; may rewrite it. */
  filter: (datagram: Datagram) => Fate = () => 'deliver';
  /** How often a datagram arrives. */
  copies: () => number = () => 1;
  /** Looks at both sides after each thing that happened to one. */
  watch: () => void = () => {};
  /** What `filter` held, for the test to deliver. */
  readonly held: Datagram[] = [];
  readonly sent: Datagram[] = [];
  #flying: { readonly at: number; readonly order: number; readonly datagram: Datagram }[] = [];
  #order = 0;

  constructor(options: PairOptions = {}) {
    this.random = new Random(options.seed ?? 1);
    const common = { crypto: nodeProvider, random: this.random.bytes };
    this.a = new Host('a', { ...common, ...options.aOptions });
    this.b = new Host('b', { ...common, ...options.bOptions });
    const a = [options.a ?? connection()].flat();
    for (const config of a) this.a.endpoint.addConnection(config);
    for (const config of [options.b ?? a.map(mirrored)].flat()) this.b.endpoint.addConnection(config);
  }

  peer(host: Host): Host {
    return host === this.a ? this.b : this.a;
  }

  /** Takes out what an endpoint has to send and to tell. */
  drain(host: Host): void {
    for (let event = host.endpoint.pollEvent(); event !== undefined; event = host.endpoint.pollEvent()) {
      host.note(this.now, event);
    }
    for (let out = host.endpoint.pollTransmit(); out !== undefined; out = host.endpoint.pollTransmit()) {
      if (out.keepalive) {
        host.keepalives++;
        continue;
      }
      const path: Path = { local: out.path.remote, remote: out.path.local };
      const datagram: Datagram = { from: host, to: this.peer(host), path, data: out.data.slice() };
      this.sent.push(datagram);
      const fate = this.filter(datagram);
      if (fate === 'hold') this.held.push(datagram);
      if (fate === 'deliver') for (let n = this.copies(); n > 0; n--) this.#fly(datagram);
    }
    this.watch();
  }

  #fly(datagram: Datagram): void {
    this.#flying.push({ at: this.now + this.delay(), order: this.#order++, datagram });
  }

  /** Delivers at once, in the order they were held, all or those that `which` picks. */
  release(which: (datagram: Datagram) => boolean = () => true): number {
    const picked = this.held.filter(which);
    for (const datagram of picked) {
      this.held.splice(this.held.indexOf(datagram), 1);
      this.deliver(datagram);
    }
    return picked.length;
  }

  deliver(datagram: Datagram): void {
    datagram.to.endpoint.handleDatagram(this.now, datagram.path, datagram.data.slice());
    this.drain(datagram.to);
  }

  /** Does something to one side and takes out what comes of it. */
  act(host: Host, action: (endpoint: IkeEndpoint, now: number) => void): void {
    action(host.endpoint, this.now);
    this.drain(host);
  }

  /** When something happens next; `undefined` for never. */
  next(): number | undefined {
    const times = [this.a.endpoint.nextTimeout(), this.b.endpoint.nextTimeout(), ...this.#flying.map((f) => f.at)];
    const due = times.filter((time) => time !== undefined);
    return due.length === 0 ? undefined : Math.max(this.now, Math.min(...due));
  }

  /** Lets time pass up to `until`, jumping from one thing that happens to the next. */
  runUntil(until: number): void {
    for (let steps = 0; ; steps++) {
      if (steps > 200_000) throw new Error(`no end at ${this.now}`);
      const next = this.next();
      if (next === undefined || next > until) break;
      this.now = next;
      this.step();
    }
    this.now = Math.max(this.now, until);
  }

  /** Lets `duration` ms pass; long enough for all exchanges that are under way to end. */
  run(duration = 500): void {
    this.runUntil(this.now + duration);
  }

  step(): void {
    const due = this.#flying.filter((flying) => flying.at <= this.now).sort((x, y) => x.at - y.at || x.order - y.order);
    this.#flying = this.#flying.filter((flying) => flying.at > this.now);
    for (const { datagram } of due) this.deliver(datagram);
    for (const host of [this.a, this.b]) {
      const at = host.endpoint.nextTimeout();
      if (at === undefined || at > this.now) continue;
      host.endpoint.handleTimeout(this.now);
      this.drain(host);
    }
  }

  /** Brings up the tunnel from `host`. */
  up(host: Host = this.a): void {
    this.act(host, (endpoint, now) => endpoint.initiate(now, 'net'));
    this.run();
  }
}

/**
 * Moves datagrams by hand: nothing arrives unless the test says so. For scenarios that hang on the order in which two
 * sides hear of each other.
 */
export class Wire {
  readonly pair: Pair;

  constructor(pair: Pair) {
    this.pair = pair;
    pair.filter = () => 'hold';
  }

  #oldest(from: Host): Datagram {
    const datagram = this.pair.held.find((held) => held.from === from);
    if (datagram === undefined) throw new Error(`${from.name} has sent nothing that did not arrive`);
    return datagram;
  }

  /** Delivers the oldest datagram of each of the hosts, in their order. */
  pass(...hosts: Host[]): void {
    for (const host of hosts) {
      const datagram = this.#oldest(host);
      this.pair.release((held) => held === datagram);
    }
  }

  /** Takes the oldest datagram off the wire: to be lost, or delivered later. */
  take(from: Host): Datagram {
    const datagram = this.#oldest(from);
    this.pair.held.splice(this.pair.held.indexOf(datagram), 1);
    return datagram;
  }

  waiting(from: Host): number {
    return this.pair.held.filter((held) => held.from === from).length;
  }

  /** From now on everything arrives, what waits first. */
  open(): void {
    this.pair.filter = () => 'deliver';
    this.pair.release();
  }

  /** Delivers until nothing waits. */
  settle(): void {
    this.open();
    this.pair.run();
  }
}
