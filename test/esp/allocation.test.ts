/** The per-packet path allocates nothing (beside what a cipher does). */
import { expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import type { PacketCipher } from '../../src/crypto/types.ts';
import { InboundPipeline } from '../../src/esp/inbound.ts';
import { OutboundPipeline } from '../../src/esp/outbound.ts';
import type { TfcConfig } from '../../src/esp/tfc.ts';
import { compilePolicy, type PolicyEntry } from '../../src/policy/database.ts';
import { InboundGuard } from '../../src/policy/guard.ts';
import type { PacketFlags } from '../../src/policy/populate.ts';
import { anything, compiled, inboundSa, outboundSa, plainPacket } from './support.ts';

const BATCH = 64;
const TURNS = 150;
/** A number on the heap is 16 bytes, an object more: one each packet would be seen. */
const BYTES_PER_PACKET = 4;

const noCipher: PacketCipher = {
  ivLength: 8,
  icvLength: 16,
  blockSize: 1,
  seal: () => undefined,
  open: () => true,
  wipe: () => undefined,
};

const entry: PolicyEntry = {
  name: 'all',
  direction: 'out',
  action: 'protect',
  priority: 0,
  level: 'require',
  selectors: anything.selectors,
};
const perHost: PacketFlags = {
  localAddress: true,
  remoteAddress: false,
  protocol: false,
  localPort: false,
  remotePort: false,
};

interface Shape {
  readonly tfc?: TfcConfig;
  /** Traffic class of the outer headers that come in. */
  readonly outer?: number;
  /** SAs of the entry for other hosts beside that of the packets. */
  readonly others?: number;
  readonly pfp?: PacketFlags;
  /** What comes in is held against a policy. */
  readonly guard?: InboundGuard;
}

/**
 * Heap bytes that one packet costs on the way out and in again, once the code is compiled: the fourth least of some rounds.
 * A round in which garbage was collected says nothing.
 */
function bytesPerPacket(packets: readonly Uint8Array[], spi: number, esn: boolean, more: Shape = {}): number {
  const policy = compilePolicy([{ ...entry, pfp: more.pfp }], 'out');
  const outbound = new OutboundPipeline(policy, { onMissing: () => undefined });
  const lastSequence = 0xffff_0000n;
  const { others } = more;
  const own = { cipher: noCipher, spi, esn, lastSequence: esn ? lastSequence : 0n, tfc: more.tfc };
  const selectors = others === undefined ? anything : compiled(['200.1.0.1/32'], ['0.0.0.0/0']);
  outbound.add(0, outboundSa({ ...own, selectors }), { active: true });
  for (let i = 0; i < (others ?? 0); i++) {
    outbound.add(0, outboundSa({ cipher: noCipher, selectors: compiled([`200.3.0.${i}/32`], ['0.0.0.0/0']) }), {
      active: true,
    });
  }
  const inbound = new InboundPipeline();
  const sa = inboundSa({ cipher: noCipher, spi, esn, guard: more.guard });
  if (esn) sa.replay.accept(0, Number(lastSequence));
  inbound.add(sa);
  const batch = new PacketBatch(BATCH, 1500);
  const turn = (now: number): void => {
    batch.clear();
    for (let i = 0; i < BATCH; i++) batch.push(packets[i % packets.length]!);
    outbound.process(now, batch);
    batch.trafficClass.fill(more.outer ?? 0);
    inbound.process(now, batch);
  };
  const deltas: number[] = [];
  for (let round = 0; round < 25; round++) {
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < TURNS; i++) turn(i);
    deltas.push((process.memoryUsage().heapUsed - before) / (TURNS * BATCH));
  }
  const last = packets[(BATCH - 1) % packets.length]!;
  if (more.outer === undefined) expect(batch.packet(BATCH - 1)).toEqual(last);
  else expect(batch.packet(BATCH - 1)[1]).toBe(last[1]! | 3);
  return deltas.filter((delta) => delta >= 0).sort((a, b) => a - b)[3]!;
}

const v4 = plainPacket({ source: '200.1.0.1', destination: '200.2.0.1', length: 200 });
const v6 = plainPacket({ source: 'fe80::1', destination: 'fe80::2', length: 200 });

/** A SYN with options that are looked through, and an MSS that is as it should be. */
const syn = plainPacket({ source: '200.1.0.1', destination: '200.2.0.1', protocol: 6, length: 60 });
syn.set([0xa0, 0x02], 32);
syn.set([1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 0x50, 1, 1, 1, 1, 0], 40);

const ect = plainPacket({ source: '200.1.0.1', destination: '200.2.0.1', length: 200 });
ect[1] = 2;

const guard = new InboundGuard({ own: [{ ...entry, direction: 'in', child: 'c' }], rivals: [] }, 'c');

it.each<readonly [string, readonly Uint8Array[], number, boolean, Shape]>([
  ['IPv4, a small SPI', [v4], 0x1000, false, {}],
  ['IPv4, an SPI that is no small integer', [v4], 0xf000_0001, false, {}],
  ['IPv6 and ESN across 2^32', [v6], 0xf000_0001, true, {}],
  ['connections that begin', [syn], 0x1000, false, {}],
  ['both in turn', [v4, v6], 0xf000_0001, true, {}],
  ['padded', [v4, v6], 0xf000_0001, false, { tfc: { padding: 'multiple', size: 256, dummies: 0 } }],
  ['congestion marked outside', [ect], 0xf000_0001, false, { outer: 3 }],
  ['an entry with an SA for each host', [v4], 0xf000_0001, false, { others: 30, pfp: perHost }],
  ['an entry of which peers asked for parts', [v4], 0xf000_0001, false, { others: 30 }],
  ['held against the policy', [v4, v6], 0xf000_0001, false, { guard }],
])('%s', (_name, packets, spi, esn, more) => {
  expect(bytesPerPacket(packets, spi, esn, more)).toBeLessThan(BYTES_PER_PACKET);
});
