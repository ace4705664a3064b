import { describe, expect, it } from 'vitest';
import {
  defaultEspProposals,
  defaultIkeProposals,
  dhGroupById,
  dhGroupByName,
  dhGroups,
  encryptionAlgorithms,
  encryptionById,
  encryptionByName,
  integrityAlgorithms,
  integrityById,
  integrityByName,
  prfAlgorithms,
  prfById,
  prfByName,
} from '../../src/crypto/algorithms.ts';
import { need, providers } from './support.ts';

const tables = { encryption: encryptionAlgorithms, integrity: integrityAlgorithms, prf: prfAlgorithms, dh: dhGroups };

describe('the table', () => {
  it.each(Object.entries(tables))('has each name once: %s', (_, table) => {
    const names = table.flatMap((entry) => [entry.name, ...entry.aliases]);
    expect(new Set(names).size).toBe(names.length);
    expect(names).toStrictEqual(names.map((name) => name.toLowerCase()));
  });

  it('has each id once, for encryption together with the key length', () => {
    const encryptionIds = encryptionAlgorithms.map(({ id, keyBits }) => `${id}/${keyBits}`);
    expect(new Set(encryptionIds).size).toBe(encryptionIds.length);
    for (const table of [integrityAlgorithms, prfAlgorithms, dhGroups]) {
      expect(new Set(table.map(({ id }) => id)).size).toBe(table.length);
    }
  });

  it('finds each entry by name, alias and id', () => {
    for (const entry of encryptionAlgorithms) {
      for (const name of [entry.name, ...entry.aliases]) expect(encryptionByName(name)).toBe(entry);
      expect(encryptionById(entry.id, entry.keyBits)).toBe(entry);
    }
    for (const entry of integrityAlgorithms) {
      for (const name of [entry.name, ...entry.aliases]) expect(integrityByName(name)).toBe(entry);
      expect(integrityById(entry.id)).toBe(entry);
    }
    for (const entry of prfAlgorithms) {
      for (const name of [entry.name, ...entry.aliases]) expect(prfByName(name)).toBe(entry);
      expect(prfById(entry.id)).toBe(entry);
    }
    for (const entry of dhGroups) {
      for (const name of [entry.name, ...entry.aliases]) expect(dhGroupByName(name)).toBe(entry);
      expect(dhGroupById(entry.id)).toBe(entry);
    }
    expect(encryptionByName('AES256GCM16')?.name).toBe('aes256gcm16');
    expect(encryptionByName('toString')).toBeUndefined();
  });

  // The registry "IKEv2 Parameters" of IANA, written out a second time.
  it.each([
    ['aes128', 12, 128],
    ['aes192ctr', 13, 192],
    ['aes128ccm8', 14, 128],
    ['aes192ccm12', 15, 192],
    ['aes256ccm16', 16, 256],
    ['aes256gcm8', 18, 256],
    ['aes128gcm12', 19, 128],
    ['aes256gcm16', 20, 256],
    ['aes256gcm128', 20, 256],
    ['null', 11, undefined],
    ['chacha20poly1305', 28, undefined],
  ])('encryption %s has id %i and key length %s', (name, id, keyBits) => {
    expect(encryptionByName(name)).toMatchObject({ id, keyBits });
  });

  it.each([
    [integrityByName, { sha1: 2, aesxcbc: 5, aescmac: 8, sha256: 12, sha384: 13, sha512: 14 }],
    [prfByName, { prfsha1: 2, prfaesxcbc: 4, prfsha256: 5, prfsha384: 6, prfsha512: 7, prfaescmac: 8 }],
    [dhGroupByName, { modp2048: 14, modp3072: 15, modp4096: 16, modp6144: 17, modp8192: 18 }],
    [dhGroupByName, { ecp256: 19, ecp384: 20, ecp521: 21, ecp256bp: 28, ecp384bp: 29, ecp512bp: 30 }],
    [dhGroupByName, { x25519: 31, curve25519: 31, x448: 32, curve448: 32 }],
  ])('%o has the registered ids', (find, ids) => {
    for (const [name, id] of Object.entries(ids)) expect(find(name)?.id).toBe(id);
  });

  it('knows no Key Length where none may stand, and no AES without one', () => {
    expect(encryptionById(28, 256)).toBeUndefined();
    expect(encryptionById(20, undefined)).toBeUndefined();
    expect(encryptionById(20, 64)).toBeUndefined();
  });

  it('has sizes that fit together', () => {
    for (const entry of encryptionAlgorithms) {
      expect(entry.aead).toBe(entry.icvLength > 0);
      expect(entry.keyLength).toBe((entry.keyBits ?? entry.keyLength * 8) / 8);
      expect(entry.saltLength + entry.ivLength).toBe(
        entry.name === 'null' ? 0 : entry.blockSize === 16 ? 16 : entry.saltLength === 3 ? 11 : 12,
      );
    }
    for (const entry of prfAlgorithms) expect(entry.keyLength).toBe(entry.outputLength);
  });

  it('marks SHA-1, MODP of 2048 bits and NULL as weak, and nothing else', () => {
    const weak = Object.values(tables).flatMap((table) => table.filter((entry) => entry.weak));
    expect(weak.map(({ name }) => name)).toStrictEqual(['null', 'sha1', 'prfsha1', 'modp2048']);
    expect(encryptionAlgorithms.filter((entry) => entry.espOnly).map(({ name }) => name)).toStrictEqual(['null']);
  });
});

describe('the default proposals', () => {
  it('hold nothing weak', () => {
    for (const { encryption, integrity, prf, dh } of defaultIkeProposals) {
      expect([...encryption, ...integrity, ...prf, ...dh].filter(({ weak }) => weak)).toStrictEqual([]);
    }
    for (const { encryption, integrity, dh } of defaultEspProposals) {
      expect([...encryption, ...integrity, ...dh].filter(({ weak }) => weak)).toStrictEqual([]);
    }
  });

  it('offer AEADs first, in a proposal of their own', () => {
    for (const [aead, plain] of [defaultIkeProposals, defaultEspProposals, defaultEspProposals.slice(2)]) {
      expect(need(aead).encryption.every((cipher) => cipher.aead)).toBe(true);
      expect(need(aead).integrity).toStrictEqual([]);
      expect(need(plain).encryption.some((cipher) => cipher.aead)).toBe(false);
      expect(need(plain).integrity.length).toBeGreaterThan(0);
    }
  });

  it('guess Curve25519 first and prefer extended sequence numbers', () => {
    for (const { dh } of defaultIkeProposals) expect(need(dh[0]).name).toBe('x25519');
    for (const { esn } of defaultEspProposals) expect(esn).toStrictEqual([true, false]);
  });

  it('of ESP take a key exchange of its own, and do without one where the peer has none', () => {
    const groups = defaultEspProposals.map(({ dh }) => dh);
    expect(groups).toStrictEqual([need(defaultIkeProposals[0]).dh, need(defaultIkeProposals[0]).dh, [], []]);
  });

  it.each(providers)('are wholly supported by $name', (provider) => {
    for (const { encryption, integrity, prf, dh } of defaultIkeProposals) {
      for (const entry of [...encryption, ...integrity, ...prf, ...dh]) expect(provider.supports(entry)).toBe(true);
    }
  });
});
