/** ESP straight over IP by Linux's raw sockets, between addresses of one network namespace. */
import { createRequire } from 'node:module';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { NO_PORT, type SocketAddress } from '../../../src/base/address.ts';
import { linuxRawEsp } from '../../../src/tun/udp/raw.ts';
import type { UdpSocket } from '../../../src/tun/udp/udp.ts';
import { describeInterop } from '../../support/lab/requirements.ts';
import { enterNewNamespace, ipCommand } from '../namespace.ts';
import { arrivals, batchOf, ip, payload, sendErrors, until } from './support.ts';

const CAP_NET_RAW = 13;

const at = (text: string, port: number = NO_PORT): SocketAddress => ({ address: ip(text), port });

/** Takes a capability from this thread while something is done. */
async function without<T>(capability: number, action: () => Promise<T>): Promise<T> {
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
  const library = koffi.load(null);
  const capget = library.func('int capget(void *header, void *data)');
  const capset = library.func('int capset(void *header, void *data)');
  const header = new Uint32Array([0x2008_0522, 0]);
  const data = new Uint32Array(6);
  expect(capget(header, data)).toBe(0);
  const effective = data[0]!;
  data[0] = effective & ~(1 << capability);
  expect(capset(header, data)).toBe(0);
  try {
    return await action();
  } finally {
    data[0] = effective;
    expect(capset(header, data)).toBe(0);
  }
}

describeInterop('ESP straight over IP', ['namespaces'], () => {
  let leave: () => void;
  const open: UdpSocket[] = [];

  beforeAll(() => {
    leave = enterNewNamespace();
    ipCommand('link', 'set', 'lo', 'up');
    for (const address of ['192.0.2.1/32', '192.0.2.2/32']) ipCommand('address', 'add', address, 'dev', 'lo');
    for (const address of ['2001:db8::1/128', '2001:db8::2/128']) {
      ipCommand('address', 'add', address, 'dev', 'lo', 'nodad');
    }
  });
  afterAll(() => leave());
  afterEach(async () => {
    for (const socket of open.splice(0)) await socket.close();
  });

  async function raw(family: 4 | 6): Promise<UdpSocket> {
    const socket = await linuxRawEsp(family);
    open.push(socket);
    return socket;
  }

  it.each([
    [4, '192.0.2.1', '192.0.2.2'],
    [6, '2001:db8::1', '2001:db8::2'],
  ] as const)(
    'carries IPv%d packets without their IP header, and tells both addresses and the class',
    async (family, a, b) => {
      const socket = await raw(family);
      expect(socket.local).toEqual(at(family === 4 ? '0.0.0.0' : '::'));
      const lengths = [64, 0, 1400, 1400, 9, 60_000];
      const came = arrivals(socket, 6);
      const batch = batchOf(lengths);
      batch.trafficClass.fill(0xb8);
      expect(socket.sendBatch(batch, 0, batch.count, { to: at(b), from: at(a) })).toBe(5);
      expect(socket.send(payload(9, 100), at(a), at(b), 2)).toBe(true);
      const seen = await came;
      expect(seen.map(({ data }) => data.length)).toEqual([64, 1400, 1400, 9, 60_000, 100]);
      expect(seen.slice(0, 5).map(({ data }) => data)).toEqual(
        [0, 2, 3, 4, 5].map((slot) => payload(slot, lengths[slot]!)),
      );
      for (const { from, local, trafficClass } of seen.slice(0, 5)) {
        expect([from, local, trafficClass]).toEqual([at(a), at(b), 0xb8]);
      }
      expect(seen[5]).toEqual({ data: payload(9, 100), from: at(b), local: at(a), trafficClass: 2 });
      expect(socket.counters).toMatchObject({ sentDatagrams: 6, receivedDatagrams: 6, receiveErrors: 0 });
      expect(socket.features).toEqual(['esp', 'recvmmsg', 'sendmmsg', 'ecn']);
    },
  );

  it('reaches no socket at a port', async () => {
    const socket = await raw(4);
    expect(socket.send(payload(0, 40), at('192.0.2.2', 4500), at('192.0.2.1'))).toBe(false);
    expect(socket.send(payload(0, 40), at('2001:db8::2'))).toBe(false);
    expect(socket.send(payload(0, 40), at('192.0.2.2'), at('192.0.2.77'))).toBe(false);
    expect(sendErrors(socket)).toEqual({ other: 1, 'wrong-family': 1, ENETUNREACH: 1 });
  });

  it('is counted when no host is there, and still reaches others', async () => {
    const socket = await raw(4);
    ipCommand('route', 'add', 'unreachable', '198.51.100.0/24');
    expect(socket.send(payload(0, 40), at('198.51.100.1'))).toBe(false);
    expect(sendErrors(socket)).toEqual({ EHOSTUNREACH: 1 });
    const came = arrivals(socket, 1);
    expect(socket.send(payload(0, 40), at('192.0.2.2'))).toBe(true);
    expect(await came).toMatchObject([{ data: payload(0, 40) }]);
  });

  it('learns that the path MTU is smaller, and nothing is lost by it', async () => {
    const socket = await raw(4);
    const mtu = ['route', 'replace', 'local', '192.0.2.2', 'dev', 'lo', 'table', 'local', 'mtu', '1000'];
    ipCommand(...mtu);
    const came = arrivals(socket, 1);
    expect(socket.send(payload(0, 3000), at('192.0.2.2'))).toBe(true);
    // In fragments, which the kernel puts together again.
    expect((await came)[0]!.data).toEqual(payload(0, 3000));
    ipCommand(...mtu.slice(0, -2));
  });

  it('says which capability it needs', async () => {
    await without(CAP_NET_RAW, async () => {
      await expect(linuxRawEsp(4)).rejects.toThrow(
        /^ESP over IPv4: socket: Operation not permitted \(EPERM\)\. This needs the capability CAP_NET_RAW .*let ESP go in UDP$/,
      );
    });
    await raw(4);
  });

  it('is closed for good', async () => {
    const socket = await raw(4);
    await socket.close();
    expect(socket.send(payload(0, 40), at('192.0.2.2'))).toBe(false);
    await until(() => socket.counters.sendErrors.closed === 1);
  });
});
