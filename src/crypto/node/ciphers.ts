/**
 * Packet ciphers on node:crypto. What costs here is the cipher object (about 4 µs), not the cipher: AES-CBC and its
 * MACs keep one for the life of the key, the other modes have to make one for each packet.
 *
 * AES-GCM, AES-CCM, ChaCha20-Poly1305, AES-CBC and AES-CTR (NIST SP 800-38A, C, D; RFC 8439).
 */
import { type CipherCCM, type CipherCCMTypes, createCipheriv, createDecipheriv, getCiphers } from 'node:crypto';
import { writeU32 } from '../../base/bytes.ts';
import { moveSecret, secretBytes, secretCopy } from '../../base/secret-bytes.ts';
import type { CbcMac } from '../aes-mac.ts';
import { type Aead, aeadMode, type BareCipher, bareMode, type CtrStream, copyBytes } from '../packet.ts';
import type { EncryptionAlgorithm } from '../types.ts';

const BLOCK = 16;

const available = new Set(getCiphers());

export function supportsCipher(algorithm: EncryptionAlgorithm): boolean {
  return algorithm.keyLength === 0 || available.has(opensslName(algorithm));
}

/** What AES-XCBC and AES-CMAC need. */
export const hasAesCbc: boolean = available.has('aes-128-cbc');

function aesName(key: Uint8Array, mode: 'cbc' | 'ctr'): string {
  return `aes-${key.length * 8}-${mode}`;
}

function opensslName(algorithm: EncryptionAlgorithm): string {
  const mode = algorithm.aead ? aeadMode(algorithm) : bareMode(algorithm);
  return mode === 'chacha20poly1305' ? 'chacha20-poly1305' : `aes-${algorithm.keyLength * 8}-${mode}`;
}

export function nodeAead(algorithm: EncryptionAlgorithm, packetKey: Uint8Array): Aead {
  // One type stands for all AEADs: CCM's interface is the widest, and the others ignore what is CCM's alone.
  const name = opensslName(algorithm) as CipherCCMTypes;
  const key = secretCopy(packetKey);
  const { icvLength } = algorithm;
  const options = { authTagLength: icvLength };
  // CCM must be told the length before anything else (RFC 3610 §2.2).
  const aadOptions = aeadMode(algorithm) === 'ccm' ? (length: number) => ({ plaintextLength: length }) : undefined;
  return {
    seal(nonce, aad, buffer, dataAt, dataLength) {
      const cipher: CipherCCM = createCipheriv(name, key, nonce, options);
      cipher.setAAD(aad, aadOptions?.(dataLength) as { plaintextLength: number });
      const dataEnd = dataAt + dataLength;
      buffer.set(cipher.update(buffer.subarray(dataAt, dataEnd)), dataAt);
      cipher.final();
      copyBytes(cipher.getAuthTag(), 0, buffer, dataEnd, icvLength);
    },
    open(nonce, aad, buffer, dataAt, dataLength) {
      const decipher = createDecipheriv(name, key, nonce, options);
      const dataEnd = dataAt + dataLength;
      decipher.setAuthTag(buffer.subarray(dataEnd, dataEnd + icvLength));
      decipher.setAAD(aad, aadOptions?.(dataLength) as { plaintextLength: number });
      try {
        const plaintext = decipher.update(buffer.subarray(dataAt, dataEnd));
        decipher.final();
        buffer.set(plaintext, dataAt);
        // It may have held keys: a record of state does.
        plaintext.fill(0);
        return true;
      } catch {
        return false;
      }
    },
    wipe: () => void key.fill(0),
  };
}

/**
 * AES-CBC with one cipher object for each direction. A CBC object remembers its last ciphertext block C, and encrypts
 * the next block P as E(P xor C); so a packet may begin anywhere in its life:
 * - to encrypt, `counter xor C` goes in where the IV stands: out comes E(counter), the IV that is wanted, and what
 *   follows is chained to it;
 * - to decrypt, the IV goes in as if it were ciphertext: its own plaintext is thrown away, and what follows is right.
 */
export function nodeCbc(key: Uint8Array): BareCipher {
  const name = aesName(key, 'cbc');
  const chain = cbcChain(name, key);
  const decipher = createDecipheriv(name, key, new Uint8Array(BLOCK));
  decipher.setAutoPadding(false);
  return {
    encrypt(buffer, ivAt, dataLength, counterHigh, counterLow) {
      writeU32(buffer, ivAt, 0);
      writeU32(buffer, ivAt + 4, 0);
      writeU32(buffer, ivAt + 8, counterHigh);
      writeU32(buffer, ivAt + 12, counterLow);
      buffer.set(chain.encrypt(buffer.subarray(ivAt, ivAt + BLOCK + dataLength)), ivAt);
    },
    decrypt(buffer, ivAt, dataLength) {
      buffer.set(decipher.update(buffer.subarray(ivAt, ivAt + BLOCK + dataLength)).subarray(BLOCK), ivAt + BLOCK);
    },
    wipe() {
      chain.wipe();
      release(decipher);
    },
  };
}

export function nodeCbcMac(key: Uint8Array): CbcMac {
  const chain = cbcChain(aesName(key, 'cbc'), key);
  return {
    compute(message) {
      const encrypted = chain.encrypt(message);
      return moveSecret(encrypted.subarray(encrypted.length - BLOCK));
    },
    wipe: chain.wipe,
  };
}

interface CbcChain {
  /** CBC with a zero IV. Overwrites the first block of `data`, which is whole blocks and at least one. */
  encrypt(data: Uint8Array): Uint8Array;
  wipe(): void;
}

function cbcChain(name: string, key: Uint8Array): CbcChain {
  const last = secretBytes(BLOCK);
  const cipher = createCipheriv(name, key, last);
  return {
    encrypt(data) {
      for (let i = 0; i < BLOCK; i++) data[i]! ^= last[i]!;
      const encrypted = cipher.update(data);
      copyBytes(encrypted, encrypted.length - BLOCK, last, 0, BLOCK);
      return encrypted;
    },
    wipe() {
      release(cipher);
      last.fill(0);
    },
  };
}

/** Ends the OpenSSL context, which overwrites its key schedule. */
function release(cipher: { final(): Buffer }): void {
  try {
    cipher.final();
  } catch {
    // It had been ended before.
  }
}

export function nodeCtr(packetKey: Uint8Array): CtrStream {
  const name = aesName(packetKey, 'ctr');
  const key = secretCopy(packetKey);
  return {
    crypt(counterBlock, buffer, dataAt, dataLength) {
      const cipher = createCipheriv(name, key, counterBlock);
      buffer.set(cipher.update(buffer.subarray(dataAt, dataAt + dataLength)), dataAt);
      release(cipher);
    },
    wipe: () => void key.fill(0),
  };
}
