/** What no sane certificate has is refused before anything is built from it, and what real tools make is read. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkDer, derElement } from '../../src/base/asn1/der.ts';
import { MAX_CERTIFICATE, MAX_CERTIFICATE_ELEMENTS, MAX_CHAIN_BYTES } from '../../src/base/asn1/x509-limits.ts';
import { fromHex } from '../../src/base/bytes.ts';
import { utf8 } from '../../src/base/text.ts';
import { parseCertificate } from '../../src/pki/certificate.ts';
import { pemBlocks } from '../../src/pki/pem.ts';
import { parseCrl } from '../../src/pki/revocation/crl.ts';
import { listUrls, responderUrls } from '../../src/pki/revocation/locations.ts';
import { judge, right, root } from './judge.ts';
import { authority, directory, dns, ecKey, extension, type Made, make, type Recipe } from './make.ts';

const SEQUENCE = 0x30;
const key = ecKey();
const hostile = (recipe: Partial<Recipe>): Made => make({ subject: 'CN=x', issuer: root, key, ...recipe });
const times = <T>(count: number, one: (at: number) => T): T[] => Array.from({ length: count }, (_, at) => one(at));
/** An extension of an unknown kind, each with a number of its own. */
const unknown = (at: number): Uint8Array =>
  extension(
    `2a0304${(0x80 + (at >> 7)).toString(16)}${(at & 0x7f).toString(16).padStart(2, '0')}`,
    false,
    fromHex('0500'),
  );
const rdn = derElement(0x31, derElement(SEQUENCE, fromHex('0603550403'), fromHex('0c0161')));
const rsa = (modulus: number, exponent: Uint8Array): Uint8Array => {
  const numbers = [
    derElement(0x02, Uint8Array.of(0), new Uint8Array(modulus / 8).fill(0xd5)),
    derElement(0x02, exponent),
  ];
  const bits = derElement(0x03, Uint8Array.of(0), derElement(SEQUENCE, ...numbers));
  return derElement(SEQUENCE, fromHex('300d06092a864886f70d0101010500'), bits);
};

describe('a certificate', () => {
  it.each<[string, Partial<Recipe>, RegExp]>([
    ['129 names', { san: times(129, () => dns('a')) }, /129 names; the limit is 128/],
    ['6,000 names of one byte', { san: times(6_000, () => dns('a')) }, /more than \d+ DER elements/],
    ['empty directory names', { san: times(4_900, () => fromHex('a400')) }, /more than \d+ DER elements/],
    ['257 name constraints', { permitted: times(257, () => dns('a')) }, /257 name constraints; the limit is 256/],
    ['257 of both kinds', { permitted: times(128, () => dns('a')), excluded: times(129, () => dns('a')) }, /257 name/],
    ['33 key purposes', { eku: times(33, () => '2a03') }, /33 key purposes; the limit is 32/],
    ['33 extensions', { extra: times(33, unknown) }, /33 extensions; the limit is 32/],
    ['1,400 extensions', { extra: times(1_400, unknown) }, /more than 1024 DER elements/],
    [
      '65 attributes in its subject',
      { subjectName: derElement(SEQUENCE, ...times(65, () => rdn)) },
      /not a distinguished name/,
    ],
    [
      '700 attributes in its subject',
      { subjectName: derElement(SEQUENCE, ...times(700, () => rdn)) },
      /more than 1024 DER/,
    ],
    [
      'a subject of 5,000 bytes',
      {
        subjectName: derElement(
          SEQUENCE,
          derElement(
            0x31,
            derElement(SEQUENCE, fromHex('0603550403'), derElement(0x0c, new Uint8Array(5_000).fill(0x61))),
          ),
        ),
      },
      /its subject has 50\d\d bytes; the limit is 4096/,
    ],
    [
      'a serial number of 21 octets',
      { serial: new Uint8Array(21).fill(0x7f) },
      /serial number has 21 octets; the limit is 20/,
    ],
    [
      'a serial number of 19,000 octets',
      { serial: new Uint8Array(19_000).fill(0x7f) },
      /serial number has 19000 octets/,
    ],
    [
      'a key of 3,000 bytes',
      { publicKeyInfo: rsa(24_000, fromHex('010001')) },
      /its key has \d+ bytes; the limit is 2304/,
    ],
    [
      'an exponent as long as its modulus',
      { publicKeyInfo: rsa(8_192, new Uint8Array(1_280).fill(0x55)) },
      /its key has \d+ bytes/,
    ],
    [
      'an algorithm of 300 bytes',
      {
        algorithm: {
          der: derElement(SEQUENCE, fromHex('06082a8648ce3d040302'), derElement(0x04, new Uint8Array(300))),
          hash: 'sha256',
        },
      },
      /signature algorithm has \d+ bytes; the limit is 255/,
    ],
    [
      'a key identifier of 65 octets',
      { extra: [extension('551d0e', false, derElement(0x04, new Uint8Array(65)))] },
      /key identifier has 65 bytes; the limit is 64/,
    ],
    [
      'basic constraints of 120 elements',
      { extra: [extension('551d13', false, derElement(SEQUENCE, ...times(120, () => fromHex('0500'))))] },
      /Maximum ASN.1 node count exceeded/,
    ],
  ])('with %s', (what, recipe, why) => {
    const found = refusal(() => parseCertificate(hostile(recipe).der));
    expect(found, what).toMatch(why);
  });

  it('may have object identifiers of any kind, and names what it does not know by them', () => {
    // Of a UUID (X.667), with a number of 128 bits.
    const uuid = '6983f8e4d5a1c6b8f0e2d4c3b2a1908070605004';
    const { extensions } = parseCertificate(
      hostile({ eku: [uuid, '2b06010505070311'], extra: [extension(uuid, true, fromHex('0500'))] }).der,
    );
    expect(extensions.extendedKeyUsage).toEqual([`0x${uuid}`, '1.3.6.1.5.5.7.3.17']);
    expect(extensions.unknownCritical).toEqual([`0x${uuid}`]);
  });

  it('is held to one count of elements for the whole of it, extensions included', () => {
    const most = hostile({ san: times(120, () => dns('a.example')), permitted: times(250, () => dns('b.example')) });
    expect(refusal(() => parseCertificate(most.der))).toBe('accepted');
    const over = hostile({ san: times(120, () => directory('O=a')), permitted: times(80, () => directory('O=b')) });
    expect(refusal(() => parseCertificate(over.der))).toMatch(/more than \d+ DER elements/);
  });

  it('has no places to ask when there are more of them than make sense', () => {
    const point = derElement(SEQUENCE, derElement(0xa0, derElement(0xa0, derElement(0x86, utf8('http://a/')))));
    const access = derElement(SEQUENCE, fromHex('06082b06010505073001'), derElement(0x86, utf8('http://a/')));
    const places = (count: number): number[] => {
      const extra = [
        extension('551d1f', false, derElement(SEQUENCE, ...times(count, () => point))),
        extension('2b06010505070101', false, derElement(SEQUENCE, ...times(count, () => access))),
      ];
      const certificate = parseCertificate(hostile({ extra }).der);
      return [listUrls(certificate).length, responderUrls(certificate).length];
    };
    expect(places(2)).toEqual([2, 2]);
    expect(places(360)).toEqual([0, 0]);
  });
});

describe('the certificates of one message', () => {
  it('are held to one count of bytes', async () => {
    const end = make({ subject: 'CN=x', issuer: root, san: [dns('gw1.example')] });
    const large = authority('CN=large', { extra: [extension('2a03', false, new Uint8Array(17_000))] });
    expect(large.der.length).toBeLessThan(MAX_CERTIFICATE);
    const sent = (count: number): Uint8Array[] => [end.der, ...times(count, () => large.der)];
    expect(await judge(await right(end, { certificates: sent(3) }))).toBe('ok');
    const bytes = 4 * large.der.length + end.der.length;
    expect(bytes).toBeGreaterThan(MAX_CHAIN_BYTES);
    expect(await judge(await right(end, { certificates: sent(4) }))).toBe(
      `too-many-certificates: the peer sent certificates of ${bytes} bytes; the limit is 65536`,
    );
  });

  it('are held to one count of elements', async () => {
    const end = make({ subject: 'CN=x', issuer: root, san: [dns('gw1.example')] });
    const wide = authority('CN=wide', { permitted: times(250, () => dns('a.example')) });
    const sent = (count: number): Uint8Array[] => [
      end.der,
      // Each with a byte of its own, as those that were read before cost nothing.
      ...times(count, (at) => authority('CN=wide', { permitted: times(250 - at, () => dns('a.example')) }).der),
    ];
    expect(wide.der.length).toBeLessThan(5_000);
    expect(await judge(await right(end, { certificates: sent(3) }))).toBe('ok');
    expect(await judge(await right(end, { certificates: sent(4) }))).toMatch(/^malformed-certificate: .*DER elements/);
  });

  it('are not read, nor is more than the key of the first, before the signature is found right', async () => {
    const end = make({ subject: 'CN=x', issuer: root, san: [dns('gw1.example')], extra: times(33, unknown) });
    const nonsense = utf8('no certificate');
    const wrong = await right(end, { certificates: [end.der, nonsense], signature: new Uint8Array(70) });
    expect(await judge(wrong)).toBe("bad-signature: the signature was not made with the key of 'CN=x'");
    expect(await judge(await right(end, { certificates: [end.der, nonsense] }))).toMatch(/^malformed-certificate/);
  });

  it('of a key that is expensive to use are refused before it is used', async () => {
    const publicKeyInfo = rsa(16_384, fromHex('010001'));
    const signature = new Uint8Array(2_048);
    const slow = hostile({ publicKeyInfo });
    const algorithm = fromHex('300d06092a864886f70d01010b0500');
    expect(await judge(await right(slow, { signature, algorithm }))).toMatch(
      /^weak-key: 'CN=x' has an RSA key of 16384 bits/,
    );
    const exponent = hostile({ publicKeyInfo: rsa(2_048, fromHex('0100000001')) });
    expect(await judge(await right(exponent, { signature, algorithm }))).toMatch(/^weak-key: .*exponent 4294967297/);
    // Long and with a long exponent.
    const both = hostile({ publicKeyInfo: rsa(8_192, fromHex('00ffffffff')) });
    expect(await judge(await right(both, { signature, algorithm }))).toMatch(
      /^weak-key: .*8192 bits with the exponent/,
    );
  });

  it('that all claim the same issuer have six signatures checked at most', async () => {
    const forged = times(9, () => authority('O=Example, CN=Middle', { issuer: root, signingKey: ecKey() }));
    const end = make({ subject: 'CN=x', issuer: forged[0]!, san: [dns('gw1.example')] });
    const certificates = [end, ...forged].map(({ der }) => der);
    expect(await judge(await right(end, { certificates }))).toMatch(/^bad-certificate-signature/);
    // The true one behind five that are forged is found; behind eight it is not looked for.
    const middle = authority('O=Example, CN=Middle', { issuer: root });
    const true1 = make({ subject: 'CN=x', issuer: middle, san: [dns('gw1.example')] });
    const with5 = [true1, ...forged.slice(0, 5), middle].map(({ der }) => der);
    expect(await judge(await right(true1, { certificates: with5 }))).toBe('ok');
    const with8 = [true1, ...forged.slice(0, 8), middle].map(({ der }) => der);
    expect(await judge(await right(true1, { certificates: with8 }))).toMatch(/^bad-certificate-signature/);
  });
});

describe('what real tools make', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'sectunnel-limits-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const openssl = (...words: string[]): void => void execFileSync('openssl', words, { cwd: folder, stdio: 'pipe' });
  const der = (file: string): Uint8Array[] =>
    pemBlocks(readFileSync(join(folder, file))).flatMap((block) => block.der() ?? []);

  it.each([
    ['rsa:2048', []],
    ['rsa:4096', []],
    ['ec', ['-pkeyopt', 'ec_paramgen_curve:P-256']],
    ['ec', ['-pkeyopt', 'ec_paramgen_curve:P-521']],
    ['ed25519', []],
    ['ed448', []],
  ])('is read: openssl, %s %j', (algorithm, options) => {
    const names = times(100, (at) => `DNS:host-${at}.with-a-rather-long-name.example.org`);
    writeFileSync(
      join(folder, 'ext'),
      `[req]\ndistinguished_name=dn\n[dn]\n[e]\nsubjectAltName=${names.join(',')},IP:192.0.2.1,IP:2001:db8::1,email:a@example.org,dirName:d
[d]\nC=CH\nO=Example\n[e]\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth,1.3.6.1.5.5.7.3.17
crlDistributionPoints=URI:http://a/1.crl,URI:http://a/2.crl\nauthorityInfoAccess=OCSP;URI:http://a/\ncertificatePolicies=1.2.3,2.5.29.32.0
subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid,issuer\nbasicConstraints=critical,CA:false\n`,
    );
    const subject = `/C=CH/ST=Bern/L=Bern/O=Example/OU=a/OU=b/OU=c/DC=example/DC=org/emailAddress=a@example.org/CN=${'n'.repeat(64)}`;
    openssl(
      'req',
      '-x509',
      '-newkey',
      algorithm,
      ...options,
      '-nodes',
      '-keyout',
      'key',
      '-out',
      'cert',
      '-subj',
      subject,
      '-days',
      '3',
      '-config',
      'ext',
      '-extensions',
      'e',
    );
    const [certificate] = der('cert').map((bytes) => parseCertificate(bytes));
    expect(certificate?.extensions.subjectAltName).toHaveLength(104);
    expect(certificate?.subjectName).toHaveLength(11);
    expect(certificate?.extensions.extendedKeyUsage).toEqual([
      '1.3.6.1.5.5.7.3.1',
      '1.3.6.1.5.5.7.3.2',
      '1.3.6.1.5.5.7.3.17',
    ]);
    expect(certificate?.extensions.basicConstraints).toEqual({ ca: false, pathLength: undefined });
    expect(certificate?.extensions.unknownCritical).toEqual([]);
    // Far from what is refused.
    expect(checkDer(certificate!.der)).toBeLessThan(MAX_CERTIFICATE_ELEMENTS / 6);
  });

  it('is read: the authorities that Node comes with', () => {
    const found = rootCertificates.flatMap((pem) => pemBlocks(utf8(`${pem}\n`)).flatMap((block) => block.der() ?? []));
    expect(found.length).toBeGreaterThan(100);
    const refused = found.map((bytes) => refusal(() => parseCertificate(bytes))).filter((text) => text !== 'accepted');
    expect(refused).toEqual([]);
  });

  it('is read: certificates and a list by certtool', () => {
    writeFileSync(
      join(folder, 'ca.cfg'),
      'cn = "Example CA"\nca\ncert_signing_key\ncrl_signing_key\nexpiration_days = 3\n',
    );
    const certtool = (...words: string[]): void => void execFileSync('certtool', words, { cwd: folder, stdio: 'pipe' });
    certtool('--generate-privkey', '--key-type', 'ecdsa', '--outfile', 'ca.key');
    certtool('--generate-self-signed', '--load-privkey', 'ca.key', '--template', 'ca.cfg', '--outfile', 'ca.crt');
    writeFileSync(join(folder, 'crl.cfg'), 'crl_next_update = 3\ncrl_number = 5\n');
    const ca = ['--load-ca-privkey', 'ca.key', '--load-ca-certificate', 'ca.crt'];
    certtool('--generate-crl', ...ca, '--load-certificate', 'ca.crt', '--template', 'crl.cfg', '--outfile', 'crl.pem');
    const [certificate] = der('ca.crt').map((bytes) => parseCertificate(bytes));
    expect(certificate?.extensions.basicConstraints?.ca).toBe(true);
    expect(der('crl.pem').map((bytes) => parseCrl(bytes).revoked.size)).toEqual([1]);
  });
});

function refusal(read: () => unknown): string {
  try {
    read();
    return 'accepted';
  } catch (error) {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  }
}
