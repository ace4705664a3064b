/**
 * Distinguished names as text (RFC 4514 §2, §3): what is printed here is read back as the same name.
 *
 * The text lists attributes in the order of the encoding (`C=CH, O=sectunnel, CN=moon`), as OpenSSL prints them and
 * strongSwan writes them, not reversed as in LDAP. Attributes are joined by `+` where one RDN has several. A type that has
 * no name here is its object identifier (`2.5.4.97=…`); a value that is no plain text is its DER in hexadecimal (`#0c0161`).
 */
import { concatBytes, DecodeError, fromHex, toHex } from '../bytes.ts';
import { utf8 } from '../text.ts';
import { checkDer, DerTag, derElement } from './der.ts';
import { type NameAttribute, readableText, readDn } from './dn.ts';
import { formatOid, oidFromText } from './oid.ts';
import { MAX_NAME, MAX_NAME_ATTRIBUTES } from './x509-limits.ts';

type StringType = 'directory' | 'printable' | 'ia5';

interface AttributeType {
  readonly name: string;
  readonly aliases: readonly string[];
  /** Contents of the DER object identifier. */
  readonly oid: Uint8Array;
  /** `directory`: PrintableString where it can hold the text, else UTF8String. */
  readonly string: StringType;
}

function attribute(
  name: string,
  oid: string,
  string: StringType = 'directory',
  ...aliases: readonly string[]
): AttributeType {
  return { name, aliases, oid: oidFromText(oid)!, string };
}

/** RFC 4519, RFC 5280 §4.1.2.4, PKCS #9 (RFC 2985), ETSI EN 319 412-1, the CA/Browser Forum's EV guidelines. */
const ATTRIBUTES: readonly AttributeType[] = [
  attribute('C', '2.5.4.6', 'printable'),
  attribute('ST', '2.5.4.8', 'directory', 'S'),
  attribute('L', '2.5.4.7'),
  attribute('STREET', '2.5.4.9'),
  attribute('O', '2.5.4.10'),
  attribute('OU', '2.5.4.11'),
  attribute('CN', '2.5.4.3'),
  attribute('T', '2.5.4.12', 'directory', 'title'),
  attribute('SN', '2.5.4.4', 'directory', 'surname'),
  attribute('GN', '2.5.4.42', 'directory', 'G', 'givenName'),
  attribute('I', '2.5.4.43', 'directory', 'initials'),
  attribute('name', '2.5.4.41'),
  attribute('pseudonym', '2.5.4.65'),
  attribute('generationQualifier', '2.5.4.44'),
  attribute('dnQualifier', '2.5.4.46', 'printable'),
  attribute('serialNumber', '2.5.4.5', 'printable'),
  attribute('description', '2.5.4.13'),
  attribute('businessCategory', '2.5.4.15'),
  attribute('postalCode', '2.5.4.17'),
  attribute('telephoneNumber', '2.5.4.20', 'printable'),
  attribute('houseIdentifier', '2.5.4.51'),
  attribute('organizationIdentifier', '2.5.4.97'),
  attribute('DC', '0.9.2342.19200300.100.1.25', 'ia5'),
  attribute('UID', '0.9.2342.19200300.100.1.1'),
  attribute('emailAddress', '1.2.840.113549.1.9.1', 'ia5', 'E', 'email'),
  attribute('unstructuredName', '1.2.840.113549.1.9.2', 'ia5'),
  attribute('unstructuredAddress', '1.2.840.113549.1.9.8'),
  attribute('jurisdictionL', '1.3.6.1.4.1.311.60.2.1.1'),
  attribute('jurisdictionST', '1.3.6.1.4.1.311.60.2.1.2'),
  attribute('jurisdictionC', '1.3.6.1.4.1.311.60.2.1.3', 'printable'),
];

const byName: ReadonlyMap<string, AttributeType> = new Map(
  ATTRIBUTES.flatMap((entry) => [entry.name, ...entry.aliases].map((name) => [name.toLowerCase(), entry] as const)),
);
const byOid: ReadonlyMap<string, AttributeType> = new Map(ATTRIBUTES.map((entry) => [toHex(entry.oid), entry]));

/** DER of the name. @throws RangeError, for people, when the text is not such a name. */
export function dnFromText(text: string): Uint8Array {
  const parts = splitUnescaped(text, ',').map((set) => splitUnescaped(set, '+'));
  const attributes = parts.flat().length;
  const sets = parts.map((set) => derElement(DerTag.SET, ...set.map(encodePart).sort(derOrder)));
  const der = derElement(DerTag.SEQUENCE, ...sets);
  if (der.length > MAX_NAME) throw new RangeError(`the distinguished name is too long: ${MAX_NAME} bytes at most`);
  if (attributes > MAX_NAME_ATTRIBUTES) {
    throw new RangeError(`the distinguished name has ${attributes} attributes: ${MAX_NAME_ATTRIBUTES} at most`);
  }
  return der;
}

/** X.690 §11.6: the members of a set stand in the order of their encodings. */
function derOrder(a: Uint8Array, b: Uint8Array): number {
  const [left, right] = [toHex(a), toHex(b)];
  return left < right ? -1 : left > right ? 1 : 0;
}

/** Splits where the character stands without a backslash before it. */
function splitUnescaped(text: string, separator: ',' | '+'): string[] {
  const parts: string[] = [];
  let start = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === separator) {
      parts.push(text.slice(start, at));
      start = at + 1;
    }
  }
  return [...parts, text.slice(start)];
}

function encodePart(part: string): Uint8Array {
  const equals = part.indexOf('=');
  if (equals < 0) throw new RangeError(`'${part.trim()}' in a distinguished name: NAME=VALUE is required`);
  const name = part.slice(0, equals).trim();
  // RFC 4514 §3; earlier texts have OID. before the numbers.
  const dotted = oidFromText(name.replace(/^oid\./i, ''));
  const found = byName.get(name.toLowerCase()) ?? (dotted && byOid.get(toHex(dotted)));
  const oid = found?.oid ?? dotted;
  if (oid === undefined) {
    const known = ATTRIBUTES.map((entry) => entry.name).join(', ');
    throw new RangeError(
      `'${name}' in a distinguished name is not known: one of ${known}, or an object identifier such as 2.5.4.97 is required`,
    );
  }
  const value = encodeValue(found?.name ?? name, found?.string ?? 'directory', part.slice(equals + 1));
  return derElement(DerTag.SEQUENCE, derElement(DerTag.OBJECT_IDENTIFIER, oid), value);
}

function encodeValue(name: string, string: StringType, raw: string): Uint8Array {
  const trimmed = raw.replace(/^[ \t\r\n]+/, '').replace(/(?<!\\)((?:\\\\)*)[ \t\r\n]+$/, '$1');
  if (trimmed === '') throw new RangeError(`${name} in a distinguished name is empty`);
  return trimmed.startsWith('#')
    ? hexValue(name, trimmed.slice(1))
    : encodeString(name, string, unescaped(name, trimmed));
}

/** RFC 4514 §2.4: the value's DER, tag and length included. */
function hexValue(name: string, hex: string): Uint8Array {
  const wanted = `'#' in ${name} of a distinguished name: the value's DER in hexadecimal is required, or '\\#' for the character`;
  if (hex === '' || !/^([0-9a-f]{2})+$/i.test(hex)) throw new RangeError(wanted);
  const der = fromHex(hex.toLowerCase());
  try {
    checkDer(der);
  } catch (error) {
    if (error instanceof DecodeError) throw new RangeError(`${wanted}: ${error.message}`);
    throw error;
  }
  return der;
}

/** Takes escapes away (RFC 4514 §3): a special character, or two hexadecimal digits for a byte of UTF-8. */
function unescaped(name: string, text: string): string {
  const pieces = text.match(/\\[0-9a-fA-F]{2}|\\.|[^\\]+|\\/gsu) ?? [];
  const bytes = pieces.map((piece) => {
    if (/^\\[0-9a-fA-F]{2}$/.test(piece)) return fromHex(piece.slice(1).toLowerCase());
    if (/^\\[ "#+,;<=>\\]$/.test(piece)) return utf8(piece.slice(1));
    if (piece.startsWith('\\')) {
      throw new RangeError(
        `'${piece}' in ${name} of a distinguished name: behind a backslash a special character or two hexadecimal digits are required; write the backslash itself as '\\\\'`,
      );
    }
    const special = /["<>;#]/.exec(piece)?.[0];
    if (special !== undefined) {
      throw new RangeError(`'${special}' in ${name} of a distinguished name: write it as '\\${special}'`);
    }
    return utf8(piece);
  });
  const value = readableText(DerTag.UTF8_STRING, concatBytes(...bytes));
  if (value === undefined) {
    throw new RangeError(
      `${name} in a distinguished name: UTF-8 without control characters is required, or '#' and DER`,
    );
  }
  return value;
}

function encodeString(name: string, string: StringType, value: string): Uint8Array {
  const bytes = utf8(value);
  const printable = /^[A-Za-z0-9 '()+,\-./:=?]*$/.test(value);
  switch (string) {
    case 'printable':
      if (!printable) throw new RangeError(`${name} in a distinguished name: letters and digits are required`);
      if (name === 'C' && value.length !== 2) {
        throw new RangeError(`C in a distinguished name: a country code of two letters is required, not '${value}'`);
      }
      return derElement(DerTag.PRINTABLE_STRING, bytes);
    case 'ia5':
      if (bytes.length !== value.length) throw new RangeError(`${name} in a distinguished name: ASCII is required`);
      return derElement(DerTag.IA5_STRING, bytes);
    default:
      return derElement(printable ? DerTag.PRINTABLE_STRING : DerTag.UTF8_STRING, bytes);
  }
}

/** The name as text that `dnFromText` reads back as an equal name; `undefined` when the bytes are no DER name. */
export function formatDn(der: Uint8Array): string | undefined {
  return dnParts(der)?.join(', ');
}

/** The same as a list: what stands between the commas. */
export function dnParts(der: Uint8Array): string[] | undefined {
  try {
    return readDn(der).map((set) => set.map(formatAttribute).join('+'));
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}

function formatAttribute({ oid, tag, value }: NameAttribute): string {
  const known = byOid.get(oid);
  const name = known?.name ?? formatOid(fromHex(oid)) ?? `oid-${oid}`;
  const text = readableText(tag, value);
  if (text === undefined || !isWritable(known, text)) return `${name}=#${toHex(derElement(tag, value))}`;
  return `${name}=${text.replace(/[,+"\\<>;#]/g, '\\$&').replace(/^ | $/g, '\\ ')}`;
}

/** Whether `encodeString` takes the text: certificates have a country of three letters, or an address with an umlaut. */
function isWritable(known: AttributeType | undefined, text: string): boolean {
  if (text === '') return false;
  try {
    encodeString(known?.name ?? '', known?.string ?? 'directory', text);
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}
