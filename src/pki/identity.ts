/**
 * Whether a certificate proves an IKE identity (RFC 4945 §3.1, RFC 5280 §7), which identities it can prove, and the
 * patterns of libvirt's `tls_allowed_dn_list`.
 *
 * No wildcards: RFC 4945 §5.1.3.6 knows none, and an identity that many hosts can prove is none. A common name counts
 * only where it is allowed and there is no alternative name at all.
 */
import { addressFromBytes, formatAddress } from '../base/address.ts';
import { DerTag } from '../base/asn1/der.ts';
import { readDn, sameDn } from '../base/asn1/dn.ts';
import { dnParts } from '../base/asn1/dn-text.ts';
import { equalBytes } from '../base/bytes.ts';
import { formatIdentity, IdType } from '../base/identity.ts';
import { decodeText, utf8 } from '../base/text.ts';
import type { Certificate } from './certificate.ts';
import type { PeerIdentity } from './types.ts';

const COMMON_NAME = '550403';

export interface IdentityOptions {
  /** Whether the common name stands for a host where there is no alternative name. */
  readonly allowCommonName: boolean;
}

/** Whether the certificate says that its owner is `id`. */
export function provesIdentity(certificate: Certificate, id: PeerIdentity, options: IdentityOptions): boolean {
  if (id.type === IdType.DerAsn1Dn && sameDn(id.data, certificate.subject)) return certificate.subjectName.length > 0;
  return namesOf(certificate, options).some(({ type, data }) => {
    if (type !== id.type) return false;
    switch (type) {
      case IdType.Fqdn:
        return lowerCase(decodeText(data)) === lowerCase(decodeText(id.data));
      case IdType.Rfc822Address:
        return sameMailbox(decodeText(data), decodeText(id.data));
      case IdType.DerAsn1Dn:
        return sameDn(data, id.data);
      default:
        return equalBytes(data, id.data);
    }
  });
}

/** All identities that the certificate proves, the best for an ID payload first: the subject. */
export function provenIdentities(certificate: Certificate, options: IdentityOptions): PeerIdentity[] {
  const subject = { type: IdType.DerAsn1Dn, data: certificate.subject };
  return [...(certificate.subjectName.length > 0 ? [subject] : []), ...namesOf(certificate, options)];
}

/** Names beside the subject. */
function namesOf({ subject, extensions }: Certificate, { allowCommonName }: IdentityOptions): PeerIdentity[] {
  const { subjectAltName } = extensions;
  if (subjectAltName === undefined) return allowCommonName ? commonNames(subject) : [];
  return subjectAltName.flatMap((name): PeerIdentity[] => {
    switch (name.kind) {
      case 'dns':
        // A name with a star or a dot at its end is one that no ID payload may have (RFC 7296 §3.5).
        return /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/i.test(name.text) ? [{ type: IdType.Fqdn, data: utf8(name.text) }] : [];
      case 'email':
        // Of a name without a mailbox and a host no ID payload can be proven.
        return name.text.lastIndexOf('@') > 0 ? [{ type: IdType.Rfc822Address, data: utf8(name.text) }] : [];
      case 'ip':
        return [{ type: name.bytes.length === 4 ? IdType.Ipv4Address : IdType.Ipv6Address, data: name.bytes }];
      case 'dn':
        return [{ type: IdType.DerAsn1Dn, data: name.der }];
      default:
        return [];
    }
  });
}

/** The last common name is the most specific one (RFC 6125 §2.3.1). */
function commonNames(subject: Uint8Array): PeerIdentity[] {
  const names = readDn(subject)
    .flat()
    .filter(({ oid, tag }) => oid === COMMON_NAME && tag !== DerTag.BMP_STRING);
  const text = decodeText(names[names.length - 1]?.value ?? new Uint8Array(0));
  return /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/i.test(text) ? [{ type: IdType.Fqdn, data: utf8(text) }] : [];
}

/** ASCII letters only: others are not in a host name. */
function lowerCase(text: string): string {
  return text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** The host without regard to case, what is before it as it stands (RFC 5280 §7.5). */
function sameMailbox(a: string, b: string): boolean {
  const [left, right] = [a.lastIndexOf('@'), b.lastIndexOf('@')];
  return left > 0 && a.slice(0, left) === b.slice(0, right) && lowerCase(a.slice(left)) === lowerCase(b.slice(right));
}

/** `fqdn gw1.example.org`: with the type under which documents know it. */
export function describeIdentity(id: PeerIdentity): string {
  switch (id.type) {
    case IdType.Fqdn:
      return `fqdn ${formatIdentity(id)}`;
    case IdType.Rfc822Address:
      return `email ${formatIdentity(id)}`;
    case IdType.DerAsn1Dn:
      return `dn ${formatIdentity(id)}`;
    case IdType.Ipv4Address:
    case IdType.Ipv6Address:
      return id.data.length === 4 || id.data.length === 16
        ? `address ${formatAddress(addressFromBytes(id.data))}`
        : formatIdentity(id);
    default:
      return formatIdentity(id);
  }
}

/**
 * Whether a pattern with `*` and `?` fits the name, as libvirt's tls_allowed_dn_list has it. The order of the attributes
 * is that of the encoding or, as newer GnuTLS prints it, the other way round; blanks after commas do not count.
 * A comma or another special character within a value never fits the one that parts attributes in a pattern.
 */
export function matchesDnPattern(subject: Uint8Array, pattern: string): boolean {
  const parts = dnParts(subject) ?? [];
  // GnuTLS calls it EMAIL.
  const wanted = tokens(pattern.replace(/(?<!\\),\s+/g, ',').replace(/(^|,)(?:EMAIL|E)=/gi, '$1emailAddress='));
  return [parts, [...parts].reverse()].some((form) => matchTokens(tokens(form.join(',')), wanted));
}

/** A backslash and what follows it are one. */
function tokens(text: string): string[] {
  return text.match(/\\.|./gsu) ?? [];
}

/** In time that grows with the product of both lengths at most, whatever the pattern. */
function matchTokens(text: readonly string[], pattern: readonly string[]): boolean {
  let [at, wanted, star, resume] = [0, 0, -1, 0];
  while (at < text.length) {
    if (pattern[wanted] === '*') {
      star = wanted++;
      resume = at;
    } else if (wanted < pattern.length && (pattern[wanted] === '?' || pattern[wanted] === text[at])) {
      wanted++;
      at++;
    } else if (star >= 0) {
      wanted = star + 1;
      at = ++resume;
    } else {
      return false;
    }
  }
  while (pattern[wanted] === '*') wanted++;
  return wanted === pattern.length;
}
