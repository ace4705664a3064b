/**
 * From an integrity algorithm or a PRF of the table to the construction behind it: HMAC (RFC 2104) with a hash, or
 * one of the two AES MACs.
 */
import { invariant } from '../base/assert.ts';
import { type AesMacMode, aesMac, aesMacPrf, type CbcMacFactory, type Mac } from './aes-mac.ts';
import type { IntegrityAlgorithm, Prf, PrfAlgorithm } from './types.ts';

export type { Mac };

export type HmacHash = 'sha1' | 'sha256' | 'sha384' | 'sha512';

/** What a provider brings for MACs and PRFs. */
export interface MacPrimitives {
  /** With a key of any length; the result is the whole digest. */
  hmac(hash: HmacHash, key: Uint8Array): Mac;
  readonly cbcMac: CbcMacFactory;
}

type Construction =
  | { readonly type: 'hmac'; readonly hash: HmacHash }
  | { readonly type: 'aes'; readonly mode: AesMacMode };

const integrityConstructions: ReadonlyMap<number, Construction> = new Map([
  [2, { type: 'hmac', hash: 'sha1' }],
  [5, { type: 'aes', mode: 'xcbc' }],
  [8, { type: 'aes', mode: 'cmac' }],
  [12, { type: 'hmac', hash: 'sha256' }],
  [13, { type: 'hmac', hash: 'sha384' }],
  [14, { type: 'hmac', hash: 'sha512' }],
]);

const prfConstructions: ReadonlyMap<number, Construction> = new Map([
  [2, { type: 'hmac', hash: 'sha1' }],
  [4, { type: 'aes', mode: 'xcbc' }],
  [5, { type: 'hmac', hash: 'sha256' }],
  [6, { type: 'hmac', hash: 'sha384' }],
  [7, { type: 'hmac', hash: 'sha512' }],
  [8, { type: 'aes', mode: 'cmac' }],
]);

/** `undefined` for an algorithm that is not in the table. */
export function constructionOf(algorithm: IntegrityAlgorithm | PrfAlgorithm): Construction | undefined {
  return (algorithm.kind === 'prf' ? prfConstructions : integrityConstructions).get(algorithm.id);
}

export function buildMac(algorithm: IntegrityAlgorithm, key: Uint8Array, primitives: MacPrimitives): Mac {
  const construction = required(algorithm);
  return construction.type === 'hmac'
    ? primitives.hmac(construction.hash, key)
    : aesMac(construction.mode, primitives.cbcMac, key);
}

export function buildPrf(algorithm: PrfAlgorithm, key: Uint8Array, primitives: MacPrimitives): Prf {
  const construction = required(algorithm);
  const mac =
    construction.type === 'hmac'
      ? primitives.hmac(construction.hash, key)
      : aesMacPrf(construction.mode, primitives.cbcMac, key);
  let wiped = false;
  return {
    outputLength: algorithm.outputLength,
    compute(...parts) {
      invariant(!wiped, 'a PRF was used after its key was wiped');
      return mac.compute(...parts);
    },
    wipe() {
      wiped = true;
      mac.wipe();
    },
  };
}

function required(algorithm: IntegrityAlgorithm | PrfAlgorithm): Construction {
  const construction = constructionOf(algorithm);
  if (construction === undefined) throw new Error(`bug: ${algorithm.kind} ${algorithm.name} has no construction`);
  return construction;
}
