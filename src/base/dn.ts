/**
 * Distinguished names between their text and DER (X.501, RFC 5280 §4.1.2.4, escapes of RFC 4514 §2.4).
 *
 * The text lists attributes in the order of the encoding (`C=CH, O=sectunnel, CN=moon`), as certificates are
 * printed and strongSwan writes them, not reversed as in LDAP.
 */
import { ByteReader, concatBytes, DecodeError, toHex } from './bytes.ts';
import { displayText, utf8 } from './text.ts';

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

const SEQUENCE = 0x30;
const SET = 0x31;
const OBJECT_IDENTIFIER = 0x06;
const UTF8_STRING = 0x0c;
const PRINTABLE_STRING = 0x13;
const IA5_STRING = 0x16;

/** DER of the name. @throws RangeError, for people, when the text is not such a name. */
export function dnFromText(text: string): Uint8Array {
  const parts = splitUnescaped(text);
  return tlv(SEQUENCE, ...parts.map(encodePart));
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
  return tlv(SET, tlv(SEQUENCE, tlv(OBJECT_IDENTIFIER, oid), encodeString(found, value)));
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
      return tlv(PRINTABLE_STRING, bytes);
    case 'ia5':
      if (bytes.length !== value.length) throw new RangeError(`${entry.name} in a distinguished name: ASCII is wanted`);
      return tlv(IA5_STRING, bytes);
    default:
      return tlv(printable ? PRINTABLE_STRING : UTF8_STRING, bytes);
  }
}

function tlv(tag: number, ...contents: readonly Uint8Array[]): Uint8Array {
  const content = concatBytes(...contents);
  const { length } = content;
  if (length < 0x80) return concatBytes(Uint8Array.of(tag, length), content);
  if (length < 0x100) return concatBytes(Uint8Array.of(tag, 0x81, length), content);
  if (length < 0x10000) return concatBytes(Uint8Array.of(tag, 0x82, length >>> 8, length), content);
  throw new RangeError('the distinguished name is too long');
}

/** The name as text for display, `undefined` when the bytes are no DER name. Values of unknown types stand in hex. */
export function formatDn(der: Uint8Array): string | undefined {
  try {
    const parts: string[] = [];
    const reader = new ByteReader(der);
    const names = element(reader, SEQUENCE);
    reader.expectEnd('distinguished name');
    while (names.remaining > 0) {
      const set = element(names, SET);
      const values: string[] = [];
      do values.push(formatAttribute(element(set, SEQUENCE)));
      while (set.remaining > 0);
      parts.push(values.join('+'));
    }
    return parts.join(', ');
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}

function formatAttribute(reader: ByteReader): string {
  const oid = toHex(element(reader, OBJECT_IDENTIFIER).rest());
  const tag = reader.u8();
  const value = reader.bytes(derLength(reader));
  reader.expectEnd('attribute of a distinguished name');
  const name = byOid.get(oid)?.name ?? `oid-${oid}`;
  const isText = tag === UTF8_STRING || tag === PRINTABLE_STRING || tag === IA5_STRING;
  return `${name}=${isText ? displayText(value).replace(/[,+"\\<>;#]/g, '\\$&') : `#${toHex(value)}`}`;
}

function element(reader: ByteReader, tag: number): ByteReader {
  const found = reader.u8();
  if (found !== tag) reader.fail('bad-value', `DER tag ${found}, ${tag} wanted`);
  return reader.sub(derLength(reader));
}

/** Up to 65,535 and in the shortest form, as DER wants it. */
function derLength(reader: ByteReader): number {
  const first = reader.u8();
  if (first < 0x80) return first;
  const length = first === 0x81 ? reader.u8() : first === 0x82 ? reader.u16() : 0;
  if (length < (first === 0x82 ? 0x100 : 0x80)) reader.fail('bad-length', 'DER length');
  return length;
}
