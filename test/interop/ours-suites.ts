/**
 * sectunnel with strongSwan over every suite, as initiator and as responder: traffic both ways, and what one end
 * counts as sent is what the other counts as received, to the byte.
 */
import { expect, it } from 'vitest';
import { Ours } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  ALL_CARRIED,
  buildRig,
  EXCHANGE_PACKETS,
  exchange,
  figures,
  mirrored,
  RIG_NEEDS,
  RIG_TIMEOUT,
  type Rig,
} from './rig.ts';
import { type PeerKind, SUITES, suiteName, suiteTunnel } from './suites.ts';

/** A file for each kind of peer calls it: they run at the same time. */
export function testSuites(kind: PeerKind): void {
  describeInterop(`suites, with strongSwan and ${kind} ESP`, [...RIG_NEEDS[kind], 'build'], () => {
    let rig: Rig;
    let ours: Ours;

    useLab(async (lab) => {
      rig = await buildRig(lab, kind);
      ours = await Ours.start(lab, rig.left);
    }, RIG_TIMEOUT);

    const cases = SUITES.filter((suite) => suite.peers.includes(kind)).flatMap((suite) =>
      (['initiator', 'responder'] as const).map((role) => [role, suiteName(suite), suite] as const),
    );

    it.each(cases)('as %s: %s', async (role, _name, suite) => {
      await ours.reset();
      await rig.peer.reset();
      const tunnel = suiteTunnel('suite', suite);
      await rig.peer.load(tunnel, 'right');
      await ours.load(tunnel, 'left', { start: role === 'initiator' ? 'initiate' : 'respond' });
      if (role === 'responder') await rig.peer.initiate(tunnel.name);
      await ours.up(tunnel.name);

      expect(await exchange(rig, suite.inner)).toEqual(ALL_CARRIED);

      const [mine, its] = [await ours.single(tunnel.name), await rig.peer.single()];
      expect(mine.child.packetsOut).toBe(EXCHANGE_PACKETS);
      expect(figures(its.child)).toEqual(mirrored(mine.child));
      expect(mine.ike.initiator).toBe(role === 'initiator');
      expect([mine.ike.spiInitiator, mine.ike.spiResponder]).toEqual([its.ike.initiatorSpi, its.ike.responderSpi]);
      expect(mine.child.esn).toBe(suite.esp.esn === 'yes');
      expect(its.child.suite.includes('ESN')).toBe(suite.esp.esn === 'yes');
    });
  });
}
