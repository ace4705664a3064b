/**
 * The lab against itself: strongSwan with strongSwan in userspace, and with a kernel's ESP. Where this fails, the
 * fault is not in sectunnel.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { Capture } from '../support/lab/capture.ts';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { ping } from '../support/lab/traffic.ts';
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

const LINE = 'line';

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

describeInterop('the lab: what passes a line', ['namespaces', 'tcpdump'], () => {
  let lab: Lab;
  let left: Namespace;

  useLab(async (made) => {
    lab = made;
    left = await lab.namespace('left');
    const right = await lab.namespace('right');
    await cable(
      { namespace: left, device: LINE, addresses: ['192.0.2.1/24'] },
      { namespace: right, device: LINE, addresses: ['192.0.2.2/24'] },
    );
  });

  it('is all in a capture, however late tcpdump comes to it', async () => {
    const capture = await Capture.start(lab, left, LINE);
    process.kill(capture.pid, 'SIGSTOP');
    expect(await ping(left, { source: '192.0.2.1', destination: '192.0.2.2', count: 20 })).toBe(20);
    const stopped = capture.stop();
    await sleep(300);
    process.kill(capture.pid, 'SIGCONT');
    await stopped;
    expect(await capture.packets('icmp')).toHaveLength(40);
  });
});
