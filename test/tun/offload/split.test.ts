import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../../src/base/batch.ts';
import { fromHex, toHex } from '../../../src/base/bytes.ts';
import { utf8 } from '../../../src/base/text.ts';
import { PacketMemory } from '../../../src/tun/offload/memory.ts';
import type { SplitDrop } from '../../../src/tun/offload/split.ts';
import { Splitter } from '../../../src/tun/offload/split.ts';
import { GsoType, VirtioFlag } from '../../../src/tun/offload/virtio.ts';
import type { PacketShape } from './support.ts';
import { ACK, FIN, gsoOf, PSH, packetOf, packetsOf, pattern, withHeader } from './support.ts';

/** Addresses 192.0.2.1 and 198.51.100.9, ports 5001 and 443. */
const GOLDEN_V4 = 'c0000201c6336409' + '138901bb';
/** Addresses 2001:db8:1::1 and 2001:db8:2::9, the same ports. */
const GOLDEN_V6 = '20010db8000100000000000000000001' + '20010db8000200000000000000000009' + '138901bb';
const CWR = 0x80;
const ECE = 0x40;

function newSplitter(wasm = true): { memory: PacketMemory; splitter: Splitter } {
  const memory = new PacketMemory(2_000_000, { wasm });
  return { memory, splitter: new Splitter(memory) };
}

const shared = newSplitter();
const big = new PacketBatch(256, 1500, 64, 320, shared.memory.allocate);

/** All segments of what was read, by the shared splitter. */
function split(read: Uint8Array): Uint8Array[] {
  const { splitter } = shared;
  splitter.input.set(read);
  const segments: Uint8Array[] = [];
  splitter.start(read.length);
  do {
    big.clear();
    splitter.fill(big);
    segments.push(...packetsOf(big));
  } while (splitter.pending);
  return segments;
}

function refusalOf(read: Uint8Array): SplitDrop | undefined {
  const { splitter } = shared;
  const before = { ...splitter.drops };
  // Tests cut packets short: what is left of another one must not complete them.
  splitter.input.fill(0);
  splitter.input.set(read);
  if (splitter.start(read.length)) return undefined;
  expect(splitter.pending).toBe(false);
  expect(splitter.fill(new PacketBatch(1, 1500))).toBe(0);
  const reasons = (Object.keys(before) as SplitDrop[]).filter((reason) => splitter.drops[reason] !== before[reason]);
  expect(reasons).toHaveLength(1);
  expect(splitter.drops[reasons[0]!] - before[reasons[0]!]).toBe(1);
  return reasons[0];
}

/** What the segments must be, built one by one. */
function expected(shape: PacketShape, size: number): Uint8Array[] {
  const payload = shape.payload!;
  const count = Math.ceil(payload.length / size);
  const { flags = ACK } = shape;
  return Array.from({ length: count }, (_, i) =>
    packetOf({
      ...shape,
      payload: payload.slice(i * size, (i + 1) * size),
      id: ((shape.id ?? 7) + i) & 0xffff,
      sequence: ((shape.sequence ?? 1000) + i * size) >>> 0,
      flags: flags & (i === 0 ? 0xff : ~CWR) & (i === count - 1 ? 0xff : ~(PSH | FIN)),
    }),
  );
}

describe('packets that need no segmentation', () => {
  it('pass unchanged, whatever they hold', () => {
    const icmp = packetOf({ payload: pattern(33) });
    icmp[9] = 1;
    expect(split(withHeader(icmp))).toEqual([icmp]);
    const one = Uint8Array.of(0x45);
    expect(split(withHeader(one))).toEqual([one]);
  });

  it('get the checksum that they lack', () => {
    for (const version of [4, 6] as const) {
      for (const protocol of ['tcp', 'udp'] as const) {
        const shape = { version, protocol, payload: pattern(77) };
        const header = {
          flags: VirtioFlag.needsCsum,
          csumStart: version === 4 ? 20 : 40,
          csumOffset: protocol === 'tcp' ? 16 : 6,
        };
        expect(split(withHeader(packetOf({ ...shape, partial: true }), header))).toEqual([packetOf(shape)]);
      }
    }
  });

  it('never get the UDP checksum that says there is none', () => {
    // The payload's first word makes the sum of everything else up to all ones.
    const partial = packetOf({ protocol: 'udp', payload: new Uint8Array(2) });
    const field = (partial[26]! << 8) | partial[27]!;
    const shape: PacketShape = { protocol: 'udp', payload: Uint8Array.of(field >>> 8, field & 0xff) };
    const header = { flags: VirtioFlag.needsCsum, csumStart: 20, csumOffset: 6 };
    const [whole] = split(withHeader(packetOf({ ...shape, partial: true }), header));
    expect([whole![26], whole![27]]).toEqual([0xff, 0xff]);
    const [segment] = split(gsoOf(shape, 100));
    expect([segment![26], segment![27]]).toEqual([0xff, 0xff]);
  });
});

describe('segmentation', () => {
  // Computed by a few lines of Python beside this project.
  it('makes these TCP segments', () => {
    const packet = `4500002d0007400040064e86${GOLDEN_V4}000003e80000004d501801f6ec5d000068656c6c6f`;
    const header = { flags: 1, gsoType: 1, hdrLen: 40, gsoSize: 3, csumStart: 20, csumOffset: 16 };
    expect(split(withHeader(fromHex(packet), header)).map(toHex)).toEqual([
      `4500002b0007400040064e88${GOLDEN_V4}000003e80000004d501001f6d3be000068656c`,
      `4500002a0008400040064e88${GOLDEN_V4}000003eb0000004d501801f63bab00006c6f`,
    ]);
  });

  it('makes these UDP datagrams', () => {
    const packet = `6001234500141140${GOLDEN_V6}00145ba4${toHex(utf8('datagramrest'))}`;
    const header = { flags: 1, gsoType: 5, hdrLen: 48, gsoSize: 8, csumStart: 40, csumOffset: 6 };
    expect(split(withHeader(fromHex(packet), header)).map(toHex)).toEqual([
      `6001234500101140${GOLDEN_V6}0010ed68${toHex(utf8('datagram'))}`,
      `60012345000c1140${GOLDEN_V6}000ca939${toHex(utf8('rest'))}`,
    ]);
  });

  it.each([
    ['TCP over IPv4', {}],
    ['TCP over IPv4 with FIN and PSH', { flags: ACK | FIN | PSH }],
    ['TCP with CWR and ECE', { flags: ACK | CWR | ECE | PSH }],
    ['TCP whose sequence number and identification wrap', { sequence: 0xffff_fff0, id: 0xfffe, dontFragment: false }],
    ['TCP over IPv4 with options', { ipOptions: Uint8Array.of(7, 7, 4, 0, 0, 0, 0, 0), trafficClass: 0xb9 }],
    ['TCP with all the options that fit', { tcpOptions: new Uint8Array(40).fill(1) }],
    ['TCP over IPv6', { version: 6, flags: ACK | PSH, trafficClass: 0x2e }],
    ['UDP over IPv4', { protocol: 'udp' }],
    ['UDP over IPv6', { version: 6, protocol: 'udp' }],
    [
      'UDP over IPv6 with options',
      { version: 6, protocol: 'udp', extension: 60, ipOptions: Uint8Array.of(17, 0, 1, 4, 0, 0, 0, 0) },
    ],
  ] satisfies [string, PacketShape][])('of %s', (_name, shape) => {
    for (const length of [1, 999, 1000, 1001, 20_001]) {
      const full = { ...shape, payload: pattern(length, length) };
      expect(split(gsoOf(full, 1000))).toEqual(expected(full, 1000));
    }
  });

  it('is the same without WebAssembly, and into buffers of another memory', () => {
    const shape = { payload: pattern(5555), flags: ACK | PSH };
    const { splitter } = newSplitter(false);
    splitter.input.set(gsoOf(shape, 1000));
    expect(splitter.start(10 + 52 + 5555)).toBe(true);
    const batch = new PacketBatch(8, 1500);
    expect(splitter.fill(batch)).toBe(6);
    expect(packetsOf(batch)).toEqual(expected(shape, 1000));
  });

  it('continues where the batch was full', () => {
    const { memory, splitter } = newSplitter();
    const shape = { payload: pattern(64_000), flags: ACK | FIN | CWR, tcpOptions: new Uint8Array(0) };
    const read = gsoOf(shape, 64);
    splitter.input.set(read);
    expect(splitter.start(read.length)).toBe(true);
    const segments: Uint8Array[] = [];
    const batch = new PacketBatch(37, 200, 64, 32, memory.allocate);
    let turns = 0;
    while (splitter.pending) {
      batch.clear();
      // Others have put packets into the batch before.
      batch.push(Uint8Array.of(1, 2, 3));
      expect(splitter.fill(batch)).toBe(batch.count - 1);
      segments.push(...packetsOf(batch).slice(1));
      turns++;
    }
    expect(turns).toBe(Math.ceil(1000 / 36));
    expect(segments).toEqual(expected(shape, 64));
    expect(splitter.fill(batch)).toBe(0);
  });

  it('loses a packet whose segments do not fit into slots, and counts it once', () => {
    const { splitter } = newSplitter();
    const read = gsoOf({ payload: pattern(9000) }, 3000);
    splitter.input.set(read);
    splitter.start(read.length);
    const batch = new PacketBatch(8, 1500);
    expect(splitter.fill(batch)).toBe(0);
    expect([splitter.pending, splitter.drops['too-large']]).toEqual([false, 1]);
  });

  it('splits the largest packet that IPv6 can describe', () => {
    const shape: PacketShape = { version: 6, protocol: 'udp', payload: pattern(65_527) };
    expect(split(gsoOf(shape, 1024))).toEqual(expected(shape, 1024));
  });
});

describe('what is refused', () => {
  const tso4 = gsoOf({ payload: pattern(300) }, 100);
  const tso6 = gsoOf({ version: 6, payload: pattern(300) }, 100);
  const uso4 = gsoOf({ protocol: 'udp', payload: pattern(300) }, 100);
  const optioned = gsoOf(
    { version: 6, extension: 60, ipOptions: Uint8Array.of(6, 0, 1, 4, 0, 0, 0, 0), payload: pattern(300) },
    100,
  );

  /** The same with other bytes at an offset of the packet, or of the virtio header where it is negative. */
  function changed(read: Uint8Array, at: number, ...bytes: number[]): Uint8Array {
    const copy = read.slice();
    copy.set(bytes, 10 + at);
    return copy;
  }

  it('accepts them unchanged', () => {
    for (const read of [tso4, tso6, uso4, optioned]) expect(refusalOf(read)).toBeUndefined();
  });

  it.each<[SplitDrop, string, Uint8Array]>([
    ['bad-length', 'a header alone', tso4.slice(0, 10)],
    ['bad-length', 'more than there can be', new Uint8Array(10 + 65_576).fill(0x45)],
    ['not-ip', 'version 5', changed(tso4, 0, 0x55)],
    ['unknown-gso', 'fragmentation of UDP', changed(uso4, -9, GsoType.udp)],
    ['unknown-gso', 'a type of tomorrow', changed(uso4, -9, 6)],
    ['bad-checksum-place', 'a run without NEEDS_CSUM', changed(tso4, -10, 0)],
    ['bad-checksum-place', 'a run with a wrong offset', changed(tso4, -2, 14)],
    [
      'bad-checksum-place',
      'a whole packet with its checksum behind the end',
      changed(changed(tso4, -9, 0), -4, 0x5a, 1),
    ],
    ['bad-ip-header', 'TSO4 in IPv6', changed(tso6, -9, GsoType.tcp4)],
    ['bad-ip-header', 'TSO6 in IPv4', changed(tso4, -9, GsoType.tcp6)],
    ['bad-ip-header', 'a header length below 20', changed(changed(tso4, 0, 0x44), -4, 16)],
    ['bad-ip-header', 'a checksum start that is not the header length', changed(tso4, -4, 24)],
    ['bad-ip-header', 'a wrong total length', changed(tso4, 2, 0, 99)],
    ['bad-ip-header', 'a fragment', changed(tso4, 6, 0x20)],
    ['bad-ip-header', 'a later fragment', changed(tso4, 6, 0x00, 0x01)],
    ['bad-ip-header', 'a protocol that is not TCP', changed(tso4, 9, 17)],
    ['bad-ip-header', 'a wrong IPv6 payload length', changed(tso6, 4, 0, 0)],
    ['bad-ip-header', 'a next header that is not TCP', changed(tso6, 6, 17)],
    ['bad-ip-header', 'a checksum start within the IPv6 header', changed(tso6, -4, 39)],
    ['bad-ip-header', 'a chain that leads past the checksum start', changed(optioned, 41, 1)],
    ['bad-ip-header', 'a chain over a fragment header', changed(optioned, 6, 44)],
    ['bad-transport-header', 'a TCP header below 20', changed(tso4, 32, 0x40)],
    ['bad-transport-header', 'a TCP header as long as the packet', changed(tso4.slice(0, 62), 2, 0, 52)],
    ['bad-transport-header', 'a wrong UDP length', changed(uso4, 24, 0, 99)],
    ['bad-transport-header', 'segments of no size', changed(tso4, -6, 0, 0)],
  ])('%s: %s', (reason, _what, read) => {
    expect(refusalOf(read)).toBe(reason);
  });

  it('refuses every truncation of a run', () => {
    for (const read of [tso4, tso6, uso4, optioned]) {
      for (let length = 0; length < read.length; length++) expect(refusalOf(read.slice(0, length))).toBeDefined();
    }
  });

  it('comes to an end with whatever bytes it is given', () => {
    const mutation = fc.record({
      read: fc.constantFrom(tso4, tso6, uso4, optioned),
      changes: fc.array(fc.tuple(fc.nat(99), fc.nat(255)), { maxLength: 6 }),
      length: fc.nat(400),
    });
    fc.assert(
      fc.property(mutation, ({ read, changes, length }) => {
        const { splitter } = shared;
        splitter.input.set(read);
        for (const [at, value] of changes) splitter.input[at] = value;
        if (!splitter.start(length)) return;
        let segments = 0;
        while (splitter.pending) {
          big.clear();
          segments += splitter.fill(big);
        }
        expect(segments).toBeLessThanOrEqual(length);
      }),
      { numRuns: 2000 },
    );
  });
});
