import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { concatBytes, fromHex, readU32, toHex } from '../../src/base/bytes.ts';
import { dhGroupByName, encryptionByName, integrityByName, prfByName } from '../../src/crypto/algorithms.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { CipherSuite, PrfAlgorithm } from '../../src/crypto/types.ts';
import {
  deriveChildKeys,
  deriveIkeKeys,
  deriveRekeySkeyseed,
  deriveSkeyseed,
  type IkeSuite,
  prfOnce,
  prfPlus,
} from '../../src/ike/keys/keys.ts';

interface KdfVectors {
  readonly skeyseed: readonly { id: string; prf: string; sharedSecret: string; nonces: string; skeyseed: string }[];
  readonly prfplus: readonly { id: string; prf: string; skeyseed: string; 'nonces|spis': string; keymat: string }[];
  readonly chain: readonly Record<
    | 'id'
    | 'prf'
    | 'ni'
    | 'nr'
    | 'gir'
    | 'girNew'
    | 'spiI'
    | 'spiR'
    | 'skeyseed'
    | 'keymat'
    | 'childKeymat'
    | 'childKeymatPfs'
    | 'rekeySkeyseed',
    string
  >[];
}

const vectors = JSON.parse(
  readFileSync(new URL('../../vectors/ikev2-kdf.json', import.meta.url), 'utf8'),
) as KdfVectors;

const prfNamed = (name: string): PrfAlgorithm => prfByName(name.replace('hmac-', 'prf'))!;
const cipher = (encryption: string, integrity?: string): CipherSuite => ({
  encryption: encryptionByName(encryption)!,
  integrity: integrity === undefined ? undefined : integrityByName(integrity)!,
});
const suite = (encryption: string, integrity: string | undefined, prf: string): IkeSuite => ({
  cipher: cipher(encryption, integrity),
  prf: prfByName(prf)!,
  dh: dhGroupByName('x25519')!,
});
/** Both keys of both directions in the order in which KEYMAT has them (RFC 7296 §2.17). */
const inOrder = (keys: ReturnType<typeof deriveChildKeys>): string =>
  toHex(
    concatBytes(
      keys.initiator.encryption,
      keys.initiator.integrity,
      keys.responder.encryption,
      keys.responder.integrity,
    ),
  );
const split = (nonces: string): { initiator: Uint8Array; responder: Uint8Array } => ({
  initiator: fromHex(nonces).subarray(0, 8),
  responder: fromHex(nonces).subarray(8),
});

for (const provider of [nodeProvider, nobleProvider]) {
  describe(`NIST vectors with ${provider.name}`, () => {
    for (const vector of vectors.skeyseed) {
      it(`SKEYSEED ${vector.id}`, () => {
        const seed = deriveSkeyseed(provider, prfNamed(vector.prf), split(vector.nonces), fromHex(vector.sharedSecret));
        expect(toHex(seed)).toBe(vector.skeyseed);
      });
    }

    for (const vector of vectors.prfplus) {
      it(`prf+ ${vector.id}`, () => {
        const prf = provider.prf(prfNamed(vector.prf), fromHex(vector.skeyseed));
        const length = vector.keymat.length / 2;
        expect(toHex(prfPlus(prf, fromHex(vector['nonces|spis']), length))).toBe(vector.keymat);
        expect(toHex(prfPlus(prf, fromHex(vector['nonces|spis']), length - 1))).toBe(vector.keymat.slice(0, -2));
      });
    }

    for (const vector of vectors.chain) {
      it(`whole schedule ${vector.id}`, () => {
        const algorithm = prfNamed(vector.prf);
        const nonces = { initiator: fromHex(vector.ni), responder: fromHex(vector.nr) };
        const skeyseed = deriveSkeyseed(provider, algorithm, nonces, fromHex(vector.gir));
        expect(toHex(skeyseed)).toBe(vector.skeyseed);
        const spis = { initiator: BigInt(`0x${vector.spiI}`), responder: BigInt(`0x${vector.spiR}`) };
        const keys = deriveIkeKeys(provider, suite('aes128', 'sha1', 'prfsha1'), skeyseed, nonces, spis);
        const { d, initiator, responder, pi, pr } = keys;
        const order = [d, initiator.integrity, responder.integrity, initiator.encryption, responder.encryption, pi, pr];
        expect(vector.keymat.startsWith(toHex(concatBytes(...order)))).toBe(true);
        expect(order.map((key) => key.length)).toEqual([20, 20, 20, 16, 16, 20, 20]);

        const skD = fromHex(vector.keymat.slice(0, 40));
        const childSuite = cipher('aes256', 'sha1');
        const child = deriveChildKeys(provider, { prf: algorithm, d: skD }, childSuite, nonces, undefined);
        expect(inOrder(child)).toBe(vector.childKeymat.slice(0, 2 * 2 * 52));
        const pfs = deriveChildKeys(provider, { prf: algorithm, d: skD }, childSuite, nonces, fromHex(vector.girNew));
        expect(inOrder(pfs)).toBe(vector.childKeymatPfs.slice(0, 2 * 2 * 52));

        const rekeyed = deriveRekeySkeyseed(provider, algorithm, skD, nonces, fromHex(vector.girNew));
        expect(toHex(rekeyed)).toBe(vector.rekeySkeyseed);
      });
    }
  });
}

const SPIS = { initiator: 1n, responder: 2n };

describe('key schedule', () => {
  const nonces = { initiator: new Uint8Array(32).fill(1), responder: new Uint8Array(48).fill(2) };

  it('gives AEADs a salt and no integrity key (RFC 5282 §7.1)', () => {
    const seed = new Uint8Array(48).fill(3);
    const keys = deriveIkeKeys(nodeProvider, suite('aes256gcm16', undefined, 'prfsha384'), seed, nonces, SPIS);
    expect(keys.d).toHaveLength(48);
    expect(keys.pi).toHaveLength(48);
    expect(keys.initiator.encryption).toHaveLength(36);
    expect(keys.initiator.integrity).toHaveLength(0);
    expect(toHex(keys.initiator.encryption)).not.toBe(toHex(keys.responder.encryption));
    expect(toHex(keys.pi)).not.toBe(toHex(keys.pr));
  });

  it('takes 64 bits of each nonce as the key of AES-XCBC and AES-CMAC, and all of them in prf+ (RFC 7296 §2.14)', () => {
    for (const name of ['prfaesxcbc', 'prfaescmac']) {
      const algorithm = prfByName(name)!;
      const secret = new Uint8Array(32).fill(4);
      const key = concatBytes(new Uint8Array(8).fill(1), new Uint8Array(8).fill(2));
      expect(toHex(deriveSkeyseed(nodeProvider, algorithm, nonces, secret))).toBe(
        toHex(prfOnce(nodeProvider, algorithm, key, secret)),
      );
      const longer = { ...nonces, responder: new Uint8Array(49).fill(2) };
      const d = (given: typeof nonces): string =>
        toHex(deriveIkeKeys(nodeProvider, suite('aes128', 'aesxcbc', name), new Uint8Array(16), given, SPIS).d);
      expect(d(longer)).not.toBe(d(nonces));
    }
  });

  it('depends on every input', () => {
    const d = (spiI: bigint, spiR: bigint, initiator: Uint8Array): string => {
      const seed = new Uint8Array(32).fill(5);
      const given = { ...nonces, initiator };
      return toHex(
        deriveIkeKeys(nodeProvider, suite('aes128', 'sha256', 'prfsha256'), seed, given, {
          initiator: spiI,
          responder: spiR,
        }).d,
      );
    };
    const other = new Uint8Array(32).fill(9);
    const found = [
      d(1n, 2n, nonces.initiator),
      d(2n, 1n, nonces.initiator),
      d(1n, 3n, nonces.initiator),
      d(1n, 2n, other),
    ];
    expect(new Set(found).size).toBe(4);
  });

  it('wipes all keys, and SKEYSEED once it is used', () => {
    const seed = new Uint8Array(32).fill(6);
    const keys = deriveIkeKeys(nodeProvider, suite('aes128', 'sha256', 'prfsha256'), seed, nonces, SPIS);
    expect(seed.every((byte) => byte === 0)).toBe(true);
    const { initiator, responder } = keys;
    const all = [
      keys.d,
      keys.pi,
      keys.pr,
      ...[initiator, responder].flatMap((side) => [side.encryption, side.integrity]),
    ];
    expect(all.every((key) => readU32(key, 0) !== 0)).toBe(true);
    keys.wipe();
    expect(all.every((key) => key.every((byte) => byte === 0))).toBe(true);

    const child = deriveChildKeys(
      nodeProvider,
      { prf: prfByName('prfsha256')!, d: nonces.initiator },
      cipher('aes128gcm16'),
      nonces,
      undefined,
    );
    expect(child.initiator.encryption).toHaveLength(20);
    child.wipe();
    expect(inOrder(child)).toBe('00'.repeat(40));
  });

  it('ends prf+ where its counter would wrap (RFC 7296 §2.13)', () => {
    const prf = nodeProvider.prf(prfByName('prfsha256')!, nonces.initiator);
    expect(prfPlus(prf, nonces.responder, 255 * 32)).toHaveLength(255 * 32);
    expect(() => prfPlus(prf, nonces.responder, 255 * 32 + 1)).toThrow(RangeError);
  });
});
