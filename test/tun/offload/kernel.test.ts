/**
 * The Linux kernel as the judge: what was joined is written to a TUN device, forwarded, and read from another one,
 * once divided by the kernel and once whole, to be divided here.
 */
import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PacketBatch } from '../../../src/base/batch.ts';
import { libc } from '../../../src/sys/libc.ts';
import { addressOf } from '../../../src/sys/native-memory.ts';
import { Joiner } from '../../../src/tun/offload/join.ts';
import { PacketMemory } from '../../../src/tun/offload/memory.ts';
import { Splitter } from '../../../src/tun/offload/split.ts';
import { describeInterop } from '../../support/lab/requirements.ts';
import { enterNewNamespace, ipCommand } from '../namespace.ts';
import type { PacketShape } from './support.ts';
import { ACK, batchOf, FIN, PSH, packetOf, packetsOf, pattern } from './support.ts';

const O_RDWR_NONBLOCK_CLOEXEC = 0o2004002;
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const IFF_TUN_NO_PI = 0x1001;
const IFF_VNET_HDR = 0x4000;
/** Checksum, TSO4, TSO6, USO4 and USO6. */
const ALL_OFFLOADS = 0x67;
const TCP_OFFLOADS = 0x07;

const SIZE = 700;
const COUNT = 40;

const memory = new PacketMemory(4_000_000);
const joiner = new Joiner(memory, { udp: true });
const splitter = new Splitter(memory);
const batch = new PacketBatch(128, 1500, 64, 320, memory.allocate);

const shapes: [string, PacketShape][] = [
  ['TCP over IPv4', { flags: ACK | PSH | FIN }],
  ['TCP over IPv4 without DF', { dontFragment: false, trafficClass: 0x2c }],
  ['TCP over IPv6', { version: 6, flags: ACK | PSH }],
  ['UDP over IPv4', { protocol: 'udp' }],
  ['UDP over IPv6', { version: 6, protocol: 'udp' }],
];

describeInterop('joined packets and the kernel', ['namespaces'], () => {
  const descriptors: number[] = [];
  let leave: () => void;
  let input = -1;
  let plain = -1;
  let offloading = -1;
  /** Linux 6.2. */
  let takesDatagrams = false;
  /** Reads that brought more than one packet. */
  let runs = 0;

  beforeAll(() => {
    leave = enterNewNamespace();
    input = openTun('in0', IFF_VNET_HDR);
    plain = openTun('out0', 0);
    offloading = openTun('out1', IFF_VNET_HDR);
    takesDatagrams = setOffloads(offloading);
    for (const name of ['ipv4/ip_forward', 'ipv6/conf/all/forwarding']) writeFileSync(`/proc/sys/net/${name}`, '1');
    for (const name of ['all', 'in0']) writeFileSync(`/proc/sys/net/ipv4/conf/${name}/rp_filter`, '0');
  });
  afterAll(() => {
    for (const fd of descriptors) libc().close(fd);
    leave();
  });

  function openTun(name: string, flags: number): number {
    const fd = libc().open('/dev/net/tun', O_RDWR_NONBLOCK_CLOEXEC);
    descriptors.push(fd);
    const request = new Uint8Array(40);
    request.set(Buffer.from(name));
    new DataView(request.buffer).setUint16(16, IFF_TUN_NO_PI | flags, true);
    expect(libc().ioctl(fd, TUNSETIFF, request)).toBe(0);
    ipCommand('link', 'set', name, 'up', 'mtu', '1500');
    return fd;
  }

  /** Without segmentation of datagrams where the kernel lacks it; TCP's it has had since 2009. */
  function setOffloads(fd: number): boolean {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
    const ioctl = koffi.load(null).func('int ioctl(int fd, unsigned long request, unsigned long value)');
    if (ioctl(fd, TUNSETOFFLOAD, ALL_OFFLOADS) === 0) return true;
    expect(ioctl(fd, TUNSETOFFLOAD, TCP_OFFLOADS)).toBe(0);
    return false;
  }

  function routeTo(device: string): void {
    ipCommand('route', 'replace', '198.51.100.9/32', 'dev', device);
    ipCommand('-6', 'route', 'replace', '2001:db8:2::9/128', 'dev', device);
  }

  /** Joins the packets and writes them; returns how many writes that were. */
  function send(packets: readonly Uint8Array[]): number {
    let writes = 0;
    joiner.join(batchOf(packets), {
      write(buffer, at, length) {
        expect(libc().write(input, addressOf(buffer) + at, length)).toBe(length);
        writes++;
      },
    });
    return writes;
  }

  /** Reads until `count` packets from the test's hosts are there; what the kernel sends of itself is passed over. */
  async function receive(count: number, readOne: () => Uint8Array[] | undefined): Promise<Uint8Array[]> {
    const received: Uint8Array[] = [];
    for (let patience = 0; received.length < count && patience < 500; ) {
      const packets = readOne();
      if (packets !== undefined) {
        received.push(...packets.filter((packet) => packet[0] === 0x45 || [6, 17].includes(packet[6]!)));
        continue;
      }
      patience++;
      await sleep(2);
    }
    return received;
  }

  function readPlain(): Uint8Array[] | undefined {
    const length = libc().read(plain, addressOf(splitter.input), splitter.input.length);
    return length > 0 ? [splitter.input.slice(0, length)] : undefined;
  }

  function readOffloaded(): Uint8Array[] | undefined {
    const length = libc().read(offloading, addressOf(splitter.input), splitter.input.length);
    if (length <= 0) return undefined;
    batch.clear();
    expect(splitter.start(length)).toBe(true);
    splitter.fill(batch);
    expect(splitter.pending).toBe(false);
    if (batch.count > 1) runs++;
    return packetsOf(batch);
  }

  function packetsWith(shape: PacketShape, ttl: number): Uint8Array[] {
    const { flags = ACK } = shape;
    return Array.from({ length: COUNT }, (_, i) =>
      packetOf({
        ...shape,
        ttl,
        payload: pattern(i === COUNT - 1 ? 99 : SIZE, i),
        sequence: (0xffff_f000 + i * SIZE) >>> 0,
        id: (0xfff0 + i) & 0xffff,
        flags: i === COUNT - 1 ? flags : ACK,
      }),
    );
  }

  it.for(shapes)('%s: the kernel divides what was joined into what it was', async ([, shape], { skip }) => {
    skip(shape.protocol === 'udp' && !takesDatagrams, 'this kernel takes no runs of datagrams');
    routeTo('out0');
    expect(send(packetsWith(shape, 64))).toBe(1);
    expect(await receive(COUNT, readPlain)).toEqual(packetsWith(shape, 63));
  });

  it.for(shapes)('%s: dividing does what the kernel does', async ([, shape], { skip }) => {
    skip(shape.protocol === 'udp' && !takesDatagrams, 'this kernel takes no runs of datagrams');
    routeTo('out1');
    runs = 0;
    expect(send(packetsWith(shape, 64))).toBe(1);
    expect(await receive(COUNT, readOffloaded)).toEqual(packetsWith(shape, 63));
    expect(runs).toBe(1);
  });
});
