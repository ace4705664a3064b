import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { DropReason } from '../../src/esp/drops.ts';
import { InboundPipeline } from '../../src/esp/inbound.ts';
import { espLength } from '../../src/esp/packet.ts';
import { DummySchedule, type TfcConfig, TfcPadding, tfcProblem } from '../../src/esp/tfc.ts';
import { SaCounter } from '../../src/esp/usage.ts';
import { inboundSa, outboundSa, plainPacket, ToyCipher } from './support.ts';

const V4 = { source: '10.2.0.1', destination: '10.1.0.1' };
const V6 = { source: '2001:db8:2::1', destination: '2001:db8:1::1' };
const MULTIPLE: TfcConfig = { padding: 'multiple', size: 256, dummies: 0 };
const FIXED: TfcConfig = { padding: 'fixed', size: 1000, dummies: 0 };
const MTU: TfcConfig = { padding: 'mtu', dummies: 0 };

describe('how far packets are padded', () => {
  const padded = (config: TfcConfig, length: number, room = 1400): number =>
    new TfcPadding(config).paddedLength(length, room);

  it.each([
    ['to a multiple', MULTIPLE, [28, 255, 256, 257, 1279, 1280, 1281], [256, 256, 256, 512, 1280, 1280, 1400]],
    ['to a size', FIXED, [28, 999, 1000, 1001], [1000, 1000, 1000, 1001]],
    ['to a size beyond the room', { ...FIXED, size: 5000 }, [28, 1400], [1400, 1400]],
    ['to the room', MTU, [28, 1399, 1400], [1400, 1400, 1400]],
    ['not at all', { padding: 'none', dummies: 1 } as const, [28, 1400], [28, 1400]],
  ])('%s', (_name, config, lengths, expected) => {
    expect(lengths.map((length) => padded(config, length))).toEqual(expected);
  });

  it('leaves what is larger than the room as it is', () => {
    for (const config of [MULTIPLE, FIXED, MTU]) expect(padded(config, 1500)).toBe(1500);
  });

  it.each([
    [{ padding: 'fixed', dummies: 0 } as const, 'padding to fixed wants a size of 16 to 65535 bytes, not undefined'],
    [{ ...MULTIPLE, size: 15 }, 'padding to multiple wants a size'],
    [{ ...MULTIPLE, size: 20.5 }, 'padding to multiple wants a size'],
    [{ ...FIXED, size: 65_536 }, 'padding to fixed wants a size'],
    [{ ...MTU, dummies: 101 }, '0 to 100 dummy packets a second are required, not 101'],
    [{ ...MTU, dummies: Number.NaN }, '0 to 100 dummy packets'],
  ])('says what is wrong: %j', (config, problem) => {
    expect(tfcProblem(config)).toContain(problem);
  });
});

describe('sealing with padding', () => {
  it.each([
    ['a multiple', MULTIPLE],
    ['a size', FIXED],
    ['the path', MTU],
  ])('to %s: packets come out as they were, and no length tells more than it should', (_name, config) => {
    const lengths = fc.array(fc.integer({ min: 44, max: 1500 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(lengths, fc.boolean(), (sizes, long) => {
        const room = long ? 1452 : 600;
        const sa = outboundSa({ tfc: config });
        sa.mtu = room;
        const pipeline = new InboundPipeline();
        pipeline.add(inboundSa());
        const packets = sizes.map((length, i) => plainPacket({ ...(i % 2 === 0 ? V4 : V6), length }));
        const batch = new PacketBatch(packets.length, 1600);
        batch.buffer.fill(0x77);
        for (const [slot, packet] of packets.entries()) {
          batch.push(packet);
          expect(sa.encapsulate(0, batch, slot, slot % 2 === 0 ? 4 : 41)).toBe(DropReason.none);
          const padded = new TfcPadding(config).paddedLength(packet.length, room);
          expect(batch.length[slot]).toBe(espLength(padded, new ToyCipher()));
          // Zeros, and nothing of what lay there before.
          const padding = batch.packet(slot).subarray(16 + packet.length, 16 + padded);
          expect(padding).toEqual(new Uint8Array(padding.length).fill(0xa5));
        }
        const { counters } = sa.usage;
        expect(counters[SaCounter.bytes]).toBe(sizes.reduce((sum, length) => sum + length, 0));
        pipeline.process(0, batch);
        for (const [slot, packet] of packets.entries()) expect(batch.packet(slot)).toEqual(packet);
      }),
      { numRuns: 15 },
    );
  });

  it('keeps to its slot', () => {
    const sa = outboundSa({ tfc: MTU });
    sa.mtu = 9000;
    for (const tailroom of [20, 21, 24, 60]) {
      const batch = new PacketBatch(2, 100, 16, tailroom);
      batch.push(plainPacket({ ...V4, length: 100 }));
      expect(sa.encapsulate(0, batch, 0, 4)).toBe(DropReason.none);
      const { length } = batch.packet(0);
      expect(length).toBeLessThanOrEqual(116 + tailroom);
      expect(length).toBeGreaterThan(116 + tailroom - 4);
    }
  });

  it('pads little while nothing is known of the path', () => {
    const sa = outboundSa({ tfc: MTU });
    const batch = new PacketBatch(1, 65_536);
    batch.push(plainPacket(V4));
    sa.encapsulate(0, batch, 0, 4);
    expect(batch.length[0]).toBeLessThanOrEqual(1280);
    expect(batch.length[0]).toBeGreaterThan(1270);
  });
});

describe('dummies', () => {
  it.each([
    ['without padding', undefined, 28, 1399],
    ['with a multiple', MULTIPLE, 256, 1400],
    ['with a size', FIXED, 1000, 1399],
    ['with the path', MTU, 1400, 1400],
  ])('are as long as packets are: %s', (_name, tfc, least, most) => {
    const sa = outboundSa({ tfc });
    sa.mtu = 1400;
    const lengths = [0, 0.25, 0.5, 0.75, 0.999_999].map((random) => sa.dummyLength(random));
    expect([Math.min(...lengths), Math.max(...lengths)]).toEqual([least, most]);
  });

  it('come at random times, at the rate that is asked for', () => {
    let seed = 1;
    const random = (): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return seed / 2 ** 32;
    };
    const schedule = new DummySchedule(1_000, 5, random, 0);
    const gaps: number[] = [];
    let now = 1_000;
    for (let sent = 0; sent < 1_000; sent++) {
      expect(schedule.take(schedule.at - 0.01, sent)).toBe(false);
      gaps.push(schedule.at - now);
      now = schedule.at;
      expect(schedule.take(now, sent)).toBe(true);
    }
    expect((now - 1_000) / 1_000).toBeGreaterThan(180);
    expect((now - 1_000) / 1_000).toBeLessThan(220);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(400);
    expect(new Set(gaps.map(Math.round)).size).toBeGreaterThan(100);
  });

  it('are not sent where packets were, and not made up for', () => {
    const schedule = new DummySchedule(0, 10, () => 0.5, 7);
    expect(schedule.at).toBe(100);
    expect(schedule.take(100, 9)).toBe(false);
    expect(schedule.take(200, 9)).toBe(true);
    // The dummy itself is one of the packets.
    expect(schedule.take(300, 10)).toBe(true);
    expect(schedule.take(10_000, 11)).toBe(true);
    expect(schedule.take(10_000, 12)).toBe(false);
    expect(schedule.at).toBe(10_100);
  });
});
