/**
 * AES-XCBC (RFC 3566) and AES-CMAC (RFC 4493): integrity (RFC 3566, RFC 4494) and PRF (RFC 4434, RFC 4615), on top
 * of a provider's CBC-MAC.
 */
import { assertNever } from '../base/assert.ts';
import { secretBytes } from '../base/secret-bytes.ts';

/** A keyed function of a message given in parts; holds a copy of its key until it is wiped. */
export interface Mac {
  /** At least as long as what is used of it. */
  compute(...parts: readonly Uint8Array[]): Uint8Array;
  wipe(): void;
}

const BLOCK = 16;

/** AES-128-CBC with a zero IV, of which only the last block counts; bound to a key. */
export interface CbcMac {
  /** The last block of ciphertext as a new array, which can be erased. `message` is whole blocks, at least one, and may be overwritten. */
  compute(message: Uint8Array): Uint8Array;
  wipe(): void;
}

/** Binds CBC-MAC to a copy of the key. */
export type CbcMacFactory = (key: Uint8Array) => CbcMac;

export type AesMacMode = 'xcbc' | 'cmac';

/** A MAC of 16 bytes under a key of 16 bytes; integrity uses the first 12 (RFC 3566 §4.3, RFC 4494 §2). */
export function aesMac(mode: AesMacMode, factory: CbcMacFactory, key: Uint8Array): Mac {
  switch (mode) {
    case 'xcbc':
      return xcbc(factory, key);
    case 'cmac':
      return cmac(factory, key);
    default:
      return assertNever(mode, 'aesMac');
  }
}

/** For PRFs, which take keys of any length (RFC 4434 §2, RFC 4615 §3). */
export function aesMacPrf(mode: AesMacMode, factory: CbcMacFactory, key: Uint8Array): Mac {
  const fitted = fitKey(mode, factory, key);
  const mac = aesMac(mode, factory, fitted);
  fitted.fill(0);
  return mac;
}

/** XCBC pads short keys with zeros and digests long ones; CMAC digests every key that has not 16 bytes. */
function fitKey(mode: AesMacMode, factory: CbcMacFactory, key: Uint8Array): Uint8Array {
  const fitted = secretBytes(BLOCK);
  if (key.length === BLOCK || (mode === 'xcbc' && key.length < BLOCK)) fitted.set(key);
  else {
    const digest = aesMac(mode, factory, new Uint8Array(BLOCK));
    const short = digest.compute(key);
    fitted.set(short);
    short.fill(0);
    digest.wipe();
  }
  return fitted;
}

/** RFC 3566 §4.1: three keys, made by encrypting constants. */
function xcbc(factory: CbcMacFactory, key: Uint8Array): Mac {
  const root = factory(key);
  const derive = (constant: number): Uint8Array => root.compute(new Uint8Array(BLOCK).fill(constant));
  const k1 = derive(1);
  const chain = factory(k1);
  k1.fill(0);
  const k2 = derive(2);
  const k3 = derive(3);
  root.wipe();
  return maskedCbcMac(chain, k2, k3);
}

/** RFC 4493 §2.3: two subkeys, doublings of the encrypted zero block. */
function cmac(factory: CbcMacFactory, key: Uint8Array): Mac {
  const chain = factory(key);
  const root = chain.compute(new Uint8Array(BLOCK));
  const k1 = doubled(root);
  root.fill(0);
  return maskedCbcMac(chain, k1, doubled(k1));
}

/** Multiplication by x in GF(2^128), without a branch on the secret bit. */
function doubled(block: Uint8Array): Uint8Array {
  const result = secretBytes(BLOCK);
  for (let i = 0; i < BLOCK; i++) result[i] = (block[i]! << 1) | ((block[i + 1] ?? 0) >>> 7);
  result[BLOCK - 1]! ^= 0x87 & -(block[0]! >>> 7);
  return result;
}

/** CBC-MAC whose last block is masked with one key when it is complete, padded and masked with another when not. */
function maskedCbcMac(chain: CbcMac, completeMask: Uint8Array, paddedMask: Uint8Array): Mac {
  return {
    compute(...parts) {
      let length = 0;
      for (const part of parts) length += part.length;
      const complete = length > 0 && length % BLOCK === 0;
      const message = secretBytes(Math.max(BLOCK, Math.ceil(length / BLOCK) * BLOCK));
      let at = 0;
      for (const part of parts) {
        message.set(part, at);
        at += part.length;
      }
      if (!complete) message[length] = 0x80;
      const mask = complete ? completeMask : paddedMask;
      const lastAt = message.length - BLOCK;
      for (let i = 0; i < BLOCK; i++) message[lastAt + i]! ^= mask[i]!;
      const mac = chain.compute(message);
      message.fill(0);
      return mac;
    },
    wipe() {
      chain.wipe();
      completeMask.fill(0);
      paddedMask.fill(0);
    },
  };
}
