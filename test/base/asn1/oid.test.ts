import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatOid, oidFromText } from '../../../src/base/asn1/oid.ts';
import { fromHex, toHex } from '../../../src/base/bytes.ts';

describe('object identifiers', () => {
  it('are encoded as X.690 §8.19 has it', () => {
    expect(toHex(oidFromText('2.5.4.3')!)).toBe('550403');
    expect(toHex(oidFromText('1.2.840.113549.1.9.1')!)).toBe('2a864886f70d010901');
    expect(toHex(oidFromText('0.9.2342.19200300.100.1.25')!)).toBe('0992268993f22c640119');
    expect(toHex(oidFromText('2.999.3')!)).toBe('883703');
    expect(formatOid(fromHex('883703'))).toBe('2.999.3');
  });

  it('are the same after a round trip', () => {
    const arc = fc.integer({ min: 0, max: 0xffff_ffff });
    const top = fc.oneof(
      fc.tuple(fc.integer({ min: 0, max: 1 }), fc.integer({ min: 0, max: 39 })),
      fc.tuple(fc.constant(2), fc.integer({ min: 0, max: 1 << 30 })),
    );
    fc.assert(
      fc.property(top, fc.array(arc, { maxLength: 30 }), (head, rest) => {
        const text = [...head, ...rest].join('.');
        expect(formatOid(oidFromText(text)!)).toBe(text);
      }),
    );
  });

  it('are none when they are not', () => {
    for (const text of [
      '',
      '2',
      '2.',
      '.2',
      '3.1',
      '1.40',
      '0.40.1',
      '2.5.04',
      '2.5.-1',
      '2.5.9999999999',
      '2.5.4.x',
    ]) {
      expect(oidFromText(text), text).toBeUndefined();
    }
    for (const hex of ['', '80', '5580', '55', '8055', '55808001', '55ffffffffff7f']) {
      expect(formatOid(fromHex(hex)), hex).toBe(hex === '55' ? '2.5' : undefined);
    }
  });
});
