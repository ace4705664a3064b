/** Published ESP packets, through the SAs that carry real ones. */

import { createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { fromHex, readU32, toHex } from '../../src/base/bytes.ts';
import { MIN_ESP_SPI } from '../../src/base/spi.ts';
import { encryptionByName, integrityByName } from '../../src/crypto/algorithms.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { CryptoProvider, PacketCipher } from '../../src/crypto/types.ts';
import { payloadLengthOf, writeEspHeader, writeTrailer } from '../../src/esp/packet.ts';
import { Flow } from '../../src/policy/flow.ts';
import { FragmentTracker } from '../../src/policy/fragments.ts';
import aeadVectors from '../../vectors/esp-aead.json' with { type: 'json' };
import cbcVectors from '../../vectors/esp-cbc.json' with { type: 'json' };
import { batchOf, inboundSa, outboundSa, reasonName } from './support.ts';

/** The vectors' IVs are not their sequence numbers, as ours are: seals with the IV of the vector. */
class GivenIv implements PacketCipher {
  readonly ivLength: number;
  readonly icvLength: number;
  readonly blockSize: number;
  readonly #cipher: PacketCipher;
  readonly #iv: Uint8Array;

  constructor(cipher: PacketCipher, iv: Uint8Array) {
    this.ivLength = cipher.ivLength;
    this.icvLength = cipher.icvLength;
    this.blockSize = cipher.blockSize;
    this.#cipher = cipher;
    this.#iv = iv;
  }

  seal(
    buffer: Uint8Array,
    start: number,
    ivAt: number,
    dataLength: number,
    _counterHigh: number,
    _counterLow: number,
    esnHigh: number,
  ): void {
    const [high, low] = [readU32(this.#iv, 0), readU32(this.#iv, 4)];
    this.#cipher.seal(buffer, start, ivAt, dataLength, high, low, esnHigh);
  }

  open(buffer: Uint8Array, start: number, ivAt: number, dataLength: number, esnHigh: number): boolean {
    return this.#cipher.open(buffer, start, ivAt, dataLength, esnHigh);
  }

  wipe(): void {
    this.#cipher.wipe();
  }
}

type AeadVector = (typeof aeadVectors.cases)[number];

function aead(provider: CryptoProvider, vector: AeadVector): PacketCipher {
  return provider.packetCipher(
    { encryption: encryptionByName(vector.encryption)!, integrity: undefined },
    { encryption: fromHex(vector.key + vector.salt), integrity: new Uint8Array(0) },
  );
}

describe.each([nodeProvider, nobleProvider])('$name', (provider) => {
  it.each(aeadVectors.cases)('seals $id', (vector) => {
    const cipher = new GivenIv(aead(provider, vector), fromHex(vector.iv));
    const plaintext = fromHex(vector.plaintextWithTrailer);
    const payload = plaintext.subarray(0, payloadLengthOf(plaintext, 0, plaintext.length));
    const nextHeader = plaintext[plaintext.length - 1]!;
    const spi = Number.parseInt(vector.spi, 16);
    const sequence = BigInt(`0x${vector.seqHigh ?? ''}${vector.seqLow}`);
    const batch = new PacketBatch(1, 1500);
    batch.claim(payload.length);
    batch.buffer.set(payload, batch.offset[0]!);
    if (spi >= MIN_ESP_SPI) {
      const sa = outboundSa({ spi, cipher, esn: vector.esn, lastSequence: sequence - 1n });
      expect(reasonName(sa.encapsulate(0, batch, 0, nextHeader))).toBe('none');
      expect(toHex(batch.packet(0))).toBe(vector.packet);
    } else {
      const at = batch.offset[0]!;
      const [start, low] = [at - 8 - cipher.ivLength, Number(sequence)];
      writeEspHeader(batch.buffer, start, spi, low);
      writeTrailer(batch.buffer, at + payload.length, at + plaintext.length, nextHeader);
      cipher.seal(batch.buffer, start, start + 8, plaintext.length, 0, low, vector.esn ? 0 : -1);
      expect(toHex(batch.buffer.subarray(at - 16, at - 16 + vector.packet.length / 2))).toBe(vector.packet);
    }
  });

  it.each(aeadVectors.cases.filter((vector) => Number.parseInt(vector.spi, 16) >= MIN_ESP_SPI))(
    'opens $id',
    (vector) => {
      const plaintext = fromHex(vector.plaintextWithTrailer);
      const sequence = BigInt(`0x${vector.seqHigh ?? ''}${vector.seqLow}`);
      const sa = inboundSa({ spi: Number.parseInt(vector.spi, 16), cipher: aead(provider, vector), esn: vector.esn });
      const before = sequence - 1n;
      sa.replay.accept(Number(before >> 32n), Number(before & 0xffff_ffffn));
      const packet = fromHex(vector.packet);
      const batch = batchOf(packet);
      const reason = sa.open(0, batch, 0, new Flow(), new FragmentTracker());
      expect(sa.authenticated).toBe(true);
      expect(sa.replay.highest).toBe(sequence);
      const at = batch.offset[0]!;
      expect(toHex(batch.buffer.subarray(at, at + plaintext.length))).toBe(vector.plaintextWithTrailer);
      // Most have next header 1, which tunnel mode does not carry.
      expect(reasonName(reason)).toBe(plaintext[plaintext.length - 1] === 4 ? 'none' : 'bad-next-header');
      const again = batchOf(packet);
      expect(reasonName(sa.open(0, again, 0, new Flow(), new FragmentTracker()))).toBe('replay');
    },
  );

  it.each(cbcVectors.cases)('opens $id', (vector) => {
    const integrity = integrityByName('sha256')!;
    const macKey = new Uint8Array(integrity.keyLength).fill(0x55);
    const cipher = provider.packetCipher(
      { encryption: encryptionByName('aes128')!, integrity },
      { encryption: fromHex(vector.key), integrity: macKey },
    );
    // The vectors have no ICV: any will do.
    const bare = fromHex(vector.packet);
    const icv = createHmac('sha256', macKey).update(bare).digest().subarray(0, integrity.icvLength);
    const batch = batchOf(Uint8Array.from([...bare, ...icv]));
    const sa = inboundSa({ spi: Number.parseInt(vector.spi, 16), cipher });
    const reason = sa.open(0, batch, 0, new Flow(), new FragmentTracker());
    expect(reasonName(reason)).toBe(vector.mode === 'tunnel' ? 'none' : 'bad-next-header');
    const at = batch.offset[0]!;
    const plaintext = vector.plaintextWithTrailer;
    expect(toHex(batch.buffer.subarray(at, at + plaintext.length / 2))).toBe(plaintext);
    if (vector.mode === 'tunnel') expect(batch.length[0]).toBe(84);
  });
});
