import { getDiffieHellman } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { concatBytes, fromHex, toHex } from '../../src/base/bytes.ts';
import { dhGroupByName, dhGroups } from '../../src/crypto/algorithms.ts';
import { bigintToBytes, modpGroup } from '../../src/crypto/dh.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { type CryptoProvider, type DhGroup, type DhKeyPair, InvalidPublicValueError } from '../../src/crypto/types.ts';
import { need, providers, seededRandom } from './support.ts';

const modpGroups = dhGroups.filter((group) => group.name.startsWith('modp'));
const curves = dhGroups.filter((group) => group.name.startsWith('ecp'));
const smallModp = need(dhGroupByName('modp2048'));

function keyPair(provider: CryptoProvider, group: DhGroup, seed = 1): DhKeyPair {
  return provider.dhKeyPair(group, seededRandom(seed));
}

/** The value as a public value of the group. */
function modpValue(group: DhGroup, value: bigint): Uint8Array {
  return bigintToBytes(value, group.publicLength);
}

describe.each(dhGroups)('$name', (group) => {
  it('makes the same key pair and secret with both providers from the same random bytes', () => {
    const node = keyPair(nodeProvider, group, 20);
    const noble = keyPair(nobleProvider, group, 20);
    const peer = keyPair(nodeProvider, group, 21);
    expect(toHex(node.publicValue)).toBe(toHex(noble.publicValue));
    expect(node.publicValue).toHaveLength(group.publicLength);
    const secret = toHex(peer.derive(node.publicValue));
    expect(toHex(node.derive(peer.publicValue))).toBe(secret);
    expect(toHex(noble.derive(peer.publicValue))).toBe(secret);
    expect(secret).not.toBe(toHex(peer.publicValue));
  });

  it('makes another key pair from other random bytes', () => {
    const { publicValue } = keyPair(nodeProvider, group, 22);
    expect(toHex(keyPair(nodeProvider, group, 23).publicValue)).not.toBe(toHex(publicValue));
  });

  it.each(providers)('refuses a public value of the wrong length, with $name', (provider) => {
    const pair = keyPair(provider, group);
    for (const length of [0, group.publicLength - 1, group.publicLength + 1]) {
      expect(() => pair.derive(new Uint8Array(length).fill(5))).toThrow(InvalidPublicValueError);
    }
    expect(() => pair.derive(concatBytes(Uint8Array.of(4), pair.publicValue))).toThrow(/bytes/);
  });

  it.each(providers)('derives nothing after wipe, with $name', (provider) => {
    const pair = keyPair(provider, group);
    const peer = keyPair(nodeProvider, group, 2);
    expect(pair.derive(peer.publicValue)).toBeDefined();
    pair.wipe();
    expect(() => pair.derive(peer.publicValue)).toThrow(/wiped/);
    expect(() => pair.wipe(), 'a second time').not.toThrow();
  });
});

describe('MODP', () => {
  it.each(modpGroups)('$name has the prime of RFC 3526, as OpenSSL knows it', (group) => {
    const known = getDiffieHellman(`modp${group.id}`).getPrime('hex');
    expect(toHex(modpValue(group, need(modpGroup(group)).prime))).toBe(known);
  });

  it.each(providers)('refuses 0, 1, p-1, p and more (RFC 6989 §2.1), with $name', (provider) => {
    const { prime } = need(modpGroup(smallModp));
    const pair = keyPair(provider, smallModp);
    const all = (1n << 2048n) - 1n;
    for (const value of [0n, 1n, prime - 1n, prime, prime + 1n, all]) {
      expect(() => pair.derive(modpValue(smallModp, value))).toThrow(InvalidPublicValueError);
    }
    expect(pair.derive(modpValue(smallModp, 2n))).toStrictEqual(pair.publicValue);
    expect(pair.derive(modpValue(smallModp, prime - 2n))).toHaveLength(smallModp.publicLength);
  });

  it.each(providers)('pads secrets to the length of the prime, with $name', (provider) => {
    // With the exponent 3 public value and secret are 8: one byte, and the rest is padding.
    const pair = provider.dhKeyPair(smallModp, (length) => {
      const key = new Uint8Array(length);
      key[length - 1] = 3;
      return key;
    });
    expect(toHex(pair.publicValue)).toBe(toHex(modpValue(smallModp, 8n)));
    expect(toHex(pair.derive(modpValue(smallModp, 2n)))).toBe(toHex(modpValue(smallModp, 8n)));
  });
});

describe.each(curves)('$name', (group) => {
  it.each(providers)('refuses points that are not on the curve (RFC 6989 §2.3), with $name', (provider) => {
    const pair = keyPair(provider, group);
    const peer = keyPair(nobleProvider, group, 3);
    const half = group.publicLength / 2;
    const offCurve = Uint8Array.from(peer.publicValue);
    offCurve[group.publicLength - 1]! ^= 1;
    const swapped = concatBytes(peer.publicValue.subarray(half), peer.publicValue.subarray(0, half));
    const tooLarge = concatBytes(new Uint8Array(half).fill(0xff), peer.publicValue.subarray(half));
    for (const bad of [offCurve, swapped, tooLarge, new Uint8Array(group.publicLength)]) {
      expect(() => pair.derive(bad)).toThrow(InvalidPublicValueError);
    }
    expect(pair.derive(peer.publicValue)).toHaveLength(half);
  });

  it.each(providers)('draws again when a key is not below the order, with $name', (provider) => {
    const random = seededRandom(30);
    let draws = 0;
    const pair = provider.dhKeyPair(group, (length) => {
      draws++;
      if (draws === 1) return new Uint8Array(length);
      return draws === 2 ? new Uint8Array(length).fill(0xff) : random(length).fill(0x11, 0, 2);
    });
    expect(draws).toBeGreaterThanOrEqual(3);
    expect(pair.publicValue).toHaveLength(group.publicLength);
  });
});

it.each(providers)('a random source that never gives a usable key is reported, with $name', (provider) => {
  const group = need(dhGroupByName('ecp256'));
  expect(() => provider.dhKeyPair(group, (length) => new Uint8Array(length))).toThrow(/random source/);
});

/** u coordinates of small order (RFC 7748 §6; the list of https://cr.yp.to/ecdh.html#validate for Curve25519). */
const smallOrder = {
  x25519: [
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000000',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ],
  x448: [
    '00'.repeat(56),
    `01${'00'.repeat(55)}`,
    `${'ff'.repeat(28)}fe${'ff'.repeat(27)}`,
    `fe${'ff'.repeat(27)}fe${'ff'.repeat(27)}`,
  ],
};

describe.each(Object.entries(smallOrder))('%s', (name, values) => {
  it.each(providers)('refuses points of small order, with $name', (provider) => {
    const pair = keyPair(provider, need(dhGroupByName(name)));
    for (const value of values) {
      expect(() => pair.derive(fromHex(value)), value).toThrow(InvalidPublicValueError);
    }
  });
});

it('X25519 ignores the highest bit of a public value (RFC 7748 §5)', () => {
  const group = need(dhGroupByName('x25519'));
  const peer = keyPair(nodeProvider, group, 4).publicValue;
  const marked = Uint8Array.from(peer);
  marked[31]! |= 0x80;
  for (const provider of providers) {
    const pair = keyPair(provider, group);
    expect(toHex(pair.derive(marked))).toBe(toHex(pair.derive(peer)));
  }
});
