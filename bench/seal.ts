/**
 * Nanoseconds a packet through the sending and the receiving ESP pipeline, by provider, suite and size. `none` is a
 * cipher that does nothing: what the pipelines themselves cost.
 */
import { performance } from 'node:perf_hooks';
import { parseAddress, prefixRange } from '../src/base/address.ts';
import { PacketBatch } from '../src/base/batch.ts';
import { encryptionByName, integrityByName } from '../src/crypto/algorithms.ts';
import type { CipherSuite, CryptoProvider, PacketCipher } from '../src/crypto/types.ts';
import { InboundPipeline } from '../src/esp/inbound.ts';
import { EspInboundSa } from '../src/esp/inbound-sa.ts';
import { OutboundPipeline } from '../src/esp/outbound.ts';
import { EspOutboundSa } from '../src/esp/outbound-sa.ts';
import { UNLIMITED } from '../src/esp/usage.ts';
import { testedProviders } from '../src/host/crypto.ts';
import { CompiledSelectors } from '../src/policy/compiled.ts';
import { compilePolicy } from '../src/policy/database.ts';
import { makeSelector, type TrafficSelector } from '../src/policy/selector.ts';
import type { BenchRow } from './row.ts';

const SIZES = [64, 1400, 9000] as const;
const BATCH = 64;
const ROUND_MS = 80;
const ROUNDS = 5;
const SPI = 0x1000_0001;

const SUITES = [
  { name: 'aes128gcm16', encryption: 'aes128gcm16', integrity: undefined },
  { name: 'chacha20poly1305', encryption: 'chacha20poly1305', integrity: undefined },
  { name: 'aes128-sha256', encryption: 'aes128', integrity: 'sha256' },
] as const;

const noCipher: PacketCipher = {
  ivLength: 8,
  icvLength: 16,
  blockSize: 1,
  seal: () => undefined,
  open: () => true,
  wipe: () => undefined,
};

export async function sealBench(): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const size of SIZES) rows.push(...measure(`none/${size}`, () => noCipher, size));
  for (const [name, provider] of testedProviders()) {
    if (typeof provider === 'string') process.stdout.write(`without ${name}: ${provider}\n`);
    else rows.push(...measureProvider(provider));
  }
  return rows;
}

/** The suites that the provider has itself; in the daemon the others come from the next one. */
function measureProvider(provider: CryptoProvider): BenchRow[] {
  const rows: BenchRow[] = [];
  for (const { name, encryption, integrity } of SUITES) {
    const suite: CipherSuite = {
      encryption: encryptionByName(encryption)!,
      integrity: integrity === undefined ? undefined : integrityByName(integrity),
    };
    if (!provider.supports(suite.encryption)) continue;
    for (const size of SIZES) {
      rows.push(...measure(`${provider.name}/${name}/${size}`, () => cipherOf(provider, suite), size));
    }
  }
  return rows;
}

function cipherOf(provider: CryptoProvider, suite: CipherSuite): PacketCipher {
  return provider.packetCipher(suite, {
    encryption: new Uint8Array(suite.encryption.keyLength + suite.encryption.saltLength).fill(7),
    integrity: new Uint8Array(suite.integrity?.keyLength ?? 0).fill(9),
  });
}

/** The median of some rounds. What is put into the batch between the pipelines' turns is not counted. */
function measure(name: string, cipher: () => PacketCipher, size: number): BenchRow[] {
  const { outbound, inbound } = pipelines(cipher);
  const packet = udpPacket(size);
  const batch = new PacketBatch(BATCH, size);
  const sealing: number[] = [];
  const opening: number[] = [];
  // The first round only warms up.
  for (let round = 0; round <= ROUNDS; round++) {
    let sealed = 0;
    let opened = 0;
    let packets = 0;
    while (sealed + opened < ROUND_MS) {
      batch.clear();
      for (let i = 0; i < BATCH; i++) batch.push(packet);
      const start = performance.now();
      outbound.process(start, batch);
      const middle = performance.now();
      inbound.process(middle, batch);
      opened += performance.now() - middle;
      sealed += middle - start;
      packets += BATCH;
    }
    if (batch.length[BATCH - 1] !== size) throw new Error(`bug: ${name} does not carry its packets`);
    if (round === 0) continue;
    sealing.push((sealed / packets) * 1e6);
    opening.push((opened / packets) * 1e6);
  }
  return [
    { name: `seal/${name}`, value: median(sealing), unit: 'ns' },
    { name: `open/${name}`, value: median(opening), unit: 'ns' },
  ];
}

function pipelines(cipher: () => PacketCipher): { outbound: OutboundPipeline; inbound: InboundPipeline } {
  const selectors = { local: [network('10.1.0.0')], remote: [network('10.2.0.0')] };
  const policy = compilePolicy(
    [{ name: 'all', direction: 'out', action: 'protect', priority: 0, level: 'require', selectors }],
    'out',
  );
  const outbound = new OutboundPipeline(policy, { onMissing: () => undefined });
  const sa = { id: 1, spi: SPI, esn: true, limits: UNLIMITED, cipher };
  const compiled = new CompiledSelectors(selectors);
  outbound.add(0, new EspOutboundSa({ ...sa, cipher: cipher(), selectors: compiled, pathIndex: 0 }), { active: true });
  const inbound = new InboundPipeline();
  // What was local there is remote here.
  const mirrored = new CompiledSelectors({ local: selectors.remote, remote: selectors.local });
  inbound.add(new EspInboundSa({ ...sa, cipher: cipher(), selectors: mirrored, tag: 0 }));
  return { outbound, inbound };
}

function network(address: string): TrafficSelector {
  return makeSelector(prefixRange(parseAddress(address)!, 16));
}

function udpPacket(length: number): Uint8Array {
  const packet = new Uint8Array(length).fill(0x5a);
  packet.set([0x45, 0, length >>> 8, length, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1]);
  return packet;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}
