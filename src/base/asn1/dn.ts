/** Distinguished names in DER (X.501, RFC 5280 §4.1.2.4): taken apart and compared. Their text is in `dn-text.ts`. */
import { ByteReader, DecodeError, equalBytes, toHex } from '../bytes.ts';
import { decodeText, displayText, utf8 } from '../text.ts';
import { DerTag, readDerLength, readElement } from './der.ts';
import { MAX_NAME, MAX_NAME_ATTRIBUTES } from './x509-limits.ts';

/** What RFC 4518 §2.2 maps to nothing, as far as it can stand in a name. */
const INVISIBLE = /\u034f|[\u00ad\u1806\u200b\ufffc]|[\u180b-\u180d]|[\ufe00-\ufe0f]/g;

/** One attribute of a name. */
export interface NameAttribute {
  /** Contents of the DER object identifier, hexadecimal: `550403` for CN. */
  readonly oid: string;
  /** DER tag of the value. */
  readonly tag: number;
  readonly value: Uint8Array;
}

/**
 * The attributes of a name: sets of mostly one, in the order of the encoding.
 * @throws DecodeError when it is no DER name, or one of more bytes or attributes than names have (`x509-limits.ts`)
 */
export function readDn(der: Uint8Array): NameAttribute[][] {
  const sets: NameAttribute[][] = [];
  const reader = new ByteReader(der);
  if (der.length > MAX_NAME) reader.fail('too-many', `distinguished name of ${der.length} bytes`);
  let left = MAX_NAME_ATTRIBUTES;
  const names = readElement(reader, DerTag.SEQUENCE);
  reader.expectEnd('distinguished name');
  while (names.remaining > 0) {
    const set = readElement(names, DerTag.SET);
    const attributes: NameAttribute[] = [];
    do {
      if (left-- === 0) names.fail('too-many', `more than ${MAX_NAME_ATTRIBUTES} attributes in a distinguished name`);
      attributes.push(readAttribute(readElement(set, DerTag.SEQUENCE)));
    } while (set.remaining > 0);
    sets.push(attributes);
  }
  return sets;
}

function readAttribute(reader: ByteReader): NameAttribute {
  const oid = toHex(readElement(reader, DerTag.OBJECT_IDENTIFIER).rest());
  const tag = reader.u8();
  const value = reader.bytes(readDerLength(reader));
  reader.expectEnd('attribute of a distinguished name');
  return { oid, tag, value };
}

/**
 * What a value says; `undefined` when it is no text, or holds what could garble a line or cannot be told from what it is
 * shown as.
 */
export function readableText(tag: number, value: Uint8Array): string | undefined {
  const text = rawText(tag, value);
  return text === undefined || text.includes('\ufffd') || displayText(utf8(text)) !== text ? undefined : text;
}

function rawText(tag: number, value: Uint8Array): string | undefined {
  switch (tag) {
    case DerTag.UTF8_STRING:
    case DerTag.PRINTABLE_STRING:
    case DerTag.IA5_STRING:
      return decodeText(value);
    case DerTag.TELETEX_STRING:
      // As other implementations do: ISO 8859-1.
      return Array.from(value, (byte) => String.fromCharCode(byte)).join('');
    case DerTag.BMP_STRING: {
      if (value.length % 2 !== 0) return undefined;
      let text = '';
      for (let at = 0; at < value.length; at += 2) text += String.fromCharCode((value[at]! << 8) | value[at + 1]!);
      return text;
    }
    default:
      return undefined;
  }
}

/**
 * Each set of attributes in a form that is the same for all that RFC 5280 §7.1 says are equal: whatever string type,
 * case and blanks they are written with. `undefined` when the bytes are no DER name.
 */
export function canonicalDn(der: Uint8Array): string[] | undefined {
  return orUndefined(() => readDn(der).map((set) => set.map(canonicalAttribute).sort().join('+')));
}

function canonicalAttribute({ oid, tag, value }: NameAttribute): string {
  const text = readableText(tag, value);
  if (text === undefined) return `${oid}#${tag}:${toHex(value)}`;
  // RFC 4518 §2: compatible forms and cases are one, blanks count once and not at the ends, invisible ones not at all.
  const visible = text.normalize('NFKC').replace(INVISIBLE, '');
  return `${oid}=${JSON.stringify(visible.toLowerCase().trim().replace(/\s+/g, ' '))}`;
}

/** Whether two names are equal (RFC 5280 §7.1). What cannot be read is equal to the same bytes only. */
export function sameDn(a: Uint8Array, b: Uint8Array): boolean {
  if (equalBytes(a, b)) return true;
  const [left, right] = [canonicalDn(a), canonicalDn(b)];
  if (left === undefined || right === undefined || left.length !== right.length) return false;
  return left.every((set, at) => set === right[at]);
}

function orUndefined<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}
