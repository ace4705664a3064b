/** What sockets of every kind do. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it, onTestFinished } from 'vitest';
import { formatSocketAddress } from '../../../src/base/address.ts';
import { equalBytes } from '../../../src/base/bytes.ts';
import { hasLinuxUdp, linuxUdp } from '../../../src/tun/udp/linux.ts';
import type { UdpBindOptions, UdpSocket } from '../../../src/tun/udp/udp.ts';
import { arrivals, batchOf, ip, networks, payload, Sockets, sendErrors, until } from './support.ts';

describe.each(networks)('UDP by %s', (_name, network) => {
  const sockets = new Sockets();
  const bind = (address: string, options: Partial<UdpBindOptions> = {}): Promise<UdpSocket> =>
    sockets.bind(network, address, options);

  afterEach(() => sockets.close());

  it.each(['127.0.0.1', '::1'])('carries datagrams over %s and lets the buffer be reused at once', async (host) => {
    const a = await bind(host);
    const b = await bind(host);
    const received = arrivals(b, 300);
    const data = new Uint8Array(1400);
    for (let i = 0; i < 300; i++) {
      data.fill(i & 0xff);
      expect(a.send(data, b.local)).toBe(true);
      data.fill(0xee);
      if (i % 50 === 49) await new Promise((resolve) => setImmediate(resolve));
    }
    for (const [i, arrival] of (await received).entries()) {
      expect(equalBytes(arrival.data, new Uint8Array(1400).fill(i & 0xff)), `datagram ${i}`).toBe(true);
      expect(formatSocketAddress(arrival.from)).toBe(formatSocketAddress(a.local));
      expect(arrival.local).toEqual(b.local);
    }
    await until(() => a.counters.sentDatagrams === 300);
    expect(a.counters.sentBytes).toBe(300 * 1400);
    expect(b.counters).toMatchObject({ receivedDatagrams: 300, receivedBytes: 300 * 1400 });
  });

  it.each([0, 1, 60_000, 65_507])('carries a datagram of %i bytes', async (length) => {
    const a = await bind('127.0.0.1');
    const b = await bind('127.0.0.1');
    const received = arrivals(b, 1);
    a.send(new Uint8Array(length).fill(7), b.local);
    expect(equalBytes((await received)[0]!.data, new Uint8Array(length).fill(7))).toBe(true);
  });

  it.each(['127.0.0.1', '::1'])('carries batches of mixed sizes over %s in their order', async (host) => {
    const a = await bind(host);
    const b = await bind(host);
    const lengths = [100, 1400, 1400, 1400, 1399, 1400, 0, 0, 1400, 3, 3, 1, 1, 2, 0, 1400, 1400, 60_000, 5, 5];
    const batch = batchOf(lengths);
    // Not all: what stands before and behind is not this call's.
    const received = arrivals(b, 15);
    expect(a.sendBatch(batch, 1, 19, { to: b.local })).toBe(15);
    batch.buffer.fill(0xee);
    const wanted = lengths.map((length, slot) => [slot, length] as const).slice(1, 19);
    const sent = wanted.filter(([, length]) => length > 0);
    for (const [i, { data }] of (await received).entries()) {
      expect(equalBytes(data, payload(...sent[i]!)), `datagram ${i} of ${data.length} bytes`).toBe(true);
    }
    await until(() => a.counters.sentDatagrams === 15);
    expect(a.counters.sentBytes).toBe(sent.reduce((sum, [, length]) => sum + length, 0));
  });

  it('distinguishes peers by address and port', async () => {
    const [a, b, c] = [await bind('127.0.0.1'), await bind('127.0.0.1'), await bind('127.0.0.1')];
    const received = arrivals(c, 4);
    for (const socket of [a, b, a, b]) socket.send(Uint8Array.of(1), c.local);
    const ports = (await received).map(({ from }) => from.port);
    expect([...ports].sort()).toEqual([a.local.port, a.local.port, b.local.port, b.local.port].sort());
  });

  it('counts what it refuses, and never throws', async () => {
    const a = await bind('127.0.0.1');
    const to = { address: ip('127.0.0.1'), port: 9 };
    const batch = batchOf([10, 0, 10]);
    expect(a.send(new Uint8Array(65_508), to)).toBe(false);
    expect(a.send(Uint8Array.of(1), { address: ip('::1'), port: 9 })).toBe(false);
    expect(a.send(Uint8Array.of(1), { ...to, port: 0 })).toBe(false);
    expect(a.sendBatch(batch, 0, 3, { to: { address: ip('::1'), port: 9 } })).toBe(0);
    await a.close();
    expect(a.send(Uint8Array.of(1), to)).toBe(false);
    expect(a.sendBatch(batch, 0, 3, { to })).toBe(0);
    expect(sendErrors(a)).toEqual({ EMSGSIZE: 1, 'wrong-family': 3, other: 1, closed: 3 });
    expect(a.counters.sentDatagrams).toBe(0);
  });

  it('counts the errors of the system', async () => {
    // From a loopback source there is no way to the outside, and broadcast needs a permission of its own.
    const a = await bind('127.0.0.1');
    a.send(Uint8Array.of(1), { address: ip('255.255.255.255'), port: 9 });
    await until(() => Object.keys(sendErrors(a)).length > 0);
    expect(Object.values(sendErrors(a))).toEqual([1]);
    expect(a.counters.sentDatagrams).toBe(0);
  });

  it('says which program has the port', async () => {
    const a = await bind('127.0.0.1');
    const { port } = a.local;
    await expect(network.bind({ address: ip('127.0.0.1'), port })).rejects.toThrow(
      new RegExp(`^UDP 127\\.0\\.0\\.1:${port}: .*EADDRINUSE.*Another program has the port.*:${port}\\)`),
    );
  });

  it('says that the address is not here', async () => {
    await expect(network.bind({ address: ip('192.0.2.77'), port: 0 })).rejects.toThrow('not one of this host');
  });

  it('receives no IPv4 on an IPv6 socket: both families can have the same port', async () => {
    const six = await bind('::');
    const four = await bind('0.0.0.0', { port: six.local.port });
    expect(four.local.port).toBe(six.local.port);
  });

  it('calls no handler after it was closed by one', async () => {
    const a = await bind('127.0.0.1');
    const b = await bind('127.0.0.1');
    let seen = 0;
    const closed = new Promise<void>((resolve) => {
      b.onDatagram(() => {
        seen++;
        void b.close().then(resolve);
      });
    });
    a.sendBatch(batchOf(new Array<number>(20).fill(100)), 0, 20, { to: b.local });
    await closed;
    await sleep(20);
    expect(seen).toBe(1);
  });

  it('lets others have their turn while a flood comes in', async () => {
    const a = await bind('127.0.0.1');
    const b = await bind('127.0.0.1');
    b.onDatagram(() => undefined);
    const batch = batchOf(new Array<number>(64).fill(1400));
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    onTestFinished(() => clearInterval(timer));
    // Ends by the test's time limit when the timer has no turn.
    while (ticks <= 5 || b.counters.receivedDatagrams <= 100) {
      a.sendBatch(batch, 0, 64, { to: b.local });
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(ticks).toBeGreaterThan(5);
    expect(b.counters.receivedDatagrams).toBeGreaterThan(100);
  });
});

/** Busy for a millisecond: what a key exchange for a stranger costs, and more. */
function work(): void {
  for (const end = performance.now() + 1; performance.now() < end; );
}

describe.skipIf(!hasLinuxUdp())('a socket for IKE, whose datagrams are expensive', () => {
  const sockets = new Sockets();
  afterEach(() => sockets.close());

  it('lets others have their turn after some milliseconds, not after hundreds of datagrams', async () => {
    const network = linuxUdp();
    const a = await sockets.bind(network, '127.0.0.1');
    const b = await sockets.bind(network, '127.0.0.1', { ikeOnly: true });
    let seen = 0;
    let inTurn = 0;
    let most = 0;
    const nextTurn = (): void => {
      most = Math.max(most, inTurn);
      inTurn = 0;
      if (seen < 100) setImmediate(nextTurn);
    };
    b.onDatagram(() => {
      seen++;
      inTurn++;
      work();
    });
    a.sendBatch(batchOf(new Array<number>(100).fill(100)), 0, 100, { to: b.local });
    nextTurn();
    await until(() => seen === 100);
    // One read of eight, and another when the first took less than four milliseconds.
    expect(most).toBeLessThanOrEqual(16);
  });
});
