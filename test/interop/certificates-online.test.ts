/**
 * Revocation lists and OCSP over HTTP: the list by a server beside strongSwan, the answers by `openssl ocsp`. Both are reached while
 * our tunnel, which has no SA yet, holds its routes.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeEach, expect, it } from 'vitest';
import { toHex } from '../../src/base/bytes.ts';
import { DAY, type Made, make, makeCrl } from '../pki/make.ts';
import { lists, NO_CHECK, OCSP_SIGNING, responders } from '../pki/make-ocsp.ts';
import { Ours } from '../support/lab/ours.ts';
import { type Background, waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import type { StrongSwan } from '../support/lab/strongswan.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  certificate,
  certPem,
  establishCertified,
  keyPem,
  refusedCertified,
  root,
  type Words,
  year,
} from './certified.ts';
import { ALL_CARRIED, buildRig, exchange, type Rig } from './rig.ts';
import { RIGHT } from './suites.ts';

const WEB = fileURLToPath(new URL('../support/lab/web.mjs', import.meta.url));
const HOST = RIGHT[4].outer;
const [WEB_PORT, OCSP_PORT] = [8080, 8888];
const page = (name: string, host = HOST): string => `http://${host}:${WEB_PORT}/${name}`;
const RESPONDER = `http://${HOST}:${OCSP_PORT}/`;
const NOBODY = `http://${HOST}:9/`;
const STRICT_LIST = "<crl fetch='yes' policy='strict'/>";
const STRICT_OCSP = "<ocsp policy='strict'/>";

const [GOOD, REVOKED] = [Uint8Array.of(0x47, 0x11), Uint8Array.of(0x47, 0x12)];
const peerWith = (extra: Uint8Array, serial: Uint8Array = GOOD): Made =>
  certificate('right', { serial, extra: [extra] });
const list = (...revoked: Uint8Array[]): Uint8Array =>
  makeCrl({ issuer: root, revoked, thisUpdate: Date.now() - DAY, nextUpdate: Date.now() + DAY });

describeInterop('revocation over HTTP, with strongSwan', ['namespaces', 'strongswan', 'openssl', 'build'], () => {
  let rig: Rig;
  let peer: StrongSwan;
  let ours: Ours;
  let web: Background;

  useLab(async (lab) => {
    rig = await buildRig(lab, 'userspace');
    peer = rig.peer as StrongSwan;
    ours = await Ours.start(lab, rig.left);
    const folder = join(lab.folder, 'web');
    mkdirSync(folder);
    const put = (name: string, content: string | Uint8Array): string => {
      writeFileSync(join(folder, name), content);
      return join(folder, name);
    };
    put('revoked.crl', list(REVOKED));
    put('good.crl', list());
    web = peer.namespace.spawn('web server', [process.execPath, WEB, '::', String(WEB_PORT), folder]);
    lab.defer(() => web.stop('SIGKILL'));
    const signer = make({ subject: 'CN=Responder', issuer: root, eku: OCSP_SIGNING, extra: [NO_CHECK], ...year });
    const known = [
      `V\t491231000000Z\t\t${toHex(GOOD)}`,
      `R\t491231000000Z\t260101000000Z,keyCompromise\t${toHex(REVOKED)}`,
    ];
    const index = put('index.txt', known.map((line) => `${line}\tunknown\t/CN=right\n`).join(''));
    const keys = ['-rsigner', put('responder.pem', certPem(signer)), '-rkey', put('responder.key', keyPem(signer.key))];
    const files = ['-index', index, '-CA', put('ca.pem', certPem(root)), ...keys];
    const ocsp = ['openssl', 'ocsp', '-port', String(OCSP_PORT), ...files, '-nmin', '60'];
    const responder = peer.namespace.spawn('OCSP responder', ocsp);
    lab.defer(() => responder.stop('SIGKILL'));
    lab.log('web server and OCSP responder', () => web.output + responder.output);
    await waitFor('both servers', () =>
      web.output.includes('ready') && /waiting for ocsp client/i.test(responder.output) ? true : undefined,
    );
  });

  beforeEach(async () => {
    await ours.reset();
    await peer.reset();
  });

  const establish = (words: Words): Promise<void> => establishCertified(ours, peer, words);
  const refused = (words: Words): Promise<string> => refusedCertified(ours, peer, words);

  it('a certificate in a list that is fetched is refused in both roles, and the list is fetched once', async () => {
    const words = { theirs: peerWith(lists(page('revoked.crl')), REVOKED), online: STRICT_LIST };
    for (const start of ['initiate', 'respond'] as const) {
      expect(await refused({ ...words, start })).toMatch(/'O=sectunnel, CN=right' was revoked since/);
      await ours.reset();
      await peer.reset();
    }
    expect(web.output.match(/GET \/revoked\.crl/g)).toHaveLength(1);
  });

  it('a peer that is not in the list, which is served over IPv6, is accepted', async () => {
    const url = page('good.crl', `[${RIGHT[6].outer}]`);
    await establish({ theirs: peerWith(lists(url)), online: STRICT_LIST });
    expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
  });

  it("a peer that OpenSSL's responder calls good is accepted, one that it calls revoked is not", async () => {
    await establish({ theirs: peerWith(responders(RESPONDER)), online: STRICT_OCSP, start: 'initiate' });
    await ours.reset();
    await peer.reset();
    expect(await refused({ theirs: peerWith(responders(RESPONDER), REVOKED), online: STRICT_OCSP })).toMatch(
      /was revoked since 2026-01-01: its key was stolen/,
    );
  });

  it.each<[string, Made, RegExp]>([
    ['has nothing', peerWith(lists(page('nothing.crl'))), /nothing\.crl: it answers with 404; 200 is required/],
    ['is not there', peerWith(lists(NOBODY)), /ECONNREFUSED 192\.0\.2\.2:9/],
    ['does not know it', peerWith(responders(RESPONDER), Uint8Array.of(0x47, 0x13)), /does not know the certificate/],
    ['would be ourselves', peerWith(responders('http://127.0.0.1:9/')), /not asked: an address of this machine itself/],
  ])('strict refuses one of which who is asked %s; ifpresent takes it', async (_, theirs, why) => {
    const online = STRICT_LIST + STRICT_OCSP;
    expect(await refused({ theirs, online, start: 'initiate' })).toMatch(why);
    await ours.reset();
    await peer.reset();
    await establish({ theirs, online: online.replaceAll('strict', 'ifpresent'), start: 'initiate' });
  });
});
