/**
 * The provider on libipsec-mb: AES-GCM in one call a packet, the quickest there is. Everything else is left to the
 * providers behind it.
 */
import { NativeUnavailableError } from '../../sys/ffi.ts';
import { addressMemo, addressOf, alignedMemory } from '../../sys/native-memory.ts';
import { releaseOnce } from '../../sys/release.ts';
import { nodePrimitives } from '../node/provider.ts';
import { type Aead, aeadMode, equalAt } from '../packet.ts';
import { buildProvider, openOrUnavailable } from '../provider.ts';
import type { Algorithm, CryptoProvider, EncryptionAlgorithm } from '../types.ts';
import { ipsecMb } from './library.ts';

/** @throws ProviderUnavailableError saying what is missing */
export function openIpsecMbProvider(): CryptoProvider {
  openOrUnavailable(ipsecMb, NativeUnavailableError);
  return buildProvider({ ...nodePrimitives, name: 'ipsec-mb', supports, aead: ipsecMbAead });
}

function supports(algorithm: Algorithm): boolean {
  return (
    algorithm.kind === 'encryption' &&
    algorithm.aead &&
    aeadMode(algorithm) === 'gcm' &&
    ipsecMb().gcm.has(algorithm.keyLength)
  );
}

/**
 * One SA's memory: struct gcm_key_data (1,008 bytes in version 1.3, 1,264 in 2.0; aligned to 64), struct gcm_context_data
 * (80 and 88 bytes), and the tag that decryption computes.
 */
const CONTEXT_AT = 1280;
const TAG_AT = CONTEXT_AT + 128;
const MEMORY = TAG_AT + 16;

export function ipsecMbAead(algorithm: EncryptionAlgorithm, key: Uint8Array): Aead {
  const functions = ipsecMb().gcm.get(algorithm.keyLength);
  if (functions === undefined) throw new Error(`bug: no functions for ${algorithm.name}`);
  const { encrypt, decrypt, expand } = functions;
  const { icvLength } = algorithm;
  const { bytes, address: keyData } = alignedMemory(MEMORY);
  const context = keyData + CONTEXT_AT;
  const computed = keyData + TAG_AT;
  const computedTag = bytes.subarray(TAG_AT);
  const nonceAddress = addressMemo();
  const aadAddress = addressMemo();
  // The context's place serves for the raw key, so that no copy is left in V8's heap.
  bytes.set(key, CONTEXT_AT);
  expand(context, keyData);
  bytes.fill(0, CONTEXT_AT);
  const aead: Aead = {
    seal(nonce, aad, buffer, dataAt, dataLength) {
      const data = addressOf(buffer) + dataAt;
      const iv = nonceAddress(nonce);
      const tag = data + dataLength;
      encrypt(keyData, context, data, data, dataLength, iv, aadAddress(aad), aad.length, tag, icvLength);
    },
    open(nonce, aad, buffer, dataAt, dataLength) {
      const data = addressOf(buffer) + dataAt;
      const iv = nonceAddress(nonce);
      decrypt(keyData, context, data, data, dataLength, iv, aadAddress(aad), aad.length, computed, icvLength);
      const dataEnd = dataAt + dataLength;
      if (equalAt(buffer, dataEnd, computedTag, icvLength)) return true;
      buffer.fill(0, dataAt, dataEnd);
      return false;
    },
    wipe: () => release(),
  };
  const release = releaseOnce(aead, () => void bytes.fill(0));
  return aead;
}
