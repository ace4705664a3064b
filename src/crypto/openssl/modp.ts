/**
 * MODP groups (RFC 3526) by modular exponentiation in the OpenSSL inside this Node process.
 *
 * With Node 24 node:crypto tests the prime for each key pair, which takes from 0.2 s (modp2048) to ten seconds: any host that
 * proposes such a group would stop everything for so long. Here the group is not tested, because its prime is a constant of
 * ours, and the private key is in our own memory until it is erased.
 *
 * BN_mod_exp(3), BN_bin2bn(3), BN_set_flags(3) of OpenSSL 3. Numbers are addresses.
 */
import { invariant } from '../../base/assert.ts';
import { secretCopy } from '../../base/secret-bytes.ts';
import { openLibrary } from '../../sys/ffi.ts';
import { alignedMemory } from '../../sys/native-memory.ts';
import { bigintToBytes, checkModpValue, drawPrivateKey, isZero, type ModpGroup } from '../dh.ts';
import type { DhGroup, DhKeyPair, RandomSource } from '../types.ts';
import { opensslFailure } from './evp.ts';

interface BigNumbers {
  /** A number from its big-endian bytes, made anew where `result` is 0; 0 when memory is short. */
  fromBytes(bytes: number, length: number, result: number): number;
  /** Big-endian with leading zeros. The result is -1 when there is not enough room. */
  toBytes(value: number, out: number, length: number): number;
  make(): number;
  setFlags(value: number, flags: number): void;
  modExp(result: number, base: number, exponent: number, modulus: number, context: number): number;
  /** Overwrites the number; 0 may be freed. */
  clearFree(value: number): void;
  makeContext(): number;
  freeContext(context: number): void;
}

/** The time that is taken does not depend on the number. */
const BN_FLG_CONSTTIME = 4;
/** Bytes of the largest group. */
const MAX_LENGTH = 1_024;
const GENERATOR = Uint8Array.of(2);

let bound: BigNumbers | undefined;

/** @throws NativeUnavailableError */
export function bigNumbers(): BigNumbers {
  bound ??= bindBigNumbers();
  return bound;
}

function bindBigNumbers(): BigNumbers {
  const library = openLibrary(null);
  return {
    fromBytes: library.func('uintptr_t BN_bin2bn(uintptr_t bytes, int length, uintptr_t result)'),
    toBytes: library.func('int BN_bn2binpad(uintptr_t value, uintptr_t out, int length)'),
    make: library.func('uintptr_t BN_new()'),
    setFlags: library.func('void BN_set_flags(uintptr_t value, int flags)'),
    modExp: library.func(
      'int BN_mod_exp(uintptr_t result, uintptr_t base, uintptr_t exponent, uintptr_t modulus, uintptr_t context)',
    ),
    clearFree: library.func('void BN_clear_free(uintptr_t value)'),
    makeContext: library.func('uintptr_t BN_CTX_secure_new()'),
    freeContext: library.func('void BN_CTX_free(uintptr_t context)'),
  };
}

export function opensslModpKeyPair(group: DhGroup, modp: ModpGroup, random: RandomSource): DhKeyPair {
  const { prime, exponentLength } = modp;
  const modulus = bigintToBytes(prime, group.publicLength);
  const privateKey = drawPrivateKey(random, exponentLength * 8, (key) => !isZero(key));
  let wiped = false;
  return {
    group,
    publicValue: Uint8Array.from(power(GENERATOR, privateKey, modulus)),
    derive(peerPublic) {
      invariant(!wiped, 'a key pair was used after it was wiped');
      checkModpValue(group, prime, peerPublic);
      return power(peerPublic, privateKey, modulus);
    },
    wipe() {
      privateKey.fill(0);
      wiped = true;
    },
  };
}

/** base ^ exponent mod modulus, as long as the modulus. */
function power(base: Uint8Array, exponent: Uint8Array, modulus: Uint8Array): Uint8Array {
  const { fromBytes, toBytes, make, setFlags, modExp, clearFree, makeContext, freeContext } = bigNumbers();
  const { bytes, address } = alignedMemory(MAX_LENGTH);
  const number = (from: Uint8Array): number => {
    bytes.set(from);
    const made = fromBytes(address, from.length, 0);
    bytes.fill(0);
    return made;
  };
  const [result, b, e, m] = [make(), number(base), number(exponent), number(modulus)];
  const context = makeContext();
  const there = [result, b, e, m, context].every((pointer) => pointer !== 0);
  if (there) setFlags(e, BN_FLG_CONSTTIME);
  const done = there && modExp(result, b, e, m, context) === 1 && toBytes(result, address, modulus.length) >= 0;
  const value = done ? secretCopy(bytes.subarray(0, modulus.length)) : undefined;
  bytes.fill(0);
  for (const pointer of [result, b, e, m]) clearFree(pointer);
  freeContext(context);
  if (value === undefined) throw opensslFailure('raise to a power');
  return value;
}
