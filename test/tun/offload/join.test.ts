import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../../src/base/batch.ts';
import type { JoinerOptions } from '../../../src/tun/offload/join.ts';
import { Joiner } from '../../../src/tun/offload/join.ts';
import { PacketMemory } from '../../../src/tun/offload/memory.ts';
import { Splitter } from '../../../src/tun/offload/split.ts';
import type { VirtioHeader } from '../../../src/tun/offload/virtio.ts';
import { GsoType, VirtioFlag } from '../../../src/tun/offload/virtio.ts';
import type { PacketShape } from './support.ts';
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

const SIZE = 200;

interface Written {
  readonly header: VirtioHeader;
  readonly packet: Uint8Array;
  readonly packets: number;
}

const memory = new PacketMemory(64 * 1024 * 1024);
const joiners = new Map<string, Joiner>();

function joinerFor(options: JoinerOptions): Joiner {
  const key = JSON.stringify(options);
  const joiner = joiners.get(key) ?? new Joiner(memory, options);
  joiners.set(key, joiner);
  return joiner;
}

function written(batch: PacketBatch, joiner: Joiner): Written[] {
  const all: Written[] = [];
  joiner.join(batch, {
    write(buffer, at, length, packets) {
      all.push({ ...withoutHeader(buffer.slice(at, at + length)), packets });
    },
  });
  return all;
}

function joined(packets: readonly Uint8Array[], options: JoinerOptions = { udp: true }): Written[] {
  return written(batchOf(packets), joinerFor(options));
}

/** How many packets are in each write, in order. */
function counts(packets: readonly Uint8Array[], options?: JoinerOptions): number[] {
  return joined(packets, options).map((one) => one.packets);
}

/** Segment `i` of a flow; what `shape` says holds for it alone. */
function segment(i: number, shape: PacketShape = {}): Uint8Array {
  return packetOf({ payload: pattern(SIZE, i + 1), sequence: 1000 + i * SIZE, id: 7 + i, ...shape });
}

function run(count: number, shape: PacketShape = {}): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => segment(i, shape));
}

function spoil(packet: Uint8Array, at: number): Uint8Array {
  const copy = packet.slice();
  copy[at]! ^= 0x40;
  return copy;
}

const splitMemory = new PacketMemory(1_000_000);
const splitter = new Splitter(splitMemory);
const splitBatch = new PacketBatch(128, 1500, 64, 0, splitMemory.allocate);

/** The segments of what was written or read, as the kernel or the other end of this module has them. */
function splitAgain(read: Uint8Array): Uint8Array[] {
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

const shapes: [string, PacketShape][] = [
  ['TCP over IPv4', {}],
  ['TCP over IPv6', { version: 6 }],
  ['UDP over IPv4', { protocol: 'udp' }],
  ['UDP over IPv6', { version: 6, protocol: 'udp' }],
];

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

  it('leaves datagrams alone where the kernel takes no runs of them', () => {
    expect(counts(run(3, { protocol: 'udp' }), { udp: false })).toEqual([1, 1, 1]);
    expect(counts(run(3), { udp: false })).toEqual([3]);
  });

  it('takes dropped slots for nothing', () => {
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

describe('what is not joined', () => {
  const flag = (bits: number): PacketShape => ({ flags: ACK | bits });
  const tcp: [string, PacketShape][] = [
    ['another sequence number', { sequence: 1001 + SIZE }],
    ['an old segment', { sequence: 1000 }],
    ['another acknowledgment', { acknowledgment: 78 }],
    ['another window', { window: 501 }],
    ['another timestamp', { tcpOptions: Uint8Array.of(1, 1, 8, 10, 0, 1, 2, 4, 0, 4, 5, 6) }],
    ['fewer options', { tcpOptions: new Uint8Array(0) }],
    ['more options', { tcpOptions: new Uint8Array(16).fill(1) }],
    ['SYN', flag(0x02)],
    ['RST', flag(0x04)],
    ['URG', flag(0x20)],
    ['ECE', flag(0x40)],
    ['CWR', flag(0x80)],
    ['no ACK', { flags: 0 }],
    ['no payload', { payload: new Uint8Array(0) }],
    ['more payload', { payload: pattern(SIZE + 1) }],
  ];
  const ip: [string, PacketShape][] = [
    ['another ECN field', { trafficClass: 3 }],
    ['another DSCP', { trafficClass: 0xb8 }],
    ['another hop limit', { ttl: 63 }],
  ];
  const v4: [string, PacketShape][] = [
    ['another DF', { dontFragment: false }],
    ['IPv4 options', { ipOptions: Uint8Array.of(1, 1, 1, 0) }],
  ];
  const v6: [string, PacketShape][] = [
    ['extension headers', { extension: 60, ipOptions: Uint8Array.of(6, 0, 1, 4, 0, 0, 0, 0), version: 6 }],
  ];

  it.each([...tcp, ...ip, ...v4])('TCP over IPv4 with %s', (_what, shape) => {
    expect(counts([segment(0), segment(1, shape)])).toEqual([1, 1]);
    const behind = joined([segment(0), segment(1), segment(2, { sequence: 1000 + 2 * SIZE, ...shape })]);
    expect(behind.map((one) => one.packets)).toEqual([2, 1]);
    expect(behind[1]!.packet).toEqual(segment(2, { sequence: 1000 + 2 * SIZE, ...shape }));
  });

  it.each([...tcp, ...ip, ...v6])('TCP over IPv6 with %s', (_what, shape) => {
    const base = { version: 6 } as const;
    expect(counts([segment(0, base), segment(1, { ...base, ...shape })])).toEqual([1, 1]);
    expect(counts([segment(0, base), segment(1, base), segment(2, { ...base, ...shape })]).length).toBe(2);
  });

  it.each([
    ...ip,
    ...v4,
    ['no payload', { payload: new Uint8Array(0) }] as [string, PacketShape],
    ['no checksum', { udpWithoutChecksum: true }] as [string, PacketShape],
  ])('UDP over IPv4 with %s', (_what, shape) => {
    const base = { protocol: 'udp' } as const;
    expect(counts([segment(0, base), segment(1, { ...base, ...shape })])).toEqual([1, 1]);
    expect(counts([segment(0, { ...base, ...shape }), segment(1, base)])).toEqual([1, 1]);
  });

  it('a segment behind a short one, or behind one with PSH', () => {
    expect(counts([segment(0), segment(1, { payload: pattern(9) }), segment(2)])).toEqual([2, 1]);
    expect(counts([segment(0, { flags: ACK | PSH }), segment(1)])).toEqual([1, 1]);
  });

  it('IPv4 packets whose identification does not count up, unless DF is set', () => {
    const loose = { dontFragment: false };
    expect(counts(run(3, loose))).toEqual([3]);
    expect(counts([segment(0, loose), segment(1, { ...loose, id: 7 }), segment(2, loose)])).toEqual([1, 1, 1]);
    expect(counts(run(3, { id: 0 }))).toEqual([3]);
    expect(counts([0, 1, 2].map((i) => segment(i, { ...loose, id: (0xffff + i) & 0xffff })))).toEqual([3]);
  });

  it('a datagram behind a shorter one', () => {
    const short = segment(0, { protocol: 'udp', payload: pattern(SIZE - 1) });
    expect(counts([short, segment(1, { protocol: 'udp' })])).toEqual([1, 1]);
  });

  it('another flow', () => {
    for (const other of [{ source: 2 }, { sourcePort: 1 }, { destinationPort: 1 }, { version: 6 }] as PacketShape[]) {
      expect(counts([segment(0), segment(1, other)])).toEqual([1, 1]);
    }
  });

  it('a packet with padding behind it, or cut short', () => {
    for (const version of [4, 6] as const) {
      const padded = join(segment(1, { version }), new Uint8Array(4));
      expect(counts([segment(0, { version }), padded])).toEqual([1, 1]);
      expect(counts([segment(0, { version }), segment(1, { version }).slice(0, -1)])).toEqual([1, 1]);
    }
  });
});

describe('wrong checksums', () => {
  it.each(shapes)('%s: nothing that is wrong is joined, or changed', (_name, shape) => {
    const transport = transportOf(shape);
    const isTcp = shape.protocol !== 'udp';
    const places = [
      transport + (isTcp ? 16 : 6),
      transport + (isTcp ? 32 : 8),
      transport + (isTcp ? 32 : 8) + SIZE - 1,
    ];
    if (shape.version !== 6) places.push(10);
    for (const place of places) {
      for (let bad = 0; bad < 4; bad++) {
        const packets = run(4, shape);
        packets[bad] = spoil(packets[bad]!, place);
        const joiner = new Joiner(new PacketMemory(400_000), { udp: true, flows: 1 });
        const writes = written(batchOf(packets), joiner);
        expect(joiner.counters.badChecksums).toBe(1);
        const alone = writes.filter((one) => one.packets === 1).map((one) => one.packet);
        expect(alone).toContainEqual(packets[bad]);
        const restored = writes.flatMap((one) => splitWritten(one));
        expect(restored).toEqual(packets);
      }
    }
  });

  it('two wrong ones do not make a right one', () => {
    const packets = [spoil(segment(0), 60), spoil(segment(1), 60), segment(2)];
    expect(joined(packets).map((one) => one.packet)).toEqual(packets);
  });
});

describe('order', () => {
  it('is kept around packets of the flow that are passed on alone', () => {
    const ack = segment(2, { payload: new Uint8Array(0) });
    const packets = [segment(0), segment(1), ack, segment(2), segment(3)];
    const writes = joined(packets);
    expect(writes.map((one) => one.packets)).toEqual([2, 1, 2]);
    expect(writes[1]!.packet).toEqual(ack);
  });

  it('is kept around packets that may be of any flow between the hosts', () => {
    const fragment = packetOf({ protocol: 'udp', payload: pattern(100) });
    fragment[6] = 0x20;
    const elsewhere = packetOf({ protocol: 'udp', payload: pattern(100), source: 2 });
    elsewhere[6] = 0x20;
    expect(counts([segment(0), fragment, segment(1)])).toEqual([1, 1, 1]);
    const writes = joined([segment(0), elsewhere, segment(1)]);
    expect(writes.map((one) => one.packets)).toEqual([1, 2]);
  });

  it('is kept when there are more flows than are tracked', () => {
    const packets = Array.from({ length: 60 }, (_, i) => segment(Math.floor(i / 20), { sourcePort: 1 + (i % 20) }));
    const writes = joined(packets, { flows: 3 });
    expect(writes.filter((one) => one.packets === 3)).toHaveLength(3);
    expectSamePerFlow(packets, writes);
  });

  it('is kept, and nothing lost, whatever comes', () => {
    const packet = fc.record({
      flow: fc.nat(4),
      kind: fc.constantFrom('next', 'next', 'next', 'next', 'short', 'psh', 'ack', 'gap', 'bad', 'fragment', 'junk'),
      length: fc.integer({ min: 1, max: 60 }),
    });
    fc.assert(
      fc.property(fc.array(packet, { maxLength: 80 }), fc.constantFrom(1, 2, 16), (plan, flows) => {
        const packets = scripted(plan);
        expectSamePerFlow(packets, joined(packets, { udp: true, flows }));
      }),
      { numRuns: 150 },
    );
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

describe('truncated and spoilt packets', () => {
  it.each(shapes)('%s: cut at every byte, behind a whole one', (_name, shape) => {
    const next = segment(1, shape);
    for (let length = 1; length < next.length; length++) {
      const packets = [segment(0, shape), next.slice(0, length)];
      const writes = joined(packets);
      expect(writes).toHaveLength(2);
      expectSameSet(packets, writes);
    }
  });

  it.each(shapes)('%s: with every byte changed', (_name, shape) => {
    const next = segment(1, shape);
    for (let at = 0; at < next.length; at++) {
      const packets = [segment(0, shape), spoil(next, at)];
      const writes = joined(packets);
      expectSameSet(packets, writes);
    }
  });
});

interface Scripted {
  readonly flow: number;
  readonly kind: 'next' | 'short' | 'psh' | 'ack' | 'gap' | 'bad' | 'fragment' | 'junk';
  readonly length: number;
}

/** Packets of five flows as `plan` says; a number in each payload tells every packet from every other. */
function scripted(plan: readonly Scripted[]): Uint8Array[] {
  const sequences = [0, 0xffff_ff00, 5000, 0, 0];
  const ids = [0, 0xfff0, 9, 0, 0];
  return plan.map(({ flow, kind, length }, i) => {
    const protocol = flow < 3 ? 'tcp' : 'udp';
    const version = flow === 2 || flow === 4 ? 6 : 4;
    if (kind === 'gap') sequences[flow]! += 1;
    const size = kind === 'short' ? length : kind === 'ack' ? 0 : 64;
    const packet = packetOf({
      protocol,
      version,
      payload: pattern(size, i + 1),
      sourcePort: 1000 + flow,
      sequence: sequences[flow]! >>> 0,
      id: ids[flow]! & 0xffff,
      dontFragment: flow !== 1,
      flags: kind === 'psh' ? ACK | PSH : ACK,
    });
    sequences[flow]! += size;
    ids[flow]! += 1;
    if (kind === 'bad' || kind === 'fragment') return spoilAs(packet, kind, version);
    return kind === 'junk' ? pattern(length, i) : packet;
  });
}

function spoilAs(packet: Uint8Array, kind: 'bad' | 'fragment', version: number): Uint8Array {
  if (kind === 'bad') return spoil(packet, packet.length - 1);
  const copy = packet.slice();
  if (version === 4) copy[6] = 0x20;
  else copy[6] = 44;
  return copy;
}

/** The packets that the kernel makes of a write. */
function splitWritten(one: Written): Uint8Array[] {
  if (one.header.gsoType === GsoType.none) return [one.packet];
  const front = new Uint8Array(10);
  const view = new DataView(front.buffer);
  view.setUint8(0, one.header.flags);
  view.setUint8(1, one.header.gsoType);
  view.setUint16(2, one.header.hdrLen, true);
  view.setUint16(4, one.header.gsoSize, true);
  view.setUint16(6, one.header.csumStart, true);
  view.setUint16(8, one.header.csumOffset, true);
  const segments = splitAgain(join(front, one.packet));
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

function expectSamePerFlow(packets: readonly Uint8Array[], writes: readonly Written[]): void {
  expect(byFlow(writes.flatMap((one) => splitWritten(one)))).toEqual(byFlow(packets));
}

function expectSameSet(packets: readonly Uint8Array[], writes: readonly Written[]): void {
  const sorted = (all: readonly Uint8Array[]): string[] =>
    all.map((packet) => Buffer.from(packet).toString('hex')).sort();
  expect(sorted(writes.flatMap((one) => splitWritten(one)))).toEqual(sorted(packets));
}
