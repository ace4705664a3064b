import { afterEach, describe, expect, it } from 'vitest';
import { formatSocketAddress, type IpAddress, parseAddress, type SocketAddress } from '../../src/base/address.ts';
import { equalBytes } from '../../src/base/bytes.ts';
import type { UdpBindOptions, UdpSocket } from '../../src/tun/udp.ts';
import { nodeUdp } from '../../src/tun/udp-node.ts';

const ip = (text: string): IpAddress => parseAddress(text)!;
const open: UdpSocket[] = [];

async function bind(address: string, options: Partial<UdpBindOptions> = {}): Promise<UdpSocket> {
  const socket = await nodeUdp.bind({ address: ip(address), port: 0, ...options });
  open.push(socket);
  return socket;
}

interface Arrival {
  readonly data: Uint8Array;
  readonly from: SocketAddress;
  readonly local: SocketAddress;
}

/** The next `count` datagrams that come to a socket. */
function arrivals(socket: UdpSocket, count: number): Promise<Arrival[]> {
  return new Promise((resolve) => {
    const seen: Arrival[] = [];
    socket.onDatagram((data, from, local) => {
      seen.push({ data: data.slice(), from, local });
      if (seen.length === count) resolve(seen);
    });
  });
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

afterEach(async () => {
  for (const socket of open.splice(0)) await socket.close();
});

describe('UDP by dgram', () => {
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

  it('carries datagrams larger than its send slots', async () => {
    const a = await bind('127.0.0.1');
    const b = await bind('127.0.0.1');
    const received = arrivals(b, 1);
    a.send(new Uint8Array(60_000).fill(7), b.local);
    expect(equalBytes((await received)[0]!.data, new Uint8Array(60_000).fill(7))).toBe(true);
  });

  it('reports the looked-up local address when bound to all, asking once for a peer', async () => {
    let asked = 0;
    const a = await bind('127.0.0.1');
    const b = await bind('0.0.0.0', {
      sourceFor: () => {
        asked++;
        return ip('127.0.0.1');
      },
    });
    const received = arrivals(b, 3);
    for (let i = 0; i < 3; i++) a.send(Uint8Array.of(i), { address: ip('127.0.0.1'), port: b.local.port });
    for (const arrival of await received) {
      expect(formatSocketAddress(arrival.local)).toBe(`127.0.0.1:${b.local.port}`);
    }
    expect(asked).toBe(1);
  });

  it('tells peers apart by address and port', async () => {
    const [a, b, c] = [await bind('127.0.0.1'), await bind('127.0.0.1'), await bind('127.0.0.1')];
    const received = arrivals(c, 4);
    for (const socket of [a, b, a, b]) socket.send(Uint8Array.of(1), c.local);
    const ports = (await received).map(({ from }) => from.port);
    expect([...ports].sort()).toEqual([a.local.port, a.local.port, b.local.port, b.local.port].sort());
  });

  it('counts what it refuses, and never throws', async () => {
    const a = await bind('127.0.0.1');
    const to = { address: ip('127.0.0.1'), port: 9 };
    expect(a.send(new Uint8Array(65_508), to)).toBe(false);
    expect(a.send(Uint8Array.of(1), { address: ip('::1'), port: 9 })).toBe(false);
    expect(a.send(Uint8Array.of(1), { ...to, port: 0 })).toBe(false);
    await a.close();
    expect(a.send(Uint8Array.of(1), to)).toBe(false);
    expect(a.counters.sendErrors).toMatchObject({ EMSGSIZE: 1, 'wrong-family': 1, other: 1, closed: 1 });
    expect(a.counters.sentDatagrams).toBe(0);
  });

  it('counts the errors of the system by name', async () => {
    // From a loopback source there is no way to the outside, and broadcast needs a permission of its own.
    const a = await bind('127.0.0.1');
    expect(a.send(Uint8Array.of(1), { address: ip('255.255.255.255'), port: 9 })).toBe(true);
    const total = (): number => Object.values(a.counters.sendErrors).reduce((sum, count) => sum + count, 0);
    await until(() => total() === 1);
    expect(a.counters.sentDatagrams).toBe(0);
  });

  it('says who has the port', async () => {
    const a = await bind('127.0.0.1');
    const { port } = a.local;
    await expect(nodeUdp.bind({ address: ip('127.0.0.1'), port })).rejects.toThrow(
      new RegExp(`^UDP 127\\.0\\.0\\.1:${port}: .*EADDRINUSE.*Another program has the port.*:${port}\\)`),
    );
  });

  it('says that the address is not here', async () => {
    await expect(nodeUdp.bind({ address: ip('192.0.2.77'), port: 0 })).rejects.toThrow('not one of this host');
  });

  it('takes no IPv4 on an IPv6 socket: both families can have the same port', async () => {
    const six = await bind('::');
    const four = await nodeUdp.bind({ address: ip('0.0.0.0'), port: six.local.port });
    open.push(four);
    expect(four.local.port).toBe(six.local.port);
  });
});
