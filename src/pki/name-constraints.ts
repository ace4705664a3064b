/**
 * Name constraints (RFC 5280 §4.2.1.10, §6.1.3 b and c): whether the names of a certificate lie where those that issued
 * it may give names. Distinguished names, host names, mail and IP addresses and URIs; other kinds are refused where
 * they are constrained, as RFC 5280 §4.2.1.10 wants for what is not understood.
 */

import { canonicalDn, readDn } from '../base/asn1/dn.ts';
import { assertNever } from '../base/assert.ts';
import { decodeText } from '../base/text.ts';
import type { Certificate } from './certificate.ts';
import { formatGeneralName, type GeneralName, type NameSubtrees } from './general-name.ts';

/** Contents of object identifiers, hexadecimal. */
const EMAIL_ADDRESS = '2a864886f70d010901';
const COMMON_NAME = '550403';

/** What of the names is against the constraints, for people; `undefined` when all is well. */
export function constraintProblem(certificate: Certificate, constraints: readonly NameSubtrees[]): string | undefined {
  if (constraints.length === 0) return undefined;
  for (const name of constrainedNames(certificate)) {
    for (const { permitted, excluded } of constraints) {
      const text = formatGeneralName(name);
      const against = excluded.find((subtree) => sameKind(name, subtree) && isWithin(name, subtree, true));
      if (against !== undefined) return `${text} is in ${formatGeneralName(against)}, which is excluded`;
      const allowed = permitted.filter((subtree) => sameKind(name, subtree));
      if (allowed.length > 0 && !allowed.some((subtree) => isWithin(name, subtree, false))) {
        return `${text} is not in ${allowed.map(formatGeneralName).join(' or ')}, the only ones that are permitted`;
      }
    }
  }
  return undefined;
}

/** The subject, and what in it stands for an address, beside the alternative names. */
function constrainedNames({ subject, subjectName, extensions }: Certificate): GeneralName[] {
  const names: GeneralName[] = [...(extensions.subjectAltName ?? [])];
  if (subjectName.length === 0) return names;
  const hasHost = names.some(({ kind }) => kind === 'dns');
  names.push({ kind: 'dn', der: subject });
  for (const { oid, value } of readDn(subject).flat()) {
    const text = decodeText(value);
    if (oid === EMAIL_ADDRESS) names.push({ kind: 'email', text });
    // A common name is taken for a host name only where no alternative name says another.
    if (oid === COMMON_NAME && !hasHost && /^[a-z0-9_-]+(\.[a-z0-9_-]+)+\.?$/i.test(text))
      names.push({ kind: 'dns', text });
  }
  return names;
}

function sameKind(name: GeneralName, subtree: GeneralName): boolean {
  if (name.kind === 'ip' && subtree.kind === 'ip') return 2 * name.bytes.length === subtree.bytes.length;
  return name.kind === subtree.kind && !(name.kind === 'other' && subtree.kind === 'other' && name.tag !== subtree.tag);
}

/** @param doubtful what to say of a name that cannot be decided */
function isWithin(name: GeneralName, subtree: GeneralName, doubtful: boolean): boolean {
  switch (name.kind) {
    case 'dns':
      return subtree.kind === 'dns' && isHostWithin(name.text, subtree.text);
    case 'email':
      return subtree.kind === 'email' && isMailWithin(name.text, subtree.text, doubtful);
    case 'uri':
      return subtree.kind === 'uri' && isUriWithin(name.text, subtree.text, doubtful);
    case 'ip': {
      if (subtree.kind !== 'ip') return false;
      const { bytes } = name;
      return bytes.every((byte, at) => ((byte ^ subtree.bytes[at]!) & subtree.bytes[bytes.length + at]!) === 0);
    }
    case 'dn': {
      const [names, base] = subtree.kind === 'dn' ? [canonicalDn(name.der), canonicalDn(subtree.der)] : [];
      if (names === undefined || base === undefined) return doubtful;
      return base.every((set, at) => set === names[at]);
    }
    case 'other':
      return doubtful;
    default:
      return assertNever(name, 'name constraint');
  }
}

/** Without the case of letters, and without a dot at the end, which changes nothing. */
function plainHost(text: string): string {
  return text.toLowerCase().replace(/\.$/, '');
}

/** "Any DNS name that can be constructed by simply adding zero or more labels to the left-hand side". */
function isHostWithin(name: string, subtree: string): boolean {
  const [host, base] = [plainHost(name), plainHost(subtree)];
  if (base === '' || host === base) return true;
  return host.endsWith(base.startsWith('.') ? base : `.${base}`);
}

/** A mailbox, all mailboxes on a host, or with a leading dot those on all hosts in a domain. */
function isMailWithin(name: string, subtree: string, doubtful: boolean): boolean {
  const at = name.lastIndexOf('@');
  if (at < 0) return doubtful;
  if (subtree.includes('@')) return plainHost(name) === plainHost(subtree);
  return isExactHost(name.slice(at + 1), subtree);
}

/** The host of a URI, which must be a name (RFC 5280 §4.2.1.10). */
function isUriWithin(name: string, subtree: string, doubtful: boolean): boolean {
  const host = /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?([a-z0-9_.-]+)(?::\d*)?(?:[/?#]|$)/i.exec(name)?.[1];
  if (host === undefined || /^[\d.]+$/.test(host)) return doubtful;
  return isExactHost(host, subtree);
}

/** With a leading dot what is below it, else the host alone. */
function isExactHost(name: string, subtree: string): boolean {
  const [host, base] = [plainHost(name), plainHost(subtree)];
  return base.startsWith('.') ? host.endsWith(base) : base === '' || host === base;
}
