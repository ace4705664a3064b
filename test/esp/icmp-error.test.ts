import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readU32, toHex } from '../../src/base/bytes.ts';
import { sumBytes } from '../../src/base/checksum.ts';
import { tooBigMessage } from '../../src/esp/icmp-error.ts';
import { DESTINATION, Flow, FlowError, Fragment, readFlow, SOURCE } from '../../src/policy/flow.ts';
import { extension, icmp, type PacketFields, packet, ports } from '../policy/helpers.ts';

const V4: PacketFields = { src: '10.1.0.1', dst: '10.2.0.1', protocol: 17 };
const V6: PacketFields = { src: 'fd00:1::1', dst: 'fd00:2::1', protocol: 17 };

function flowOf(bytes: Uint8Array, at = 0): Flow {
  const flow = new Flow();
  if (readFlow(bytes, at, bytes.length - at, flow) !== FlowError.none) throw new Error('not a packet');
  return flow;
}

function message(bytes: Uint8Array, mtu = 1338): Uint8Array | undefined {
  return tooBigMessage(bytes, 0, flowOf(bytes), mtu);
}

function large(fields: PacketFields, payload = 1400): Uint8Array {
  const data = new Uint8Array(payload).map((_, i) => i * 7);
  data.set((fields.payload ?? ports(1000, 2000)).slice(0, payload));
  return packet({ ...fields, payload: data });
}

describe('the message about a packet that is too big', () => {
  it('of IPv4 is "fragmentation needed" with the next-hop MTU (RFC 1191 §4)', () => {
    const original = large(V4);
    const told = message(original)!;
    expect(told.length).toBe(576);
    // Version and length, TOS, total length, no identification, DF, TTL 64, ICMP; the addresses change places.
    expect(toHex(told.subarray(0, 10))).toBe('45c00240000040004001');
    expect(toHex(told.subarray(12, 20))).toBe('0a0200010a010001');
    expect([...told.subarray(20, 22)]).toEqual([3, 4]);
    expect(toHex(told.subarray(24, 28))).toBe('0000053a');
    expect(told.subarray(28)).toEqual(original.subarray(0, 548));
    expect(sumBytes(told, 0, 20)).toBe(0xffff);
    expect(sumBytes(told, 20, 556)).toBe(0xffff);
  });

  it('of IPv6 is "packet too big" with the MTU (RFC 4443 §3.2)', () => {
    const original = large(V6);
    const told = message(original)!;
    expect(told.length).toBe(1280);
    expect(toHex(told.subarray(0, 8))).toBe('6000000004d83a40');
    expect(told.subarray(8, 24)).toEqual(original.subarray(24, 40));
    expect(told.subarray(24, 40)).toEqual(original.subarray(8, 24));
    expect([...told.subarray(40, 42)]).toEqual([2, 0]);
    expect(readU32(told, 44)).toBe(1338);
    expect(told.subarray(48)).toEqual(original.subarray(0, 1232));
    expect(sumBytes(told, 40, 1240, sumBytes(told, 8, 32, 1240 + 58))).toBe(0xffff);
  });

  it('is a packet like any other, whatever it is about', () => {
    const cases = fc.record({
      six: fc.boolean(),
      size: fc.integer({ min: 8, max: 3_000 }),
      protocol: fc.constantFrom(6, 17, 50, 132),
      at: fc.nat({ max: 9 }),
      mtu: fc.integer({ min: 576, max: 0xffff }),
      first: fc.boolean(),
    });
    fc.assert(
      fc.property(cases, ({ six, size, protocol, at, mtu, first }) => {
        const fields = { ...(six ? V6 : V4), protocol, ...(first ? { offset: 0, more: true, id: 5 } : {}) };
        const original = large(fields, size - (size % 8));
        const buffer = new Uint8Array(at + original.length + 3).fill(0xee);
        buffer.set(original, at);
        const flow = new Flow();
        readFlow(buffer, at, original.length + 3, flow);
        const told = tooBigMessage(buffer, at, flow, mtu)!;
        expect(told.length).toBeLessThanOrEqual(six ? 1280 : 576);
        const answer = flowOf(told);
        expect(answer).toMatchObject({ totalLength: told.length, fragment: Fragment.none, hopLimit: 64 });
        expect(answer.protocol).toBe(six ? 58 : 1);
        expect(answer.srcPort).toBe(six ? 0x200 : 0x304);
        const words = six ? 4 : 1;
        for (let i = 0; i < words; i++) {
          expect(answer.words[SOURCE + i]).toBe(flow.words[DESTINATION + i]);
          expect(answer.words[DESTINATION + i]).toBe(flow.words[SOURCE + i]);
        }
        const header = six ? 40 : 20;
        const length = told.length - header;
        const pseudo = six ? sumBytes(told, 8, 32, length + 58) : 0;
        if (!six) expect(sumBytes(told, 0, header)).toBe(0xffff);
        expect(sumBytes(told, header, length, pseudo)).toBe(0xffff);
        const quoted = told.subarray(header + 8);
        expect(quoted).toEqual(original.subarray(0, quoted.length));
        expect(quoted.length).toBe(Math.min(original.length, six ? 1232 : 548));
      }),
    );
  });

  it('is not sent about an ICMP error', () => {
    for (const fields of [V4, V6]) expect(message(message(large(fields))!)).toBeUndefined();
  });
});

describe('no ICMP error is sent', () => {
  it.each<[string, PacketFields]>([
    ...[3, 4, 5, 11, 12].map((type): [string, PacketFields] => [
      `of ICMP type ${type}`,
      { ...V4, protocol: 1, payload: icmp(type, 0) },
    ]),
    ...[1, 2, 3, 4, 100, 127, 137].map((type): [string, PacketFields] => [
      `of ICMPv6 type ${type}`,
      { ...V6, protocol: 58, payload: icmp(type, 0) },
    ]),
    [
      'of an ICMPv6 error behind an extension header',
      { ...V6, protocol: 58, payload: icmp(1, 4), extensions: [extension(60)] },
    ],
    ['of a later fragment', { ...V4, offset: 1480 }],
    ['of a later fragment of IPv6', { ...V6, offset: 1448, more: true, id: 3 }],
    ['of IPv4 multicast', { ...V4, dst: '224.0.0.251' }],
    ['of IPv4 broadcast', { ...V4, dst: '255.255.255.255' }],
    ['of IPv6 multicast', { ...V6, dst: 'ff02::fb' }],
    ['who has no IPv4 address', { ...V4, src: '0.0.0.0' }],
    ['who pretends to be a group', { ...V4, src: '239.1.1.1' }],
    ['who pretends to be this host', { ...V4, src: '127.0.0.1' }],
    ['who has no IPv6 address', { ...V6, src: '::' }],
    ['who pretends to be this host by IPv6', { ...V6, src: '::1' }],
    ['who pretends to be an IPv6 group', { ...V6, src: 'ff0e::1' }],
  ])('%s', (_, fields) => {
    expect(message(large(fields))).toBeUndefined();
  });

  it('but the sender of an echo request gets one', () => {
    expect(message(large({ ...V4, protocol: 1, payload: icmp(8, 0) }))).toBeDefined();
    expect(message(large({ ...V6, protocol: 58, payload: icmp(128, 0) }))).toBeDefined();
    expect(message(large({ ...V6, src: '::2', dst: 'fe80::1' }))).toBeDefined();
    expect(message(large({ ...V4, src: '223.255.255.1' }))).toBeDefined();
  });
});
