/** What a peer proves its identity with, and the address at which it has shown that it receives (`peers.ts`). */
import { type SocketAddress, sameAddress } from '../../base/address.ts';
import type { RemotePeer } from '../config.ts';
import type { Path } from '../events.ts';

/** `own-key`: the pre-shared key of a connection that names its peer; `shared-key`: one that all peers of a connection have. */
export type Credential = 'certificate' | 'own-key' | 'shared-key';

export function credentialOf({ auth, id }: RemotePeer): Credential {
  if (auth === 'signature') return 'certificate';
  return id === undefined ? 'shared-key' : 'own-key';
}

/**
 * The address and port where the peer of an IKE SA read our answers; `undefined` when IKE_AUTH came from another address
 * than IKE_SA_INIT: a peer that waits for no answer can forge its source address.
 */
export function shownAt(askedFrom: Path, path: Path): SocketAddress | undefined {
  return sameAddress(askedFrom.remote.address, path.remote.address) ? path.remote : undefined;
}
