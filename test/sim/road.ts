/** The network between the hosts of a simulation: it loses, doubles, delays, reorders, translates and cuts. */
import { formatAddress, parseAddress, type SocketAddress } from '../../src/base/address.ts';
import { classify } from '../../src/engine/demux.ts';
import type { Path } from '../../src/ike/events.ts';
import type { Datagram } from '../support/engine-net.ts';
import type { Random } from '../support/ike-pair.ts';
import { HUB, HUB_ADDRESS, natAddress, spokeAddress } from './ends.ts';
import { CALM, type Name, type Setup, type Weather } from './scenario.ts';

/** Behind the IP header: of UDP. */
const HEADERS = 28;
/** Ports of a NAT, by which binding it is, and which port is behind it. */
const FIRST_PORT = 20_000;
const PORTS = [500, 4500];

interface Nat {
  readonly spoke: Name;
  readonly inside: string;
  readonly outside: string;
  /** Bindings before this one are forgotten. */
  binding: number;
}

/** What became of a datagram, for the chart; it arrives where `fate` is empty. */
export interface Way {
  readonly from: Name;
  readonly to: Name;
  readonly fate: string;
}

export class SimRoad {
  weather: Weather;
  readonly #random: Random;
  readonly #names = new Map<string, Name>([[HUB_ADDRESS, HUB]]);
  readonly #nats: Nat[] = [];
  /** Hosts that are cut off, with until when. */
  readonly #cuts = new Map<Name, number>();

  constructor(weather: Weather, setups: readonly Setup[], random: Random) {
    this.weather = weather;
    this.#random = random;
    setups.forEach((setup, at) => {
      const [number, spoke] = [at + 1, `s${at + 1}`];
      const inside = spokeAddress(number, setup);
      this.#names.set(inside, spoke);
      if (!setup.nat) return;
      this.#nats.push({ spoke, inside, outside: natAddress(number), binding: 0 });
      this.#names.set(natAddress(number), spoke);
    });
  }

  /** A one-way time. */
  delay(): number {
    const { delay, jitter } = this.weather;
    return delay + this.#random.below(jitter + 1);
  }

  cut(host: Name, until: number): void {
    this.#cuts.set(host, Math.max(until, this.#cuts.get(host) ?? 0));
  }

  /** From now on nobody is cut off, and nothing is lost. */
  heal(): void {
    this.#cuts.clear();
    this.weather = CALM;
  }

  /** The NAT of a spoke forgets its bindings: the next datagram has another port outside. */
  rebind(spoke: Name): boolean {
    const nat = this.#nats.find((one) => one.spoke === spoke);
    if (nat !== undefined) nat.binding++;
    return nat !== undefined;
  }

  /** Translates a datagram's addresses and says where it goes, and whether it gets there. */
  pass(now: number, datagram: Datagram): Way {
    const from = datagram.from.name;
    const to = this.#names.get(formatAddress(datagram.path.remote.address)) ?? 'nobody';
    const fate = this.#fate(now, { from, to }, datagram);
    return { from, to, fate };
  }

  /** How often one arrives. */
  copies(): number {
    return this.#random.next() < this.weather.twice ? 2 : 1;
  }

  /** Whether a packet of ESP is too large for the path. IKE's are sent in fragments. */
  isTooLarge({ path, data }: Pick<Datagram, 'path' | 'data'>): boolean {
    return classify(path.local.port, data) === 'esp' && data.length + HEADERS > this.weather.mtu;
  }

  #fate(now: number, { from, to }: Pick<Way, 'from' | 'to'>, datagram: Datagram): string {
    if ([from, to].some((host) => (this.#cuts.get(host) ?? 0) > now)) return 'cut';
    const translated = this.#translated(datagram.path);
    if (translated === undefined) return 'no binding';
    if (this.isTooLarge(datagram)) return 'too large';
    if (this.#random.next() < this.weather.loss) return 'lost';
    datagram.path = translated;
    return '';
  }

  #translated(path: Path): Path | undefined {
    const out = this.#nats.find(({ inside }) => formatAddress(path.local.address) === inside);
    const local = out === undefined ? path.local : outsideOf(out, path.local);
    const back = this.#nats.find(({ outside }) => formatAddress(path.remote.address) === outside);
    const remote = back === undefined ? path.remote : insideOf(back, path.remote);
    return remote && { local, remote };
  }
}

function outsideOf({ outside, binding }: Nat, { port }: SocketAddress): SocketAddress {
  const index = PORTS.indexOf(port);
  return { address: parseAddress(outside)!, port: FIRST_PORT + PORTS.length * binding + index };
}

function insideOf({ inside, binding }: Nat, { port }: SocketAddress): SocketAddress | undefined {
  const known = PORTS[port - FIRST_PORT - PORTS.length * binding];
  return known === undefined ? undefined : { address: parseAddress(inside)!, port: known };
}
