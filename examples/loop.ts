/**
 * The loop of an engine, written out: two ends in one process, each with a UDP socket of Node's own. The engine itself
 * knows no clock, no socket and no timer; all of those are here. `docs/library.md` explains the steps.
 *
 *   npm run build && node build/examples/loop.js
 */
import { randomFillSync } from 'node:crypto';
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { nobleProvider, parseEspProposalString, parseIkeProposalString } from 'sectunnel/crypto';
import {
  Engine,
  formatAddress,
  type IpAddress,
  identityFromText,
  PacketBatch,
  parseAddress,
  prefixRange,
  type SocketAddress,
  type TunnelConfig,
  utf8,
} from 'sectunnel/engine';
import type { ConnectionConfig, SelectorPair } from 'sectunnel/ike';
import { makeUdpPacket, readUdpPacket } from './packet.ts';

/** One end of the tunnel: an engine, and what it needs done. */
class Loop {
  readonly #engine = new Engine({ crypto: nobleProvider, random: (length) => randomFillSync(new Uint8Array(length)) });
  readonly #socket: Socket;
  readonly #local: SocketAddress;
  /** Packets on their way into the tunnel; 8 at a time, each of up to 1,500 bytes. */
  readonly #outgoing = new PacketBatch(8, 1500);
  readonly #onPacket: (packet: Uint8Array) => void;
  #timer: NodeJS.Timeout | undefined;

  private constructor(socket: Socket, onPacket: (packet: Uint8Array) => void) {
    this.#socket = socket;
    const { address, port } = socket.address();
    this.#local = { address: ip(address), port };
    this.#onPacket = onPacket;
    socket.on('message', (data, from) => this.#receive(data, from));
  }

  /** Binds a socket to any free port. */
  static async open(host: string, onPacket: (packet: Uint8Array) => void): Promise<Loop> {
    const socket = createSocket('udp4');
    await new Promise<void>((resolve) => socket.bind(0, host, resolve));
    return new Loop(socket, onPacket);
  }

  get port(): number {
    return this.#local.port;
  }

  /** Puts a tunnel to work, as its `start` says. */
  add(config: TunnelConfig): void {
    this.#engine.addTunnel(config);
    this.#engine.up(performance.now(), config.name);
    this.#drain();
  }

  /** A whole IP packet goes into the tunnel. */
  send(tunnel: string, packet: Uint8Array): void {
    const batch = this.#outgoing;
    batch.clear();
    batch.push(packet);
    this.#engine.send(performance.now(), tunnel, batch);
    for (let slot = 0; slot < batch.count; slot++) {
      // A slot without a length was held for its SA, or dropped; the others are ESP packets now.
      const path = batch.length[slot] === 0 ? undefined : this.#engine.path(batch.tag[slot]!);
      if (path !== undefined) this.#transmit(batch.packet(slot), path.remote);
    }
    this.#drain();
  }

  /** A datagram came: IKE is served at once, ESP is gathered. A loop that reads several at a time flushes after the last. */
  #receive(data: Uint8Array, from: RemoteInfo): void {
    const path = { local: this.#local, remote: { address: ip(from.address), port: from.port } };
    this.#engine.receive(performance.now(), path, data);
    if (this.#engine.hasGathered) {
      this.#engine.flush(performance.now(), (_tunnel, batch) => {
        for (let slot = 0; slot < batch.count; slot++) {
          if (batch.length[slot] !== 0) this.#onPacket(batch.packet(slot).slice());
        }
      });
    }
    this.#drain();
  }

  /** After every call: send what is to be sent, answer what is asked, and sleep until the engine has something to do. */
  #drain(): void {
    for (let event = this.#engine.pollEvent(); event !== undefined; event = this.#engine.pollEvent()) {
      if (event.type === 'need-secret') {
        this.#engine.answerSecret(performance.now(), event.requestId, utf8('the pre-shared key of the example'));
      } else {
        console.log(`${this.#local.port}: ${event.type}`);
      }
    }
    for (let next = this.#engine.pollTransmit(); next !== undefined; next = this.#engine.pollTransmit()) {
      this.#transmit(next.data, next.path.remote);
    }
    // ICMP for the sender of a packet that could not be carried, such as one that is too large.
    for (let next = this.#engine.pollDeviceWrite(); next !== undefined; next = this.#engine.pollDeviceWrite()) {
      this.#onPacket(next.packet);
    }
    clearTimeout(this.#timer);
    const at = this.#engine.nextTimeout();
    if (at === undefined) return;
    this.#timer = setTimeout(
      () => {
        this.#engine.handleTimeout(performance.now());
        this.#drain();
      },
      Math.max(0, at - performance.now()),
    );
  }

  /** The socket sends later, and the engine uses its memory again: the datagram is copied. */
  #transmit(data: Uint8Array, { address, port }: SocketAddress): void {
    this.#socket.send(data.slice(), port, formatAddress(address));
  }

  /** Deletes the SAs, which the last datagram tells the peer. */
  close(tunnel: string): void {
    this.#socket.removeAllListeners('message');
    this.#engine.removeTunnel(performance.now(), tunnel);
    this.#drain();
    clearTimeout(this.#timer);
    setImmediate(() => this.#socket.close());
  }
}

function ip(text: string): IpAddress {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`not an address: ${text}`);
  return address;
}

/** What one end is told; the other is told the same with the sides exchanged. Durations are milliseconds. */
function tunnelConfig(start: TunnelConfig['start'], ports: readonly [number, number], nets: readonly [string, string]) {
  const [local, remote] = ports.map((port, side) => ({
    address: ip('127.0.0.1'),
    port,
    natPort: port,
    id: identityFromText('fqdn', `gw-${nets[side]}`),
    auth: 'psk' as const,
  }));
  const [from, to] = nets.map((net) => [
    { protocol: 0, startPort: 0, endPort: 65_535, range: prefixRange(ip(net), 24) },
  ]);
  const selectors: SelectorPair = { local: from!, remote: to! };
  const lifetime = { soft: 3_000_000, hard: 3_600_000, jitter: 60_000 };
  const connection: ConnectionConfig = {
    name: 'lan',
    local: local!,
    remote: remote!,
    proposals: [parseIkeProposalString('aes256gcm16-prfsha384-x25519')],
    lifetime,
    dpd: { interval: 30_000 },
    nat: { mode: 'force', keepalive: 20_000 },
    children: [
      { name: 'lan', mode: 'tunnel', proposals: [parseEspProposalString('aes256gcm16')], selectors, lifetime },
    ],
  };
  const entry = { name: 'lan', action: 'protect', priority: 0, selectors, child: 'lan', level: 'require' } as const;
  const config: TunnelConfig = {
    name: 'lan',
    connections: [connection],
    policy: [
      { ...entry, direction: 'out' },
      { ...entry, direction: 'in' },
    ],
    start,
    dpdAction: 'clear',
    replayWindow: 1024,
  };
  return config;
}

let arrive: (packet: Uint8Array) => void = () => {};
const arrived = new Promise<Uint8Array>((resolve) => {
  arrive = resolve;
});
const left = await Loop.open('127.0.0.1', () => {});
const right = await Loop.open('127.0.0.1', arrive);
right.add(tunnelConfig('respond', [right.port, left.port], ['10.2.0.0', '10.1.0.0']));
left.add(tunnelConfig('trap', [left.port, right.port], ['10.1.0.0', '10.2.0.0']));

// The first packet calls for the tunnel, and waits in the engine until it is up.
const [source, destination] = ['10.1.0.1', '10.2.0.1'];
left.send('lan', makeUdpPacket({ source, sourcePort: 5000, destination, destinationPort: 5000, text: 'hello' }));
const packet = readUdpPacket(await arrived);
console.log(`received '${packet.text}' from ${packet.source} port ${packet.sourcePort}`);
left.close('lan');
right.close('lan');
