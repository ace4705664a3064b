import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { concatBytes, DecodeError, fromHex, toHex } from '../../src/base/bytes.ts';
import { encryptionByName, integrityByName } from '../../src/crypto/algorithms.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { CipherSuite, PacketCipher } from '../../src/crypto/types.ts';
import { openMessage, protectMessage } from '../../src/ike/protect/protect.ts';
import { ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import { decodeMessage, type IkeHeader } from '../../src/ike/wire/message.ts';
import { type Payload, RefusedMessageError } from '../../src/ike/wire/payload.ts';
import { notifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { counting, samplePayloads } from './arbitraries.ts';

const header: IkeHeader = {
  initiatorSpi: 0xc0c1c2c3c4c5c6c7n,
  responderSpi: 0xd0d1d2d3d4d5d6d7n,
  exchange: ExchangeType.INFORMATIONAL,
  initiator: false,
  response: false,
  messageId: 9,
};

function makeCipher(encryption: string, integrity?: string, provider = nodeProvider, first = 1): PacketCipher {
  const suite: CipherSuite = {
    encryption: encryptionByName(encryption)!,
    integrity: integrity === undefined ? undefined : integrityByName(integrity)!,
  };
  return provider.packetCipher(suite, {
    encryption: counting(suite.encryption.keyLength + suite.encryption.saltLength).fill(first, 0, 1),
    integrity: counting(suite.integrity?.keyLength ?? 0).fill(first, 0, 1),
  });
}

const open = (bytes: Uint8Array, cipher: PacketCipher): readonly Payload[] | undefined =>
  openMessage(bytes, decodeMessage(bytes).protectedPart!, cipher);

const suites = [
  ['aes256gcm16', undefined],
  ['aes128gcm8', undefined],
  ['aes256ccm12', undefined],
  ['chacha20poly1305', undefined],
  ['aes128', 'sha256'],
  ['aes256', 'sha512'],
  ['aes192ctr', 'aesxcbc'],
] as const;

for (const [encryption, integrity] of suites) {
  describe(`SK with ${encryption}${integrity === undefined ? '' : ` and ${integrity}`}`, () => {
    const cipher = makeCipher(encryption, integrity);

    it('carries payloads of every kind and length', () => {
      for (const payloads of [[], samplePayloads, ...samplePayloads.map((payload) => [payload])]) {
        const bytes = protectMessage(header, payloads, cipher, 1);
        const before = toHex(bytes);
        expect(decodeMessage(bytes)).toMatchObject({ header, payloads: [] });
        expect(open(bytes, cipher)).toEqual(payloads);
        expect(toHex(bytes), 'the datagram is left as it was').toBe(before);
      }
      for (let length = 0; length < 40; length++) {
        const payloads: Payload[] = [{ type: 'vendor', data: counting(length) }];
        expect(open(protectMessage(header, payloads, cipher, length), cipher)).toEqual(payloads);
      }
    });

    it('shows nothing of its contents and differs for every counter', () => {
      const payloads: Payload[] = [{ type: 'vendor', data: counting(32) }];
      const [first, second] = [1, 2 ** 40 + 1].map((counter) =>
        toHex(protectMessage(header, payloads, cipher, counter)),
      );
      expect(first).not.toContain(toHex(counting(32)));
      expect(first!.slice(64)).not.toBe(second!.slice(64));
      expect(toHex(protectMessage(header, payloads, cipher, 1))).toBe(first);
    });

    it('is not opened with any byte changed, cut short, or with another key', () => {
      const bytes = protectMessage(header, [notifyPayload(NotifyType.SET_WINDOW_SIZE, counting(4))], cipher, 7);
      const part = decodeMessage(bytes).protectedPart!;
      for (let at = 0; at < bytes.length; at++) {
        const damaged = bytes.slice();
        damaged[at] = damaged[at]! ^ 0x40;
        expect(openMessage(damaged, part, cipher), `byte ${at}`).toBeUndefined();
      }
      for (let end = part.ivAt; end < part.end; end++) {
        expect(openMessage(bytes.slice(0, end), { ...part, end }, cipher), `${end} bytes`).toBeUndefined();
      }
      const other = makeCipher(encryption, integrity, nodeProvider, 2);
      expect(openMessage(bytes, part, other)).toBeUndefined();
    });

    it('is byte for byte what the other provider makes and reads', () => {
      const noble = makeCipher(encryption, integrity, nobleProvider);
      const bytes = protectMessage(header, samplePayloads, cipher, 99);
      expect(toHex(protectMessage(header, samplePayloads, noble, 99))).toBe(toHex(bytes));
      expect(open(bytes, noble)).toEqual(samplePayloads);
    });
  });
}

describe('padding (RFC 7296 §3.14)', () => {
  const cipher = makeCipher('aes128', 'sha256');

  it('fills a block of CBC and nothing of a stream', () => {
    const length = (dataLength: number, name: string, integrity?: string): number => {
      const made = protectMessage(
        header,
        [{ type: 'vendor', data: counting(dataLength) }],
        makeCipher(name, integrity),
        1,
      );
      return made.length;
    };
    expect(length(11, 'aes128', 'sha256')).toBe(28 + 4 + 16 + 16 + 16);
    expect(length(12, 'aes128', 'sha256')).toBe(28 + 4 + 16 + 32 + 16);
    expect(length(11, 'aes128gcm16')).toBe(28 + 4 + 8 + 16 + 16);
    expect(length(12, 'aes128gcm16')).toBe(28 + 4 + 8 + 17 + 16);
  });

  /** Seals bytes of our choice, as a peer of bad faith could. */
  function seal(firstPayload: number, plaintext: Uint8Array, by: PacketCipher): Uint8Array {
    const bytes = protectMessage(header, [{ type: 'vendor', data: new Uint8Array(plaintext.length - 5) }], by, 1);
    bytes[28] = firstPayload;
    bytes.set(plaintext, 32 + by.ivLength);
    by.seal(bytes, 0, 32, plaintext.length, 0, 2, -1);
    return bytes;
  }

  it('may have any length that fits', () => {
    const plaintext = concatBytes(fromHex('00000008aabbccdd'), new Uint8Array(23).fill(0x5a), Uint8Array.of(23));
    expect(open(seal(43, plaintext, cipher), cipher)).toEqual([{ type: 'vendor', data: fromHex('aabbccdd') }]);
  });

  it('is refused when it reaches before the start, and the message is the peer’s own', () => {
    for (const padLength of [16, 17, 255]) {
      const plaintext = concatBytes(new Uint8Array(15), Uint8Array.of(padLength));
      expect(() => open(seal(43, plaintext, cipher), cipher)).toThrow(DecodeError);
    }
    const all = concatBytes(new Uint8Array(15), Uint8Array.of(15));
    expect(() => open(seal(43, all, cipher), cipher)).toThrow(DecodeError); // a payload is announced, none is there
    expect(open(seal(0, all, cipher), cipher)).toEqual([]);
  });

  it('authentic but malformed contents are DecodeErrors', () => {
    const sealed = (firstPayload: number, hex: string): Uint8Array => {
      const content = fromHex(hex);
      const padLength = (16 - ((content.length + 1) % 16)) % 16;
      return seal(firstPayload, concatBytes(content, new Uint8Array(padLength), Uint8Array.of(padLength)), cipher);
    };
    expect(() => open(sealed(43, '00000003'), cipher)).toThrow(expect.objectContaining({ code: 'bad-length' }));
    expect(() => open(sealed(46, '00000008aabbccdd'), cipher)).toThrow(expect.objectContaining({ code: 'bad-order' }));
    expect(() => open(sealed(200, '00800004'), cipher)).toThrow(RefusedMessageError);
    expect(open(sealed(200, '00000004'), cipher)).toMatchObject([{ type: 'unknown', payloadType: 200 }]);
  });
});

describe('SK that is too short', () => {
  it('for IV, one byte and ICV, or no multiple of the block, is not opened', () => {
    for (const [encryption, integrity] of suites) {
      const cipher = makeCipher(encryption, integrity);
      const least = cipher.ivLength + cipher.icvLength + 1;
      for (let length = 0; length < least + 16; length++) {
        const bytes = new Uint8Array(32 + length);
        const part = { kind: 'sk', firstPayload: 43, ivAt: 32, end: bytes.length, fragment: undefined } as const;
        expect(openMessage(bytes, part, cipher), `${encryption} ${length}`).toBeUndefined();
      }
    }
  });

  it('nor is a fragment, which is not a whole message', () => {
    const cipher = makeCipher('aes128gcm16');
    const bytes = protectMessage(header, [], cipher, 1);
    const part = { ...decodeMessage(bytes).protectedPart!, kind: 'skf' as const, fragment: { number: 1, total: 1 } };
    expect(openMessage(bytes, part, cipher)).toBeUndefined();
  });

  it('and contents that are too long for the length field are our bug', () => {
    const payloads: Payload[] = Array.from({ length: 3 }, () => ({ type: 'vendor', data: new Uint8Array(30_000) }));
    expect(() => protectMessage(header, payloads, makeCipher('aes128gcm16'), 1)).toThrow(RangeError);
  });
});

describe('RFC 7634 appendix B', () => {
  const vectors = JSON.parse(readFileSync(new URL('../../vectors/ike-rfc7634.json', import.meta.url), 'utf8')) as {
    cases: { key: string; salt: string; iv: string; message: string; plaintextWithPadding: string }[];
  };
  for (const vector of vectors.cases) {
    it('is opened, and made byte for byte', () => {
      const suite = { encryption: encryptionByName('chacha20poly1305')!, integrity: undefined };
      const keys = { encryption: fromHex(vector.key + vector.salt), integrity: new Uint8Array(0) };
      const cipher = nodeProvider.packetCipher(suite, keys);
      const bytes = fromHex(vector.message);
      const payloads = open(bytes, cipher);
      expect(payloads).toEqual([notifyPayload(NotifyType.SET_WINDOW_SIZE, fromHex('0000000a'))]);
      const found = decodeMessage(bytes).header;
      expect(found).toEqual(header);
      // 0x1011121314151617 is above what a number holds exactly: sealed through the cipher itself.
      const made = protectMessage(found, payloads!, cipher, 0);
      made.set(fromHex(vector.plaintextWithPadding), 40);
      cipher.seal(made, 0, 32, vector.plaintextWithPadding.length / 2, 0x10111213, 0x14151617, -1);
      expect(toHex(made)).toBe(vector.message);
    });
  }
});
