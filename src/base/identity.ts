/**
 * Identities (RFC 7296 §3.5) as plain values: from text, for display, compared.
 */
import { addressFromBytes, addressToBytes, formatAddress, parseAddress } from './address.ts';
import { canonicalDn } from './asn1/dn.ts';
import { dnFromText, formatDn } from './asn1/dn-text.ts';
import { assertNever } from './assert.ts';
import { equalBytes, toHex } from './bytes.ts';
import { displayText, utf8 } from './text.ts';

/** IANA ID type numbers (RFC 7296 §3.5). */
export const IdType = {
  Ipv4Address: 1,
  Fqdn: 2,
  Rfc822Address: 3,
  Ipv6Address: 5,
  DerAsn1Dn: 9,
  DerAsn1Gn: 10,
  KeyId: 11,
} as const;

/** Who an end of an IKE SA is: the type and contents of an ID payload (RFC 7296 §3.5). Made by `identityFromText`. */
export interface Identity {
  /** One of `IdType`; any other number a peer may send is kept as it is. */
  readonly type: number;
  /** As on the wire: address bytes, ASCII name, DER, opaque octets. */
  readonly data: Uint8Array;
}

/** The types under the names that documents give them. */
export type IdentityTextType = 'address' | 'fqdn' | 'email' | 'dn' | 'keyid';

/** @throws RangeError, with a message for people, when the text is not of the type. */
export function identityFromText(type: IdentityTextType, text: string): Identity {
  switch (type) {
    case 'address': {
      const address = parseAddress(text);
      if (address === undefined) throw new RangeError(`'${text}' is not an IPv4 or IPv6 address`);
      const idType = address.family === 4 ? IdType.Ipv4Address : IdType.Ipv6Address;
      return { type: idType, data: addressToBytes(address) };
    }
    case 'fqdn':
      // No trailing dot: "The string MUST NOT contain any terminators" (RFC 7296 §3.5).
      if (!isDomainName(text)) throw new RangeError(`'${text}' is not a domain name without a dot at its end`);
      return { type: IdType.Fqdn, data: utf8(text) };
    case 'email':
      if (!isEmailAddress(text)) throw new RangeError(`'${text}' is not an email address: NAME@DOMAIN is required`);
      return { type: IdType.Rfc822Address, data: utf8(text) };
    case 'dn':
      return { type: IdType.DerAsn1Dn, data: dnFromText(text) };
    case 'keyid':
      if (text === '') throw new RangeError('a key id must not be empty');
      return { type: IdType.KeyId, data: utf8(text) };
    default:
      return assertNever(type, 'identityFromText');
  }
}

function isDomainName(text: string): boolean {
  return text.length <= 255 && /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/.test(text);
}

function isEmailAddress(text: string): boolean {
  const at = text.indexOf('@');
  return at > 0 && text.length <= 320 && /^[!-?A-~]+$/.test(text.slice(0, at)) && isDomainName(text.slice(at + 1));
}

/** As much of a peer's identity as a log line takes. */
const MAX_DISPLAY_BYTES = 256;

/** For logs and status: no control characters, bounded. */
export function formatIdentity(identity: Identity): string {
  const { type } = identity;
  const data = identity.data.subarray(0, MAX_DISPLAY_BYTES);
  const more = identity.data.length > MAX_DISPLAY_BYTES ? '…' : '';
  switch (type) {
    case IdType.Ipv4Address:
    case IdType.Ipv6Address:
      if (data.length !== 4 && data.length !== 16) break;
      return formatAddress(addressFromBytes(data));
    case IdType.Fqdn:
    case IdType.Rfc822Address:
      return `${displayText(data)}${more}`;
    case IdType.DerAsn1Dn: {
      const text = formatDn(identity.data);
      if (text === undefined) break;
      return text.length > MAX_DISPLAY_BYTES ? `${text.slice(0, MAX_DISPLAY_BYTES)}…` : text;
    }
    case IdType.KeyId: {
      const printable = data.every((byte) => byte > 0x20 && byte < 0x7f);
      return `keyid:${printable ? displayText(data) : `0x${toHex(data)}`}${more}`;
    }
  }
  return `id-type-${type}:0x${toHex(data)}${more}`;
}

/** Types of text that may read alike: `192.0.2.1` is an address, and peers say it as a name too. */
const TEXT_TYPES: ReadonlyMap<number, IdentityTextType> = new Map([
  [IdType.Ipv4Address, 'address'],
  [IdType.Ipv6Address, 'address'],
  [IdType.Fqdn, 'fqdn'],
  [IdType.Rfc822Address, 'email'],
]);

/** The same where two are held against each other: `fqdn gw.example`. */
export function formatTypedIdentity(identity: Identity): string {
  const type = TEXT_TYPES.get(identity.type);
  return `${type === undefined ? '' : `${type} `}${formatIdentity(identity)}`;
}

/** Names without regard to the case of ASCII letters, distinguished names as RFC 5280 §7.1 says, all else byte by byte. */
export function sameIdentity(a: Identity, b: Identity): boolean {
  if (a.type !== b.type) return false;
  if (a.type === IdType.DerAsn1Dn) {
    const [left, right] = [nameKey(a), nameKey(b)];
    // What cannot be read is equal to the same bytes only.
    return left === undefined && right === undefined ? equalBytes(a.data, b.data) : left === right;
  }
  if (a.data.length !== b.data.length) return false;
  const isName = a.type === IdType.Fqdn || a.type === IdType.Rfc822Address;
  return isName ? a.data.every((byte, at) => lowerCase(byte) === lowerCase(b.data[at]!)) : equalBytes(a.data, b.data);
}

/** The same text for the same identity, in the sense of `sameIdentity`: what identities are looked up by. */
export function identityKey(identity: Identity): string {
  const { type, data } = identity;
  const isName = type === IdType.Fqdn || type === IdType.Rfc822Address;
  const key = type === IdType.DerAsn1Dn ? nameKey(identity) : undefined;
  return key ?? `${type}:${toHex(isName ? data.map(lowerCase) : data)}`;
}

/**
 * Distinguished names in the form that is the same for equal ones: what a peer says it is is compared with what thousands of
 * connections want, and to bring a name into that form takes long. BOUNDED: by the identities themselves.
 */
const nameKeys = new WeakMap<Identity, { readonly key: string | undefined }>();

function nameKey(identity: Identity): string | undefined {
  let known = nameKeys.get(identity);
  if (known === undefined) {
    const name = canonicalDn(identity.data);
    known = { key: name && `${identity.type}:${JSON.stringify(name)}` };
    nameKeys.set(identity, known);
  }
  return known.key;
}

function lowerCase(ascii: number): number {
  return ascii >= 0x41 && ascii <= 0x5a ? ascii + 0x20 : ascii;
}
