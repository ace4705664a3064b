/** UDP sockets by system calls, over a veth pair between two namespaces, and what goes wrong on the way. */
import { type ChildProcess, spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import { formatSocketAddress, type SocketAddress } from '../../../src/base/address.ts';
import type { PacketBatch } from '../../../src/base/batch.ts';
import { equalBytes } from '../../../src/base/bytes.ts';
import { ERRNO } from '../../../src/sys/errno.ts';
import { libc } from '../../../src/sys/libc.ts';
import { linuxUdp } from '../../../src/tun/udp/linux.ts';
import type { UdpNetwork, UdpSocket } from '../../../src/tun/udp/udp.ts';
import { describeInterop } from '../../support/lab/requirements.ts';
import { enterNewNamespace, ipCommand } from '../namespace.ts';
import { type Arrival, arrivals, batchOf, ip, payload, Sockets, sendErrors, until } from './support.ts';

/** The addresses of the far end, several for the same port. */
const FAR = ['10.88.0.2', '10.88.0.3', '2001:db8:88::2', '2001:db8:88::3'] as const;
const NEAR = ['10.88.0.1', '2001:db8:88::1'] as const;

const at = (address: string, port: number): SocketAddress => ({ address: ip(address), port });
const same = (length: number, count: number): number[] => new Array<number>(count).fill(length);
const openDescriptors = (): number => readdirSync('/proc/self/fd').length;

/** Sequence numbers in the first bytes of packets, so that order and loss show. */
function number(batch: PacketBatch, first: number): void {
  for (let slot = 0; slot < batch.count; slot++) {
    new DataView(batch.buffer.buffer, batch.offset[slot]!).setUint32(0, first + slot);
  }
}

describeInterop('UDP by system calls between two hosts', ['namespaces'], () => {
  const sockets = new Sockets();
  const network = linuxUdp();
  /** Keeps the near namespace by a name that iproute2 takes. */
  let holder: ChildProcess;
  let leave: () => void;
  let far4: UdpSocket;
  let far6: UdpSocket;
  let farPlain: UdpSocket;

  const bind = (address: string, from: UdpNetwork = network): Promise<UdpSocket> => sockets.bind(from, address);

  beforeAll(async () => {
    leave = enterNewNamespace();
    holder = spawn('sleep', ['120'], { stdio: 'ignore' });
    const leaveFar = enterNewNamespace();
    ipCommand('link', 'add', 'far', 'type', 'veth', 'peer', 'name', 'near', 'netns', String(holder.pid));
    bringUp('far', [...FAR, 'fe80::2']);
    // A socket stays in the namespace that it was made in.
    far4 = await network.bind({ address: ip('0.0.0.0'), port: 4500 });
    far6 = await network.bind({ address: ip('::'), port: 4500 });
    farPlain = await linuxUdp({ gro: false, gso: false }).bind({ address: ip('0.0.0.0'), port: 4501 });
    leaveFar();
    bringUp('near', [...NEAR, 'fe80::1']);
  });
  afterEach(() => sockets.close());
  afterAll(async () => {
    for (const socket of [far4, far6, farPlain]) await socket.close();
    holder.kill();
    leave();
  });

  function bringUp(device: string, addresses: readonly string[]): void {
    ipCommand('link', 'set', 'lo', 'up');
    for (const address of addresses) {
      const words = address.includes(':') ? [`${address}/64`, 'nodad'] : [`${address}/24`];
      ipCommand('addr', 'add', ...words, 'dev', device);
    }
    ipCommand('link', 'set', device, 'up');
  }

  /** What the interface counts: a run that the kernel was left to cut is one. */
  function sentOnWire(): number {
    const [link] = JSON.parse(ipCommand('-j', '-s', 'link', 'show', 'near')) as [
      { stats64: { tx: { packets: number } } },
    ];
    return link.stats64.tx.packets;
  }

  it('says what it uses', async () => {
    expect(far4.features).toEqual(['gro', 'gso', 'ecn']);
    expect(farPlain.features).toEqual(['recvmmsg', 'sendmmsg', 'ecn']);
  });

  it.each([
    ['GSO to GRO', {}, 4500],
    ['GSO to single datagrams', {}, 4501],
    ['single datagrams to GRO', { gso: false }, 4500],
  ] as const)('loses and reorders nothing: %s', async (_name, options, port) => {
    const near = await bind(NEAR[0], linuxUdp(options));
    const lengths = [...same(1400, 45), 700, ...same(1400, 10), 33, 34, 1400, 1400, 1399, 1400, 64, 64];
    const batch = batchOf(lengths);
    const receiver = port === 4500 ? far4 : farPlain;
    let received = 0;
    let wrong = 0;
    receiver.onDatagram((data) => {
      const slot = received % lengths.length;
      const sequence = new DataView(data.buffer, data.byteOffset).getUint32(0);
      const rest = payload(slot, lengths[slot]!).subarray(4);
      if (sequence !== received || !equalBytes(data.subarray(4), rest)) wrong++;
      received++;
    });
    const before = sentOnWire();
    for (let round = 0; round < 100; round++) {
      number(batch, round * lengths.length);
      expect(near.sendBatch(batch, 0, lengths.length, { to: at(FAR[0], port) })).toBe(lengths.length);
      if (round % 5 === 4) await until(() => received === (round + 1) * lengths.length);
    }
    expect(wrong).toBe(0);
    const onWire = sentOnWire() - before;
    if ('gso' in options) expect(onWire).toBeGreaterThanOrEqual(received);
    else expect(onWire).toBeLessThan(received / 5);
  });

  it.each([
    [FAR[0], 'to GRO', 4500],
    [FAR[2], 'to GRO', 4500],
    [FAR[0], 'to single datagrams', 4501],
  ] as const)('carries DSCP and ECN of each datagram: %s, %s', async (address, _name, port) => {
    const near = await bind(address.includes(':') ? NEAR[1] : NEAR[0]);
    const far = port === 4501 ? farPlain : address.includes(':') ? far6 : far4;
    const classes = [0, 0, 0, 2, 2, 3, 2, 0xb8, 0xb8, 0xbb, 1, 1, 0xff, 0];
    const batch = batchOf(same(1000, classes.length));
    batch.trafficClass.set(classes);
    const got = arrivals(far, classes.length + 2);
    near.sendBatch(batch, 0, classes.length, { to: at(address, port) });
    near.send(Uint8Array.of(1), at(address, port), undefined, 0x2b);
    near.send(Uint8Array.of(2), at(address, port));
    expect((await got).map(({ trafficClass }) => trafficClass)).toEqual([...classes, 0x2b, 0]);
  });

  it.each(FAR)('knows that a datagram came to %s, and answers from there', async (address) => {
    const [far, near] = address.includes(':') ? [far6, await bind('::')] : [far4, await bind('0.0.0.0')];
    const asked = arrivals(far, 1);
    near.send(Uint8Array.of(1), at(address, 4500));
    const [{ from, local }] = (await asked) as [Arrival];
    expect(formatSocketAddress(local)).toBe(formatSocketAddress(at(address, 4500)));
    const answers = arrivals(near, 5);
    far.send(Uint8Array.of(2), from, local);
    far.sendBatch(batchOf([100, 100, 50, 70]), 0, 4, { to: from, from: local });
    const got = await answers;
    expect(got.map(({ from: answerer }) => formatSocketAddress(answerer))).toEqual(
      new Array(5).fill(formatSocketAddress(local)),
    );
    expect(got.map(({ data }) => data.length)).toEqual([1, 100, 100, 50, 70]);
  });

  it('calls a peer by the same objects in every datagram', async () => {
    const near = await bind(NEAR[0]);
    const got = arrivals(far4, 3);
    for (let i = 0; i < 3; i++) near.send(Uint8Array.of(i), at(FAR[1], 4500));
    const [first, ...others] = (await got) as [Arrival, ...Arrival[]];
    for (const { from, local } of others) {
      expect(from).toBe(first.from);
      expect(local).toBe(first.local);
    }
  });

  it('answers a link-local peer on the link that it is on', async () => {
    const near = dgram.createSocket({ type: 'udp6', lookup: (name, _options, done) => done(null, name, 6) });
    try {
      await new Promise<void>((resolve) => near.bind(0, 'fe80::1%near', resolve));
      const asked = arrivals(far6, 1);
      near.send(Uint8Array.of(1), 4500, 'fe80::2%near');
      const [{ from, local }] = (await asked) as [Arrival];
      expect(formatSocketAddress(from)).toBe(`[fe80::1]:${near.address().port}`);
      expect(formatSocketAddress(local)).toBe('[fe80::2]:4500');
      const answer = new Promise((resolve) => near.once('message', resolve));
      expect(far6.send(Uint8Array.of(2), from, local)).toBe(true);
      await answer;
    } finally {
      near.close();
    }
  });

  it('sends what is too large for the link in fragments', async () => {
    ipCommand('link', 'set', 'near', 'mtu', '1280');
    try {
      const near = await bind(NEAR[0]);
      const got = arrivals(far4, 20);
      const batch = batchOf([...same(1400, 18), 1300, 100]);
      batch.fragmentable.fill(1, 0, 19);
      expect(near.sendBatch(batch, 0, 20, { to: at(FAR[0], 4500) })).toBe(20);
      for (const [slot, { data }] of (await got).entries()) {
        expect(equalBytes(data, payload(slot, data.length)), `datagram ${slot}`).toBe(true);
      }
      expect(sendErrors(near)).toEqual({});
      expect(near.features).toContain('gso');
    } finally {
      ipCommand('link', 'set', 'near', 'mtu', '1500');
    }
  });

  it('does not fragment packets that should fit, and fragments IKE', async () => {
    ipCommand('link', 'set', 'near', 'mtu', '1280');
    try {
      const near = await bind(NEAR[0]);
      const got = arrivals(far4, 2);
      expect(near.sendBatch(batchOf(same(1400, 2)), 0, 2, { to: at(FAR[0], 4500) })).toBe(0);
      expect(sendErrors(near)).toEqual({ EMSGSIZE: 2 });
      expect(near.send(new Uint8Array(4_000), at(FAR[0], 4500))).toBe(true);
      expect(near.sendBatch(batchOf(same(1200, 1)), 0, 1, { to: at(FAR[0], 4500) })).toBe(1);
      expect((await got).map(({ data }) => data.length)).toEqual([4_000, 1_200]);
    } finally {
      ipCommand('link', 'set', 'near', 'mtu', '1500');
    }
  });

  it('counts ECONNREFUSED, loses nothing to others by it, and uses no CPU', async () => {
    const near = await bind(NEAR[0]);
    const live = at(FAR[0], 4500);
    const dead = at(FAR[0], 9);
    const before = far4.counters.receivedDatagrams;
    // ICMP errors are told to one host at a limited rate: a pause between them.
    for (let i = 0; i < 20; i++) {
      near.send(Uint8Array.of(1), dead);
      await sleep(5);
      expect(near.sendBatch(batchOf(same(500, 5)), 0, 5, { to: live })).toBe(5);
    }
    await until(() => far4.counters.receivedDatagrams === before + 100);
    await until(() => (sendErrors(near).ECONNREFUSED ?? 0) > 2);
    expect(Object.keys(sendErrors(near))).toEqual(['ECONNREFUSED']);
    await sleep(50);
    const start = process.cpuUsage();
    await sleep(500);
    const { user, system } = process.cpuUsage(start);
    expect((user + system) / 1000).toBeLessThan(100);
  });

  it.each([
    ['ENETUNREACH', '192.0.2.1'],
    ['EHOSTUNREACH', '10.99.0.1'],
  ])('counts %s at once', async (name, address) => {
    if (name === 'EHOSTUNREACH') ipCommand('route', 'replace', 'unreachable', '10.99.0.0/24');
    const near = await bind('0.0.0.0');
    expect(near.send(Uint8Array.of(1), at(address, 4500))).toBe(false);
    expect(near.sendBatch(batchOf(same(500, 5)), 0, 5, { to: at(address, 4500) })).toBe(0);
    expect(sendErrors(near)).toEqual({ [name]: 6 });
  });

  it.each([
    ['0.0.0.0', FAR[0], '10.88.0.99'],
    ['::', FAR[2], '2001:db8:88::99'],
  ])('counts that the address to send from is gone (%s)', async (any, address, gone) => {
    const near = await bind(any);
    expect(near.send(Uint8Array.of(1), at(address, 4500), at(gone, 4500))).toBe(false);
    expect(near.sendBatch(batchOf(same(500, 5)), 0, 5, { to: at(address, 4500), from: at(gone, 4500) })).toBe(0);
    const errors = sendErrors(near);
    // Kernels differ: to some the way from there does not exist.
    expect(errors).toEqual('ENETUNREACH' in errors ? { ENETUNREACH: 6 } : { EADDRNOTAVAIL: 6 });
  });

  it('continues after the interface was down', async () => {
    const near = await bind('0.0.0.0');
    ipCommand('link', 'set', 'near', 'down');
    expect(near.sendBatch(batchOf(same(500, 5)), 0, 5, { to: at(FAR[0], 4500) })).toBe(0);
    expect(sendErrors(near)).toEqual({ ENETUNREACH: 5 });
    ipCommand('link', 'set', 'near', 'up');
    const got = arrivals(far4, 1);
    // Until the link has its carrier again.
    const timer = setInterval(() => near.send(Uint8Array.of(1), at(FAR[0], 4500)), 10);
    await got;
    clearInterval(timer);
  });

  it('pauses a socket that fails without a reason, and then continues', async () => {
    const near = await bind(NEAR[0]);
    const got = arrivals(near, 1);
    const failing = vi.spyOn(libc(), 'recvmmsg').mockReturnValue(-1);
    const errno = vi.spyOn(libc(), 'errno').mockReturnValue(ERRNO.EIO);
    far4.send(Uint8Array.of(1), near.local, at(FAR[0], 4500));
    await until(() => near.counters.receiveErrors > 0);
    await sleep(250);
    failing.mockRestore();
    errno.mockRestore();
    await got;
    expect(near.counters.receiveErrors).toBeLessThanOrEqual(4 * 16);
  });

  it('leaves no descriptor open, neither when it is closed nor when it cannot be opened', async () => {
    const first = await bind(NEAR[0]);
    const before = openDescriptors();
    for (let i = 0; i < 20; i++) {
      const other = await network.bind({ address: ip(NEAR[0]), port: 0 });
      first.send(Uint8Array.of(1), other.local);
      await other.close();
      await other.close();
      await expect(network.bind({ address: ip(NEAR[0]), port: first.local.port })).rejects.toThrow('EADDRINUSE');
    }
    expect(openDescriptors()).toBe(before);
  });

  it('allocates nothing for a datagram', async () => {
    const near = await bind(NEAR[0]);
    const batch = batchOf(same(1300, 64));
    const to = at(FAR[0], 4500);
    let received = 0;
    far4.onDatagram(() => {
      received++;
    });
    const round = async (): Promise<void> => {
      for (let turn = 0; turn < 50; turn++) {
        const wanted = received + 256;
        for (let i = 0; i < 4; i++) near.sendBatch(batch, 0, 64, { to });
        while (received < wanted) await new Promise((resolve) => setImmediate(resolve));
      }
    };
    const deltas: number[] = [];
    for (let i = 0; i < 20; i++) {
      const before = process.memoryUsage().heapUsed;
      await round();
      deltas.push((process.memoryUsage().heapUsed - before) / (50 * 256));
    }
    // A collection in between makes it negative; a view, an address or a closure would be 50 bytes and more.
    const [smallest] = deltas.filter((delta) => delta >= 0).sort((a, b) => a - b);
    expect(smallest).toBeLessThan(16);
  });
});
