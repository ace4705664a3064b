/**
 * Warnings of pre-shared keys that more than one peer knows (RFC 7296 §2.15). Such a key proves that a peer has it, and not
 * which of its holders the peer is.
 */
import { SetMap } from '../base/set-map.ts';
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

/** Which tunnels authenticate which peers by which secret, to warn of keys that several peers know. */
export class KeyHolders {
  /** By secret, then by peer. BOUNDED, all three: one entry for each tunnel. */
  readonly #bySecret = new Map<string, SetMap<string, string>>();
  readonly #counts = new Map<string, number>();
  readonly #known = new Map<string, { readonly secret: string; readonly peer: string }>();

  /** Replaces what was known of the tunnel. */
  set(document: SectunnelDocument): void {
    const { name } = document;
    this.delete(name);
    const key = keyOfPeer(document);
    if (key === undefined) return;
    const [secret, peer] = [secretKey(key.secret), peerKey(document)];
    this.#known.set(name, { secret, peer });
    const holders = this.#bySecret.get(secret) ?? new SetMap();
    this.#bySecret.set(secret, holders);
    holders.add(peer, name);
    this.#counts.set(secret, (this.#counts.get(secret) ?? 0) + 1);
  }

  delete(name: string): void {
    const known = this.#known.get(name);
    if (known === undefined) return;
    const { secret, peer } = known;
    this.#known.delete(name);
    this.#bySecret.get(secret)?.delete(peer, name);
    const left = this.#counts.get(secret)! - 1;
    this.#counts.set(secret, left);
    if (left > 0) return;
    this.#counts.delete(secret);
    this.#bySecret.delete(secret);
  }

  /** Warns of a document whose key also authenticates other peers of other tunnels. */
  warning(document: SectunnelDocument): string[] {
    const { name } = document;
    const key = keyOfPeer(document);
    if (key === undefined) return [];
    const [secret, peer] = [secretKey(key.secret), peerKey(document)];
    const before = this.#known.get(name);
    // Of the tunnel itself as it was, where that is not among those of the same peer.
    const own = before?.secret === secret && before.peer !== peer ? 1 : 0;
    const holders = this.#bySecret.get(secret);
    const others = (this.#counts.get(secret) ?? 0) - (holders?.get(peer).size ?? 0) - own;
    if (holders === undefined || others === 0) return [];
    const names: string[] = [];
    for (const other of holders.valuesExcept(peer)) {
      if (other !== name && names.push(other) === MAX_LISTED) break;
    }
    return [
      `line ${key.line}: the secret is also that of tunnel ${listSome(names, MAX_LISTED, ', ', others)}, which has another peer: a host that knows it can claim either identity. Give each tunnel a secret of its own`,
    ];
  }
}

function secretKey(secret: SecretReference): string {
  return secret.by === 'uuid' ? `uuid ${secret.uuid}` : `usage ${secret.usage}`;
}

/** Equal for the same peer; a tunnel without an identity of its peer has one that no other has. */
function peerKey({ name, sa: { remote } }: SectunnelDocument): string {
  return remote.id === undefined ? `of ${name}` : `${remote.id.type} ${remote.id.text}`;
}
