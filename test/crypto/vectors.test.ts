import { describe, expect, it } from 'vitest';
import { concatBytes, fromHex, readU32, toHex } from '../../src/base/bytes.ts';
import { dhGroupByName, encryptionByName, integrityByName, prfByName } from '../../src/crypto/algorithms.ts';
import type { CryptoProvider, PacketCipher } from '../../src/crypto/types.ts';
import { fixedRandom, need, providers, vectors } from './support.ts';

interface EspCase {
  readonly id: string;
  readonly encryption: string;
  readonly key: string;
  readonly salt: string;
  readonly spi: string;
  readonly esn: boolean;
  readonly seqHigh: string | null;
  readonly seqLow: string;
  readonly iv: string;
  readonly plaintextWithTrailer: string;
  readonly packet: string;
}

interface AeadCase {
  readonly id: string;
  readonly encryption: string;
  readonly key: string;
  readonly salt: string;
  readonly iv: string;
  readonly aad: string;
  readonly plaintext: string;
  readonly ciphertext: string;
  readonly icv: string;
}

interface IkeCase {
  readonly id: string;
  readonly encryption: string;
  readonly key: string;
  readonly salt: string;
  readonly iv: string;
  readonly message: string;
  readonly plaintextWithPadding: string;
}

interface CbcCase {
  readonly id: string;
  readonly encryption: string;
  readonly key: string;
  readonly plaintextWithTrailer: string;
  readonly packet: string;
}

interface CtrCase {
  readonly id: string;
  readonly encryption: string;
  readonly key: string;
  readonly nonce: string;
  readonly iv: string;
  readonly plaintext: string;
  readonly ciphertext: string;
}

interface PrfCase {
  readonly id: string;
  readonly prf: string;
  readonly key: string;
  readonly data: string;
  readonly output: string;
}

interface IntegrityCase {
  readonly id: string;
  readonly integrity: string;
  readonly key: string;
  readonly data: string;
  readonly icv: string;
}

interface SkeyseedCase {
  readonly id: string;
  readonly prf: string;
  readonly sharedSecret: string;
  readonly nonces: string;
  readonly skeyseed: string;
}

interface DhCase {
  readonly id: string;
  readonly group: string;
  readonly privateA: string;
  readonly publicA: string;
  readonly privateB: string;
  readonly publicB: string;
  readonly shared: string;
}

function aeadCipher(provider: CryptoProvider, name: string, keyHex: string): PacketCipher {
  const encryption = need(encryptionByName(name));
  const keys = { encryption: fromHex(keyHex), integrity: new Uint8Array(0) };
  return provider.packetCipher({ encryption, integrity: undefined }, keys);
}

/** Seals the plaintext behind `front` with the IV of the vector, and expects the whole packet; then opens it again. */
function expectSealAndOpen(
  cipher: PacketCipher,
  front: Uint8Array,
  iv: Uint8Array,
  plaintext: Uint8Array,
  packet: string,
  esnHigh: number,
): void {
  const { length } = plaintext;
  const buffer = concatBytes(front, new Uint8Array(cipher.ivLength), plaintext, new Uint8Array(cipher.icvLength));
  cipher.seal(buffer, 0, front.length, length, readU32(iv, 0), readU32(iv, 4), esnHigh);
  expect(toHex(buffer)).toBe(packet);
  expect(cipher.open(buffer, 0, front.length, length, esnHigh)).toBe(true);
  const dataAt = front.length + cipher.ivLength;
  expect(toHex(buffer.subarray(dataAt, dataAt + length))).toBe(toHex(plaintext));
}

describe.each(providers)('published vectors with $name', (provider) => {
  it.each(vectors<EspCase>('esp-aead.json'))('ESP packet $id', (vector) => {
    const cipher = aeadCipher(provider, vector.encryption, vector.key + vector.salt);
    const front = fromHex(vector.spi + vector.seqLow);
    const esnHigh = vector.esn ? Number.parseInt(need(vector.seqHigh ?? undefined), 16) : -1;
    const plaintext = fromHex(vector.plaintextWithTrailer);
    expectSealAndOpen(cipher, front, fromHex(vector.iv), plaintext, vector.packet, esnHigh);
  });

  it.each(vectors<AeadCase>('aead.json'))('AEAD $id', (vector) => {
    const cipher = aeadCipher(provider, vector.encryption, vector.key + vector.salt);
    const packet = vector.aad + vector.iv + vector.ciphertext + vector.icv;
    expectSealAndOpen(cipher, fromHex(vector.aad), fromHex(vector.iv), fromHex(vector.plaintext), packet, -1);
  });

  it.each(vectors<IkeCase>('ike-rfc7634.json'))('SK payload $id', (vector) => {
    const cipher = aeadCipher(provider, vector.encryption, vector.key + vector.salt);
    const plaintext = fromHex(vector.plaintextWithPadding);
    const message = fromHex(vector.message);
    const ivAt = message.length - cipher.icvLength - plaintext.length - cipher.ivLength;
    expectSealAndOpen(cipher, message.slice(0, ivAt), fromHex(vector.iv), plaintext, vector.message, -1);
  });

  // The figures have no integrity, so an ICV made with a PRF (tested below) is added.
  it.each(vectors<CbcCase>('esp-cbc.json'))('ESP packet $id', (vector) => {
    const encryption = need(encryptionByName(vector.encryption));
    const integrity = need(integrityByName('sha256'));
    const macKey = new Uint8Array(32).fill(7);
    const cipher = provider.packetCipher(
      { encryption, integrity },
      { encryption: fromHex(vector.key), integrity: macKey },
    );
    const packet = fromHex(vector.packet);
    const icv = provider
      .prf(need(prfByName('prfsha256')), macKey)
      .compute(packet)
      .subarray(0, cipher.icvLength);
    const buffer = concatBytes(packet, icv);
    const plaintext = fromHex(vector.plaintextWithTrailer);
    expect(cipher.open(buffer, 0, 8, plaintext.length, -1)).toBe(true);
    expect(toHex(buffer.subarray(24, 24 + plaintext.length))).toBe(vector.plaintextWithTrailer);
  });

  it.each(vectors<CtrCase>('aes-ctr.json'))('AES-CTR $id', (vector) => {
    const encryption = need(encryptionByName(vector.encryption));
    const integrity = need(integrityByName('sha256'));
    const keys = { encryption: fromHex(vector.key + vector.nonce), integrity: new Uint8Array(32) };
    const cipher = provider.packetCipher({ encryption, integrity }, keys);
    const plaintext = fromHex(vector.plaintext);
    const iv = fromHex(vector.iv);
    const buffer = concatBytes(new Uint8Array(16), plaintext, new Uint8Array(cipher.icvLength));
    cipher.seal(buffer, 0, 8, plaintext.length, readU32(iv, 0), readU32(iv, 4), -1);
    expect(toHex(buffer.subarray(8, 16 + plaintext.length))).toBe(vector.iv + vector.ciphertext);
  });

  const prfCases = [...vectors<PrfCase>('hmac.json', 'prf'), ...vectors<PrfCase>('aes-prf.json', 'prf')];
  it.each(prfCases)('PRF $id', (vector) => {
    const prf = provider.prf(need(prfByName(vector.prf)), fromHex(vector.key));
    const data = fromHex(vector.data);
    expect(toHex(prf.compute(data))).toBe(vector.output);
    expect(toHex(prf.compute(data.subarray(0, 5), data.subarray(5)))).toBe(vector.output);
    expect(prf.outputLength).toBe(vector.output.length / 2);
  });

  // With the NULL cipher an ICV covers the associated data alone.
  it.each(vectors<IntegrityCase>('integrity.json'))('integrity $id', (vector) => {
    const encryption = need(encryptionByName('null'));
    const integrity = need(integrityByName(vector.integrity));
    const keys = { encryption: new Uint8Array(0), integrity: fromHex(vector.key) };
    const cipher = provider.packetCipher({ encryption, integrity }, keys);
    const data = fromHex(vector.data);
    const buffer = concatBytes(data, new Uint8Array(cipher.icvLength));
    cipher.seal(buffer, 0, data.length, 0, 0, 0, -1);
    expect(toHex(buffer.subarray(data.length))).toBe(vector.icv);
  });

  it.each(vectors<SkeyseedCase>('ikev2-kdf.json', 'skeyseed'))('IKEv2 $id', (vector) => {
    const prf = provider.prf(need(prfByName(vector.prf.replace('hmac-', 'prf'))), fromHex(vector.nonces));
    expect(toHex(prf.compute(fromHex(vector.sharedSecret)))).toBe(vector.skeyseed);
  });

  it.each(vectors<DhCase>('dh.json'))('key exchange $id', (vector) => {
    const group = need(dhGroupByName(vector.group));
    const a = provider.dhKeyPair(group, fixedRandom(vector.privateA));
    const b = provider.dhKeyPair(group, fixedRandom(vector.privateB));
    expect(toHex(a.publicValue)).toBe(vector.publicA);
    expect(toHex(b.publicValue)).toBe(vector.publicB);
    expect(toHex(a.derive(fromHex(vector.publicB)))).toBe(vector.shared);
    expect(toHex(b.derive(fromHex(vector.publicA)))).toBe(vector.shared);
  });

  it('SHA-1 of FIPS 180 "abc"', () => {
    const digest = provider.sha1(Uint8Array.of(0x61), Uint8Array.of(0x62, 0x63));
    expect(toHex(digest)).toBe('a9993e364706816aba3e25717850c26c9cd0d89d');
  });
});
