/** Dividing and joining allocate nothing for a segment. */
import { expect, it } from 'vitest';
import { PacketBatch } from '../../../src/base/batch.ts';
import { Joiner } from '../../../src/tun/offload/join.ts';
import { PacketMemory } from '../../../src/tun/offload/memory.ts';
import { Splitter } from '../../../src/tun/offload/split.ts';
import type { PacketShape } from './support.ts';
import { gsoOf, pattern } from './support.ts';

const SIZE = 1000;
const SEGMENTS = 50;
const TURNS = 100;
/** A number on the heap is 16 bytes, an object more: one for each segment would be seen. */
const BYTES_PER_SEGMENT = 4;

/** Heap bytes that a segment costs there and back, once the code is compiled: the fourth least of some rounds. */
function bytesPerSegment(wasm: boolean, shapes: readonly PacketShape[]): number {
  const memory = new PacketMemory(8_000_000, { wasm });
  const splitter = new Splitter(memory);
  const joiner = new Joiner(memory, { udp: true });
  const batch = new PacketBatch(shapes.length * SEGMENTS, 1500, 64, 320, memory.allocate);
  const reads = shapes.map((shape) => gsoOf({ ...shape, payload: pattern(SIZE * SEGMENTS) }, SIZE));
  let written = 0;
  const sink = {
    write(_buffer: Uint8Array, _at: number, _length: number, packets: number): void {
      written += packets;
    },
  };
  const turn = (): void => {
    batch.clear();
    for (const read of reads) {
      splitter.input.set(read);
      splitter.start(read.length);
      splitter.fill(batch);
    }
    joiner.join(batch, sink);
  };
  const deltas: number[] = [];
  for (let round = 0; round < 25; round++) {
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < TURNS; i++) turn();
    deltas.push((process.memoryUsage().heapUsed - before) / (TURNS * batch.capacity));
  }
  expect(joiner.counters.joinedPackets).toBe(written);
  expect(written).toBe(25 * TURNS * batch.capacity);
  // A round in which garbage was collected says nothing.
  return deltas.filter((delta) => delta >= 0).sort((a, b) => a - b)[3]!;
}

const shapes: PacketShape[] = [
  { sequence: 0xffff_0000, acknowledgment: 0xffff_ffff, tcpOptions: new Uint8Array(12).fill(0xff) },
  { version: 6, sequence: 0x7fff_ff00 },
  { protocol: 'udp' },
];

it.each([
  ['WebAssembly', true],
  ['TypeScript', false],
])('with checksums in %s', (_name, wasm) => {
  expect(bytesPerSegment(wasm, shapes)).toBeLessThan(BYTES_PER_SEGMENT);
});
