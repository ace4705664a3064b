import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { run } from '../../../src/cli/run.ts';
import { MemoryNetwork } from '../../../src/tun/udp/memory.ts';
import { authority, dns, ecKey, type Made, make, makeCrl } from '../../pki/make.ts';
import { lists } from '../../pki/make-ocsp.ts';
import {
  address,
  type DocumentWords,
  eventually,
  SECRET_UUID,
  TestDaemon,
  temporaryFolder,
  tunnelDocument,
} from '../../support/daemon.ts';
import { FakeLibvirt } from '../../support/fake-libvirt.ts';

const DAY = 24 * 3_600_000;
const year = { notBefore: Date.now() - DAY, notAfter: Date.now() + 365 * DAY };
const root = authority('O=Example, CN=Root', year);
const gateway = make({
  subject: 'O=Example, CN=gw1',
  issuer: root,
  san: [dns('gw1.example')],
  keyUsage: [0x80],
  ...year,
});

const pem = (label: string, der: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n')}\n-----END ${label}-----\n`;

class Files {
  readonly folder: string = temporaryFolder();

  path(name: string): string {
    return join(this.folder, name);
  }

  write(name: string, content: string, mode = 0o600): void {
    writeFileSync(this.path(name), content);
    chmodSync(this.path(name), mode);
  }

  give(made: Made = gateway): void {
    this.write('ca.pem', pem('CERTIFICATE', root.der), 0o644);
    this.write('cert.pem', pem('CERTIFICATE', made.der), 0o644);
    this.write('key.pem', made.key.export({ format: 'pem', type: 'pkcs8' }).toString());
  }

  /** With what the side needs, and no more. */
  document(secret = '', side = 'both', words: DocumentWords = {}): string {
    const ca = side === 'local' ? '' : `<ca file='${this.path('ca.pem')}'/>`;
    const own = `<cert file='${this.path('cert.pem')}'/>
      <key file='${this.path('key.pem')}'>${secret}</key>`;
    const x509 = `<auth type='x509' side='${side}'><x509 source='file'>
      ${ca}${side === 'remote' ? '' : own}</x509></auth>`;
    return tunnelDocument(words).replace(/<auth.*<\/auth>/, x509);
  }
}

async function pkiCheck(daemon: TestDaemon, ...options: string[]): Promise<{ code: number; out: string; err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await run(['--run-dir', daemon.runDir, 'pki-check', 'net', ...options], {
    out: (text) => void out.push(text),
    err: (text) => void err.push(text),
    readStdin: () => Promise.resolve(Buffer.alloc(0)),
    interrupted: () => Promise.resolve(),
  });
  return { code, out: out.join(''), err: err.join('') };
}

async function start(): Promise<{ daemon: TestDaemon; files: Files }> {
  return { daemon: await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')])), files: new Files() };
}

describe('sectunnel pki-check', () => {
  it('reports which files are used, which identities they prove, and that nothing is wrong', async () => {
    const { daemon, files } = await start();
    files.give();
    await daemon.client.call('define', { xml: files.document() });
    const { code, out } = await pkiCheck(daemon);
    expect(code).toBe(0);
    expect(out.replaceAll(files.folder, '').replace(/ +/g, ' ')).toBe(
      `Both sides (line 6)
 ca /ca.pem 'O=Example, CN=Root' (the document)
 certificate /cert.pem 'O=Example, CN=gw1' (the document)
 key /key.pem ec, prime256v1 (the document)
 proves
 dn O=Example, CN=gw1
 fqdn gw1.example
 signs with ecdsa-sha256, ecdsa-sha384, ecdsa-sha512, ecdsa-256
 no problems
`,
    );
    const { out: asJson } = await pkiCheck(daemon, '--json');
    expect(JSON.parse(asJson)).toMatchObject({ name: 'net', sides: [{ side: 'both', findings: [] }] });
  });

  it('reports what is missing, what others may read, what does not match, and ends with code 1', async () => {
    const { daemon, files } = await start();
    await daemon.client.call('define', { xml: files.document() });
    const first = await pkiCheck(daemon);
    expect(first.code).toBe(1);
    expect(first.err).toBe('error: 3 errors in the certificates of tunnel net\n');
    expect(first.out).toContain(`error: ${files.path('ca.pem')}: there is no such file`);
    files.give();
    chmodSync(files.path('key.pem'), 0o640);
    const readable = await pkiCheck(daemon);
    expect(readable.out).toContain(
      `has mode 0640, so others may read it; 0600 is required: chmod 600 ${files.path('key.pem')}`,
    );
    files.give({ ...gateway, key: ecKey() });
    expect((await pkiCheck(daemon)).out).toContain("the key is not that of 'O=Example, CN=gw1'");
  });

  it('opens keys with a pass phrase that libvirt keeps, and says so when libvirt cannot be asked', async () => {
    const fake = await FakeLibvirt.start();
    fake.secrets.push({ uuid: SECRET_UUID, value: 'a phrase' });
    const daemon = new TestDaemon(new MemoryNetwork().host([address('192.0.2.1')]));
    daemon.libvirtSockets = [fake.path];
    await daemon.open();
    onTestFinished(() => daemon.close());
    const files = new Files();
    files.give();
    files.write(
      'key.pem',
      gateway.key.export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: 'a phrase' }).toString(),
    );
    const xml = files.document(`<secret uuid='${SECRET_UUID}'/>`);
    expect((await daemon.client.call('define', { xml })).warnings).toEqual([]);
    await daemon.client.call('start', { name: 'net' });
    expect((await pkiCheck(daemon)).code).toBe(0);
    await fake.stop();
    await eventually('the loss', async () => (await pkiCheck(daemon)).out.includes('libvirt cannot be asked'));
  });

  it('opens keys with the pass phrase in a secret', async () => {
    const { daemon, files } = await start();
    files.give();
    const encrypted = { format: 'pem', type: 'pkcs8', cipher: 'aes-128-cbc', passphrase: 'open sesame' } as const;
    files.write('key.pem', gateway.key.export(encrypted).toString());
    await daemon.client.call('define', { xml: files.document(`<secret uuid='${SECRET_UUID}'/>`) });
    expect((await pkiCheck(daemon)).out).toContain(`there is no secret ${SECRET_UUID}`);
    await daemon.giveSecret('wrong');
    expect((await pkiCheck(daemon)).out).toContain('the pass phrase in the secret is wrong');
    await daemon.giveSecret('open sesame');
    expect(await pkiCheck(daemon)).toMatchObject({ code: 0, err: '' });
  });

  it('looks at the authorities alone where only the peer has a certificate', async () => {
    const { daemon, files } = await start();
    files.give();
    files.write('key.pem', 'nonsense');
    const psk = `<auth type='psk' side='local'><secret uuid='${SECRET_UUID}'/></auth>`;
    const xml = files.document('', 'remote').replace("<auth type='x509'", `${psk}<auth type='x509'`);
    await daemon.client.call('define', { xml });
    const { code, out } = await pkiCheck(daemon);
    expect(code).toBe(0);
    expect(out).toContain("The peer's side (line 6)");
    expect(out).not.toContain('key.pem');
  });

  it('refuses tunnels without certificates', async () => {
    const { daemon } = await start();
    await daemon.client.call('define', { xml: tunnelDocument() });
    expect((await pkiCheck(daemon)).err).toContain("tunnel net has no <auth type='x509'>");
    await daemon.client.call('undefine', { name: 'net' });
    expect((await pkiCheck(daemon)).code).toBe(1);
  });
});

describe('two daemons with certificates', () => {
  const LIST = 'http://pki.example/root.crl';
  const SERIAL = Uint8Array.of(0x47);
  const certified = (name: string, more: object = {}): Made =>
    make({
      subject: `O=Example, CN=${name}`,
      issuer: root,
      san: [dns(`${name}.example`)],
      keyUsage: [0x80],
      ...year,
      ...more,
    });
  const rightWords = {
    start: 'respond',
    local: '192.0.2.2',
    remote: '192.0.2.1',
    inner: ['10.2.0.0', '10.1.0.0'],
  } as const;

  interface Side {
    readonly daemon: TestDaemon;
    readonly files: Files;
  }

  async function pair(left: Made, right: Made): Promise<{ left: Side; right: Side }> {
    const network = new MemoryNetwork();
    const side = async (host: string, made: Made): Promise<Side> => {
      const daemon = await TestDaemon.start(network.host([address(host)]));
      const files = new Files();
      files.give(made);
      return { daemon, files };
    };
    return { left: await side('192.0.2.1', left), right: await side('192.0.2.2', right) };
  }

  const stateOf = async ({ daemon }: Side): Promise<string> =>
    (await daemon.client.call('status', { name: 'net' })).tunnels[0]!.state;
  const failureOf = async ({ daemon }: Side): Promise<string> =>
    (await daemon.client.call('status', { name: 'net' })).tunnels[0]!.lastFailure?.detail ?? '';
  const create = async ({ daemon, files }: Side, words: DocumentWords = {}): Promise<void> => {
    await daemon.client.call('create', { xml: files.document('', 'both', { start: 'initiate', ...words }) });
  };

  it('know each other by their subjects, where no identity is given', async () => {
    const { left, right } = await pair(certified('gw1'), certified('gw2'));
    await create(right, rightWords);
    await create(left);
    await eventually('the tunnel', async () => (await stateOf(left)) === 'up' && (await stateOf(right)) === 'up');
    const [ike] = (await left.daemon.client.call('status', { name: 'net' })).tunnels[0]!.ikeSas;
    expect(ike).toMatchObject({ localId: 'O=Example, CN=gw1', remoteId: 'O=Example, CN=gw2' });
  });

  it('say why one does not believe the other', async () => {
    const other = authority('O=Example, CN=Other', year);
    const { left, right } = await pair(certified('gw1'), certified('gw2', { issuer: other }));
    await create(right, rightWords);
    await create(left);
    await eventually('the refusal', async () => (await failureOf(left)) !== '');
    expect(await failureOf(left)).toMatch(
      /untrusted: .*'O=Example, CN=gw2' was issued by 'O=Example, CN=Other', which is not among/,
    );
  });

  it('pick up renewed files at the next authentication, and go on with the old ones when the new are broken', async () => {
    const { left, right } = await pair(certified('gw1'), certified('gw2'));
    await create(right, rightWords);
    left.files.write('key.pem', 'nonsense');
    await expect(create(left)).rejects.toThrow(/key.pem: it holds neither PEM nor DER; a private key/);
    left.files.give(certified('gw9'));
    await expect(create(left, { extra: '' })).resolves.toBeUndefined();
    await eventually('the tunnel', async () => (await stateOf(right)) === 'up');
    right.files.write('cert.pem', 'nonsense');
    await left.daemon.client.call('destroy', { name: 'net' });
    await create(left);
    await eventually('the tunnel', async () => (await stateOf(left)) === 'up');
    const warned = right.daemon.lines.filter(({ level, text }) => level === 'warn' && text.includes('remain in use'));
    expect(warned).toHaveLength(1);
    expect(warned[0]?.text).toContain(`${right.files.path('cert.pem')}: it holds neither PEM nor DER`);
  });

  it.each<[string, readonly Uint8Array[] | undefined, string]>([
    ['cannot be had', undefined, `: whether 'O=Example, CN=gw2' was revoked is not known: ${LIST}: no ${LIST} here`],
    ['has the peer', [SERIAL], "revoked: 'O=Example, CN=gw2' was revoked since"],
    ['does not have the peer', [], 'up'],
  ])('fetch lists where the document says so: one that %s', async (_, revoked, outcome) => {
    const { left, right } = await pair(certified('gw1'), certified('gw2', { serial: SERIAL, extra: [lists(LIST)] }));
    const times = { thisUpdate: Date.now() - DAY, nextUpdate: Date.now() + DAY };
    if (revoked !== undefined) left.daemon.fetch = async () => makeCrl({ issuer: root, revoked, ...times });
    await create(right, rightWords);
    const xml = left.files
      .document('', 'both', { start: 'initiate' })
      .replace('</x509>', "<crl fetch='yes' policy='strict'/></x509>");
    await left.daemon.client.call('create', { xml });
    const state = async (): Promise<string> => `${await failureOf(left)} ${await stateOf(left)}`;
    await eventually(outcome, async () => (await state()).includes(outcome));
    const told = left.daemon.lines.filter(({ text }) => text.startsWith('revocation status unknown'));
    expect(told.map(({ text }) => text)).toEqual(
      revoked === undefined ? [`revocation status unknown: ${LIST}: no ${LIST} here`] : [],
    );
  });

  it('warn of a certificate that is about to expire while no peer authenticates', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'] });
    onTestFinished(() => void vi.useRealTimers());
    const { left } = await pair(certified('gw1', { notAfter: Date.now() + 31.5 * DAY }), certified('gw2'));
    await create(left);
    const warned = (): string[] =>
      left.daemon.lines
        .filter(({ text }) => text.includes('expires on'))
        .map(({ text }) => text.replace(/.*, in/, 'in'));
    expect(warned()).toEqual([]);
    vi.advanceTimersByTime(DAY);
    expect(warned()).toEqual([]);
    vi.advanceTimersByTime(2 * DAY);
    expect(warned()).toEqual(['in 29 days', 'in 28 days']);
  });

  it('send their subject as it stands in the certificate, however the document writes it', async () => {
    const { left, right } = await pair(certified('gw1'), certified('gw2'));
    await create(right, rightWords);
    const id = "<local address='192.0.2.1'><id type='dn'>o=EXAMPLE,cn=GW1</id></local>";
    const xml = left.files.document('', 'both', { start: 'initiate' }).replace("<local address='192.0.2.1'/>", id);
    await left.daemon.client.call('create', { xml });
    await eventually('the tunnel', async () => (await stateOf(right)) === 'up');
    const [ike] = (await right.daemon.client.call('status', { name: 'net' })).tunnels[0]!.ikeSas;
    expect(ike?.remoteId).toBe('O=Example, CN=gw1');
  });

  it('mix certificates and pre-shared keys, one for each side', async () => {
    const { left, right } = await pair(certified('gw1'), certified('gw2'));
    for (const { daemon } of [left, right]) await daemon.giveSecret();
    const psk = (side: string): string =>
      `<auth type='psk' side='${side}'><secret uuid='${SECRET_UUID}'/></auth><auth type='x509'`;
    const mixed = ({ files }: Side, cert: string, key: string, words: DocumentWords): string =>
      files.document('', cert, words).replace("<auth type='x509'", psk(key));
    await right.daemon.client.call('create', { xml: mixed(right, 'local', 'remote', rightWords) });
    await left.daemon.client.call('create', { xml: mixed(left, 'remote', 'local', { start: 'initiate' }) });
    await eventually('the tunnel', async () => (await stateOf(left)) === 'up');
    const [ike] = (await left.daemon.client.call('status', { name: 'net' })).tunnels[0]!.ikeSas;
    expect(ike).toMatchObject({ localId: '192.0.2.1', remoteId: 'O=Example, CN=gw2' });
  });

  it('warn when they are defined, and refuse to start, while files are missing, expired or for another name', async () => {
    const { left } = await pair(certified('gw1', { notAfter: Date.now() - DAY }), certified('gw2'));
    const define = async (
      words: DocumentWords = {},
      xml = left.files.document('', 'both', words),
    ): Promise<readonly string[]> => (await left.daemon.client.call('define', { xml })).warnings;
    expect(await define()).toEqual([expect.stringMatching(/cert.pem: 'O=Example, CN=gw1' expired on .*; renew it/)]);
    await expect(left.daemon.client.call('start', { name: 'net' })).rejects.toThrow('expired on');
    left.files.give(certified('gw1', { notAfter: Date.now() + 2.5 * DAY }));
    expect(await define()).toEqual([expect.stringMatching(/cert.pem: 'O=Example, CN=gw1' expires on .*, in 2 days$/)]);
    left.files.give(certified('gw1'));
    expect(await define()).toEqual([]);
    const named = left.files
      .document()
      .replace("<local address='192.0.2.1'/>", "<local address='192.0.2.1'><id type='fqdn'>gw3.example</id></local>");
    expect(await define({}, named)).toEqual([
      expect.stringMatching(
        /cert.pem: it does not prove fqdn gw3.example, the <id> of <local>, but dn O=Example, CN=gw1; fqdn gw1.example \(<cert file='…'\/> of the document\)$/,
      ),
    ]);
    left.files.write('ca.pem', '');
    const field = (name: string): string => `(<${name} file='…'/> of the document)`;
    expect(await define()).toEqual([`${left.files.path('ca.pem')}: it is empty; copy it again ${field('ca')}`]);
    left.files.give(certified('gw1'));
    chmodSync(left.files.path('key.pem'), 0o644);
    const key = left.files.path('key.pem');
    const readable = `it has mode 0644, so others may read it; 0600 is required: chmod 600 ${key}`;
    expect(await define()).toEqual([`${key}: ${readable} ${field('key')}`]);
    await expect(left.daemon.client.call('start', { name: 'net' })).rejects.toThrow(readable);
    const list = left.files.path('list.pem');
    const strict = left.files.document().replace('</x509>', `<crl file='${list}' policy='strict'/></x509>`);
    left.files.give(certified('gw1'));
    expect(await define({}, strict)).toEqual([`${list}: there is no such file ${field('crl')}`]);
    const stale = makeCrl({ issuer: root, thisUpdate: Date.now() - 3 * DAY, nextUpdate: Date.now() - DAY });
    left.files.write('list.pem', pem('X509 CRL', stale));
    expect(await define({}, strict)).toEqual([
      expect.stringMatching(/list.pem: the revocation list of 'O=Example, CN=Root' expired on/),
    ]);
  });

  it('refuse to start when no authority holds any more, and warn when one soon will not', async () => {
    const { left } = await pair(certified('gw1'), certified('gw2'));
    const until = (days: number): string =>
      pem('CERTIFICATE', authority('O=Example, CN=Old', { ...year, notAfter: Date.now() + days * DAY + DAY / 2 }).der);
    const define = async (): Promise<readonly string[]> =>
      (await left.daemon.client.call('define', { xml: left.files.document('', 'both', { start: 'initiate' }) }))
        .warnings;
    left.files.write('ca.pem', until(-2));
    const expired =
      /ca.pem: 'O=Example, CN=Old' expired on .*; replace it with the authority's new certificate \(<ca file='…'/;
    expect(await define()).toEqual([expect.stringMatching(expired)]);
    await expect(left.daemon.client.call('start', { name: 'net' })).rejects.toThrow(expired);
    left.files.write('ca.pem', pem('CERTIFICATE', root.der) + until(5));
    expect(await define()).toEqual([expect.stringMatching(/ca.pem: 'O=Example, CN=Old' expires on .*, in 5 days$/)]);
    await left.daemon.client.call('start', { name: 'net' });
    expect(left.daemon.lines.filter(({ text }) => text.includes('in 5 days'))).toHaveLength(1);
  });
});
