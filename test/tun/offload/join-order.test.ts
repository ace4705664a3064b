import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { counts, expectSamePerFlow, joined, segment, spoil } from './join-support.ts';
import { ACK, PSH, packetOf, pattern } from './support.ts';

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
