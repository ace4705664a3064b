/**
 * Shows at start that a provider does what it claims, before keys are entrusted to it: fixed packets must come out as
 * they should, open again, and be refused when a bit is changed.
 *
 * An ICV stands for its whole packet, since it is computed from the ciphertext (RFC 4106, RFC 7634, RFC 4303). The
 * expected values are those on which the `node` and `noble` providers agree, which published vectors are tested with.
 */
import { equalBytes, fromHex } from '../base/bytes.ts';
import { encryptionByName, integrityByName } from './algorithms.ts';
import type { CipherSuite, CryptoProvider, PacketCipher } from './types.ts';

/** ICVs of a short packet without ESN and of a long one with it. */
interface SelfTestVector {
  readonly encryption: string;
  readonly integrity?: string;
  readonly short: string;
  readonly long: string;
}

const vectors: readonly SelfTestVector[] = [
  { encryption: 'aes128gcm16', short: '520cd0a9a17035fa206c2e6fe542c93e', long: 'c87a5a9b2c4106e8c72d0b77dad43abf' },
  { encryption: 'aes192gcm16', short: '99ad7a7b57c6019ca4890f331cf56dd9', long: 'caaeb43fad37cc843aaf9b8c6023a782' },
  { encryption: 'aes256gcm16', short: '8c99d4495c2f288aa609f98995710461', long: '90fde588d25a8a78cde5333ee78fca00' },
  {
    encryption: 'chacha20poly1305',
    short: '223808cd1a4f52fa2990372f902db1a1',
    long: '8b196a03c6ff9faa17ace3f264ef4aed',
  },
  { encryption: 'aes128ccm16', short: 'd032d3260e3e1cad5497437932ad55fb', long: 'e13d527be167da4015d834ef78123bed' },
  { encryption: 'aes256ccm16', short: 'ffa7706995654b55bf0654fc2f8272dc', long: '6c83dfd5531235eb59e995c6697c5d01' },
  {
    encryption: 'aes128',
    integrity: 'sha256',
    short: 'ddbb17671d6457e40ec89f3f59e63716',
    long: '8bc3bf2f0a9a94449956e508377acd6d',
  },
  {
    encryption: 'aes192',
    integrity: 'sha384',
    short: '5c7cebc2cabd319c5186bd500836324955f449c93af25ddf',
    long: '784e3958bd2866953cc33c5e98003f959e3c2fcdd236d3ae',
  },
  {
    encryption: 'aes256',
    integrity: 'sha512',
    short: 'd5a1567b2644db4ef1deb4102a921b795ae9bca3a16c74714ab290c998ee3d35',
    long: '63dfab754ca9cf306c4846d189dc784962f5fd546156d5f5b8b1058c7f144b33',
  },
  { encryption: 'aes128', integrity: 'sha1', short: '1030030789370f477e39d7e8', long: 'a8bc6e26a749b6b448e21a3d' },
  {
    encryption: 'aes128ctr',
    integrity: 'sha256',
    short: 'badc854bec668069323387b2d6b3eba4',
    long: '5ab64d7a47ac48a46808d242c6fe6402',
  },
  {
    encryption: 'aes192ctr',
    integrity: 'aesxcbc',
    short: '9891e4a5a330b2a9450a7d38',
    long: '890da8913e0487d9e9da75f7',
  },
  {
    encryption: 'aes256ctr',
    integrity: 'aescmac',
    short: '4fa3d83f7f5a2b775b747bb5',
    long: '26d1ebed32d1720f9ade8208',
  },
];

/** One or a few blocks, and more than the widest vector code takes in one turn. */
const SHORT = 48;
const LONG = 1488;
/** SPI and sequence number. */
const HEADER = 8;
/** An odd offset: nothing may count on alignment. */
const START = 3;
const COUNTER_HIGH = 0x01234567;
const COUNTER_LOW = 0x89abcdef;
const ESN_HIGH = 7;

/** What is wrong with the provider; `undefined` when nothing is. */
export function selfTest(provider: CryptoProvider): string | undefined {
  let tested = 0;
  for (const vector of vectors) {
    for (const suite of suitesOf(vector)) {
      if (!supportsSuite(provider, suite)) continue;
      tested++;
      const failure = testSuite(provider, suite, vector);
      if (failure !== undefined) return `self-test of ${suite.encryption.name}: ${failure}`;
    }
  }
  return tested === 0 ? 'self-test: it supports no algorithm that could be tested' : undefined;
}

/** The suite of the vector, and for GCM those with shorter ICVs, which are the front of the whole one. */
function suitesOf({ encryption, integrity }: SelfTestVector): CipherSuite[] {
  const names = encryption.endsWith('gcm16')
    ? ['16', '12', '8'].map((icv) => encryption.replace(/16$/, icv))
    : [encryption];
  return names.flatMap((name) => {
    const found = encryptionByName(name);
    const mac = integrity === undefined ? undefined : integrityByName(integrity);
    return found === undefined ? [] : [{ encryption: found, integrity: mac }];
  });
}

function supportsSuite(provider: CryptoProvider, { encryption, integrity }: CipherSuite): boolean {
  return provider.supports(encryption) && (integrity === undefined || provider.supports(integrity));
}

function testSuite(provider: CryptoProvider, suite: CipherSuite, vector: SelfTestVector): string | undefined {
  const cipher = provider.packetCipher(suite, {
    encryption: pattern(suite.encryption.keyLength + suite.encryption.saltLength, 1),
    integrity: pattern(suite.integrity?.keyLength ?? 0, 101),
  });
  try {
    // The long one first: nothing of it may be left over in the short one.
    return (
      testPacket(cipher, LONG, ESN_HIGH, fromHex(vector.long)) ?? testPacket(cipher, SHORT, -1, fromHex(vector.short))
    );
  } finally {
    cipher.wipe();
  }
}

/** @param expected the ICV, of which the cipher may have only the front */
function testPacket(
  cipher: PacketCipher,
  dataLength: number,
  esnHigh: number,
  expected: Uint8Array,
): string | undefined {
  const ivAt = START + HEADER;
  const dataAt = ivAt + cipher.ivLength;
  const icvAt = dataAt + dataLength;
  const plain = pattern(icvAt + cipher.icvLength, 11);
  const sealed = Uint8Array.from(plain);
  cipher.seal(sealed, START, ivAt, dataLength, COUNTER_HIGH, COUNTER_LOW, esnHigh);
  if (!equalBytes(sealed.subarray(icvAt), expected.subarray(0, cipher.icvLength))) return 'a sealed packet is wrong';
  for (const at of dataLength === SHORT ? [START, ivAt, dataAt, icvAt] : [icvAt - 1]) {
    const tampered = Uint8Array.from(sealed);
    tampered[at]! ^= 0x40;
    if (cipher.open(tampered, START, ivAt, dataLength, esnHigh)) return `a packet with byte ${at} changed was opened`;
  }
  const opened = Uint8Array.from(sealed);
  if (!cipher.open(opened, START, ivAt, dataLength, esnHigh)) return 'a genuine packet was refused';
  if (!equalBytes(opened.subarray(dataAt, icvAt), plain.subarray(dataAt, icvAt))) return 'an opened packet is wrong';
  return undefined;
}

function pattern(length: number, step: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i * step + (i >>> 3));
}
