/** ESP straight over IP, as protocol 50, with strongSwan and its kernel's ESP, and between two of ours. */
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { Capture } from '../support/lab/capture.ts';
import { showLogsOnFailure } from '../support/lab/failure.ts';
import { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { burst, ping, startEcho } from '../support/lab/traffic.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import {
  ALL_CARRIED,
  addInner,
  agreed,
  buildRig,
  ECHO_PORT,
  EXCHANGE_PACKETS,
  exchange,
  figures,
  LINE,
  mirrored,
  nothingLost,
  RIG_NEEDS,
  RIG_TIMEOUT,
  type Rig,
  underTraffic,
} from './rig.ts';
import { LEFT, PSK, RIGHT } from './suites.ts';

const NAME = 'raw';

function rawTunnel(outer: 4 | 6, inner: 4 | 6, encapsulation: 'needed' | 'never'): Tunnel {
  return {
    name: NAME,
    left: {
      address: LEFT[outer].outer,
      id: { type: 'fqdn', value: 'left.example' },
      inner: [LEFT[inner].network],
      psk: PSK,
    },
    right: {
      address: RIGHT[outer].outer,
      id: { type: 'fqdn', value: 'right.example' },
      inner: [RIGHT[inner].network],
      psk: PSK,
    },
    ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
    esp: { encryption: 'aes128gcm16', esn: 'yes' },
    encapsulation,
  };
}

/** What passed on the line was IKE, by its marker where it is not on port 500, and ESP as protocol 50. */
async function onlyRaw(line: Capture, outer: 4 | 6, least: number): Promise<void> {
  await line.stop();
  const [esp, marker] = outer === 4 ? ['ip proto 50', 'udp[8:4]'] : ['ip6 proto 50', 'ip6[48:4]'];
  expect((await line.packets(esp)).length).toBeGreaterThanOrEqual(least);
  const strange = `udp and not port 500 and ${marker} != 0 and host ${LEFT[outer].outer}`;
  expect(await line.packets(strange)).toEqual([]);
}

describeInterop('ESP straight over IP with strongSwan', [...RIG_NEEDS.kernel, 'tcpdump', 'build'], () => {
  let lab: Lab;
  let rig: Rig;
  let ours: Ours;

  beforeAll(async () => {
    lab = new Lab();
    rig = await buildRig(lab, 'kernel');
    ours = await Ours.start(lab, rig.left);
  }, RIG_TIMEOUT);
  afterAll(() => lab.dispose(), 30_000);
  beforeEach(() => showLogsOnFailure(lab));

  it.each([
    ['initiator', 4, 4, 'needed'],
    ['responder', 4, 6, 'never'],
    ['initiator', 6, 6, 'never'],
    ['responder', 6, 4, 'needed'],
  ] as const)('as %s over IPv%d, IPv%d inside, encapsulated when %s', async (role, outer, inner, encapsulation) => {
    await ours.reset();
    await rig.peer.reset();
    const line = await Capture.start(lab, rig.left, LINE);
    const tunnel = rawTunnel(outer, inner, encapsulation);
    await rig.peer.load(tunnel, 'right');
    await ours.load(tunnel, 'left', { start: role === 'initiator' ? 'initiate' : 'respond' });
    if (role === 'responder') await rig.peer.initiate(NAME);
    await ours.up(NAME);

    expect(await exchange(rig, inner)).toEqual(ALL_CARRIED);
    const [mine, its] = [await ours.single(NAME), await rig.peer.single()];
    expect(mine.child).toMatchObject({ encapsulated: false, packetsOut: EXCHANGE_PACKETS });
    expect(mine.ike).toMatchObject({ nat: 'none', initiator: role === 'initiator' });
    // strongSwan leaves port 500 when it may, whatever was found.
    const moves = role === 'responder' && encapsulation === 'needed';
    expect(mine.ike.remote.split(':').at(-1)).toBe(moves ? '4500' : '500');
    expect(its.child.encapsulated).toBe(false);
    expect(figures(its.child)).toEqual(mirrored(mine.child));

    const former = { ike: mine.ike.spiInitiator, child: mine.child.spiIn };
    const rekeyed = async (): Promise<void> => {
      await rig.peer.rekeyChild(NAME);
      await agreed(ours, rig.peer, NAME, { child: former.child });
    };
    await nothingLost(await underTraffic(rig, inner, rekeyed, 60), ours, NAME);
    await onlyRaw(line, outer, 2 * EXCHANGE_PACKETS);
  });
});

describeInterop('ESP straight over IP between two of ours', ['namespaces', 'tcpdump', 'build'], () => {
  let lab: Lab;
  let left: Namespace;
  let right: Namespace;
  let ours: Ours;
  let theirs: Ours;

  beforeAll(async () => {
    lab = new Lab();
    left = await lab.namespace('left');
    right = await lab.namespace('right');
    await cable(
      { namespace: left, device: LINE, addresses: [`${LEFT[4].outer}/24`] },
      { namespace: right, device: LINE, addresses: [`${RIGHT[4].outer}/24`] },
    );
    await addInner(left, LEFT);
    await addInner(right, RIGHT);
    await startEcho(lab, right, '::', ECHO_PORT);
    [ours, theirs] = [await Ours.start(lab, left), await Ours.start(lab, right)];
  }, 60_000);
  afterAll(() => lab.dispose(), 30_000);
  beforeEach(() => showLogsOnFailure(lab));

  it('carries everything, also what needs fragments, and counts the same', async () => {
    const line = await Capture.start(lab, left, LINE);
    await theirs.load(rawTunnel(4, 4, 'needed'), 'right', { start: 'respond' });
    await ours.load(rawTunnel(4, 4, 'never'), 'left', { start: 'initiate' });
    await ours.up(NAME);
    const inner = { source: LEFT[4].inner, destination: RIGHT[4].inner };
    expect(await ping(left, { ...inner, count: 3, size: 4000 })).toBe(3);
    expect(await burst(left, { ...inner, port: ECHO_PORT, count: 50, pause: 0 })).toMatchObject({ received: 50 });
    const [mine, its] = [await ours.single(NAME), await theirs.single(NAME)];
    expect(figures(its.child)).toEqual(mirrored(mine.child));
    // Eight bytes more than where ESP might go in UDP.
    expect((await ours.tunnel(NAME)).device?.mtu).toBe(1444);
    expect((await theirs.tunnel(NAME)).device?.mtu).toBe(1436);
    expect((await ours.status()).io.udp).toContain('esp');
    await onlyRaw(line, 4, 100);
  });
});
