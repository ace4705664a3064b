/**
 * Files as people have them: made with openssl, and with certtool as libvirt's documentation says, in all the forms that
 * keys and certificates come in.
 */
import { execFileSync } from 'node:child_process';
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { formatDn } from '../../src/base/asn1/dn-text.ts';
import { fromHex } from '../../src/base/bytes.ts';
import { identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { checkPki, type PkiReport } from '../../src/pki/check.ts';
import { CertificateFiles, type FileSource } from '../../src/pki/credentials.ts';
import { describeIdentity, provenIdentities } from '../../src/pki/identity.ts';
import { type FileReader, loadAuthorities, loadChain, loadCrls, loadPrivateKey } from '../../src/pki/load.ts';
import {
  findPlaces,
  type LibvirtRoots,
  parseLibvirtConfig,
  wantedPlace,
  type X509Source,
} from '../../src/pki/places.ts';
import { OnlineRevocation } from '../../src/pki/revocation/online.ts';
import { keySigner } from '../../src/pki/signer.ts';
import { authority, type CrlRecipe, DAY, dns, ecKey, type Made, make, makeCrl, NOW } from './make.ts';
import { lists } from './make-ocsp.ts';

const folder = mkdtempSync(join(tmpdir(), 'sectunnel-pki-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);
const reader: FileReader = { read: (path) => readFileSync(path), readPrivate: (path) => readFileSync(path) };

function put(name: string, content: string | Uint8Array): string {
  writeFileSync(at(name), content, { mode: 0o600 });
  return at(name);
}
const run = (command: string, ...args: string[]): void =>
  void execFileSync(command, args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
const has = (command: string, ...args: string[]): boolean => {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};
const pem = (label: string, der: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n')}\n-----END ${label}-----\n`;
const certPem = (...made: readonly Made[]): string => made.map(({ der }) => pem('CERTIFICATE', der)).join('');
const keyPem = (key: KeyObject): string => key.export({ format: 'pem', type: 'pkcs8' }).toString();
const subjects = (path: string): string[] => loadChain(path, reader).map(({ subject }) => formatDn(subject)!);

describe('private keys', () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const ec = ecKey();
  const phrase = utf8('a pass phrase');
  const same = (path: string, key: KeyObject, passphrase?: Uint8Array): void => {
    const loaded = loadPrivateKey(path, passphrase, reader);
    expect(createPublicKey(loaded).export({ format: 'jwk' })).toEqual(createPublicKey(key).export({ format: 'jwk' }));
  };

  it.each<[string, KeyObject, 'pkcs1' | 'pkcs8' | 'sec1']>([
    ['rsa', rsa, 'pkcs1'],
    ['rsa', rsa, 'pkcs8'],
    ['ec', ec, 'sec1'],
    ['ec', ec, 'pkcs8'],
    ['ed25519', generateKeyPairSync('ed25519').privateKey, 'pkcs8'],
  ])('%s, in PEM and DER', (name, key, type) => {
    const text = key.export({ format: 'pem', type } as never) as string;
    same(put(`${name}-${type}.pem`, `Public Key Info:\n\tsome text, as certtool writes it\n\n${text}`), key);
    same(put(`${name}-${type}.der`, key.export({ format: 'der', type } as never) as Buffer), key);
  });

  it('encrypted, with the pass phrase that is right', () => {
    const options = { type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: Buffer.from(phrase) } as const;
    const paths = [
      put('enc.pem', ec.export({ format: 'pem', ...options }) as string),
      put('enc.der', ec.export({ format: 'der', ...options }) as unknown as Buffer),
      put('enc-old.pem', ec.export({ format: 'pem', ...options, type: 'sec1' }) as string),
    ];
    for (const path of paths) {
      same(path, ec, phrase);
      expect(() => loadPrivateKey(path, undefined, reader)).toThrow(
        /the key is encrypted; name its pass phrase: <key file=/,
      );
      expect(() => loadPrivateKey(path, utf8('another'), reader)).toThrow('the pass phrase in the secret is wrong');
    }
  });

  it('that are none are refused in words', () => {
    const refusal = (name: string, content: string | Uint8Array): (() => unknown) => {
      const path = put(name, content);
      return () => loadPrivateKey(path, undefined, reader);
    };
    const parameters = '-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n';
    expect(refusal('k1', '')).toThrow(`${at('k1')}: it is empty`);
    expect(refusal('k2', 'nonsense')).toThrow('it holds neither PEM nor DER; a private key in PEM or DER is required');
    expect(refusal('k3', parameters)).toThrow('it holds EC PARAMETERS; a private key');
    expect(refusal('k4', keyPem(ec) + keyPem(ec))).toThrow('it holds 2 private keys; keep one');
    expect(refusal('k5', keyPem(ec).replace(/.{20}\n-----END/, '\n-----END'))).toThrow('the key cannot be read');
    expect(refusal('k6', '-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n')).toThrow(
      'ssh-keygen',
    );
    expect(refusal('k7', keyPem(generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey))).toThrow(
      'RSA key of 1024 bits',
    );
    expect(refusal('k8', keyPem(ecKey('secp256k1')))).toThrow('curve secp256k1');
    expect(refusal('k9', Buffer.alloc(5 * 1024 * 1024))).toThrow('the limit is 4194304');
    same(put('with-parameters.pem', parameters + (ec.export({ format: 'pem', type: 'sec1' }) as string)), ec);
  });
});

describe('certificates', () => {
  const root = authority('CN=Root');
  const middle = authority('CN=Middle', { issuer: root });
  const leaf = make({ subject: 'CN=gw1', issuer: middle, san: [dns('gw1.example')] });

  it('in PEM with text around them, with CRLF, and in DER', () => {
    expect(subjects(put('c.pem', `Certificate:\n  Data: text\n${certPem(leaf)}more text\n`))).toEqual(['CN=gw1']);
    expect(subjects(put('crlf.pem', certPem(leaf).replaceAll('\n', '\r\n')))).toEqual(['CN=gw1']);
    expect(subjects(put('c.der', leaf.der))).toEqual(['CN=gw1']);
    expect(subjects(put('key-too.pem', keyPem(leaf.key) + certPem(leaf)))).toEqual(['CN=gw1']);
  });

  it('with those that lead to the root, in order, without the root and without strangers', () => {
    const file = put('chain.pem', certPem(leaf, root, authority('CN=Stranger'), middle));
    expect(subjects(file)).toEqual(['CN=gw1', 'CN=Middle']);
    expect(loadAuthorities(file, reader)).toHaveLength(4);
  });

  it('that are none are refused in words', () => {
    const refusal = (name: string, content: string | Uint8Array): (() => unknown) => {
      const path = put(name, content);
      return () => loadChain(path, reader);
    };
    expect(refusal('x1', keyPem(leaf.key))).toThrow('it holds PRIVATE KEY; a certificate in PEM or DER is required');
    expect(refusal('x2', certPem(leaf).replace('MII', 'M*I'))).toThrow('is not base64 between its lines');
    expect(refusal('x3', pem('CERTIFICATE', utf8('nonsense')))).toThrow('the certificate cannot be used: not an X.509');
    expect(refusal('x4', certPem(leaf) + pem('CERTIFICATE', leaf.der.subarray(1)))).toThrow('certificate 2 of 2');
    expect(refusal('x5', certPem(...new Array<Made>(11).fill(leaf)))).toThrow(
      'it holds 11 certificates; a chain has at most 10',
    );
    expect(refusal('x6', pem('TRUSTED CERTIFICATE', leaf.der))).toThrow("OpenSSL's trusted form");
    expect(refusal('x7', '-----BEGIN CERTIFICATE-----\nAAAA\n')).toThrow('neither PEM nor DER');
    expect(refusal('x8', pem('CERTIFICATE', new Uint8Array(21_000)))).toThrow('21000 bytes; the limit is 20480');
  });

  it('that are revoked, in lists of either form', () => {
    const crl = makeCrl({ issuer: root, revoked: [Uint8Array.of(7)] });
    expect(loadCrls(put('l.der', crl), reader)[0]?.revoked.size).toBe(1);
    expect(loadCrls(put('l.pem', pem('X509 CRL', crl) + pem('X509 CRL', crl)), reader)).toHaveLength(2);
    expect(() => loadCrls(put('l.bad', certPem(leaf)), reader)).toThrow('it holds CERTIFICATE; a revocation list');
  });
});

describe.skipIf(!has('openssl', 'version'))('made by openssl', () => {
  beforeAll(() => {
    const days = ['-days', '300'];
    run('openssl', 'ecparam', '-name', 'prime256v1', '-genkey', '-out', 'o-ca.key');
    run(
      'openssl',
      'req',
      '-x509',
      '-new',
      '-key',
      'o-ca.key',
      '-subj',
      '/O=Example/CN=OpenSSL CA',
      ...days,
      '-out',
      'o-ca.pem',
    );
    run(
      'openssl',
      'req',
      '-new',
      '-newkey',
      'ed25519',
      '-nodes',
      '-keyout',
      'o.key',
      '-subj',
      '/O=Example/CN=gw1',
      '-out',
      'o.csr',
    );
    put(
      'o.ext',
      'subjectAltName=DNS:gw1.example,IP:192.0.2.1,email:a@example.org\nkeyUsage=critical,digitalSignature\n',
    );
    const sign = ['-CA', 'o-ca.pem', '-CAkey', 'o-ca.key', '-CAcreateserial', '-extfile', 'o.ext', ...days];
    run('openssl', 'x509', '-req', '-in', 'o.csr', ...sign, '-text', '-out', 'o.pem');
  });

  it('are read with text around them, keys in two blocks, names of all kinds', async () => {
    const x509: X509Source = {
      ...nothing,
      source: 'file',
      ca: at('o-ca.pem'),
      cert: at('o.pem'),
      key: { file: at('o.key') },
    };
    const report = await check(x509);
    expect(report.findings).toEqual([]);
    expect(report.identities).toEqual([
      'dn O=Example, CN=gw1',
      'fqdn gw1.example',
      'address 192.0.2.1',
      'email a@example.org',
    ]);
    expect(report.methods).toEqual(['ed25519']);
    loadPrivateKey(at('o-ca.key'), undefined, reader);
  });
});

describe.skipIf(!has('certtool', '--version'))('made by certtool', () => {
  it("are read when made by the letter of libvirt's documentation", async () => {
    put('ca.info', 'cn = Name of your organization\nca\ncert_signing_key\nexpiration_days = 365\n');
    put(
      'server.info',
      'organization = Name of your organization\ncn = compute1.libvirt.org\ndns_name = compute1\ndns_name = compute1.libvirt.org\n' +
        'ip_address = 10.0.0.74\ntls_www_server\nencryption_key\nsigning_key\n',
    );
    const make = (name: string): void =>
      run('certtool', '--generate-privkey', '--key-type', 'ecdsa', '--curve', 'secp256r1', '--outfile', name);
    make('cakey.pem');
    run(
      'certtool',
      '--generate-self-signed',
      '--load-privkey',
      'cakey.pem',
      '--template',
      'ca.info',
      '--outfile',
      'cacert.pem',
    );
    make('serverkey.pem');
    const ca = ['--load-ca-certificate', 'cacert.pem', '--load-ca-privkey', 'cakey.pem'];
    run(
      'certtool',
      '--generate-certificate',
      '--load-privkey',
      'serverkey.pem',
      ...ca,
      '--template',
      'server.info',
      '--outfile',
      'servercert.pem',
    );
    expect(readFileSync(at('serverkey.pem'), 'utf8')).toMatch(/^Public Key Info/);
    const report = await check({ ...nothing, source: 'server', pkipath: folder }, Date.now());
    expect(report.identities).toEqual([
      'dn O=Name of your organization, CN=compute1.libvirt.org',
      'fqdn compute1',
      'fqdn compute1.libvirt.org',
      'address 10.0.0.74',
    ]);
    expect(report.findings.filter(({ level }) => level === 'error')).toEqual([]);
    expect(report.findings.map(({ text }) => text).join()).toContain('extended key usage');
  });
});

const nothing: Omit<X509Source, 'source'> = {
  pkipath: undefined,
  ca: undefined,
  cert: undefined,
  key: undefined,
  crl: undefined,
  ocsp: undefined,
  allow: [],
  commonName: false,
  sha1: false,
};
/** Nothing is to be asked for over the network in these tests, but where they say so. */
const online = new OnlineRevocation({ fetch: ({ url }) => fail(`no ${url}`) });
const nowhere: LibvirtRoots = { config: '/nowhere', pki: '/nowhere', user: undefined };

function check(x509: X509Source, now: number = Date.now(), localId?: string, roots = nowhere): Promise<PkiReport> {
  const source = { x509, roots, reader, passphrase: () => undefined, online };
  const id = localId === undefined ? undefined : identityFromText('fqdn', localId);
  return checkPki({ source, side: 'both', localId: id, now });
}

describe("libvirt's set-up", () => {
  const etc = at('etc');
  const roots = (user?: string): LibvirtRoots => ({ config: join(etc, 'libvirt'), pki: join(etc, 'pki'), user });
  const touch = (...parts: string[]): string => {
    const path = join(folder, ...parts);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, '');
    return path;
  };
  const paths = (x509: Partial<X509Source>, from = roots()): string[] => {
    const { ca, cert, key, crl } = findPlaces({ ...nothing, source: 'server', ...x509 }, from);
    return [ca, cert, key, crl].flatMap((place) => (place === undefined ? [] : [place.path.replace(folder, '')]));
  };

  it("is found by libvirt's rules", () => {
    expect(paths({})).toEqual([
      '/etc/pki/CA/cacert.pem',
      '/etc/pki/libvirt/servercert.pem',
      '/etc/pki/libvirt/private/serverkey.pem',
    ]);
    expect(paths({ source: 'client' })[1]).toBe('/etc/pki/libvirt/clientcert.pem');
    expect(paths({ source: 'client', pkipath: join(folder, 'my') })).toEqual([
      '/my/cacert.pem',
      '/my/clientcert.pem',
      '/my/clientkey.pem',
    ]);
    touch('etc', 'pki', 'CA', 'cacrl.pem');
    expect(paths({})[3]).toBe('/etc/pki/CA/cacrl.pem');
  });

  it('is that of the user where there is one, certificate and key together', () => {
    const user = join(folder, 'home/.pki/libvirt');
    touch('home', '.pki', 'libvirt', 'clientcert.pem');
    expect(paths({ source: 'client' }, roots(user))[1]).toBe('/etc/pki/libvirt/clientcert.pem');
    touch('home', '.pki', 'libvirt', 'clientkey.pem');
    expect(paths({ source: 'client' }, roots(user)).slice(0, 3)).toEqual([
      '/etc/pki/CA/cacert.pem',
      '/home/.pki/libvirt/clientcert.pem',
      '/home/.pki/libvirt/clientkey.pem',
    ]);
    touch('home', '.pki', 'libvirt', 'cacert.pem');
    expect(paths({ source: 'client' }, roots(user))[0]).toBe('/home/.pki/libvirt/cacert.pem');
  });

  it('is elsewhere when libvirtd.conf says so, and elsewhere again when the document says so', () => {
    const file = touch('etc', 'libvirt', 'libvirtd.conf');
    const names = 'ca_file = "/a/ca"\ncert_file = "/a/cert"\n#crl_file = "/a/no"\n';
    const patterns = 'tls_allowed_dn_list = [\n  "C=GB,O=Example,CN=*",\n  # "CN=no",\n  "CN=b"\n]\n';
    writeFileSync(file, `${names}key_file = '/a/key'\nmax_clients = 5\n${patterns}`);
    expect(paths({}).slice(0, 3)).toEqual(['/a/ca', '/a/cert', '/a/key']);
    expect(findPlaces({ ...nothing, source: 'server' }, roots()).allow).toEqual(['C=GB,O=Example,CN=*', 'CN=b']);
    expect(findPlaces({ ...nothing, source: 'server', allow: ['CN=c'] }, roots()).allow).toEqual(['CN=c']);
    expect(findPlaces({ ...nothing, source: 'server' }, roots()).ca?.said).toBe(`ca_file in ${file}`);
    expect(paths({ source: 'client' })[0]).toBe('/etc/pki/CA/cacert.pem');
    expect(paths({ ca: '/d/ca', crl: { file: '/d/crl', fetch: false, policy: 'strict' } })).toEqual([
      '/d/ca',
      '/a/cert',
      '/a/key',
      '/d/crl',
    ]);
    expect(paths({ cert: '/d/cert', key: { file: '/d/key' } }).slice(1, 3)).toEqual(['/d/cert', '/d/key']);
    expect(() => wantedPlace(findPlaces({ ...nothing, source: 'server', cert: '/d/cert' }, roots()), 'key')).toThrow(
      "<x509 source='server'> names no <key file='…'/>; add it",
    );
    writeFileSync(file, names);
    expect(() => paths({})).toThrow('names some of ca_file, cert_file and key_file only');
    // A list that need not be there is not missed.
    const list = { file: '/d/crl', fetch: false, policy: 'ifpresent' } as const;
    expect(findPlaces({ ...nothing, source: 'client', crl: list }, roots()).crl).toBeUndefined();
    writeFileSync(file, 'crl_file = "/a/crl"\n');
    expect(paths({})[3]).toBe('/a/crl');
    // Of which nothing is said but that they are fetched too, or must be there.
    expect(paths({ crl: { file: undefined, fetch: true, policy: 'strict' } })[3]).toBe('/a/crl');
    expect(parseLibvirtConfig('a = "x" # comment\nb=[]\nc = 3')).toEqual(
      new Map([
        ['a', ['x']],
        ['b', []],
      ]),
    );
  });
});

describe('several certificates of libvirt', () => {
  const base = at('several');
  const roots: LibvirtRoots = { config: join(base, 'libvirt'), pki: join(base, 'pki'), user: undefined };
  const server: X509Source = { ...nothing, source: 'server' };
  const give = (name: string, content = ''): string => {
    const path = join(base, name);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  };
  const pairs = (x509 = server): string[] => {
    const places = findPlaces(x509, roots);
    return [places, ...places.others].map(({ cert, key }) =>
      [cert!, key!].map(({ path }) => path.replace(`${base}/`, '')).join(' '),
    );
  };
  const numbered = (number: number | ''): string =>
    `pki/libvirt/servercert${number}.pem pki/libvirt/private/serverkey${number}.pem`;
  const put = (number: number | '', cert = '', key = ''): void => {
    give(`pki/libvirt/servercert${number}.pem`, cert);
    give(`pki/libvirt/private/serverkey${number}.pem`, key);
  };
  beforeEach(() => rmSync(base, { recursive: true, force: true }));

  it('are counted without gaps, behind the one without a number or instead of it', () => {
    expect(pairs()).toEqual([numbered('')]);
    put(0);
    expect(pairs()).toEqual([numbered(0)]);
    put('');
    put(1);
    expect(pairs()).toEqual([numbered(''), numbered(0), numbered(1)]);
    put(3);
    expect(pairs()).toEqual([numbered(''), numbered(0), numbered(1)]);
    expect(findPlaces(server, roots).warnings).toEqual([
      expect.stringMatching(/servercert3.pem is skipped, by libvirt too: there is no .*servercert2.pem/),
    ]);
    put(2);
    put(4);
    expect(pairs()).toEqual(['', 0, 1, 2, 3].map((number) => numbered(number as number)));
    expect(findPlaces(server, roots).warnings).toEqual([]);
    const folder = { ...nothing, source: 'client', pkipath: join(base, 'all') } as const;
    give('all/clientcert0.pem');
    expect(pairs(folder)).toEqual(['all/clientcert0.pem all/clientkey0.pem']);
  });

  it('are lists in libvirtd.conf, each certificate with its key', () => {
    const lists = (certs: string, keys: string, more = ''): void =>
      void give('libvirt/libvirtd.conf', `ca_file = "/ca"\ncert_files = [${certs}]\nkey_files = [${keys}]\n${more}`);
    lists('"/c0", "/c1"', '"/k0", "/k1"');
    expect(pairs()).toEqual(['/c0 /k0', '/c1 /k1']);
    expect(findPlaces(server, roots).cert!.said).toBe(`cert_files in ${join(base, 'libvirt/libvirtd.conf')}`);
    lists('"/c0", "/c1"', '"/k0"');
    expect(() => pairs()).toThrow('names 2 in cert_files and 1 in key_files; libvirt wants a key for each certificate');
    lists('"/c0"', '"/k0"', 'cert_file = "/c"\n');
    expect(() => pairs()).toThrow('has both cert_file or key_file and cert_files or key_files');
    give('libvirt/libvirtd.conf', 'cert_files = ["/c0"]\nkey_files = ["/k0"]\n');
    expect(() => pairs()).toThrow('libvirt wants all three or none');
  });

  const root = authority('CN=Root');
  /** ML-DSA-65 (RFC 9881), which no method of IKE here is for. */
  const foreign = {
    publicKeyInfo: fromHex('3012300b0609608648016503040312030300abcd'),
  };

  it('are searched for the first that IKE has a method for, and all of this is reported', async () => {
    const own = make({ subject: 'CN=gw1', issuer: root, san: [dns('gw1.example')], keyUsage: [0x80] });
    const beside = make({ subject: 'CN=gw1', issuer: root, san: [dns('gw1.example')], ...foreign });
    const ca = [root, authority('CN=New', foreign)];
    give('pki/CA/cacert.pem', certPem(...ca));
    put('', certPem(beside), keyPem(beside.key));
    put(0, certPem(own), keyPem(own.key));
    put(1, certPem(own), keyPem(own.key));
    const report = await check(server, NOW, 'gw1.example', roots);
    const short = (text: string): string => text.replaceAll(`${base}/pki/`, '');
    expect(report.files.map(({ path, found }) => `${short(path)} ${found}`)).toEqual([
      "CA/cacert.pem 'CN=Root'",
      "libvirt/servercert0.pem 'CN=gw1'",
      'libvirt/private/serverkey0.pem ec, prime256v1',
    ]);
    expect(report.findings.map(({ level, text }) => `${level}: ${short(text)}`)).toEqual([
      expect.stringMatching(
        /^note: IKE cannot use one authority, which is skipped: CA\/cacert.pem: certificate 2 of 2/,
      ),
      expect.stringMatching(/^note: libvirt\/servercert.pem is skipped, .*an algorithm other than/),
      'note: libvirt/servercert0.pem is the first that IKE can use; libvirt/servercert1.pem is left to TLS',
    ]);
    const files = new CertificateFiles({
      ...{ x509: server, roots, reader, passphrase: () => undefined, online },
      onWarning: fail,
    });
    expect(files.credentials(NOW).places.cert?.path).toBe(join(base, 'pki/libvirt/servercert0.pem'));
    expect(files.trust(NOW).anchors).toHaveLength(1);
    // What is wrong with the first in another way is no reason to prove oneself with the next.
    put('', 'nonsense', keyPem(beside.key));
    expect((await check(server, NOW, 'gw1.example', roots)).findings[1]?.text).toContain('servercert.pem is the first');
    expect(() => loadAuthorities(give('new.pem', certPem(ca[1]!)), reader)).toThrow('an algorithm other than');
  });
});

describe('what a peer would say', () => {
  const root = authority('CN=Root');
  const middle = authority('CN=Middle', { issuer: root });
  let serial = 0;
  /** The report over these files. */
  function report(
    files: { ca?: string; cert: string; key: string; crl?: string; policy?: 'strict' },
    localId?: string,
  ): Promise<PkiReport> {
    const name = (kind: string): string => `${serial}-${kind}.pem`;
    serial++;
    const crl =
      files.crl === undefined
        ? undefined
        : ({ file: put(name('crl'), files.crl), fetch: false, policy: files.policy ?? 'ifpresent' } as const);
    const x509: X509Source = {
      ...nothing,
      source: 'file',
      ca: put(name('ca'), files.ca ?? certPem(root)),
      cert: put(name('cert'), files.cert),
      key: { file: put(name('key'), files.key) },
      crl,
    };
    return check(x509, NOW, localId);
  }
  const texts = ({ findings }: PkiReport): string[] =>
    findings.map(({ level, text }) => `${level}: ${text.replaceAll(`${folder}/`, '')}`);
  const made = (more: Parameters<typeof make>[0] | object = {}): Made =>
    make({ subject: 'CN=gw1', issuer: root, san: [dns('gw1.example')], keyUsage: [0x80], ...more });
  const of = (one: Made, more: object = {}): { cert: string; key: string } => ({
    cert: certPem(one),
    key: keyPem(one.key),
    ...more,
  });

  it('nothing, when all is well', async () => {
    const result = await report(of(made()), 'gw1.example');
    expect(texts(result)).toEqual([]);
    expect(result.files.map(({ role, found, said }) => [role, found, said])).toEqual([
      ['ca', "'CN=Root'", 'the document'],
      ['certificate', "'CN=gw1'", 'the document'],
      ['key', 'ec, prime256v1', 'the document'],
    ]);
    expect(result.methods[0]).toBe('ecdsa-sha256');
  });

  it.each<[string, () => Promise<PkiReport>, RegExp]>([
    ['expired', () => report(of(made({ notAfter: NOW - DAY }))), /^error: 'CN=gw1' expired on 2026-05-31$/],
    [
      'expires soon',
      () => report(of(made({ notAfter: NOW + 12.5 * DAY }))),
      /^warning: 'CN=gw1' expires on 2026-06-13, in 12 days$/,
    ],
    [
      'not yet valid',
      () => report(of(made({ notBefore: NOW + DAY }))),
      /^error: a peer would reject us \(not-yet-valid\)/,
    ],
    [
      'of another key',
      () => report(of(made(), { key: keyPem(ecKey()) })),
      /^error: \d+-key.pem: the key is not that of 'CN=gw1', the first certificate in \d+-cert.pem/,
    ],
    [
      'of another authority',
      () => report(of(made(), { ca: certPem(authority('CN=Other')) })),
      /^error: a peer would reject us \(untrusted\)/,
    ],
    [
      'not for signatures',
      () => report(of(made({ keyUsage: [0x20] }))),
      /^error: a peer would reject us \(key-usage\)/,
    ],
    [
      'without alternative name',
      () => report(of(make({ subject: 'CN=x', issuer: root, keyUsage: [0x80] }))),
      /^note: \d+-cert.pem has no subject alternative name/,
    ],
    [
      'without key usage',
      () => report(of(make({ subject: 'CN=x', issuer: root, san: [dns('a.b')] }))),
      /^note: .*key usage/,
    ],
    [
      'of somebody else',
      () => report(of(made()), 'gw2.example'),
      /^error: the <id> of <local> is fqdn gw2.example, but \d+-cert.pem proves only: dn CN=gw1; fqdn gw1.example$/,
    ],
    [
      'revoked',
      () =>
        report({
          ...of(made({ serial: Uint8Array.of(9) })),
          crl: pem('X509 CRL', makeCrl({ issuer: root, revoked: [Uint8Array.of(9)] })),
        }),
      /^error: a peer would reject us \(revoked\)/,
    ],
    [
      'behind a list that is out of date',
      () => report({ ...of(made()), crl: pem('X509 CRL', makeCrl({ issuer: root, nextUpdate: NOW - DAY })) }),
      /^warning: the revocation list of 'CN=Root' expired on/,
    ],
    [
      'in a chain with a gap',
      () => report(of(made({ issuer: middle }), { ca: certPem(root, middle) })),
      /^warning: .*only the root would reject us: append 'CN=Middle'/,
    ],
    [
      'unreadable',
      () => report(of(made(), { cert: 'nonsense' })),
      /^error: \d+-cert.pem: it holds neither PEM nor DER/,
    ],
  ])('that it is %s', async (_, run, expected) => {
    const found = texts(await run());
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(expected);
  });

  it.each<[string, Partial<CrlRecipe> | undefined, 'strict' | 'ifpresent', RegExp]>([
    ['was not revoked', {}, 'strict', /^note: 'CN=gw1' was not revoked$/],
    [
      'was revoked',
      { revoked: [Uint8Array.of(9)] },
      'ifpresent',
      /^error: a peer would reject us \(revoked\): 'CN=gw1'/,
    ],
    ['is not known', undefined, 'strict', /^error: a peer would reject us \(revocation-unknown\): .*answers with 404/],
    [
      'is not known',
      undefined,
      'ifpresent',
      /^warning: whether 'CN=gw1' was revoked is not known: http:\/\/pki.example/,
    ],
  ])('that our certificate %s, where lists are fetched (%j, %s)', async (_, list, policy, expected) => {
    const own = made({ serial: Uint8Array.of(9), extra: [lists('http://pki.example/x.crl')] });
    const asked: string[] = [];
    const through = new OnlineRevocation({
      fetch: ({ url }) => {
        asked.push(url);
        if (list === undefined) return Promise.reject(new Error('it answers with 404'));
        return Promise.resolve(makeCrl({ issuer: root, ...list }));
      },
    });
    const x509: X509Source = {
      ...nothing,
      source: 'file',
      ca: put('f-ca.pem', certPem(root)),
      cert: put('f-cert.pem', certPem(own)),
      key: { file: put('f-key.pem', keyPem(own.key)) },
      crl: { file: undefined, fetch: true, policy },
    };
    const source = { x509, roots: nowhere, reader, passphrase: () => undefined, online: through };
    const result = await checkPki({ source, side: 'both', localId: undefined, now: NOW });
    expect(texts(result)).toEqual([expect.stringMatching(expected)]);
    expect(asked).toEqual(['http://pki.example/x.crl']);
  });

  it('that files are missing: each, and the rest is looked at all the same', async () => {
    const gone: FileReader = {
      read: (path) => (path.includes('cert') ? readFileSync(path) : fail(path)),
      readPrivate: fail,
    };
    const one = put('one-cert.pem', certPem(made()));
    const x509: X509Source = { ...nothing, source: 'file', ca: '/no/ca', cert: one, key: { file: '/no/key' } };
    const source = { x509, roots: nowhere, reader: gone, passphrase: () => undefined, online };
    const result = await checkPki({ source, side: 'both', localId: undefined, now: NOW });
    expect(texts(result)).toEqual(['error: no /no/ca', 'error: no /no/key']);
    expect(result.identities).toEqual(['dn CN=gw1', 'fqdn gw1.example']);
    const other = await checkPki({ source, side: 'remote', localId: undefined, now: NOW });
    expect(texts(other)).toEqual(['error: no /no/ca']);
  });
});

function fail(path: string): never {
  throw new Error(`no ${path}`);
}

describe('a document', () => {
  const root = authority('CN=Root');
  const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const made = make({ subject: 'CN=gw1.example', issuer: root, key });
  const octets = utf8('octets');

  /** What becomes of a peer without alternative name that signs with SHA-1. */
  async function judge(words: Partial<X509Source>, type: 'fqdn' | 'dn', authMethod: 1 | 14): Promise<string> {
    const files = {
      ca: put('d-ca.pem', certPem(root)),
      cert: put('d-cert.pem', certPem(made)),
      key: { file: put('d-key.pem', keyPem(key)) },
    };
    const x509: X509Source = { ...nothing, source: 'file', ...files, ...words };
    const both = new CertificateFiles({
      x509,
      roots: nowhere,
      reader,
      passphrase: () => undefined,
      online,
      onWarning: fail,
    });
    // The peer is an old one: its RSA signatures are with SHA-1 where nothing else was agreed on.
    const peer = keySigner(key, { allowSha1: true });
    const method = peer.methods.find((candidate) => candidate.authMethod === authMethod)!;
    const verdict = await both.trust(NOW).verifier.verify({
      certificates: [made.der],
      crls: [],
      id: identityFromText(type, type === 'fqdn' ? 'gw1.example' : 'CN=gw1.example'),
      authMethod,
      algorithm: method.algorithm,
      signature: await peer.sign(method, octets),
      octets,
      now: NOW,
    });
    return verdict.ok ? 'ok' : verdict.reason;
  }

  it('decides whether a common name counts, and SHA-1', async () => {
    expect(await judge({}, 'dn', 14)).toBe('ok');
    expect(await judge({}, 'fqdn', 14)).toBe('identity-mismatch');
    expect(await judge({ commonName: true }, 'fqdn', 14)).toBe('ok');
    expect(await judge({}, 'dn', 1)).toBe('bad-signature');
    expect(await judge({ sha1: true }, 'dn', 1)).toBe('ok');
  });
});

describe('renewal', () => {
  const root = authority('CN=Root');
  const warnings: string[] = [];
  const x509: X509Source = {
    ...nothing,
    source: 'file',
    ca: at('r-ca.pem'),
    cert: at('r-cert.pem'),
    key: { file: at('r-key.pem') },
  };
  const source: FileSource = {
    x509,
    roots: nowhere,
    reader,
    passphrase: () => undefined,
    online,
    onWarning: (text) => void warnings.push(text),
  };
  let age = 1_000_000;
  /** Files whose time is another at each call, however fast the test runs. */
  const write = (name: string, content: string): void => {
    const path = put(name, content);
    utimesSync(path, age, age++);
    expect(statSync(path).mtimeMs).toBe((age - 1) * 1000);
  };
  const give = (made: Made): void => {
    write('r-cert.pem', certPem(made));
    write('r-key.pem', keyPem(made.key));
  };
  const names = (files: CertificateFiles): string[] =>
    provenIdentities(files.credentials(NOW).chain[0]!, { allowCommonName: false }).map(describeIdentity);

  it('takes effect at the next authentication; a broken one does no harm, and is reported once', () => {
    const files = new CertificateFiles(source);
    expect(() => files.credentials(NOW)).toThrow('r-cert.pem');
    write('r-ca.pem', certPem(root));
    give(make({ subject: 'CN=a', issuer: root }));
    expect(names(files)).toEqual(['dn CN=a']);
    const before = files.credentials(NOW);
    expect(files.credentials(NOW)).toBe(before);
    give(make({ subject: 'CN=b', issuer: root }));
    expect(names(files)).toEqual(['dn CN=b']);
    expect(warnings).toEqual([]);
    // The certificate first and the key a moment later, as it happens.
    const next = make({ subject: 'CN=c', issuer: root });
    write('r-cert.pem', certPem(next));
    expect(names(files)).toEqual(['dn CN=b']);
    expect(names(files)).toEqual(['dn CN=b']);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/r-key.pem: the key is not that of 'CN=c'.*; the previous files remain in use$/);
    write('r-key.pem', keyPem(next.key));
    expect(names(files)).toEqual(['dn CN=c']);
    expect(warnings).toHaveLength(1);
  });

  it('is asked for in time, once a day', () => {
    const files = new CertificateFiles(source);
    give(make({ subject: 'CN=d', issuer: root, notAfter: NOW + 5 * DAY }));
    warnings.length = 0;
    files.credentials(NOW);
    files.credentials(NOW);
    expect(warnings).toEqual([`${at('r-cert.pem')}: 'CN=d' expires on 2026-06-06, in 5 days`]);
    files.credentials(NOW + DAY);
    expect(warnings[1]).toContain('in 4 days');
  });

  it('of what is trusted counts as well', async () => {
    const files = new CertificateFiles(source);
    const other = authority('CN=Other');
    write('r-ca.pem', certPem(root));
    expect(files.trust(NOW).anchors).toHaveLength(1);
    const { verifier } = files.trust(NOW);
    write('r-ca.pem', certPem(root, other));
    expect(files.trust(NOW).anchors).toHaveLength(2);
    expect(files.trust(NOW).verifier).not.toBe(verifier);
    expect(files.trust(NOW).verifier.authorities).toHaveLength(2);
    const key = createPrivateKey(keyPem(other.key));
    const made = make({ subject: 'CN=x', issuer: other, key });
    const signer = keySigner(key);
    const [method] = signer.methods;
    const octets = utf8('octets');
    const verdict = await files.trust(NOW).verifier.verify({
      certificates: [made.der],
      crls: [],
      id: { type: 9, data: made.name },
      authMethod: 14,
      algorithm: method!.algorithm,
      signature: await signer.sign(method!, octets),
      octets,
      now: NOW,
    });
    expect(verdict).toMatchObject({ ok: true, subject: 'CN=x' });
  });
});
