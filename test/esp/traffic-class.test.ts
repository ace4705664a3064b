import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sumBytes } from '../../src/base/checksum.ts';
import { namedDrops } from '../../src/esp/drops.ts';
import { InboundPipeline } from '../../src/esp/inbound.ts';
import { OutboundPipeline } from '../../src/esp/outbound.ts';
import { COPY_DSCP, outerTrafficClass, writeEcn } from '../../src/esp/traffic-class.ts';
import { SaCounter } from '../../src/esp/usage.ts';
import { compilePolicy } from '../../src/policy/database.ts';
import { Flow, readFlow } from '../../src/policy/flow.ts';
import { anything, batchOf, inboundSa, outboundSa, plainPacket, sealed } from './support.ts';

const ENDS = {
  4: { source: '10.2.0.1', destination: '10.1.0.1', length: 61 },
  6: { source: '2001:db8:2::1', destination: '2001:db8:1::1', length: 61 },
} as const;
type Family = keyof typeof ENDS;
const DSCP = 0x2e;

/** A packet with a traffic class of its own and a right header checksum. */
function packetOf(family: Family, trafficClass: number): Uint8Array {
  const packet = plainPacket(ENDS[family]);
  if (family === 6) {
    packet[0] = 0x60 | (trafficClass >>> 4);
    packet[1] = (trafficClass << 4) & 0xf0;
    packet[2] = 0xab;
    return packet;
  }
  packet[1] = trafficClass;
  const checksum = ~sumBytes(packet, 0, 20) & 0xffff;
  packet.set([checksum >>> 8, checksum & 0xff], 10);
  return packet;
}

function trafficClassOf(packet: Uint8Array): number {
  const flow = new Flow();
  expect(readFlow(packet, 0, packet.length, flow)).toBe(0);
  return flow.trafficClass;
}

describe('outbound', () => {
  const policy = compilePolicy(
    [
      {
        name: 'all',
        direction: 'out',
        action: 'protect',
        priority: 0,
        level: 'require',
        selectors: anything.selectors,
      },
    ],
    'out',
  );

  /** Traffic classes of the outer headers of packets that go out in one batch. */
  function outerOf(dscp: number | undefined, packets: readonly Uint8Array[]): number[] {
    const pipeline = new OutboundPipeline(policy, { onMissing: () => undefined });
    pipeline.add(0, outboundSa({ dscp }), { active: true });
    const batch = batchOf(...packets);
    batch.trafficClass.fill(0xff);
    pipeline.process(0, batch);
    return [...batch.trafficClass];
  }

  it.each([4, 6] as const)('copies DSCP and ECN of IPv%i to the outer header', (family) => {
    const all = Array.from({ length: 256 }, (_, trafficClass) => trafficClass);
    expect(
      outerOf(
        undefined,
        all.map((trafficClass) => packetOf(family, trafficClass)),
      ),
    ).toEqual(all);
  });

  it.each([0, 10, 63])('has DSCP %i in all outer headers when it is fixed, and still copies ECN', (dscp) => {
    const inner = [0x00, 0x01, 0x02, 0x03, 0xb8, 0xbb, 0xff];
    const packets = inner.flatMap((trafficClass) => [packetOf(4, trafficClass), packetOf(6, trafficClass)]);
    const ecn = [0, 1, 2, 3, 0, 3, 3].flatMap((value) => [value, value]);
    expect(outerOf(dscp, packets)).toEqual(ecn.map((value) => dscp * 4 + value));
    expect(outerTrafficClass(0xba, COPY_DSCP)).toBe(0xba);
  });

  it.each([
    [undefined, 0],
    [12, 48],
  ])('has the DSCP of its SA on a dummy, %s, and no ECN', (dscp, expected) => {
    const batch = batchOf();
    batch.trafficClass.fill(0xff);
    outboundSa({ dscp }).addDummy(0, batch, 40);
    expect(batch.trafficClass[0]).toBe(expected);
  });
});

/** Rows of RFC 6040 §4.2, figure 4, in its order and words: inner header, then outer Not-ECT, ECT(0), ECT(1), CE. */
const FIGURE_4 = `
  Not-ECT | Not-ECT | Not-ECT(!!!) | Not-ECT(!!!) | <drop>(!!!)
  ECT(0)  | ECT(0)  | ECT(0)       | ECT(1)       | CE
  ECT(1)  | ECT(1)  | ECT(1) (!)   | ECT(1)       | CE
  CE      | CE      | CE           | CE(!!!)      | CE
`;
const CODEPOINTS: Readonly<Record<string, number>> = { 'Not-ECT': 0, 'ECT(0)': 2, 'ECT(1)': 1, CE: 3 };
const OUTER = ['Not-ECT', 'ECT(0)', 'ECT(1)', 'CE'];

const cells = FIGURE_4.trim()
  .split('\n')
  .flatMap((row) => {
    const [inner, ...results] = row.split('|').map((word) => word.trim());
    return results.map((result, column) => ({
      inner: inner!,
      outer: OUTER[column]!,
      result: result.replace(/ ?\(!+\)/, ''),
      unexpected: result.includes('!'),
    }));
  });

describe.each([4, 6] as const)('inbound, IPv%i inside', (family) => {
  it('tests the whole table', () => expect(cells).toHaveLength(16));

  it.each(cells)('$inner in $outer becomes $result', ({ inner, outer, result, unexpected }) => {
    const before = packetOf(family, DSCP * 4 + CODEPOINTS[inner]!);
    const sa = inboundSa();
    const pipeline = new InboundPipeline();
    pipeline.add(sa);
    const batch = batchOf(sealed(outboundSa(), before));
    // The DSCP outside is another, and is forgotten.
    batch.trafficClass[0] = 0x0a * 4 + CODEPOINTS[outer]!;
    pipeline.process(0, batch);

    const { counters } = sa.usage;
    expect(counters[SaCounter.ecnUnexpected]).toBe(unexpected ? 1 : 0);
    if (result === '<drop>') {
      expect(batch.length[0]).toBe(0);
      expect(namedDrops(sa.drops)).toEqual({ congestion: 1 });
      expect(counters[SaCounter.packets]).toBe(0);
      return;
    }
    const after = batch.packet(0).slice();
    expect(namedDrops(pipeline.drops)).toEqual({});
    expect(trafficClassOf(after)).toBe(DSCP * 4 + CODEPOINTS[result]!);
    expect(counters[SaCounter.ecnMarked]).toBe(result === 'CE' && inner !== 'CE' ? 1 : 0);
    // Nothing else changed, and the checksum is right.
    expect(after).toEqual(packetOf(family, DSCP * 4 + CODEPOINTS[result]!));
  });
});

it('the checksum stays right, whatever else is in the header', () => {
  const header = fc.uint8Array({ minLength: 20, maxLength: 20 });
  fc.assert(
    fc.property(header, fc.integer({ min: 0, max: 3 }), (bytes, ecn) => {
      bytes[0] = 0x45;
      bytes.set([0, 0], 10);
      const checksum = ~sumBytes(bytes, 0, 20) & 0xffff;
      bytes.set([checksum >>> 8, checksum & 0xff], 10);
      const dscp = bytes[1]! >>> 2;
      writeEcn(bytes, 0, ecn);
      expect(bytes[1]).toBe(dscp * 4 + ecn);
      expect(sumBytes(bytes, 0, 20)).toBe(0xffff);
    }),
  );
});
