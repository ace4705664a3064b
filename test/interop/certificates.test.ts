/**
 * Certificates of every kind of key against strongSwan, in both roles; chains, and what each side must refuse the other.
 */
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import { fromHex } from '../../src/base/bytes.ts';
import { authority, DAY, dns, ecKey, makeCrl } from '../pki/make.ts';
import { Ours } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import type { StrongSwan } from '../support/lab/strongswan.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  certificate,
  certifiedTunnel,
  establishCertified,
  fqdn,
  refusedCertified,
  root,
  type Words,
  year,
} from './certified.ts';
import { ALL_CARRIED, buildRig, exchange, type Rig } from './rig.ts';
import { LEFT, RIGHT } from './suites.ts';

const middle = authority('O=sectunnel, CN=Middle', { issuer: root, ...year });
const other = authority('O=sectunnel, CN=Other', year);

describeInterop('certificates with strongSwan', ['namespaces', 'strongswan', 'build'], () => {
  let rig: Rig;
  let peer: StrongSwan;
  let ours: Ours;

  useLab(async (lab) => {
    rig = await buildRig(lab, 'userspace');
    peer = rig.peer as StrongSwan;
    ours = await Ours.start(lab, rig.left);
  });

  beforeEach(async () => {
    await ours.reset();
    await peer.reset();
  });

  const establish = (words: Words): Promise<void> => establishCertified(ours, peer, words);

  const refused = (words: Words): Promise<string> => refusedCertified(ours, peer, words);

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
    await establish({ ...sides, ...chains, ids: certifiedTunnel(fqdn('left'), fqdn('right')), start: 'initiate' });
    await ours.reset();
    await peer.reset();
    const addresses = certifiedTunnel(
      { type: 'address', value: LEFT[4].outer },
      { type: 'address', value: RIGHT[4].outer },
    );
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
        ids: certifiedTunnel(fqdn('left'), fqdn('right')),
      }),
      /right\.example/,
    ],
    [
      'without the authority between',
      () => ({ theirs: certificate('right', { issuer: middle }) }),
      /no certificate that links/,
    ],
  ])('a certificate %s is refused, and we say why', async (_, words, why) => {
    for (const start of ['initiate', 'respond'] as const) {
      expect(await refused({ ...words(), start })).toMatch(why);
      await ours.reset();
      await peer.reset();
    }
  });

  it('a certificate in no list is accepted by strict with a fresh list', async () => {
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
