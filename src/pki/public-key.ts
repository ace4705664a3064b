/**
 * The key in a certificate (RFC 5280 §4.1.2.7): looked at before Node sees it, as not all that OpenSSL reads as a key is one
 * that Node can be asked about: for the curve of a key that is the point at infinity Node 20 ends the process, with an
 * assertion, and any host can send one.
 */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { checkDer, DerTag, derChildren } from '../base/asn1/der.ts';
import { toHex } from '../base/bytes.ts';
import { schemeOf } from './scheme.ts';
import { wholeBytes } from './signed.ts';

/** AlgorithmIdentifiers that have nothing to choose (RFC 3279 §2.3.1, RFC 4055 §1.2, RFC 8410 §3). */
const PLAIN = new Set([
  '300d06092a864886f70d0101010500', // rsaEncryption
  '300b06092a864886f70d01010a', // id-RSASSA-PSS without parameters
  '300506032b6570', // id-Ed25519
  '300506032b6571', // id-Ed448
]);
const EC_PUBLIC_KEY = '06072a8648ce3d0201';

/** First byte of a point that is not compressed, or is (SEC 1 §2.3.3); zero alone is the point at infinity. */
const UNCOMPRESSED = 4;
const COMPRESSED = [2, 3];

/** The key is for signatures that IKE has no method for: ML-DSA, say, which TLS may have beside others. */
export class ForeignAlgorithmError extends Error {
  override readonly name = 'ForeignAlgorithmError';
}

/** @param info DER of a SubjectPublicKeyInfo @throws Error, for people, for what is no key that could be worked with */
export function readPublicKey(info: Uint8Array): KeyObject {
  checkDer(info);
  const [algorithm, bits, ...more] = derChildren(info, DerTag.SEQUENCE);
  if (algorithm === undefined || bits === undefined || more.length > 0)
    throw new Error('its key does not have two parts');
  const key = wholeBytes(bits, 'its key');
  if (!PLAIN.has(toHex(algorithm)) && schemeOf(algorithm)?.kind !== 'rsa-pss') checkPoint(algorithm, key);
  return createPublicKey({ key: Buffer.from(info), format: 'der', type: 'spki' });
}

/** RFC 5480 §2. */
function checkPoint(algorithm: Uint8Array, point: Uint8Array): void {
  const [type, curve] = derChildren(algorithm, DerTag.SEQUENCE);
  if (type === undefined || toHex(type) !== EC_PUBLIC_KEY) {
    throw new ForeignAlgorithmError(
      `its key is for an algorithm other than RSA, ECDSA and EdDSA (${toHex(algorithm.subarray(0, 32))})`,
    );
  }
  if (curve?.[0] !== DerTag.OBJECT_IDENTIFIER) throw new Error('its key does not name its curve');
  const form = point[0] ?? 0;
  const whole = form === UNCOMPRESSED ? point.length % 2 === 1 : COMPRESSED.includes(form);
  if (!whole || point.length === 1) throw new Error('its key is not a point on a curve, or is the point at infinity');
}
