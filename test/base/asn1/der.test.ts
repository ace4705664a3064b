import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkDer, derChildren, derElement } from '../../../src/base/asn1/der.ts';
import { DecodeError, fromHex, toHex } from '../../../src/base/bytes.ts';

const refusal = (hex: string): string => {
  try {
    checkDer(fromHex(hex));
    return 'accepted';
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    return `${error.code}: ${error.message}`;
  }
};

describe('DER', () => {
  it('takes apart what it put together, whatever the length', () => {
    for (const length of [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000]) {
      const inner = derElement(0x04, new Uint8Array(length));
      const outer = derElement(0x30, inner, fromHex('0500'));
      checkDer(outer);
      expect(derChildren(outer, 0x30).map(toHex)).toEqual([toHex(inner), '0500']);
    }
    expect(() => derElement(0x04, new Uint8Array(0x1000000))).toThrow('too many');
  });

  it.each([
    ['30800000', 'bad-length', 'a length that is not said'],
    ['048100', 'bad-length', 'a short length written long'],
    ['04817f', 'bad-length', 'a short length written long'],
    ['04820080', 'bad-length', 'a leading zero'],
    ['048400000001', 'bad-length', 'a length of four bytes'],
    ['04847fffffff', 'bad-length', 'a huge length'],
    ['0483ffffff', 'truncated', 'a length past the end'],
    ['0401', 'truncated', 'a length past the end'],
    ['', 'truncated', 'nothing'],
    ['05000500', 'trailing-bytes', 'something behind it'],
    ['2403040100', 'bad-value', 'a string in pieces'],
    ['1f2000', 'bad-value', 'a long tag'],
    ['010101', 'bad-value', 'a boolean that is neither'],
    ['0200', 'bad-length', 'an empty integer'],
    ['0202007f', 'bad-value', 'an integer with a leading zero'],
    ['0202ff80', 'bad-value', 'an integer with leading ones'],
    ['050100', 'trailing-bytes', 'a null with a value'],
    ['0600', 'bad-value', 'an empty object identifier'],
    ['060180', 'bad-value', 'an object identifier that does not end'],
    ['030108', 'bad-value', 'more unused bits than a byte has'],
    ['0300', 'bad-value', 'a bit string without its first byte'],
    ['3003020100ff', 'trailing-bytes', 'something behind it'],
  ])('refuses %s (%s): %s', (hex, code) => {
    expect(refusal(hex)).toMatch(new RegExp(`^${code}`));
  });

  it('does not follow elements for ever', () => {
    let nested = fromHex('0500');
    for (let i = 0; i < 32; i++) nested = derElement(0x30, nested);
    expect(refusal(toHex(nested))).toBe('accepted');
    expect(refusal(toHex(derElement(0x30, nested)))).toContain('too-many');
  });

  it('never fails but with a DecodeError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        expect(refusal(toHex(bytes))).toBeTypeOf('string');
        expect(refusal(`30${toHex(Uint8Array.of(bytes.length))}${toHex(bytes)}`)).toBeTypeOf('string');
      }),
    );
  });
});
