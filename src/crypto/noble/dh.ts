/**
 * Key exchange on @noble/curves and, for MODP, on BigInt: MODP (RFC 3526), ECP (RFC 5903), Brainpool (RFC 6954),
 * Curve25519 and Curve448 (RFC 8031). BigInt arithmetic takes a time that depends on its operands: where an attacker
 * can measure it closely, the `node` provider is the better choice. Nor can a BigInt be erased.
 */

import { x448 } from '@noble/curves/ed448.js';
import { x25519 } from '@noble/curves/ed25519.js';
import { brainpoolP256r1, brainpoolP384r1, brainpoolP512r1 } from '@noble/curves/misc.js';
import { p256, p384, p521 } from '@noble/curves/nist.js';
import { moveSecret } from '../../base/secret-bytes.ts';
import {
  bigintToBytes,
  bytesToBigint,
  checkLength,
  checkModpValue,
  drawPrivateKey,
  isZero,
  type ModpGroup,
  modpGroup,
  offCurve,
  smallOrder,
  uncompressedPoint,
  weierstrassCurves,
} from '../dh.ts';
import type { DhGroup, DhKeyPair, RandomSource } from '../types.ts';

/** What this file uses of a noble curve. */
interface Montgomery {
  getPublicKey(secretKey: Uint8Array): Uint8Array;
  getSharedSecret(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array;
}

interface Weierstrass {
  readonly utils: { isValidSecretKey(secretKey: Uint8Array): boolean };
  getPublicKey(secretKey: Uint8Array, isCompressed: boolean): Uint8Array;
  getSharedSecret(secretKey: Uint8Array, publicKey: Uint8Array, isCompressed: boolean): Uint8Array;
}

const montgomery: ReadonlyMap<number, Montgomery> = new Map<number, Montgomery>([
  [31, x25519],
  [32, x448],
]);

const weierstrass: ReadonlyMap<number, Weierstrass> = new Map<number, Weierstrass>([
  [19, p256],
  [20, p384],
  [21, p521],
  [28, brainpoolP256r1],
  [29, brainpoolP384r1],
  [30, brainpoolP512r1],
]);

export function nobleDhKeyPair(group: DhGroup, random: RandomSource): DhKeyPair {
  const montgomeryCurve = montgomery.get(group.id);
  if (montgomeryCurve !== undefined) return montgomeryKeyPair(group, montgomeryCurve, random);
  const curve = weierstrass.get(group.id);
  const { orderBits } = weierstrassCurves.get(group.id) ?? {};
  if (curve !== undefined && orderBits !== undefined) return weierstrassKeyPair(group, curve, orderBits, random);
  const modp = modpGroup(group);
  if (modp === undefined) throw new Error(`bug: group ${group.name} has no implementation`);
  return modpKeyPair(group, modp, random);
}

function montgomeryKeyPair(group: DhGroup, curve: Montgomery, random: RandomSource): DhKeyPair {
  const privateKey = moveSecret(random(group.publicLength));
  return {
    group,
    publicValue: curve.getPublicKey(privateKey),
    derive(peerPublic) {
      checkLength(group, peerPublic);
      let secret: Uint8Array;
      try {
        secret = curve.getSharedSecret(privateKey, peerPublic);
      } catch {
        // noble refuses an all-zero result.
        throw smallOrder(group);
      }
      if (isZero(secret)) throw smallOrder(group);
      return moveSecret(secret);
    },
    wipe: () => void privateKey.fill(0),
  };
}

function weierstrassKeyPair(group: DhGroup, curve: Weierstrass, orderBits: number, random: RandomSource): DhKeyPair {
  const privateKey = drawPrivateKey(random, orderBits, (key) => curve.utils.isValidSecretKey(key));
  return {
    group,
    publicValue: curve.getPublicKey(privateKey, false).slice(1),
    derive(peerPublic) {
      checkLength(group, peerPublic);
      try {
        const point = curve.getSharedSecret(privateKey, uncompressedPoint(peerPublic), false);
        return moveSecret(point.subarray(1, 1 + group.publicLength / 2));
      } catch {
        throw offCurve(group);
      }
    },
    wipe: () => void privateKey.fill(0),
  };
}

function modpKeyPair(group: DhGroup, { prime, exponentLength }: ModpGroup, random: RandomSource): DhKeyPair {
  const privateKey = drawPrivateKey(random, exponentLength * 8, (key) => !isZero(key));
  const power = (base: bigint): Uint8Array =>
    bigintToBytes(modPow(base, bytesToBigint(privateKey), prime), group.publicLength);
  return {
    group,
    publicValue: power(2n),
    derive: (peerPublic) => moveSecret(power(checkModpValue(group, prime, peerPublic))),
    wipe: () => void privateKey.fill(0),
  };
}

function modPow(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  for (const bit of exponent.toString(2)) {
    result = (result * result) % modulus;
    if (bit === '1') result = (result * base) % modulus;
  }
  return result;
}
