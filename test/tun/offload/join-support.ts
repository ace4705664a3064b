/** Runs packets through a joiner and what comes of them through a splitter, for the tests of joining. */
import { expect } from 'vitest';
import { PacketBatch } from '../../../src/base/batch.ts';
import type { JoinerOptions } from '../../../src/tun/offload/join.ts';
import { Joiner } from '../../../src/tun/offload/join.ts';
import { PacketMemory } from '../../../src/tun/offload/memory.ts';
import { Splitter } from '../../../src/tun/offload/split.ts';
import type { VirtioHeader } from '../../../src/tun/offload/virtio.ts';
import { GsoType } from '../../../src/tun/offload/virtio.ts';
import type { PacketShape } from './support.ts';
import { batchOf, packetOf, packetsOf, pattern, withHeader, withoutHeader } from './support.ts';

export const shapes: [string, PacketShape][] = [
  ['TCP over IPv4', {}],
  ['TCP over IPv6', { version: 6 }],
  ['UDP over IPv4', { protocol: 'udp' }],
  ['UDP over IPv6', { version: 6, protocol: 'udp' }],
];

export const SIZE = 200;

export interface Written {
  readonly header: VirtioHeader;
  readonly packet: Uint8Array;
  readonly packets: number;
}

export const memory: PacketMemory = new PacketMemory(64 * 1024 * 1024);
const joiners = new Map<string, Joiner>();

export function joinerFor(options: JoinerOptions): Joiner {
  const key = JSON.stringify(options);
  const joiner = joiners.get(key) ?? new Joiner(memory, options);
  joiners.set(key, joiner);
  return joiner;
}

export function written(batch: PacketBatch, joiner: Joiner): Written[] {
  const all: Written[] = [];
  joiner.join(batch, {
    write(buffer, at, length, packets) {
      all.push({ ...withoutHeader(buffer.slice(at, at + length)), packets });
    },
  });
  return all;
}

export function joined(packets: readonly Uint8Array[], options: JoinerOptions = { udp: true }): Written[] {
  return written(batchOf(packets), joinerFor(options));
}

/** How many packets are in each write, in order. */
export function counts(packets: readonly Uint8Array[], options?: JoinerOptions): number[] {
  return joined(packets, options).map((one) => one.packets);
}

/** Segment `i` of a flow; what `shape` says holds for it alone. */
export function segment(i: number, shape: PacketShape = {}): Uint8Array {
  return packetOf({ payload: pattern(SIZE, i + 1), sequence: 1000 + i * SIZE, id: 7 + i, ...shape });
}

export function run(count: number, shape: PacketShape = {}): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => segment(i, shape));
}

export function spoil(packet: Uint8Array, at: number): Uint8Array {
  const copy = packet.slice();
  copy[at]! ^= 0x40;
  return copy;
}

const splitMemory = new PacketMemory(1_000_000);
const splitter = new Splitter(splitMemory);
const splitBatch = new PacketBatch(128, 1500, 64, 0, splitMemory.allocate);

/** The segments of what was written or read, as the kernel or the other end of this module has them. */
export function splitAgain(read: Uint8Array): Uint8Array[] {
  splitter.input.set(read);
  const segments: Uint8Array[] = [];
  expect(splitter.start(read.length)).toBe(true);
  while (splitter.pending) {
    splitBatch.clear();
    splitter.fill(splitBatch);
    segments.push(...packetsOf(splitBatch));
  }
  return segments;
}

/** The packets that the kernel makes of a write. */
export function splitWritten(one: Written): Uint8Array[] {
  if (one.header.gsoType === GsoType.none) return [one.packet];
  const segments = splitAgain(withHeader(one.packet, one.header));
  expect(segments).toHaveLength(one.packets);
  return segments;
}

/** Version, protocol, addresses and ports, as far as they are there: what order is kept within. */
function flowOf(packet: Uint8Array): string {
  const version = packet[0]! >>> 4;
  if (version === 4) return `4 ${packet[9]} ${packet.slice(12, 24).join()}`;
  return version === 6 ? `6 ${packet[6]} ${packet.slice(8, 44).join()}` : 'none';
}

function byFlow(packets: readonly Uint8Array[]): Map<string, string[]> {
  const flows = new Map<string, string[]>();
  for (const packet of packets) {
    const key = flowOf(packet);
    flows.set(key, [...(flows.get(key) ?? []), Buffer.from(withoutId(packet)).toString('hex')]);
  }
  return flows;
}

/** Where DF is set the identification has no meaning, and becomes that of the first packet, counted up. */
function withoutId(packet: Uint8Array): Uint8Array {
  if (packet[0] !== 0x45 || packet[6] !== 0x40) return packet;
  const copy = packet.slice();
  copy.fill(0, 4, 6);
  copy.fill(0, 10, 12);
  return copy;
}

export function expectSamePerFlow(packets: readonly Uint8Array[], writes: readonly Written[]): void {
  expect(byFlow(writes.flatMap((one) => splitWritten(one)))).toEqual(byFlow(packets));
}

export function expectSameSet(packets: readonly Uint8Array[], writes: readonly Written[]): void {
  const sorted = (all: readonly Uint8Array[]): string[] =>
    all.map((packet) => Buffer.from(packet).toString('hex')).sort();
  expect(sorted(writes.flatMap((one) => splitWritten(one)))).toEqual(sorted(packets));
}
