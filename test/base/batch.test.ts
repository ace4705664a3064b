/** Where packets lie in a batch: in slots of its own, or where they landed. */
import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { placedBatch } from '../support/placed-batch.ts';

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const packets = (batch: PacketBatch): number[][] =>
  Array.from({ length: batch.count }, (_, slot) => [...batch.packet(slot)]);

describe('a batch', () => {
  it('has no landing area unless its memory is larger than the slots', () => {
    expect(new PacketBatch(4, 100).landing.length).toBe(0);
    const batch = new PacketBatch(4, 100, 64, 16, (size) => new Uint8Array(size + 30));
    expect(batch.landing.length).toBe(30);
    expect(batch.landing.byteOffset).toBe(4 * batch.slotSize);
  });

  it('takes packets where they landed, wherever its memory begins, beside those that are copied', () => {
    const memory = new ArrayBuffer(10_000);
    const batch = new PacketBatch(2, 100, 64, 16, (size) => new Uint8Array(memory, 128, size + 30));
    batch.landing.set([1, 2, 3], 7);
    expect(batch.place(batch.landing.subarray(7, 10))).toBe(0);
    expect(batch.push(bytes(4, 5))).toBe(1);
    expect(packets(batch)).toEqual([
      [1, 2, 3],
      [4, 5],
    ]);
    batch.landing[7] = 9;
    expect(packets(batch)[0]).toEqual([9, 2, 3]);
    expect(batch.slotBegin(0)).toBe(batch.offset[0]);
    expect(batch.slotBegin(1)).toBe(batch.offset[1]! - batch.headroom);
    expect(batch.place(batch.landing.subarray(0, 1))).toBe(-1);
  });

  it('forgets what a former packet of a slot was', () => {
    const batch = placedBatch([bytes(1)]);
    batch.tag[0] = 7;
    batch.trafficClass[0] = 3;
    batch.fragmentable[0] = 1;
    batch.clear();
    batch.place(batch.landing);
    expect([batch.tag[0], batch.trafficClass[0], batch.fragmentable[0]]).toEqual([0, 0, 0]);
    batch.clear();
    batch.push(bytes(2));
    expect(batch.slotBegin(0)).toBe(0);
  });

  it('moves a packet that landed to its slot for room in front of it, and leaves its neighbours alone', () => {
    const batch = placedBatch([bytes(1, 2), bytes(3, 4), bytes(5, 6)]);
    batch.offset[1]!++;
    batch.length[1] = 1;
    const landed = batch.offset[1];
    expect(batch.makeRoom(1, 1)).toBe(true);
    expect(batch.offset[1]).toBe(landed);
    expect(batch.makeRoom(1, 2)).toBe(true);
    expect(batch.offset[1]).toBe(batch.slotStart(1));
    expect(batch.offset[1]! - batch.slotBegin(1)).toBe(batch.headroom);
    batch.buffer.fill(0xff, batch.slotBegin(1), batch.offset[1]);
    expect(packets(batch)).toEqual([[1, 2], [4], [5, 6]]);
  });

  it('says when there is no such room', () => {
    const batch = placedBatch([bytes(1, 2)]);
    expect(batch.makeRoom(0, batch.headroom + 1)).toBe(false);
    expect(batch.packet(0)).toEqual(bytes(1, 2));
    expect(batch.makeRoom(0, batch.headroom)).toBe(true);
    const large = new PacketBatch(1, 10, 64, 0, (size) => new Uint8Array(size + 11));
    large.place(large.landing);
    expect(large.makeRoom(0, 1)).toBe(false);
  });
});
