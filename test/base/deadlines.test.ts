import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { Deadlines } from '../../src/base/deadlines.ts';

describe('Deadlines', () => {
  it('names the earliest and hands out what is due in order of time', () => {
    const deadlines = new Deadlines<'a' | 'b' | 'c'>();
    expect(deadlines.next()).toBeUndefined();
    deadlines.set('a', 30);
    deadlines.set('b', 10);
    deadlines.set('c', 20);
    expect(deadlines.next()).toBe(10);
    expect(deadlines.takeDue(9)).toBeUndefined();
    expect(deadlines.takeDue(20)).toBe('b');
    expect(deadlines.takeDue(20)).toBe('c');
    expect(deadlines.takeDue(20)).toBeUndefined();
    expect(deadlines.get('a')).toBe(30);
  });

  it('moves and clears', () => {
    const deadlines = new Deadlines<'a' | 'b'>();
    deadlines.set('a', 10);
    deadlines.set('a', 40);
    deadlines.set('b', 50);
    expect(deadlines.takeDue(10)).toBeUndefined();
    deadlines.clear('a');
    expect(deadlines.next()).toBe(50);
    deadlines.clearAll();
    expect(deadlines.next()).toBeUndefined();
  });
});

describe('PacketBatch', () => {
  it('keeps packets apart, with headroom and tailroom', () => {
    const batch = new PacketBatch(2, 100, 16, 8);
    expect(batch.push(new Uint8Array([1, 2, 3]))).toBe(0);
    expect(batch.push(new Uint8Array(108).fill(7))).toBe(1);
    expect(batch.push(new Uint8Array(1))).toBe(-1);
    expect(batch.offset[0]).toBe(16);
    expect([...batch.packet(0)]).toEqual([1, 2, 3]);
    expect(batch.offset[1]! - (batch.offset[0]! + batch.slotRoom)).toBe(16);
    batch.clear();
    expect(batch.push(new Uint8Array(109))).toBe(-1);
    expect(batch.count).toBe(0);
  });
});
