/**
 * ESP straight over IP, and transport mode, with strongSwan and its kernel's ESP; and that ESP with the keys of an IKE SA
 * that certificates authenticated.
 */
import { generateKeyPairSync } from 'node:crypto';
import { expect, it } from 'vitest';
import { ecKey } from '../pki/make.ts';
import { Capture } from '../support/lab/capture.ts';
import type { Lab } from '../support/lab/lab.ts';
import { Ours } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { ping } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { NAME as CERTIFIED, certificate, establishCertified } from './certified.ts';
import { CLEAR, hostTunnel, NAME, onlyRaw, rawTunnel, reversePathFilter, talk, whole } from './direct.ts';
import {
  ALL_CARRIED,
  agreed,
  buildRig,
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
import { LEFT, RIGHT } from './suites.ts';

describeInterop('with strongSwan and the ESP of its kernel:', [...RIG_NEEDS.kernel, 'tcpdump', 'build'], () => {
  let lab: Lab;
  let rig: Rig;
  let ours: Ours;

  useLab(async (made) => {
    lab = made;
    rig = await buildRig(lab, 'kernel');
    ours = await Ours.start(lab, rig.left);
  }, RIG_TIMEOUT);

  it.each([
    ['initiator', 4, 4, 'needed'],
    ['initiator', 6, 6, 'never'],
    ['responder', 6, 4, 'needed'],
  ] as const)(
    'ESP straight over IP, as %s over IPv%d, IPv%d inside, encapsulated when %s',
    async (role, outer, inner, encapsulation) => {
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
    },
  );

  it.each([
    ['initiator', 4, 'raw'],
    ['responder', 6, 'udp'],
  ] as const)(
    'transport mode as %s over IPv%d, ESP in %s, for UDP alone: rekeyed without loss, the same count on both ends',
    async (role, outer, how) => {
      await ours.reset();
      await rig.peer.reset();
      // Strict: what comes in must come from where its answers would go. Fragments of UDP have no ports to tell that by.
      await rig.left.exec(reversePathFilter(how === 'raw' ? 1 : 0));
      const line = await Capture.start(lab, rig.left, LINE);
      const tunnel = hostTunnel(outer, 'udp', how);
      await rig.peer.load(tunnel, 'right');
      await ours.load(tunnel, 'left', { start: role === 'initiator' ? 'trap' : 'respond' });
      if (role === 'responder') await rig.peer.initiate(NAME);
      // The first waits for its SA.
      expect(await talk(rig.left, outer, 20)).toEqual(whole(20));

      const [mine, its] = [await ours.single(NAME), await rig.peer.single()];
      expect(mine.child).toMatchObject({
        mode: 'transport',
        encapsulated: how === 'udp',
        packetsOut: 20,
        packetsIn: 20,
      });
      expect(figures(its.child)).toEqual(mirrored(mine.child));
      // What is not to be protected goes its normal way: ICMP, and TCP, by which the peer is driven.
      expect(await ping(rig.left, { source: LEFT[outer].outer, destination: RIGHT[outer].outer })).toBe(3);

      const rekeyed = async (): Promise<void> => {
        await rig.peer.rekeyChild(NAME);
        await agreed(ours, rig.peer, NAME, { child: mine.child.spiIn });
      };
      const [during] = await Promise.all([talk(rig.left, outer, 60, { pause: 8 }), rekeyed()]);
      expect(during).toEqual(whole(60));
      // Fragments outside: what is inside is whole.
      expect(await talk(rig.left, outer, 3, { size: 5000 })).toEqual(whole(3));
      await line.stop();
      expect(await line.packets(CLEAR)).toEqual([]);
      expect((await line.packets(outer === 4 ? 'icmp' : 'icmp6[0] == 128')).length).toBeGreaterThan(0);
    },
  );

  it.each([
    ['P-256', () => ecKey(), 'initiate'],
    ['RSA 2048', () => generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey, 'respond'],
  ] as const)(
    'certificates on both sides, %s: packets, the same count on both ends, rekeyed without loss',
    async (_, key, start) => {
      await ours.reset();
      await rig.peer.reset();
      const [mine, its] = [certificate('left', { key: key() }), certificate('right', { key: key() })];
      await establishCertified(ours, rig.peer, { ours: mine, theirs: its, start });

      expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      const [left, right] = [await ours.single(CERTIFIED), await rig.peer.single()];
      expect(left.ike.initiator).toBe(start === 'initiate');
      expect(left.child).toMatchObject({ packetsOut: EXCHANGE_PACKETS, packetsIn: EXCHANGE_PACKETS });
      expect(figures(right.child)).toEqual(mirrored(left.child));
      const rekeyed = async (): Promise<void> => {
        await rig.peer.rekeyChild(CERTIFIED);
        await agreed(ours, rig.peer, CERTIFIED, { child: left.child.spiIn });
      };
      await nothingLost(await underTraffic(rig, 4, rekeyed, 60), ours, CERTIFIED);
      expect((await ours.tunnel(CERTIFIED)).drops).toEqual({});
    },
  );
});
