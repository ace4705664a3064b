/** Devices of either kind with the kernel between them: it forwards what one writes to another, which reads it. */
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { newDeviceCounters } from '../../src/tun/device.ts';
import { type LinuxTun, type LinuxTunOptions, openLinuxTun } from '../../src/tun/linux.ts';
import { PacketMemory } from '../../src/tun/offload/memory.ts';
import { SharedOffloads } from '../../src/tun/offload/shared.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { enterNewNamespace, ipCommand } from './namespace.ts';
import type { PacketShape } from './offload/support.ts';
import { ACK, batchOf, PSH, packetOf, packetsOf, pattern } from './offload/support.ts';

const LEVELS = ['all', 'tcp', 'none'] as const;
const COUNT = 40;

const shapes: [string, PacketShape][] = [
  ['TCP over IPv4', {}],
  ['TCP over IPv6', { version: 6 }],
  ['UDP over IPv4', { protocol: 'udp' }],
  ['UDP over IPv6', { version: 6, protocol: 'udp' }],
];

describeInterop('Linux TUN devices with offloads', ['namespaces'], () => {
  let leave: () => void;
  const shared = new SharedOffloads(new PacketMemory(64 * 1024 * 1024));
  const devices: LinuxTun[] = [];

  beforeAll(() => {
    leave = enterNewNamespace();
    for (const name of ['ipv4/ip_forward', 'ipv6/conf/all/forwarding']) writeFileSync(`/proc/sys/net/${name}`, '1');
    writeFileSync('/proc/sys/net/ipv4/conf/all/rp_filter', '0');
    writeFileSync('/proc/sys/net/ipv4/conf/default/rp_filter', '0');
  });
  afterEach(async () => {
    for (const device of devices.splice(0)) await device.close();
  });
  afterAll(() => leave());

  function open(options: LinuxTunOptions): LinuxTun {
    const device = openLinuxTun({ shared, ...options });
    devices.push(device);
    writeFileSync(`/proc/sys/net/ipv6/conf/${device.name}/addr_gen_mode`, '1');
    ipCommand('link', 'set', device.name, 'up');
    return device;
  }

  /** A device that all of the test's packets are forwarded to. */
  function openTarget(options: LinuxTunOptions): LinuxTun {
    const device = open(options);
    ipCommand('route', 'add', '198.51.100.9/32', 'dev', device.name);
    ipCommand('-6', 'route', 'add', '2001:db8:2::9/128', 'dev', device.name);
    return device;
  }

  function packetsWith(shape: PacketShape, ttl: number, size: number, count = COUNT): Uint8Array[] {
    return Array.from({ length: count }, (_, i) => {
      const last = i === count - 1;
      const payload = pattern(last ? 99 : size, i);
      const flags = last ? ACK | PSH : ACK;
      return packetOf({ ...shape, ttl, payload, flags, sequence: 1000 + i * size, id: 7 + i });
    });
  }

  /** Not what the kernel says of itself. */
  function ofTest(batch: PacketBatch): Uint8Array[] {
    return packetsOf(batch).filter((packet) => packet[0]! >>> 4 === 4 || [6, 17].includes(packet[6]!));
  }

  /** Reads batches of `capacity` as the host does, `perTurn` in each turn. */
  async function receive(device: LinuxTun, count: number, capacity: number, perTurn: number): Promise<Uint8Array[]> {
    const received: Uint8Array[] = [];
    const batch = new PacketBatch(capacity, 65_536, 64, 320, shared.memory.allocate);
    device.onReadable(() => {
      for (let i = 0; i < perTurn; i++) {
        batch.clear();
        if (device.read(batch) === 0) return;
        received.push(...ofTest(batch));
      }
    });
    for (let patience = 0; received.length < count && patience < 1_000; patience++) await sleep(2);
    await sleep(5);
    return received;
  }

  it('tell what the kernel agreed to', () => {
    expect(open({ offload: 'none' }).features).toEqual([]);
    expect(open({ offload: 'tcp' }).features).toEqual(['csum', 'tso', 'gro']);
    // Runs of datagrams since Linux 6.2.
    expect(open({}).features).toEqual(expect.arrayContaining(['csum', 'tso', 'gro']));
  });

  for (const [from, to] of LEVELS.flatMap((level) => LEVELS.map((other) => [level, other] as const))) {
    it.each(shapes)(`from '${from}' to '${to}', %s: what was written is read, in order`, async (_name, shape) => {
      const target = openTarget({ offload: to, mtu: 1280 });
      const source = open({ offload: from });
      const packets = packetsWith(shape, 64, 1000);
      expect(source.write(batchOf(packets, shared.memory))).toBe(COUNT);
      const expected = packetsWith(shape, 63, 1000);
      expect(await receive(target, COUNT, 7, 2)).toEqual(expected);
      const bytes = expected.reduce((sum, packet) => sum + packet.length, 0);
      expect(source.counters).toMatchObject({ writtenPackets: COUNT, writtenBytes: bytes });
      expect(target.counters.readPackets).toBeGreaterThanOrEqual(COUNT);
      expect(target.counters.readBytes).toBeGreaterThanOrEqual(bytes);
      expect(target.counters.dropped).toEqual(newDeviceCounters().dropped);
    });
  }

  it.each(LEVELS)("'%s' accepts packets as large as IP allows", async (offload) => {
    const target = openTarget({ offload, mtu: 65_535 });
    const source = open({ offload });
    for (const size of [20_000, 65_000]) {
      const packets = packetsWith({}, 64, size, 3);
      for (const packet of packets) expect(source.write(batchOf([packet], shared.memory))).toBe(1);
    }
    const sent = [20_000, 65_000].flatMap((size) => packetsWith({}, 63, size, 3));
    expect(await receive(target, sent.length, 64, 4)).toEqual(sent);
  });

  it('leave no time to others for more than a few hundred packets', async () => {
    const target = openTarget({ mtu: 1280 });
    const source = open({});
    const runs = 30;
    for (let i = 0; i < runs; i++) source.write(batchOf(packetsWith({ sourcePort: 1000 + i }, 64, 1000)));
    const batch = new PacketBatch(64, 65_536);
    let most = 0;
    let total = 0;
    target.onReadable(() => {
      let turn = 0;
      for (batch.clear(); target.read(batch) > 0; batch.clear()) {
        turn += batch.count;
        total += ofTest(batch).length;
      }
      most = Math.max(most, turn);
    });
    for (let patience = 0; total < runs * COUNT && patience < 1_000; patience++) await sleep(2);
    expect(total).toBe(runs * COUNT);
    expect(most).toBeGreaterThan(COUNT);
    expect(most).toBeLessThan(256 + 64);
  });

  it('count what does not fit the slots, and go on', async () => {
    const target = openTarget({ mtu: 1280 });
    const source = open({});
    source.write(batchOf([...packetsWith({}, 64, 1000), ...packetsWith({ protocol: 'udp' }, 64, 100)]));
    const received: Uint8Array[] = [];
    const small = new PacketBatch(16, 200, 16, 0);
    target.onReadable(() => {
      for (small.clear(); target.read(small) > 0; small.clear()) received.push(...ofTest(small));
    });
    for (let patience = 0; received.length < COUNT && patience < 1_000; patience++) await sleep(2);
    expect(received).toEqual(packetsWith({ protocol: 'udp' }, 63, 100));
    // The rest of a run whose segments do not fit is not looked at.
    expect(target.counters.dropped['too-large']).toBe(1);
  });
});
