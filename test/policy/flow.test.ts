import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  DESTINATION,
  Flow,
  FlowError,
  Fragment,
  flowErrorNames,
  PORT_HIDDEN,
  PROTOCOL_HIDDEN,
  portsKnown,
  readFlow,
  SOURCE,
} from '../../src/policy/flow.ts';
import { extension, flowOf, fragmentHeader, icmp, type PacketFields, packet, ports } from './helpers.ts';

const V4: PacketFields = { src: '10.1.0.1', dst: '200.2.3.4', protocol: 17, payload: ports(5000, 65535) };
const V6: PacketFields = { src: 'fd00::1', dst: '2001:db8::ffff:2', protocol: 6, payload: ports(0, 443) };

function read(bytes: Uint8Array, length: number = bytes.length): FlowError {
  return readFlow(bytes, 0, length, new Flow());
}

describe('readFlow, IPv4', () => {
  it('reads addresses, protocol, ports and lengths', () => {
    const flow = flowOf(V4);
    expect(flow.family).toBe(4);
    expect(flow.protocol).toBe(17);
    expect(flow.words[SOURCE]).toBe(0x0a010001);
    expect(flow.words[DESTINATION]).toBe(0xc8020304);
    expect([flow.srcPort, flow.dstPort]).toEqual([5000, 65535]);
    expect([flow.totalLength, flow.headerLength]).toEqual([28, 20]);
    expect(flow.fragment).toBe(Fragment.none);
    expect(flow.hopLimit).toBe(64);
  });

  it('reads behind options, at an offset, and leaves padding to the caller', () => {
    const bytes = packet({ ...V4, options: new Uint8Array(40) });
    const buffer = new Uint8Array(bytes.length + 30).fill(0xee);
    buffer.set(bytes, 7);
    const flow = new Flow();
    expect(readFlow(buffer, 7, bytes.length + 20, flow)).toBe(FlowError.none);
    expect([flow.totalLength, flow.headerLength, flow.srcPort]).toEqual([68, 60, 5000]);
  });

  it('reads TOS and DF', () => {
    const bytes = packet(V4);
    bytes[1] = 0xb9;
    bytes[6] = 0x40;
    const flow = new Flow();
    readFlow(bytes, 0, bytes.length, flow);
    expect([flow.trafficClass, flow.dontFragment]).toEqual([0xb9, true]);
  });

  it.each([
    ['empty', new Uint8Array(0), FlowError.truncated],
    ['version 5', Uint8Array.of(0x55, ...new Uint8Array(60)), FlowError.notIp],
    ['version 0', new Uint8Array(60), FlowError.notIp],
    ['header length 16', Uint8Array.of(0x44, 0, 0, 20, ...new Uint8Array(16)), FlowError.badHeaderLength],
    ['header longer than the packet', Uint8Array.of(0x46, 0, 0, 20, ...new Uint8Array(16)), FlowError.badTotalLength],
    ['total length below the header', Uint8Array.of(0x45, 0, 0, 19, ...new Uint8Array(16)), FlowError.badTotalLength],
    ['total length 0', Uint8Array.of(0x45, 0, 0, 0, ...new Uint8Array(16)), FlowError.badTotalLength],
  ])('refuses: %s', (_name, bytes, error) => {
    expect(read(bytes)).toBe(error);
  });

  it('tells the claimed length of a packet that was cut', () => {
    const flow = new Flow();
    expect(readFlow(packet(V4), 0, 27, flow)).toBe(FlowError.badTotalLength);
    expect(flow.totalLength).toBe(28);
  });

  it('refuses a packet that ends before its ports, but not one that has none', () => {
    expect(read(packet({ ...V4, payload: new Uint8Array(3) }))).toBe(FlowError.truncatedTransport);
    expect(read(packet({ ...V4, payload: new Uint8Array(4) }))).toBe(FlowError.none);
    expect(read(packet({ ...V4, protocol: 1, payload: new Uint8Array(1) }))).toBe(FlowError.truncatedTransport);
    const gre = flowOf({ ...V4, protocol: 47, payload: new Uint8Array(0) });
    expect(portsKnown(gre)).toBe(false);
  });

  it('gives ICMP type and code as both ports', () => {
    const flow = flowOf({ ...V4, protocol: 1, payload: icmp(8, 3) });
    expect([flow.srcPort, flow.dstPort]).toEqual([0x803, 0x803]);
  });

  it.each([6, 17, 33, 132, 136])('reads the ports of protocol %i', (protocol) => {
    expect(flowOf({ ...V4, protocol }).srcPort).toBe(5000);
  });

  it('tells first and later fragments', () => {
    const first = flowOf({ ...V4, more: true, id: 0xabcd });
    expect([first.fragment, first.fragmentId, first.srcPort]).toEqual([Fragment.first, 0xabcd, 5000]);
    const middle = flowOf({ ...V4, more: true, offset: 8, id: 0xabcd });
    expect([middle.fragment, middle.fragmentOffset, middle.srcPort]).toEqual([Fragment.later, 8, PORT_HIDDEN]);
    const last = flowOf({ ...V4, offset: 65_480, id: 1, payload: new Uint8Array(8) });
    expect([last.fragment, last.fragmentOffset, last.protocol]).toEqual([Fragment.later, 65_480, 17]);
  });

  it('refuses fragments that are too small for the ports or run past 65,535 bytes', () => {
    expect(read(packet({ ...V4, more: true, payload: new Uint8Array(3) }))).toBe(FlowError.tinyFragment);
    expect(read(packet({ ...V4, offset: 65_528, payload: new Uint8Array(7) }))).toBe(FlowError.none);
    expect(read(packet({ ...V4, offset: 65_528, payload: new Uint8Array(8) }))).toBe(FlowError.badFragment);
  });
});

describe('readFlow, IPv6', () => {
  it('reads addresses, protocol, ports and lengths', () => {
    const flow = flowOf(V6);
    expect(flow.family).toBe(6);
    expect([...flow.words]).toEqual([0xfd000000, 0, 0, 1, 0x20010db8, 0, 0, 0xffff0002]);
    expect([flow.protocol, flow.srcPort, flow.dstPort]).toEqual([6, 0, 443]);
    expect([flow.totalLength, flow.headerLength, flow.fragment]).toEqual([48, 40, Fragment.none]);
  });

  it('reads the traffic class across the first two bytes', () => {
    const bytes = packet(V6);
    bytes[0] = 0x6b;
    bytes[1] = 0x9f;
    const flow = new Flow();
    readFlow(bytes, 0, bytes.length, flow);
    expect([flow.trafficClass, flow.hopLimit, flow.dontFragment]).toEqual([0xb9, 64, true]);
  });

  it('walks the extension headers to the next-layer protocol', () => {
    const flow = flowOf({ ...V6, extensions: [extension(0), extension(60, 24), extension(43), extension(60)] });
    expect([flow.protocol, flow.dstPort, flow.headerLength]).toEqual([6, 443, 40 + 8 + 24 + 8 + 8]);
  });

  it.each([50, 51, 59])('ends the walk at protocol %i', (protocol) => {
    const flow = flowOf({ ...V6, protocol, extensions: [extension(0)] });
    expect([flow.protocol, flow.srcPort, flow.dstPort]).toEqual([protocol, PORT_HIDDEN, PORT_HIDDEN]);
  });

  it('reads ICMPv6 and the Mobility Header as a single port', () => {
    expect(flowOf({ ...V6, protocol: 58, payload: icmp(128, 0) }).dstPort).toBe(0x8000);
    const mobility = flowOf({ ...V6, protocol: 135, payload: Uint8Array.of(59, 0, 5, 9) });
    expect([mobility.srcPort, mobility.dstPort]).toEqual([0x500, 0x500]);
  });

  it('bounds the walk', () => {
    const eight = Array.from({ length: 8 }, () => extension(60));
    expect(read(packet({ ...V6, extensions: eight }))).toBe(FlowError.none);
    expect(read(packet({ ...V6, extensions: [...eight, extension(60)] }))).toBe(FlowError.tooManyHeaders);
  });

  it('refuses hop-by-hop options that are not first, and two fragment headers', () => {
    expect(read(packet({ ...V6, extensions: [extension(60), extension(0)] }))).toBe(FlowError.badExtensionHeader);
    const twice = [fragmentHeader(0, false, 1), fragmentHeader(0, false, 1)];
    expect(read(packet({ ...V6, extensions: twice }))).toBe(FlowError.badFragment);
  });

  it('refuses an extension header that runs past the packet', () => {
    const bytes = packet({ ...V6, extensions: [extension(60)] });
    bytes[41] = 2;
    expect(read(bytes)).toBe(FlowError.truncated);
  });

  it('reads an atomic fragment as a whole packet', () => {
    const flow = flowOf({ ...V6, id: 7 });
    expect([flow.fragment, flow.dstPort, flow.headerLength]).toEqual([Fragment.none, 443, 48]);
  });

  it('tells first and later fragments, with ids above 2^31', () => {
    const first = flowOf({ ...V6, more: true, id: 0xfedcba98 });
    expect([first.fragment, first.fragmentId, first.dstPort]).toEqual([Fragment.first, 0xfedcba98, 443]);
    const later = flowOf({ ...V6, offset: 1448, more: true, id: 0xfedcba98 });
    expect([later.fragment, later.fragmentOffset, later.protocol, later.dstPort]).toEqual([
      Fragment.later,
      1448,
      6,
      PORT_HIDDEN,
    ]);
  });

  it('hides the protocol of a later fragment that starts inside an extension header', () => {
    const later = flowOf({ ...V6, protocol: 60, offset: 8, id: 1 });
    expect([later.protocol, later.srcPort]).toEqual([PROTOCOL_HIDDEN, PORT_HIDDEN]);
  });

  it('refuses a first fragment without the whole chain of headers (RFC 7112)', () => {
    expect(read(packet({ ...V6, more: true, id: 1, payload: new Uint8Array(0) }))).toBe(FlowError.tinyFragment);
    expect(read(packet({ ...V6, protocol: 60, more: true, id: 1, payload: new Uint8Array(0) }))).toBe(
      FlowError.tinyFragment,
    );
    const pastEnd = packet({ ...V6, protocol: 60, more: true, id: 1, payload: extension(60).bytes });
    pastEnd[49] = 1;
    expect(read(pastEnd)).toBe(FlowError.tinyFragment);
  });
});

describe('readFlow on anything', () => {
  const good = [
    V4,
    { ...V4, protocol: 1 },
    { ...V4, more: true },
    V6,
    { ...V6, more: true },
    { ...V6, extensions: [extension(0), extension(43, 16)] },
  ];

  it.each(good.map((fields) => packet(fields)))('refuses a packet cut at any byte (%#)', (bytes) => {
    for (let length = 0; length < bytes.length; length++) {
      expect(read(bytes.slice(0, length))).not.toBe(FlowError.none);
      expect(read(bytes, length)).not.toBe(FlowError.none);
    }
    expect(read(bytes)).toBe(FlowError.none);
  });

  it('refuses what is cut in the payload when the header tells the cut length', () => {
    for (const fields of good) {
      const whole = packet(fields);
      const header = whole.length - 8;
      for (let payload = 0; payload < 8; payload++) {
        const bytes = whole.slice(0, header + payload);
        const claim = fields.src.includes(':') ? bytes.length - 40 : bytes.length;
        bytes[fields.src.includes(':') ? 5 : 3] = claim;
        const enough = payload >= (fields.protocol === 1 ? 2 : 4);
        expect(read(bytes) === FlowError.none).toBe(enough);
      }
    }
  });

  it('never throws, never reads outside, and gives consistent lengths', () => {
    const start = fc.constantFrom(0x45, 0x46, 0x4f, 0x60, 0x6f);
    fc.assert(
      fc.property(start, fc.uint8Array({ maxLength: 120 }), fc.nat(4), (version, rest, pad) => {
        const bytes = Uint8Array.of(version, ...rest);
        if (version >= 0x60) bytes[4] = 0;
        else bytes[2] = 0;
        const flow = new Flow();
        const error = readFlow(bytes, 0, bytes.length, flow);
        expect(flowErrorNames[error]).toBeDefined();
        if (error !== FlowError.none) return;
        expect(flow.totalLength).toBeLessThanOrEqual(bytes.length);
        expect(flow.headerLength).toBeLessThanOrEqual(flow.totalLength);
        // What lies behind the packet has no part in it.
        const padded = new Uint8Array(flow.totalLength + pad).fill(0xff);
        padded.set(bytes.subarray(0, flow.totalLength));
        const again = new Flow();
        expect(readFlow(padded, 0, padded.length, again)).toBe(FlowError.none);
        expect(again).toEqual(flow);
      }),
      { numRuns: 3000 },
    );
  });

  it('has a name for each code', () => {
    expect(flowErrorNames).toHaveLength(Object.keys(FlowError).length);
    expect(new Set(flowErrorNames).size).toBe(flowErrorNames.length);
  });
});
