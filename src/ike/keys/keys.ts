/**
 * Key schedule: prf+ (RFC 7296 §2.13), SKEYSEED and the seven keys of an IKE SA (§2.14), of its rekeying (§2.18), and
 * the key material of CHILD SAs (§2.17). What is derived in between is wiped here; what is returned the caller wipes.
 */
import { concatBytes } from '../../base/bytes.ts';
import { secretBytes, secretConcat } from '../../base/secret-bytes.ts';
import type {
  CipherKeys,
  CipherSuite,
  CryptoProvider,
  DhGroup,
  EncryptionAlgorithm,
  Prf,
  PrfAlgorithm,
} from '../../crypto/types.ts';
import { ikeSpiBytes } from '../wire/message.ts';

/** What was chosen for an IKE SA. */
export interface IkeSuite {
  readonly cipher: CipherSuite;
  readonly prf: PrfAlgorithm;
  readonly dh: DhGroup;
}

/** Bytes of our nonces: at least half the key of any prf, and at least 16 (RFC 7296 §2.10). */
export const NONCE_LENGTH = 32;

/** Nonces without their payload headers. The initiator is that of the exchange which the keys come from. */
export interface Nonces {
  readonly initiator: Uint8Array;
  readonly responder: Uint8Array;
}

/** The SPIs of an IKE SA. */
export interface IkeSpis {
  readonly initiator: bigint;
  readonly responder: bigint;
}

/** What the IKE SA gives to the keys of its CHILD SAs: its PRF and SK_d. */
export interface ChildKeySource {
  readonly prf: PrfAlgorithm;
  readonly d: Uint8Array;
}

/** The initiator is that of the IKE SA that the keys are for. */
export interface IkeKeys {
  /** SK_d */
  readonly d: Uint8Array;
  /** SK_ei and SK_ai: what the initiator protects with. */
  readonly initiator: CipherKeys;
  /** SK_er and SK_ar: what the responder protects with. */
  readonly responder: CipherKeys;
  /** SK_pi */
  readonly pi: Uint8Array;
  /** SK_pr */
  readonly pr: Uint8Array;
  wipe(): void;
}

/** The initiator is that of the exchange that made the CHILD SA (RFC 7296 §2.17). */
export interface ChildKeys {
  /** Protects what the initiator sends. */
  readonly initiator: CipherKeys;
  /** Protects what the responder sends. */
  readonly responder: CipherKeys;
  wipe(): void;
}

/** One prf(key, part1 | part2 | …), with nothing of the key left behind. */
export function prfOnce(
  crypto: CryptoProvider,
  algorithm: PrfAlgorithm,
  key: Uint8Array,
  ...parts: readonly Uint8Array[]
): Uint8Array {
  const prf = crypto.prf(algorithm, key);
  const value = prf.compute(...parts);
  prf.wipe();
  return value;
}

/** prf+ may not be iterated more often (RFC 7296 §2.13): the counter is one byte. */
const MAX_ITERATIONS = 255;

/** prf+ (K, S) of RFC 7296 §2.13, with K bound to `prf`. @throws RangeError beyond 255 times the prf's output. */
export function prfPlus(prf: Prf, seed: Uint8Array, length: number): Uint8Array {
  if (length > MAX_ITERATIONS * prf.outputLength) throw new RangeError(`prf+ cannot give ${length} bytes`);
  const output = secretBytes(length);
  let block: Uint8Array = new Uint8Array(0);
  for (let at = 0, counter = 1; at < length; counter++) {
    const next = prf.compute(block, seed, Uint8Array.of(counter));
    block.fill(0);
    block = next;
    output.set(block.subarray(0, length - at), at);
    at += block.length;
  }
  block.fill(0);
  return output;
}

/**
 * SKEYSEED = prf(Ni | Nr, g^ir) (RFC 7296 §2.14). AES-XCBC and AES-CMAC take the first 64 bits of each nonce as key;
 * prf+ takes all of them nevertheless.
 */
export function deriveSkeyseed(
  crypto: CryptoProvider,
  algorithm: PrfAlgorithm,
  nonces: Nonces,
  sharedSecret: Uint8Array,
): Uint8Array {
  const half = algorithm.keyLength / 2;
  const key = algorithm.fixedKey
    ? concatBytes(nonces.initiator.subarray(0, half), nonces.responder.subarray(0, half))
    : concatBytes(nonces.initiator, nonces.responder);
  return prfOnce(crypto, algorithm, key, sharedSecret);
}

/**
 * SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr) of an IKE SA that replaces another (RFC 7296 §2.18).
 * @param algorithm prf of the old IKE SA, whatever the new one's
 */
export function deriveRekeySkeyseed(
  crypto: CryptoProvider,
  algorithm: PrfAlgorithm,
  oldSkD: Uint8Array,
  nonces: Nonces,
  sharedSecret: Uint8Array,
): Uint8Array {
  return prfOnce(crypto, algorithm, oldSkD, sharedSecret, nonces.initiator, nonces.responder);
}

/**
 * The seven keys of an IKE SA (RFC 7296 §2.14): {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} =
 * prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr). An AEAD has no SK_a (RFC 5282 §7.1). Wipes `skeyseed`.
 */
export function deriveIkeKeys(
  crypto: CryptoProvider,
  suite: IkeSuite,
  skeyseed: Uint8Array,
  nonces: Nonces,
  spis: IkeSpis,
): IkeKeys {
  const [spiI, spiR] = [ikeSpiBytes(spis.initiator), ikeSpiBytes(spis.responder)];
  const seed = concatBytes(nonces.initiator, nonces.responder, spiI, spiR);
  const prfLength = suite.prf.keyLength;
  const encryptionLength = encryptionKeyLength(suite.cipher.encryption);
  const integrityLength = suite.cipher.integrity?.keyLength ?? 0;
  const total = 3 * prfLength + 2 * integrityLength + 2 * encryptionLength;
  const prf = crypto.prf(suite.prf, skeyseed);
  const material = prfPlus(prf, seed, total);
  prf.wipe();
  skeyseed.fill(0);
  const take = slicer(material);
  const d = take(prfLength);
  const ai = take(integrityLength);
  const ar = take(integrityLength);
  const ei = take(encryptionLength);
  const er = take(encryptionLength);
  const pi = take(prfLength);
  const pr = take(prfLength);
  return {
    d,
    initiator: { encryption: ei, integrity: ai },
    responder: { encryption: er, integrity: ar },
    pi,
    pr,
    wipe: () => void material.fill(0),
  };
}

/**
 * KEYMAT = prf+ (SK_d, [g^ir (new) |] Ni | Nr) (RFC 7296 §2.17): first all keys of what the initiator sends, of each
 * direction the encryption key before the integrity key.
 * @param sharedSecret of the CHILD SA's own key exchange, if there was one
 */
export function deriveChildKeys(
  crypto: CryptoProvider,
  { prf: algorithm, d }: ChildKeySource,
  suite: CipherSuite,
  nonces: Nonces,
  sharedSecret: Uint8Array | undefined,
): ChildKeys {
  const seed = secretConcat(sharedSecret ?? new Uint8Array(0), nonces.initiator, nonces.responder);
  const encryptionLength = encryptionKeyLength(suite.encryption);
  const integrityLength = suite.integrity?.keyLength ?? 0;
  const prf = crypto.prf(algorithm, d);
  const material = prfPlus(prf, seed, 2 * (encryptionLength + integrityLength));
  prf.wipe();
  seed.fill(0);
  const take = slicer(material);
  return {
    initiator: { encryption: take(encryptionLength), integrity: take(integrityLength) },
    responder: { encryption: take(encryptionLength), integrity: take(integrityLength) },
    wipe: () => void material.fill(0),
  };
}

/** Key and salt are one piece of the key material (RFC 4106 §8.1, RFC 5282 §7.1). */
function encryptionKeyLength(algorithm: EncryptionAlgorithm): number {
  return algorithm.keyLength + algorithm.saltLength;
}

/** Cuts views off the front of `material`, so that wiping it wipes them all. */
function slicer(material: Uint8Array): (length: number) => Uint8Array {
  let at = 0;
  return (length) => {
    at += length;
    return material.subarray(at - length, at);
  };
}
