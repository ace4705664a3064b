/**
 * Pre-shared keys in a real libvirtd, with strongSwan as the peer: every kind of secret, and a key that is changed while
 * the tunnel runs.
 */
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { showLogsOnFailure } from '../support/lab/failure.ts';
import { Lab } from '../support/lab/lab.ts';
import { INSTALLED_LIBVIRT, type LibvirtRelease, NEWER_LIBVIRT } from '../support/lab/libvirt-release.ts';
import { Libvirtd } from '../support/lab/libvirtd.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours, sectunnelDocument } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { ping } from '../support/lab/traffic.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { LINE } from './rig.ts';

const NAME = 'net';
const UUID = '11111111-2222-3333-4444-5555555555';
const FIRST = 'the first key of the tunnel';
const SECOND = 'another key, after a change';

const tunnelWith = (psk: string): Tunnel => ({
  name: NAME,
  left: { address: '192.0.2.1', id: { type: 'fqdn', value: 'left.example' }, inner: ['10.1.0.0/24'], psk },
  right: { address: '192.0.2.2', id: { type: 'fqdn', value: 'right.example' }, inner: ['10.2.0.0/24'], psk },
  ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
  esp: { encryption: 'aes128gcm16', esn: 'no' },
});

function documentOf(secret: string, start: 'initiate' | 'respond' = 'initiate'): string {
  const xml = sectunnelDocument(tunnelWith(FIRST), 'left', { start }, 'SECRET');
  return xml.replace("<secret uuid='SECRET'/>", `<secret ${secret}/>`);
}

const NEEDS = ['namespaces', 'strongswan', 'libvirt', 'build'] as const;

describeInterop('secrets in libvirt', [...NEEDS], () => secrets(INSTALLED_LIBVIRT));
describeInterop('secrets in a newer libvirt', [...NEEDS, 'newer-libvirt'], () => secrets(NEWER_LIBVIRT));

function secrets(release: LibvirtRelease): void {
  let lab: Lab;
  let left: Namespace;
  let peer: StrongSwan;
  let libvirtd: Libvirtd;
  let ours: Ours;

  beforeAll(async () => {
    lab = new Lab();
    left = await lab.namespace('left');
    const right = await lab.namespace('right');
    await cable(
      { namespace: left, device: LINE, addresses: ['192.0.2.1/24'] },
      { namespace: right, device: LINE, addresses: ['192.0.2.2/24'] },
    );
    await left.ip(['addr add 10.1.0.1/24 dev lo']);
    await right.ip(['addr add 10.2.0.1/24 dev lo']);
    peer = await StrongSwan.start(lab, right);
    libvirtd = await Libvirtd.start(lab, left, { release });
    ours = await Ours.start(lab, left, { arguments: ['--libvirt-socket', libvirtd.socket] });
  }, 120_000);

  afterAll(() => lab.dispose(), 60_000);

  beforeEach(async () => {
    showLogsOnFailure(lab);
    await ours.reset();
    await peer.reset();
  });

  const pingThrough = (): Promise<number> => ping(left, { source: '10.1.0.1', destination: '10.2.0.1', count: 2 });

  it.each([
    ['by UUID', `uuid='${UUID}01'`, '01', '', "private='no'"],
    ['by usage', "usage='sectunnel:net'", '02', "<usage type='tls'><name>sectunnel:net</name></usage>", "private='no'"],
    ['that libvirt keeps in memory', `uuid='${UUID}03'`, '03', '', "private='no' ephemeral='yes'"],
  ])('authenticate a tunnel %s', async (_how, reference, id, content, attributes) => {
    await libvirtd.secret(`${UUID}${id}`, FIRST, content, attributes);
    await peer.load(tunnelWith(FIRST), 'right');
    expect(await ours.defineDocument(NAME, documentOf(reference))).not.toContain('warning');
    await ours.command(['start', NAME]);
    expect((await ours.up(NAME)).secret).toMatchObject({ source: 'libvirt' });
    expect(await pingThrough()).toBe(2);
    const listed = (await ours.command(['secret-list'])).stdout;
    expect(listed).toMatch(new RegExp(`${UUID}${id} +libvirt`));
    expect(listed).not.toContain(FIRST);
  });

  it.each([
    ['undefined', '10', undefined, /there is no secret .*10, neither in sectunnel nor in libvirt/],
    ['private', '11', ["private='yes'", FIRST], /secret .*11 of libvirt is private.*define it with private='no'/],
    [
      'without a value',
      '12',
      ["private='no'", undefined],
      /secret .*12 of libvirt has no value.*virsh secret-set-value/,
    ],
  ] as const)('that are %s are warned of and refused', async (_what, id, made, message) => {
    if (made !== undefined) await libvirtd.secret(`${UUID}${id}`, made[1], '', made[0]);
    const name = `refused${id}`;
    const xml = documentOf(`uuid='${UUID}${id}'`).replace(`<name>${NAME}<`, `<name>${name}<`);
    expect(await ours.defineDocument(name, xml)).toMatch(message);
    const { code, stderr } = await ours.command(['start', name], { check: false });
    expect([code, stderr]).toEqual([1, expect.stringMatching(message)]);
  });

  it('that may not be read are refused with what to do', async () => {
    const only = await Ours.start(lab, await lab.namespace('reader'), {
      arguments: ['--libvirt-socket', `${libvirtd.socket}-ro`],
    });
    await libvirtd.secret(`${UUID}20`, FIRST);
    const warning = await only.defineDocument(NAME, documentOf(`uuid='${UUID}20'`));
    expect(warning).toMatch(/libvirt does not let this daemon read.*Run sectunneld as root/);
  });

  it('that are changed are used from the next authentication on, without a restart', async () => {
    const uuid = `${UUID}30`;
    await libvirtd.secret(uuid, FIRST);
    await peer.load(tunnelWith(FIRST), 'right');
    await ours.defineDocument(NAME, documentOf(`uuid='${uuid}'`));
    await ours.command(['start', NAME]);
    await ours.up(NAME);
    const { ike } = await ours.single(NAME);

    // Both ends get a new key; what is up stays up.
    await libvirtd.setSecret(uuid, SECOND);
    await waitFor('word of the change', () => (ours.log().includes(`secret ${uuid} has changed`) ? true : undefined));
    await peer.load(tunnelWith(SECOND), 'right');
    expect(await pingThrough()).toBe(2);
    expect((await ours.single(NAME)).ike.spiInitiator).toBe(ike.spiInitiator);

    // The peer ends the IKE SA, so that we authenticate again.
    await peer.terminateIke(NAME);
    await waitFor('another IKE SA', async () => {
      const { ikeSas, state } = await ours.tunnel(NAME);
      return state === 'up' && ikeSas.every(({ spiInitiator }) => spiInitiator !== ike.spiInitiator) ? true : undefined;
    });
    expect(await pingThrough()).toBe(2);
    expect(ours.log()).not.toContain(SECOND);
  });

  it('that are mended after a refusal are used at once', async () => {
    const uuid = `${UUID}31`;
    await libvirtd.secret(uuid, 'a key that nobody else has');
    await peer.load(tunnelWith(SECOND), 'right');
    await ours.defineDocument(NAME, documentOf(`uuid='${uuid}'`));
    await ours.command(['start', NAME]);
    // Two refusals: the next attempt is some time away.
    await waitFor('the second refusal', async () => {
      const { lastFailure, retryIn = 0 } = await ours.tunnel(NAME);
      return lastFailure?.reason === 'AUTHENTICATION_FAILED' && retryIn > 1.5 ? true : undefined;
    });
    await libvirtd.setSecret(uuid, SECOND);
    await ours.up(NAME);
  });

  it("are read again when libvirtd was restarted, and from the daemon's folder meanwhile", async () => {
    const uuid = `${UUID}40`;
    await libvirtd.secret(uuid, FIRST);
    await peer.load(tunnelWith(FIRST), 'right');
    await ours.defineDocument(NAME, documentOf(`uuid='${uuid}'`));
    await libvirtd.stop('SIGKILL');
    const { code, stderr } = await ours.command(['start', NAME], { check: false });
    expect([code, stderr]).toEqual([1, expect.stringMatching(/no secret .*40 in sectunnel.*libvirt cannot be asked/)]);
    await libvirtd.run();
    await ours.command(['start', NAME]);
    await ours.up(NAME);

    await ours.command(['destroy', NAME]);
    await libvirtd.stop();
    await ours.secret(FIRST, uuid);
    await ours.command(['start', NAME]);
    expect((await ours.up(NAME)).secret).toMatchObject({ source: 'sectunnel' });
    await libvirtd.run();
  });
}
