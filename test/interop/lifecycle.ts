/** What happens to a tunnel with strongSwan after it is up: rekeying under traffic, and deletion by either side. */
import { beforeEach, describe, expect, it } from 'vitest';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  ALL_CARRIED,
  agreed,
  buildRig,
  exchange,
  nothingLost,
  RIG_NEEDS,
  RIG_TIMEOUT,
  type Rig,
  underTraffic,
} from './rig.ts';
import { type PeerKind, SUITES, suiteTunnel } from './suites.ts';

const NAME = 'life';

/** With a key exchange in each CREATE_CHILD_SA, and ESN where the peer has it. */
function tunnelWith(kind: PeerKind, more: Partial<Tunnel> = {}): Tunnel {
  const tunnel = suiteTunnel(NAME, SUITES[0]!);
  const esp = { encryption: 'aes128gcm16', dh: 'x25519', esn: kind === 'kernel' ? 'yes' : 'no' } as const;
  return { ...tunnel, esp, ...more };
}

/** A file for each kind of peer calls it: they run at the same time. */
export function testLifecycle(kind: PeerKind): void {
  describeInterop(`life of a tunnel with strongSwan and ${kind} ESP`, [...RIG_NEEDS[kind], 'build'], () => {
    let rig: Rig;
    let ours: Ours;

    useLab(async (lab) => {
      rig = await buildRig(lab, kind);
      ours = await Ours.start(lab, rig.left);
    }, RIG_TIMEOUT);

    beforeEach(async () => {
      await ours.reset();
      await rig.peer.reset();
    });

    /** Brings the tunnel up from our side. */
    async function connect(
      tunnel: Tunnel,
      lifetimes: Partial<Parameters<Ours['load']>[2]> = {},
    ): ReturnType<typeof agreed> {
      await rig.peer.load(tunnel, 'right');
      await ours.load(tunnel, 'left', { start: 'initiate', ...lifetimes });
      return agreed(ours, rig.peer, NAME);
    }

    describe('rekeying loses no datagram', () => {
      it('of the CHILD SA by the peer', async () => {
        const former = await connect(tunnelWith(kind));
        const result = await underTraffic(rig, 4, () => rig.peer.rekeyChild(NAME));
        await nothingLost(result, ours, NAME);
        expect((await agreed(ours, rig.peer, NAME, { child: former.child })).ike).toBe(former.ike);
        expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      });

      it('of the IKE SA by the peer', async () => {
        const former = await connect(tunnelWith(kind));
        const result = await underTraffic(rig, 4, () => rig.peer.rekeyIke(NAME));
        await nothingLost(result, ours, NAME);
        const now = await agreed(ours, rig.peer, NAME, { ike: former.ike });
        expect(now.child).toBe(former.child);
        expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      });

      it('of the CHILD SA by us', async () => {
        const former = await connect(tunnelWith(kind), { espLifetime: { soft: 3, hard: 60 } });
        const result = await underTraffic(rig, 4, () => agreed(ours, rig.peer, NAME, { child: former.child }), 500);
        await nothingLost(result, ours, NAME);
        expect((await agreed(ours, rig.peer, NAME, { child: former.child })).ike).toBe(former.ike);
        expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      });

      it('of the IKE SA by us', async () => {
        const former = await connect(tunnelWith(kind), { ikeLifetime: { soft: 3, hard: 60 } });
        const result = await underTraffic(rig, 4, () => agreed(ours, rig.peer, NAME, { ike: former.ike }), 500);
        await nothingLost(result, ours, NAME);
        expect((await agreed(ours, rig.peer, NAME, { ike: former.ike })).child).toBe(former.child);
        expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      });

      it('of both by a new authentication, which the peer does not take for a restart of ours', async () => {
        const former = await connect(tunnelWith(kind));
        const result = await underTraffic(rig, 4, () => ours.command(['reauth', NAME]));
        await nothingLost(result, ours, NAME);
        await agreed(ours, rig.peer, NAME, former);
        expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      });

      it('after the peer was the initiator, by either side', async () => {
        const tunnel = tunnelWith(kind);
        await rig.peer.load(tunnel, 'right');
        await ours.load(tunnel, 'left', { start: 'respond', espLifetime: { soft: 3, hard: 60 } });
        await rig.peer.initiate(NAME);
        const former = await agreed(ours, rig.peer, NAME);
        const result = await underTraffic(
          rig,
          4,
          async () => {
            await rig.peer.rekeyIke(NAME);
            await agreed(ours, rig.peer, NAME, former);
          },
          500,
        );
        await nothingLost(result, ours, NAME);
        expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      });
    });

    describe('deletion', () => {
      it('by us: the peer has nothing left, and our device is gone', async () => {
        const before = await rig.left.interfaces();
        await connect(tunnelWith(kind));
        expect(await rig.left.interfaces()).not.toEqual(before);
        await ours.destroy(NAME);
        await waitFor('the peer to have no SA', async () => ((await rig.peer.sas()).length === 0 ? true : undefined));
        expect(await rig.left.interfaces()).toEqual(before);
        expect((await ours.tunnel(NAME)).active).toBe(false);
      });

      it('of the IKE SA by the peer, where we only respond: nothing is left', async () => {
        const tunnel = tunnelWith(kind);
        await rig.peer.load(tunnel, 'right');
        await ours.load(tunnel, 'left', { start: 'respond' });
        await rig.peer.initiate(NAME);
        await agreed(ours, rig.peer, NAME);
        await rig.peer.terminateIke(NAME);
        expect((await ours.down(NAME)).state).toBe('waiting');
        await rig.peer.initiate(NAME);
        await agreed(ours, rig.peer, NAME);
        expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      });

      it('of the IKE SA by the peer, where the tunnel is wanted: it comes back', async () => {
        const former = await connect(tunnelWith(kind));
        await rig.peer.terminateIke(NAME);
        await agreed(ours, rig.peer, NAME, former);
        expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      });

      it('of the CHILD SA by the peer, where the tunnel is wanted: it comes back', async () => {
        const former = await connect(tunnelWith(kind));
        await rig.peer.terminateChild(NAME);
        await agreed(ours, rig.peer, NAME, { child: former.child });
        expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      });

      it('when the daemon ends: the peer is told, the device goes, and the next daemon brings it back', async () => {
        const before = await rig.left.interfaces();
        const former = await connect(tunnelWith(kind));
        expect(await ours.stop()).toBe(0);
        await waitFor('the peer to have no SA', async () => ((await rig.peer.sas()).length === 0 ? true : undefined));
        expect(await rig.left.interfaces()).toEqual(before);
        await ours.startDaemon();
        await agreed(ours, rig.peer, NAME, former);
        expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      });
    });
  });
}
