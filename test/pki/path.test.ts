import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { derElement } from '../../src/base/asn1/der.ts';
import { dnFromText } from '../../src/base/asn1/dn-text.ts';
import { fromHex } from '../../src/base/bytes.ts';
import { utf8 } from '../../src/base/text.ts';
import { parseCertificate } from '../../src/pki/certificate.ts';
import { type PathOptions, validatePath } from '../../src/pki/path.ts';
import { parseCrl } from '../../src/pki/revocation/crl.ts';
import {
  authority,
  DAY,
  directory,
  dns,
  ECDSA_SHA256,
  ecKey,
  email,
  extension,
  ip,
  type Made,
  make,
  makeCrl,
  NOW,
  type Recipe,
  uri,
} from './make.ts';

const root = authority('O=Example, CN=Root');
const middle = authority('O=Example, CN=Middle', { issuer: root });

/** `ok`, or reason and detail. */
async function judge(
  leaf: Made,
  anchors: readonly Made[],
  more: Partial<PathOptions> = {},
  ...sent: Made[]
): Promise<string> {
  const result = await validatePath(parseCertificate(leaf.der), {
    anchors: anchors.map(({ der }) => parseCertificate(der)),
    intermediates: sent.map(({ der }) => parseCertificate(der)),
    crls: [],
    crlPolicy: 'ifpresent',
    now: NOW,
    clockSkew: 60_000,
    allowSha1: false,
    extendedKeyUsage: 'ignore',
    ...more,
  });
  return result.ok ? `ok ${result.path.length}` : `${result.reason}: ${result.detail}`;
}

const leaf = (recipe: Partial<Recipe> = {}): Made => make({ subject: 'O=Example, CN=gw1', issuer: root, ...recipe });

describe('a path', () => {
  it('leads to a trust anchor, over what the peer sent, in whatever order', async () => {
    expect(await judge(leaf(), [root])).toBe('ok 2');
    expect(await judge(leaf(), [authority('CN=Other'), root])).toBe('ok 2');
    const lower = authority('CN=Lower', { issuer: middle });
    const end = leaf({ issuer: lower });
    expect(await judge(end, [root], {}, middle, lower)).toBe('ok 4');
    expect(await judge(end, [root], {}, lower, authority('CN=Stranger'), middle)).toBe('ok 4');
    // A certificate between may be trusted itself.
    expect(await judge(end, [middle], {}, lower)).toBe('ok 3');
    expect(await judge(end, [lower, root], {}, middle)).toBe('ok 2');
  });

  it('is refused with words where no authority is trusted', async () => {
    expect(await judge(leaf({ issuer: middle }), [root])).toBe(
      "untrusted: 'O=Example, CN=gw1' was issued by 'O=Example, CN=Middle', which is not among the trusted authorities" +
        " ('O=Example, CN=Root'), and the peer sent no certificate that links it to one of them",
    );
    const self = leaf({ issuer: undefined });
    expect(await judge(self, [root])).toMatch(/^untrusted: 'O=Example, CN=gw1' was issued by itself/);
    expect(await judge(self, [])).toMatch(/^untrusted/);
    // A certificate is no auth of itself, be it among the trusted ones.
    expect(await judge(self, [self])).toMatch(/^not-an-authority/);
  });

  it('selects the right one of authorities of the same name', async () => {
    const twin = authority('O=Example, CN=Root');
    expect(await judge(leaf(), [twin, root])).toBe('ok 2');
    expect(await judge(leaf(), [twin])).toMatch(
      /^bad-certificate-signature: .* was not signed by 'O=Example, CN=Root'/,
    );
    const keyId = (oid: string, id: string, inner: number): Uint8Array =>
      extension(
        oid,
        false,
        oid === '551d0e' ? derElement(0x04, utf8(id)) : derElement(0x30, derElement(inner, utf8(id))),
      );
    const [a, b] = ['a', 'b'].map((id) => authority('CN=Same', { extra: [keyId('551d0e', id, 0)] }));
    const end = make({ subject: 'CN=x', issuer: b!, extra: [keyId('551d23', 'b', 0x80)] });
    expect(await judge(end, [a!, b!])).toBe('ok 2');
    expect(await judge(end, [a!])).toMatch(/^untrusted/);
  });

  it('knows names that are equal but for string type, case and blanks', async () => {
    const cn = (tag: number, text: string): Uint8Array =>
      derElement(0x30, derElement(0x31, derElement(0x30, fromHex('0603550403'), derElement(tag, utf8(text)))));
    const ca = authority('', { subjectName: cn(0x0c, 'My  Root') });
    expect(await judge(make({ subject: 'CN=x', issuer: ca, issuerName: cn(0x13, 'MY ROOT') }), [ca])).toBe('ok 2');
    expect(await judge(make({ subject: 'CN=x', issuer: ca, issuerName: cn(0x13, 'MYROOT') }), [ca])).toMatch(
      /^untrusted/,
    );
  });

  it('ends for rings, and for crowds of one name', async () => {
    const [a, b] = [ecKey(), ecKey()];
    const ring = [
      authority('CN=A', { key: a, issuerName: dnFromText('CN=B'), signingKey: b }),
      authority('CN=B', { key: b, issuerName: dnFromText('CN=A'), signingKey: a }),
    ];
    expect(await judge(make({ subject: 'CN=x', issuer: ring[0] }), [root], {}, ...ring)).toMatch(/^untrusted/);
    const key = ecKey();
    const crowd = Array.from({ length: 9 }, () => authority('CN=Crowd', { key }));
    expect(await judge(make({ subject: 'CN=x', issuer: crowd[0] }), [root], {}, ...crowd)).toMatch(/^untrusted/);
  });

  it('may have ten certificates, and no more', async () => {
    const chain = [root];
    for (let i = 0; i < 9; i++) chain.unshift(authority(`CN=${i}`, { issuer: chain[0] }));
    const path = (authorities: readonly Made[]): Promise<string> =>
      judge(make({ subject: 'CN=x', issuer: authorities[0] }), [root], {}, ...authorities.slice(0, -1));
    expect(await path(chain.slice(1))).toBe('ok 10');
    expect(await path(chain)).toMatch(/^untrusted/);
  });
});

/** SubjectPublicKeyInfo of a modulus of 2,048 bits with an exponent, hexadecimal. */
function rsaKey(exponent: string): Uint8Array {
  const modulus = derElement(0x02, fromHex(`00${'c3'.repeat(256)}`));
  const key = derElement(0x30, modulus, derElement(0x02, fromHex(exponent)));
  return derElement(0x30, fromHex('300d06092a864886f70d0101010500'), derElement(0x03, Uint8Array.of(0), key));
}

describe('a certificate is refused', () => {
  const cases: readonly [string, () => Promise<string>, RegExp][] = [
    [
      'when it has expired',
      () => judge(leaf({ notAfter: NOW - DAY }), [root]),
      /^expired: 'O=Example, CN=gw1' expired on 2026-05-31T00:00:00.000Z; the clock says 2026-06-01/,
    ],
    [
      'when it is for later',
      () => judge(leaf({ notBefore: NOW + DAY }), [root]),
      /^not-yet-valid: .*not valid before 2026-06-02/,
    ],
    [
      'when its issuer has expired',
      () =>
        judge(
          leaf({ issuer: middle }),
          [root],
          {},
          { ...authority('O=Example, CN=Middle', { issuer: root, key: middle.key, notAfter: NOW - DAY }) },
        ),
      /^expired: 'O=Example, CN=Middle'/,
    ],
    [
      'when the trust anchor has expired',
      () => judge(leaf(), [authority('O=Example, CN=Root', { key: root.key, notAfter: NOW - DAY })]),
      /^expired: 'O=Example, CN=Root'/,
    ],
    [
      'when its issuer is no authority',
      () => judge(leaf({ issuer: leaf({ subject: 'CN=gw2' }) }), [root], {}, leaf({ subject: 'CN=gw2' })),
      /^not-an-authority: 'CN=gw2' issued a certificate, but .* do not name it an authority/,
    ],
    [
      'when its issuer says that it is none',
      () => {
        const liar = make({ subject: 'CN=liar', issuer: root, ca: false });
        return judge(leaf({ issuer: liar }), [root], {}, liar);
      },
      /^not-an-authority/,
    ],
    [
      'when its issuer may not sign certificates',
      () => {
        const ca = authority('CN=crlonly', { issuer: root, keyUsage: [0x02] });
        return judge(leaf({ issuer: ca }), [root], {}, ca);
      },
      /^not-an-authority: .*keyCertSign/,
    ],
    [
      'when an authority of version 1 came from the peer',
      () => {
        const old = make({ subject: 'CN=old', issuer: root, version: 1 });
        return judge(leaf({ issuer: old }), [root], {}, old);
      },
      /^not-an-authority/,
    ],
    [
      'when there are more authorities than the path length allows',
      () => {
        const ca = authority('CN=top', { pathLength: 0 });
        const sub = authority('CN=sub', { issuer: ca });
        return judge(leaf({ issuer: sub }), [ca], {}, sub);
      },
      /^path-too-long: 'CN=sub'/,
    ],
    [
      'when a path length below is longer than the one above',
      () => {
        const [ca, key] = [authority('CN=top', { pathLength: 1 }), ecKey()];
        const a = authority('CN=a', { issuer: ca, pathLength: 9, key });
        const b = authority('CN=b', { issuer: a });
        return judge(leaf({ issuer: b }), [ca], {}, a, b);
      },
      /^path-too-long: 'CN=b'/,
    ],
    [
      'when its key is not for signatures',
      () => judge(leaf({ keyUsage: [0x20] }), [root]),
      /^key-usage: .*neither digitalSignature nor nonRepudiation/,
    ],
    [
      'when its extended key usage is not for IKE and that is asked for',
      () => judge(leaf({ eku: ['2b06010505070301'] }), [root], { extendedKeyUsage: 'ike' }),
      /^key-usage: .*1\.3\.6\.1\.5\.5\.7\.3\.1/,
    ],
    [
      'for a critical extension that is not understood',
      () => judge(leaf({ extra: [extension('2a0304', true, fromHex('0500'))] }), [root]),
      /^unknown-critical-extension: .*1\.2\.3\.4, which sectunnel does not support/,
    ],
    [
      'for policy constraints, which are not processed',
      () => judge(leaf({ extra: [extension('551d24', true, fromHex('3003800100'))] }), [root]),
      /^unknown-critical-extension: .*2\.5\.29\.36/,
    ],
    [
      'for SHA-1',
      () => judge(leaf({ algorithm: { der: fromHex('300906072a8648ce3d0401'), hash: 'sha1' } }), [root]),
      /^weak-algorithm: .*ecdsa-sha1; SHA-256/,
    ],
    [
      'for an algorithm that is not known',
      () => judge(leaf({ algorithm: { der: fromHex('300d06092a864886f70d0101040500'), hash: 'sha256' } }), [root]),
      /^weak-algorithm: .*md5WithRSAEncryption/,
    ],
    [
      'for an algorithm with parameters that it must not have',
      () => judge(leaf({ algorithm: { der: fromHex('300c06082a8648ce3d0403020500'), hash: 'sha256' } }), [root]),
      /^weak-algorithm/,
    ],
    [
      'for a short key',
      () => judge(leaf({ key: generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey }), [root]),
      /^weak-key: .*RSA key of 1024 bits; the minimum is 2048/,
    ],
    [
      'for a key with exponent 1',
      () => judge(leaf({ publicKeyInfo: rsaKey('01') }), [root]),
      /^weak-key: .*exponent 1;/,
    ],
    [
      'for a key with exponent 0',
      () => judge(leaf({ publicKeyInfo: rsaKey('00') }), [root]),
      /^weak-key: .*exponent 0;/,
    ],
    ['for an even exponent', () => judge(leaf({ publicKeyInfo: rsaKey('04') }), [root]), /^weak-key: .*exponent 4;/],
    [
      'for an exponent that would take long',
      () => judge(leaf({ publicKeyInfo: rsaKey(`7f${'ff'.repeat(200)}`) }), [root]),
      /^weak-key: .*exponent [0-9]{400,}; 65537/,
    ],
    ['for another curve', () => judge(leaf({ key: ecKey('secp256k1') }), [root]), /^weak-key: .*secp256k1; use P-256/],
    [
      'when a bit of it was changed',
      () => {
        const { der } = leaf();
        const changed = Uint8Array.from(der);
        changed[der.length - 1]! ^= 1;
        return judge({ ...root, der: changed }, [root]);
      },
      /^bad-certificate-signature/,
    ],
    ['when another key signed it', () => judge(leaf({ signingKey: ecKey() }), [root]), /^bad-certificate-signature/],
  ];
  it.each(cases)('%s', async (_, run, expected) => {
    expect(await run()).toMatch(expected);
  });

  it('not within the skew of clocks, for SHA-1 where it is allowed, or for an extended key usage that nobody asks for', async () => {
    expect(await judge(leaf({ notAfter: NOW - 59_000 }), [root])).toBe('ok 2');
    expect(await judge(leaf({ notAfter: NOW - 61_000 }), [root])).toMatch(/^expired/);
    expect(await judge(leaf({ notBefore: NOW + 59_000 }), [root])).toBe('ok 2');
    expect(await judge(leaf({ notAfter: Date.UTC(2060, 0) }), [root])).toBe('ok 2');
    const old = { der: fromHex('300906072a8648ce3d0401'), hash: 'sha1' };
    expect(await judge(leaf({ algorithm: old }), [root], { allowSha1: true })).toBe('ok 2');
    expect(await judge(leaf({ eku: ['2b06010505070301'] }), [root])).toBe('ok 2');
    expect(await judge(leaf({ eku: ['2b06010505070311'] }), [root], { extendedKeyUsage: 'ike' })).toBe('ok 2');
    expect(await judge(leaf(), [root], { extendedKeyUsage: 'ike' })).toBe('ok 2');
    // What signed the trust anchor does not matter, nor that it is of version 1.
    expect(await judge(leaf({ issuer: make({ subject: 'CN=v1', version: 1 }) }), [root])).toMatch(/^untrusted/);
    const v1 = make({ subject: 'CN=v1', version: 1, algorithm: old });
    expect(await judge(leaf({ issuer: v1 }), [v1])).toBe('ok 2');
  });

  it('by no key of a kind that did not sign', async () => {
    const ed = generateKeyPairSync('ed25519').privateKey;
    const ca = authority('CN=Ed', { key: ed, algorithm: { der: fromHex('300506032b6570'), hash: '' } });
    expect(
      await judge(make({ subject: 'CN=x', issuer: ca, algorithm: { der: fromHex('300506032b6570'), hash: '' } }), [ca]),
    ).toBe('ok 2');
    expect(
      await judge(make({ subject: 'CN=x', issuer: ca, algorithm: { der: ECDSA_SHA256, hash: '' } }), [ca]),
    ).toMatch(/^bad-certificate-signature/);
    expect(createPublicKey(ed).asymmetricKeyType).toBe('ed25519');
  });
});

describe('name constraints', () => {
  const named = async (constraints: Partial<Recipe>, recipe: Partial<Recipe>): Promise<string> => {
    const ca = authority('CN=Limited', { issuer: root, ...constraints });
    return await judge(leaf({ issuer: ca, ...recipe }), [root], {}, ca);
  };
  const refused = /^name-constraint: /;

  it.each<[string, Partial<Recipe>, Partial<Recipe>, boolean]>([
    ['host', { permitted: [dns('example.org')] }, { san: [dns('gw1.example.org')] }, true],
    ['host itself', { permitted: [dns('example.org')] }, { san: [dns('EXAMPLE.org')] }, true],
    ['host that only ends so', { permitted: [dns('example.org')] }, { san: [dns('badexample.org')] }, false],
    [
      'one host of two',
      { permitted: [dns('example.org')] },
      { san: [dns('a.example.org'), dns('a.example.com')] },
      false,
    ],
    ['excluded host', { excluded: [dns('example.org')] }, { san: [dns('gw1.example.org')] }, false],
    [
      'excluded host with a dot at its end',
      { excluded: [dns('example.org')] },
      { san: [dns('gw1.Example.org.')] },
      false,
    ],
    ['other than the excluded', { excluded: [dns('example.org')] }, { san: [dns('gw1.example.com')] }, true],
    ['permitted and excluded', { permitted: [dns('org')], excluded: [dns('x.org')] }, { san: [dns('a.x.org')] }, false],
    ['below a dot', { permitted: [dns('.example.org')] }, { san: [dns('a.example.org')] }, true],
    ['not below a dot', { permitted: [dns('.example.org')] }, { san: [dns('example.org')] }, false],
    ['names of another kind', { permitted: [dns('example.org')] }, { san: [email('a@b.c')] }, true],
    ['common name', { permitted: [dns('example.org')] }, { subject: 'CN=gw1.example.com' }, false],
    ['common name that is no host', { permitted: [dns('example.org')] }, { subject: 'CN=gateway one' }, true],
    [
      'common name beside a host',
      { permitted: [dns('org')] },
      { subject: 'CN=gw1.example.com', san: [dns('a.org')] },
      true,
    ],
    ['address', { permitted: [ip('c0000200ffffff00')] }, { san: [ip('c0000205')] }, true],
    ['address outside', { permitted: [ip('c0000200ffffff00')] }, { san: [ip('c0000305')] }, false],
    [
      'address of the other family',
      { permitted: [ip('c0000200ffffff00')] },
      { san: [ip(`20010db8${'00'.repeat(12)}`)] },
      true,
    ],
    [
      'excluded IPv6',
      { excluded: [ip(`20010db8${'00'.repeat(12)}ffffffff${'00'.repeat(12)}`)] },
      { san: [ip(`20010db8${'01'.repeat(12)}`)] },
      false,
    ],
    ['mailbox', { permitted: [email('a@example.org')] }, { san: [email('a@Example.org')] }, true],
    ['other mailbox', { permitted: [email('a@example.org')] }, { san: [email('b@example.org')] }, false],
    ['mail host', { permitted: [email('example.org')] }, { san: [email('b@example.org')] }, true],
    ['host below the mail host', { permitted: [email('example.org')] }, { san: [email('b@x.example.org')] }, false],
    ['mail domain', { permitted: [email('.example.org')] }, { san: [email('b@x.example.org')] }, true],
    ['mail in the subject', { excluded: [email('example.org')] }, { subject: 'CN=x, E=b@example.org' }, false],
    ['subject', { permitted: [directory('O=Example')] }, { subject: 'O=EXAMPLE, CN=gw1' }, true],
    ['other subject', { permitted: [directory('O=Example')] }, { subject: 'O=Other, CN=gw1' }, false],
    ['subject that is shorter', { permitted: [directory('O=Example, OU=a')] }, { subject: 'O=Example' }, false],
    ['excluded subject', { excluded: [directory('O=Example')] }, { subject: 'O=example, CN=gw1' }, false],
    [
      'excluded name in the alternatives',
      { excluded: [directory('O=Bad')] },
      { san: [directory('O=Bad, CN=x')] },
      false,
    ],
    ['URI', { permitted: [uri('.example.org')] }, { san: [uri('https://u@a.example.org:1/x')] }, true],
    ['URI elsewhere', { permitted: [uri('example.org')] }, { san: [uri('https://evil.org/example.org')] }, false],
    ['URI without a host', { excluded: [uri('example.org')] }, { san: [uri('urn:x')] }, false],
    ['kind that is not understood', { excluded: [fromHex('8803550403')] }, { san: [fromHex('8803550404')] }, false],
    ['kind that is not understood, not there', { excluded: [fromHex('8803550403')] }, { san: [dns('a.b')] }, true],
  ])('%s', async (_, constraints, recipe, fits) => {
    const verdict = await named(constraints, recipe);
    if (fits) expect(verdict).toBe('ok 3');
    else expect(verdict).toMatch(refused);
  });

  it('hold for authorities below, those of a trust anchor too, and not for the same authority with a new key', async () => {
    const ca = authority('CN=Top', { permitted: [directory('O=Example')] });
    const bad = authority('O=Other', { issuer: ca });
    expect(await judge(leaf({ issuer: bad }), [ca], {}, bad)).toMatch(/^name-constraint: 'O=Other'/);
    const renewed = authority('CN=Top', { issuer: ca });
    expect(await judge(leaf({ issuer: renewed }), [ca], {}, renewed)).toBe('ok 3');
    expect(await judge(leaf({ issuer: renewed, subject: 'O=Other' }), [ca], {}, renewed)).toMatch(refused);
  });

  it('without a trusted issuer are not evaluated: a forger could choose their cost', async () => {
    // As many as are read at all.
    const many = Array.from({ length: 120 }, (_, i) => directory(`O=${i}`));
    const forged = authority('CN=Forged', { issuer: root, signingKey: ecKey(), permitted: many });
    const names = Array.from({ length: 80 }, (_, i) => directory(`O=${i}, CN=x`));
    expect(await judge(leaf({ issuer: forged, san: names }), [root], {}, forged)).toMatch(
      /^bad-certificate-signature: 'CN=Forged' was not signed/,
    );
  });

  it('say what was found and what was permitted', async () => {
    expect(await named({ permitted: [dns('a.org'), dns('b.org')] }, { san: [dns('c.org')] })).toBe(
      "name-constraint: 'O=Example, CN=gw1': fqdn c.org is not in fqdn a.org or fqdn b.org, the only ones that are permitted by its issuers' name constraints",
    );
  });
});

describe('revocation', () => {
  const serial = Uint8Array.of(0x77, 1);
  const gone = leaf({ serial });
  const withCrl = (end: Made, policy: 'strict' | 'ifpresent', ...crls: Uint8Array[]): Promise<string> =>
    judge(end, [root], { crls: crls.map(parseCrl), crlPolicy: policy });
  const signer = authority('O=Example, CN=Root', { key: root.key, keyUsage: [0x04] });
  const point = (value: string): readonly Uint8Array[] => [extension('551d1c', true, fromHex(value))];

  it('is found in a list of the issuer', async () => {
    const reason = extension('551d15', false, fromHex('0a0101'));
    const crl = makeCrl({ issuer: root, revoked: [Uint8Array.of(5), serial], entryExtensions: [reason] });
    expect(await withCrl(gone, 'ifpresent', crl)).toBe(
      "revoked: 'O=Example, CN=gw1' was revoked since 2026-05-31: its key was stolen",
    );
    expect(await withCrl(leaf(), 'strict', crl)).toBe('ok 2');
    expect(await withCrl(leaf(), 'strict', makeCrl({ issuer: root }))).toBe('ok 2');
  });

  it('of an authority between counts as well', async () => {
    const ca = authority('CN=Gone', { issuer: root, serial });
    const crls = [parseCrl(makeCrl({ issuer: root, revoked: [serial] }))];
    expect(await judge(leaf({ issuer: ca }), [root], { crls }, ca)).toMatch(/^revoked: 'CN=Gone'/);
    const own = authority('CN=Fine', { issuer: root });
    const end = leaf({ issuer: own });
    expect(await judge(end, [root], { crls, crlPolicy: 'strict' }, own)).toMatch(
      /^revocation-unknown: .*'O=Example, CN=gw1'/,
    );
    const both = [...crls, parseCrl(makeCrl({ issuer: own }))];
    expect(await judge(end, [root], { crls: both, crlPolicy: 'strict' }, own)).toBe('ok 3');
  });

  it.each<[string, () => Uint8Array, RegExp]>([
    ['missing', () => makeCrl({ issuer: middle }), /no revocation list of its issuer/],
    ['out of date', () => makeCrl({ issuer: root, nextUpdate: NOW - DAY }), /expired on 2026-05-31/],
    ['of tomorrow', () => makeCrl({ issuer: root, thisUpdate: NOW + DAY }), /in the future/],
    ['without an end', () => makeCrl({ issuer: root, nextUpdate: null }), /until which it is valid/],
    ['of another key', () => makeCrl({ issuer: root, signingKey: ecKey() }), /its signature is wrong/],
    [
      'signed with SHA-1',
      () => makeCrl({ issuer: root, algorithm: { der: fromHex('300906072a8648ce3d0401'), hash: 'sha1' } }),
      /ecdsa-sha1/,
    ],
    [
      'for authorities only',
      () => makeCrl({ issuer: root, extensions: point('30038201ff') }),
      /for other certificates/,
    ],
    [
      'for some only',
      () => makeCrl({ issuer: root, extensions: point('3009a007a0058603613a62') }),
      /for other certificates/,
    ],
  ])('is not known by a list that is %s: strict refuses, ifpresent does not', async (_, crl, why) => {
    const verdict = await withCrl(leaf(), 'strict', crl());
    expect(verdict).toMatch(/^revocation-unknown/);
    expect(verdict).toMatch(why);
    expect(await withCrl(leaf(), 'ifpresent', crl())).toBe('ok 2');
  });

  it('is known by a list for some only if the certificate says that it is in the list from there', async () => {
    const url = derElement(0x86, utf8('http://pki.example/3.crl'));
    const list = makeCrl({
      issuer: root,
      revoked: [serial],
      extensions: [extension('551d1c', true, derElement(0x30, derElement(0xa0, derElement(0xa0, url))))],
    });
    const inPoint = (...points: Uint8Array[]): Made =>
      leaf({ extra: [extension('551d1f', false, derElement(0x30, ...points))] });
    const point3 = derElement(0x30, derElement(0xa0, derElement(0xa0, uri('ldap://pki.example'), url)));
    expect(await withCrl(inPoint(point3), 'strict', list)).toBe('ok 2');
    const point4 = derElement(0x30, derElement(0xa0, derElement(0xa0, uri('http://pki.example/4.crl'))));
    expect(await withCrl(inPoint(point4), 'strict', list)).toMatch(/^revocation-unknown: .* is for other certificates/);
    expect(await withCrl(inPoint(point4, point3), 'strict', list)).toBe('ok 2');
    // Of another issuer, and without sense.
    const indirect = derElement(0x30, derElement(0xa0, derElement(0xa0, url)), derElement(0xa2, directory('CN=Other')));
    expect(await withCrl(inPoint(indirect), 'strict', list)).toMatch(/is for other certificates/);
    expect(await withCrl(inPoint(utf8('nonsense')), 'strict', list)).toMatch(/is for other certificates/);
    expect(await withCrl(gone, 'ifpresent', list)).toMatch(/^revoked/);
  });

  it('stays when the list is out of date, and is ignored in a list with another signer', async () => {
    expect(
      await withCrl(gone, 'ifpresent', makeCrl({ issuer: root, revoked: [serial], nextUpdate: NOW - DAY })),
    ).toMatch(/^revoked/);
    expect(await withCrl(gone, 'ifpresent', makeCrl({ issuer: root, revoked: [serial], signingKey: ecKey() }))).toBe(
      'ok 2',
    );
    const verdict = await judge(gone, [signer], {
      crls: [parseCrl(makeCrl({ issuer: root, revoked: [serial] }))],
      crlPolicy: 'strict',
    });
    expect(verdict).toMatch(/^revocation-unknown: .*cRLSign/);
  });

  it('is not read from lists that are not understood', () => {
    const crl =
      (...extensions: Uint8Array[]): (() => unknown) =>
      () =>
        parseCrl(makeCrl({ issuer: root, extensions }));
    expect(crl(extension('551d1b', true, fromHex('020101')))).toThrow('(a delta list); a complete list is required');
    expect(crl(...point('30038401ff'))).toThrow('(an indirect list)');
    expect(crl(...point('300483020780'))).toThrow('covers only some reasons');
    expect(crl(...point('30038501ff'))).toThrow('attribute certificates');
    expect(crl(extension('2b06010401', true, fromHex('0500')))).toThrow('critical extension 2b06010401');
    const other = extension('551d1d', true, derElement(0x30, directory('CN=Other')));
    expect(() => parseCrl(makeCrl({ issuer: root, revoked: [serial], entryExtensions: [other] }))).toThrow('551d1d');
    expect(() => parseCrl(utf8('nonsense'))).toThrow('not a usable revocation list');
    expect(() => parseCrl(root.der)).toThrow('not a usable revocation list');
    expect(() => parseCrl(new Uint8Array(16 * 1024 * 1024))).toThrow('the limit is');
  });
});
