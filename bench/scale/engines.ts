/**
 * Two engines in one process with many SAs between them, and packets that go through both: sent by a gateway with as
 * many policies as it has peers, received by an engine that is all of the peers. There is no network between them.
 */
import { webcrypto } from 'node:crypto';
import { type IpAddress, parseAddress, prefixRange } from '../../src/base/address.ts';
import { PacketBatch } from '../../src/base/batch.ts';
import { identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import type { CryptoProvider } from '../../src/crypto/types.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import { Engine } from '../../src/engine/engine.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import type { Path } from '../../src/ike/events.ts';
import type { PolicyEntry } from '../../src/policy/database.ts';
import { makeSelector } from '../../src/policy/selector.ts';

const TUNNEL = 'scale';
const BATCH = 64;
const MAX_PACKET = 2_000;
const GATEWAY = parseAddress('192.0.2.1')!;
const SECRET = utf8('a key for benchmarks alone');
/** Shares no factor with the numbers of SAs, so that its multiples visit them all in no order that memory has. */
const STRIDE = 7_919;

/** What a read of 64 KiB from a device with offloads is divided into, at a usual MTU. */
const RUN = 46;

/**
 * `one`: all packets leave on the same SA; `runs`: as many as one read brings, then on another; `even`: each leaves on
 * another SA than the one before.
 */
export type Spread = 'one' | 'runs' | 'even';

export class ScaleEngines {
  readonly #gateway: Engine;
  readonly #peers: Engine;
  readonly #batch = new PacketBatch(BATCH, MAX_PACKET);
  readonly #count: number;
  readonly #start = performance.now();
  /** As the peers see it: what the gateway calls local is remote there. By the gateway's own. */
  readonly #turned = new Map<Path, Path>();
  #turn = 0;

  /** Policies and connections are there; SAs are not. */
  constructor(count: number, crypto: CryptoProvider) {
    const random = (length: number): Uint8Array => webcrypto.getRandomValues(new Uint8Array(length));
    const limits = { maxIkeSas: 2 * count + 64 };
    [this.#gateway, this.#peers] = [0, 1].map(() => new Engine({ crypto, random, limits })) as [Engine, Engine];
    this.#count = count;
    const config = gatewayConfig(count);
    this.#gateway.addTunnel(config);
    this.#peers.addTunnel(mirrored(config));
  }

  /** Negotiates all SAs, one after another. */
  install(): void {
    for (let i = 0; i < this.#count; i++) {
      this.#gateway.ike.initiate(this.#now(), connectionName(i));
      this.#gateway.handleTimeout(this.#now());
      while (this.#exchange(this.#gateway, this.#peers) || this.#exchange(this.#peers, this.#gateway));
    }
    for (const engine of [this.#gateway, this.#peers]) {
      const { size } = engine.planes.receiving;
      if (size !== this.#count) throw new Error(`${size} SAs of ${this.#count} came up`);
    }
  }

  /**
   * Carries packets as a host does: a batch is sent, received, flushed, and the next wake-up asked for.
   * @returns nanoseconds of processor time a packet, both ends together, what the packets' own making takes left out
   */
  carry(spread: Spread, length: number, batches: number): number {
    const packet = udpPacket(length);
    const making = cpuOf(() => {
      for (let i = 0; i < batches; i++) this.#fill(packet, spread);
    });
    const all = cpuOf(() => {
      for (let i = 0; i < batches; i++) {
        this.#fill(packet, spread);
        const delivered = this.#carryBatch();
        if (delivered !== BATCH) throw new Error(`${delivered} packets of ${BATCH} came out`);
      }
    });
    return ((all - making) * 1_000) / (batches * BATCH);
  }

  #fill(packet: Uint8Array, spread: Spread): void {
    const batch = this.#batch;
    batch.clear();
    for (let i = 0; i < BATCH; i++) {
      const sa = this.#nextSa(spread);
      packet.set([160 + (sa >> 16), (sa >> 8) & 0xff, sa & 0xff], DESTINATION_AT);
      batch.push(packet);
    }
  }

  #nextSa(spread: Spread): number {
    switch (spread) {
      case 'one':
        return this.#count >> 1;
      case 'runs':
        return (Math.floor(this.#turn++ / RUN) * STRIDE) % this.#count;
      case 'even':
        return (this.#turn++ * STRIDE) % this.#count;
    }
  }

  #carryBatch(): number {
    const batch = this.#batch;
    let delivered = 0;
    const deliver = (_: string, out: PacketBatch): void => {
      for (let slot = 0; slot < out.count; slot++) if (out.length[slot] !== 0) delivered++;
    };
    this.#gateway.send(this.#now(), TUNNEL, batch);
    for (let slot = 0; slot < batch.count; slot++) {
      if (batch.length[slot] === 0) continue;
      const path = this.#gateway.path(batch.tag[slot]!);
      if (path === undefined) throw new Error('a sealed packet without a path');
      this.#peers.receive(this.#now(), this.#seenByPeer(path), batch.packet(slot));
    }
    this.#gateway.nextTimeout();
    this.#peers.flush(this.#now(), deliver);
    this.#peers.nextTimeout();
    return delivered;
  }

  #seenByPeer(path: Path): Path {
    let turned = this.#turned.get(path);
    if (turned === undefined) {
      turned = { local: path.remote, remote: path.local };
      this.#turned.set(path, turned);
    }
    return turned;
  }

  #exchange(from: Engine, to: Engine): boolean {
    const now = this.#now();
    for (let event = from.pollEvent(); event !== undefined; event = from.pollEvent()) {
      if (event.type === 'need-secret') from.answerSecret(now, event.requestId, SECRET);
      if (event.type === 'failed') throw new Error(event.detail);
    }
    const out = from.pollTransmit();
    if (out === undefined) return false;
    to.receive(now, { local: out.path.remote, remote: out.path.local }, out.data);
    from.nextTimeout();
    return true;
  }

  #now(): number {
    return performance.now() - this.#start;
  }
}

const DESTINATION_AT = 16;

/** Microseconds of processor time, threads of the garbage collector included: other load on the machine counts less. */
function cpuOf(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

function udpPacket(length: number): Uint8Array {
  const packet = new Uint8Array(length).fill(0x5a);
  packet.set([0x45, 0, length >>> 8, length & 0xff, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 1, 160, 0, 0, 1]);
  return packet;
}

const connectionName = (i: number): string => `peer${i}`;

/** Branch offices: each has an address, an identity and a network of its own. */
function gatewayConfig(count: number): TunnelConfig {
  const connections = Array.from({ length: count }, (_, i) => connection(i));
  const policy = connections.map(
    ({ name, children }): PolicyEntry => ({
      name,
      direction: 'out',
      action: 'protect',
      priority: 0,
      selectors: children[0]!.selectors,
      child: name,
      level: 'require',
    }),
  );
  return { name: TUNNEL, connections, policy, start: 'respond', dpdAction: 'clear', replayWindow: 1024 };
}

function connection(i: number): ConnectionConfig {
  const name = connectionName(i);
  const end = (address: IpAddress, id: string): ConnectionConfig['local'] => ({
    address,
    port: 500,
    natPort: 4500,
    id: identityFromText('fqdn', id),
    auth: 'psk',
  });
  return {
    name,
    local: end(GATEWAY, 'gateway'),
    remote: end(numbered(0xc612_0000, i), name),
    proposals: [parseIkeProposalString('aes128gcm16-prfsha256-x25519')],
    lifetime: { soft: 14_400_000, hard: 16_000_000, jitter: 60_000 },
    dpd: { interval: 0 },
    nat: { mode: 'auto', keepalive: 20_000 },
    children: [
      {
        name,
        mode: 'tunnel',
        proposals: [parseEspProposalString('aes128gcm16')],
        selectors: {
          local: [makeSelector(prefixRange(parseAddress('10.1.0.0')!, 16))],
          remote: [makeSelector(prefixRange(numbered(0xa000_0000, i << 8), 24))],
        },
        lifetime: { soft: 3_600_000, hard: 4_000_000, jitter: 60_000 },
      },
    ],
  };
}

function numbered(first: number, i: number): IpAddress {
  return { family: 4, value: BigInt(first + i) };
}

function mirrored(config: TunnelConfig): TunnelConfig {
  const turn = ({ local, remote }: PolicyEntry['selectors']): PolicyEntry['selectors'] => ({
    local: remote,
    remote: local,
  });
  return {
    ...config,
    connections: config.connections.map((each) => ({
      ...each,
      local: { ...each.local, ...each.remote },
      remote: each.local,
      children: each.children.map((child) => ({ ...child, selectors: turn(child.selectors) })),
    })) as ConnectionConfig[],
    policy: config.policy.map((entry) => ({ ...entry, selectors: turn(entry.selectors) })),
  };
}
