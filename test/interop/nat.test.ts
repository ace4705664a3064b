/** sectunnel and strongSwan with a NAT between them, and none: what is detected, and what passes on the line. */
import { expect, it } from 'vitest';
import { Capture } from '../support/lab/capture.ts';
import type { Lab } from '../support/lab/lab.ts';
import { cable, masquerade, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { ping, startEcho } from '../support/lab/traffic.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  ALL_CARRIED,
  addInner,
  agreed,
  ECHO_PORT,
  exchange,
  LINE,
  nothingLost,
  type Rig,
  underTraffic,
} from './rig.ts';
import { LEFT, PSK, RIGHT } from './suites.ts';

const NAME = 'nat';
const NEEDS = ['namespaces', 'strongswan', 'nftables', 'tcpdump', 'build'] as const;
const HIDDEN = '192.168.7.2';
const ROUTER_INSIDE = '192.168.7.1';
const ROUTER_OUTSIDE = '198.51.100.1';
const ROUTER_MOVED = '198.51.100.9';
const OPEN = '198.51.100.2';

const SUITES = {
  ike: { encryption: 'aes256gcm16', prf: 'sha256', dh: 'x25519' },
  esp: { encryption: 'aes256gcm16', dh: 'x25519', esn: 'no' },
  forceEncapsulation: false,
} as const;

/** The hidden end knows the open one's address; the open end takes whoever has the identity. */
function natTunnel(hidden: 'left' | 'right', view: 'left' | 'right'): Tunnel {
  const address = (side: 'left' | 'right'): string => {
    if (side !== hidden) return OPEN;
    return view === hidden ? HIDDEN : 'any';
  };
  return {
    name: NAME,
    left: {
      address: address('left'),
      id: { type: 'email', value: 'left@example.org' },
      inner: [LEFT[4].network],
      psk: PSK,
    },
    right: {
      address: address('right'),
      id: { type: 'keyid', value: 'right-key' },
      inner: [RIGHT[4].network],
      psk: PSK,
    },
    ...SUITES,
    // The hidden end is heard of regularly: strongSwan's userspace ESP follows IKE alone.
    dpd: view === hidden ? 2 : 0,
  };
}

for (const hidden of ['left', 'right'] as const) {
  const us = hidden === 'left';
  describeInterop(`a NAT that hides ${us ? 'us from strongSwan' : 'strongSwan from us'}`, NEEDS, () => {
    let lab: Lab;
    let rig: Rig;
    let router: Namespace;
    let ours: Ours;

    async function build(made: Lab): Promise<void> {
      lab = made;
      const left = await lab.namespace('left');
      const right = await lab.namespace('right');
      router = await lab.namespace('nat');
      const [inside, outside] = us ? [left, right] : [right, left];
      await cable(
        { namespace: inside, device: LINE, addresses: [`${HIDDEN}/24`] },
        { namespace: router, device: 'inside', addresses: [`${ROUTER_INSIDE}/24`] },
      );
      await cable(
        { namespace: router, device: 'outside', addresses: [`${ROUTER_OUTSIDE}/24`] },
        { namespace: outside, device: LINE, addresses: [`${OPEN}/24`] },
      );
      await inside.ip([`route add default via ${ROUTER_INSIDE}`]);
      await masquerade(router, 'outside');
      await addInner(left, LEFT);
      await addInner(right, RIGHT);
      for (const namespace of [left, right]) await startEcho(lab, namespace, '::', ECHO_PORT);
      const peer = await StrongSwan.start(lab, right);
      rig = { kind: 'userspace', left, right, peer };
      ours = await Ours.start(lab, left);
    }

    useLab(build);

    it('is detected, and crossed in UDP alone', async () => {
      const line = await Capture.start(lab, router, 'outside');
      await rig.peer.load(natTunnel(hidden, 'right'), 'right');
      await ours.load(natTunnel(hidden, 'left'), 'left', { start: us ? 'initiate' : 'respond' });
      if (!us) await rig.peer.initiate(NAME);
      await agreed(ours, rig.peer, NAME);
      const { ike, child } = await ours.single(NAME);
      // strongSwan's userspace ESP needs UDP and pretends a NAT on its own side, always.
      expect(ike.nat).toBe(us ? 'both' : 'remote');
      expect(ike.remote.startsWith(us ? `${OPEN}:` : `${ROUTER_OUTSIDE}:`)).toBe(true);
      expect(child.encapsulated).toBe(true);
      expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      const result = await underTraffic(rig, 4, () => rig.peer.rekeyChild(NAME));
      await nothingLost(result, ours, NAME);
      await line.stop();
      expect((await line.packets('udp')).length).toBeGreaterThan(result.sent);
      expect(await line.packets('ip and not udp')).toEqual([]);
      expect(await line.packets('net 10.0.0.0/8')).toEqual([]);
    });

    it('gives the hidden side another address, and the tunnel follows its authenticated packets', async () => {
      // The router's mappings go with its address.
      await router.ip([`addr del ${ROUTER_OUTSIDE}/24 dev outside`, `addr add ${ROUTER_MOVED}/24 dev outside`]);
      const inner = { source: LEFT[4].inner, destination: RIGHT[4].inner, count: 1 };
      await waitFor(
        'an answer over the new path',
        async () => (await ping(rig.left, inner)) === 1 || undefined,
        30_000,
      );
      expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
    }, 120_000);
  });
}
