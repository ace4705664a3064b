import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assertNever } from '../../src/base/assert.ts';
import {
  ByteReader,
  ByteWriter,
  compareBytes,
  concatBytes,
  DecodeError,
  equalBytes,
  fromHex,
  toHex,
} from '../../src/base/bytes.ts';
import { displayText, utf8 } from '../../src/base/text.ts';

describe('ByteWriter and ByteReader', () => {
  it('read back what was written, across growth of the buffer', () => {
    const writer = new ByteWriter(1);
    writer.u8(0xfe);
    writer.u16(0xfedc);
    writer.u32(0xfedcba98);
    writer.u64(0xfedcba9876543210n);
    writer.zeros(3);
    writer.bytes(new Uint8Array([1, 2, 3]));
    writer.patchU8(0, 0x01);
    writer.patchU16(1, 0x0203);
    writer.patchU32(3, 0x04050607);
    expect(toHex(writer.finish())).toBe('01020304050607fedcba9876543210000000010203');

    const reader = new ByteReader(writer.finish());
    expect([reader.u8(), reader.u16(), reader.u32(), reader.u64()]).toEqual([
      1,
      0x0203,
      0x04050607,
      0xfedcba9876543210n,
    ]);
    reader.skip(3);
    expect(reader.remaining).toBe(3);
    expect([...reader.sub(2).rest()]).toEqual([1, 2]);
    expect(() => reader.expectEnd('test')).toThrow(/1 bytes too many in test/);
    expect(reader.u8()).toBe(3);
    expect(() => reader.expectEnd('test')).not.toThrow();
  });

  it('never reads past the end, and says where', () => {
    const reader = new ByteReader(new Uint8Array(10), 2, 5);
    for (const read of [
      () => reader.u32(),
      () => reader.u64(),
      () => reader.bytes(4),
      () => reader.sub(4),
      () => reader.skip(-1),
    ]) {
      expect(read).toThrow(DecodeError);
    }
    expect(reader.u16()).toBe(0);
    try {
      reader.u16();
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({ code: 'truncated', offset: 4 });
    }
  });

  it('keeps a sub-reader inside its window', () => {
    const sub = new ByteReader(new Uint8Array(10)).sub(2);
    sub.u16();
    expect(() => sub.u8()).toThrow(/1 bytes expected, 0 left/);
  });
});

describe('helpers', () => {
  it('compare bytes', () => {
    expect(equalBytes(fromHex('0102'), fromHex('0102'))).toBe(true);
    expect(equalBytes(fromHex('0102'), fromHex('0103'))).toBe(false);
    expect(equalBytes(fromHex('0102'), fromHex('010203'))).toBe(false);
    expect(compareBytes(fromHex('01ff'), fromHex('02'))).toBeLessThan(0);
    expect(compareBytes(fromHex('01'), fromHex('0100'))).toBeLessThan(0);
    expect(compareBytes(fromHex('80'), fromHex('7f'))).toBeGreaterThan(0);
  });

  it('convert to and from hexadecimal', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        expect(fromHex(toHex(bytes))).toEqual(bytes);
      }),
    );
    const many = Uint8Array.from({ length: 20_000 }, (_, at) => at);
    expect(fromHex(toHex(many))).toEqual(many);
    expect(() => fromHex('abc')).toThrow(RangeError);
    expect(() => fromHex('zz')).toThrow(RangeError);
  });

  it('join', () => {
    expect(toHex(concatBytes(fromHex('01'), fromHex(''), fromHex('0203')))).toBe('010203');
  });

  it('make text of a peer harmless for a log', () => {
    expect(displayText(utf8('Grüße'))).toBe('Grüße');
    expect(displayText(utf8('a\n\u001b[31mb\u009b'))).toBe('a??[31mb?');
    expect(displayText(new Uint8Array([0x61, 0xff]))).toBe('a\ufffd');
  });
});

describe('assertNever', () => {
  it('names what it met without showing what is in it', () => {
    const lie = { type: 'unheard-of', key: 'secret' } as never;
    expect(() => assertNever(lie, 'here')).toThrow(/^bug: here: unexpected unheard-of$/);
    expect(() => assertNever(7 as never, 'here')).toThrow(/unexpected 7/);
  });
});
