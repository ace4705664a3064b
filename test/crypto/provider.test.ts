import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { concatBytes, toHex } from '../../src/base/bytes.ts';
import {
  dhGroups,
  encryptionAlgorithms,
  encryptionByName,
  integrityAlgorithms,
  integrityByName,
  prfAlgorithms,
} from '../../src/crypto/algorithms.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { combineProviders } from '../../src/crypto/provider.ts';
import type { Algorithm, CryptoProvider } from '../../src/crypto/types.ts';
import { need, providers, seededRandom, suiteKeys } from './support.ts';

const everything: readonly Algorithm[] = [
  ...encryptionAlgorithms,
  ...integrityAlgorithms,
  ...prfAlgorithms,
  ...dhGroups,
];

/** A provider that has only what `has` says, and otherwise is another one. */
function limited(base: CryptoProvider, name: string, has: (algorithm: Algorithm) => boolean): CryptoProvider {
  return { ...base, name, supports: (algorithm) => has(algorithm) && base.supports(algorithm) };
}

describe('support', () => {
  it.each(providers)('is complete in $name', (provider) => {
    expect(everything.filter((algorithm) => !provider.supports(algorithm))).toStrictEqual([]);
  });

  it.each(providers)('is denied for what is not in the table, and its use refused, with $name', (provider) => {
    const unknown = { ...need(encryptionByName('aes128gcm16')), id: 99, keyBits: 512, keyLength: 64 };
    expect(provider.supports(unknown)).toBe(false);
    const keys = { encryption: new Uint8Array(68), integrity: new Uint8Array(0) };
    expect(() => provider.packetCipher({ encryption: unknown, integrity: undefined }, keys)).toThrow(RangeError);
    const unknownPrf = { ...need(prfAlgorithms[0]), id: 99 };
    expect(() => provider.prf(unknownPrf, new Uint8Array(32))).toThrow(/does not support prfsha256/);
    const unknownGroup = { ...need(dhGroups[0]), id: 99 };
    expect(() => provider.dhKeyPair(unknownGroup, seededRandom(1))).toThrow(RangeError);
  });
});

describe('PRFs', () => {
  const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength });

  it.each(prfAlgorithms)('$name is the same with both providers for any key and message', (algorithm) => {
    fc.assert(
      fc.property(bytes(150), fc.array(bytes(70), { maxLength: 4 }), (key, parts) => {
        const node = nodeProvider.prf(algorithm, key).compute(...parts);
        const noble = nobleProvider.prf(algorithm, key).compute(concatBytes(...parts));
        expect(toHex(node)).toBe(toHex(noble));
        expect(node).toHaveLength(algorithm.outputLength);
      }),
      { numRuns: 60 },
    );
  });

  describe.each(providers)('with $name', (provider) => {
    it.each(prfAlgorithms)('$name copies its key, gives new arrays and forgets the key when wiped', (algorithm) => {
      const key = seededRandom(40)(algorithm.keyLength);
      const prf = provider.prf(algorithm, key);
      const first = prf.compute(Uint8Array.of(1));
      const text = toHex(first);
      key.fill(0);
      first.fill(0);
      const second = prf.compute(Uint8Array.of(1));
      expect(toHex(second)).toBe(text);
      // A Buffer's `slice` shares memory; a result must not surprise its owner so.
      expect(Object.getPrototypeOf(second)).toBe(Uint8Array.prototype);
      prf.wipe();
      expect(() => prf.compute(Uint8Array.of(1))).toThrow(/wiped/);
      expect(() => prf.wipe(), 'a second time').not.toThrow();
    });

    it('hashes SHA-1 of parts as of the whole', () => {
      const data = seededRandom(41)(300);
      const whole = createHash('sha1').update(data).digest('hex');
      expect(toHex(provider.sha1(data.subarray(0, 100), data.subarray(100)))).toBe(whole);
    });
  });
});

describe('combined providers', () => {
  const gcmOnly = limited(nodeProvider, 'gcm', (algorithm) => algorithm.name.includes('gcm'));
  const combined = combineProviders(gcmOnly, nobleProvider);

  it('support what any of them supports', () => {
    expect(combined.name).toBe('gcm+noble');
    expect(everything.every((algorithm) => combined.supports(algorithm))).toBe(true);
    const few = combineProviders(gcmOnly);
    expect(few.supports(need(encryptionByName('aes128gcm16')))).toBe(true);
    expect(few.supports(need(encryptionByName('aes128')))).toBe(false);
  });

  it('take the first that has the whole suite', () => {
    const asked: string[] = [];
    const spy = (base: CryptoProvider): CryptoProvider => ({
      ...base,
      packetCipher(suite, keys) {
        asked.push(base.name);
        return base.packetCipher(suite, keys);
      },
    });
    const noMac = limited(nodeProvider, 'no-mac', (algorithm) => algorithm.kind !== 'integrity');
    const joined = combineProviders(spy(noMac), spy(nobleProvider));
    const gcm = { encryption: need(encryptionByName('aes128gcm16')), integrity: undefined };
    const cbc = { encryption: need(encryptionByName('aes128')), integrity: need(integrityByName('sha256')) };
    joined.packetCipher(gcm, suiteKeys(gcm, seededRandom(50)));
    joined.packetCipher(cbc, suiteKeys(cbc, seededRandom(51)));
    expect(asked).toStrictEqual(['no-mac', 'noble']);
  });

  it('name what none of them has', () => {
    const cbc = { encryption: need(encryptionByName('aes128')), integrity: need(integrityByName('sha256')) };
    const few = combineProviders(gcmOnly);
    expect(() => few.packetCipher(cbc, suiteKeys(cbc, seededRandom(52)))).toThrow(/'gcm' does not support aes128 with/);
    expect(() => combineProviders()).toThrow(RangeError);
  });
});
