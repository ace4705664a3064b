/** The keys of an IKE SA, bound to the ciphers of both directions. */
import type { CryptoProvider, PacketCipher } from '../../crypto/types.ts';
import type { IkeKeys, IkeSuite } from './keys.ts';

/** Suite, keys and ciphers of an IKE SA, from the response to IKE_SA_INIT or to its rekeying on. */
export interface IkeCrypto {
  readonly suite: IkeSuite;
  readonly keys: IkeKeys;
  readonly outbound: PacketCipher;
  readonly inbound: PacketCipher;
}

/** Makes the ciphers of both directions. `we` says which side of the IKE SA we are. */
export function bindKeys(
  crypto: CryptoProvider,
  suite: IkeSuite,
  keys: IkeKeys,
  we: 'initiator' | 'responder',
): IkeCrypto {
  const peer = we === 'initiator' ? 'responder' : 'initiator';
  const outbound = crypto.packetCipher(suite.cipher, keys[we]);
  const inbound = crypto.packetCipher(suite.cipher, keys[peer]);
  return { suite, keys, outbound, inbound };
}

export function wipeCrypto(crypto: IkeCrypto): void {
  crypto.keys.wipe();
  crypto.outbound.wipe();
  crypto.inbound.wipe();
}
