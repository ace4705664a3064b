/**
 * Nanoseconds a segment for dividing what a TUN device with offloads hands over and for joining what it is given, and
 * for the checksums in both: in WebAssembly SIMD and in TypeScript, over the same packets.
 */
import { performance } from 'node:perf_hooks';
import { PacketBatch } from '../src/base/batch.ts';
import { writeU32 } from '../src/base/bytes.ts';
import { foldSum } from '../src/base/checksum.ts';
import { Joiner } from '../src/tun/offload/join.ts';
import { PacketMemory } from '../src/tun/offload/memory.ts';
import { Splitter } from '../src/tun/offload/split.ts';
import { GsoType, VIRTIO_NET_HDR_SIZE, VirtioFlag, writeVirtioHeader } from '../src/tun/offload/virtio.ts';
import type { BenchRow } from './row.ts';

const ROUND_MS = 15;
const ROUNDS = 40;
/** What one read brings at a usual MTU. */
const SEGMENTS = 46;
const MEMORY = 8 * 1024 * 1024;
/** IPv4 and TCP with timestamps. */
const HEADERS = 52;
const IPV4 = 20;
/** Packet sizes: that of a tunnel's usual MTU, and small ones, where the headers are what costs. */
const SIZES = [1400, 128] as const;

export function offloadBench(): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const wasm of [true, false]) {
    // One for each worker: so the engine knows which function is called, and calls it directly.
    const memory = new PacketMemory(MEMORY, { wasm });
    for (const size of SIZES) rows.push(...measureSize(memory, size));
  }
  return Promise.resolve(rows);
}

function measureSize(memory: PacketMemory, size: number): BenchRow[] {
  const { kind } = memory.checksums;
  const splitter = new Splitter(memory);
  const joiner = new Joiner(memory, { udp: true });
  const count = SEGMENTS;
  const batch = new PacketBatch(count, 1500, 64, 320, memory.allocate);
  const read = writeTso(splitter.input, count, size - HEADERS);
  const split = (): void => {
    batch.clear();
    splitter.start(read);
    splitter.fill(batch);
  };
  split();
  let writes = 0;
  const sink = {
    write(): void {
      writes++;
    },
  };
  const join = (): void => joiner.join(batch, sink);
  const { checksums } = memory;
  const sum = (): void => {
    for (let i = 0; i < count; i++) checksums.sum(batch.buffer, batch.offset[i]!, size, 0);
  };
  const copySum = (): void => {
    for (let i = 0; i < count; i++)
      checksums.copySum(batch.buffer, batch.offset[i]!, splitter.input, (i & 31) * size, size, 0);
  };
  const rows = [
    { name: `offload/join/${kind}/${size}`, value: nanoseconds(join, count), unit: 'ns' },
    { name: `offload/sum/${kind}/${size}`, value: nanoseconds(sum, count), unit: 'ns' },
    { name: `offload/split/${kind}/${size}`, value: nanoseconds(split, count), unit: 'ns' },
    // Last, because it copies over the packet that is divided.
    { name: `offload/copy-and-sum/${kind}/${size}`, value: nanoseconds(copySum, count), unit: 'ns' },
  ];
  if (joiner.counters.joinedWrites !== writes)
    throw new Error('not everything was joined: this measures something else');
  return rows;
}

/** A TCP packet of `count` segments as the kernel hands it over, at the start of `input`. Returns its length. */
function writeTso(input: Uint8Array, count: number, payload: number): number {
  const length = HEADERS + count * payload;
  const packet = input.subarray(VIRTIO_NET_HDR_SIZE, VIRTIO_NET_HDR_SIZE + length);
  for (let i = HEADERS; i < length; i++) packet[i] = i * 7;
  packet.set([0x45, 0, length >>> 8, length & 0xff, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
  packet.set([0x13, 0x88, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 1, 0xf6, 0, 0, 0, 0, 1, 1, 8, 10], IPV4);
  writeU32(packet, IPV4 + 24, 0x0102_0304);
  const pseudo = foldSum(2 * 0x0a00 + 1 + 2 + 6 + length - IPV4);
  packet.set([pseudo >>> 8, pseudo & 0xff], IPV4 + 16);
  writeVirtioHeader(input, 0, {
    flags: VirtioFlag.needsCsum,
    gsoType: GsoType.tcp4,
    hdrLen: HEADERS,
    gsoSize: payload,
    csumStart: IPV4,
    csumOffset: 16,
  });
  return VIRTIO_NET_HDR_SIZE + length;
}

/** The quickest of some rounds, for each of the `count` packets that one call handles; in time of this process alone. */
function nanoseconds(call: () => void, count: number): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const start = process.cpuUsage();
    const until = performance.now() + ROUND_MS;
    let calls = 0;
    while (performance.now() < until) {
      for (let i = 0; i < 50; i++) call();
      calls += 50;
    }
    const { user, system } = process.cpuUsage(start);
    best = Math.min(best, ((user + system) * 1000) / (calls * count));
  }
  return best;
}
