import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { readUdpPacket } from '../../examples/packet.ts';
import type { PacketBatch } from '../../src/base/batch.ts';
import { utf8 } from '../../src/base/text.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import type { EngineEvent } from '../../src/engine/events.ts';
import { TunnelHost } from '../../src/host/host.ts';
import type { HostOptions } from '../../src/host/options.ts';
import { SocketPool } from '../../src/host/sockets.ts';
import { MemoryDevice } from '../../src/tun/memory.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { nodeUdp } from '../../src/tun/udp/node.ts';
import type { UdpNetwork, UdpSocket } from '../../src/tun/udp/udp.ts';
import { address, eventually } from '../support/daemon.ts';
import { opposite, packet, protect, tunnel } from '../support/engine-net.ts';
import { at, child, connection, net as range } from '../support/ike-pair.ts';

interface End {
  readonly host: TunnelHost;
  readonly events: EngineEvent[];
}

function end(network: UdpNetwork, options: Partial<HostOptions> = {}): End {
  const events: EngineEvent[] = [];
  const host = new TunnelHost({
    network,
    crypto: nodeProvider,
    secretFor: () => utf8('a secret'),
    onEvent: (event) => events.push(event),
    ...options,
  });
  onTestFinished(() => host.close());
  return { host, events };
}

function texts(device: MemoryDevice): string[] {
  return device.takeDelivered().map((data) => readUdpPacket(data).text);
}

/** Two hosts in memory, with the tunnel `t` between them. */
async function pair(options: Partial<HostOptions> = {}) {
  const network = new MemoryNetwork();
  const a = end(network.host([address('192.0.2.1')]), options);
  const b = end(network.host([address('192.0.2.2')]));
  const [left, right] = [new MemoryDevice(), new MemoryDevice()];
  await b.host.add(opposite(tunnel()), right);
  await a.host.add(tunnel(), left);
  return { network, a, b, left, right };
}

const count = (host: TunnelHost): number => [...host.sockets.sockets()].length;

/** Tunnel number `n`, on sockets of all tunnels. */
function numbered(n: number, change: Partial<ReturnType<typeof connection>> = {}): TunnelConfig {
  const selectors = { local: [range('10.1.0.0/24')], remote: [range(`10.2.${n}.0/24`)] };
  const { remote } = connection();
  const children = [child('c', { selectors })];
  return tunnel({
    name: `t${n}`,
    connections: [
      connection({ name: `n${n}`, remote: { ...remote, address: address(`192.0.2.${10 + n}`) }, children, ...change }),
    ],
    policy: [protect({ selectors })],
  });
}

/** A network on which some ports cannot be had, and which knows what is open. */
function counting(under: UdpNetwork, refused: (port: number) => boolean = () => false) {
  const open = new Set<UdpSocket>();
  const network: UdpNetwork = {
    async bind(options) {
      await sleep(2);
      if (refused(options.port)) throw new Error(`port ${options.port} is another's`);
      const socket = await under.bind(options);
      open.add(socket);
      const close = socket.close.bind(socket);
      socket.close = async () => {
        await sleep(2);
        await close();
        open.delete(socket);
      };
      return socket;
    },
  };
  return { network, open };
}

describe('two hosts', () => {
  it('carry bursts both ways, in order', async () => {
    const { left, right } = await pair();
    const burst = Array.from({ length: 400 }, (_, i) => `p${i}`);
    left.inject(packet('10.1.0.1', '10.2.0.1', 'first'));
    const arrived: string[] = [];
    await eventually('the first packet', () => arrived.push(...texts(right)) === 1);
    for (const text of burst) {
      expect(left.inject(packet('10.1.0.1', '10.2.0.1', text))).toBe(true);
      expect(right.inject(packet('10.2.0.1', '10.1.0.1', text))).toBe(true);
    }
    const back: string[] = [];
    await eventually('all packets', () => {
      arrived.push(...texts(right));
      back.push(...texts(left));
      return arrived.length + back.length === 2 * burst.length + 1;
    });
    expect(arrived).toEqual(['first', ...burst]);
    expect(back).toEqual(burst);
  });

  it('meet on real sockets of one machine', async () => {
    const port = 45_000 + (process.pid % 10_000);
    const [local, remote] = [connection().local, connection().remote];
    const own = (ip: string) => ({ address: address(ip), port, natPort: port });
    const config = tunnel({
      connections: [
        connection({ local: { ...local, ...own('127.0.0.1') }, remote: { ...remote, ...own('127.0.0.2') } }),
      ],
    });
    const [a, b] = [end(nodeUdp), end(nodeUdp)];
    const [left, right] = [new MemoryDevice(), new MemoryDevice()];
    await b.host.add(opposite(config), right);
    await a.host.add(config, left);
    expect([count(a.host), count(b.host)]).toEqual([1, 1]);
    left.inject(packet('10.1.0.1', '10.2.0.1', 'over loopback'));
    const arrived: string[] = [];
    await eventually('the packet', () => arrived.push(...texts(right)) > 0);
    right.inject(packet('10.2.0.1', '10.1.0.1', 'and back'));
    await eventually('the answer', () => arrived.push(...texts(left)) > 1);
    expect(arrived).toEqual(['over loopback', 'and back']);
    await a.host.close();
    await eventually('the deletion', () => b.events.some(({ type }) => type === 'ike-down'));
    expect([count(a.host), count(b.host)]).toEqual([0, 1]);
  });

  it('keep what they carry in the memory that they are given', async () => {
    const memory = new ArrayBuffer(16 * 1024 * 1024);
    let used = 0;
    const allocate = (bytes: number): Uint8Array => {
      used += bytes;
      return new Uint8Array(memory, used - bytes, bytes);
    };
    const { left, right } = await pair({ allocate });
    const homes: boolean[] = [];
    const write = left.write.bind(left);
    const read = left.read.bind(left);
    left.write = (batch) => {
      homes.push(batch.buffer.buffer === memory);
      return write(batch);
    };
    left.read = (batch) => {
      homes.push(batch.buffer.buffer === memory);
      return read(batch);
    };
    left.inject(packet('10.1.0.1', '10.2.0.1', 'there'));
    await eventually('the packet', () => texts(right).includes('there'));
    right.inject(packet('10.2.0.1', '10.1.0.1', 'and back'));
    await eventually('the answer', () => texts(left).includes('and back'));
    expect(homes.length).toBeGreaterThanOrEqual(2);
    expect(homes).not.toContain(false);
  });

  it('reads a key of the program and leaves it as it is, authentication after authentication', async () => {
    const key = utf8('a secret');
    const read: Uint8Array[] = [];
    const options = { secretFor: () => key, onSecretRead: (secret: Uint8Array) => void read.push(secret) };
    const { a, b, left, right } = await pair(options);
    for (const text of ['one', 'two']) {
      left.inject(packet('10.1.0.1', '10.2.0.1', text));
      await eventually(`packet ${text}`, () => texts(right).includes(text));
      expect(key).toEqual(utf8('a secret'));
      a.host.engine.ike.closeConnection(a.host.now(), 'net');
      a.host.drain();
      await eventually('the end of the IKE SA', () => a.host.engine.ike.status().length === 0);
      await eventually('its end at the peer', () => b.host.engine.ike.status().length === 0);
    }
    expect(read).toEqual([key, key]);
    expect(read[0]).toBe(key);
  });

  it.each([0, 32])('takes %i bytes of zeros for no key, from either side', async (length) => {
    const network = new MemoryNetwork();
    const options = { secretFor: () => new Uint8Array(length) };
    const a = end(network.host([address('192.0.2.1')]), options);
    const b = end(network.host([address('192.0.2.2')]), options);
    await b.host.add(opposite(tunnel()), new MemoryDevice());
    await a.host.add(tunnel({ start: 'initiate' }), new MemoryDevice());
    await eventually('a refusal', () => a.events.some((event) => event.type === 'failed'));
    expect(a.events).toContainEqual(expect.objectContaining({ type: 'failed', reason: 'no-secret' }));
    expect(a.events).toContainEqual(
      expect.objectContaining({ type: 'note', text: expect.stringContaining('is empty or all zeros') }),
    );
    expect([...a.events, ...b.events].filter(({ type }) => type === 'ike-up')).toEqual([]);
  });

  it('wait for late secrets, leave them to the program, and report those that cannot be read', async () => {
    const given: Uint8Array[] = [];
    const late = async (): Promise<Uint8Array> => {
      await sleep(20);
      given.push(utf8('a secret'));
      return given[0]!;
    };
    const { left, right } = await pair({ secretFor: late });
    left.inject(packet('10.1.0.1', '10.2.0.1', 'first'));
    const arrived: string[] = [];
    await eventually('the packet', () => arrived.push(...texts(right)) > 0);
    expect(given).toEqual([utf8('a secret')]);

    const broken = await pair({
      secretFor: () => {
        throw new Error('the vault is shut');
      },
    });
    broken.left.inject(packet('10.1.0.1', '10.2.0.1', 'first'));
    await eventually('the failure', () => broken.a.events.some(({ type }) => type === 'failed'));
    expect(broken.a.events).toEqual([
      { type: 'note', tunnel: 't', level: 'warn', text: 'the secret could not be read: the vault is shut' },
      expect.objectContaining({ type: 'failed', reason: 'no-secret' }),
    ]);
  });
});

describe('sockets', () => {
  it('are shared by tunnels, and closed with the last one', async () => {
    const { network, open } = counting(new MemoryNetwork().host([address('192.0.2.1')]));
    const { host } = end(network);
    await Promise.all([0, 1, 2].map((n) => host.add(numbered(n), new MemoryDevice())));
    expect([...open].map(({ local }) => local.port).sort()).toEqual([4500, 500].sort());
    await host.remove('t0');
    await host.remove('t2');
    expect(open.size).toBe(2);
    // One that is added while the last is removed waits for the ports.
    await Promise.all([host.remove('t1'), host.add(numbered(3), new MemoryDevice())]);
    expect(open.size).toBe(2);
    expect(count(host)).toBe(2);
    await host.close();
    expect([open.size, count(host)]).toEqual([0, 0]);
  });

  it('are bound again after they were closed a moment before', async () => {
    const { network, open } = counting(new MemoryNetwork().host([address('192.0.2.1')]));
    const pool = new SocketPool({ network, onDatagram: () => undefined, sourceFor: () => undefined });
    const need = [{ kind: 'udp' as const, family: 4 as const, address: address('192.0.2.1'), port: 500 }];
    await pool.acquire(need);
    const released = pool.release(need);
    await pool.acquire(need);
    await released;
    expect(open.size).toBe(1);
    expect([...pool.sockets()]).toEqual([...open]);
    expect(pool.send(Uint8Array.of(1), at('192.0.2.1', 500), at('192.0.2.9', 500))).toBe(true);
    await pool.release(need);
    await pool.release(need);
    expect(open.size).toBe(0);
    expect(pool.send(Uint8Array.of(1), at('192.0.2.1', 500), at('192.0.2.9', 500))).toBe(false);
    expect(pool.homeless).toBe(1);
  });

  it('of which one cannot be opened leave none open, and no tunnel', async () => {
    const { network, open } = counting(new MemoryNetwork().host([address('192.0.2.1')]), (port) => port === 4500);
    const { host } = end(network);
    const device = new MemoryDevice();
    await expect(host.add(tunnel(), device)).rejects.toThrow("port 4500 is another's");
    expect([open.size, count(host)]).toEqual([0, 0]);
    expect(host.engine.tunnel('t')).toBeUndefined();
    expect(host.device('t')).toBeUndefined();
    // The device is still the caller's.
    expect(device.inject(packet('10.1.0.1', '10.2.0.1', 'x'))).toBe(true);
  });

  it('of IPv6 may be wanting on a host without it, where no address says that they are needed', async () => {
    const memory = new MemoryNetwork().host([address('192.0.2.1')]);
    const fails = (code: string): UdpNetwork => ({
      async bind(options) {
        if (options.address.family === 4) return memory.bind(options);
        throw new Error('no IPv6', { cause: Object.assign(new Error(code), { code }) });
      },
    });
    const base = connection();
    const anybody = (local: Partial<typeof base.local> = {}): TunnelConfig =>
      tunnel({
        start: 'respond',
        connections: [
          connection({
            local: { ...base.local, address: undefined, ...local },
            remote: { ...base.remote, address: undefined },
          }),
        ],
      });
    const { host } = end(fails('EADDRNOTAVAIL'));
    await host.add(anybody(), new MemoryDevice());
    expect([...host.sockets.sockets()].map(({ local }) => local.address.family)).toEqual([4, 4]);
    await host.remove('t');
    expect(count(host)).toBe(0);
    await expect(host.add(anybody({ address: address('2001:db8::1') }), new MemoryDevice())).rejects.toThrow('no IPv6');
    await expect(end(fails('EADDRINUSE')).host.add(anybody(), new MemoryDevice())).rejects.toThrow('no IPv6');
    expect(count(host)).toBe(0);
  });

  it('are given back when the engine refuses the tunnel', async () => {
    const { network, open } = counting(new MemoryNetwork().host([address('192.0.2.1')]));
    const { host } = end(network);
    await host.add(tunnel(), new MemoryDevice());
    await expect(host.add(tunnel(), new MemoryDevice())).rejects.toThrow('named t already');
    await expect(host.add(numbered(1, { proposals: [] }), new MemoryDevice())).rejects.toThrow('no IKE proposal');
    expect(open.size).toBe(2);
    await host.remove('t');
    expect(open.size).toBe(0);
    await host.remove('t');
  });

  it('of all addresses and of one do not go together on a port, which is said before the system says it', async () => {
    const { network, open } = counting(new MemoryNetwork().host([address('192.0.2.1')]));
    const { host } = end(network);
    const { address: _, ...anywhere } = connection().local;
    await host.add(numbered(0), new MemoryDevice());
    await expect(host.add(numbered(1, { local: anywhere }), new MemoryDevice())).rejects.toThrow(
      /UDP 0\.0\.0\.0:500: another tunnel has 192\.0\.2\.1:500.*give every tunnel its local address, or none/,
    );
    expect(open.size).toBe(2);
    await host.remove('t0');
    await host.add(numbered(1, { local: anywhere }), new MemoryDevice());
    await expect(host.add(numbered(0), new MemoryDevice())).rejects.toThrow(
      /192\.0\.2\.1:500: another tunnel has 0\.0/,
    );
  });

  it('count what cannot be sent', async () => {
    const { host } = end(new MemoryNetwork().host([address('192.0.2.1')]));
    const [first] = numbered(0).connections;
    // Nobody can be reached at port 0.
    await host.add(
      { ...numbered(0, { remote: { ...first!.remote, port: 0 } }), start: 'initiate' },
      new MemoryDevice(),
    );
    const [errors] = [...host.sockets.sockets()].map((socket) => socket.counters.sendErrors.other);
    expect(errors).toBe(1);
  });
});

describe('a device', () => {
  it('that is taken away loses packets, and nothing else, where the program sees to it', async () => {
    const { a, b, left, right } = await pair({ onDeviceLost: () => undefined });
    left.inject(packet('10.1.0.1', '10.2.0.1', 'first'));
    const arrived: string[] = [];
    await eventually('the packet', () => arrived.push(...texts(right)) > 0);
    left.fail(new Error('the interface was deleted'));
    right.inject(packet('10.2.0.1', '10.1.0.1', 'lost'));
    await eventually('the loss', () => left.counters.dropped.closed === 1);
    expect(left.inject(packet('10.1.0.1', '10.2.0.1', 'lost too'))).toBe(false);
    await a.host.remove('t');
    await eventually('the deletion', () => b.events.some(({ type }) => type === 'ike-down'));
    expect(a.host.device('t')).toBeUndefined();
  });

  it('that cannot be closed keeps no socket', async () => {
    const { host } = end(new MemoryNetwork().host([address('192.0.2.1')]));
    const device = new MemoryDevice();
    device.close = () => Promise.reject(new Error('it is stuck'));
    await host.add(tunnel(), device);
    await expect(host.close()).rejects.toThrow('it is stuck');
    expect(count(host)).toBe(0);
    await host.close();
  });

  it('is read in turns, so that other work is not starved', async () => {
    const { host } = end(new MemoryNetwork().host([address('192.0.2.1')]));
    let reads = 0;
    let handler: (() => void) | undefined;
    const device = new MemoryDevice();
    device.onReadable = (called) => {
      handler = called;
    };
    device.read = (batch: PacketBatch) => {
      reads++;
      return batch.push(packet('10.9.0.1', '10.9.0.2', 'x')) + 1;
    };
    await host.add(tunnel(), device);
    handler?.();
    expect(reads).toBeLessThan(10);
    expect(reads).toBeGreaterThan(1);
  });
});

describe('a host that is closed', () => {
  it('starts nothing any more, whatever comes late', async () => {
    let answer: ((secret: Uint8Array) => void) | undefined;
    const secretFor = (): Promise<Uint8Array> =>
      new Promise((resolve) => {
        answer = resolve;
      });
    const { a, b, left, right } = await pair({ secretFor });
    left.inject(packet('10.1.0.1', '10.2.0.1', 'first'));
    await eventually('the question', () => answer !== undefined);
    const refused = expect(a.host.add(numbered(5), new MemoryDevice())).rejects.toThrow('closed');
    await a.host.close();
    await refused;
    answer?.(utf8('a secret'));
    await sleep(10);
    expect([count(a.host), texts(right).length]).toEqual([0, 0]);
    await b.host.close();
    await a.host.close();
  });

  it('has no socket open when its state is handed over, whoever waits for one', async () => {
    const { network, open } = counting(new MemoryNetwork().host([address('192.0.2.1')]));
    const { host } = end(network, { resumable: true });
    await host.add(numbered(1), new MemoryDevice());
    const words = { local: { ...connection().local, port: 4501, natPort: 4501 } };
    const late = expect(host.add(numbered(2, words), new MemoryDevice())).rejects.toThrow('the host is closed');
    const state = await host.handOver();
    expect(state.length).toBeGreaterThan(0);
    expect(open.size).toBe(0);
    await late;
    await expect(host.add(numbered(3), new MemoryDevice())).rejects.toThrow('the host is closed');
    expect(open.size).toBe(0);
  });

  it('holds nothing that keeps the process alive, whenever it is closed', async () => {
    const held = (): string[] => process.getActiveResourcesInfo().filter((kind) => /timeout|udp/i.test(kind));
    // Vitest has timers of its own; those of a host would be there for minutes.
    const nothing = () => eventually('the end of all timers', () => held().length <= before, 400);
    await sleep(50);
    const before = held().length;
    for (const wait of [0, 1, 2, 5, 10, 50]) {
      const { a, b, left } = await pair();
      left.inject(packet('10.1.0.1', '10.2.0.1', 'first'));
      await sleep(wait);
      await a.host.close();
      await b.host.close();
      // As a late answer does; the engine still waits for the peer to confirm the deletion.
      a.host.drain();
      await nothing();
    }
    const real = end(nodeUdp);
    const local = { ...connection().local, address: address('127.0.0.1'), port: 0, natPort: 0 };
    await real.host.add(tunnel({ connections: [connection({ local })], start: 'initiate' }), new MemoryDevice());
    expect(held().length).toBeGreaterThan(before);
    await real.host.close();
    await nothing();
  });
});

describe('what the system refuses', () => {
  it('of a device leaves nothing of its tunnel, which can be added again', async () => {
    const { a, b, right } = await pair();
    await a.host.remove('t');
    const before = count(a.host);
    const broken = new MemoryDevice();
    broken.onReadable = () => {
      throw new RangeError('Array buffer allocation failed');
    };
    await expect(a.host.add(tunnel(), broken)).rejects.toThrow('allocation failed');
    expect([a.host.engine.tunnel('t'), count(a.host)]).toEqual([undefined, before]);
    const again = new MemoryDevice();
    await a.host.add(tunnel(), again);
    again.inject(packet('10.1.0.1', '10.2.0.1', 'again'));
    await eventually('the packet', () => texts(right).includes('again'));
    expect(b.events.some(({ type }) => type === 'child-up')).toBe(true);
  });

  it('of routes is reported, and the tunnel comes up without', async () => {
    const refuse = (): never => {
      throw new Error('No buffer space available (ENOBUFS)');
    };
    const { a, left, right } = await pair({ localAddressFor: refuse, pathMtuFor: refuse });
    left.inject(packet('10.1.0.1', '10.2.0.1', 'first'));
    await eventually('the packet', () => texts(right).includes('first'));
    expect(a.events.flatMap((event) => (event.type === 'note' ? [event.text] : []))).toContain(
      'the system could not be asked for a route: No buffer space available (ENOBUFS)',
    );
  });
});
