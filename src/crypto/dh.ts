/**
 * What key exchange has in common for every provider: the RFC 3526 primes, the drawing of private keys, and the tests
 * of RFC 6989 on what a peer sends.
 */
import { equalBytes, fromHex, toHex } from '../base/bytes.ts';
import { moveSecret } from '../base/secret-bytes.ts';
import { type DhGroup, InvalidPublicValueError, type RandomSource } from './types.ts';

interface ModpParameters {
  readonly bits: number;
  /** The constant in the group's formula (RFC 3526 §3 to §7). */
  readonly constant: bigint;
  /** Private exponent in bytes: the larger estimate of RFC 3526 §8. */
  readonly exponentLength: number;
}

const modpParameters: ReadonlyMap<number, ModpParameters> = new Map([
  [14, { bits: 2048, constant: 124476n, exponentLength: 40 }],
  [15, { bits: 3072, constant: 1690314n, exponentLength: 53 }],
  [16, { bits: 4096, constant: 240904n, exponentLength: 60 }],
  [17, { bits: 6144, constant: 929484n, exponentLength: 68 }],
  [18, { bits: 8192, constant: 4743158n, exponentLength: 78 }],
]);

export interface ModpGroup {
  readonly prime: bigint;
  /** In bytes. */
  readonly exponentLength: number;
}

// BOUNDED: one entry for each MODP group.
const modpGroups = new Map<number, ModpGroup>();

export function isModp(group: DhGroup): boolean {
  return modpParameters.has(group.id);
}

/** The group's prime, made on first use; `undefined` when the group is not a MODP one. The generator is always 2. */
export function modpGroup(group: DhGroup): ModpGroup | undefined {
  const known = modpGroups.get(group.id);
  const parameters = modpParameters.get(group.id);
  if (known !== undefined || parameters === undefined) return known;
  const made = { prime: modpPrime(parameters), exponentLength: parameters.exponentLength };
  modpGroups.set(group.id, made);
  return made;
}

/** 2^n - 2^(n-64) - 1 + 2^64 * (floor(2^(n-130) * pi) + constant): nothing up the sleeve (RFC 3526). */
function modpPrime({ bits, constant }: ModpParameters): bigint {
  const n = BigInt(bits);
  return (1n << n) - (1n << (n - 64n)) - 1n + ((piTimesTwoTo(n - 130n) + constant) << 64n);
}

/** floor(2^bits * pi) by Machin's formula, with 64 guard bits against the rounding of the terms. */
function piTimesTwoTo(bits: bigint): bigint {
  const guard = 64n;
  const one = 1n << (bits + guard);
  return (4n * (4n * arccot(5n, one) - arccot(239n, one))) >> guard;
}

function arccot(x: bigint, one: bigint): bigint {
  let power = one / x;
  let sum = power;
  for (let n = 3n; power !== 0n; n += 2n) {
    power /= -(x * x);
    sum += power / n;
  }
  return sum;
}

/** @throws InvalidPublicValueError unless 1 < value < p - 1 (RFC 6989 §2.1; the primes are safe ones). */
export function checkModpValue(group: DhGroup, prime: bigint, peerPublic: Uint8Array): bigint {
  checkLength(group, peerPublic);
  const value = bytesToBigint(peerPublic);
  if (value <= 1n || value >= prime - 1n) throw new InvalidPublicValueError(`public value out of range ${of(group)}`);
  return value;
}

/** @throws InvalidPublicValueError */
export function checkLength(group: DhGroup, peerPublic: Uint8Array): void {
  if (peerPublic.length !== group.publicLength) {
    throw new InvalidPublicValueError(
      `public value of ${peerPublic.length} bytes ${of(group)}, which has ${group.publicLength}`,
    );
  }
}

export function offCurve(group: DhGroup): InvalidPublicValueError {
  return new InvalidPublicValueError(`public value that is not on the curve ${of(group)}`);
}

/** An all-zero result shows a peer's value of small order (RFC 7748 §6, RFC 8031 §5). */
export function smallOrder(group: DhGroup): InvalidPublicValueError {
  return new InvalidPublicValueError(`public value of small order ${of(group)}`);
}

export function isZero(bytes: Uint8Array): boolean {
  return equalBytes(bytes, new Uint8Array(bytes.length));
}

function of(group: DhGroup): string {
  return `for group ${group.name} (${group.id})`;
}

/** How often a private key is drawn before the random source counts as broken; brainpoolP512r1 refuses one in three. */
const MAX_DRAWS = 128;

/** Draws keys of `bits` bits, with the surplus bits of the first byte cleared, until one is valid. */
export function drawPrivateKey(random: RandomSource, bits: number, isValid: (key: Uint8Array) => boolean): Uint8Array {
  const length = Math.ceil(bits / 8);
  for (let draw = 0; draw < MAX_DRAWS; draw++) {
    const key = moveSecret(random(length));
    key[0]! &= 0xff >>> (8 * length - bits);
    if (isValid(key)) return key;
    key.fill(0);
  }
  throw new Error(`the random source gave no usable private key in ${MAX_DRAWS} draws`);
}

/** The curves whose KE data is x | y (RFC 5903 §7, RFC 6954 §2), by group id, with the bits of their order. */
export const weierstrassCurves: ReadonlyMap<number, { readonly name: string; readonly orderBits: number }> = new Map([
  [19, { name: 'prime256v1', orderBits: 256 }],
  [20, { name: 'secp384r1', orderBits: 384 }],
  [21, { name: 'secp521r1', orderBits: 521 }],
  [28, { name: 'brainpoolP256r1', orderBits: 256 }],
  [29, { name: 'brainpoolP384r1', orderBits: 384 }],
  [30, { name: 'brainpoolP512r1', orderBits: 512 }],
]);

/** SEC 1 §2.3.3: marks x | y as an uncompressed point. */
export function uncompressedPoint(xy: Uint8Array): Uint8Array {
  const point = new Uint8Array(1 + xy.length);
  point[0] = 0x04;
  point.set(xy, 1);
  return point;
}

export function bytesToBigint(bytes: Uint8Array): bigint {
  return BigInt(`0x0${toHex(bytes)}`);
}

/** Big-endian, padded with zeros in front (RFC 7296 §2.14 wants the length of the modulus). */
export function bigintToBytes(value: bigint, length: number): Uint8Array {
  return fromHex(value.toString(16).padStart(2 * length, '0'));
}
