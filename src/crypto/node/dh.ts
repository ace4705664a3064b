/**
 * Key exchange on node:crypto: MODP (RFC 3526), ECP (RFC 5903), Brainpool (RFC 6954), Curve25519 and Curve448
 * (RFC 8031).
 *
 * Private keys end up in OpenSSL's own memory, which it overwrites when it lets go of them; `wipe` makes it do so at
 * once where Node has a way. It has none for X25519 and X448: there the reference is dropped, and the key stays until its
 * KeyObject is collected. The `openssl` provider frees it.
 */
import {
  createDiffieHellman,
  createECDH,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  getCurves,
  type KeyObject,
} from 'node:crypto';
import { invariant } from '../../base/assert.ts';
import { moveSecret, secretBytes, secretConcat } from '../../base/secret-bytes.ts';
import {
  bigintToBytes,
  checkLength,
  checkModpValue,
  drawPrivateKey,
  isModp,
  isZero,
  type ModpGroup,
  modpGroup,
  offCurve,
  smallOrder,
  uncompressedPoint,
  weierstrassCurves,
} from '../dh.ts';
import type { DhGroup, DhKeyPair, RandomSource } from '../types.ts';

const availableCurves = new Set(getCurves());

/** RFC 8410 §3: the algorithm identifiers, in a PKCS#8 frame that the raw key is appended to. */
const montgomeryCurves = new Map([
  [31, { name: 'X25519', pkcs8: Buffer.from('302e020100300506032b656e04220420', 'hex') }],
  [32, { name: 'X448', pkcs8: Buffer.from('3046020100300506032b656f043a0438', 'hex') }],
]);

interface MontgomeryCurve {
  readonly name: string;
  readonly pkcs8: Uint8Array;
}

export function supportsGroup(group: DhGroup): boolean {
  const curve = weierstrassCurves.get(group.id);
  if (curve !== undefined) return availableCurves.has(curve.name);
  const montgomery = montgomeryCurves.get(group.id);
  return montgomery === undefined ? isModp(group) : canImport(group, montgomery);
}

export function nodeDhKeyPair(group: DhGroup, random: RandomSource): DhKeyPair {
  const curve = weierstrassCurves.get(group.id);
  if (curve !== undefined) return weierstrassKeyPair(group, curve.name, curve.orderBits, random);
  const montgomery = montgomeryCurves.get(group.id);
  if (montgomery !== undefined) return montgomeryKeyPair(group, montgomery, random);
  const modp = modpGroup(group);
  if (modp === undefined) throw new Error(`bug: group ${group.name} has no implementation`);
  return modpKeyPair(group, modp, random);
}

function modpKeyPair(group: DhGroup, { prime, exponentLength }: ModpGroup, random: RandomSource): DhKeyPair {
  const length = group.publicLength;
  const dh = createDiffieHellman(bigintToBytes(prime, length), 2);
  const privateKey = drawPrivateKey(random, exponentLength * 8, (key) => !isZero(key));
  dh.setPrivateKey(privateKey);
  privateKey.fill(0);
  return {
    group,
    publicValue: padded(dh.generateKeys(), length),
    derive(peerPublic) {
      checkModpValue(group, prime, peerPublic);
      const secret = dh.computeSecret(peerPublic);
      const result = padded(secret, length);
      secret.fill(0);
      return result;
    },
    wipe: () => dh.setPrivateKey(Uint8Array.of(1)),
  };
}

function padded(bytes: Uint8Array, length: number): Uint8Array {
  const result = secretBytes(length);
  result.set(bytes, length - bytes.length);
  return result;
}

function weierstrassKeyPair(group: DhGroup, curve: string, orderBits: number, random: RandomSource): DhKeyPair {
  const ecdh = createECDH(curve);
  const privateKey = drawPrivateKey(random, orderBits, (key) => {
    try {
      ecdh.setPrivateKey(key);
      return true;
    } catch {
      // OpenSSL refuses what is not between 1 and the order.
      return false;
    }
  });
  const one = new Uint8Array(privateKey.length);
  one[one.length - 1] = 1;
  privateKey.fill(0);
  return {
    group,
    publicValue: Uint8Array.from(ecdh.getPublicKey().subarray(1)),
    derive(peerPublic) {
      checkLength(group, peerPublic);
      try {
        return moveSecret(ecdh.computeSecret(uncompressedPoint(peerPublic)));
      } catch {
        throw offCurve(group);
      }
    },
    wipe: () => ecdh.setPrivateKey(one),
  };
}

function montgomeryKeyPair(group: DhGroup, curve: MontgomeryCurve, random: RandomSource): DhKeyPair {
  const seed = random(group.publicLength);
  let privateKey: KeyObject | undefined = importPrivateKey(curve, seed);
  seed.fill(0);
  return {
    group,
    publicValue: publicValueOf(privateKey),
    derive(peerPublic) {
      checkLength(group, peerPublic);
      invariant(privateKey !== undefined, 'a key pair was used after it was wiped');
      return montgomerySecret(group, curve, privateKey, peerPublic);
    },
    wipe() {
      privateKey = undefined;
    },
  };
}

function montgomerySecret(
  group: DhGroup,
  curve: MontgomeryCurve,
  privateKey: KeyObject,
  peerPublic: Uint8Array,
): Uint8Array {
  const key = { kty: 'OKP', crv: curve.name, x: base64url(peerPublic) };
  const publicKey = createPublicKey({ key, format: 'jwk' });
  let secret: Uint8Array;
  try {
    secret = moveSecret(diffieHellman({ privateKey, publicKey }));
  } catch {
    // OpenSSL refuses an all-zero result.
    throw smallOrder(group);
  }
  if (isZero(secret)) throw smallOrder(group);
  return secret;
}

/** As PKCS#8 (RFC 8410 §7). A JWK would be read sooner, but its text is a string, which cannot be erased. */
function importPrivateKey(curve: MontgomeryCurve, key: Uint8Array): KeyObject {
  const der = Buffer.from(secretConcat(curve.pkcs8, key).buffer);
  const imported = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  der.fill(0);
  return imported;
}

function canImport(group: DhGroup, curve: MontgomeryCurve): boolean {
  try {
    importPrivateKey(curve, new Uint8Array(group.publicLength).fill(0x5a));
    return true;
  } catch {
    return false;
  }
}

function publicValueOf(privateKey: KeyObject): Uint8Array {
  const { x } = createPublicKey(privateKey).export({ format: 'jwk' });
  return Uint8Array.from(Buffer.from(x ?? '', 'base64url'));
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64url');
}
