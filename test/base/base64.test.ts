import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { decodeBase64, encodeBase64 } from '../../src/base/base64.ts';
import { utf8 } from '../../src/base/text.ts';

const ascii = (bytes: Uint8Array | undefined): string => Buffer.from(bytes!).toString('latin1');

describe('base64', () => {
  it('is written and read as other implementations do, for every byte and every length', () => {
    for (let length = 0; length < 300; length++) {
      const bytes = randomBytes(length);
      const text = encodeBase64(bytes);
      expect(ascii(text)).toBe(bytes.toString('base64'));
      expect(decodeBase64(text)).toEqual(new Uint8Array(bytes));
    }
    const every = Uint8Array.from({ length: 256 * 3 }, (_, i) => (i % 3 === 0 ? i / 3 : i * 7));
    expect(decodeBase64(encodeBase64(every))).toEqual(every);
  });

  it('gives each of its characters its own six bits', () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
    for (const [bits, character] of [...alphabet].entries()) {
      expect(decodeBase64(utf8(`${character}AAA`))?.[0]).toBe(bits << 2);
      expect(ascii(encodeBase64(Uint8Array.of(bits << 2, 0, 0)))).toBe(`${character}AAA`);
    }
  });

  it('may have line ends within it, and white space around it', () => {
    expect(ascii(decodeBase64(utf8(' \t\r\na2V5\r\na2V5\n\v\f ')))).toBe('keykey');
    expect(ascii(decodeBase64(utf8('YQ=\n=')))).toBe('a');
  });

  it.each(['not base64!', 'abc', 'YWJj=', 'YW Jj', '====', 'a===', 'YQ==YQ==', '=YWJ', 'YWJ-', 'YWJ_', 'é23='])(
    'is not what stands in %j',
    (text) => {
      expect(decodeBase64(Buffer.from(text, 'latin1'))).toBeUndefined();
    },
  );

  it('accepts no byte outside its alphabet', () => {
    const own = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/');
    for (let byte = 0; byte < 256; byte++) {
      const decoded = decodeBase64(Uint8Array.of(0x41, byte, 0x41, 0x41));
      if (own.includes(byte)) expect(decoded).toHaveLength(3);
      else expect(decoded).toBeUndefined();
    }
  });
});
