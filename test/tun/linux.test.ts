import dgram from 'node:dgram';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type IpAddress, parseAddress } from '../../src/base/address.ts';
import { PacketBatch } from '../../src/base/batch.ts';
import { LinuxHostNetwork } from '../../src/hostnet/routes/linux.ts';
import { SystemError } from '../../src/sys/errno.ts';
import { checkInterfaceName, createError, openError } from '../../src/tun/errors.ts';
import { type LinuxTun, type LinuxTunOptions, openLinuxTun } from '../../src/tun/linux.ts';
import { SharedOffloads } from '../../src/tun/offload/shared.ts';
import { nodeUdp } from '../../src/tun/udp/node.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { answerEcho, echoRequest, isEchoReply, isEchoRequest } from './icmp.ts';
import { enterNewNamespace, ipCommand, ping } from './namespace.ts';

const ip = (text: string): IpAddress => parseAddress(text)!;
const PEER4 = '10.77.0.2';
const shared = new SharedOffloads();
const PEER6 = '2001:db8:77::2';

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(2);
}

function openDescriptors(): string[] {
  return readdirSync('/proc/self/fd').sort();
}

for (const offload of ['all', 'tcp', 'none'] as const) {
  describeInterop(`a Linux TUN device with offload '${offload}'`, ['namespaces'], () => {
    let leave: () => void;
    let network: LinuxHostNetwork;
    const devices: LinuxTun[] = [];

    beforeAll(() => {
      leave = enterNewNamespace();
      network = new LinuxHostNetwork();
      network.setLink(network.link('lo')!.index, { up: true });
    });
    afterEach(async () => {
      for (const device of devices.splice(0)) await device.close();
    });
    afterAll(async () => {
      await network.close();
      leave();
    });

    function open(options: LinuxTunOptions = {}): LinuxTun {
      const device = openLinuxTun({ offload, shared, ...options });
      devices.push(device);
      return device;
    }

    /** Up, with addresses and routes to the peers that the test plays. */
    function openUp(options: LinuxTunOptions = {}): LinuxTun {
      const device = open(options);
      ipCommand('address', 'add', '10.77.0.1/24', 'dev', device.name);
      ipCommand('address', 'add', '2001:db8:77::1/64', 'dev', device.name, 'nodad');
      network.setLink(device.index, { up: true });
      return device;
    }

    /** Reads and answers echo requests, as the engine's loop would; counts the turns. */
    function answerPings(device: LinuxTun): { turns: number } {
      const batch = new PacketBatch(16, 1500);
      const seen = { turns: 0 };
      device.onReadable(() => {
        seen.turns++;
        while (device.read(batch) > 0) {
          for (let slot = 0; slot < batch.count; slot++) {
            const packet = batch.packet(slot);
            if (isEchoRequest(packet)) answerEcho(packet);
            else batch.length[slot] = 0;
          }
          device.write(batch);
          batch.clear();
        }
      });
      return seen;
    }

    it('is created with name, number and MTU, and gone when closed', async () => {
      const device = open({ name: 'sectest%d', mtu: 1372 });
      expect(device.name).toBe('sectest0');
      expect(network.link('sectest0')).toEqual({
        index: device.index,
        name: 'sectest0',
        mtu: 1372,
        up: false,
        group: 0,
      });
      expect(device.mtu).toBe(1372);
      expect(() => open({ mtu: 10 })).toThrow(/set the MTU of \S+ to 10.*EINVAL/);
      await device.close();
      expect(network.link('sectest0')).toBeUndefined();
      expect(open({ name: 'sectest0' }).name).toBe('sectest0');
    });

    it.each([
      ['IPv4', ['-4', PEER4]],
      ['IPv6', ['-6', PEER6]],
    ])('carries %s packets both ways', async (_family, words) => {
      const device = openUp();
      answerPings(device);
      expect(await ping('-c', '5', '-i', '0.05', '-W', '2', ...words)).toBe(0);
      expect(device.counters.writtenPackets).toBe(5);
      expect(device.counters.readPackets).toBeGreaterThanOrEqual(5);
      expect(device.counters.writtenBytes).toBe(5 * (words[0] === '-4' ? 84 : 104));
    });

    it.each([
      [ip(PEER4), ip('10.77.0.1')],
      [ip(PEER6), ip('2001:db8:77::1')],
    ])('lets a packet of the peer into the host, and its answer out', async (from, to) => {
      const device = openUp();
      const batch = new PacketBatch(16, 1500);
      const received = new PacketBatch(64, 1500);
      let replies = 0;
      device.onReadable(() => {
        received.clear();
        device.read(received);
        for (let slot = 0; slot < received.count; slot++) if (isEchoReply(received.packet(slot))) replies++;
      });
      for (let i = 0; i < 3; i++) batch.push(echoRequest(from, to, 100));
      batch.length[1] = 0;
      // The kernel takes its time, in a thread of its own, until an IPv6 address of a link that just came up works.
      while (replies === 0) {
        expect(device.write(batch)).toBe(2);
        await sleep(20);
      }
      expect(replies % 2).toBe(0);
    });

    it('accepts packets up to the MTU; the host fragments larger ones before', async () => {
      const device = openUp({ mtu: 1280 });
      const batch = new PacketBatch(64, 1500);
      const lengths: number[] = [];
      device.onReadable(() => {
        batch.clear();
        device.read(batch);
        for (let slot = 0; slot < batch.count; slot++) {
          if (batch.packet(slot)[0]! >>> 4 === 4) lengths.push(batch.length[slot]!);
        }
      });
      const socket = dgram.createSocket('udp4');
      socket.send(new Uint8Array(1280 - 28), 9, PEER4);
      await until(() => lengths.length === 1);
      socket.send(new Uint8Array(1280), 9, PEER4);
      await until(() => lengths.length === 3);
      socket.close();
      expect(lengths[0]).toBe(1280);
      expect(Math.max(...lengths)).toBe(1280);
    });

    it('drops a packet that does not fit a slot, and delivers no part of it', async () => {
      const device = openUp();
      const batch = new PacketBatch(8, 200, 16, 0);
      const delivered: number[] = [];
      device.onReadable(() => {
        batch.clear();
        device.read(batch);
        for (let slot = 0; slot < batch.count; slot++) {
          const packet = batch.packet(slot);
          if (packet.length > 0 && packet[0]! >>> 4 === 4) delivered.push(packet.length);
        }
      });
      const socket = dgram.createSocket('udp4');
      socket.send(new Uint8Array(500), 9, PEER4);
      await until(() => device.counters.dropped['too-large'] === 1);
      // The next one fits: were there a part of the first, it would be in front of it.
      socket.send(new Uint8Array(100), 9, PEER4);
      await until(() => delivered.length > 0);
      socket.close();
      expect(delivered).toEqual([128]);
    });

    it('reads a burst of many packets in bounded turns, all of them and in order', async () => {
      const device = openUp();
      const batch = new PacketBatch(64, 1500);
      const numbers: number[] = [];
      let perTurn = 0;
      let most = 0;
      const total = 450;
      const socket = dgram.createSocket('udp4');
      await new Promise<void>((resolve) => socket.bind(0, '10.77.0.1', resolve));
      socket.connect(9, PEER4);
      await new Promise((resolve) => socket.once('connect', resolve));
      for (let i = 0; i < total; i++) socket.send(Uint8Array.of(i >>> 8, i & 0xff));
      device.onReadable(() => {
        perTurn = 0;
        while (device.read(batch) > 0) {
          perTurn += batch.count;
          for (let slot = 0; slot < batch.count; slot++) {
            const packet = batch.packet(slot);
            if (packet[0]! >>> 4 === 4 && packet.length === 30) numbers.push((packet[28]! << 8) | packet[29]!);
          }
          batch.clear();
        }
        most = Math.max(most, perTurn);
      });
      await until(() => numbers.length === total);
      socket.close();
      expect(numbers).toEqual(Array.from({ length: total }, (_, i) => i));
      expect(most).toBeLessThanOrEqual(256);
      expect(most).toBeGreaterThan(1);
    });

    it('calls a handler again that leaves packets', async () => {
      const device = openUp();
      const batch = new PacketBatch(1, 1500);
      const socket = dgram.createSocket('udp4');
      for (let i = 0; i < 20; i++) socket.send(Uint8Array.of(i), 9, PEER4);
      let read = 0;
      device.onReadable(() => {
        batch.clear();
        device.read(batch);
        if (batch.count === 1 && batch.packet(0)[0]! >>> 4 === 4) read++;
      });
      await until(() => read === 20);
      socket.close();
    });

    it('counts what the kernel does not take', async () => {
      const device = open();
      const batch = new PacketBatch(4, 1500);
      batch.push(echoRequest(ip(PEER4), ip('10.77.0.1'), 8));
      expect(device.write(batch)).toBe(0);
      expect(device.counters.dropped['interface-down']).toBe(1);
      network.setLink(device.index, { up: true });
      batch.clear();
      batch.push(new Uint8Array(40).fill(0x10));
      batch.push(echoRequest(ip(PEER4), ip('10.77.0.1'), 8));
      expect(device.write(batch)).toBe(1);
      expect(device.counters.dropped['not-ip']).toBe(1);
      await device.close();
      expect(device.write(batch)).toBe(0);
      expect(device.read(batch)).toBe(0);
      expect(device.counters.dropped.closed).toBe(2);
    });

    it('survives the interface going down and up', async () => {
      const device = openUp();
      answerPings(device);
      network.setLink(device.index, { up: false });
      await sleep(20);
      network.setLink(device.index, { up: true });
      expect(await ping('-c', '1', '-W', '2', '-4', PEER4)).toBe(0);
    });

    it('reports when its interface is deleted, once, and neither spins nor leaks', async () => {
      const before = openDescriptors().length;
      const device = openUp();
      const seen = answerPings(device);
      const reasons: (Error | undefined)[] = [];
      device.onClosed((reason) => reasons.push(reason));
      await until(() => seen.turns > 0);
      ipCommand('link', 'delete', device.name);
      await until(() => reasons.length > 0);
      expect(reasons[0]).toBeInstanceOf(SystemError);
      expect(reasons[0]?.message).toMatch(/TUN device sec0: .*EBADFD.*deleted/);
      const { turns } = seen;
      await sleep(50);
      expect(seen.turns).toBe(turns);
      await device.close();
      expect(reasons).toHaveLength(1);
      expect(openDescriptors()).toHaveLength(before);
    });

    it('notices the deletion when it writes', async () => {
      const device = openUp();
      const batch = new PacketBatch(4, 1500);
      batch.push(echoRequest(ip(PEER4), ip('10.77.0.1'), 8));
      const closed = new Promise<Error | undefined>((resolve) => device.onClosed(resolve));
      ipCommand('link', 'delete', device.name);
      expect(device.write(batch)).toBe(0);
      expect(await closed).toBeInstanceOf(SystemError);
      expect(device.counters.dropped.closed).toBe(1);
    });

    it('frees everything when closed, its handler included', async () => {
      const before = openDescriptors().length;
      const many = Array.from({ length: 5 }, () => open());
      expect(new Set(many.map(({ name }) => name)).size).toBe(5);
      const reasons: unknown[] = [];
      for (const device of many) {
        device.onReadable(() => undefined);
        device.onClosed((reason) => reasons.push(reason));
      }
      await sleep(10);
      await Promise.all(many.map((device) => device.close()));
      expect(reasons).toEqual(new Array(5).fill(undefined));
      expect(openDescriptors()).toHaveLength(before);
      // Opened again at once after the last was closed.
      const device = openUp();
      answerPings(device);
      expect(await ping('-c', '1', '-W', '2', '-4', PEER4)).toBe(0);
    });

    it('of many is closed while the event loop goes on', async () => {
      const many = Array.from({ length: 12 }, () => open());
      const there = (): number => many.filter(({ name }) => network.link(name) !== undefined).length;
      let rounds = 0;
      const ended = Promise.all(many.map((device) => device.close())).then(() => true);
      while (!(await Promise.race([ended, sleep(1).then(() => false)]))) rounds++;
      expect(there()).toBe(0);
      // One after another in this thread they would take one round.
      expect(rounds).toBeGreaterThan(3);
    });

    it('can be closed by its own handler', async () => {
      const device = openUp();
      const batch = new PacketBatch(4, 1500);
      const closed = new Promise((resolve) => device.onClosed(resolve));
      device.onReadable(() => {
        device.read(batch);
        void device.close();
      });
      expect(await closed).toBeUndefined();
    });

    it('reports which name is in use, and by what', () => {
      open({ name: 'sectaken' });
      expect(() => openLinuxTun({ name: 'sectaken' })).toThrow(/create TUN device sectaken: .*EBUSY.*another name/);
      ipCommand('link', 'add', 'secother', 'type', 'veth', 'peer', 'name', 'secpeer');
      expect(() => openLinuxTun({ name: 'secother' })).toThrow(/EINVAL.*not such a TUN device.*ip -d link show/);
      ipCommand('link', 'delete', 'secother');
      expect(() => openLinuxTun({ name: 'sectest', mtu: 10 })).toThrow(/MTU/);
      expect(network.link('sectest')).toBeUndefined();
    });

    it('says what an ordinary user lacks', async () => {
      process.seteuid?.(65_534);
      try {
        expect(() => openLinuxTun()).toThrow(/create TUN device sec%d: .*EPERM.*CAP_NET_ADMIN.*--cap-add NET_ADMIN/);
        expect(() => network.link('lo')).not.toThrow();
        const user = new LinuxHostNetwork();
        expect(() => user.setLink(1, { mtu: 1000 })).toThrow(/EPERM.*CAP_NET_ADMIN/);
        await user.close();
        const bound = nodeUdp.bind({ address: ip('127.0.0.1'), port: 500 });
        await expect(bound).rejects.toThrow(/UDP 127\.0\.0\.1:500: .*EACCES.*cap_net_bind_service/);
      } finally {
        process.seteuid?.(0);
      }
    });

    it('counts what UDP sockets cannot send here, by name', async () => {
      const socket = await nodeUdp.bind({ address: ip('0.0.0.0'), port: 0 });
      network.addRoutes([{ type: 'unreachable', destination: { address: ip('198.51.100.0'), prefixLength: 24 } }]);
      socket.send(Uint8Array.of(1), { address: ip('203.0.113.1'), port: 500 });
      socket.send(Uint8Array.of(1), { address: ip('198.51.100.1'), port: 500 });
      const { sendErrors } = socket.counters;
      await until(() => sendErrors.ENETUNREACH === 1 && sendErrors.EHOSTUNREACH === 1);
      await socket.close();
    });
  });
}

describe('errors of TUN devices', () => {
  it('refuse names that Linux would not take', () => {
    expect(() => checkInterfaceName('a-name-of-16-byt')).toThrow('16 bytes; Linux takes at most 15');
    for (const name of ['', '.', '..', 'a b', 'a/b', 'a:b', 'a%s', '%d%d', 'a%']) {
      expect(() => checkInterfaceName(name), name).toThrow('interface name');
    }
    for (const name of ['sec0', 'sec%d', 'a-name-of-15-by', 'tun.1'])
      expect(() => checkInterfaceName(name)).not.toThrow();
  });

  it.runIf(process.platform === 'linux')('say how to get what is missing', () => {
    expect(openError(2).message).toMatch(
      /ENOENT.*modprobe tun.*mknod \/dev\/net\/tun c 10 200.*--device \/dev\/net\/tun/,
    );
    expect(openError(19).message).toMatch(/ENODEV.*modprobe tun/);
    expect(openError(13).message).toMatch(/EACCES.*chmod 666/);
    expect(openError(24).message).toMatch(
      /^open \/dev\/net\/tun: Too many open files \(EMFILE\)\. No file descriptors left \(the limit is \d+\): raise LimitNOFILE=/,
    );
    expect(createError('x', 12).message).toMatch(/ENOMEM/);
  });
});
