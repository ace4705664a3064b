import { describe, expect, it } from 'vitest';
import { Joiner } from '../../../src/tun/offload/join.ts';
import { PacketMemory } from '../../../src/tun/offload/memory.ts';
import {
  counts,
  expectSameSet,
  joined,
  run,
  SIZE,
  segment,
  shapes,
  splitWritten,
  spoil,
  written,
} from './join-support.ts';
import { ACK, batchOf, join, type PacketShape, PSH, pattern, transportOf } from './support.ts';

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

  it('segments of which each has CWR set: it stands for one of them alone', () => {
    expect(counts(run(2, { flags: ACK | 0x80 }))).toEqual([1, 1]);
    expect(counts(run(2, { flags: ACK | 0x40 }))).toEqual([2]);
  });

  it('datagrams without a checksum, which is not a wrong one', () => {
    const joiner = new Joiner(new PacketMemory(400_000), { udp: true, flows: 1 });
    const packets = run(3, { protocol: 'udp', udpWithoutChecksum: true });
    expect(written(batchOf(packets), joiner).map((one) => one.packet)).toEqual(packets);
    expect(joiner.counters.badChecksums).toBe(0);
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
