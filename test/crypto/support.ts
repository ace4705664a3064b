import { readFileSync } from 'node:fs';
import { invariant } from '../../src/base/assert.ts';
import { fromHex } from '../../src/base/bytes.ts';
import { encryptionAlgorithms, integrityAlgorithms } from '../../src/crypto/algorithms.ts';
import { openIpsecMbProvider } from '../../src/crypto/ipsec-mb/provider.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { openOpensslProvider } from '../../src/crypto/openssl/provider.ts';
import { combineProviders, ProviderUnavailableError } from '../../src/crypto/provider.ts';
import type { CipherSuite, CryptoProvider, PacketCipher, RandomSource } from '../../src/crypto/types.ts';

/** The providers by FFI; for one that this machine lacks, why. */
export const nativeProviders: readonly { readonly name: string; readonly provider: CryptoProvider | string }[] = [
  { name: 'openssl', provider: openOr(openOpensslProvider) },
  { name: 'ipsec-mb', provider: openOr(openIpsecMbProvider) },
];

function openOr(open: () => CryptoProvider): CryptoProvider | string {
  try {
    return open();
  } catch (error) {
    if (error instanceof ProviderUnavailableError) return error.message;
    throw error;
  }
}

/** All that this machine has, each with every algorithm: `node` stands behind those by FFI as it does in the daemon. */
export const providers: readonly CryptoProvider[] = [
  nodeProvider,
  nobleProvider,
  ...nativeProviders.flatMap(({ provider }) =>
    typeof provider === 'string' ? [] : [combineProviders(provider, nodeProvider)],
  ),
];

/** The `cases` (or another list) of a file in `vectors/`. */
export function vectors<T>(file: string, list = 'cases'): readonly T[] {
  const content: unknown = JSON.parse(readFileSync(new URL(`../../vectors/${file}`, import.meta.url), 'utf8'));
  const found = (content as Record<string, readonly T[]>)[list];
  invariant(found !== undefined && found.length > 0, `vectors/${file} has ${list}`);
  return found;
}

/** The value, which the test says is there. */
export function need<T>(value: T | undefined): T {
  invariant(value !== undefined, 'a test looked for something that is not there');
  return value;
}

/** A small generator (mulberry32), so that every run draws the same bytes. */
export function seededRandom(seed: number): RandomSource {
  let state = seed >>> 0;
  return (length) => {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      bytes[i] = (mixed ^ (mixed >>> 14)) & 0xff;
    }
    return bytes;
  };
}

/** A source that gives one prepared private key, as the published vectors have it. */
export function fixedRandom(hex: string): RandomSource {
  return (length) => {
    const key = fromHex(hex);
    invariant(key.length === length, `a private key of ${length} bytes is asked for, the vector has ${key.length}`);
    return key;
  };
}

/** Every AEAD, and every other cipher with every integrity algorithm. */
export const allSuites: readonly CipherSuite[] = encryptionAlgorithms.flatMap((encryption): CipherSuite[] =>
  encryption.aead
    ? [{ encryption, integrity: undefined }]
    : integrityAlgorithms.map((integrity) => ({ encryption, integrity })),
);

export function suiteName({ encryption, integrity }: CipherSuite): string {
  return integrity === undefined ? encryption.name : `${encryption.name}-${integrity.name}`;
}

export function suiteKeys(
  { encryption, integrity }: CipherSuite,
  random: RandomSource,
): { encryption: Uint8Array; integrity: Uint8Array } {
  return {
    encryption: random(encryption.keyLength + encryption.saltLength),
    integrity: random(integrity?.keyLength ?? 0),
  };
}

/** Room for a packet: `front` bytes of associated data, IV, data, ICV. */
export function packetLength(cipher: PacketCipher, front: number, dataLength: number): number {
  return front + cipher.ivLength + dataLength + cipher.icvLength;
}
