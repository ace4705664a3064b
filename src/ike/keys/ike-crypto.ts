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

/** Makes the ciphers of both directions. */
export function bindKeys(crypto: CryptoProvider, suite: IkeSuite, keys: IkeKeys, initiator: boolean): IkeCrypto {
  const ours = crypto.packetCipher(suite.cipher, initiator ? keys.initiator : keys.responder);
  const theirs = crypto.packetCipher(suite.cipher, initiator ? keys.responder : keys.initiator);
  return { suite, keys, outbound: ours, inbound: theirs };
}

export function wipeCrypto(crypto: IkeCrypto): void {
  crypto.keys.wipe();
  crypto.outbound.wipe();
  crypto.inbound.wipe();
}
