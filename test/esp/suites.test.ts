/** Every cipher suite, sealed by one provider and opened by the other. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encryptionAlgorithms, integrityAlgorithms } from '../../src/crypto/algorithms.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { CipherSuite, CryptoProvider, PacketCipher } from '../../src/crypto/types.ts';
import { namedDrops } from '../../src/esp/drops.ts';
import { InboundPipeline } from '../../src/esp/inbound.ts';
import { OutboundPipeline } from '../../src/esp/outbound.ts';
import { espLength } from '../../src/esp/packet.ts';
import { SaCounter } from '../../src/esp/usage.ts';
import { compilePolicy } from '../../src/policy/database.ts';
import { anything, batchOf, inboundSa, outboundSa, plainPacket, sealed } from './support.ts';

const suites: readonly CipherSuite[] = encryptionAlgorithms.flatMap((encryption): CipherSuite[] =>
  encryption.aead
    ? [{ encryption, integrity: undefined }]
    : integrityAlgorithms.map((integrity) => ({ encryption, integrity })),
);

function nameOf({ encryption, integrity }: CipherSuite): string {
  return integrity === undefined ? encryption.name : `${encryption.name}-${integrity.name}`;
}

function cipherOf(provider: CryptoProvider, suite: CipherSuite, fill = 1): PacketCipher {
  const key = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i * 31 + fill);
  return provider.packetCipher(suite, {
    encryption: key(suite.encryption.keyLength + suite.encryption.saltLength),
    integrity: key(suite.integrity?.keyLength ?? 0),
  });
}

function supports(provider: CryptoProvider, suite: CipherSuite): boolean {
  return provider.supports(suite.encryption) && (suite.integrity === undefined || provider.supports(suite.integrity));
}

const LENGTHS = [28, 29, 30, 31, 32, 45, 46, 47, 48, 61, 62, 63, 64, 576, 1400];

const policy = compilePolicy(
  [
    {
      name: 'all',
      direction: 'out',
      action: 'protect',
      priority: 0,
      selectors: anything.selectors,
      level: 'require',
    },
  ],
  'out',
);

it('covers every kind of cipher', () => {
  expect(suites.length).toBeGreaterThan(40);
});

describe.each(suites.map((suite) => ({ name: nameOf(suite), suite })))('$name', ({ suite }) => {
  const pairs = [
    [nodeProvider, nobleProvider],
    [nobleProvider, nodeProvider],
  ] as const;
  it.each([false, true])('carries IPv4 and IPv6 of any length, ESN %s', (esn) => {
    for (const [from, to] of pairs) {
      if (!supports(from, suite) || !supports(to, suite)) continue;
      const outbound = new OutboundPipeline(policy, { onMissing: () => expect.fail('no SA') });
      const lastSequence = esn ? 0xffff_fff5n : 0n;
      outbound.add(0, outboundSa({ cipher: cipherOf(from, suite), esn, lastSequence }), { active: true });
      const inbound = new InboundPipeline();
      const sa = inboundSa({ cipher: cipherOf(to, suite), esn });
      if (esn) sa.replay.accept(0, 0xffff_fff5);
      inbound.add(sa);
      const packets = LENGTHS.flatMap((length) => [
        plainPacket({ source: '10.1.0.1', destination: '10.2.0.1', length }),
        plainPacket({ source: '2001:db8::1', destination: '2001:db8::2', length: length + 20 }),
      ]);
      const batch = batchOf(...packets);
      outbound.process(0, batch);
      const shape = cipherOf(to, suite);
      for (const [slot, packet] of packets.entries()) expect(batch.length[slot]).toBe(espLength(packet.length, shape));
      inbound.process(0, batch);
      expect(namedDrops(inbound.drops)).toEqual({});
      for (const [slot, packet] of packets.entries()) expect(batch.packet(slot)).toEqual(packet);
      expect(sa.usage.counters[SaCounter.packets]).toBe(packets.length);
      expect(sa.replay.highest).toBe(lastSequence + BigInt(packets.length));
    }
  });

  it('refuses other keys, another ESN setting, and any flipped byte', () => {
    const from = supports(nodeProvider, suite) ? nodeProvider : nobleProvider;
    const packet = sealed(
      outboundSa({ cipher: cipherOf(from, suite), esn: true }),
      plainPacket({ source: '10.1.0.1', destination: '10.2.0.1', length: 60 }),
    );
    const receiver = (esn: boolean, fill: number): InboundPipeline => {
      const inbound = new InboundPipeline();
      inbound.add(inboundSa({ cipher: cipherOf(from, suite, fill), esn }));
      return inbound;
    };
    const takes = (inbound: InboundPipeline, bytes: Uint8Array): boolean => {
      const batch = batchOf(bytes);
      inbound.process(0, batch);
      return batch.length[0] !== 0;
    };
    const right = receiver(true, 1);
    for (let at = 0; at < packet.length; at++) {
      const flipped = packet.slice();
      flipped[at]! ^= 0x80;
      if (takes(right, flipped)) expect.fail(`byte ${at} may be changed`);
    }
    expect(takes(right, packet)).toBe(true);
    expect(takes(receiver(true, 2), packet)).toBe(false);
    expect(takes(receiver(false, 1), packet)).toBe(false);
  });
});

it('carries what any order, loss and duplication leave, each packet once', () => {
  const suite: CipherSuite = {
    encryption: encryptionAlgorithms.find(({ name }) => name === 'aes128gcm16')!,
    integrity: undefined,
  };
  const fates = fc.array(
    fc.record({ copies: fc.integer({ min: 0, max: 3 }), delay: fc.integer({ min: 0, max: 90 }) }),
    { minLength: 1, maxLength: 150 },
  );
  fc.assert(
    fc.property(fates, fc.boolean(), (packets, esn) => {
      const start = esn ? 0xffff_ffc0n : 0n;
      const out = outboundSa({ cipher: cipherOf(nodeProvider, suite), esn, lastSequence: start });
      const sa = inboundSa({ cipher: cipherOf(nodeProvider, suite), esn, replayWindow: 64 });
      if (esn) sa.replay.accept(0, Number(start));
      const inbound = new InboundPipeline();
      inbound.add(sa);
      const arrivals = packets
        .flatMap(({ copies, delay }, number) => {
          const plain = plainPacket({ source: '10.1.0.1', destination: '10.2.0.1', sourcePort: number });
          const packet = sealed(out, plain);
          return Array.from({ length: copies }, (_, copy) => ({ at: number + delay * (copy + 1), number, packet }));
        })
        .sort((a, b) => a.at - b.at);
      const delivered = new Set<number>();
      let newest = -1;
      for (const { number, packet } of arrivals) {
        const batch = batchOf(packet);
        inbound.process(0, batch);
        const got = batch.length[0] !== 0;
        const wanted = !delivered.has(number) && number > newest - 64;
        expect(got).toBe(wanted);
        if (got) delivered.add(number);
        newest = Math.max(newest, number);
      }
    }),
    { numRuns: 60 },
  );
});
