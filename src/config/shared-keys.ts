/**
 * Warnings of pre-shared keys that more than one peer knows (RFC 7296 §2.15). Such a key proves that a peer has it, and not
 * which of its holders the peer is.
 */
import { listSome } from '../base/text.ts';
import type { AuthSettings, SecretReference, SectunnelDocument } from './model.ts';

type PskSettings = Extract<AuthSettings, { readonly type: 'psk' }>;

/** The key that authenticates the peer; `undefined` where a certificate does. */
function keyOfPeer({ sa }: SectunnelDocument): PskSettings | undefined {
  return sa.auths.find((auth): auth is PskSettings => auth.type === 'psk' && auth.side !== 'local');
}

/** Warns of a document that takes any identity by one key. */
export function sharedKeyWarning(document: SectunnelDocument): string[] {
  const { remote } = document.sa;
  const key = keyOfPeer(document);
  if (key === undefined || remote.id !== undefined) return [];
  return [
    `line ${remote.line}: <remote> has no <id>, and <auth type='psk'> on line ${key.line} gives all its peers one key: each peer can claim the identity of any other. Use <auth type='x509'>, or give each peer a document of its own, with an <id> and a secret that no other peer knows`,
  ];
}

/** BOUNDED: tunnels that a warning names. */
const MAX_LISTED = 4;

/** Warns of a document whose key also authenticates other peers of other tunnels. */
export function sameKeyWarning(document: SectunnelDocument, others: Iterable<SectunnelDocument>): string[] {
  const key = keyOfPeer(document);
  if (key === undefined) return [];
  const names: string[] = [];
  for (const other of others) {
    const theirs = other.name === document.name ? undefined : keyOfPeer(other);
    if (theirs === undefined || !isSame(key.secret, theirs.secret) || haveSamePeer(document, other)) continue;
    names.push(other.name);
  }
  if (names.length === 0) return [];
  return [
    `line ${key.line}: the secret is also that of tunnel ${listSome(names, MAX_LISTED)}, which has another peer: a host that knows it can claim either identity. Give each tunnel a secret of its own`,
  ];
}

function isSame(a: SecretReference, b: SecretReference): boolean {
  if (a.by === 'uuid') return b.by === 'uuid' && a.uuid === b.uuid;
  return b.by === 'usage' && a.usage === b.usage;
}

function haveSamePeer({ sa: { remote: a } }: SectunnelDocument, { sa: { remote: b } }: SectunnelDocument): boolean {
  return a.id !== undefined && b.id !== undefined && a.id.type === b.id.type && a.id.text === b.id.text;
}
