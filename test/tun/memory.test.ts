import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { MemoryDevice } from '../../src/tun/memory.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Bytes that look like an IPv4 packet, told apart by `mark`. */
function packet(mark: number, length = 20): Uint8Array {
  const bytes = new Uint8Array(length).fill(mark);
  bytes[0] = 0x45;
  return bytes;
}

function batchOf(...packets: readonly Uint8Array[]): PacketBatch {
  const batch = new PacketBatch(8, 1500);
  for (const one of packets) expect(batch.push(one)).toBeGreaterThanOrEqual(0);
  return batch;
}

describe('a memory device', () => {
  it('hands injected packets over in order, in batches, without waiting', () => {
    const device = new MemoryDevice();
    for (let mark = 1; mark <= 3; mark++) expect(device.inject(packet(mark))).toBe(true);
    const batch = new PacketBatch(2, 1500);
    expect(device.read(batch)).toBe(2);
    expect([batch.packet(0)[1], batch.packet(1)[1]]).toEqual([1, 2]);
    expect(device.read(batch)).toBe(0);
    batch.clear();
    expect(device.read(batch)).toBe(1);
    expect(batch.packet(0)).toEqual(packet(3));
    expect(device.read(batch)).toBe(0);
    expect(device.counters).toMatchObject({ readPackets: 3, readBytes: 60 });
  });

  it('keeps a copy of what was injected', () => {
    const device = new MemoryDevice();
    const bytes = packet(1);
    device.inject(bytes);
    bytes.fill(0xff);
    const batch = new PacketBatch(1, 1500);
    device.read(batch);
    expect(batch.packet(0)).toEqual(packet(1));
  });

  it('calls the handler in a later turn, and again while packets are left', async () => {
    const device = new MemoryDevice();
    const seen: number[] = [];
    const batch = new PacketBatch(1, 1500);
    device.inject(packet(1));
    device.onReadable(() => {
      batch.clear();
      device.read(batch);
      seen.push(batch.packet(0)[1]!);
    });
    device.inject(packet(2));
    expect(seen).toEqual([]);
    await turn();
    await turn();
    await turn();
    expect(seen).toEqual([1, 2]);
    device.inject(packet(3));
    await turn();
    expect(seen).toEqual([1, 2, 3]);
  });

  it('delivers what is written, passing over dropped slots', () => {
    const device = new MemoryDevice();
    const batch = batchOf(packet(1), packet(2), packet(3));
    batch.length[1] = 0;
    expect(device.write(batch)).toBe(2);
    expect(device.takeDelivered()).toEqual([packet(1), packet(3)]);
    expect(device.takeDelivered()).toEqual([]);
    const seen: Uint8Array[] = [];
    device.write(batchOf(packet(4)));
    device.onDelivered((delivered) => seen.push(delivered));
    device.write(batchOf(packet(5)));
    expect(seen).toEqual([packet(4), packet(5)]);
    expect(device.counters).toMatchObject({ writtenPackets: 4, writtenBytes: 80 });
  });

  it('counts what it cannot take, by reason', () => {
    const device = new MemoryDevice({ mtu: 100, queueLength: 2 });
    expect(device.inject(packet(1, 101))).toBe(false);
    expect(device.inject(Uint8Array.of(0x10, 1, 2))).toBe(false);
    expect(device.inject(new Uint8Array(0))).toBe(false);
    device.inject(packet(1));
    device.inject(packet(2));
    expect(device.inject(packet(3))).toBe(false);
    expect(device.write(batchOf(packet(1, 400), packet(2), packet(3)))).toBe(2);
    expect(device.counters.dropped).toMatchObject({ 'too-large': 1, 'not-ip': 2, 'queue-full': 2 });
    const small = new PacketBatch(4, 10, 0, 0);
    expect(device.read(small)).toBe(0);
    expect(device.counters.dropped['too-large']).toBe(3);
  });

  it('does nothing more once it is closed or taken away', async () => {
    const closed = new MemoryDevice();
    const reasons: unknown[] = [];
    closed.onClosed((reason) => reasons.push(reason));
    closed.inject(packet(1));
    let turns = 0;
    closed.onReadable(() => turns++);
    await closed.close();
    await closed.close();
    await turn();
    expect(turns).toBe(0);
    expect(closed.inject(packet(1))).toBe(false);
    expect(closed.write(batchOf(packet(1)))).toBe(0);
    expect(closed.read(new PacketBatch(1, 1500))).toBe(0);
    expect(closed.counters.dropped.closed).toBe(2);
    const failed = new MemoryDevice();
    failed.onClosed((reason) => reasons.push(reason));
    failed.fail(new Error('gone'));
    await failed.close();
    expect(reasons).toEqual([undefined, new Error('gone')]);
  });
});
