/** Extensions (RFC 5280 §4.1.2.9) of certificates, revocation lists and OCSP answers, out of bytes that `checkDer` went through. */

import { DerTag, derChildren, derContents } from '../base/asn1/der.ts';
import { formatOid } from '../base/asn1/oid.ts';
import { MAX_EXTENSIONS, MAX_KEY_PURPOSES } from '../base/asn1/x509-limits.ts';
import { fromHex, toHex } from '../base/bytes.ts';
import { keyIdText } from './key-id.ts';

/** Bytes of an object identifier that are shown. */
const MAX_SHOWN = 32;

export interface Extension {
  /** Contents of the object identifier, hexadecimal: `551d11` for a subject alternative name. */
  readonly id: string;
  readonly critical: boolean;
  /** What is in the octet string: mostly DER, not checked yet. */
  readonly value: Uint8Array;
}

/** @param list DER of the sequence. @throws Error for what are no extensions, for too many, and for one that stands twice */
export function readExtensions(list: Uint8Array): Extension[] {
  const elements = derChildren(list, DerTag.SEQUENCE);
  if (elements.length > MAX_EXTENSIONS) {
    throw new Error(`${elements.length} extensions; the limit is ${MAX_EXTENSIONS}`);
  }
  const found = elements.map(readExtension);
  for (const [at, { id }] of found.entries()) {
    if (found.findIndex((other) => other.id === id) === at) continue;
    throw new Error(`extension ${oidText(fromHex(id))} is in it twice`);
  }
  return found;
}

function readExtension(extension: Uint8Array): Extension {
  const [id, ...rest] = derChildren(extension, DerTag.SEQUENCE);
  const flag = rest[0]?.[0] === DerTag.BOOLEAN ? rest.shift() : undefined;
  const [value, ...more] = rest;
  if (id?.[0] !== DerTag.OBJECT_IDENTIFIER || value?.[0] !== DerTag.OCTET_STRING || more.length > 0) {
    throw new Error('an extension is malformed');
  }
  const critical = flag !== undefined && derContents(flag)[0] !== 0;
  return { id: toHex(derContents(id)), critical, value: derContents(value) };
}

/**
 * An extended key usage (RFC 5280 §4.2.1.12), dotted. Not by PKI.js, which writes identifiers with arcs of more than 32 bits in
 * its own way.
 * @throws Error
 */
export function readKeyPurposes(der: Uint8Array): string[] {
  const purposes = derChildren(der, DerTag.SEQUENCE);
  if (purposes.length > MAX_KEY_PURPOSES) {
    throw new Error(`${purposes.length} key purposes; the limit is ${MAX_KEY_PURPOSES}`);
  }
  return purposes.map((purpose) => {
    if (purpose[0] !== DerTag.OBJECT_IDENTIFIER) throw new Error('a key purpose is not an object identifier');
    return oidText(derContents(purpose));
  });
}

/** Tags of the parts of an authority key identifier: the key's identifier, the issuer's names, the serial number. */
const AUTHORITY_PARTS: readonly number[] = [0x80, 0xa1, 0x82];

/**
 * The key identifier in an authority key identifier (RFC 5280 §4.2.1.1), hexadecimal; `undefined` where the authority is named in
 * another way. Not by PKI.js, which takes 0.3 ms for each name in it.
 * @throws Error
 */
export function readAuthorityKeyId(der: Uint8Array): string | undefined {
  const parts = derChildren(der, DerTag.SEQUENCE);
  const order = parts.map(([tag]) => AUTHORITY_PARTS.indexOf(tag!));
  if (order.some((place, at) => place <= (order[at - 1] ?? -1))) {
    throw new Error('an authority key identifier with a part that RFC 5280 §4.2.1.1 does not define');
  }
  const id = parts.find(([tag]) => tag === AUTHORITY_PARTS[0]);
  return id && keyIdText(derContents(id));
}

/** Dotted, or hexadecimal where it has numbers beyond 32 bits. @param contents of the object identifier */
export function oidText(contents: Uint8Array): string {
  return formatOid(contents) ?? `0x${toHex(contents.subarray(0, MAX_SHOWN))}`;
}
