import { describe, expect, it } from 'vitest';
import { ByteReader, ByteWriter, DecodeError, fromHex, toHex } from '../../src/base/bytes.ts';
import {
  bytes,
  type Codec,
  double,
  field,
  flag,
  list,
  optional,
  record,
  secret,
  text,
  u16,
  u64,
  word,
} from '../../src/base/record/codec.ts';

interface Thing {
  readonly colour: 'red' | 'blue';
  readonly size: number | undefined;
  readonly names: readonly string[];
}

const thing: Codec<Thing> = record<Thing>({
  names: field(7, list(text)),
  colour: field(1, word('colour', ['red', 'blue'])),
  size: optional(2, u16),
});

function written<T>(codec: Codec<T>, value: T): Uint8Array {
  const writer = new ByteWriter(1);
  codec.write(writer, value);
  return writer.finish();
}

function read<T>(codec: Codec<T>, hex: string): T {
  return codec.read(new ByteReader(fromHex(hex)));
}

describe('a record', () => {
  it.each<Thing>([
    { colour: 'red', size: 258, names: ['a', '', 'ö'] },
    { colour: 'blue', size: undefined, names: [] },
  ])('is read as it was written: %o', (value) => {
    expect(read(thing, toHex(written(thing, value)))).toEqual(value);
  });

  it('has its fields in the order of their tags, each with its length', () => {
    expect(toHex(written(thing, { colour: 'red', size: 258, names: ['a'] }))).toBe(
      '000100000003726564' + '0002000000020102' + '0007000000050000000161',
    );
  });

  it.each([
    ['a field that is missing', '000100000003726564'],
    ['one that is unknown', '000100000003726564000300000000000700000000'],
    ['one at the end', '000100000003726564000700000000000800000000'],
    ['one that comes twice', '000100000003726564000100000003726564000700000000'],
    ['another order', '000700000000000100000003726564'],
    ['a word that is not of the list', '000100000003726565000700000000'],
    ['a value that is too long', '0001000000037265640002000000030102030007000000000'.slice(0, 48)],
    ['a value that is too short', '00010000000372656400020000000101000700000000'],
    ['a length beyond the end', '0001000000ff726564'],
    ['an item beyond the end of its list', '000100000003726564000700000005000000ff61'],
    ['half a tag', '0001000000037265640007000000000000'.slice(0, -2)],
  ])('is refused with %s', (_, hex) => {
    expect(() => read(thing, hex)).toThrow(DecodeError);
  });
});

describe('a value', () => {
  it('is a number of any size, or a time before', () => {
    for (const value of [0, -1.5, 2 ** 52 + 1, 1e300]) expect(read(double, toHex(written(double, value)))).toBe(value);
    for (const value of [0n, 2n ** 64n - 1n]) expect(read(u64, toHex(written(u64, value)))).toBe(value);
    expect(() => read(double, '7ff0000000000000')).toThrow(DecodeError);
    expect(() => read(flag, '02')).toThrow(DecodeError);
  });

  it('is a copy, but of a key a view, which is erased with the record', () => {
    const whole = Uint8Array.of(1, 2, 3);
    const [copy, view] = [bytes, secret].map((codec) => codec.read(new ByteReader(whole)));
    whole.fill(0);
    expect([...copy!]).toEqual([1, 2, 3]);
    expect([...view!]).toEqual([0, 0, 0]);
  });
});
