/**
 * Curve25519 and Curve448 (RFC 8031) on EVP keys. node:crypto frees such a key only when its KeyObject is collected,
 * which may be never; here it is freed, and overwritten by OpenSSL, as soon as it was used.
 */
import { secretCopy } from '../../base/secret-bytes.ts';
import { alignedMemory, type NativeMemory } from '../../sys/native-memory.ts';
import { releaseOnce } from '../../sys/release.ts';
import { checkLength, isZero, smallOrder } from '../dh.ts';
import type { DhGroup, DhKeyPair, RandomSource } from '../types.ts';
import { evp, opensslFailure } from './evp.ts';

/** NID_X25519 and NID_X448, by group id. */
const keyTypes: ReadonlyMap<number, number> = new Map([
  [31, 1034],
  [32, 1035],
]);

/** Fields of the memory of a call: up to 56 bytes of a key or a result, then a size_t. */
const LENGTH_AT = 56;
const MEMORY = 64;

export function isMontgomery(group: DhGroup): boolean {
  return keyTypes.has(group.id);
}

export function opensslMontgomeryKeyPair(group: DhGroup, random: RandomSource): DhKeyPair {
  const { newPrivateKey, getPublicKey, freeKey } = evp();
  const memory = alignedMemory(MEMORY);
  const seed = random(group.publicLength);
  memory.bytes.set(seed);
  seed.fill(0);
  const key = newPrivateKey(keyTypeOf(group), 0, memory.address, group.publicLength);
  memory.bytes.fill(0);
  if (key === 0) throw opensslFailure(`make a key for ${group.name}`);
  setLength(memory, group.publicLength);
  if (getPublicKey(key, memory.address, memory.address + LENGTH_AT) !== 1) {
    freeKey(key);
    throw opensslFailure(`make the public value for ${group.name}`);
  }
  const pair: DhKeyPair = {
    group,
    publicValue: Uint8Array.from(memory.bytes.subarray(0, group.publicLength)),
    derive(peerPublic) {
      checkLength(group, peerPublic);
      return derive(group, key, peerPublic);
    },
    wipe: () => release(),
  };
  const release = releaseOnce(pair, () => freeKey(key));
  return pair;
}

function keyTypeOf(group: DhGroup): number {
  const type = keyTypes.get(group.id);
  if (type === undefined) throw new Error(`bug: group ${group.name} has no implementation`);
  return type;
}

function setLength({ bytes }: NativeMemory, length: number): void {
  bytes.fill(0, LENGTH_AT);
  bytes[LENGTH_AT] = length;
}

/** @throws InvalidPublicValueError when the peer's value is of small order */
function derive(group: DhGroup, key: number, peerPublic: Uint8Array): Uint8Array {
  const secret = multiply(group, key, peerPublic);
  cleanStack(group);
  if (secret !== undefined && !isZero(secret)) return secret;
  throw smallOrder(group);
}

/** `undefined` for an all-zero result, which OpenSSL refuses. */
function multiply(group: DhGroup, key: number, peerPublic: Uint8Array): Uint8Array | undefined {
  const { newPublicKey, freeKey, newKeyContext, freeKeyContext, deriveInit, setPeer, derive: deriveSecret } = evp();
  const memory = alignedMemory(MEMORY);
  memory.bytes.set(peerPublic);
  const peer = newPublicKey(keyTypeOf(group), 0, memory.address, peerPublic.length);
  const context = newKeyContext(key, 0);
  const ready = peer !== 0 && context !== 0 && deriveInit(context) === 1 && setPeer(context, peer) === 1;
  setLength(memory, group.publicLength);
  const done = ready && deriveSecret(context, memory.address, memory.address + LENGTH_AT) === 1;
  const secret = done ? secretCopy(memory.bytes.subarray(0, group.publicLength)) : undefined;
  memory.bytes.fill(0);
  // NULL may be freed.
  freeKeyContext(context);
  freeKey(peer);
  if (!ready) throw opensslFailure(`derive a secret for ${group.name}`);
  if (!done) evp().clearErrors();
  return secret;
}

// BOUNDED: one key for each of the two curves.
const publicKeys = new Map<number, number>();

/**
 * OpenSSL leaves the result on the stack. koffi gives foreign calls a stack of their own, where it would stay for long. The
 * same calculation with public numbers overwrites it.
 */
function cleanStack(group: DhGroup): void {
  const memory = alignedMemory(MEMORY);
  memory.bytes.fill(9, 0, group.publicLength);
  let key = publicKeys.get(group.id);
  if (key === undefined) {
    key = evp().newPrivateKey(keyTypeOf(group), 0, memory.address, group.publicLength);
    if (key === 0) throw opensslFailure(`make a key for ${group.name}`);
    publicKeys.set(group.id, key);
  }
  multiply(group, key, memory.bytes.subarray(0, group.publicLength));
}
