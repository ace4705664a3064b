import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../../src/base/batch.ts';
import { PacketMemory } from '../../../src/tun/offload/memory.ts';
import type { OffloadKinds } from '../../../src/tun/offload/shared.ts';
import { SharedOffloads } from '../../../src/tun/offload/shared.ts';
import { OffloadWriter } from '../../../src/tun/offload/writer.ts';
import type { PacketShape } from './support.ts';
import { ACK, batchOf, gsoOf, packetOf, packetsOf, pattern, withoutHeader } from './support.ts';

const RUN = 4;
const SIZE = 200;
const memory = new PacketMemory(8 * 1024 * 1024);
const shared = new SharedOffloads(memory);

function run(shape: PacketShape = {}): Uint8Array[] {
  return Array.from({ length: RUN }, (_, i) =>
    packetOf({ payload: pattern(SIZE, i + 1), sequence: 1000 + i * SIZE, id: 7 + i, flags: ACK, ...shape }),
  );
}

/** A kernel that says of each joined write whether it takes it, and keeps what it took. */
function kernel(takes: (packets: number, isUdp: boolean) => boolean, kinds: OffloadKinds = 'all') {
  const offered: number[] = [];
  const taken: Uint8Array[] = [];
  const writer = new OffloadWriter(shared, kinds, (buffer, at, length, packets) => {
    offered.push(packets);
    const { header, packet } = withoutHeader(buffer.slice(at, at + length));
    if (packets > 1 && !takes(packets, header.gsoType === 5)) return false;
    taken.push(packet);
    return true;
  });
  const write = (packets: readonly Uint8Array[]): Uint8Array[] => {
    offered.length = 0;
    taken.length = 0;
    expect(writer.write(batchOf(packets, memory))).toBe(0);
    return [...taken];
  };
  return { writer, offered, write };
}

describe('a writer', () => {
  it.each([
    ['TCP over IPv4', {}],
    ['TCP over IPv6', { version: 6 }],
    ['UDP over IPv4', { protocol: 'udp' }],
    ['UDP over IPv6', { version: 6, protocol: 'udp' }],
  ] as [string, PacketShape][])('writes %s one by one where the run is refused, none lost', (_name, shape) => {
    const { offered, write } = kernel(() => false);
    expect(write(run(shape))).toEqual(run(shape));
    expect(offered).toEqual([RUN, 1, 1, 1, 1]);
  });

  it('stops joining when the kernel keeps refusing', () => {
    const { writer, offered, write } = kernel(() => false);
    for (let i = 0; i < 8; i++) {
      expect(writer.kinds).toBe('all');
      write(run());
      expect(offered[0]).toBe(RUN);
    }
    expect(writer.kinds).toBe('none');
    expect(write(run())).toEqual(run());
    expect(offered).toEqual([1, 1, 1, 1]);
  });

  it('keeps joining segments where only datagrams are refused', () => {
    const { writer, offered, write } = kernel((_packets, isUdp) => !isUdp);
    const both = [...run(), ...run({ protocol: 'udp' })];
    for (let i = 0; i < 8; i++) write(both);
    expect(writer.kinds).toBe('tcp');
    const written = write(both);
    expect(offered.toSorted()).toEqual([1, 1, 1, 1, RUN]);
    for (const datagram of run({ protocol: 'udp' })) expect(written).toContainEqual(datagram);
  });

  it('keeps joining after an occasional refusal', () => {
    let count = 0;
    const { writer, write } = kernel(() => count++ % 8 !== 7);
    for (let i = 0; i < 40; i++) write(run());
    expect(writer.kinds).toBe('all');
  });

  it('joins the kinds that it is set up for', () => {
    const both = [...run(), ...run({ protocol: 'udp' })];
    for (const [kinds, writes] of [
      ['all', [RUN, RUN]],
      ['tcp', [1, 1, 1, 1, RUN]],
      ['none', [1, 1, 1, 1, 1, 1, 1, 1]],
    ] as const) {
      const { offered, write } = kernel(() => true, kinds);
      write(both);
      expect(offered.toSorted()).toEqual(writes);
    }
  });

  it('reports what no device can take', () => {
    const { writer } = kernel(() => true);
    const batch = new PacketBatch(1, 70_000, 0, 0);
    batch.claim(65_536);
    expect(writer.write(batch)).toBe(1);
  });
});

describe('what devices share', () => {
  const packet = gsoOf({ payload: pattern(10 * SIZE) }, SIZE);

  function segments(from: SharedOffloads): number {
    const splitter = from.takeSplitter();
    splitter.input.set(packet);
    expect(splitter.start(packet.length)).toBe(true);
    const batch = new PacketBatch(10, 1500, 64, 320, from.memory.allocate);
    const filled = splitter.fill(batch);
    expect(packetsOf(batch)[9]!.slice(-SIZE)).toEqual(pattern(10 * SIZE).slice(-SIZE));
    return filled;
  }

  it('gives a splitter to the next device, without what was left in it', () => {
    const splitter = shared.takeSplitter();
    splitter.input.set(packet);
    splitter.start(packet.length);
    expect(splitter.pending).toBe(true);
    const { left } = memory;
    shared.giveBack(splitter);
    const next = shared.takeSplitter();
    expect(memory.left).toBe(left);
    expect(next.pending).toBe(false);
  });

  it('serves devices beyond its memory, too', () => {
    const small = new SharedOffloads(new PacketMemory(3_000_000));
    let devices = 0;
    while (small.memory.left > 100_000) {
      small.takeSplitter();
      devices++;
    }
    expect(devices).toBeGreaterThan(0);
    for (let i = 0; i < 3; i++) expect(segments(small)).toBe(10);
  });
});
