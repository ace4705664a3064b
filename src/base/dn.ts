/**
 * Distinguished names between their text and DER (X.501, RFC 5280 §4.1.2.4, escapes of RFC 4514 §2.4).
 *
 * The text lists attributes in the order of the encoding (`C=CH, O=sectunnel, CN=moon`), as certificates are
 * printed and strongSwan writes them, not reversed as in LDAP.
 */
import { ByteReader, DecodeError, equalBytes, toHex } from './bytes.ts';
import { DerTag, derElement, readDerLength, readElement } from './der.ts';
import { decodeText, displayText, utf8 } from './text.ts';

type StringType = 'directory' | 'printable' | 'ia5';

interface Attribute {
  readonly name: string;
  readonly aliases: readonly string[];
  /** Contents of the DER object identifier, hexadecimal. */
  readonly oid: string;
  /** `directory`: PrintableString where it can hold the text, else UTF8String. */
  readonly string: StringType;
}

function attribute(name: string, oid: string, string: StringType = 'directory', ...aliases: string[]): Attribute {
  return { name, aliases, oid, string };
}

const ATTRIBUTES: readonly Attribute[] = [
  attribute('C', '550406', 'printable'),
  attribute('ST', '550408', 'directory', 'S'),
  attribute('L', '550407'),
  attribute('STREET', '550409'),
  attribute('O', '55040a'),
  attribute('OU', '55040b'),
  attribute('CN', '550403'),
  attribute('T', '55040c', 'directory', 'title'),
  attribute('SN', '550404', 'directory', 'surname'),
  attribute('GN', '55042a', 'directory', 'G', 'givenName'),
  attribute('I', '55042b', 'directory', 'initials'),
  attribute('serialNumber', '550405', 'printable'),
  attribute('DC', '0992268993f22c640119', 'ia5'),
  attribute('UID', '0992268993f22c640101'),
  attribute('emailAddress', '2a864886f70d010901', 'ia5', 'E', 'email'),
];

const byName: ReadonlyMap<string, Attribute> = new Map(
  ATTRIBUTES.flatMap((entry) => [entry.name, ...entry.aliases].map((name) => [name.toLowerCase(), entry] as const)),
);
const byOid: ReadonlyMap<string, Attribute> = new Map(ATTRIBUTES.map((entry) => [entry.oid, entry]));

/** What fits an ID payload. */
const MAX_DN = 0xffff;

/** DER of the name. @throws RangeError, for people, when the text is not such a name. */
export function dnFromText(text: string): Uint8Array {
  const parts = splitUnescaped(text);
  const der = derElement(DerTag.SEQUENCE, ...parts.map(encodePart));
  if (der.length > MAX_DN) throw new RangeError(`the distinguished name is too long: ${MAX_DN} bytes at most`);
  return der;
}

/** Splits at commas that no backslash stands before. */
function splitUnescaped(text: string): string[] {
  const parts: string[] = [];
  let start = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === ',') {
      parts.push(text.slice(start, at));
      start = at + 1;
    }
  }
  return [...parts, text.slice(start)];
}

function encodePart(part: string): Uint8Array {
  const equals = part.indexOf('=');
  if (equals < 0) throw new RangeError(`'${part.trim()}' in a distinguished name: NAME=VALUE is wanted`);
  const name = part.slice(0, equals).trim();
  const found = byName.get(name.toLowerCase());
  if (found === undefined) {
    const known = ATTRIBUTES.map((entry) => entry.name).join(', ');
    throw new RangeError(`'${name}' in a distinguished name is not known: one of ${known} is wanted`);
  }
  const value = attributeValue(found.name, part.slice(equals + 1));
  const oid = Uint8Array.from(found.oid.match(/../g)!, (pair) => Number.parseInt(pair, 16));
  return derElement(
    DerTag.SET,
    derElement(DerTag.SEQUENCE, derElement(DerTag.OBJECT_IDENTIFIER, oid), encodeString(found, value)),
  );
}

/** Takes backslashes out; blanks around the value do not count unless escaped. */
function attributeValue(name: string, raw: string): string {
  const trimmed = raw.replace(/^\s+/, '').replace(/(?<!\\)((?:\\\\)*)\s+$/, '$1');
  if (trimmed === '') throw new RangeError(`${name} in a distinguished name is empty`);
  const bare = trimmed.replace(/\\./gsu, '');
  const special = /[+"<>;#\\]/.exec(bare)?.[0];
  if (special !== undefined) {
    throw new RangeError(`'${special}' in ${name} of a distinguished name: write it as '\\${special}'`);
  }
  return trimmed.replace(/\\(.)/gsu, '$1');
}

function encodeString(entry: Attribute, value: string): Uint8Array {
  const bytes = utf8(value);
  const printable = /^[A-Za-z0-9 '()+,\-./:=?]*$/.test(value);
  switch (entry.string) {
    case 'printable':
      if (!printable) throw new RangeError(`${entry.name} in a distinguished name: letters and digits are wanted`);
      if (entry.name === 'C' && value.length !== 2) {
        throw new RangeError(`C in a distinguished name: a country code of two letters is wanted, not '${value}'`);
      }
      return derElement(DerTag.PRINTABLE_STRING, bytes);
    case 'ia5':
      if (bytes.length !== value.length) throw new RangeError(`${entry.name} in a distinguished name: ASCII is wanted`);
      return derElement(DerTag.IA5_STRING, bytes);
    default:
      return derElement(printable ? DerTag.PRINTABLE_STRING : DerTag.UTF8_STRING, bytes);
  }
}

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

/** The attributes of a name: sets of mostly one, in the order of the encoding. @throws DecodeError when it is no DER name */
export function readDn(der: Uint8Array): NameAttribute[][] {
  const sets: NameAttribute[][] = [];
  const reader = new ByteReader(der);
  const names = readElement(reader, DerTag.SEQUENCE);
  reader.expectEnd('distinguished name');
  while (names.remaining > 0) {
    const set = readElement(names, DerTag.SET);
    const attributes: NameAttribute[] = [];
    do attributes.push(readAttribute(readElement(set, DerTag.SEQUENCE)));
    while (set.remaining > 0);
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

/** The name as text for display, `undefined` when the bytes are no DER name. Values of unknown types stand in hex. */
export function formatDn(der: Uint8Array): string | undefined {
  return dnParts(der)?.join(', ');
}

/** The same as a list: what stands between the commas. */
export function dnParts(der: Uint8Array): string[] | undefined {
  return orUndefined(() => readDn(der).map((set) => set.map(formatAttribute).join('+')));
}

function formatAttribute({ oid, tag, value }: NameAttribute): string {
  const name = byOid.get(oid)?.name ?? `oid-${oid}`;
  const text = attributeText(tag, value);
  return `${name}=${text === undefined ? `#${toHex(value)}` : text.replace(/[,+"\\<>;#]/g, '\\$&')}`;
}

/** What a value says, without what could garble a line; `undefined` when it is no text. */
function attributeText(tag: number, value: Uint8Array): string | undefined {
  const text = rawText(tag, value);
  return text === undefined ? undefined : displayText(utf8(text));
}

function rawText(tag: number, value: Uint8Array): string | undefined {
  switch (tag) {
    case DerTag.UTF8_STRING:
    case DerTag.PRINTABLE_STRING:
    case DerTag.IA5_STRING:
      return decodeText(value);
    case DerTag.TELETEX_STRING:
      // As everybody does: ISO 8859-1.
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
  const text = attributeText(tag, value);
  // What is not shown as it is must not become equal to what it is shown as.
  if (text === undefined || text.includes('\ufffd') || text !== rawText(tag, value))
    return `${oid}#${tag}:${toHex(value)}`;
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
