import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import wabt from 'wabt';
import { PacketBatch } from '../../../src/base/batch.ts';
import { toHex } from '../../../src/base/bytes.ts';
import { foldSum } from '../../../src/base/checksum.ts';
import { TypescriptChecksums } from '../../../src/tun/offload/checksum.ts';
import { checksumModule } from '../../../src/tun/offload/checksum-module.gen.ts';
import { PacketMemory } from '../../../src/tun/offload/memory.ts';
import { pattern, slowSum } from './support.ts';

const REGION = 70_000;
const memory = new PacketMemory(3 * REGION);
const source = memory.allocate(REGION);
const target = memory.allocate(REGION);
const implementations = [memory.checksums, new TypescriptChecksums()];

describe('checksums', () => {
  it('run in WebAssembly here', () => {
    expect(memory.checksums.kind).toBe('wasm');
    expect(new PacketMemory(100, { wasm: false }).checksums.kind).toBe('typescript');
  });

  it.each(implementations)('$kind: the example of RFC 1071 section 3', (sums) => {
    source.set([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    expect(sums.sum(source, 0, 8, 0)).toBe(0xddf2);
  });

  it.each(implementations)('$kind: nothing, zeros and the largest values', (sums) => {
    source.fill(0xff);
    expect(sums.sum(source, 3, 0, 0)).toBe(0);
    expect(sums.sum(source, 3, 65_535, 0)).toBe(slowSum(source.subarray(3, 3 + 65_535)));
    expect(sums.sum(source, 3, 65_535, 0xffff_ffff)).toBe(0xff00);
    expect(sums.copySum(source, 3, target, 0, 65_535, 0xffff_ffff)).toBe(0xff00);
    source.fill(0);
    expect(sums.sum(source, 1, 65_535, 0)).toBe(0);
    expect(sums.sum(source, 1, 65_535, 0x1_ffff)).toBe(1);
  });

  it('are the same in all three for every short length and alignment', () => {
    source.set(pattern(400));
    for (let at = 0; at < 17; at++) {
      for (let length = 0; length < 200; length++) {
        const expected = slowSum(source.subarray(at, at + length), 0xabcd);
        for (const sums of implementations) {
          expect(sums.sum(source, at, length, 0xabcd)).toBe(expected);
          target.fill(0xee, 0, 260);
          expect(sums.copySum(source, at, target, 20 + (length % 7), length, 0xabcd)).toBe(expected);
          const to = 20 + (length % 7);
          expect(Buffer.compare(target.subarray(to, to + length), source.subarray(at, at + length))).toBe(0);
          expect([target[to - 1], target[to + length]]).toEqual([0xee, 0xee]);
        }
      }
    }
  });

  it('are the same in all three for random ranges', () => {
    const range = fc.record({
      at: fc.nat(4000),
      to: fc.nat(4000),
      length: fc.oneof(fc.nat(3000), fc.integer({ min: 60_000, max: 65_535 })),
      seed: fc.nat(),
      initial: fc.oneof(fc.nat(0xffff), fc.integer({ min: 0, max: 0xffff_ffff })),
    });
    fc.assert(
      fc.property(range, ({ at, to, length, seed, initial }) => {
        source.set(pattern(length, seed), at);
        const expected = slowSum(source.subarray(at, at + length), initial);
        for (const sums of implementations) {
          expect(sums.sum(source, at, length, initial)).toBe(expected);
          target.fill(0);
          expect(sums.copySum(source, at, target, to, length, initial)).toBe(expected);
          expect(Buffer.compare(target.subarray(to, to + length), source.subarray(at, at + length))).toBe(0);
        }
      }),
      { numRuns: 40 },
    );
  });

  it('fold everything below 2^32', () => {
    expect([0, 0xffff, 0x1_0000, 0x1_fffe, 0xffff_0000, 0xffff_ffff].map(foldSum)).toEqual([
      0, 0xffff, 1, 0xffff, 0xffff, 0xffff,
    ]);
  });
});

describe('packet memory', () => {
  it('gives out aligned regions that do not overlap, and no more than it has', () => {
    const small = new PacketMemory(60_000);
    const first = small.allocate(100);
    const second = small.allocate(65_536 - 128);
    expect(small.size).toBe(65_536);
    expect([first.byteOffset, second.byteOffset]).toEqual([0, 128]);
    expect(second.buffer).toBe(first.buffer);
    expect(() => small.allocate(1)).toThrow('packet memory of 65536 bytes has 0 left, needed 1');
  });

  it('holds batches, and tells its own buffers from others', () => {
    const batch = new PacketBatch(4, 1500, 64, 32, new PacketMemory(100_000).allocate);
    expect(batch.packet(batch.push(pattern(1500)))).toEqual(pattern(1500));
    const inMemory = new PacketBatch(4, 1500, 64, 32, memory.allocate);
    expect(memory.checksumsFor(inMemory.buffer).kind).toBe('wasm');
    expect(memory.checksumsFor(batch.buffer).kind).toBe('typescript');
  });
});

describe('the WebAssembly module', () => {
  it('is what the source says', async () => {
    const url = new URL('../../../src/tun/offload/checksum.wat', import.meta.url);
    const { parseWat } = await wabt();
    const parsed = parseWat('checksum.wat', readFileSync(url, 'utf8'), { simd: true });
    expect(toHex(parsed.toBinary({}).buffer)).toBe(checksumModule);
    parsed.destroy();
  });
});
