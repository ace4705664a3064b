/**
 * The provider on node:crypto, which is OpenSSL: quick, and there wherever Node is. What the OpenSSL at hand was built
 * without is not claimed.
 */
import { createHmac, getHashes, hash } from 'node:crypto';
import { assertNever } from '../../base/assert.ts';
import { concatBytes } from '../../base/bytes.ts';
import { secretCopy } from '../../base/secret-bytes.ts';
import { constructionOf, type HmacHash, type Mac } from '../macs.ts';
import { buildProvider, type Primitives } from '../provider.ts';
import type { Algorithm, CryptoProvider } from '../types.ts';
import { hasAesCbc, nodeAead, nodeCbc, nodeCbcMac, nodeCtr, supportsCipher } from './ciphers.ts';
import { nodeDhKeyPair, supportsGroup } from './dh.ts';

/** For providers that do some of it quicker. */
export const nodePrimitives: Primitives = {
  name: 'node',
  supports,
  aead: nodeAead,
  cbc: nodeCbc,
  ctr: nodeCtr,
  hmac,
  cbcMac: nodeCbcMac,
  dhKeyPair: nodeDhKeyPair,
  // In one call: an object for each hash takes twice as long.
  sha1: (...parts) => plain(hash('sha1', concatBytes(...parts), 'buffer')),
};

/** Cryptography by Node's own `crypto` module, that is OpenSSL. */
export const nodeProvider: CryptoProvider = buildProvider(nodePrimitives);

function supports(algorithm: Algorithm): boolean {
  switch (algorithm.kind) {
    case 'encryption':
      return supportsCipher(algorithm);
    case 'integrity':
    case 'prf': {
      const construction = constructionOf(algorithm);
      if (construction === undefined) return false;
      return construction.type === 'aes' ? hasAesCbc : getHashes().includes(construction.hash);
    }
    case 'dh':
      return supportsGroup(algorithm);
    default:
      return assertNever(algorithm, 'supports');
  }
}

/** A new HMAC object with a raw key takes about 2 µs, no longer than with a `KeyObject`, which could not be wiped. */
function hmac(name: HmacHash, givenKey: Uint8Array): Mac {
  const key = secretCopy(givenKey);
  return {
    compute(...parts) {
      const mac = createHmac(name, key);
      for (const part of parts) mac.update(part);
      return plain(mac.digest());
    },
    wipe: () => void key.fill(0),
  };
}

/** Not a Buffer, whose `slice` shares memory where a Uint8Array's copies. */
function plain(buffer: Buffer): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length);
}
