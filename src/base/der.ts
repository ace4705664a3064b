/**
 * DER (X.690 §8, §10, §11): elements taken apart and put together. Strict: where BER knows many encodings of a value,
 * DER has one, and only that one is read, so that nobody can show two readers two different things.
 */
import { ByteReader, concatBytes } from './bytes.ts';

/** Universal tags, constructed where they always are. */
export const DerTag = {
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  NULL: 0x05,
  OBJECT_IDENTIFIER: 0x06,
  UTF8_STRING: 0x0c,
  PRINTABLE_STRING: 0x13,
  TELETEX_STRING: 0x14,
  IA5_STRING: 0x16,
  UTC_TIME: 0x17,
  GENERALIZED_TIME: 0x18,
  BMP_STRING: 0x1e,
  UNIVERSAL_STRING: 0x1c,
  SEQUENCE: 0x30,
  SET: 0x31,
} as const;

const CONSTRUCTED = 0x20;
const CLASS_MASK = 0xc0;
const LONG_TAG = 0x1f;
/** No structure of X.509 is so deep by far. */
const MAX_DEPTH = 32;

/** @throws RangeError for 16 MiB and more */
export function derElement(tag: number, ...contents: readonly Uint8Array[]): Uint8Array {
  const content = concatBytes(...contents);
  const { length } = content;
  if (length < 0x80) return concatBytes(Uint8Array.of(tag, length), content);
  if (length < 0x100) return concatBytes(Uint8Array.of(tag, 0x81, length), content);
  if (length < 0x10000) return concatBytes(Uint8Array.of(tag, 0x82, length >>> 8, length), content);
  if (length < 0x1000000) return concatBytes(Uint8Array.of(tag, 0x83, length >>> 16, length >>> 8, length), content);
  throw new RangeError(`${length} bytes are too many for a DER element`);
}

/** The contents of the next element. @throws DecodeError when it has another tag */
export function readElement(reader: ByteReader, tag: number): ByteReader {
  const found = reader.u8();
  if (found !== tag) reader.fail('bad-value', `DER tag ${found}, ${tag} wanted`);
  return reader.sub(readDerLength(reader));
}

/** Below 16 MiB and in the shortest form, as DER wants it. @throws DecodeError */
export function readDerLength(reader: ByteReader): number {
  const first = reader.u8();
  if (first < 0x80) return first;
  const bytes = first - 0x80;
  if (bytes < 1 || bytes > 3) reader.fail('bad-length', 'DER length');
  let length = 0;
  for (let i = 0; i < bytes; i++) length = (length << 8) | reader.u8();
  if (length < 0x80 || length >>> (8 * (bytes - 1)) === 0) reader.fail('bad-length', 'DER length');
  return length;
}

/** What is behind tag and length of an element that `derChildren` or `checkDer` went through. */
export function derContents(element: Uint8Array): Uint8Array {
  const first = element[1]!;
  return element.subarray(first < 0x80 ? 2 : 2 + (first - 0x80));
}

/** The elements within an element, each with its tag and length. @throws DecodeError */
export function derChildren(element: Uint8Array, tag: number): Uint8Array[] {
  const reader = new ByteReader(element);
  const contents = readElement(reader, tag);
  reader.expectEnd('DER element');
  const children: Uint8Array[] = [];
  while (contents.remaining > 0) {
    const start = contents.position;
    contents.u8();
    contents.skip(readDerLength(contents));
    children.push(element.subarray(start, contents.position));
  }
  return children;
}

/**
 * Checks that the bytes are one element of DER, nothing behind it, down to its last part. What is within octet strings
 * is not looked at.
 * @throws DecodeError
 */
export function checkDer(bytes: Uint8Array): void {
  const reader = new ByteReader(bytes);
  checkElement(reader, 0);
  reader.expectEnd('DER element');
}

function checkElement(reader: ByteReader, depth: number): void {
  if (depth > MAX_DEPTH) reader.fail('too-many', `DER elements nested more than ${MAX_DEPTH} deep`);
  const tag = reader.u8();
  if ((tag & LONG_TAG) === LONG_TAG) reader.fail('bad-value', 'DER tag of several bytes');
  const contents = reader.sub(readDerLength(reader));
  if ((tag & CLASS_MASK) === 0 && (tag & CONSTRUCTED) !== 0 && tag !== DerTag.SEQUENCE && tag !== DerTag.SET) {
    contents.fail('bad-value', `DER tag ${tag}: only sequences and sets have parts`);
  }
  if ((tag & CONSTRUCTED) === 0) checkPrimitive(tag, contents);
  else while (contents.remaining > 0) checkElement(contents, depth + 1);
}

function checkPrimitive(tag: number, contents: ByteReader): void {
  const { remaining: length } = contents;
  switch (tag) {
    case DerTag.BOOLEAN: {
      const value = length === 1 ? contents.u8() : -1;
      if (value !== 0 && value !== 0xff) contents.fail('bad-value', 'DER boolean');
      return;
    }
    case DerTag.INTEGER: {
      if (length === 0) contents.fail('bad-length', 'DER integer without a value');
      if (length === 1) return;
      const first = contents.u16() >>> 7;
      if (first === 0 || first === 0x1ff) contents.fail('bad-value', 'DER integer that could be shorter');
      return;
    }
    case DerTag.NULL:
      contents.expectEnd('DER null');
      return;
    case DerTag.OBJECT_IDENTIFIER: {
      const value = contents.rest();
      if (value.length === 0 || value[value.length - 1]! >= 0x80) contents.fail('bad-value', 'DER object identifier');
      return;
    }
    case DerTag.BIT_STRING:
      if (length === 0 || contents.u8() > 7) contents.fail('bad-value', 'DER bit string');
      return;
  }
}
