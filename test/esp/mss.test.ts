import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sumBytes } from '../../src/base/checksum.ts';
import { clampMss } from '../../src/esp/mss.ts';
import { Flow, FlowError, readFlow } from '../../src/policy/flow.ts';
import { extension, type PacketFields, packet } from '../policy/helpers.ts';

const V4: PacketFields = { src: '10.1.0.1', dst: '10.2.0.1', protocol: 6 };
const V6: PacketFields = { src: 'fd00:1::1', dst: 'fd00:2::1', protocol: 6 };
const SYN = 0x02;
const ACK = 0x10;
const NOP = 1;

const mss = (value: number): number[] => [2, 4, value >>> 8, value & 0xff];

/** A TCP header with options, filled up with the end of the list, and data behind. */
function segment(options: readonly number[], { flags = SYN, data = 0 } = {}): Uint8Array {
  const length = 20 + Math.ceil(options.length / 4) * 4;
  const bytes = new Uint8Array(length + data).fill(0x5c, length);
  bytes.set([0x12, 0x34, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, (length / 4) << 4, flags, 0xff, 0xff]);
  bytes.set(options, 20);
  return bytes;
}

/** The sum over TCP and its pseudo-header: all ones when the checksum is right. */
function tcpSum(bytes: Uint8Array): number {
  const v4 = bytes[0]! >>> 4 === 4;
  const flow = new Flow();
  readFlow(bytes, 0, bytes.length, flow);
  const length = flow.totalLength - flow.headerLength;
  const addresses = v4 ? sumBytes(bytes, 12, 8) : sumBytes(bytes, 8, 32);
  return sumBytes(bytes, flow.headerLength, length, addresses + 6 + length);
}

function tcp(fields: PacketFields, payload: Uint8Array): Uint8Array {
  const bytes = packet({ ...fields, payload });
  const at = bytes.length - payload.length + 16;
  const checksum = ~tcpSum(bytes);
  bytes[at] = checksum >>> 8;
  bytes[at + 1] = checksum;
  return bytes;
}

/** The packet afterwards; it lay at an odd place among other bytes, which must stay. */
function clamped(bytes: Uint8Array, mtu: number): Uint8Array {
  const buffer = new Uint8Array(bytes.length + 20).fill(0xee);
  buffer.set(bytes, 7);
  const flow = new Flow();
  if (readFlow(buffer, 7, bytes.length, flow) !== FlowError.none) throw new Error('not a packet');
  clampMss(buffer, 7, flow, mtu);
  expect(buffer.subarray(0, 7)).toEqual(new Uint8Array(7).fill(0xee));
  expect(buffer.subarray(7 + bytes.length)).toEqual(new Uint8Array(13).fill(0xee));
  return buffer.slice(7, 7 + bytes.length);
}

/** Offset and value of each byte that differs. */
function changes(before: Uint8Array, after: Uint8Array): [number, number][] {
  return [...after.entries()].filter(([at, byte]) => byte !== before[at]);
}

describe('the MSS of a SYN', () => {
  it('is lowered to what the MTU leaves beside IP and TCP headers', () => {
    const v4 = tcp(V4, segment(mss(1460)));
    expect(clamped(v4, 1400).slice(40, 44)).toEqual(Uint8Array.from(mss(1360)));
    const v6 = tcp(V6, segment(mss(1440), { flags: SYN | ACK }));
    expect(clamped(v6, 1400).slice(60, 64)).toEqual(Uint8Array.from(mss(1340)));
  });

  it('stays when it is lower, or not there', () => {
    for (const options of [mss(1360), mss(536), mss(0), [NOP, NOP], []]) {
      const bytes = tcp(V4, segment(options));
      expect(clamped(bytes, 1400)).toEqual(bytes);
    }
  });

  it('is found behind other options, IP options and extension headers', () => {
    const options = [3, 3, 7, 4, 2, ...mss(9000), NOP, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    const v4 = tcp({ ...V4, options: new Uint8Array(12) }, segment(options, { data: 5 }));
    expect(clamped(v4, 1400).slice(57, 61)).toEqual(Uint8Array.from(mss(1360)));
    const v6 = tcp({ ...V6, extensions: [extension(0, 8), extension(60, 16)] }, segment(options));
    expect(clamped(v6, 1400).slice(89, 93)).toEqual(Uint8Array.from(mss(1340)));
  });

  it('is lowered wherever it stands, with a checksum that is right, and nothing else changes', () => {
    const others = fc.array(
      fc.oneof(
        fc.constant([NOP]),
        fc.constant([4, 2]),
        fc.nat({ max: 14 }).map((shift) => [3, 3, shift]),
        fc.uint8Array({ minLength: 8, maxLength: 8 }).map((stamps) => [8, 10, ...stamps]),
      ),
      { maxLength: 3 },
    );
    fc.assert(
      fc.property(
        fc.boolean(),
        others,
        others,
        fc.nat({ max: 0xffff }),
        fc.integer({ min: 576, max: 0xffff }),
        fc.nat({ max: 9 }),
        (six, before, after, value, mtu, data) => {
          const list = [...before.flat(), ...mss(value), ...after.flat()];
          fc.pre(list.length <= 40);
          const bytes = tcp(six ? V6 : V4, segment(list, { data }));
          expect(tcpSum(bytes)).toBe(0xffff);
          const result = clamped(bytes, mtu);
          const tcpAt = six ? 40 : 20;
          const at = tcpAt + 20 + before.flat().length + 2;
          expect((result[at]! << 8) | result[at + 1]!).toBe(Math.min(value, mtu - (six ? 60 : 40)));
          expect(tcpSum(result)).toBe(0xffff);
          const allowed = [tcpAt + 16, tcpAt + 17, at, at + 1];
          expect(changes(bytes, result).every(([offset]) => allowed.includes(offset))).toBe(true);
        },
      ),
    );
  });

  it('keeps a checksum wrong that was wrong', () => {
    const bytes = tcp(V4, segment(mss(1460)));
    bytes[21]! ^= 1;
    expect(tcpSum(clamped(bytes, 1400))).not.toBe(0xffff);
  });
});

describe('left alone', () => {
  it.each<[string, Uint8Array]>([
    ['a segment without SYN', tcp(V4, segment(mss(1460), { flags: ACK }))],
    ['UDP', packet({ ...V4, protocol: 17, payload: segment(mss(1460)) })],
    ['a first fragment', packet({ ...V4, more: true, payload: segment(mss(1460)) })],
    ['a later fragment', packet({ ...V4, offset: 64, payload: segment(mss(1460)) })],
    ['a first fragment of IPv6', packet({ ...V6, offset: 0, more: true, id: 7, payload: segment(mss(1460)) })],
    ['an MSS behind the end of the list', tcp(V4, segment([0, 0, 0, 0, ...mss(1460)]))],
    ['an option without length', tcp(V4, segment([NOP, NOP, NOP, 2]))],
    ['an option of length 0', tcp(V4, segment([9, 0, ...mss(1460)]))],
    ['an option of length 1', tcp(V4, segment([9, 1, ...mss(1460)]))],
    ['an option that ends behind the header', tcp(V4, segment([9, 9, ...mss(1460)]))],
    ['an MSS of length 3', tcp(V4, segment([2, 3, 0xff, NOP]))],
    ['an MSS of length 6', tcp(V4, segment([2, 6, 0xff, 0xff, 0xff, 0xff]))],
    ['an MSS that ends behind the header', tcp(V4, segment([NOP, NOP, 2, 4], { data: 4 }))],
    ['half a TCP header', packet({ ...V4, payload: segment([]).slice(0, 14) })],
    ['a header that ends behind the packet', packet({ ...V4, payload: segment(mss(1460)).slice(0, 23) })],
  ])('%s', (_, bytes) => {
    expect(clamped(bytes, 1400)).toEqual(bytes);
  });

  it('a data offset that lies', () => {
    const short = segment(mss(1460));
    short[12] = 0x40;
    const bytes = tcp(V4, short);
    expect(clamped(bytes, 1400)).toEqual(bytes);
  });

  it('any TCP header whatsoever is at most lowered, and never written past', () => {
    const header = fc.uint8Array({ minLength: 4, maxLength: 70 });
    fc.assert(
      fc.property(fc.boolean(), header, fc.integer({ min: 576, max: 9000 }), (six, payload, mtu) => {
        const bytes = packet({ ...(six ? V6 : V4), payload });
        const result = clamped(bytes, mtu);
        const ports = six ? 40 : 20;
        for (const [at] of changes(bytes, result)) expect(at).toBeGreaterThanOrEqual(ports + 16);
      }),
      { numRuns: 1_000 },
    );
  });
});
