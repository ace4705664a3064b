import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { writeU32 } from '../../src/base/bytes.ts';
import { namedDrops } from '../../src/esp/drops.ts';
import { InboundPipeline } from '../../src/esp/inbound.ts';
import type { EspInboundSa } from '../../src/esp/inbound-sa.ts';
import { SaCounter, UNLIMITED } from '../../src/esp/usage.ts';
import { CompiledSelectors } from '../../src/policy/compiled.ts';
import { Flow } from '../../src/policy/flow.ts';
import { FragmentTracker } from '../../src/policy/fragments.ts';
import { placedBatch } from '../support/placed-batch.ts';
import {
  batchOf,
  compiled,
  forged,
  inboundSa,
  outboundSa,
  plainPacket,
  reasonName,
  SPI,
  sealed,
  selector,
  ToyCipher,
} from './support.ts';

const V4 = { source: '10.2.0.1', destination: '10.1.0.1' };
const V6 = { source: '2001:db8:2::1', destination: '2001:db8:1::1' };

function pipelineOf(...sas: readonly EspInboundSa[]): InboundPipeline {
  const pipeline = new InboundPipeline();
  for (const sa of sas) expect(pipeline.add(sa)).toBe(true);
  return pipeline;
}

/** What becomes of one packet: the plain packet, or nothing. */
function receive(pipeline: InboundPipeline, packet: Uint8Array, now = 0): Uint8Array | undefined {
  const batch = batchOf(packet);
  pipeline.process(now, batch);
  return batch.length[0] === 0 ? undefined : batch.packet(0).slice();
}

describe('opening', () => {
  it('gives back what was sealed, with the tag and the SA of each slot', () => {
    const out = outboundSa();
    const sa = inboundSa();
    const pipeline = pipelineOf(sa);
    const packets = [plainPacket(V4), plainPacket({ ...V6, length: 1400 }), plainPacket({ ...V4, length: 1499 })];
    const batch = batchOf(...packets.map((packet) => sealed(out, packet)));
    pipeline.process(5, batch);
    for (const [slot, packet] of packets.entries()) {
      expect(batch.packet(slot)).toEqual(packet);
      expect(batch.tag[slot]).toBe(9);
      expect(pipeline.slotSa[slot]).toBe(sa);
      expect(pipeline.slotAdvanced[slot]).toBe(1);
    }
    expect(sa.usage.counters[SaCounter.packets]).toBe(3);
    expect(sa.usage.counters[SaCounter.bytes]).toBe(28 + 1400 + 1499);
    expect(sa.usage.counters[SaCounter.lastUsed]).toBe(5);
    expect(namedDrops(pipeline.drops)).toEqual({});
  });

  it('leaves alone what lies right before and behind a packet', () => {
    const out = outboundSa();
    const packets = Array.from({ length: 5 }, (_, i) => plainPacket({ ...V4, length: 60 + i }));
    const received = packets.map((packet) => sealed(out, packet));
    received[2]![20]! ^= 1;
    const batch = placedBatch(received);
    const pipeline = pipelineOf(inboundSa());
    pipeline.process(0, batch);
    expect([0, 1, 3, 4].map((slot) => batch.packet(slot))).toEqual([0, 1, 3, 4].map((slot) => packets[slot]));
    expect(namedDrops(pipeline.drops)).toEqual({ 'bad-icv': 1 });
  });

  it('passes over slots that an earlier stage dropped', () => {
    const batch = batchOf(sealed(outboundSa(), plainPacket(V4)));
    batch.length[0] = 0;
    const pipeline = pipelineOf(inboundSa());
    pipeline.process(0, batch);
    expect(namedDrops(pipeline.drops)).toEqual({});
    expect(pipeline.slotSa[0]).toBeUndefined();
  });

  it('drops TFC padding behind the inner packet (RFC 4303 §2.7)', () => {
    const inner = plainPacket({ ...V4, length: 61 });
    const padded = new Uint8Array(200).fill(0xee);
    padded.set(inner);
    const cipher = new ToyCipher();
    const data = new Uint8Array([...padded, 1, 2, 2, 4]);
    expect(receive(pipelineOf(inboundSa()), forged(cipher, SPI, 1, data))).toEqual(inner);
  });

  it('marks late packets as authentic but not the newest', () => {
    const out = outboundSa();
    const pipeline = pipelineOf(inboundSa());
    const [one, two] = [sealed(out, plainPacket(V4)), sealed(out, plainPacket(V4))];
    const batch = batchOf(two, one);
    pipeline.process(0, batch);
    expect([...pipeline.slotAdvanced.subarray(0, 2)]).toEqual([1, 0]);
    expect(pipeline.slotSa[1]).toBeDefined();
  });
});

describe('what was authenticated, by slot', () => {
  it('is not claimed for what follows an authentic packet', () => {
    const out = outboundSa();
    const sa = inboundSa();
    const pipeline = pipelineOf(sa);
    const good = sealed(out, plainPacket(V4));
    const garbage = sealed(out, plainPacket(V4));
    garbage[20]! ^= 1;
    const batch = batchOf(good, good, garbage);
    pipeline.process(0, batch);
    expect(pipeline.slotSa.slice(0, 3)).toEqual([sa, undefined, undefined]);
    expect([...pipeline.slotAdvanced]).toEqual([1, 0, 0]);
    expect([sa.authenticated, sa.advanced]).toEqual([false, false]);
  });

  it('is forgotten with the next batch', () => {
    const pipeline = pipelineOf(inboundSa());
    const batch = batchOf(sealed(outboundSa(), plainPacket(V4)));
    pipeline.process(0, batch);
    expect(pipeline.slotSa[0]).toBeDefined();
    batch.length[0] = 0;
    pipeline.process(0, batch);
    expect(pipeline.slotSa[0]).toBeUndefined();
    expect(pipeline.slotAdvanced[0]).toBe(0);
  });
});

describe('the table of SAs', () => {
  it('refuses a second SA with the same SPI, and more than it may hold', () => {
    const pipeline = new InboundPipeline({ maxSas: 2 });
    const sa = inboundSa();
    expect(pipeline.add(sa)).toBe(true);
    expect(pipeline.add(inboundSa())).toBe(false);
    expect(pipeline.add(inboundSa({ spi: 256 }))).toBe(true);
    expect(pipeline.add(inboundSa({ spi: 257 }))).toBe(false);
    expect(pipeline.get(SPI)).toBe(sa);
    pipeline.remove(sa);
    expect(pipeline.get(SPI)).toBeUndefined();
    expect(pipeline.size).toBe(1);
  });

  it('wipes the keys of what it removes, and only once', () => {
    const cipher = new ToyCipher();
    const sa = inboundSa({ cipher });
    const pipeline = pipelineOf(sa);
    pipeline.remove(sa);
    expect(cipher.wiped).toBe(true);
    cipher.wiped = false;
    pipeline.remove(sa);
    sa.wipe();
    expect(cipher.wiped).toBe(false);
    expect(sa.usable).toBe(false);
    const batch = batchOf(sealed(outboundSa(), plainPacket(V4)));
    expect(reasonName(sa.open(0, batch, 0, new Flow(), new FragmentTracker()))).toBe('lifetime-expired');
    expect(sa.authenticated).toBe(false);
  });

  it('does not remove an SA that took over the SPI', () => {
    const old = inboundSa();
    const pipeline = pipelineOf(old);
    pipeline.remove(old);
    const fresh = inboundSa();
    pipeline.add(fresh);
    pipeline.remove(old);
    expect(pipeline.get(SPI)).toBe(fresh);
  });

  it('never has an SA for SPI 0 to 255 (RFC 4303 §2.1)', () => {
    for (let spi = 0; spi < 256; spi++) {
      expect(() => inboundSa({ spi })).toThrow(RangeError);
      expect(() => outboundSa({ spi })).toThrow(RangeError);
    }
    const pipeline = pipelineOf(inboundSa());
    const packet = sealed(outboundSa(), plainPacket(V4));
    for (let spi = 0; spi < 256; spi++) {
      writeU32(packet, 0, spi);
      expect(receive(pipeline, packet)).toBeUndefined();
    }
    expect(namedDrops(pipeline.drops)).toEqual({ 'unknown-spi': 256 });
  });

  it.each([256, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff])('finds SPI %d', (spi) => {
    const packet = plainPacket(V4);
    expect(receive(pipelineOf(inboundSa({ spi })), sealed(outboundSa({ spi }), packet))).toEqual(packet);
  });
});

describe('bad packets', () => {
  it('survives truncation at every length', () => {
    const out = outboundSa();
    const sa = inboundSa();
    const pipeline = pipelineOf(sa);
    const packet = sealed(out, plainPacket({ ...V4, length: 60 }));
    for (let length = 1; length < packet.length; length++) {
      expect(receive(pipeline, packet.subarray(0, length))).toBeUndefined();
    }
    const { 'too-short': short = 0, 'bad-length': odd = 0, 'bad-icv': icv = 0, ...rest } = namedDrops(pipeline.drops);
    expect(rest).toEqual({});
    // SPI, sequence number, IV, ICV and four bytes of data are the least.
    expect(short).toBe(8 + 8 + 16 + 4 - 1);
    expect(short + odd + icv).toBe(packet.length - 1);
    expect(icv).toBe(15);
    expect(receive(pipeline, packet)).toBeDefined();
  });

  it('refuses every single flipped bit, and moves the window for none', () => {
    const out = outboundSa({ esn: true });
    const sa = inboundSa({ esn: true });
    const pipeline = pipelineOf(sa);
    const packet = sealed(out, plainPacket(V4));
    for (let bit = 0; bit < packet.length * 8; bit++) {
      const flipped = packet.slice();
      flipped[bit >>> 3]! ^= 1 << (bit & 7);
      expect(receive(pipeline, flipped)).toBeUndefined();
    }
    expect(sa.replay.highest).toBe(0n);
    expect(sa.used).toBe(false);
    expect(receive(pipeline, packet)).toBeDefined();
  });

  it('drops what was received before and what is too old', () => {
    const out = outboundSa();
    const sa = inboundSa({ replayWindow: 64 });
    const pipeline = pipelineOf(sa);
    const packets = Array.from({ length: 100 }, () => sealed(out, plainPacket(V4)));
    expect(receive(pipeline, packets[99]!)).toBeDefined();
    expect(receive(pipeline, packets[99]!)).toBeUndefined();
    expect(receive(pipeline, packets[36]!)).toBeDefined();
    expect(receive(pipeline, packets[36]!)).toBeUndefined();
    expect(receive(pipeline, packets[35]!)).toBeUndefined();
    expect(namedDrops(pipeline.drops)).toEqual({ replay: 2, 'too-old': 1 });
    expect(namedDrops(sa.drops)).toEqual({ replay: 2, 'too-old': 1 });
  });

  it('is not led forward by a forged sequence number', () => {
    const out = outboundSa();
    const sa = inboundSa();
    const pipeline = pipelineOf(sa);
    const first = sealed(out, plainPacket(V4));
    const far = first.slice();
    writeU32(far, 4, 0xffff_fff0);
    expect(receive(pipeline, far)).toBeUndefined();
    expect(sa.replay.highest).toBe(0n);
    expect(receive(pipeline, first)).toBeDefined();
    expect(namedDrops(pipeline.drops)).toEqual({ 'bad-icv': 1 });
  });

  it.each([
    ['pad length past the start', [0x45, 0, 3, 4]],
    ['pad length 255', [...new Array(20).fill(0), 255, 4]],
    ['padding of zeros', [...plainPacket({ ...V4, length: 28 }), 0, 0, 2, 4]],
    ['padding that starts with 0', [...plainPacket({ ...V4, length: 28 }), 0, 1, 2, 4]],
    ['padding whose last byte is wrong', [...plainPacket({ ...V4, length: 28 }), 1, 3, 2, 4]],
    ['padding with one wrong byte', [...plainPacket({ ...V4, length: 24 }), 1, 2, 3, 4, 6, 6, 6, 4]],
  ])('refuses %s', (_name, bytes) => {
    const data = Uint8Array.from(
      bytes.length % 4 === 0 ? bytes : [...new Array(4 - (bytes.length % 4)).fill(1), ...bytes],
    );
    const pipeline = pipelineOf(inboundSa());
    expect(receive(pipeline, forged(new ToyCipher(), SPI, 1, data))).toBeUndefined();
    expect(namedDrops(pipeline.drops)).toEqual({ 'bad-padding': 1 });
  });

  it('accepts 255 bytes of correct padding', () => {
    const inner = plainPacket({ ...V4, length: 31 });
    const pads = Array.from({ length: 255 }, (_, i) => i + 1);
    const data = Uint8Array.from([...inner, ...pads, 255, 4]);
    expect(data.length % 4).toBe(0);
    expect(receive(pipelineOf(inboundSa()), forged(new ToyCipher(), SPI, 1, data))).toEqual(inner);
  });

  it.each([
    [0, 'bad-next-header'],
    [1, 'bad-next-header'],
    [6, 'bad-next-header'],
    [17, 'bad-next-header'],
    [50, 'bad-next-header'],
    [255, 'bad-next-header'],
    [41, 'bad-inner-packet'],
    [59, 'dummy'],
  ])('counts next header %d as %s', (nextHeader, reason) => {
    const sa = inboundSa();
    const pipeline = pipelineOf(sa);
    const data = Uint8Array.from([...plainPacket(V4), 1, 2, 2, nextHeader]);
    expect(receive(pipeline, forged(new ToyCipher(), SPI, 1, data))).toBeUndefined();
    expect(namedDrops(pipeline.drops)).toEqual({ [reason]: 1 });
    expect(pipeline.slotSa[0]).toBe(sa);
    expect(sa.replay.highest).toBe(1n);
    expect(sa.usage.counters[SaCounter.packets]).toBe(0);
    expect(sa.usage.counters[SaCounter.dummies]).toBe(nextHeader === 59 ? 1 : 0);
  });

  it('drops an empty dummy and an empty tunnel packet', () => {
    const pipeline = pipelineOf(inboundSa());
    expect(receive(pipeline, forged(new ToyCipher(), SPI, 1, Uint8Array.of(1, 2, 2, 59)))).toBeUndefined();
    expect(receive(pipeline, forged(new ToyCipher(), SPI, 2, Uint8Array.of(1, 2, 2, 4)))).toBeUndefined();
    expect(namedDrops(pipeline.drops)).toEqual({ dummy: 1, 'bad-inner-packet': 1 });
  });

  it.each([
    ['longer than the payload', 2, 200],
    ['shorter than its header', 2, 19],
    ['a header of 4 words', 0, 0x44],
    ['version 6 under next header 4', 0, 0x65],
    ['version 0', 0, 0x05],
  ])('refuses an inner packet: %s', (_name, at, value) => {
    const inner = plainPacket(V4);
    if (at === 2) inner[3] = value;
    else inner[0] = value;
    const pipeline = pipelineOf(inboundSa());
    const data = Uint8Array.from([...inner, 1, 2, 2, 4]);
    expect(receive(pipeline, forged(new ToyCipher(), SPI, 1, data))).toBeUndefined();
    expect(namedDrops(pipeline.drops)).toEqual({ 'bad-inner-packet': 1 });
  });

  it('refuses ciphertext that is no multiple of the block', () => {
    const pipeline = pipelineOf(inboundSa({ cipher: new ToyCipher(16, 12, 16) }));
    const packet = sealed(outboundSa({ cipher: new ToyCipher(16, 12, 16) }), plainPacket(V4));
    expect(receive(pipeline, packet.subarray(0, packet.length - 4))).toBeUndefined();
    expect(namedDrops(pipeline.drops)).toEqual({ 'bad-length': 1 });
  });

  it('handles any bytes without an exception', () => {
    const pipeline = pipelineOf(inboundSa(), inboundSa({ spi: 0x0101_0101, cipher: new ToyCipher(0, 0, 1) }));
    let state = 12345;
    const batch = new PacketBatch(64, 1500);
    for (let round = 0; round < 50; round++) {
      batch.clear();
      for (let slot = 0; slot < 64; slot++) {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        const packet = new Uint8Array((state >>> 8) % 120);
        for (let i = 8; i < packet.length; i++) packet[i] = (state >>> 3) * i;
        if (packet.length >= 8) {
          writeU32(packet, 0, 0x0101_0101);
          writeU32(packet, 4, round * 64 + slot + 1);
        }
        batch.push(packet);
      }
      pipeline.process(round, batch);
      for (let slot = 0; slot < 64; slot++) expect(batch.length[slot]).toBeGreaterThanOrEqual(0);
    }
    const total = pipeline.drops.reduce((sum, count) => sum + count, 0);
    expect(total).toBeGreaterThan(3000);
  });
});

describe('the check of the inner packet against the selectors (RFC 4301 §5.2)', () => {
  const selectors = compiled(['10.1.0.0/16'], ['10.2.0.0/16']);
  it.each([
    ['the source of the far net', V4, true],
    ['a spoofed source', { ...V4, source: '10.3.0.1' }, false],
    ['our own source', { ...V4, source: '10.1.0.9' }, false],
    ['a foreign destination', { ...V4, destination: '10.4.0.1' }, false],
    ['both sides swapped', { source: V4.destination, destination: V4.source }, false],
    ['IPv6 in an IPv4 SA', V6, false],
  ])('%s', (_name, plain, fits) => {
    const sa = inboundSa({ selectors });
    const pipeline = pipelineOf(sa);
    const got = receive(pipeline, sealed(outboundSa(), plainPacket(plain)));
    expect(got !== undefined).toBe(fits);
    expect(namedDrops(pipeline.drops)).toEqual(fits ? {} : { 'selector-mismatch': 1 });
    expect(sa.usage.counters[SaCounter.packets]).toBe(fits ? 1 : 0);
    expect(pipeline.slotSa[0]).toBe(sa);
  });

  it('IPv4 in an IPv6 SA', () => {
    const pipeline = pipelineOf(inboundSa({ selectors: compiled(['::/0'], ['::/0']) }));
    const out = outboundSa();
    expect(receive(pipeline, sealed(out, plainPacket(V4)))).toBeUndefined();
    expect(receive(pipeline, sealed(out, plainPacket(V6)))).toBeDefined();
    expect(namedDrops(pipeline.drops)).toEqual({ 'selector-mismatch': 1 });
  });
});

describe('fragments', () => {
  const web = new CompiledSelectors({
    local: [selector('10.1.0.0/16', 17, 2222, 2222)],
    remote: [selector('10.2.0.0/16')],
  });
  const fragment = (id: number, offset: number, port = 2222): Uint8Array => {
    const packet = plainPacket({ ...V4, length: 36, destinationPort: port });
    packet[5] = id;
    packet[6] = offset === 0 ? 0x20 : 0;
    packet[7] = offset / 8;
    return packet;
  };

  it('are accepted when their first fragment showed ports that match', () => {
    const pipeline = pipelineOf(inboundSa({ selectors: web }));
    const out = outboundSa();
    expect(receive(pipeline, sealed(out, fragment(1, 16)))).toBeUndefined();
    expect(receive(pipeline, sealed(out, fragment(1, 0)))).toBeDefined();
    expect(receive(pipeline, sealed(out, fragment(1, 16)))).toBeDefined();
    expect(receive(pipeline, sealed(out, fragment(2, 16)))).toBeUndefined();
    expect(namedDrops(pipeline.drops)).toEqual({ fragment: 2 });
  });

  it('are not accepted after a first fragment that was refused', () => {
    const pipeline = pipelineOf(inboundSa({ selectors: web }));
    const out = outboundSa();
    expect(receive(pipeline, sealed(out, fragment(1, 0, 80)))).toBeUndefined();
    expect(receive(pipeline, sealed(out, fragment(1, 16)))).toBeUndefined();
    expect(namedDrops(pipeline.drops)).toEqual({ 'selector-mismatch': 1, fragment: 1 });
  });
});

describe('limits', () => {
  it('signals soft once and hard once, then carries nothing', () => {
    const out = outboundSa();
    const sa = inboundSa({ limits: { ...UNLIMITED, softPackets: 3, hardPackets: 5 } });
    const pipeline = pipelineOf(sa);
    const delivered = Array.from({ length: 8 }, () => receive(pipeline, sealed(out, plainPacket(V4))) !== undefined);
    expect(delivered).toEqual([true, true, true, true, true, false, false, false]);
    expect(pipeline.takeSignals()).toEqual([
      { sa, kind: 'soft', cause: 'packets' },
      { sa, kind: 'hard', cause: 'packets' },
    ]);
    expect(pipeline.takeSignals()).toEqual([]);
    expect(sa.usable).toBe(false);
    expect(namedDrops(pipeline.drops)).toEqual({ 'lifetime-expired': 3 });
  });

  it('applies time to an idle SA', () => {
    const sa = inboundSa({ limits: { ...UNLIMITED, softTime: 100, hardTime: 200 } });
    const pipeline = pipelineOf(sa);
    expect(pipeline.nextDeadline()).toBe(100);
    pipeline.expire(99);
    expect(pipeline.takeSignals()).toEqual([]);
    pipeline.expire(100);
    expect(pipeline.takeSignals()).toEqual([{ sa, kind: 'soft', cause: 'time' }]);
    expect(pipeline.nextDeadline()).toBe(200);
    pipeline.expire(200);
    expect(pipeline.takeSignals()).toEqual([{ sa, kind: 'hard', cause: 'time' }]);
    expect(pipeline.nextDeadline()).toBe(Number.POSITIVE_INFINITY);
  });
});
