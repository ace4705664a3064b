/** Transport mode: packets without their IP header, and with one made anew (RFC 4303 §3.1.1, RFC 3948 §3.1.2). */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addressToBytes, parseAddress } from '../../src/base/address.ts';
import { PacketBatch } from '../../src/base/batch.ts';
import { sumBytes } from '../../src/base/checksum.ts';
import { namedDrops } from '../../src/esp/drops.ts';
import { InboundPipeline } from '../../src/esp/inbound.ts';
import { OutboundPipeline } from '../../src/esp/outbound.ts';
import { CompiledSelectors } from '../../src/policy/compiled.ts';
import { CompiledPolicy } from '../../src/policy/database.ts';
import { Flow, readFlow } from '../../src/policy/flow.ts';
import type { TransportHosts } from '../../src/policy/transport.ts';
import { placedBatch } from '../support/placed-batch.ts';
import { batchOf, forged, inboundSa, outboundSa, SPI, selector, ToyCipher } from './support.ts';

const ip = (text: string): NonNullable<ReturnType<typeof parseAddress>> => parseAddress(text)!;

const HERE = { 4: '192.0.2.1', 6: '2001:db8::1' } as const;
const THERE = { 4: '192.0.2.2', 6: '2001:db8::2' } as const;

/** Where the checksums stand, by protocol; and that of UDP, which may be left out. */
const FIELDS: Readonly<Record<number, number>> = { 6: 16, 17: 6, 33: 6, 58: 2, 136: 6 };

/** As a system sends them: whole, right in every checksum, from one host to another. */
function make(
  source: string,
  destination: string,
  protocol: number,
  payload: Uint8Array,
  { trafficClass = 0, options = 0, extension = new Uint8Array(0), next = protocol, fragment = 0 } = {},
): Uint8Array {
  const [from, to] = [addressToBytes(ip(source)), addressToBytes(ip(destination))];
  const v4 = from.length === 4;
  const header = v4 ? 20 + options : 40;
  const packet = new Uint8Array(header + extension.length + payload.length);
  const upper = header + extension.length;
  packet.set(from, v4 ? 12 : 8);
  packet.set(to, v4 ? 16 : 24);
  packet.set(extension, header);
  packet.set(payload, upper);
  const field = FIELDS[protocol];
  if (field !== undefined && payload.length >= field + 2) {
    packet.fill(0, upper + field, upper + field + 2);
    const pseudo = sumBytes(Uint8Array.of(...from, ...to), 0, 2 * from.length, payload.length + protocol);
    const sum = ~sumBytes(packet, upper, payload.length, pseudo) & 0xffff;
    const written = sum === 0 && protocol === 17 ? 0xffff : sum;
    packet.set([written >>> 8, written], upper + field);
  }
  if (v4) {
    packet.set([0x40 | (header / 4), trafficClass, packet.length >>> 8, packet.length]);
    packet.set([fragment === 0 ? 0x40 : fragment >>> 8, fragment & 0xff, 64, protocol], 6);
    const sum = ~sumBytes(packet, 0, header);
    packet.set([sum >>> 8, sum], 10);
  } else {
    const length = packet.length - 40;
    packet.set([0x60 | (trafficClass >>> 4), (trafficClass & 0xf) << 4, 0, 0, length >>> 8, length, next, 64]);
  }
  return packet;
}

interface Ends {
  readonly sender: OutboundPipeline;
  readonly receiver: InboundPipeline;
}

/** One SA from here to there. `hosts` are those of the receiver. */
function ends(family: 4 | 6, hosts: Partial<TransportHosts> = {}): Ends {
  const [here, there] = [ip(HERE[family]), ip(THERE[family])];
  const all = { local: [selector('0.0.0.0/0'), selector('::/0')], remote: [selector('0.0.0.0/0'), selector('::/0')] };
  const entry = { name: 'e', direction: 'out', action: 'protect', priority: 0, level: 'require', child: 'c' } as const;
  const sender = new OutboundPipeline(new CompiledPolicy([{ ...entry, selectors: all }], 'out'), {
    onMissing: () => undefined,
  });
  sender.add(0, outboundSa({ transport: true }), { active: true });
  const transport = { local: there, remote: here, asPeerHasThem: { local: there, remote: here }, ...hosts };
  const receiver = new InboundPipeline();
  receiver.add(inboundSa({ transport }));
  return { sender, receiver };
}

/** What comes out of a packet; `undefined` when it was dropped. */
function through({ sender, receiver }: Ends, packet: Uint8Array): { esp: Uint8Array; out: Uint8Array } | undefined {
  const batch = new PacketBatch(1, 66_000);
  batch.push(packet);
  sender.process(0, batch);
  if (batch.length[0] === 0) return undefined;
  const esp = batch.packet(0).slice();
  const arrived = new PacketBatch(1, 66_000);
  arrived.push(esp);
  arrived.trafficClass[0] = batch.trafficClass[0]!;
  receiver.process(0, arrived);
  return arrived.length[0] === 0 ? undefined : { esp, out: arrived.packet(0).slice() };
}

const family = fc.constantFrom(4 as const, 6 as const);
const protocol = fc.constantFrom(1, 6, 17, 33, 47, 50, 58, 89, 132, 136);
const payload = fc.uint8Array({ minLength: 24, maxLength: 300 });
const trafficClass = fc.integer({ min: 0, max: 255 });

describe('transport mode', () => {
  it('gives back the packet that went in, whatever it carries', () => {
    fc.assert(
      fc.property(family, protocol, payload, trafficClass, (version, upper, data, byte) => {
        const packet = make(HERE[version], THERE[version], upper, data, { trafficClass: byte });
        const { esp, out } = through(ends(version), packet)!;
        expect(out).toEqual(packet);
        // SPI and sequence number, IV, padding to four bytes with its trailer, ICV: and no IP header.
        expect(esp.length).toBe(8 + 8 + ((data.length + 2 + 3) & -4) + 16);
      }),
    );
  });

  it('gives back packets that lie one right behind the other, where there is no room for headers', () => {
    const packets = fc.array(fc.tuple(protocol, payload), { minLength: 2, maxLength: 6 });
    fc.assert(
      fc.property(family, packets, (version, contents) => {
        const { sender, receiver } = ends(version);
        const sent = contents.map(([upper, data]) => make(HERE[version], THERE[version], upper, data));
        const batch = batchOf(...sent);
        sender.process(0, batch);
        const arrived = placedBatch(sent.map((_, slot) => batch.packet(slot).slice()));
        receiver.process(0, arrived);
        expect(sent.map((_, slot) => arrived.packet(slot).slice())).toEqual(sent);
      }),
    );
  });

  it('puts checksums right where a NAT changed either address, or both', () => {
    const address = fc.tuple(family, fc.nat(), fc.nat()).map(([version, a, b]) => {
      const make = (n: number): string =>
        version === 4 ? `10.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}` : `fd00::${(n & 0xffff).toString(16)}:1`;
      return { version, from: make(a), to: make(b) };
    });
    fc.assert(
      fc.property(address, protocol, payload, fc.boolean(), ({ version, from, to }, upper, data, both) => {
        const sent = both ? { remote: from, local: to } : { remote: from, local: THERE[version] };
        const asPeerHasThem = { remote: ip(sent.remote), local: ip(sent.local) };
        const { out } = through(ends(version, { asPeerHasThem }), make(sent.remote, sent.local, upper, data))!;
        expect(out).toEqual(make(HERE[version], THERE[version], upper, data));
      }),
    );
  });

  it('leaves UDP without a checksum so, and what is too short for one', () => {
    const hosts = { asPeerHasThem: { remote: ip('10.0.0.1'), local: ip(THERE[4]) } };
    const packet = make('10.0.0.1', THERE[4], 17, new Uint8Array(20).fill(7));
    packet.set([0, 0], 26);
    const expected = make(HERE[4], THERE[4], 17, new Uint8Array(20).fill(7));
    expected.set([0, 0], 26);
    expect(through(ends(4, hosts), packet)!.out).toEqual(expected);
    const short = make('10.0.0.1', THERE[4], 6, new Uint8Array(8).fill(7));
    expect(through(ends(4, hosts), short)!.out).toEqual(make(HERE[4], THERE[4], 6, new Uint8Array(8).fill(7)));
  });

  it('carries IPv6 destination options in ESP', () => {
    const data = new Uint8Array(40).fill(3);
    const packet = make(HERE[6], THERE[6], 17, data, { extension: Uint8Array.of(17, 0, 1, 4, 0, 0, 0, 0), next: 60 });
    expect(through(ends(6), packet)!.out).toEqual(packet);
    const corrected = through(ends(6, { asPeerHasThem: { local: ip(THERE[6]), remote: ip('fd00::9') } }), packet)!.out;
    expect(corrected.subarray(0, 48)).toEqual(packet.subarray(0, 48));
    expect(corrected.subarray(54, 56)).not.toEqual(packet.subarray(54, 56));
  });

  it.each([
    ['a first fragment', 4, { fragment: 0x2000 }, 'fragment-in-transport-mode'],
    ['a later fragment', 4, { fragment: 0x0010 }, 'fragment-in-transport-mode'],
    ['IPv4 options', 4, { options: 4 }, 'headers-in-transport-mode'],
    [
      'hop-by-hop options',
      6,
      { extension: Uint8Array.of(17, 0, 1, 4, 0, 0, 0, 0), next: 0 },
      'headers-in-transport-mode',
    ],
    [
      'a routing header',
      6,
      { extension: Uint8Array.of(17, 0, 4, 0, 0, 0, 0, 0), next: 43 },
      'headers-in-transport-mode',
    ],
    [
      'a routing header behind destination options',
      6,
      { extension: Uint8Array.of(43, 0, 1, 4, 0, 0, 0, 0, 17, 0, 4, 0, 0, 0, 0, 0), next: 60 },
      'headers-in-transport-mode',
    ],
    [
      'an atomic fragment',
      6,
      { extension: Uint8Array.of(17, 0, 0, 0, 0, 0, 0, 9), next: 44 },
      'headers-in-transport-mode',
    ],
    [
      'an IPv6 fragment',
      6,
      { extension: Uint8Array.of(17, 0, 0, 1, 0, 0, 0, 9), next: 44 },
      'fragment-in-transport-mode',
    ],
  ] as const)('does not carry %s', (_what, version, change, reason) => {
    const pair = ends(version);
    // The policy has no ports, so that fragments find their entry.
    expect(through(pair, make(HERE[version], THERE[version], 17, new Uint8Array(16), change))).toBeUndefined();
    expect(namedDrops(pair.sender.drops)).toEqual({ [reason]: 1 });
  });

  /** ESP's payload of 18 bytes that could begin an extension header, and the trailer. */
  const strange = (next: number): Uint8Array => Uint8Array.of(17, 0, ...new Uint8Array(16), 0, next);

  it.each([
    ['nothing', 4, strange(59), 'dummy'],
    ['a fragment header', 6, strange(44), 'bad-next-header'],
    ['hop-by-hop options', 6, strange(0), 'bad-next-header'],
    ['a routing header', 6, strange(43), 'bad-next-header'],
    ['a UDP header that is cut short', 4, Uint8Array.of(7, 1, 1, 17), 'bad-inner-packet'],
  ] as const)('takes no packet with %s in it', (_what, version, plain, reason) => {
    const { receiver } = ends(version);
    const batch = new PacketBatch(1, 1500);
    batch.push(forged(new ToyCipher(), SPI, 1, plain));
    receiver.process(0, batch);
    expect([batch.length[0], namedDrops(receiver.drops)]).toEqual([0, { [reason]: 1 }]);
  });

  it('accepts no packet that the selectors of its SA do not match', () => {
    const { sender } = ends(4);
    const receiver = new InboundPipeline();
    const [local, remote] = [ip(THERE[4]), ip(HERE[4])];
    const selectors = new CompiledSelectors({
      local: [selector(`${THERE[4]}/32`, 17, 53, 53)],
      remote: [selector(`${HERE[4]}/32`, 17)],
    });
    receiver.add(inboundSa({ selectors, transport: { local, remote, asPeerHasThem: { local, remote } } }));
    const query = new Uint8Array(40);
    query.set([9, 9, 0, 53]);
    expect(through({ sender, receiver }, make(HERE[4], THERE[4], 17, query))).toBeDefined();
    expect(through({ sender, receiver }, make(HERE[4], THERE[4], 17, new Uint8Array(40)))).toBeUndefined();
    expect(through({ sender, receiver }, make(HERE[4], THERE[4], 6, new Uint8Array(40)))).toBeUndefined();
    expect(namedDrops(receiver.drops)).toEqual({ 'selector-mismatch': 2 });
  });

  it('accepts no packet without room for a header before it', () => {
    const { sender, receiver } = ends(6);
    const batch = new PacketBatch(1, 1500);
    batch.push(make(HERE[6], THERE[6], 17, new Uint8Array(16)));
    sender.process(0, batch);
    const tight = new PacketBatch(1, 1500, 0);
    tight.push(batch.packet(0));
    receiver.process(0, tight);
    expect(namedDrops(receiver.drops)).toEqual({ 'no-room': 1 });
  });

  it('counts payloads on both ends, and leaves a packet whole for the next SA when one ran out', () => {
    const pair = ends(4);
    const packet = make(HERE[4], THERE[4], 17, new Uint8Array(100));
    const worn = outboundSa({ transport: true, lastSequence: 0xffff_ffffn });
    pair.sender.add(0, worn, { active: true });
    expect(through(pair, packet)!.out).toEqual(packet);
    const [fresh] = [...pair.sender.sas()].filter((sa) => sa !== worn);
    const [receiving] = [...pair.receiver.sas()];
    for (const sa of [fresh!, receiving!]) expect([...sa.usage.counters.slice(0, 2)]).toEqual([1, 100]);
  });

  it('reads as whole what it rebuilt', () => {
    const flow = new Flow();
    const { out } = through(ends(6), make(HERE[6], THERE[6], 6, new Uint8Array(60)))!;
    expect(readFlow(out, 0, out.length, flow)).toBe(0);
    expect(flow.totalLength).toBe(100);
  });
});
