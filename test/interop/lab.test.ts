/**
 * The lab against itself: strongSwan with strongSwan in userspace, and with a kernel's ESP. Where this fails, the
 * fault is not in sectunnel.
 */
import { expect, it } from 'vitest';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
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
import { SUITES, suiteName, suiteTunnel } from './suites.ts';

/** Enough to know that either IP version passes inside and outside. */
const SUITES_TRIED = 3;

for (const kind of ['userspace', 'kernel'] as const) {
  describeInterop(`the lab: strongSwan with userspace ESP to strongSwan with ${kind} ESP`, RIG_NEEDS[kind], () => {
    let rig: Rig;
    let left: StrongSwan;

    useLab(async (lab) => {
      rig = await buildRig(lab, kind);
      left = await StrongSwan.start(lab, rig.left);
    }, RIG_TIMEOUT);

    const suites = SUITES.filter((suite) => suite.peers.includes('userspace')).slice(0, SUITES_TRIED);
    it.each(suites.map((suite) => [suiteName(suite), suite] as const))('%s', async (_name, suite) => {
      const tunnel = suiteTunnel('selftest', suite);
      await left.load(tunnel, 'left');
      await rig.peer.load(tunnel, 'right');
      await left.initiate(tunnel.name);
      expect(await exchange(rig, suite.inner)).toEqual(ALL_CARRIED);
      const [mine, its] = [(await left.single()).child, (await rig.peer.single()).child];
      expect(mine.packetsOut).toBe(EXCHANGE_PACKETS);
      expect(figures(its)).toEqual(mirrored(mine));
      await left.reset();
      await rig.peer.reset();
    });
  });
}
