/**
 * The provider in plain JavaScript, on @noble/ciphers, @noble/hashes and @noble/curves: needs no Node API, has every
 * algorithm of the table, and is what the others are tested against.
 */
import { hmac as nobleHmac } from '@noble/hashes/hmac.js';
import { sha1 } from '@noble/hashes/legacy.js';
import { sha256, sha384, sha512 } from '@noble/hashes/sha2.js';
import { assertNever } from '../../base/assert.ts';
import { secretBytes } from '../../base/secret-bytes.ts';
import { dhGroupById, encryptionById, integrityById, prfById } from '../algorithms.ts';
import type { HmacHash, Mac } from '../macs.ts';
import { buildProvider } from '../provider.ts';
import type { Algorithm, CryptoProvider } from '../types.ts';
import { nobleAead, nobleCbc, nobleCbcMac, nobleCtr } from './ciphers.ts';
import { nobleDhKeyPair } from './dh.ts';

const hashes = { sha1, sha256, sha384, sha512 };

/**
 * Cryptography in JavaScript alone (the noble libraries), wherever JavaScript runs. Slower than the others by far.
 */
export const nobleProvider: CryptoProvider = buildProvider({
  name: 'noble',
  supports,
  aead: nobleAead,
  cbc: nobleCbc,
  ctr: nobleCtr,
  hmac,
  cbcMac: nobleCbcMac,
  dhKeyPair: nobleDhKeyPair,
  sha1(...parts) {
    const hash = sha1.create();
    for (const part of parts) hash.update(part);
    return hash.digest();
  },
});

/** The whole table. */
function supports(algorithm: Algorithm): boolean {
  switch (algorithm.kind) {
    case 'encryption':
      return encryptionById(algorithm.id, algorithm.keyBits) !== undefined;
    case 'integrity':
      return integrityById(algorithm.id) !== undefined;
    case 'prf':
      return prfById(algorithm.id) !== undefined;
    case 'dh':
      return dhGroupById(algorithm.id) !== undefined;
    default:
      return assertNever(algorithm, 'supports');
  }
}

/** The hash states behind both pads are kept and cloned, so that a key is hashed once only. */
function hmac(hash: HmacHash, key: Uint8Array): Mac {
  const keyed = nobleHmac.create(hashes[hash], key);
  return {
    compute(...parts) {
      const mac = keyed.clone();
      for (const part of parts) mac.update(part);
      const digest = secretBytes(mac.outputLen);
      // Erases the clone too.
      mac.digestInto(digest);
      return digest;
    },
    wipe: () => keyed.destroy(),
  };
}
