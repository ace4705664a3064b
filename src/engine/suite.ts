/** From the names and keys of a command to a cipher. */
import { invariant } from '../base/assert.ts';
import { secretCopy } from '../base/secret-bytes.ts';
import { encryptionByName, integrityByName } from '../crypto/algorithms.ts';
import type { CipherKeys, CryptoProvider, PacketCipher } from '../crypto/types.ts';
import type { ChildSa } from '../ike/events.ts';

export interface NamedSuite {
  readonly encryption: string;
  readonly integrity: string | undefined;
  readonly keys: CipherKeys;
}

/** The cipher of an SA that is being installed. It copies the keys of the command, which are the caller's to wipe. */
export function installedCipher(crypto: CryptoProvider, { encryption, integrity, keys }: NamedSuite): PacketCipher {
  const cipher = encryptionByName(encryption);
  const mac = integrity === undefined ? undefined : integrityByName(integrity);
  invariant(cipher !== undefined && (integrity === undefined) === (mac === undefined), 'a suite of unknown algorithms');
  return crypto.packetCipher({ encryption: cipher, integrity: mac }, keys);
}

/** The keys of both directions of a CHILD SA. */
export type EspKeys = Pick<ChildSa, 'keysIn' | 'keysOut'>;

export function copyEspKeys({ keysIn, keysOut }: EspKeys): EspKeys {
  return { keysIn: copyKeys(keysIn), keysOut: copyKeys(keysOut) };
}

export function wipeEspKeys({ keysIn, keysOut }: EspKeys): void {
  wipeKeys(keysIn);
  wipeKeys(keysOut);
}

function copyKeys({ encryption, integrity }: CipherKeys): CipherKeys {
  return { encryption: secretCopy(encryption), integrity: secretCopy(integrity) };
}

export function wipeKeys({ encryption, integrity }: CipherKeys): void {
  encryption.fill(0);
  integrity.fill(0);
}
