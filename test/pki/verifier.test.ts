/** Signatures of every kind, and what of a peer's auth is refused before anything is computed. */
import {
  constants,
  createHash,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  privateEncrypt,
} from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { derElement } from '../../src/base/asn1/der.ts';
import { MAX_CERTIFICATE, MAX_GENERAL_NAMES } from '../../src/base/asn1/x509-limits.ts';
import { concatBytes, fromHex, toHex } from '../../src/base/bytes.ts';
import { identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { parseCertificate } from '../../src/pki/certificate.ts';
import { algorithmOf, schemeName, schemeOf } from '../../src/pki/scheme.ts';
import { keySigner } from '../../src/pki/signer.ts';
import type { SignatureMethod } from '../../src/pki/types.ts';
import { pathVerifier } from '../../src/pki/verifier.ts';
import { auth, judge, octets, right, root } from './judge.ts';
import { dns, ecKey, extension, type Made, make, makeCrl } from './make.ts';

const keys: Readonly<Record<string, KeyObject>> = {
  'rsa-2048': generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey,
  'rsa-pss': generateKeyPairSync('rsa-pss', {
    modulusLength: 2048,
    hashAlgorithm: 'sha256',
    mgf1HashAlgorithm: 'sha256',
  }).privateKey,
  'P-256': ecKey('P-256'),
  'P-384': ecKey('P-384'),
  'P-521': ecKey('P-521'),
  ed25519: generateKeyPairSync('ed25519').privateKey,
  ed448: generateKeyPairSync('ed448').privateKey,
};
const certified = new Map<KeyObject, Made>();
function certificateOf(key: KeyObject): Made {
  const made =
    certified.get(key) ?? make({ subject: 'O=Example, CN=gw1', issuer: root, key, san: [dns('gw1.example')] });
  certified.set(key, made);
  return made;
}

describe('signatures', () => {
  const methods = Object.entries(keys).flatMap(([name, key]) =>
    keySigner(key)
      .methods.filter((method) => name !== 'rsa-pss' || method.name === 'rsa-pss-sha256')
      .map((method) => [`${name} ${method.name}`, key, method] as const),
  );

  it('are of these kinds', () => {
    const names = (name: string): string[] => keySigner(keys[name]!).methods.map((method) => method.name);
    const rsa = [
      'pss-sha256',
      'pss-sha384',
      'pss-sha512',
      'pkcs1-sha256',
      'pkcs1-sha384',
      'pkcs1-sha512',
      'signature-sha256',
    ];
    expect(names('rsa-2048')).toEqual(rsa.map((name) => `rsa-${name}`));
    expect(names('P-256')).toEqual(['ecdsa-sha256', 'ecdsa-sha384', 'ecdsa-sha512', 'ecdsa-256']);
    expect(names('P-384')).toEqual(['ecdsa-sha384', 'ecdsa-sha256', 'ecdsa-sha512', 'ecdsa-384']);
    expect(names('P-521')).toEqual(['ecdsa-sha512', 'ecdsa-sha256', 'ecdsa-sha384', 'ecdsa-521']);
    expect(names('ed25519')).toEqual(['ed25519']);
    expect(names('ed448')).toEqual(['ed448']);
    expect(keySigner(keys['rsa-2048']!, { allowSha1: true }).methods.at(-1)?.name).toBe('rsa-signature-sha1');
    const numbers = (name: string): unknown[] =>
      keySigner(keys[name]!).methods.map(({ authMethod, hash }) => [authMethod, hash]);
    expect(numbers('P-384')).toEqual([
      [14, 3],
      [14, 2],
      [14, 4],
      [10, undefined],
    ]);
    expect(numbers('ed448')).toEqual([[14, 5]]);
  });

  it.each(methods)('of %s are made and found right, and no other', async (_, key, method: SignatureMethod) => {
    const made = certificateOf(key);
    const signature = await keySigner(key).sign(method, octets);
    const { authMethod, algorithm } = method;
    const given = auth(made, { authMethod, algorithm, signature });
    expect(await judge(given)).toBe('ok');
    expect(await judge({ ...given, octets: utf8('something else') })).toMatch(/^bad-signature/);
    const changed = Uint8Array.from(signature);
    changed[changed.length >> 1]! ^= 1;
    expect(await judge({ ...given, signature: changed })).toMatch(/^bad-signature/);
    for (const wrong of [[], [0], [...signature, 0], [...signature.subarray(1)], new Array(signature.length).fill(0)]) {
      expect(await judge({ ...given, signature: Uint8Array.from(wrong) })).toMatch(/^bad-signature/);
    }
  });

  it('of RSA are as long as the modulus, leading zeros included', async () => {
    const key = keys['rsa-2048']!;
    const method = keySigner(key).methods.find(({ name }) => name === 'rsa-pss-sha256')!;
    // The salt is random: one in 256 begins with a zero.
    let signature = new Uint8Array();
    for (let tries = 0; tries < 10_000 && signature[0] !== 0; tries++) {
      signature = new Uint8Array(await keySigner(key).sign(method, octets));
    }
    const { authMethod, algorithm } = method;
    const given = auth(certificateOf(key), { authMethod, algorithm, signature });
    expect(await judge(given)).toBe('ok');
    expect(await judge({ ...given, signature: signature.subarray(1) })).toMatch(/^bad-signature/);
  });

  it('stand behind the AlgorithmIdentifiers that RFC 7427 appendix A prints', () => {
    const der = (name: string, method: string): string | undefined => {
      const algorithm = keySigner(keys[name]!).methods.find((candidate) => candidate.name === method)?.algorithm;
      return algorithm && toHex(algorithm);
    };
    expect(der('rsa-2048', 'rsa-pkcs1-sha256')).toBe('300d06092a864886f70d01010b0500');
    expect(der('P-256', 'ecdsa-sha256')).toBe('300a06082a8648ce3d040302');
    expect(der('P-521', 'ecdsa-sha512')).toBe('300a06082a8648ce3d040304');
    expect(der('rsa-2048', 'rsa-pss-sha256')).toBe(
      '304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120',
    );
    expect(der('ed25519', 'ed25519')).toBe('300506032b6570');
  });

  it('are not lenient: padding of RSA, s = n, r or s = 0, another encoding', async () => {
    const rsa = certificateOf(keys['rsa-2048']!);
    const algorithm = fromHex('300d06092a864886f70d01010b0500');
    const modulus = Buffer.from(createPublicKey(rsa.key).export({ format: 'jwk' }).n!, 'base64url');
    const digest = createHash('sha256').update(octets).digest();
    const prefix = fromHex('3031300d060960864801650304020105000420');
    /** The signature of what should be `00 01 ff … ff 00`, DigestInfo. */
    const padded = async (filling: string, ...info: Uint8Array[]): Promise<string> => {
      const block = new Uint8Array(256);
      const head = concatBytes(fromHex(filling), ...info);
      block.set(head.length === 256 ? head : concatBytes(head, new Uint8Array(256 - head.length).fill(0x5a)));
      const signature = privateEncrypt({ key: rsa.key, padding: constants.RSA_NO_PADDING }, block);
      return await judge(auth(rsa, { algorithm, signature: new Uint8Array(signature) }));
    };
    const ff = (count: number): string => 'ff'.repeat(count);
    expect(await padded(`0001${ff(202)}00`, prefix, digest)).toBe('ok');
    expect(await padded(`0001${ff(8)}00`, prefix, digest)).toMatch(/^bad-signature/);
    expect(await padded(`0001${ff(201)}fe00`, prefix, digest)).toMatch(/^bad-signature/);
    expect(await padded(`0002${ff(202)}00`, prefix, digest)).toMatch(/^bad-signature/);
    expect(await padded(`0001${ff(221)}00`, digest)).toMatch(/^bad-signature/);
    // Without its null, or with a length that is written long: other bytes for the same digest.
    expect(await padded(`0001${ff(204)}00`, fromHex('302f300b06096086480165030402010420'), digest)).toMatch(/^bad/);
    expect(await padded(`0001${ff(201)}00`, fromHex(`308131${toHex(prefix).slice(4)}`), digest)).toMatch(
      /^bad-signature/,
    );
    expect(await judge(auth(rsa, { algorithm, signature: modulus }))).toMatch(/^bad-signature/);
    const ec = certificateOf(keys['P-256']!);
    const { sign: ecSign, methods: ecMethods } = keySigner(ec.key);
    const good = await ecSign(ecMethods[0]!, octets);
    const ecAlgorithm = ecMethods[0]!.algorithm;
    for (const wrong of [
      '3006020100020101',
      '3006020101020100',
      `30${toHex(good).slice(2)}00`,
      `3081${toHex(good).slice(2)}`,
    ]) {
      expect(await judge(auth(ec, { algorithm: ecAlgorithm, signature: fromHex(wrong) }))).toMatch(/^bad-signature/);
    }
    // A DER signature is none of RFC 4754's, nor the other way round.
    expect(await judge(auth(ec, { authMethod: 9, algorithm: undefined, signature: good }))).toMatch(/^bad-signature/);
    const fixed = await ecSign(ecMethods.at(-1)!, octets);
    expect(fixed.length).toBe(64);
    expect(await judge(auth(ec, { algorithm: ecAlgorithm, signature: fixed }))).toMatch(/^bad-signature/);
    expect(await judge(auth(ec, { authMethod: 9, algorithm: undefined, signature: new Uint8Array(64) }))).toMatch(
      /^bad/,
    );
  });

  it.each<[string, string, number, string | undefined, RegExp]>([
    ['SHA-1', 'rsa-2048', 14, '300d06092a864886f70d0101050500', /rsa-pkcs1-sha1: we did not offer SHA-1/],
    ['MD5', 'rsa-2048', 14, '300d06092a864886f70d0101040500', /md5WithRSAEncryption/],
    ['PSS with its defaults, SHA-1', 'rsa-2048', 14, '300d06092a864886f70d01010a3000', /unsupported parameters/],
    ['PSS without parameters', 'rsa-2048', 14, '300b06092a864886f70d01010a', /unsupported parameters/],
    ['RSA without its null', 'rsa-2048', 14, '300b06092a864886f70d01010b', /algorithm 300b/],
    ['something behind it', 'P-256', 14, '300a06082a8648ce3d04030200', /a digital signature with/],
    ['a length that is too long', 'P-256', 14, '30810a06082a8648ce3d040302', /a digital signature with/],
    ['nothing', 'P-256', 14, '', /a digital signature with/],
    [
      'a key of another kind',
      'P-256',
      14,
      '300d06092a864886f70d01010b0500',
      /but the key of the certificate is ec on prime256v1/,
    ],
    ['an RSA signature by a curve', 'P-256', 1, undefined, /an RSA signature, but the key/],
    ['another curve', 'P-384', 9, undefined, /ECDSA signature for P-256, but the key .* secp384r1/],
    ['a shared key', 'P-256', 2, undefined, /authentication method 2/],
    ['DSS', 'rsa-2048', 3, undefined, /authentication method 3/],
  ])('with %s are refused', async (_, name, authMethod, algorithm, why) => {
    const given = auth(certificateOf(keys[name]!), {
      authMethod,
      algorithm: algorithm === undefined ? undefined : fromHex(algorithm),
    });
    expect(await judge(given)).toMatch(/^method-refused: the peer authenticates with /);
    expect(await judge(given)).toMatch(why);
  });

  it('with PSS whose salt is not as long as the hash, or whose hashes differ, are refused', async () => {
    const made = certificateOf(keys['rsa-2048']!);
    const pss = (saltLength: number): Uint8Array => algorithmOf({ kind: 'rsa-pss', hash: 'sha256', saltLength });
    expect(await judge(auth(made, { algorithm: pss(20) }))).toMatch(/^method-refused: .*salt of 20 bytes; 32/);
    const mixed = fromHex(toHex(pss(32)).replace('0402010500a203', '0402030500a203'));
    expect(await judge(auth(made, { algorithm: mixed }))).toMatch(/^method-refused/);
    const negative = fromHex(toHex(pss(32)).replace(/20$/, 'e0'));
    expect(schemeOf(negative)).toBeUndefined();
    // The null of the hashes may be left out (RFC 4055 §2.1).
    const hash = '300b0609608648016503040201';
    const bare = `a00d${hash}a11a301806092a864886f70d010108${hash}a203020120`;
    expect(schemeOf(fromHex(`303d06092a864886f70d01010a3030${bare}`))).toEqual({
      kind: 'rsa-pss',
      hash: 'sha256',
      saltLength: 32,
    });
    // A trailer that says what is the default is no DER.
    expect(schemeOf(fromHex(`304206092a864886f70d01010a3035${bare}a303020101`))).toBeUndefined();
  });

  it('with SHA-1 are accepted where they are allowed', async () => {
    const { key } = certificateOf(keys['rsa-2048']!);
    const signer = keySigner(key, { allowSha1: true });
    const old = signer.methods.at(-1)!;
    const given = auth(certificateOf(key), {
      authMethod: 1,
      algorithm: undefined,
      signature: await signer.sign(old, octets),
    });
    expect(await judge(given)).toMatch(/^bad-signature/);
    expect(await judge(given, { allowSha1: true })).toBe('ok');
    // But not where RFC 7427 was agreed on: nobody announced it.
    const digital = auth(certificateOf(key), { algorithm: fromHex('300d06092a864886f70d0101050500') });
    expect(await judge(digital, { allowSha1: true })).toMatch(/^method-refused: .*we did not offer SHA-1/);
  });

  it('are not made with keys that are too weak, nor with the methods of others', async () => {
    const weak = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey;
    expect(() => keySigner(weak)).toThrow('RSA key of 1024 bits');
    const signer = keySigner(keys.ed25519!);
    await expect(signer.sign(keySigner(keys['P-256']!).methods[0]!, octets)).rejects.toThrow(
      'cannot sign with ecdsa-sha256',
    );
  });

  it('are known by no other bytes', () => {
    const known = Object.values(keys).flatMap((key) =>
      keySigner(key).methods.flatMap(({ algorithm }) => algorithm ?? []),
    );
    fc.assert(
      fc.property(fc.constantFrom(...known), fc.nat(80), fc.integer({ min: 1, max: 255 }), (der, at, flip) => {
        const changed = Uint8Array.from(der);
        changed[at % der.length]! ^= flip;
        const scheme = schemeOf(changed);
        // What a change makes of one may be another one of the list, or another salt.
        if (scheme !== undefined && scheme.kind !== 'rsa-pss') expect(algorithmOf(scheme)).toEqual(changed);
        if (scheme?.kind === 'rsa-pss') expect(schemeName(scheme)).toMatch(/^rsa-pss-sha/);
      }),
    );
  });
});

describe('what a peer sends', () => {
  const made = certificateOf(keys['P-256']!);

  it('is refused when there is none, too much, or when it is no certificate', async () => {
    expect(await judge(auth(made, { certificates: [] }))).toMatch(/^no-certificate/);
    expect(await judge(auth(made, { certificates: new Array(11).fill(made.der) }))).toMatch(
      /^too-many-certificates: .*11.*10/,
    );
    expect(await judge(auth(made, { certificates: [utf8('nonsense')] }))).toMatch(/^malformed-certificate/);
    expect(await judge(auth(made, { certificates: [new Uint8Array(MAX_CERTIFICATE + 1)] }))).toMatch(
      /^malformed.* the limit is 20480/,
    );
    expect(await judge(await right(made, { certificates: [made.der, root.der] }))).toBe('ok');
  });

  it('may be a certificate of 20 KiB', async () => {
    const name = (i: number): string => `host-${i}.${'with-a-long-name.'.repeat(8)}example`;
    const many = Array.from({ length: MAX_GENERAL_NAMES }, (_, i) => dns(name(i)));
    const large = make({ subject: 'CN=large', issuer: root, san: many });
    expect(large.der.length).toBeGreaterThan(19_000);
    expect(large.der.length).toBeLessThan(MAX_CERTIFICATE);
    expect(await judge(await right(large, { id: identityFromText('fqdn', name(127)) }))).toBe('ok');
  });

  it('is refused when any byte of the certificate is changed', async () => {
    const given = await right(made);
    await fc.assert(
      fc.asyncProperty(fc.nat(made.der.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const changed = Uint8Array.from(made.der);
        changed[at]! ^= flip;
        expect(await judge({ ...given, certificates: [changed] })).not.toBe('ok');
      }),
      { numRuns: 150 },
    );
  });

  it('is malformed with extensions twice, without sense, or in an old version', async () => {
    const verdict = async (...extra: Uint8Array[]): Promise<string> =>
      await judge(await right(make({ subject: 'CN=x', issuer: root, extra })));
    const harmless = extension('2a03', false, fromHex('0500'));
    expect(await verdict(harmless, harmless)).toMatch(/^malformed-certificate: .*1\.2\.3 is in it twice/);
    expect(await verdict(extension('551d11', false, fromHex('3000')))).toMatch(/^malformed.*a list of names is empty/);
    expect(await verdict(extension('551d11', false, fromHex('30038703010203')))).toMatch(/^malformed/);
    expect(await verdict(extension('551d11', false, derElement(0x30, derElement(0x82, utf8('a\0.example')))))).toMatch(
      /^malformed.*visible/,
    );
    expect(await verdict(extension('551d11', false, fromHex('3005870301020304')))).toMatch(/^malformed/);
    expect(
      await verdict(extension('551d11', false, derElement(0x30, fromHex('8704c0000201'), fromHex('8700')))),
    ).toMatch(/^malformed.*0 bytes/);
    expect(await verdict(extension('551d1e', true, fromHex('3000')))).toMatch(/^malformed.*without a name/);
    expect(await verdict(extension('551d1e', true, fromHex('300aa0083006820161800101')))).toMatch(
      /^malformed.*distance/,
    );
    expect(await verdict(extension('551d13', true, fromHex('30060101ff0201ff')))).toMatch(/^malformed.*path length/);
    expect(await verdict(extension('551d0f', true, fromHex('0500')))).toMatch(/^malformed.*key usage/);
    const inner = fromHex('300a06082a8648ce3d040303');
    const two = Uint8Array.from(made.der);
    // The algorithm outside the signed part.
    const at = toHex(made.der).lastIndexOf('300a06082a8648ce3d040302') / 2;
    two.set(inner, at);
    expect(await judge(auth(made, { certificates: [two] }))).toMatch(/^malformed.*two signature algorithms differ/);
  });

  it('is malformed with a key that is none: no point of a curve, the one at infinity, of another kind', async () => {
    const info = new Uint8Array(createPublicKey(made.key).export({ format: 'der', type: 'spki' }));
    const beside = info.slice();
    beside[beside.length - 1]! ^= 1;
    const spki = (algorithm: string, bits: string): Uint8Array => derElement(0x30, fromHex(algorithm), fromHex(bits));
    const ec = '301306072a8648ce3d020106082a8648ce3d030107';
    const x25519 = generateKeyPairSync('x25519').publicKey.export({ format: 'der', type: 'spki' });
    const explicit = generateKeyPairSync('ec', { namedCurve: 'P-256', paramEncoding: 'explicit' }).publicKey;
    for (const [publicKeyInfo, why] of [
      [beside, /not an X.509 certificate/],
      // Node 20 would end the process.
      [spki(ec, '03020000'), /not a point on a curve, or is the point at infinity/],
      [spki(ec, '0303000000'), /not a point on a curve/],
      [spki(ec, '030100'), /not a point on a curve/],
      [spki(ec, '03020004'), /not a point on a curve/],
      [spki(ec, '03020104'), /not a whole number of bytes/],
      [new Uint8Array(x25519), /an algorithm other than RSA, ECDSA and EdDSA \(300506032b656e\)/],
      [new Uint8Array(explicit.export({ format: 'der', type: 'spki' })), /does not name its curve/],
    ] as const) {
      const verdict = await judge(auth(make({ subject: 'CN=x', issuer: root, publicKeyInfo })));
      expect(verdict).toMatch(/^malformed-certificate/);
      expect(verdict).toMatch(why);
    }
  });

  it('may have revocation lists with it, also malformed ones', async () => {
    const serial = Uint8Array.of(0x55);
    const end = make({ subject: 'CN=x', issuer: root, serial, san: [dns('gw1.example')] });
    const crl = makeCrl({ issuer: root, revoked: [serial] });
    expect(await judge(await right(end, { crls: [utf8('nonsense'), new Uint8Array(100_000)] }))).toBe('ok');
    expect(await judge(await right(end, { crls: [utf8('nonsense'), crl] }))).toMatch(/^revoked/);
    expect(await judge(await right(end), { crlPolicy: 'strict' })).toMatch(/^revocation-unknown/);
    expect(await judge(await right(end, { crls: [makeCrl({ issuer: root })] }), { crlPolicy: 'strict' })).toBe('ok');
  });

  it('is answered with the hashes of the authorities that are trusted', () => {
    const [hash] = pathVerifier({ anchors: [parseCertificate(root.der)] }).authorities;
    expect(hash?.length).toBe(20);
  });
});
