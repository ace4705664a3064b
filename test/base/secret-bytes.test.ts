import { describe, expect, it } from 'vitest';
import { moveSecret, secretConcat, secretCopy } from '../../src/base/secret-bytes.ts';

describe('memory for keys', () => {
  it('is a copy that shares nothing, also of a Buffer and of a part', () => {
    const source = Buffer.from('0123456789');
    const copy = secretCopy(source.subarray(2, 5));
    source.fill(0);
    expect(Buffer.from(copy).toString()).toBe('234');
    expect(copy.buffer.byteLength).toBe(3);
  });

  it('takes over what is erased where it came from', () => {
    const source = Buffer.from('0123456789');
    expect(Buffer.from(moveSecret(source.subarray(2, 5))).toString()).toBe('234');
    expect(source.toString()).toBe('01\0\0\x0056789');
  });

  it('joins parts', () => {
    expect([...secretConcat(Uint8Array.of(1, 2), new Uint8Array(0), Uint8Array.of(3))]).toEqual([1, 2, 3]);
    expect(secretConcat()).toHaveLength(0);
  });
});
