/**
 * Runs a scenario: a hub and its spokes, engines with their ESP and policy, over one virtual clock and a network that is bad in
 * the ways of the scenario. Then the network is well, everything is wanted, and the world must come to rest as it should; and at
 * last everything is taken down, and nothing may be left.
 *
 * What must hold: see `check…` here and in `host.ts`, and `seals.ts`.
 */
import { type Datagram, Net, packet } from '../support/engine-net.ts';
import { Random } from '../support/ike-pair.ts';
import { Chart, datagramText } from './chart.ts';
import { endsOf, HUB, HUB_ADDRESS, innerAddress, numberOf, spokeAddress } from './ends.ts';
import { demand, SimFailure } from './failure.ts';
import { SimHost } from './host.ts';
import { SimRoad } from './road.ts';
import type { Action, Name, Scenario } from './scenario.ts';
import { Seals } from './seals.ts';
import { Traffic } from './traffic.ts';

/** Milliseconds until all must be up and at rest once the network is well: dead peers are found, attempts made anew. */
const PATIENCE = 400_000;
/** Twice the longest lifetime that ends in a scenario of a minute. */
const RENEWAL = 50_000;
/** Between two looks whether the world is at rest. Not a multiple of any lifetime. */
const LOOK = 277;
/** All that lingers is gone after these, and what was set for the longest hard lifetime has come to nothing. */
const LINGER = 1_300_000;
/** Of a sleep that a host notices. */
const NOTICED = 1_000;
/** In which what is under way at a host whose process is to end has come to its end: some round trips. */
const SETTLING = 4_000;
/** For a packet to arrive, at most. */
const FLIGHT = 3_000;

export interface SimResult {
  readonly failure: string | undefined;
  /** Of the chart, if one was asked for. */
  readonly lines: readonly string[];
  readonly datagrams: number;
  readonly packets: number;
  readonly arrived: number;
  readonly childSas: number;
  readonly virtualMs: number;
}

interface Planned {
  readonly at: number;
  readonly work: () => void;
}

/** Runs it to its end, or to the first thing that does not hold. */
export function simulate(scenario: Scenario, { chart = false }: { readonly chart?: boolean } = {}): SimResult {
  const world = new World(scenario, chart ? new Chart() : undefined);
  try {
    world.run();
    return world.result(undefined);
  } catch (error) {
    // Whatever an engine throws is a failure, too.
    const text =
      error instanceof SimFailure ? error.message : error instanceof Error ? (error.stack ?? '') : `${error}`;
    return world.result(text);
  }
}

class World {
  readonly #scenario: Scenario;
  readonly #chart: Chart | undefined;
  readonly #net: Net;
  readonly #road: SimRoad;
  readonly #seals = new Seals();
  readonly #traffic: Traffic;
  readonly #hosts = new Map<Name, SimHost>();
  readonly #spokes: readonly Name[];
  /** The next first. */
  readonly #planned: Planned[] = [];
  #datagrams = 0;
  #childSas = 0;

  constructor(scenario: Scenario, chart: Chart | undefined) {
    this.#scenario = scenario;
    this.#chart = chart;
    const { seed, setups, weather } = scenario;
    this.#net = new Net(seed);
    // Of its own, so that what hosts draw does not change the network.
    this.#road = new SimRoad(weather, setups, new Random(seed ^ 0x5eed));
    this.#spokes = setups.map((_, at) => `s${at + 1}`);
    this.#net.delay = () => this.#road.delay();
    this.#net.filter = (datagram) => this.#travels(datagram);
    this.#makeHosts();
    this.#traffic = new Traffic(this.#hosts);
  }

  #makeHosts(): void {
    const { setups } = this.#scenario;
    const ends = this.#spokes.map((spoke, at) => endsOf(spoke, setups[at]!));
    const options = { crypto: this.#seals.provider, resumable: true };
    const hub = this.#net.peer(HUB, HUB_ADDRESS, options);
    this.#hosts.set(
      HUB,
      new SimHost(
        hub,
        ends.map((end) => end.hub),
      ),
    );
    this.#spokes.forEach((spoke, at) => {
      const peer = this.#net.peer(spoke, spokeAddress(at + 1, setups[at]!), options);
      for (const end of [hub, peer]) end.secrets.set(spoke, `key of ${spoke}`);
      this.#hosts.set(spoke, new SimHost(peer, [ends[at]!.spoke]));
    });
  }

  run(): void {
    for (const host of this.#hosts.values()) host.start(this.#net);
    const start = this.#net.now;
    for (const action of this.#scenario.actions) this.#plan(start + action.at, () => this.#act(action));
    this.#runPlanned();
    this.#wait(FLIGHT);
    this.#heal();
    this.#comeToRest();
    // What is left of bad times ends, or is replaced.
    this.#wait(RENEWAL);
    this.#comeToRest();
    this.#checkTraffic();
    this.#takeDown();
  }

  result(failure: string | undefined): SimResult {
    const { sent, arrived } = this.#traffic;
    return {
      failure,
      lines: this.#chart?.lines ?? [],
      ...{ datagrams: this.#datagrams, packets: sent, arrived, childSas: this.#childSas, virtualMs: this.#net.now },
    };
  }

  #host(name: Name): SimHost {
    const host = this.#hosts.get(name);
    if (host === undefined) throw new Error(`the scenario has no host ${name}`);
    return host;
  }

  // Time

  #plan(at: number, work: () => void): void {
    // Most of it is soon, or in the order of its times.
    let place = this.#planned.length;
    while (place > 0 && this.#planned[place - 1]!.at > at) place--;
    this.#planned.splice(place, 0, { at, work });
  }

  /** Until nothing is planned any more. */
  #runPlanned(): void {
    for (let next = this.#planned.shift(); next !== undefined; next = this.#planned.shift()) {
      this.#runUntil(next.at);
      next.work();
      this.#look();
    }
  }

  #wait(duration: number): void {
    this.#runUntil(this.#net.now + duration);
  }

  /** Looks after all that happens at a time. */
  #runUntil(until: number): void {
    for (;;) {
      const next = this.#net.next();
      if (next === undefined || next > until) break;
      this.#net.runUntil(next);
      this.#look();
    }
    this.#net.runUntil(until);
  }

  /** What must hold at any time. */
  #look(): void {
    this.#net.sent.length = 0;
    for (const host of this.#hosts.values()) {
      host.follow((event) => {
        if (event.type === 'child-up') this.#childSas++;
        this.#chart?.event(this.#net.now, host.name, event);
      });
    }
    this.#traffic.look();
    demand(this.#seals.repeated.length === 0, () => `used twice: ${this.#seals.repeated[0]}`);
  }

  // The network

  #travels(datagram: Datagram): boolean {
    this.#datagrams++;
    this.#traffic.checkCovered(datagram.data);
    const { now } = this.#net;
    const port = datagram.path.local.port;
    const sent = { ...datagram };
    const way = this.#road.pass(now, datagram);
    this.#chart?.datagram(now, way, datagramText(port, datagram.data));
    if (way.fate === 'too large') this.#reportMtu(sent);
    if (way.fate !== '') return false;
    for (let copies = this.#road.copies(); copies > 1; copies--) this.#net.fly({ ...datagram });
    return true;
  }

  /** As the kernel of the sender learns it from the router, or from its own link. */
  #reportMtu({ from, path }: Datagram): void {
    const { mtu } = this.#road.weather;
    this.#plan(this.#net.now, () => this.#net.act(from, (engine) => engine.setPathMtu(path, mtu)));
  }

  // What happens

  #act(action: Action): void {
    const { now } = this.#net;
    this.#chart?.action(now, describe(action));
    switch (action.type) {
      case 'packets':
        for (let n = 0; n < action.count; n++)
          this.#plan(now + n * action.every, () => this.#send(action.from, action.to));
        break;
      case 'large-packet':
        this.#send(action.from, action.to, action.size);
        break;
      case 'weather':
        this.#road.weather = action.weather;
        break;
      case 'cut':
        this.#road.cut(action.host, now + action.time);
        break;
      case 'rebind':
        this.#road.rebind(action.host);
        break;
      case 'sleep':
        this.#sleep(this.#host(action.host), action.time);
        break;
      case 'restart':
        this.#look();
        this.#host(action.host).restart(this.#net);
        break;
      case 'hand-over':
        this.#handOver(this.#host(action.host), action.time);
        break;
      default:
        this.#operate(this.#host(action.host), action);
    }
  }

  #sleep(host: SimHost, time: number): void {
    const { peer } = host;
    if (peer.isAsleep) return;
    peer.isAsleep = true;
    this.#plan(this.#net.now + time, () => {
      this.#chart?.action(this.#net.now, `${host.name} wakes`);
      peer.isAsleep = false;
      if (time >= NOTICED) this.#net.act(peer, (engine, now) => engine.probe(now));
    });
  }

  /** The process of a host ends once nothing is under way, and after a while another goes on. */
  #handOver(host: SimHost, absence: number): void {
    const isAnyAway = [...this.#hosts.values()].some(({ peer, isLeaving }) => peer.isAsleep || isLeaving);
    // What is under way with a host that is away does not come to its end.
    if (host.peer.isAsleep || host.isLeaving || (this.#scenario.lossless && isAnyAway)) return;
    host.isLeaving = true;
    this.#net.act(host.peer, ({ ike }) => ike.settle());
    this.#leave(host, absence, this.#net.now + SETTLING);
  }

  #leave(host: SimHost, absence: number, latest: number): void {
    const { now } = this.#net;
    if (!host.isLeaving) return;
    if (host.peer.isAsleep || (!host.isSettled && now < latest)) {
      this.#plan(now + LOOK, () => this.#leave(host, absence, latest));
      return;
    }
    this.#look();
    demand(host.isSettled || !this.#scenario.lossless, () => `${host.name} does not settle: ${host.unsettled}`);
    this.#chart?.action(now, `${host.name} leaves`);
    this.#traffic.excuse(host.name, now - FLIGHT);
    host.leave(this.#net);
    this.#plan(now + absence, () => {
      this.#chart?.action(this.#net.now, `${host.name} goes on`);
      host.resume(this.#net);
    });
  }

  /** What an operator does, with something that there is. */
  #operate({ peer, tunnels }: SimHost, action: Extract<Action, { readonly host: Name }>): void {
    if (peer.isAsleep) return;
    const pick = 'pick' in action ? action.pick : 0;
    const some = <T>(all: readonly T[]): T | undefined => all[pick % Math.max(1, all.length)];
    const sas = peer.engine.ike.status().filter(({ state }) => state === 'established');
    const tunnel = some(tunnels)!;
    const ikeSa = some(sas)?.id;
    const child = some(sas.flatMap(({ children }) => children))?.id;
    this.#net.act(peer, (engine, now) => {
      if (action.type === 'probe') engine.probe(now);
      else if (action.type === 'down') engine.down(now, tunnel.name);
      else if (action.type === 'up') engine.up(now, tunnel.name);
      else if (action.type === 'replace') engine.removeTunnel(now, tunnel.name);
      else if (action.type === 'rekey-child' && child !== undefined) engine.ike.rekeyChild(now, child);
      else if (action.type === 'close-child' && child !== undefined) engine.ike.closeChild(now, child);
      else if (action.type === 'rekey-ike' && ikeSa !== undefined) engine.ike.rekeyIkeSa(now, ikeSa);
      else if (action.type === 'close-ike' && ikeSa !== undefined) engine.ike.closeIkeSa(now, ikeSa);
      // What IKE says of it reaches the tunnels.
      engine.handleTimeout(now);
    });
    if (action.type === 'replace') this.#net.add(peer, tunnel);
  }

  #send(from: Name, to: Name, size = 0): void {
    const sender = this.#host(from);
    if (sender.peer.isAsleep) return;
    const spoke = from === HUB ? to : from;
    const { children } = this.#scenario.setups[numberOf(spoke) - 1]!;
    const child = this.#traffic.sent % children;
    // A packet is owed once both ends have the SA; a large one may be too large for the path.
    const isThere = !this.#host(to).peer.isAsleep;
    const isOwed = this.#scenario.lossless && isThere && size === 0 && this.#traffic.wasUp(spoke, child);
    const text = this.#traffic.newPacket({ from, to, isOwed, size, at: this.#net.now });
    const [source, destination] = [from, to].map((name) => innerAddress(name, name === HUB ? 0 : child));
    this.#net.send(sender.peer, [packet(source!, destination!, text)], spoke);
  }

  // At the end

  /** The network is well, and all is wanted. */
  #heal(): void {
    this.#chart?.action(this.#net.now, 'the network is well, and all is wanted');
    this.#traffic.checkOwed();
    this.#road.heal();
    for (const { peer, tunnels } of this.#hosts.values()) {
      for (const { name } of tunnels) this.#net.act(peer, (engine) => engine.up(this.#net.now, name));
    }
  }

  /** @throws SimFailure when not all is up, and the same at both ends, in time */
  #comeToRest(): void {
    const { now } = this.#net;
    let why: string | undefined = '';
    for (const end = now + PATIENCE; why !== undefined; ) {
      demand(this.#net.now < end, () => `not at rest ${PATIENCE / 1_000} s after the network was well: ${why}`);
      // Traps want a packet of each child, and so does a spoke whose NAT has forgotten it.
      for (const spoke of this.#spokes) for (const from of [spoke, HUB]) this.#sendEach(from, spoke);
      this.#wait(LOOK);
      why = this.#unrest();
    }
  }

  #sendEach(from: Name, spoke: Name): void {
    const { children } = this.#scenario.setups[numberOf(spoke) - 1]!;
    for (let n = 0; n < children; n++) this.#send(from, from === HUB ? spoke : HUB);
  }

  /** Why the world is not at rest; `undefined` when it is. */
  #unrest(): string | undefined {
    for (const { name, isAtRest } of this.#hosts.values()) if (!isAtRest) return `something is under way at ${name}`;
    for (const spoke of this.#spokes) {
      const why = this.#difference(spoke);
      if (why !== undefined) return why;
    }
    return undefined;
  }

  /** What is not as it should be of a tunnel: one IKE SA, one CHILD SA for each child, and the same at both ends. */
  #difference(spoke: Name): string | undefined {
    const { children } = this.#scenario.setups[numberOf(spoke) - 1]!;
    const [atHub, atSpoke] = [this.#host(HUB).sasOf(spoke), this.#host(spoke).sasOf(spoke)];
    const counts = [atHub, atSpoke].map(
      (sas) => `${sas.length} IKE SAs, ${sas.flatMap((sa) => sa.children).length} CHILD SAs`,
    );
    const found = `tunnel ${spoke} has ${counts[0]} at the hub, ${counts[1]} at the spoke`;
    const [mine, theirs] = [atHub[0], atSpoke[0]];
    if (mine === undefined || theirs === undefined || atHub.length + atSpoke.length > 2) return found;
    if (mine.spiInitiator !== theirs.spiInitiator || mine.spiResponder !== theirs.spiResponder) {
      return `tunnel ${spoke} has another IKE SA at either end`;
    }
    const spis = (sas: typeof mine, turned: boolean): string =>
      sas.children
        .map(({ name, spiIn, spiOut }) => `${name} ${turned ? spiOut : spiIn} ${turned ? spiIn : spiOut}`)
        .sort()
        .join(', ');
    if (spis(mine, false) !== spis(theirs, true)) return `${found}: ${spis(mine, false)}; ${spis(theirs, true)}`;
    const names = new Set(mine.children.map(({ name }) => name));
    return mine.children.length === children && names.size === children ? undefined : found;
  }

  /** At rest every packet arrives, once. */
  #checkTraffic(): void {
    for (const spoke of this.#spokes) {
      for (const from of [spoke, HUB]) {
        for (let n = 0; n < 4; n++) {
          this.#traffic.owe(() => this.#send(from, from === HUB ? spoke : HUB));
          this.#wait(LOOK);
        }
      }
    }
    this.#wait(FLIGHT);
    this.#traffic.checkOwed();
  }

  #takeDown(): void {
    this.#chart?.action(this.#net.now, 'all is taken down');
    for (const { peer, tunnels } of this.#hosts.values()) {
      for (const { name } of tunnels) this.#net.act(peer, (engine, now) => engine.down(now, name));
    }
    this.#wait(LINGER);
    for (const host of this.#hosts.values()) {
      host.checkBugs();
      host.checkEmpty();
    }
  }
}

function describe({ at: _, ...action }: Action): string {
  return Object.entries(action)
    .map(([name, value]) => (name === 'type' ? value : `${name} ${JSON.stringify(value)}`))
    .join(', ');
}
