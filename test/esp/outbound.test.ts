import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { DropReason, namedDrops } from '../../src/esp/drops.ts';
import { BYPASS_TAG, OutboundPipeline } from '../../src/esp/outbound.ts';
import { MAX_SAS_PER_ENTRY } from '../../src/esp/outbound-entry.ts';
import type { EspOutboundSa } from '../../src/esp/outbound-sa.ts';
import { espLength, maxPayload } from '../../src/esp/packet.ts';
import { newSaState, SaCounter, UNLIMITED } from '../../src/esp/usage.ts';
import { CompiledSelectors } from '../../src/policy/compiled.ts';
import { compilePolicy, type PolicyEntry } from '../../src/policy/database.ts';
import {
  batchOf,
  compiled,
  inboundSa,
  outboundSa,
  plainPacket,
  reasonName,
  SPI,
  sealed,
  selector,
  sequenceOf,
  ToyCipher,
} from './support.ts';

const V4 = { source: '10.1.0.1', destination: '10.2.0.1' };
const V6 = { source: '2001:db8:1::1', destination: '2001:db8:2::1' };

function entry(fields: Partial<PolicyEntry> & { readonly to: string; readonly ports?: [number, number] }): PolicyEntry {
  const { to, ports = [0, 0xffff], ...rest } = fields;
  return {
    name: to,
    direction: 'out',
    action: 'protect',
    priority: 0,
    selectors: {
      local: [selector(to.includes(':') ? '::/0' : '0.0.0.0/0')],
      remote: [selector(to, ports[0] === 0 ? 0 : 17, ...ports)],
    },
    level: 'require',
    ...rest,
  };
}

interface Missing {
  readonly index: number;
  readonly packet: Uint8Array;
}

function setUp(...entries: readonly PolicyEntry[]): { pipeline: OutboundPipeline; missing: Missing[] } {
  const missing: Missing[] = [];
  const pipeline = new OutboundPipeline(compilePolicy(entries, 'out'), {
    onMissing: (index, batch, slot) => {
      missing.push({ index, packet: batch.packet(slot).slice() });
      return false;
    },
  });
  return { pipeline, missing };
}

/** Tag of the packet after the pipeline, or `undefined` when it was dropped. */
function send(pipeline: OutboundPipeline, packet: Uint8Array, now = 0): number | undefined {
  const batch = batchOf(packet);
  pipeline.process(now, batch);
  return batch.length[0] === 0 ? undefined : batch.tag[0];
}

describe('sealing', () => {
  it('numbers packets from 1 and puts the ESP packet before and behind the plain one', () => {
    const sa = outboundSa();
    for (let sequence = 1; sequence <= 3; sequence++) {
      const packet = plainPacket({ ...V4, length: 61 });
      const batch = batchOf(packet);
      expect(sa.encapsulate(4, batch, 0, 4)).toBe(DropReason.none);
      expect(batch.offset[0]).toBe(64 - 16);
      expect(batch.length[0]).toBe(8 + 8 + 64 + 16);
      const esp = batch.packet(0);
      expect([...esp.subarray(0, 4)]).toEqual([0xc0, 0xff, 0xee, 0x01]);
      expect(sequenceOf(esp)).toBe(sequence);
    }
    expect(sa.lastSequence).toBe(3n);
    expect([...sa.usage.counters]).toEqual([3, 183, 0, 3, 192, 4, 0, 0]);
  });

  it.each([
    [8, 16, 1, 4],
    [16, 12, 16, 16],
    [0, 12, 1, 4],
    [8, 16, 8, 8],
  ])('aligns to the block: IV %d, ICV %d, block %d', (iv, icv, block, alignment) => {
    const cipher = new ToyCipher(iv, icv, block);
    for (let length = 28; length < 90; length++) {
      const esp = sealed(outboundSa({ cipher }), plainPacket({ ...V4, length }));
      expect(esp.length).toBe(espLength(length, cipher));
      const dataLength = esp.length - 8 - iv - icv;
      expect(dataLength % alignment).toBe(0);
      const padLength = esp[esp.length - icv - 2]! ^ 0xa5;
      expect(padLength).toBe(dataLength - 2 - length);
      expect(padLength).toBeLessThan(alignment);
      for (let i = 1; i <= padLength; i++) expect(esp[8 + iv + length + i - 1]! ^ 0xa5).toBe(i);
      expect(esp[esp.length - icv - 1]! ^ 0xa5).toBe(4);
    }
  });

  it.each([[8, 16, 1] as const, [16, 12, 16] as const])(
    'knows the largest payload: IV %d, ICV %d, block %d',
    (...shape) => {
      const cipher = new ToyCipher(...shape);
      for (let limit = 100; limit < 200; limit++) {
        const payload = maxPayload(limit, cipher);
        expect(espLength(payload, cipher)).toBeLessThanOrEqual(limit);
        expect(espLength(payload + 1, cipher)).toBeGreaterThan(limit);
      }
    },
  );

  it('refuses a slot without room on either side, and leaves it as it was', () => {
    const packet = plainPacket({ ...V4, length: 100 });
    for (const [headroom, tailroom] of [
      [15, 100],
      [16, 19],
    ] as const) {
      const batch = new PacketBatch(2, 100, headroom, tailroom);
      batch.push(packet);
      const sa = outboundSa();
      expect(reasonName(sa.encapsulate(0, batch, 0, 4))).toBe('no-room');
      expect(batch.packet(0)).toEqual(packet);
      expect(sa.lastSequence).toBe(0n);
      expect(namedDrops(sa.drops)).toEqual({ 'no-room': 1 });
    }
    const exact = new PacketBatch(2, 100, 16, 20);
    exact.push(packet);
    expect(outboundSa().encapsulate(0, exact, 0, 4)).toBe(DropReason.none);
  });

  it('keeps its state in given memory, and continues from there', () => {
    const state = newSaState((bytes) => new SharedArrayBuffer(bytes));
    sealed(outboundSa({ state }), plainPacket(V4), 12);
    expect([...state.counters].slice(0, 6)).toEqual([1, 28, 0, 1, 32, 12]);
    expect([...state.sequence]).toEqual([0, 1]);
    const next = outboundSa({ state });
    expect(sequenceOf(sealed(next, plainPacket(V4), 13))).toBe(2);
    expect([...state.counters].slice(0, 6)).toEqual([2, 56, 0, 2, 64, 13]);
  });

  it('makes dummies that the far end drops in silence', () => {
    const sa = outboundSa();
    const batch = new PacketBatch(2, 1500);
    batch.buffer.fill(0x77);
    expect(sa.addDummy(3, batch, 100)).toBe(DropReason.none);
    // Nothing of what lay there before goes out.
    expect(batch.packet(0).subarray(16, 116)).toEqual(new Uint8Array(100).fill(0xa5));
    expect(sa.addDummy(3, batch, 0)).toBe(DropReason.none);
    expect(reasonName(sa.addDummy(3, batch, 0))).toBe('no-room');
    expect(batch.tag[1]).toBe(7);
    expect([...sa.usage.counters]).toEqual([0, 0, 2, 2, 108, 3, 0, 0]);
    expect(sa.lastSequence).toBe(2n);
    expect(batch.count).toBe(2);
  });

  it('makes nothing when a dummy is too large for its slot', () => {
    const sa = outboundSa();
    const batch = new PacketBatch(2, 100, 64, 20);
    expect(reasonName(sa.addDummy(0, batch, 120))).toBe('no-room');
    expect(batch.length[0]).toBe(0);
    expect(sa.usage.counters[SaCounter.dummies]).toBe(0);
  });
});

describe('the end of an SA', () => {
  it('stops after 2^32 - 1 without ESN and never sends a number twice', () => {
    const sa = outboundSa({ lastSequence: 0xffff_fffdn });
    expect(sequenceOf(sealed(sa, plainPacket(V4)))).toBe(0xffff_fffe);
    expect(sequenceOf(sealed(sa, plainPacket(V4)))).toBe(0xffff_ffff);
    const batch = batchOf(plainPacket(V4));
    for (let i = 0; i < 3; i++) expect(reasonName(sa.encapsulate(0, batch, 0, 4))).toBe('sequence-exhausted');
    expect(sa.usable).toBe(false);
    expect(sa.lastSequence).toBe(0xffff_ffffn);
    expect(sa.usage.takeSignal()).toEqual({ kind: 'hard', cause: 'sequence' });
  });

  it('continues beyond 2^32 with ESN', () => {
    const out = outboundSa({ esn: true, lastSequence: 0xffff_fffen });
    const into = inboundSa({ esn: true });
    into.replay.accept(0, 0xffff_fffe);
    for (const [low, whole] of [
      [0xffff_ffff, 0xffff_ffffn],
      [0, 0x1_0000_0000n],
      [1, 0x1_0000_0001n],
    ] as const) {
      expect(sequenceOf(sealed(out, plainPacket(V4)))).toBe(low);
      expect(out.lastSequence).toBe(whole);
    }
  });

  it('stops after 2^64 - 1 with ESN', () => {
    const sa = outboundSa({ esn: true, lastSequence: 0xffff_ffff_ffff_fffen });
    sealed(sa, plainPacket(V4));
    expect(() => sealed(sa, plainPacket(V4))).toThrow('sequence-exhausted');
  });

  it('asks for a rekey when seven eighths of the numbers are used', () => {
    const sa = outboundSa();
    expect(sa.usage.limits.softPackets).toBe(7 * 2 ** 29);
    expect(sa.usage.limits.hardPackets).toBe(Number.POSITIVE_INFINITY);
    expect(outboundSa({ limits: { ...UNLIMITED, softPackets: 10 } }).usage.limits.softPackets).toBe(10);
  });

  it.each([
    ['packets', { softPackets: 2, hardPackets: 4 }, [0, 0, 0, 0, 0]],
    ['bytes', { softBytes: 64, hardBytes: 128 }, [0, 0, 0, 0, 0]],
    ['time', { softTime: 30, hardTime: 50 }, [10, 20, 30, 40, 50]],
  ])('soft and hard limit of %s', (cause, limits, times) => {
    const sa = outboundSa({ limits: { ...UNLIMITED, ...limits } });
    const log = times.map((now) => {
      const reason = sa.encapsulate(now, batchOf(plainPacket(V4)), 0, 4);
      return [reasonName(reason), sa.usage.takeSignal()];
    });
    expect(log).toEqual([
      ['none', undefined],
      ['none', undefined],
      ['none', { kind: 'soft', cause }],
      ['none', undefined],
      ['lifetime-expired', { kind: 'hard', cause }],
    ]);
    expect(reasonName(sa.encapsulate(1000, batchOf(plainPacket(V4)), 0, 4))).toBe('lifetime-expired');
    expect(sa.usage.takeSignal()).toBeUndefined();
    expect(sa.lastSequence).toBe(4n);
    expect(namedDrops(sa.drops)).toEqual({ 'lifetime-expired': 2 });
  });

  it('takes a hard limit before the soft one for what it is', () => {
    const sa = outboundSa({ limits: { ...UNLIMITED, softTime: 100, hardTime: 10 } });
    expect(sa.usage.nextDeadline).toBe(10);
    sa.usage.expire(10);
    expect(sa.usage.takeSignal()).toEqual({ kind: 'hard', cause: 'time' });
    sa.usage.end('sequence');
    expect(sa.usage.signalled).toBe(false);
  });

  it('encrypts nothing after its keys are erased', () => {
    const cipher = new ToyCipher();
    const sa = outboundSa({ cipher });
    sa.wipe();
    expect(cipher.wiped).toBe(true);
    expect(reasonName(sa.encapsulate(0, batchOf(plainPacket(V4)), 0, 4))).toBe('lifetime-expired');
  });
});

describe('the policy', () => {
  it('discards, bypasses, protects, and drops what no entry matches', () => {
    const { pipeline, missing } = setUp(
      entry({ to: '10.9.0.0/16', action: 'discard' }),
      entry({ to: '10.8.0.0/16', action: 'bypass' }),
      entry({ to: '10.2.0.0/16' }),
    );
    expect(pipeline.add(2, outboundSa(), { active: true })).toBe(true);
    const batch = batchOf(
      plainPacket({ ...V4, destination: '10.9.0.1' }),
      plainPacket({ ...V4, destination: '10.8.0.1' }),
      plainPacket(V4),
      plainPacket({ ...V4, destination: '192.0.2.1' }),
      plainPacket(V6),
    );
    pipeline.process(0, batch);
    expect([...batch.length]).toEqual([0, 28, 64, 0, 0]);
    expect([...batch.tag.subarray(1, 3)]).toEqual([BYPASS_TAG, 7]);
    expect(batch.packet(1)).toEqual(plainPacket({ ...V4, destination: '10.8.0.1' }));
    expect(namedDrops(pipeline.drops)).toEqual({ 'no-policy': 2, 'discarded-by-policy': 1 });
    expect(pipeline.bypassed).toBe(1);
    expect(missing).toEqual([]);
  });

  it('hands over packets that miss an SA: require drops them, use lets them go in the clear', () => {
    const { pipeline, missing } = setUp(entry({ to: '10.2.0.0/16' }), entry({ to: '10.3.0.0/16', level: 'use' }));
    expect(send(pipeline, plainPacket(V4))).toBeUndefined();
    const other = plainPacket({ ...V4, destination: '10.3.0.1' });
    expect(send(pipeline, other)).toBe(BYPASS_TAG);
    expect(missing).toEqual([
      { index: 0, packet: plainPacket(V4) },
      { index: 1, packet: other },
    ]);
    expect(namedDrops(pipeline.drops)).toEqual({ 'no-sa': 1 });
  });

  it.each([
    ['nothing of IP', Uint8Array.of(1, 2, 3)],
    ['a header that claims more than there is', plainPacket({ ...V4, length: 40 }).subarray(0, 39)],
    ['an IPv6 header cut short', plainPacket(V6).subarray(0, 39)],
  ])('counts %s', (_name, packet) => {
    const { pipeline } = setUp(entry({ to: '10.2.0.0/16' }), entry({ to: '::/0' }));
    expect(send(pipeline, packet)).toBeUndefined();
    expect(namedDrops(pipeline.drops)).toEqual({ 'bad-inner-packet': 1 });
  });

  it('seals the packet without what lies behind it', () => {
    const { pipeline } = setUp(entry({ to: '10.2.0.0/16' }));
    pipeline.add(0, outboundSa(), { active: true });
    const batch = batchOf(Uint8Array.from([...plainPacket(V4), ...new Array(100).fill(0xee)]));
    pipeline.process(0, batch);
    expect(batch.length[0]).toBe(8 + 8 + 32 + 16);
  });

  it('decides later fragments as their first, and refuses those whose first is unknown', () => {
    const { pipeline } = setUp(entry({ to: '10.2.0.0/16', ports: [2222, 2222] }));
    const selectors = new CompiledSelectors({
      local: [selector('0.0.0.0/0')],
      remote: [selector('10.2.0.0/16', 17, 2222, 2222)],
    });
    pipeline.add(0, outboundSa({ selectors }), { active: true });
    const fragment = (id: number, offset: number, more: boolean): Uint8Array => {
      const packet = plainPacket({ ...V4, length: 36 });
      packet[5] = id;
      packet[6] = more ? 0x20 : 0;
      packet[7] = offset / 8;
      return packet;
    };
    expect(send(pipeline, fragment(1, 16, false))).toBeUndefined();
    expect(send(pipeline, fragment(1, 0, true))).toBe(7);
    expect(send(pipeline, fragment(1, 16, false))).toBe(7);
    expect(send(pipeline, fragment(2, 16, false))).toBeUndefined();
  });
});

describe('the SAs of an entry', () => {
  it('sends on a new SA only when told to, and on the old one until then', () => {
    const { pipeline } = setUp(entry({ to: '10.2.0.0/16' }));
    const old = outboundSa({ pathIndex: 1 });
    const fresh = outboundSa({ pathIndex: 2, spi: SPI + 1 });
    pipeline.add(0, old, { active: true });
    pipeline.add(0, fresh, { active: false });
    expect(send(pipeline, plainPacket(V4))).toBe(1);
    pipeline.activate(fresh);
    expect(send(pipeline, plainPacket(V4))).toBe(2);
    pipeline.remove(old);
    expect(old.usable).toBe(false);
    expect(send(pipeline, plainPacket(V4))).toBe(2);
    pipeline.remove(fresh);
    expect(send(pipeline, plainPacket(V4))).toBeUndefined();
    expect([...pipeline.sas()]).toEqual([]);
  });

  it('goes back to an SA that is activated again', () => {
    const { pipeline } = setUp(entry({ to: '10.2.0.0/16' }));
    const [one, two] = [outboundSa({ pathIndex: 1 }), outboundSa({ pathIndex: 2 })];
    pipeline.add(0, one, { active: true });
    pipeline.add(0, two, { active: true });
    expect(send(pipeline, plainPacket(V4))).toBe(2);
    pipeline.activate(one);
    expect(send(pipeline, plainPacket(V4))).toBe(1);
    expect(pipeline.sas().size).toBe(2);
  });

  it('activates an SA for its own entries only', () => {
    const { pipeline } = setUp(entry({ to: '10.2.0.0/16' }), entry({ to: '10.3.0.0/16' }));
    const sa = outboundSa();
    pipeline.add(1, sa, { active: false });
    pipeline.activate(sa);
    expect(send(pipeline, plainPacket(V4))).toBeUndefined();
    expect(send(pipeline, plainPacket({ ...V4, destination: '10.3.0.1' }))).toBe(7);
    pipeline.activate(sa);
    pipeline.remove(sa);
    expect(pipeline.sas().size).toBe(0);
    pipeline.activate(sa);
    expect(pipeline.sas().size).toBe(0);
  });

  it('uses the SA whose selectors match', () => {
    const { pipeline, missing } = setUp(entry({ to: '10.0.0.0/8' }));
    pipeline.add(0, outboundSa({ pathIndex: 1, selectors: compiled(['10.1.0.0/16'], ['10.2.0.0/16']) }), {
      active: true,
    });
    pipeline.add(0, outboundSa({ pathIndex: 2, selectors: compiled(['10.1.0.0/16'], ['10.3.0.0/16']) }), {
      active: true,
    });
    expect(send(pipeline, plainPacket(V4))).toBe(1);
    expect(send(pipeline, plainPacket({ ...V4, destination: '10.3.0.1' }))).toBe(2);
    expect(send(pipeline, plainPacket({ ...V4, destination: '10.4.0.1' }))).toBeUndefined();
    expect(missing.length).toBe(1);
  });

  it('lets the next SA take the very packet at which the first runs out', () => {
    const { pipeline, missing } = setUp(entry({ to: '10.2.0.0/16' }));
    const next = outboundSa({ pathIndex: 2 });
    const last = outboundSa({ pathIndex: 1, limits: { ...UNLIMITED, hardPackets: 1 } });
    pipeline.add(0, next, { active: true });
    pipeline.add(0, last, { active: true });
    expect([1, 2, 3].map(() => send(pipeline, plainPacket(V4)))).toEqual([1, 2, 2]);
    expect(pipeline.takeSignals()).toEqual([{ sa: last, kind: 'hard', cause: 'packets' }]);
    pipeline.remove(next);
    expect(send(pipeline, plainPacket(V4))).toBeUndefined();
    expect(missing.length).toBe(1);
    expect(namedDrops(pipeline.drops)).toEqual({ 'no-sa': 1 });
  });

  it('follows a path that changes', () => {
    const { pipeline } = setUp(entry({ to: '10.2.0.0/16' }));
    const sa = outboundSa();
    pipeline.add(0, sa, { active: true });
    sa.pathIndex = 11;
    expect(send(pipeline, plainPacket(V4))).toBe(11);
  });

  it('is bounded, and refuses what it has already and entries that there are not', () => {
    const { pipeline } = setUp(entry({ to: '10.2.0.0/16' }));
    const sas = Array.from({ length: MAX_SAS_PER_ENTRY + 1 }, () => outboundSa());
    expect(sas.map((sa, i) => pipeline.add(0, sa, { active: i % 2 === 0 }))).toEqual([
      ...new Array(MAX_SAS_PER_ENTRY).fill(true),
      false,
    ]);
    pipeline.remove(sas[3]!);
    expect(pipeline.add(0, sas[2]!, { active: true })).toBe(false);
    expect(pipeline.add(1, outboundSa(), { active: true })).toBe(false);
    expect(pipeline.add(-1, outboundSa(), { active: true })).toBe(false);
  });

  it('may be many, each for a part: a packet leaves on its own, and on another when that goes', () => {
    const { pipeline } = setUp(entry({ to: '10.2.0.0/16' }));
    const forHost = (host: number, pathIndex: number): EspOutboundSa =>
      outboundSa({ selectors: compiled(['0.0.0.0/0'], [`10.2.0.${host}/32`]), pathIndex });
    const sas = Array.from({ length: 100 }, (_, host) => forHost(host, host));
    for (const sa of sas) pipeline.add(0, sa, { active: true });
    const pathTo = (host: number): number | undefined =>
      send(pipeline, plainPacket({ ...V4, destination: `10.2.0.${host}` }));
    for (let round = 0; round < 2; round++) {
      for (let host = 0; host < 100; host++) expect(pathTo(host)).toBe(host);
    }
    expect(pathTo(100)).toBeUndefined();
    const newer = forHost(7, 207);
    pipeline.add(0, newer, { active: false });
    expect(pathTo(7)).toBe(7);
    pipeline.activate(newer);
    expect(pathTo(7)).toBe(207);
    pipeline.remove(newer);
    expect([pathTo(7), pathTo(8)]).toEqual([7, 8]);
    pipeline.remove(sas[7]!);
    expect(pathTo(7)).toBeUndefined();
  });

  it('signals limits of idle SAs', () => {
    const { pipeline } = setUp(entry({ to: '10.2.0.0/16' }), entry({ to: '10.3.0.0/16' }));
    const sa = outboundSa({ limits: { ...UNLIMITED, softTime: 70, hardTime: 90 } });
    pipeline.add(0, sa, { active: true });
    pipeline.add(1, sa, { active: true });
    expect(pipeline.nextDeadline()).toBe(70);
    pipeline.expire(80);
    expect(pipeline.takeSignals()).toEqual([{ sa, kind: 'soft', cause: 'time' }]);
    expect(pipeline.nextDeadline()).toBe(90);
    pipeline.expire(90);
    expect(pipeline.takeSignals()).toEqual([{ sa, kind: 'hard', cause: 'time' }]);
    expect(pipeline.takeSignals()).toEqual([]);
    expect(send(pipeline, plainPacket(V4), 91)).toBeUndefined();
  });
});
