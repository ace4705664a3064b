/** What becomes of packets that do not fit the path of their SA, and of the MSS on its way through. */
import { describe, expect, it } from 'vitest';
import { DropReason, namedDrops } from '../../src/esp/drops.ts';
import { OutboundPipeline } from '../../src/esp/outbound.ts';
import type { EspOutboundSa } from '../../src/esp/outbound-sa.ts';
import { compilePolicy } from '../../src/policy/database.ts';
import { Flow } from '../../src/policy/flow.ts';
import { FragmentTracker } from '../../src/policy/fragments.ts';
import { type PacketFields, packet } from '../policy/helpers.ts';
import { anything, batchOf, inboundSa, outboundSa, plainPacket, sealed, ToyCipher } from './support.ts';

const V4 = { source: '10.1.0.1', destination: '10.2.0.1' };
const V6 = { source: 'fd00:1::1', destination: 'fd00:2::1' };
const SYN = Uint8Array.of(0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 0x02, 0, 0, 0, 0, 0, 0, 2, 4, 0x23, 0x28);
const TCP: PacketFields = { src: '10.1.0.1', dst: '10.2.0.1', protocol: 6, payload: SYN };

const policy = compilePolicy(
  [{ name: 'all', direction: 'out', action: 'protect', priority: 0, level: 'require', selectors: anything.selectors }],
  'out',
);

interface TooBig {
  readonly packet: Uint8Array;
  readonly mtu: number;
  readonly totalLength: number;
}

function setUp(sa: EspOutboundSa): {
  send: (packet: Uint8Array) => Uint8Array | undefined;
  told: TooBig[];
  drops: () => object;
} {
  const told: TooBig[] = [];
  const pipeline = new OutboundPipeline(policy, {
    onMissing: () => undefined,
    onTooBig: (batch, slot, { totalLength }, mtu) =>
      told.push({ packet: batch.packet(slot).slice(), mtu, totalLength }),
  });
  pipeline.add(0, sa, { active: true });
  const send = (plain: Uint8Array): Uint8Array | undefined => {
    const batch = batchOf(plain);
    pipeline.process(0, batch);
    return batch.length[0] === 0 ? undefined : batch.packet(0).slice();
  };
  return { send, told, drops: () => namedDrops(pipeline.drops) };
}

function unfragmentable(length: number): Uint8Array {
  const plain = plainPacket({ ...V4, length });
  plain[6] = 0x40;
  return plain;
}

/** The MSS in a plain packet. */
function mssOf(plain: Uint8Array): number {
  return (plain[42]! << 8) | plain[43]!;
}

describe('a path with a smaller MTU than the device', () => {
  it('carries packets up to its MTU, however they are padded', () => {
    for (const [iv, icv, block] of [
      [8, 16, 1],
      [16, 16, 16],
      [0, 12, 1],
    ] as const) {
      const sa = outboundSa({ cipher: new ToyCipher(iv, icv, block) });
      for (let limit = 700; limit < 740; limit++) {
        sa.mtu = sa.maxPacket(limit);
        const { send, told } = setUp(sa);
        expect(send(unfragmentable(sa.mtu))!.length).toBeLessThanOrEqual(limit);
        expect(send(unfragmentable(sa.mtu + 1))).toBeUndefined();
        expect(told).toHaveLength(1);
        // Not a byte of the path is wasted but for padding.
        expect(sealed(sa, unfragmentable(sa.mtu + 1)).length).toBeGreaterThan(limit);
      }
    }
  });

  it('drops what must not be fragmented, untouched, and says what fits', () => {
    const sa = outboundSa();
    sa.mtu = 1300;
    const { send, told, drops } = setUp(sa);
    const [large, six] = [unfragmentable(1301), plainPacket({ ...V6, length: 1301 })];
    expect([send(large), send(six)]).toEqual([undefined, undefined]);
    expect(told).toEqual([
      { packet: large, mtu: 1300, totalLength: 1301 },
      { packet: six, mtu: 1300, totalLength: 1301 },
    ]);
    expect(drops()).toEqual({ 'too-big': 2 });
    expect(sa.lastSequence).toBe(0n);
    expect(send(unfragmentable(1300))).toBeDefined();
  });

  it('drops a later fragment that must not be fragmented again', () => {
    const sa = outboundSa();
    sa.mtu = 600;
    const { send, told, drops } = setUp(sa);
    const fragment = packet({ ...TCP, protocol: 17, offset: 800, payload: new Uint8Array(640) });
    fragment[6]! |= 0x40;
    expect(send(fragment)).toBeUndefined();
    expect(drops()).toEqual({ 'too-big': 1 });
    expect(told).toHaveLength(1);
  });

  it('lets packets without DF, and those that every link must carry, be fragmented outside', () => {
    const sa = outboundSa();
    sa.mtu = 576;
    const { send, told } = setUp(sa);
    expect(send(plainPacket({ ...V4, length: 1400 }))).toBeDefined();
    expect(send(plainPacket({ ...V6, length: 1280 }))).toBeDefined();
    expect(told).toEqual([]);
    expect(send(plainPacket({ ...V6, length: 1281 }))).toBeUndefined();
    expect(told).toMatchObject([{ mtu: 1280 }]);
  });

  it('does not count TFC padding behind the packet', () => {
    const sa = outboundSa();
    sa.mtu = 600;
    const { send } = setUp(sa);
    const padded = new Uint8Array(700);
    padded.set(unfragmentable(600));
    expect(send(padded)).toBeDefined();
  });

  it('is no limit until something is known of it', () => {
    const { send, told } = setUp(outboundSa());
    expect(send(unfragmentable(9000))).toBeDefined();
    expect(told).toEqual([]);
  });
});

describe('the MSS of TCP', () => {
  it('is lowered on the way out, before the packet is sealed', () => {
    const sa = outboundSa();
    sa.clampMtu = 1338;
    const { send } = setUp(sa);
    const esp = send(packet(TCP))!;
    const batch = batchOf(esp);
    const inbound = inboundSa();
    expect(inbound.open(0, batch, 0, new Flow(), new FragmentTracker())).toBe(DropReason.none);
    expect(mssOf(batch.packet(0))).toBe(1298);
  });

  it('is lowered on the way in, for the answers', () => {
    const sa = inboundSa();
    sa.clampMtu = 1000;
    const batch = batchOf(sealed(outboundSa(), packet(TCP)));
    expect(sa.open(0, batch, 0, new Flow(), new FragmentTracker())).toBe(DropReason.none);
    expect(mssOf(batch.packet(0))).toBe(960);
  });

  it('stays as it is when nothing is known', () => {
    const batch = batchOf(sealed(outboundSa(), packet(TCP)));
    inboundSa().open(0, batch, 0, new Flow(), new FragmentTracker());
    expect(batch.packet(0)).toEqual(packet(TCP));
  });
});
