/** A peer of sectunnel that dies without a word, and sectunnel that does: nobody is left with half a tunnel. */
import { beforeEach, expect, it } from 'vitest';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { ALL_CARRIED, agreed, buildRig, exchange, RIG_NEEDS, RIG_TIMEOUT, type Rig } from './rig.ts';
import { SUITES, suiteTunnel } from './suites.ts';

const NAME = 'dead';
const TUNNEL = suiteTunnel(NAME, SUITES[0]!);

describeInterop('a peer that dies', [...RIG_NEEDS.userspace, 'build'], () => {
  let rig: Rig;
  let ours: Ours;
  let peer: StrongSwan;

  useLab(async (lab) => {
    rig = await buildRig(lab, 'userspace');
    if (!(rig.peer instanceof StrongSwan)) throw new Error('bug: the userspace peer is not in a namespace');
    peer = rig.peer;
    ours = await Ours.start(lab, rig.left);
  }, RIG_TIMEOUT);

  beforeEach(async () => {
    await ours.reset();
    await peer.restart();
  });

  it('is noticed by liveness checks, and the tunnel returns when it does', async () => {
    const tunnel = { ...TUNNEL, dpd: 1, dpdAction: 'restart' } as const;
    await peer.load(tunnel, 'right');
    await ours.load(tunnel, 'left', { start: 'initiate' });
    const former = await agreed(ours, peer, NAME);
    await peer.kill();
    await waitFor(
      'us to give the SA up',
      async () => ((await ours.tunnel(NAME)).state !== 'up' ? true : undefined),
      120_000,
      500,
    );
    await peer.restart();
    await peer.load(tunnel, 'right');
    await waitFor(
      'the tunnel to return',
      async () => ((await ours.tunnel(NAME)).state === 'up' ? true : undefined),
      60_000,
      500,
    );
    await agreed(ours, peer, NAME, former);
    expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
  }, 200_000);

  it('and comes back as initiator replaces its old SA at once (INITIAL_CONTACT)', async () => {
    await peer.load(TUNNEL, 'right');
    await ours.load(TUNNEL, 'left', { start: 'respond' });
    await peer.initiate(NAME);
    const former = await agreed(ours, peer, NAME);
    await peer.kill();
    await peer.restart();
    await peer.load(TUNNEL, 'right');
    await peer.initiate(NAME);
    await agreed(ours, peer, NAME, former);
    expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
  });

  it('because we died: our successor replaces the old SA there', async () => {
    await peer.load(TUNNEL, 'right');
    await ours.load(TUNNEL, 'left', { start: 'initiate' });
    await ours.command(['autostart', NAME]);
    const former = await agreed(ours, peer, NAME);
    await ours.stop('SIGKILL');
    await ours.startDaemon();
    await agreed(ours, peer, NAME, former);
    expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
  });
});
