/**
 * Certificates of every kind of key against strongSwan, in both roles; chains, and what each side must refuse the other.
 */
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { fromHex } from '../../src/base/bytes.ts';
import { authority, dns, ecKey, ip, type Made, make, makeCrl, type Recipe } from '../pki/make.ts';
import { showLogsOnFailure } from '../support/lab/failure.ts';
import { Lab } from '../support/lab/lab.ts';
import { Ours, sectunnelDocument } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { type StrongSwan, swanctlConf } from '../support/lab/strongswan.ts';
import type { LabIdentity, Tunnel } from '../support/lab/tunnel.ts';
import { ALL_CARRIED, buildRig, exchange, type Rig } from './rig.ts';
import { LEFT, RIGHT } from './suites.ts';

const NAME = 'certified';
const DAY = 24 * 3_600_000;
const year = { notBefore: Date.now() - DAY, notAfter: Date.now() + 365 * DAY };
const root = authority('O=sectunnel, CN=Root', year);
const middle = authority('O=sectunnel, CN=Middle', { issuer: root, ...year });
const other = authority('O=sectunnel, CN=Other', year);

const DN = { left: 'O=sectunnel, CN=left', right: 'O=sectunnel, CN=right' } as const;
type Side = keyof typeof DN;

/** The certificate of a side, with the names that it goes by. */
function certificate(side: Side, more: Partial<Recipe> = {}): Made {
  const address = ip(side === 'left' ? 'c0000201' : 'c0000202');
  return make({
    subject: DN[side],
    issuer: root,
    san: [dns(`${side}.example`), address],
    keyUsage: [0x80],
    ...year,
    ...more,
  });
}

const pem = (label: string, der: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n')}\n-----END ${label}-----\n`;
const certPem = (...made: readonly Made[]): string => made.map(({ der }) => pem('CERTIFICATE', der)).join('');
const keyPem = (key: KeyObject): string => key.export({ format: 'pem', type: 'pkcs8' }).toString();

const tunnel = (left: LabIdentity, right: LabIdentity): Tunnel => ({
  name: NAME,
  left: { address: LEFT[4].outer, id: left, inner: [`${LEFT[4].inner}/32`], psk: 'none' },
  right: { address: RIGHT[4].outer, id: right, inner: [`${RIGHT[4].inner}/32`], psk: 'none' },
  ike: { encryption: 'aes256gcm16', prf: 'sha384', dh: 'ecp384' },
  esp: { encryption: 'aes256gcm16', esn: 'no' },
});
const dn = (side: Side): LabIdentity => ({ type: 'dn', value: DN[side] });
const fqdn = (side: Side): LabIdentity => ({ type: 'fqdn', value: `${side}.example` });

/** What a test has in the place of the usual. */
interface Words {
  readonly ours?: Made;
  readonly theirs?: Made;
  readonly ids?: Tunnel;
  /** Sent along, by us and by the peer. */
  readonly ourChain?: readonly Made[];
  readonly theirChain?: readonly Made[];
  readonly crl?: { readonly der: Uint8Array; readonly policy: 'strict' | 'ifpresent' };
  readonly theirMethods?: string;
  readonly start?: 'initiate' | 'respond';
  /** More attributes of our `<x509>`. */
  readonly x509?: string;
}

describeInterop('certificates with strongSwan', ['namespaces', 'strongswan', 'build'], () => {
  let lab: Lab;
  let rig: Rig;
  let peer: StrongSwan;
  let ours: Ours;
  let pki: string;

  beforeAll(async () => {
    lab = new Lab();
    rig = await buildRig(lab, 'userspace');
    peer = rig.peer as StrongSwan;
    ours = await Ours.start(lab, rig.left);
    pki = join(ours.folder, 'pki');
    mkdirSync(pki);
  }, 60_000);

  afterAll(() => lab.dispose(), 30_000);

  beforeEach(async () => {
    showLogsOnFailure(lab);
    await ours.reset();
    await peer.reset();
  });

  const file = (name: string, content: string): string => {
    writeFileSync(join(pki, name), content, { mode: 0o600 });
    return join(pki, name);
  };

  async function load(words: Words): Promise<void> {
    const {
      ours: mine = certificate('left'),
      theirs = certificate('right'),
      ids = tunnel(dn('left'), dn('right')),
    } = words;
    const conf = swanctlConf(ids, 'right')
      .replace('auth = psk', `auth = ${words.theirMethods ?? 'pubkey'}\n      certs = own.pem`)
      .replace('auth = psk', 'auth = pubkey');
    const sent = (words.theirChain ?? []).map((made, at) => [`x509ca/chain${at}.pem`, certPem(made)] as const);
    await peer.loadConfiguration(conf, {
      'x509/own.pem': certPem(theirs),
      'private/own.pem': keyPem(theirs.key),
      'x509ca/root.pem': certPem(root),
      ...Object.fromEntries(sent),
    });
    const crl =
      words.crl && `<crl file='${file('crl.pem', pem('X509 CRL', words.crl.der))}' policy='${words.crl.policy}'/>`;
    const x509 = `<auth type='x509'><x509 source='file' ${words.x509 ?? ''}><ca file='${file('ca.pem', certPem(root))}'/>
      <cert file='${file('cert.pem', certPem(mine, ...(words.ourChain ?? [])))}'/>
      <key file='${file('key.pem', keyPem(mine.key))}'/>${crl ?? ''}</x509></auth>`;
    const document = sectunnelDocument(ids, 'left', { start: words.start ?? 'respond' }, 'none');
    await ours.defineDocument(NAME, document.replace(/<auth type='psk'>.*<\/auth>/, x509));
    await ours.command(['start', NAME]);
  }

  async function establish(words: Words): Promise<void> {
    await load(words);
    if (words.start !== 'initiate') await peer.initiate(NAME);
    await ours.up(NAME);
  }

  /** Why we refused, as `status` says. */
  async function refused(words: Words): Promise<string> {
    await load(words);
    if (words.start !== 'initiate') await peer.initiateInVain(NAME);
    return await waitFor('a refusal', async () => (await ours.tunnel(NAME)).lastFailure?.detail);
  }

  const rsa = (bits: number): KeyObject => generateKeyPairSync('rsa', { modulusLength: bits }).privateKey;
  const kinds: readonly [string, () => KeyObject, string][] = [
    ['RSA 2048', () => rsa(2048), 'pubkey'],
    ['RSA 4096, PSS from the peer', () => rsa(4096), 'rsa/pss-sha384'],
    ['P-256', () => ecKey('P-256'), 'pubkey'],
    ['P-384', () => ecKey('P-384'), 'pubkey'],
    ['P-521', () => ecKey('P-521'), 'pubkey'],
    ['Ed25519', () => generateKeyPairSync('ed25519').privateKey, 'pubkey'],
    ['Ed448', () => generateKeyPairSync('ed448').privateKey, 'pubkey'],
  ];
  it.each(kinds)('%s on both sides, in both roles', async (_, key, theirMethods) => {
    const sides = {
      ours: certificate('left', { key: key() }),
      theirs: certificate('right', { key: key() }),
      theirMethods,
    };
    await establish({ ...sides, start: 'initiate' });
    await ours.reset();
    await peer.reset();
    await establish(sides);
    expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
  });

  it('host names and addresses as identities, and chains over an authority between', async () => {
    const sides = { ours: certificate('left', { issuer: middle }), theirs: certificate('right', { issuer: middle }) };
    const chains = { ourChain: [middle], theirChain: [middle] };
    await establish({ ...sides, ...chains, ids: tunnel(fqdn('left'), fqdn('right')), start: 'initiate' });
    await ours.reset();
    await peer.reset();
    const addresses = tunnel({ type: 'address', value: LEFT[4].outer }, { type: 'address', value: RIGHT[4].outer });
    await establish({ ...sides, ...chains, ids: addresses });
  });

  const serial = fromHex('4711');
  const revoked = {
    der: makeCrl({ issuer: root, revoked: [serial], thisUpdate: Date.now() - DAY, nextUpdate: Date.now() + DAY }),
    policy: 'strict',
  } as const;
  it.each<[string, () => Words, RegExp]>([
    ['expired', () => ({ theirs: certificate('right', { notAfter: Date.now() - DAY }) }), /expired on/],
    [
      'of another authority',
      () => ({ theirs: certificate('right', { issuer: other }), theirChain: [other] }),
      /'O=sectunnel, CN=Other', which is not among the trusted/,
    ],
    ['that was revoked', () => ({ theirs: certificate('right', { serial }), crl: revoked }), /was revoked since/],
    [
      'for another name',
      () => ({
        theirs: certificate('right', { san: [dns('wrong.example')] }),
        ids: tunnel(fqdn('left'), fqdn('right')),
      }),
      /right\.example/,
    ],
    [
      'without the authority between',
      () => ({ theirs: certificate('right', { issuer: middle }) }),
      /no certificate that leads/,
    ],
  ])('a certificate %s is refused, and we say why', async (_, words, why) => {
    for (const start of ['initiate', 'respond'] as const) {
      expect(await refused({ ...words(), start })).toMatch(why);
      await ours.reset();
      await peer.reset();
    }
  });

  it('a certificate that is in the list of nobody is let in by strict and its fresh list', async () => {
    await establish({ crl: revoked, start: 'initiate' });
  });

  it('peers without RFC 7427: ECDSA by the methods of RFC 4754, RSA where SHA-1 is allowed', async () => {
    const conf = join(peer.folder, 'strongswan.conf');
    const before = readFileSync(conf, 'utf8');
    writeFileSync(conf, before.replace('charon-systemd {', 'charon-systemd {\n  signature_authentication = no'));
    try {
      await peer.restart();
      for (const key of [...['P-256', 'P-384', 'P-521'].map((curve) => ecKey(curve)), rsa(2048)]) {
        const x509 = key.asymmetricKeyType === 'rsa' ? "sha1='yes'" : '';
        const sides = { ours: certificate('left', { key }), theirs: certificate('right', { key }), x509 };
        await establish({ ...sides, start: 'initiate' });
        await ours.reset();
        await peer.reset();
        await establish(sides);
        await ours.reset();
        await peer.reset();
      }
    } finally {
      writeFileSync(conf, before);
      await peer.restart();
    }
  });
});
