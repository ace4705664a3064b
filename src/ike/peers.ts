/**
 * The authenticated IKE SAs by peer, and the scope in which the identity of a peer holds (RFC 7296 §2.4, §2.15).
 *
 * An identity holds in the connection that it was proven for. One IKE SA acts on another (INITIAL_CONTACT, duplicates,
 * inner addresses) only when both belong to the same connection and the same kind of credential proved the same peer:
 *
 * - A certificate under the anchors of the connection, or the pre-shared key of a connection that names its peer. The
 *   holder of the credential is that peer.
 * - A pre-shared key that all peers of a connection share. Each peer can claim the identity of any other, so the
 *   identity alone proves nothing. Two IKE SAs belong to one peer only when the peer set up both from the same address
 *   and port, read our answers there, and has not moved since. Before anything is taken from another IKE SA with the
 *   same claimed identity, its peer is probed (`duplicates.ts`).
 */
import { addressKey, sameSocketAddress } from '../base/address.ts';
import { type Identity, identityKey } from '../base/identity.ts';
import { SetMap } from '../base/set-map.ts';
import type { IkeSession } from './session/session.ts';
import { isLive, lifeOf, liveOf, type Origin } from './session/state.ts';

interface Keys {
  readonly peer: string;
  /** Both identities; `undefined` where the credential does not prove the peer's. */
  readonly identities: string | undefined;
}

export class PeerTable {
  /** BOUNDED, all three: one entry an IKE SA. */
  readonly #byPeer = new SetMap<string, IkeSession>();
  readonly #byIdentities = new SetMap<string, IkeSession>();
  readonly #keys = new Map<IkeSession, Keys>();

  /** Adds an IKE SA once it is authenticated. */
  add(session: IkeSession): void {
    if (this.#keys.has(session) || !isLive(session.state)) return;
    const { localId, remoteId, credential } = session.state.peers;
    const identities = credential === 'shared-key' ? undefined : identitiesKey(localId, remoteId);
    const keys = { peer: peerKey(session), identities };
    this.#keys.set(session, keys);
    this.#byPeer.add(keys.peer, session);
    if (identities !== undefined) this.#byIdentities.add(identities, session);
  }

  forget(session: IkeSession): void {
    const keys = this.#keys.get(session);
    if (keys === undefined) return;
    this.#keys.delete(session);
    this.#byPeer.delete(keys.peer, session);
    if (keys.identities !== undefined) this.#byIdentities.delete(keys.identities, session);
  }

  /** The IKE SAs of the peer of a session, itself included; the oldest first. */
  withSamePeer(session: IkeSession): readonly IkeSession[] {
    const keys = this.#keys.get(session);
    if (keys === undefined) return [];
    return [...this.#byPeer.get(keys.peer)].filter((other) => isPlaceShared(session, other));
  }

  isSamePeer(a: IkeSession, b: IkeSession): boolean {
    const keys = this.#keys.get(a);
    return keys !== undefined && keys.peer === this.#keys.get(b)?.peer && isPlaceShared(a, b);
  }

  /** Whether there is an IKE SA between two identities whose credential proves the remote one. */
  has(localId: Identity, remoteId: Identity): boolean {
    return this.#byIdentities.get(identitiesKey(localId, remoteId)).size > 0;
  }
}

/** Whether both peers claim the same identity in one connection, by a key that other peers have too. */
export function isSameClaim(a: IkeSession, b: IkeSession): boolean {
  return isShared(a) && isShared(b) && claimKey(a) === claimKey(b);
}

function isShared({ state }: IkeSession): boolean {
  return isLive(state) && state.peers.credential === 'shared-key';
}

/** With a shared key the place identifies the peer. Another host may have the place that a peer moved away from. */
function isPlaceShared(a: IkeSession, b: IkeSession): boolean {
  if (!isShared(a) || originOf(a) === originOf(b)) return true;
  return [a, b].every((session) => {
    const place = originOf(session)?.shownAt;
    return place !== undefined && sameSocketAddress(place, session.path.remote);
  });
}

function originOf({ state }: IkeSession): Origin | undefined {
  return lifeOf(state)?.origin;
}

/** The local identity of a connection is fixed. */
function claimKey({ state, connectionName }: IkeSession): string {
  return isLive(state) ? `${state.peers.credential} ${identityKey(state.peers.remoteId)} ${connectionName}` : '';
}

/** Constant for the life of an IKE SA and of those that replace it by rekeying. */
function peerKey(session: IkeSession): string {
  if (!isShared(session)) return claimKey(session);
  const { shownAt: place, id } = liveOf(session.state).origin;
  return `${claimKey(session)} ${place === undefined ? `#${id}` : `${addressKey(place.address)} ${place.port}`}`;
}

function identitiesKey(localId: Identity, remoteId: Identity): string {
  return `${identityKey(localId)} ${identityKey(remoteId)}`;
}
