/**
 * DER (X.690 §8, §10, §11): elements taken apart and put together. Strict: where BER knows many encodings of a value,
 * DER has one, and only that one is read, so that two readers cannot see two different things.
 */
import { ByteReader, concatBytes, DecodeError } from '../bytes.ts';

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
  if (found !== tag) reader.fail('bad-value', `DER tag ${found}, ${tag} expected`);
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
 * is not looked at. One pass that makes no object of an element, so that its cost is small and depends on the length only.
 * @returns how many elements there are, the outermost included
 * @throws DecodeError, also for more elements than `maxElements`
 */
export function checkDer(bytes: Uint8Array, maxElements: number = Number.POSITIVE_INFINITY): number {
  /** Where the elements end that the next one lies in. BOUNDED: MAX_DEPTH. */
  const ends: number[] = [];
  let at = 0;
  let elements = 0;
  do {
    if (++elements > maxElements) throw new DecodeError('too-many', at, `more than ${maxElements} DER elements`);
    if (ends.length > MAX_DEPTH) {
      throw new DecodeError('too-many', at, `DER elements nested more than ${MAX_DEPTH} deep`);
    }
    const start = at;
    const limit = ends[ends.length - 1] ?? bytes.length;
    const tag = byteAt(bytes, at++, limit);
    if ((tag & LONG_TAG) === LONG_TAG) throw new DecodeError('bad-value', start, 'DER tag of several bytes');
    const length = lengthAt(bytes, at, limit);
    at += bytes[at]! < 0x80 ? 1 : 1 + (bytes[at]! - 0x80);
    const end = at + length;
    if (end > limit) throw new DecodeError('truncated', at, `${length} bytes expected, ${limit - at} left`);
    if ((tag & CONSTRUCTED) === 0) {
      checkPrimitive(bytes, tag, at, end);
      at = end;
    } else if ((tag & CLASS_MASK) === 0 && tag !== DerTag.SEQUENCE && tag !== DerTag.SET) {
      throw new DecodeError('bad-value', start, `DER tag ${tag}: only sequences and sets have parts`);
    } else {
      ends.push(end);
    }
    while (ends[ends.length - 1] === at) ends.pop();
  } while (ends.length > 0);
  if (at !== bytes.length) throw new DecodeError('trailing-bytes', at, `${bytes.length - at} bytes behind DER element`);
  return elements;
}

function byteAt(bytes: Uint8Array, at: number, limit: number): number {
  if (at >= limit) throw new DecodeError('truncated', at, 'a DER element that is cut off');
  return bytes[at]!;
}

/** The length that stands at `at`: below 16 MiB and in the shortest form. @throws DecodeError */
function lengthAt(bytes: Uint8Array, at: number, limit: number): number {
  const first = byteAt(bytes, at, limit);
  if (first < 0x80) return first;
  const count = first - 0x80;
  if (count < 1 || count > 3) throw new DecodeError('bad-length', at, 'DER length');
  let length = 0;
  for (let i = 1; i <= count; i++) length = (length << 8) | byteAt(bytes, at + i, limit);
  if (length < 0x80 || length >>> (8 * (count - 1)) === 0) throw new DecodeError('bad-length', at, 'DER length');
  return length;
}

function checkPrimitive(bytes: Uint8Array, tag: number, start: number, end: number): void {
  const length = end - start;
  const first = bytes[start]!;
  switch (tag) {
    case DerTag.BOOLEAN:
      if (length !== 1 || (first !== 0 && first !== 0xff)) throw new DecodeError('bad-value', start, 'DER boolean');
      return;
    case DerTag.INTEGER: {
      if (length === 0) throw new DecodeError('bad-length', start, 'DER integer without a value');
      const sign = length > 1 ? (first << 1) | (bytes[start + 1]! >>> 7) : -1;
      if (sign === 0 || sign === 0x1ff) {
        throw new DecodeError('bad-value', start, 'DER integer that could be shorter');
      }
      return;
    }
    case DerTag.NULL:
      if (length > 0) throw new DecodeError('trailing-bytes', start, 'DER null with a value');
      return;
    case DerTag.OBJECT_IDENTIFIER:
      if (length === 0 || bytes[end - 1]! >= 0x80) throw new DecodeError('bad-value', start, 'DER object identifier');
      return;
    case DerTag.BIT_STRING:
      if (length === 0 || first > 7) throw new DecodeError('bad-value', start, 'DER bit string');
      return;
  }
}
