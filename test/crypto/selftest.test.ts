import { describe, expect, it } from 'vitest';
import { encryptionByName } from '../../src/crypto/algorithms.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { selfTest } from '../../src/crypto/selftest.ts';
import type { CryptoProvider, PacketCipher } from '../../src/crypto/types.ts';
import { nativeProviders, need, providers } from './support.ts';

/** A provider whose packet ciphers are changed in one way. */
function faulty(change: (cipher: PacketCipher) => Partial<PacketCipher>): CryptoProvider {
  return {
    ...nodeProvider,
    packetCipher(suite, keys) {
      const { ivLength, icvLength, blockSize, ...rest } = plain(nodeProvider.packetCipher(suite, keys));
      return { ivLength, icvLength, blockSize, ...rest, ...change(rest as PacketCipher) };
    },
  };
}

/** Its methods bound, so that they can be copied. */
function plain(cipher: PacketCipher): PacketCipher {
  const { ivLength, icvLength, blockSize } = cipher;
  return {
    ivLength,
    icvLength,
    blockSize,
    seal: cipher.seal.bind(cipher),
    open: cipher.open.bind(cipher),
    wipe: cipher.wipe.bind(cipher),
  };
}

describe('the self-test', () => {
  it.each(providers)('is passed by $name', (provider) => {
    expect(selfTest(provider)).toBeUndefined();
  });

  it.each(nativeProviders.filter(({ provider }) => typeof provider !== 'string'))(
    'is passed by $name alone',
    ({ provider }) => {
      expect(selfTest(provider as CryptoProvider)).toBeUndefined();
    },
  );

  it('detects a provider that encrypts wrongly', () => {
    const provider = faulty((cipher) => ({
      seal(...args) {
        cipher.seal(...args);
        const [buffer, , ivAt, dataLength] = args;
        buffer[ivAt + 8 + dataLength + 3]! ^= 1;
      },
    }));
    expect(selfTest(provider)).toMatch(/aes128gcm16: a sealed packet is wrong/);
  });

  it('detects a provider that accepts any packet', () => {
    const provider = faulty((cipher) => ({
      open(...args) {
        cipher.open(...args);
        return true;
      },
    }));
    expect(selfTest(provider)).toMatch(/with byte \d+ changed was opened/);
  });

  it('detects a provider that compares only the start of the ICV', () => {
    const provider = faulty((cipher) => ({
      open(buffer, start, ivAt, dataLength, esnHigh) {
        const copy = Uint8Array.from(buffer);
        if (cipher.open(buffer, start, ivAt, dataLength, esnHigh)) return true;
        copy[ivAt + 8 + dataLength]! ^= 0x40;
        return cipher.open(copy, start, ivAt, dataLength, esnHigh);
      },
    }));
    expect(selfTest(provider)).toMatch(/was opened/);
  });

  it('detects a provider that refuses genuine packets, or does not decrypt', () => {
    expect(selfTest(faulty(() => ({ open: () => false })))).toMatch(/a genuine packet was refused/);
    const lazy = faulty((cipher) => ({
      open(buffer, ...args) {
        return cipher.open(Uint8Array.from(buffer), ...args);
      },
    }));
    expect(selfTest(lazy)).toMatch(/an opened packet is wrong/);
  });

  it('tests every size of ICV that the provider has', () => {
    const asked: string[] = [];
    const provider: CryptoProvider = {
      ...nodeProvider,
      supports: (algorithm) => algorithm.name.startsWith('aes256gcm'),
      packetCipher(suite, keys) {
        asked.push(suite.encryption.name);
        return nodeProvider.packetCipher(suite, keys);
      },
    };
    expect(selfTest(provider)).toBeUndefined();
    expect(asked).toStrictEqual(['aes256gcm16', 'aes256gcm12', 'aes256gcm8']);
  });

  it('is not passed by having nothing to test', () => {
    const only = need(encryptionByName('null'));
    expect(selfTest({ ...nodeProvider, supports: (algorithm) => algorithm === only })).toMatch(/supports no algorithm/);
  });
});
