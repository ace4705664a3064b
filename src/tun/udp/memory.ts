/**
 * UDP sockets joined in one process: the twin of `node.ts`. Each host of a `MemoryNetwork` has addresses of its
 * own; what happens to a datagram on its way (loss, delay, duplication, address translation) is the caller's hook.
 */
import type { IpAddress, IpFamily, SocketAddress } from '../../base/address.ts';
import { formatSocketAddress, NO_PORT, sameAddress } from '../../base/address.ts';
import type { PacketBatch } from '../../base/batch.ts';
import type {
  DatagramHandler,
  UdpBindOptions,
  UdpCounters,
  UdpNetwork,
  UdpSendError,
  UdpSocket,
  UdpTarget,
} from './udp.ts';
import { isUnspecified, maxDatagram, newUdpCounters, sendEach } from './udp.ts';

/** A datagram on its way. */
export interface MemoryDatagram {
  readonly data: Uint8Array;
  readonly from: SocketAddress;
  readonly to: SocketAddress;
  readonly trafficClass: number;
}

/** One arrival of a datagram. */
export interface MemoryArrival {
  readonly delayMs: number;
  /** As a translator on the way rewrote them; unchanged when left out. */
  readonly from?: SocketAddress;
  readonly to?: SocketAddress;
  /** As routers on the way marked it. */
  readonly trafficClass?: number;
}

/** What becomes of datagrams on their way, and by which clock. */
export interface MemoryNetworkOptions {
  /** How often, when and from where a datagram arrives: none is loss, two are a duplicate. Default: once, at once. */
  readonly route?: (datagram: MemoryDatagram) => readonly MemoryArrival[];
  /** Runs `run` after this many milliseconds; for a virtual clock. Default: the event loop's timers. */
  readonly schedule?: (delayMs: number, run: () => void) => void;
}

/** What an unreliable network does to datagrams. */
export interface LossOptions {
  /** Uniform in [0, 1), from the caller's own seed. */
  readonly random: () => number;
  /** Probabilities. */
  readonly loss?: number;
  readonly duplicate?: number;
  /** Each arrival takes so long, at random: what overtakes arrives out of order. */
  readonly minDelayMs?: number;
  readonly maxDelayMs?: number;
}

/** A `route` hook for an unreliable network, deterministic in `random`. */
export function lossyRoute(options: LossOptions): () => readonly MemoryArrival[] {
  const { random, loss = 0, duplicate = 0, minDelayMs = 0, maxDelayMs = minDelayMs } = options;
  const arrival = (): MemoryArrival => ({ delayMs: minDelayMs + random() * (maxDelayMs - minDelayMs) });
  return () => {
    if (random() < loss) return [];
    return random() < duplicate ? [arrival(), arrival()] : [arrival()];
  };
}

const MAX_IN_FLIGHT = 16_384;
const FIRST_EPHEMERAL_PORT = 49_152;

/** UDP between hosts in memory; loss, delay, duplication and NATs are a hook's. See `lossyRoute`. */
export class MemoryNetwork {
  /** Datagrams on their way. */
  inFlight = 0;
  /** Datagrams to a port that no socket is bound to. */
  undelivered = 0;
  readonly #route: (datagram: MemoryDatagram) => readonly MemoryArrival[];
  readonly #schedule: (delayMs: number, run: () => void) => void;
  // BOUNDED: by the hosts that the owner adds.
  readonly #hosts: MemoryHost[] = [];

  constructor(options: MemoryNetworkOptions = {}) {
    this.#route = options.route ?? (() => [{ delayMs: 0 }]);
    this.#schedule = options.schedule ?? scheduleInEventLoop;
  }

  /** Adds a host with these addresses: where its sockets come from. @throws Error when one has an owner already */
  host(addresses: readonly IpAddress[]): MemoryHost {
    for (const address of addresses) {
      if (this.#hostOf(address) !== undefined) throw new Error('an address belongs to one host of a memory network');
    }
    const host = new MemoryHost(addresses, (datagram) => this.#transmit(datagram));
    this.#hosts.push(host);
    return host;
  }

  #transmit({ data, from, to, trafficClass }: MemoryDatagram): boolean {
    // A copy for each arrival: the sender reuses its buffer, the receiver overwrites its own.
    for (const arrival of this.#route({ data, from, to, trafficClass })) {
      if (this.inFlight >= MAX_IN_FLIGHT) return false;
      this.inFlight++;
      const datagram = {
        data: data.slice(),
        from: arrival.from ?? from,
        to: arrival.to ?? to,
        trafficClass: arrival.trafficClass ?? trafficClass,
      };
      this.#schedule(arrival.delayMs, () => {
        this.inFlight--;
        if (this.#hostOf(datagram.to.address)?.receive(datagram) !== true) this.undelivered++;
      });
    }
    return true;
  }

  #hostOf(address: IpAddress): MemoryHost | undefined {
    return this.#hosts.find((host) => host.addresses.some((own) => sameAddress(own, address)));
  }
}

/** One host of a `MemoryNetwork`. */
export class MemoryHost implements UdpNetwork {
  readonly addresses: readonly IpAddress[];
  readonly #transmit: (datagram: MemoryDatagram) => boolean;
  // BOUNDED: by the sockets that the owner binds.
  readonly #sockets = new Map<string, MemoryUdpSocket>();

  constructor(addresses: readonly IpAddress[], transmit: (datagram: MemoryDatagram) => boolean) {
    this.addresses = addresses;
    this.#transmit = transmit;
  }

  // An async function, so that what it throws rejects.
  async bind(options: UdpBindOptions): Promise<UdpSocket> {
    const { address } = options;
    if (!isUnspecified(address) && !this.addresses.some((own) => sameAddress(own, address))) {
      throw new Error(`UDP ${formatSocketAddress(options)}: the address is not one of this host`);
    }
    const local = { address, port: options.port === 0 ? this.#freePort(address) : options.port };
    return this.#open(local, options.sourceFor);
  }

  /** ESP straight over IP: between end points without ports. */
  async rawEsp(family: IpFamily): Promise<UdpSocket> {
    return this.#open({ address: { family, value: 0n }, port: NO_PORT }, undefined);
  }

  #open(local: SocketAddress, sourceFor: UdpBindOptions['sourceFor']): UdpSocket {
    const key = formatSocketAddress(local);
    if (this.#sockets.has(key)) throw new Error(`UDP ${key}: the port is in use: choose another`);
    const socket = new MemoryUdpSocket(local, {
      owns: (own) => this.addresses.some((each) => sameAddress(each, own)),
      sourceFor: (remote) => sourceFor?.(remote) ?? this.#firstAddress(remote),
      transmit: this.#transmit,
      onClose: () => this.#sockets.delete(key),
    });
    this.#sockets.set(key, socket);
    return socket;
  }

  /** Hands a datagram to the socket of its address, else to that of all addresses. False when there is none. */
  receive(datagram: MemoryDatagram): boolean {
    const { address, port } = datagram.to;
    const socket =
      this.#sockets.get(formatSocketAddress(datagram.to)) ??
      this.#sockets.get(formatSocketAddress({ address: { family: address.family, value: 0n }, port }));
    socket?.receive(datagram);
    return socket !== undefined;
  }

  #firstAddress(remote: IpAddress): IpAddress | undefined {
    return this.addresses.find((own) => own.family === remote.family);
  }

  #freePort(address: IpAddress): number {
    let port = FIRST_EPHEMERAL_PORT;
    while (this.#sockets.has(formatSocketAddress({ address, port }))) port++;
    return port;
  }
}

interface SocketHooks {
  readonly owns: (address: IpAddress) => boolean;
  readonly sourceFor: (remote: IpAddress) => IpAddress | undefined;
  readonly transmit: (datagram: MemoryDatagram) => boolean;
  readonly onClose: () => void;
}

class MemoryUdpSocket implements UdpSocket {
  readonly local: SocketAddress;
  readonly counters: UdpCounters = newUdpCounters();
  readonly features: readonly string[] = ['memory'];
  readonly #hooks: SocketHooks;
  #onDatagram: DatagramHandler | undefined;
  #closed = false;

  constructor(local: SocketAddress, hooks: SocketHooks) {
    this.local = local;
    this.#hooks = hooks;
  }

  onDatagram(handler: DatagramHandler): void {
    this.#onDatagram = handler;
  }

  send(data: Uint8Array, to: SocketAddress, from?: SocketAddress, trafficClass = 0): boolean {
    const failure = this.#trySend(data, to, from, trafficClass);
    if (failure !== undefined) {
      this.counters.sendErrors[failure]++;
      return false;
    }
    this.counters.sentDatagrams++;
    this.counters.sentBytes += data.length;
    return true;
  }

  sendBatch(batch: PacketBatch, first: number, end: number, target: UdpTarget): number {
    return sendEach(this, batch, first, end, target);
  }

  receive({ data, from, to, trafficClass }: MemoryDatagram): void {
    this.counters.receivedDatagrams++;
    this.counters.receivedBytes += data.length;
    this.#onDatagram?.(data, from, to, trafficClass);
  }

  close(): Promise<void> {
    if (!this.#closed) this.#hooks.onClose();
    this.#closed = true;
    this.#onDatagram = undefined;
    return Promise.resolve();
  }

  #trySend(
    data: Uint8Array,
    to: SocketAddress,
    wanted: SocketAddress | undefined,
    trafficClass: number,
  ): UdpSendError | undefined {
    if (this.#closed) return 'closed';
    if (to.address.family !== this.local.address.family) return 'wrong-family';
    if (data.length > maxDatagram(to.address.family)) return 'EMSGSIZE';
    if ((to.port === NO_PORT) !== (this.local.port === NO_PORT)) return 'other';
    const source = isUnspecified(this.local.address) ? this.#source(to, wanted) : this.local.address;
    if (source === undefined) return 'ENETUNREACH';
    if (!this.#hooks.owns(source)) return 'EADDRNOTAVAIL';
    const from = { address: source, port: this.local.port };
    return this.#hooks.transmit({ data, from, to, trafficClass }) ? undefined : 'ENOBUFS';
  }

  #source(to: SocketAddress, wanted: SocketAddress | undefined): IpAddress | undefined {
    return wanted === undefined || isUnspecified(wanted.address) ? this.#hooks.sourceFor(to.address) : wanted.address;
  }
}

function scheduleInEventLoop(delayMs: number, run: () => void): void {
  if (delayMs <= 0) setImmediate(run);
  else setTimeout(run, delayMs);
}
