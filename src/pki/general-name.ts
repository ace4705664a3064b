/**
 * General names (RFC 5280 §4.2.1.6) and the subtrees of name constraints (§4.2.1.10), from strict DER.
 */
import { addressFromBytes, formatAddress } from '../base/address.ts';
import { DerTag, derChildren, derContents } from '../base/asn1/der.ts';
import { formatDn } from '../base/asn1/dn-text.ts';
import { MAX_GENERAL_NAMES, MAX_SUBTREES } from '../base/asn1/x509-limits.ts';
import { assertNever } from '../base/assert.ts';
import { toHex } from '../base/bytes.ts';
import { decodeText } from '../base/text.ts';

/** A name of a certificate beside its subject (RFC 5280 §4.2.1.6). */
export type GeneralName =
  /** In constraints `email` may be a mailbox, a host, or with a leading dot a domain; `dns` any suffix. */
  | { readonly kind: 'email' | 'dns' | 'uri'; readonly text: string }
  /** 4 or 16 bytes; in constraints an address and a mask, 8 or 32. */
  | { readonly kind: 'ip'; readonly bytes: Uint8Array }
  | { readonly kind: 'dn'; readonly der: Uint8Array }
  /** `tag` tells the kinds that are not understood from each other. */
  | { readonly kind: 'other'; readonly tag: number; readonly der: Uint8Array };

/** The name constraints of an authority (RFC 5280 §4.2.1.10). */
export interface NameSubtrees {
  readonly permitted: readonly GeneralName[];
  readonly excluded: readonly GeneralName[];
}

/** Context tags of a GeneralName. */
const NameTag = { EMAIL: 0x81, DNS: 0x82, DN: 0xa4, URI: 0x86, IP: 0x87 } as const;

/**
 * Contents of a subject alternative name extension, or names with another tag than that of a sequence.
 * @throws Error when they are not that
 */
export function readGeneralNames(der: Uint8Array, tag: number = DerTag.SEQUENCE): GeneralName[] {
  const names = derChildren(der, tag);
  if (names.length === 0) throw new Error('a list of names is empty');
  if (names.length > MAX_GENERAL_NAMES) throw new Error(`${names.length} names; the limit is ${MAX_GENERAL_NAMES}`);
  return names.map((name) => readGeneralName(name));
}

/** Contents of a name constraints extension. @throws Error when they are not that, or say what RFC 5280 forbids */
export function readNameConstraints(der: Uint8Array): NameSubtrees {
  const subtrees: { permitted: GeneralName[]; excluded: GeneralName[] } = { permitted: [], excluded: [] };
  for (const list of derChildren(der, DerTag.SEQUENCE)) {
    if (list[0] !== 0xa0 && list[0] !== 0xa1)
      throw new Error('name constraints that are neither permitted nor excluded');
    const names = list[0] === 0xa0 ? subtrees.permitted : subtrees.excluded;
    const found = derChildren(list, list[0]);
    const count = subtrees.permitted.length + subtrees.excluded.length + found.length;
    if (count > MAX_SUBTREES) throw new Error(`${count} name constraints; the limit is ${MAX_SUBTREES}`);
    names.push(...found.map(readSubtree));
  }
  if (subtrees.permitted.length + subtrees.excluded.length === 0) throw new Error('name constraints without a name');
  return subtrees;
}

function readSubtree(der: Uint8Array): GeneralName {
  const [base, ...distances] = derChildren(der, DerTag.SEQUENCE);
  if (base === undefined) throw new Error('a name constraint without a name');
  // "minimum MUST be zero, and maximum MUST be absent" (§4.2.1.10); zero is the default, which DER leaves out.
  if (distances.length > 0) throw new Error('a name constraint with a distance');
  return readGeneralName(base, [8, 32]);
}

/** @throws Error when it is none */
export function readGeneralName(der: Uint8Array, ipLengths: readonly number[] = [4, 16]): GeneralName {
  const tag = der[0]!;
  switch (tag) {
    case NameTag.EMAIL:
    case NameTag.DNS:
    case NameTag.URI: {
      const text = decodeText(derContents(der));
      // An IA5String; what is no visible character in it could only be there to deceive.
      if (!/^[!-~]*$/.test(text)) throw new Error('a name with characters that are not visible ASCII');
      return { kind: tag === NameTag.EMAIL ? 'email' : tag === NameTag.DNS ? 'dns' : 'uri', text };
    }
    case NameTag.IP: {
      const bytes = derContents(der);
      if (!ipLengths.includes(bytes.length)) throw new Error(`an IP address of ${bytes.length} bytes`);
      return { kind: 'ip', bytes };
    }
    case NameTag.DN: {
      const [name] = derChildren(der, tag);
      if (name === undefined || formatDn(name) === undefined) throw new Error('a directory name is malformed');
      return { kind: 'dn', der: name };
    }
    default:
      return { kind: 'other', tag, der };
  }
}

/** `fqdn gw1.example.org`: the kinds have the names that documents give them. */
export function formatGeneralName(name: GeneralName): string {
  switch (name.kind) {
    case 'dns':
      return `fqdn ${name.text}`;
    case 'email':
    case 'uri':
      return `${name.kind} ${name.text}`;
    case 'ip':
      return `address ${formatIpName(name.bytes)}`;
    case 'dn':
      return `dn ${formatDn(name.der) ?? toHex(name.der)}`;
    case 'other':
      return `type ${name.tag & 0x1f} ${toHex(name.der.subarray(0, 32))}`;
    default:
      return assertNever(name, 'general name');
  }
}

function formatIpName(bytes: Uint8Array): string {
  if (bytes.length === 4 || bytes.length === 16) return formatAddress(addressFromBytes(bytes));
  const half = bytes.length / 2;
  return `${formatIpName(bytes.subarray(0, half))}/${formatIpName(bytes.subarray(half))}`;
}
