/**
 * Packet ciphers on @noble/ciphers, which has no AES-CCM and no truncated ICVs: both are built here from what it has.
 * A new key schedule for each packet makes it slow; it is the reference and the fallback. Of ChaCha20's key each packet
 * leaves a copy in V8's heap, which cannot be erased.
 *
 * AES-GCM NIST SP 800-38D, AES-CCM RFC 3610, ChaCha20-Poly1305 RFC 8439, AES-CBC and AES-CTR NIST SP 800-38A.
 */
import { cbc, ctr, gcm } from '@noble/ciphers/aes.js';
import { chacha20poly1305 } from '@noble/ciphers/chacha.js';
import { concatBytes, writeU32 } from '../../base/bytes.ts';
import { secretCopy } from '../../base/secret-bytes.ts';
import type { CbcMac } from '../aes-mac.ts';
import { type Aead, aeadMode, type BareCipher, type CtrStream, equalAt } from '../packet.ts';
import type { EncryptionAlgorithm } from '../types.ts';

const BLOCK = 16;
const FULL_ICV = 16;
const noPadding = { disablePadding: true } as const;

/** One AEAD with its key, on whole arrays. */
interface WholeAead {
  /** Ciphertext and ICV. */
  seal(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array;
  /** The plaintext; `undefined` when the ICV does not fit. */
  open(nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Uint8Array | undefined;
  /** Erases keys of its own, where it has any. */
  wipe?(): void;
}

export function nobleAead(algorithm: EncryptionAlgorithm, packetKey: Uint8Array): Aead {
  const key = secretCopy(packetKey);
  const { icvLength } = algorithm;
  const whole = wholeAead(algorithm, key);
  return {
    seal(nonce, aad, buffer, dataAt, dataLength) {
      buffer.set(whole.seal(nonce, aad, buffer.subarray(dataAt, dataAt + dataLength)), dataAt);
    },
    open(nonce, aad, buffer, dataAt, dataLength) {
      const plaintext = whole.open(nonce, aad, buffer.subarray(dataAt, dataAt + dataLength + icvLength));
      if (plaintext === undefined) return false;
      buffer.set(plaintext, dataAt);
      return true;
    },
    wipe() {
      key.fill(0);
      whole.wipe?.();
    },
  };
}

function wholeAead(algorithm: EncryptionAlgorithm, key: Uint8Array): WholeAead {
  const { icvLength } = algorithm;
  switch (aeadMode(algorithm)) {
    case 'ccm':
      return ccm(key, icvLength);
    case 'gcm':
      return icvLength === FULL_ICV ? fullIcv((nonce, aad) => gcm(key, nonce, aad)) : truncatedGcm(key, icvLength);
    case 'chacha20poly1305':
      return fullIcv((nonce, aad) => chacha20poly1305(key, nonce, aad));
  }
}

interface NobleCipher {
  encrypt(plaintext: Uint8Array): Uint8Array;
  decrypt(sealed: Uint8Array): Uint8Array;
}

function fullIcv(make: (nonce: Uint8Array, aad: Uint8Array) => NobleCipher): WholeAead {
  return {
    seal: (nonce, aad, plaintext) => make(nonce, aad).encrypt(plaintext),
    open(nonce, aad, sealed) {
      try {
        return make(nonce, aad).decrypt(sealed);
      } catch {
        return undefined;
      }
    },
  };
}

/** To open, the plaintext is got with GCM's own CTR and sealed again, which shows what the ICV should have been. */
function truncatedGcm(key: Uint8Array, icvLength: number): WholeAead {
  const seal = (nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array =>
    gcm(key, nonce, aad)
      .encrypt(plaintext)
      .subarray(0, plaintext.length + icvLength);
  return {
    seal,
    open(nonce, aad, sealed) {
      const length = sealed.length - icvLength;
      const counterBlock = new Uint8Array(BLOCK);
      counterBlock.set(nonce);
      // The first block masks the ICV; data begin with the second (SP 800-38D §7.1).
      writeU32(counterBlock, 12, 2);
      const plaintext = ctr(key, counterBlock).decrypt(sealed.subarray(0, length));
      const expected = seal(nonce, aad, plaintext).subarray(length);
      return equalAt(sealed, length, expected, icvLength) ? plaintext : undefined;
    },
  };
}

/** Bytes of CCM's length field with a nonce of 11 bytes (RFC 4309 §4): L in RFC 3610. */
const CCM_LENGTH_BYTES = 4;

function ccm(key: Uint8Array, icvLength: number): WholeAead {
  const mac = nobleCbcMac(key);
  /** The masked ICV in front of the en- or decrypted data: CTR from block 0 on masks the ICV with the first block. */
  const crypt = (nonce: Uint8Array, front: Uint8Array, data: Uint8Array): Uint8Array => {
    const counterBlock = new Uint8Array(BLOCK);
    counterBlock[0] = CCM_LENGTH_BYTES - 1;
    counterBlock.set(nonce, 1);
    return ctr(key, counterBlock).encrypt(concatBytes(front, data));
  };
  return {
    seal(nonce, aad, plaintext) {
      const tag = mac.compute(ccmMessage(nonce, aad, plaintext, icvLength));
      const masked = crypt(nonce, tag, plaintext);
      return concatBytes(masked.subarray(BLOCK), masked.subarray(0, icvLength));
    },
    open(nonce, aad, sealed) {
      const length = sealed.length - icvLength;
      const received = new Uint8Array(BLOCK);
      received.set(sealed.subarray(length));
      const unmasked = crypt(nonce, received, sealed.subarray(0, length));
      const plaintext = unmasked.subarray(BLOCK);
      const tag = mac.compute(ccmMessage(nonce, aad, plaintext, icvLength));
      return equalAt(unmasked, 0, tag, icvLength) ? plaintext : undefined;
    },
    wipe: () => mac.wipe(),
  };
}

/** What CCM authenticates: B0, the length-prefixed associated data and the plaintext, padded (RFC 3610 §2.2). */
function ccmMessage(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array, icvLength: number): Uint8Array {
  const padded = (length: number): number => Math.ceil(length / BLOCK) * BLOCK;
  const aadBlocks = padded(2 + aad.length);
  const message = new Uint8Array(BLOCK + aadBlocks + padded(plaintext.length));
  const hasAad = 0x40;
  message[0] = hasAad | (((icvLength - 2) / 2) << 3) | (CCM_LENGTH_BYTES - 1);
  message.set(nonce, 1);
  writeU32(message, BLOCK - CCM_LENGTH_BYTES, plaintext.length);
  message[BLOCK] = aad.length >>> 8;
  message[BLOCK + 1] = aad.length;
  message.set(aad, BLOCK + 2);
  message.set(plaintext, BLOCK + aadBlocks);
  return message;
}

export function nobleCbc(packetKey: Uint8Array): BareCipher {
  const key = secretCopy(packetKey);
  const block = nobleCbcMac(key);
  return {
    encrypt(buffer, ivAt, dataLength, counterHigh, counterLow) {
      const counter = new Uint8Array(BLOCK);
      writeU32(counter, 8, counterHigh);
      writeU32(counter, 12, counterLow);
      const iv = block.compute(counter);
      buffer.set(iv, ivAt);
      const dataAt = ivAt + BLOCK;
      buffer.set(cbc(key, iv, noPadding).encrypt(buffer.subarray(dataAt, dataAt + dataLength)), dataAt);
    },
    decrypt(buffer, ivAt, dataLength) {
      const dataAt = ivAt + BLOCK;
      const iv = buffer.slice(ivAt, dataAt);
      buffer.set(cbc(key, iv, noPadding).decrypt(buffer.subarray(dataAt, dataAt + dataLength)), dataAt);
    },
    wipe() {
      key.fill(0);
      block.wipe();
    },
  };
}

export function nobleCbcMac(macKey: Uint8Array): CbcMac {
  const key = secretCopy(macKey);
  const zeroIv = new Uint8Array(BLOCK);
  return {
    compute(message) {
      const encrypted = cbc(key, zeroIv, noPadding).encrypt(message);
      const last = secretCopy(encrypted.subarray(-BLOCK));
      encrypted.fill(0);
      return last;
    },
    wipe: () => void key.fill(0),
  };
}

export function nobleCtr(packetKey: Uint8Array): CtrStream {
  const key = secretCopy(packetKey);
  return {
    crypt(counterBlock, buffer, dataAt, dataLength) {
      buffer.set(ctr(key, counterBlock).encrypt(buffer.subarray(dataAt, dataAt + dataLength)), dataAt);
    },
    wipe: () => void key.fill(0),
  };
}
