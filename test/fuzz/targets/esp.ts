/**
 * ESP from a peer that has the keys: padding, next header and inner packets are what it likes. Each frame is a step of the
 * sequence number, the SA that it is for, and what is encrypted.
 */
import { concatBytes } from '../../../src/base/bytes.ts';
import { nodeProvider } from '../../../src/crypto/node/provider.ts';
import { parseEspProposalString } from '../../../src/crypto/proposal-text.ts';
import type { PacketCipher } from '../../../src/crypto/types.ts';
import { InboundPipeline } from '../../../src/esp/inbound.ts';
import { InboundGuard } from '../../../src/policy/guard.ts';
import { anything, batchOf, compiled, forged, inboundSa, plainPacket, selector } from '../../esp/support.ts';
import { isBetween } from '../between.ts';
import { readFrames, writeFrames } from '../frames.ts';
import { holds, type Target } from '../target.ts';

const SUITE = { encryption: parseEspProposalString('aes128gcm16').encryption[0]!, integrity: undefined };
const KEYS = { encryption: new Uint8Array(20).fill(9), integrity: new Uint8Array(0) };
const cipher = (): PacketCipher => nodeProvider.packetCipher(SUITE, KEYS);
const SENDER = cipher();
/** Selects by addresses, by a guard as well, everything, and in transport mode nothing of it. */
const SPIS = { narrow: 0x1000, guarded: 0x1001, wide: 0x1002 } as const;
const ALL_SPIS = Object.values(SPIS);

const LOCAL = [
  { prefix: '10.1.0.0/16', hex: '0a01' },
  { prefix: '2001:db8:1::/48', hex: '20010db80001' },
];
const REMOTE = [
  { prefix: '10.2.0.0/16', hex: '0a02' },
  { prefix: '2001:db8:2::/48', hex: '20010db80002' },
];

function pipeline(): InboundPipeline {
  const made = new InboundPipeline();
  const narrow = compiled(
    LOCAL.map(({ prefix }) => prefix),
    REMOTE.map(({ prefix }) => prefix),
  );
  const pair = (protocol: number) => ({
    local: [selector('10.1.0.0/16', protocol)],
    remote: [selector('10.2.0.0/16', protocol)],
  });
  const entry = { direction: 'in', priority: 0, level: 'require' } as const;
  const guard = new InboundGuard(
    {
      own: [
        { ...entry, name: 'tcp', action: 'discard', selectors: pair(6) },
        { ...entry, name: 'all', action: 'protect', child: 'c', selectors: pair(0) },
      ],
      rivals: [],
    },
    'c',
  );
  made.add(inboundSa({ id: 1, spi: SPIS.narrow, cipher: cipher(), selectors: narrow }));
  made.add(inboundSa({ id: 2, spi: SPIS.guarded, cipher: cipher(), selectors: narrow, guard }));
  made.add(inboundSa({ id: 3, spi: SPIS.wide, cipher: cipher(), selectors: anything }));
  return made;
}

function run(input: Uint8Array): void {
  const receiver = pipeline();
  const taken = new Set<string>();
  let sequence = 0;
  for (const frame of readFrames(input).slice(0, 32)) {
    const [step = 1, which = 0] = frame;
    sequence = Math.max(1, sequence + ((step << 24) >> 24));
    const spi = ALL_SPIS[which % ALL_SPIS.length]!;
    const data = frame.subarray(2);
    if (data.length === 0) continue;
    const batch = batchOf(forged(SENDER, spi, sequence, data));
    const before = total(receiver);
    receiver.process(1, batch);
    const packet = batch.packet(0);
    holds(packet.length > 0 === (total(receiver) === before), 'a packet is neither delivered nor counted as dropped');
    if (packet.length === 0) continue;
    const once = `${spi} ${sequence}`;
    holds(!taken.has(once), `the packet ${sequence} was delivered twice`);
    taken.add(once);
    checkDelivered(packet, data, spi);
  }
}

function total(receiver: InboundPipeline): number {
  return receiver.drops.reduce((sum, count) => sum + count, 0);
}

function checkDelivered(packet: Uint8Array, data: Uint8Array, spi: number): void {
  const version = packet[0]! >>> 4;
  holds(version === 4 || version === 6, `a packet of IP version ${version} was delivered`);
  const next = data.at(-1);
  holds(next === (version === 4 ? 4 : 41), `IP version ${version} was delivered behind next header ${next}`);
  const declared = version === 4 ? (packet[2]! << 8) | packet[3]! : 40 + ((packet[4]! << 8) | packet[5]!);
  holds(declared === packet.length, `a packet that says ${declared} bytes was delivered with ${packet.length}`);
  // The pad length and the next header never belong to it.
  holds(packet.length <= data.length - 2, 'a packet reaches into the trailer');
  if (spi === SPIS.wide) return;
  const [from, to] = [REMOTE, LOCAL].map((prefixes) => prefixes.map(({ hex }) => hex));
  holds(isBetween(packet, from!, to!), 'a packet beside the selectors was delivered');
  if (spi === SPIS.guarded) holds(version === 4 && packet[9] !== 6, 'a packet that the policy discards was delivered');
}

/** ICMP "fragmentation needed" from a router. */
function errorAbout(quoted: Uint8Array, router: string): Uint8Array {
  const error = plainPacket({ source: router, destination: '10.1.0.1', protocol: 1, length: 28 + quoted.length });
  error.set(concatBytes(Uint8Array.of(3, 4, 0, 0, 0, 0, 5, 0), quoted), 20);
  return error;
}

function seeds(): Uint8Array[] {
  const v4 = { source: '10.2.0.1', destination: '10.1.0.1' };
  const v6 = { source: '2001:db8:2::1', destination: '2001:db8:1::1' };
  const frame = (packet: Uint8Array, next: number, which: number, padding = 2): Uint8Array =>
    Uint8Array.of(1, which, ...packet, ...Array.from({ length: padding }, (_, at) => at + 1), padding, next);
  const packets = [
    frame(plainPacket(v4), 4, 0),
    frame(plainPacket({ ...v4, protocol: 6, length: 60 }), 4, 1),
    frame(plainPacket({ ...v4, protocol: 1 }), 4, 1),
    frame(plainPacket(v6), 41, 0, 6),
    frame(plainPacket({ ...v6, protocol: 44, length: 64 }), 41, 2),
    frame(plainPacket({ ...v6, protocol: 0, length: 80 }), 41, 0),
    frame(new Uint8Array(20), 59, 0),
    frame(errorAbout(plainPacket({ source: v4.destination, destination: v4.source }), '192.0.2.9'), 4, 1),
  ];
  return [...packets.map((packet) => writeFrames([packet])), writeFrames(packets)];
}

export const esp: Target = { name: 'esp', shape: 'frames', maxLength: 4_096, tokens: [], seeds, run };
