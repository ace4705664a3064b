import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../../src/base/batch.ts';
import { Joiner } from '../../../src/tun/offload/join.ts';
import { PacketMemory } from '../../../src/tun/offload/memory.ts';
import { GsoType, VirtioFlag } from '../../../src/tun/offload/virtio.ts';
import { placedBatch } from '../../support/placed-batch.ts';
import {
  counts,
  joined,
  joinerFor,
  memory,
  run,
  SIZE,
  segment,
  shapes,
  splitAgain,
  splitWritten,
  written,
} from './join-support.ts';
import {
  ACK,
  batchOf,
  FIN,
  gsoOf,
  join,
  PSH,
  packetOf,
  packetsOf,
  pattern,
  transportOf,
  withoutHeader,
} from './support.ts';

describe('joining', () => {
  it.each(shapes)('%s: a run becomes one packet that waits for its checksum', (_name, shape) => {
    const tail = segment(5, { ...shape, payload: pattern(33) });
    const [one, ...others] = joined([...run(5, shape), tail]);
    expect(others).toEqual([]);
    const payload = join(...Array.from({ length: 5 }, (_, i) => pattern(SIZE, i + 1)), pattern(33));
    const isTcp = shape.protocol !== 'udp';
    const transport = transportOf(shape);
    expect(one).toEqual({
      packets: 6,
      packet: packetOf({ ...shape, payload, id: 7, sequence: 1000, partial: true }),
      header: {
        flags: VirtioFlag.needsCsum,
        gsoType: isTcp ? (shape.version === 6 ? GsoType.tcp6 : GsoType.tcp4) : GsoType.udpL4,
        hdrLen: transport + (isTcp ? 32 : 8),
        gsoSize: SIZE,
        csumStart: transport,
        csumOffset: isTcp ? 16 : 6,
      },
    });
  });

  it.each(shapes)('%s: one packet stays as it is', (_name, shape) => {
    const packet = segment(0, shape);
    const none = { flags: 0, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 };
    expect(joined([packet])).toEqual([{ packets: 1, packet, header: none }]);
  });

  it('passes FIN and PSH on, and ends with them', () => {
    const packets = [...run(2), segment(2, { flags: ACK | FIN | PSH }), segment(3), segment(4)];
    const [first, second] = joined(packets);
    expect([first!.packets, second!.packets]).toEqual([3, 2]);
    expect(first!.packet[33]).toBe(ACK | FIN | PSH);
    expect(second!.packet[33]).toBe(ACK);
  });

  it('counts what it joined', () => {
    const joiner = new Joiner(memory, { flows: 2 });
    written(batchOf([...run(3), segment(9)]), joiner);
    expect(joiner.counters).toEqual({ joinedPackets: 3, joinedWrites: 1, badChecksums: 0, tooLarge: 0 });
  });

  it('stops at 65,535 bytes', () => {
    const payload = pattern(1400);
    const packets = Array.from({ length: 100 }, (_, i) => packetOf({ payload, sequence: i * 1400, id: i }));
    const writes = joined(packets);
    expect(writes.map((one) => one.packets)).toEqual([46, 46, 8]);
    expect(writes[0]!.packet.length).toBe(52 + 46 * 1400);
    // A payload that would end exactly there still fits; one byte more does not.
    const room = 65_535 - 52 - 46 * 1400;
    const last = (length: number) => packetOf({ payload: pattern(length), sequence: 46 * 1400, id: 46 });
    expect(counts([...packets.slice(0, 46), last(room)])).toEqual([47]);
    expect(counts([...packets.slice(0, 46), last(room + 1)])).toEqual([46, 1]);
  });

  it('stops at 64 datagrams', () => {
    expect(counts(run(70, { protocol: 'udp' }))).toEqual([64, 6]);
  });

  it('does not join datagrams where the kernel takes no runs of them', () => {
    expect(counts(run(3, { protocol: 'udp' }), { udp: false })).toEqual([1, 1, 1]);
    expect(counts(run(3), { udp: false })).toEqual([3]);
  });

  it('skips dropped slots', () => {
    const batch = batchOf([segment(0), segment(77), segment(1)]);
    batch.length[1] = 0;
    expect(written(batch, joinerFor({})).map((one) => one.packets)).toEqual([2]);
  });

  it('works over buffers of its memory, of another and of the heap, with headroom and without', () => {
    const packets = [...run(4), segment(9), segment(0, { protocol: 'udp' })];
    const expected = joined(packets);
    expect(expected.map((one) => one.packets)).toEqual([4, 1, 1]);
    for (const from of [memory, new PacketMemory(1_000_000), undefined]) {
      for (const headroom of [64, 10, 9, 0]) {
        for (const joiner of [
          joinerFor({ udp: true }),
          new Joiner(new PacketMemory(2_000_000, { wasm: false }), { udp: true }),
        ]) {
          expect(written(batchOf(packets, from, headroom), joiner)).toEqual(expected);
        }
      }
    }
  });

  it('writes over nothing that lies in front of packets that were placed', () => {
    const packets = [segment(0), segment(0, { protocol: 'udp' }), ...run(3, { version: 6 }), segment(9)];
    const batch = placedBatch(packets, memory.allocate);
    expect(written(batch, joinerFor({ udp: true }))).toEqual(joined(packets));
    expect(packetsOf(batch)).toEqual(packets);
  });

  it('leaves the packets of the batch as they are', () => {
    const packets = [...run(4), segment(4, { flags: ACK | PSH }), segment(0, { protocol: 'udp' })];
    const batch = batchOf(packets);
    written(batch, joinerFor({ udp: true }));
    expect(packetsOf(batch)).toEqual(packets);
  });

  it('drops what no IP packet can be, when there is no room for a header in front', () => {
    const joiner = new Joiner(memory, { flows: 1 });
    const batch = new PacketBatch(1, 70_000, 0, 0);
    batch.claim(65_536);
    expect(written(batch, joiner)).toEqual([]);
    expect(joiner.counters.tooLarge).toBe(1);
  });
});

describe('there and back', () => {
  const anyShape = fc.record({
    version: fc.constantFrom(4 as const, 6 as const),
    protocol: fc.constantFrom('tcp' as const, 'udp' as const),
    sequence: fc.integer({ min: 0, max: 0xffff_ffff }),
    id: fc.nat(0xffff),
    dontFragment: fc.boolean(),
    trafficClass: fc.nat(255),
    flags: fc.constantFrom(ACK, ACK | PSH, ACK | FIN, ACK | FIN | PSH, ACK | 0x40),
    tcpOptions: fc.nat(10).map((words) => pattern(4 * words)),
  });

  it('joins again what was divided', () => {
    fc.assert(
      fc.property(
        anyShape,
        fc.integer({ min: 50, max: 1400 }),
        fc.integer({ min: 2, max: 60_000 }),
        (shape, size, length) => {
          const limit = shape.protocol === 'udp' ? Math.min(length, 64 * size) : length;
          const read = gsoOf({ ...shape, payload: pattern(limit, length) }, size);
          const writes = joined(splitAgain(read));
          expect(writes).toHaveLength(1);
          if (limit > size) expect(Buffer.compare(writes[0]!.packet, withoutHeader(read).packet)).toBe(0);
          else expect(writes[0]!.header.gsoType).toBe(GsoType.none);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('divides again into the same packets what was joined', () => {
    const lengths = fc.array(fc.constantFrom(SIZE, SIZE, SIZE, 31), { minLength: 1, maxLength: 60 });
    fc.assert(
      fc.property(anyShape, lengths, (shape, plan) => {
        let sequence = shape.sequence;
        const packets = plan.map((length, i) => {
          const packet = packetOf({
            ...shape,
            payload: pattern(length, i),
            sequence,
            id: (shape.id + i) & 0xffff,
            flags: i === plan.length - 1 ? shape.flags : shape.flags & ~(PSH | FIN),
          });
          sequence = (sequence + length) >>> 0;
          return packet;
        });
        const again = joined(packets).flatMap((one) => splitWritten(one));
        expect(Buffer.compare(join(...again), join(...packets))).toBe(0);
      }),
      { numRuns: 60 },
    );
  });
});
