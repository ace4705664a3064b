/** Both ends with certificates: an authority, a certificate for each, and what has to be where for the tunnel to use them. */
import type { KeyObject } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { authority, DAY, dns, ip, type Made, make, type Recipe } from '../pki/make.ts';
import { type Ours, sectunnelDocument } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { type StrongSwan, type Swanctl, swanctlConf } from '../support/lab/strongswan.ts';
import type { LabIdentity, Side, Tunnel } from '../support/lab/tunnel.ts';
import { LEFT, RIGHT } from './suites.ts';

export const NAME = 'certified';
export const year: Pick<Recipe, 'notBefore' | 'notAfter'> = {
  notBefore: Date.now() - DAY,
  notAfter: Date.now() + 365 * DAY,
};
export const root: Made = authority('O=sectunnel, CN=Root', year);

const DN: Readonly<Record<Side, string>> = { left: 'O=sectunnel, CN=left', right: 'O=sectunnel, CN=right' };
export const dn = (side: Side): LabIdentity => ({ type: 'dn', value: DN[side] });
export const fqdn = (side: Side): LabIdentity => ({ type: 'fqdn', value: `${side}.example` });

/** The certificate of a side, with the names that it goes by. */
export function certificate(side: Side, more: Partial<Recipe> = {}): Made {
  const address = ip(side === 'left' ? 'c0000201' : 'c0000202');
  const san = [dns(`${side}.example`), address];
  return make({ subject: DN[side], issuer: root, san, keyUsage: [0x80], ...year, ...more });
}

export const certifiedTunnel = (left: LabIdentity, right: LabIdentity): Tunnel => ({
  name: NAME,
  left: { address: LEFT[4].outer, id: left, inner: [`${LEFT[4].inner}/32`], psk: 'none' },
  right: { address: RIGHT[4].outer, id: right, inner: [`${RIGHT[4].inner}/32`], psk: 'none' },
  ike: { encryption: 'aes256gcm16', prf: 'sha384', dh: 'ecp384' },
  esp: { encryption: 'aes256gcm16', esn: 'no' },
});

/** What a test has in the place of the usual. */
export interface Words {
  readonly ours?: Made;
  readonly theirs?: Made;
  readonly ids?: Tunnel;
  /** Sent along, by us and by the peer. */
  readonly ourChain?: readonly Made[];
  readonly theirChain?: readonly Made[];
  readonly crl?: { readonly der: Uint8Array; readonly policy: 'strict' | 'ifpresent' };
  readonly theirMethods?: string;
  readonly start?: 'initiate' | 'respond';
  /** More attributes of our `<x509>`, and elements in it that say what is asked over the network. */
  readonly x509?: string;
  readonly online?: string;
}

/** Gives both ends their files and the tunnel, and starts ours. */
export async function loadCertified(ours: Ours, peer: Swanctl, words: Words): Promise<void> {
  const { ids = certifiedTunnel(dn('left'), dn('right')), theirs = certificate('right') } = words;
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
  const document = sectunnelDocument(ids, 'left', { start: words.start ?? 'respond' }, 'none');
  await ours.defineDocument(
    NAME,
    document.replace(/<auth type='psk'>.*<\/auth>/, ourAuth(join(ours.folder, 'pki'), words)),
  );
  await ours.command(['start', NAME]);
}

/** Brings the tunnel up, whoever begins. */
export async function establishCertified(ours: Ours, peer: Swanctl, words: Words): Promise<void> {
  await loadCertified(ours, peer, words);
  if (words.start !== 'initiate') await peer.initiate(NAME);
  await ours.up(NAME);
}

/** Why we refused, as `status` says. */
export async function refusedCertified(ours: Ours, peer: StrongSwan, words: Words): Promise<string> {
  await loadCertified(ours, peer, words);
  if (words.start !== 'initiate') await peer.initiateInVain(NAME);
  return await waitFor('a refusal', async () => (await ours.tunnel(NAME)).lastFailure?.detail);
}

/** Our element `<auth>`, with files in a folder. */
function ourAuth(folder: string, words: Words): string {
  mkdirSync(folder, { recursive: true });
  const file = (name: string, content: string): string => {
    writeFileSync(join(folder, name), content, { mode: 0o600 });
    return join(folder, name);
  };
  const { ours: mine = certificate('left'), ourChain = [], crl } = words;
  const list = crl && `<crl file='${file('crl.pem', pem('X509 CRL', crl.der))}' policy='${crl.policy}'/>`;
  return `<auth type='x509'><x509 source='file' ${words.x509 ?? ''}><ca file='${file('ca.pem', certPem(root))}'/>
      <cert file='${file('cert.pem', certPem(mine, ...ourChain))}'/>
      <key file='${file('key.pem', keyPem(mine.key))}'/>${list ?? ''}${words.online ?? ''}</x509></auth>`;
}

const pem = (label: string, der: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n')}\n-----END ${label}-----\n`;
export const certPem = (...made: readonly Made[]): string => made.map(({ der }) => pem('CERTIFICATE', der)).join('');
export const keyPem = (key: KeyObject): string => key.export({ format: 'pem', type: 'pkcs8' }).toString();
