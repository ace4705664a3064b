/** Another document for a tunnel that runs: which SAs stay, which are replaced, and what the answer says of it. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { messageOf } from '../../src/base/text.ts';
import type { Renewal } from '../../src/plan/renewal.ts';
import { eventually, oppositeDocument, type TestDaemon, tunnelDocument } from '../support/daemon.ts';
import { daemonPair, ikeSas, sectunnel, statusOf } from '../support/daemon-pair.ts';

interface Words {
  readonly ike?: string;
  readonly esp?: string;
  readonly extra?: string;
  readonly remoteId?: string;
  /** The third number of the peer's second network; none when left out. */
  readonly dmz?: number;
}

const DMZ = 7;

function second(local: string, remote: string): string {
  return (
    `<sp name='dmz'><src_range address='${local}' prefixlen='24'/><dst_range address='${remote}' prefixlen='24'/>` +
    "<upperspec protocol='any'/><policy direction='both' action='ipsec'>" +
    "<rule protocol='esp' mode='tunnel' level='require'/></policy></sp></sectunnel>"
  );
}

function left({ dmz, ...words }: Words = {}): string {
  const xml = tunnelDocument({ start: 'initiate', ...words });
  return dmz === undefined ? xml : xml.replace('</sectunnel>', second('10.1.0.0', `10.${dmz}.0.0`));
}

function right({ dmz, remoteId: _, ...words }: Words = {}): string {
  const xml = oppositeDocument(words);
  return dmz === undefined ? xml : xml.replace('</sectunnel>', second(`10.${dmz}.0.0`, '10.1.0.0'));
}

interface Sas {
  readonly ike: string;
  readonly lan: string | undefined;
  readonly dmz: string | undefined;
}

/** The SPIs of the one IKE SA, and of the SAs of its children. */
async function spis(daemon: TestDaemon): Promise<Sas> {
  const sas = await ikeSas(daemon);
  const { spiInitiator, spiResponder, children } = sas[0]!;
  const of = (name: string): string | undefined => {
    const sa = children.find((child) => child.name === name);
    return sa && `${sa.spiIn} ${sa.spiOut}`;
  };
  return { ike: `${spiInitiator} ${spiResponder}`, lan: of('lan'), dmz: of('dmz') };
}

/** Each child has one SA, and there is one IKE SA. */
const settled = (daemon: TestDaemon): Promise<void> =>
  eventually('the tunnel to settle', async () => {
    const { state, ikeSas: sas } = await statusOf(daemon);
    const children = sas.flatMap((sa) => sa.children).map(({ name }) => name);
    return state === 'up' && sas.length === 1 && new Set(children).size === children.length;
  });

/** The peer has its new document, and this end knows what that has done to their SAs. */
const peerChanged = ({ left: own }: { readonly left: TestDaemon }, dmz: number | undefined): Promise<void> =>
  dmz === DMZ ? settled(own) : eventually('the SA to go', async () => (await spis(own)).dmz === undefined);

const RENEWAL = { device: 'kept', ikeSas: 'kept' } as const;
const fates = (lan: string, dmz: string) => [
  { name: 'lan', fate: lan },
  { name: 'dmz', fate: dmz },
];

it.each<[what: string, words: Words, renewal: object, stay: readonly (keyof Sas)[]]>([
  [
    'a title',
    { dmz: DMZ, extra: '<title>x</title>' },
    { ...RENEWAL, children: fates('kept', 'kept') },
    ['ike', 'lan', 'dmz'],
  ],
  [
    'lifetimes and DPD',
    { dmz: DMZ, ike: "<lifetime soft='7000' hard='9000'/><dpd interval='9'/>" },
    { ...RENEWAL, children: fates('kept', 'kept') },
    ['ike', 'lan', 'dmz'],
  ],
  ['the selectors of a child', { dmz: 8 }, { ...RENEWAL, children: fates('kept', 'anew') }, ['ike', 'lan']],
  ['a child that is gone', {}, { ...RENEWAL, children: fates('kept', 'removed') }, ['ike', 'lan']],
  [
    'the ESP proposal',
    { dmz: DMZ, esp: "<proposal encryption='aes128gcm16'/>" },
    { ...RENEWAL, children: fates('rekeyed', 'rekeyed') },
    ['ike'],
  ],
  [
    'the IKE proposal',
    { dmz: DMZ, ike: "<proposal encryption='aes128gcm16' prf='sha256' dh='ecp256'/>" },
    { ...RENEWAL, ikeSas: 'rekeyed', children: fates('kept', 'kept') },
    ['lan', 'dmz'],
  ],
  [
    'encapsulation',
    { dmz: DMZ, ike: "<nat traversal='force'/>" },
    { ...RENEWAL, ikeSas: 'anew', children: fates('anew', 'anew') },
    [],
  ],
  [
    'the MTU of the device',
    { dmz: DMZ, extra: "<device mtu='1300'/>" },
    { device: 'anew', ikeSas: 'anew', children: fates('anew', 'anew') },
    [],
  ],
])('of another document in which %s differs', async (_, words, renewal, stay) => {
  const pair = await daemonPair({ left: left({ dmz: DMZ }), right: right({ dmz: DMZ }) });
  const before = await spis(pair.left);
  const devices = [...pair.left.devices.values()];
  await pair.right.client.call('update', { xml: right({ ...words, extra: '' }), live: true });
  await peerChanged(pair, words.dmz);
  const between = await spis(pair.left);
  const answer = await pair.left.client.call('update', { xml: left(words), live: true });
  expect(answer).toMatchObject({ unchanged: false, warnings: [], renewal });
  await settled(pair.left);
  const after = await spis(pair.left);
  for (const key of ['ike', 'lan', 'dmz'] as const) {
    if (stay.includes(key)) expect({ [key]: after[key] }).toEqual({ [key]: between[key] });
    else expect({ [key]: after[key] }).not.toEqual({ [key]: before[key] });
  }
  expect(after.dmz === undefined).toBe(words.dmz === undefined);
  const isKept = (renewal as Renewal).device === 'kept';
  expect(devices.every((device) => [...pair.left.devices.values()].includes(device))).toBe(isKept);
  expect((await pair.left.client.call('dumpxml', { name: 'net' })).xml).toContain(
    words.dmz === undefined ? "<sp name='lan'" : `10.${words.dmz}.0.0`,
  );
});

it('says which SA was not replaced as the peer refuses it, and leaves it up', async () => {
  const pair = await daemonPair({ left: left(), right: right() });
  const before = await spis(pair.left);
  const xml = left({ esp: "<proposal encryption='aes256ctr' integrity='sha384'/>" });
  const { warnings } = await pair.left.client.call('update', { xml, live: true });
  expect(warnings).toEqual([
    expect.stringMatching(/^CHILD SA lan was not replaced, and goes on with its former parameters: NO_PROPOSAL_CHOSEN/),
  ]);
  expect(await spis(pair.left)).toEqual(before);
  expect((await pair.left.client.call('dumpxml', { name: 'net' })).xml).toContain("encryption='aes256ctr'");
});

it('leaves the former document in effect where its rules are refused, and tells of no rules that stay the same', async () => {
  const pair = await daemonPair({ left: left({ dmz: DMZ }), right: right({ dmz: DMZ }) });
  const { client } = pair.left;
  const before = [await spis(pair.left), await client.call('dumpxml', { name: 'net' })];
  pair.left.refuseSteering = true;
  pair.left.told.length = 0;
  expect(await client.call('update', { xml: left({ dmz: 8 }), live: true }).then(String, messageOf)).toBe(
    'no rules today',
  );
  expect([await spis(pair.left), await client.call('dumpxml', { name: 'net' })]).toEqual(before);
  expect(pair.left.told).toEqual(['steer net', 'steer net']);
  // Packets of the child that was to go still pass the policy.
  const { drops } = await statusOf(pair.left);
  expect(drops).toEqual({});
  await client.call('update', { xml: left({ dmz: DMZ, ike: "<dpd interval='9'/>" }), live: true });
  expect(pair.left.told).toHaveLength(2);
  expect((await client.call('dumpxml', { name: 'net' })).xml).toContain("<dpd interval='9'");
});

it('is what a dry run of a reload has said, for people and for programs', async () => {
  const pair = await daemonPair({ left: left({ dmz: DMZ }), right: right({ dmz: DMZ }) });
  const { client, configDir } = pair.left;
  const file = join(configDir, 'net.xml');
  const write = (words: Words): void => writeFileSync(file, left(words), { mode: 0o600 });
  await client.call('define', { xml: left({ dmz: DMZ }) });
  write({ dmz: 8, esp: "<proposal encryption='aes128gcm16'/>" });
  await pair.right.client.call('update', { xml: right({ dmz: 8, esp: "<proposal encryption='aes128gcm16'/>" }) });
  await peerChanged(pair, 8);
  const { changed } = await client.call('reload', { plan: true });
  const told = 'IKE SA kept; CHILD SAs rekeyed: lan; negotiated anew: dmz';
  expect((await sectunnel(pair.left, 'reload', '--dry-run'))[1]).toContain(
    `'sectunnel update --live' instead: ${told}\n`,
  );
  const [code, out] = await sectunnel(pair.left, 'update', '--live', file);
  expect([code, out]).toEqual([0, `Tunnel net updated from ${file}\n${told}\n`]);
  write({ dmz: DMZ, extra: "<device mtu='1300'/>" });
  const { changed: again } = await client.call('reload', { plan: true });
  expect([changed[0]!.renewal, again[0]!.renewal]).toEqual([
    { ...RENEWAL, children: fates('rekeyed', 'anew') },
    { device: 'anew', ikeSas: 'anew', children: fates('anew', 'anew') },
  ]);
  const shown = await sectunnel(pair.left, 'update', file, '--live');
  expect(shown[1]).toContain('stopped and started: the device and all SAs made anew');
});
