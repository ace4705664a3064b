import { describe, expect, it } from 'vitest';
import { toHex } from '../../src/base/bytes.ts';
import { encryptionByName, integrityByName } from '../../src/crypto/algorithms.ts';
import { nobleAead } from '../../src/crypto/noble/ciphers.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeAead } from '../../src/crypto/node/ciphers.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { Aead } from '../../src/crypto/packet.ts';
import type { CipherSuite, CryptoProvider, PacketCipher } from '../../src/crypto/types.ts';
import { allSuites, need, packetLength, providers, seededRandom, suiteKeys, suiteName } from './support.ts';

const named = allSuites.map((suite) => ({ name: suiteName(suite), suite }));

/** Without ESN, at the start of ESN, and with all its bits. */
const esnHighs = [-1, 0, 0xffffffff];

/** Lengths of data in blocks of the cipher. */
function dataLengths(cipher: PacketCipher): number[] {
  return [0, 1, 2, 3, 5, 16, 88].map((blocks) => blocks * Math.max(cipher.blockSize, 4));
}

/** What the others are compared with, and what is compared. */
const compared = providers.filter((provider) => provider !== nobleProvider);

function pair(
  provider: CryptoProvider,
  suite: CipherSuite,
  seed: number,
): { cipher: PacketCipher; noble: PacketCipher } {
  const keys = suiteKeys(suite, seededRandom(seed));
  return { cipher: provider.packetCipher(suite, keys), noble: nobleProvider.packetCipher(suite, keys) };
}

describe.each(named)('$name', ({ suite }) => {
  it.each(compared)('gives the same packet with $name as with noble, and each opens the other’s', (provider) => {
    const { cipher, noble } = pair(provider, suite, 1);
    const random = seededRandom(2);
    let counter = 0;
    for (const esnHigh of esnHighs) {
      for (const length of dataLengths(cipher)) {
        const a = random(packetLength(cipher, 8, length));
        const b = Uint8Array.from(a);
        const dataAt = 8 + cipher.ivLength;
        const plaintext = toHex(a.subarray(dataAt, dataAt + length));
        counter++;
        cipher.seal(a, 0, 8, length, 0xfedcba98, counter, esnHigh);
        noble.seal(b, 0, 8, length, 0xfedcba98, counter, esnHigh);
        expect(toHex(a)).toBe(toHex(b));
        expect(noble.open(a, 0, 8, length, esnHigh)).toBe(true);
        expect(cipher.open(b, 0, 8, length, esnHigh)).toBe(true);
        expect(toHex(a.subarray(dataAt, dataAt + length))).toBe(plaintext);
        expect(toHex(b.subarray(dataAt, dataAt + length))).toBe(plaintext);
      }
    }
  });

  it.each(compared)('works anywhere in a buffer and touches nothing around the packet, with $name', (provider) => {
    const { cipher, noble } = pair(provider, suite, 3);
    const length = 3 * Math.max(cipher.blockSize, 4);
    const inner = packetLength(cipher, 33, length);
    // An odd start, as behind an IKE header, and associated data that are not those of ESP.
    const original = seededRandom(4)(inner + 20);
    const a = Uint8Array.from(original);
    const b = Uint8Array.from(original);
    cipher.seal(a, 7, 40, length, 0, 9, -1);
    noble.seal(b, 7, 40, length, 0, 9, -1);
    expect(toHex(a)).toBe(toHex(b));
    expect(toHex(a.subarray(0, 40))).toBe(toHex(original.subarray(0, 40)));
    expect(toHex(a.subarray(7 + inner))).toBe(toHex(original.subarray(7 + inner)));
    expect(cipher.open(b, 7, 40, length, -1)).toBe(true);
    expect(noble.open(a, 7, 40, length, -1)).toBe(true);
    expect(toHex(a)).toBe(toHex(b));
  });

  it.each(providers)('refuses a packet with any byte changed, with $name', (provider) => {
    const cipher = provider.packetCipher(suite, suiteKeys(suite, seededRandom(5)));
    const length = 2 * Math.max(cipher.blockSize, 4);
    const sealed = seededRandom(6)(packetLength(cipher, 8, length));
    cipher.seal(sealed, 0, 8, length, 0, 1, 3);
    for (let at = 0; at < sealed.length; at++) {
      const tampered = Uint8Array.from(sealed);
      tampered[at]! ^= 1 << (at % 8);
      expect(cipher.open(tampered, 0, 8, length, 3), `byte ${at}`).toBe(false);
    }
    expect(cipher.open(Uint8Array.from(sealed), 0, 8, length, 2)).toBe(false);
    expect(cipher.open(Uint8Array.from(sealed), 0, 8, length, -1)).toBe(false);
    // After all the refusals the right one still opens: no state was spoiled.
    expect(cipher.open(sealed, 0, 8, length, 3)).toBe(true);
  });

  it.each(providers)('refuses lengths that cannot be, without an exception, with $name', (provider) => {
    const cipher = provider.packetCipher(suite, suiteKeys(suite, seededRandom(7)));
    const length = 2 * Math.max(cipher.blockSize, 4);
    const buffer = new Uint8Array(packetLength(cipher, 8, length));
    expect(cipher.open(buffer, 0, 8, length + cipher.blockSize, -1)).toBe(false);
    expect(cipher.open(buffer, 0, 8, -cipher.blockSize, -1)).toBe(false);
    expect(cipher.open(buffer, 8, 0, length, -1)).toBe(false);
    if (cipher.blockSize > 1) expect(cipher.open(buffer, 0, 8, length - 1, -1)).toBe(false);
    expect(() => cipher.seal(buffer, 0, 8, length + cipher.blockSize, 0, 1, -1)).toThrow(/no room/);
  });
});

describe('the IV', () => {
  const cbc = { encryption: need(encryptionByName('aes128')), integrity: need(integrityByName('sha256')) };
  const gcm = { encryption: need(encryptionByName('aes128gcm16')), integrity: undefined };

  it.each(providers)('of an AEAD is the counter, with $name', (provider) => {
    const cipher = provider.packetCipher(gcm, suiteKeys(gcm, seededRandom(8)));
    const buffer = new Uint8Array(packetLength(cipher, 8, 4));
    cipher.seal(buffer, 0, 8, 4, 0x01020304, 0xf5f6f7f8, -1);
    expect(toHex(buffer.subarray(8, 16))).toBe('01020304f5f6f7f8');
  });

  it.each(providers)('of CBC depends on the counter alone and does not show it, with $name', (provider) => {
    const cipher = provider.packetCipher(cbc, suiteKeys(cbc, seededRandom(9)));
    const ivOf = (counter: number, fill: number): string => {
      const buffer = new Uint8Array(packetLength(cipher, 8, 16)).fill(fill);
      cipher.seal(buffer, 0, 8, 16, 0, counter, -1);
      return toHex(buffer.subarray(8, 24));
    };
    const first = ivOf(1, 0xaa);
    expect(ivOf(2, 0xaa)).not.toBe(first);
    expect(ivOf(1, 0x55)).toBe(first);
    expect(first).not.toContain('0000000000000001');
  });
});

describe('keys', () => {
  it.each(providers)('are copied, so that the caller may wipe his own at once, with $name', (provider) => {
    for (const suite of allSuites) {
      const keys = suiteKeys(suite, seededRandom(10));
      const cipher = provider.packetCipher(suite, keys);
      const other = provider.packetCipher(suite, suiteKeys(suite, seededRandom(10)));
      keys.encryption.fill(0);
      keys.integrity.fill(0);
      const length = 2 * Math.max(cipher.blockSize, 4);
      const buffer = new Uint8Array(packetLength(cipher, 8, length));
      cipher.seal(buffer, 0, 8, length, 0, 1, -1);
      expect(other.open(buffer, 0, 8, length, -1), suiteName(suite)).toBe(true);
    }
  });

  it.each(providers)('given in a Buffer stay as they are, with $name', (provider) => {
    const suite = { encryption: need(encryptionByName('aes128gcm16')), integrity: undefined };
    const encryption = Buffer.from(suiteKeys(suite, seededRandom(11)).encryption);
    const before = encryption.toString('hex');
    provider.packetCipher(suite, { encryption, integrity: Buffer.alloc(0) }).wipe();
    expect(encryption.toString('hex')).toBe(before);
  });

  it.each(providers)('are gone after wipe: nothing is opened or sealed any more, with $name', (provider) => {
    for (const suite of allSuites) {
      const cipher = provider.packetCipher(suite, suiteKeys(suite, seededRandom(12)));
      const length = 2 * Math.max(cipher.blockSize, 4);
      const buffer = new Uint8Array(packetLength(cipher, 8, length));
      cipher.seal(buffer, 0, 8, length, 0, 1, -1);
      cipher.wipe();
      expect(cipher.open(buffer, 0, 8, length, -1), suiteName(suite)).toBe(false);
      expect(() => cipher.seal(buffer, 0, 8, length, 0, 2, -1), suiteName(suite)).toThrow(/wiped/);
      expect(() => cipher.wipe(), 'a second time').not.toThrow();
    }
  });

  it.each([
    ['node', nodeAead],
    ['noble', nobleAead],
  ] as const)('are overwritten by wipe, so that below the guard only zeros are left, with %s', (_, make) => {
    const algorithm = need(encryptionByName('aes128gcm16'));
    const sealWith = (aead: Aead): string => {
      const buffer = new Uint8Array(32);
      aead.seal(new Uint8Array(12), new Uint8Array(8), buffer, 0, 16);
      return toHex(buffer);
    };
    const aead = make(algorithm, seededRandom(14)(16));
    const zeros = sealWith(make(algorithm, new Uint8Array(16)));
    expect(sealWith(aead)).not.toBe(zeros);
    aead.wipe();
    expect(sealWith(aead)).toBe(zeros);
  });

  it.each(providers)('of the wrong length are a bug of ours, with $name', (provider) => {
    const suite = { encryption: need(encryptionByName('aes128gcm16')), integrity: undefined };
    const integrity = new Uint8Array(0);
    expect(() => provider.packetCipher(suite, { encryption: new Uint8Array(16), integrity })).toThrow(/wrong length/);
    expect(() => provider.packetCipher(suite, { encryption: new Uint8Array(20), integrity: Uint8Array.of(1) })).toThrow(
      /wrong length/,
    );
  });

  it('truncated ICVs are the front of the whole one', () => {
    const sealWith = (name: string): string => {
      const suite = { encryption: need(encryptionByName(name)), integrity: undefined };
      const cipher = nodeProvider.packetCipher(suite, suiteKeys(suite, seededRandom(13)));
      const buffer = new Uint8Array(packetLength(cipher, 8, 20));
      cipher.seal(buffer, 0, 8, 20, 0, 1, -1);
      return toHex(buffer);
    };
    const whole = sealWith('aes256gcm16');
    expect(whole.startsWith(sealWith('aes256gcm12'))).toBe(true);
    expect(whole.startsWith(sealWith('aes256gcm8'))).toBe(true);
  });
});
