/**
 * Trap, by threads of their own and by the event loop: the first packet negotiates with strongSwan and gets its answer,
 * and so does all that follows it at once. When there is no SA to be had, senders are told.
 */
import { expect, it } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { burst, ping, startEcho } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { LINE } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const ECHO_PORT = 7007;
/** As many packets as wait for an SA. */
const HELD = 64;
const TUNNEL = suiteTunnel('trap', SUITES[0]!);

for (const workers of ['1', '0']) {
  describeInterop(`a trap with --workers ${workers}`, ['namespaces', 'strongswan', 'build'], () => {
    let left: Namespace;
    let peer: StrongSwan;
    let ours: Ours;

    useLab(async (lab: Lab) => {
      left = await lab.namespace('left');
      const right = await lab.namespace('right');
      await cable(
        { namespace: left, device: LINE, addresses: [`${LEFT[4].outer}/24`] },
        { namespace: right, device: LINE, addresses: [`${RIGHT[4].outer}/24`] },
      );
      await left.ip([`addr add ${LEFT[4].inner}/24 dev lo`]);
      await right.ip([`addr add ${RIGHT[4].inner}/24 dev lo`]);
      await startEcho(lab, right, RIGHT[4].inner, ECHO_PORT);
      peer = await StrongSwan.start(lab, right);
      ours = await Ours.start(lab, left, { arguments: ['--workers', workers] });
    });

    const ends = { source: LEFT[4].inner, destination: RIGHT[4].inner };

    /** What was dropped of ours; the kernel may send multicast of its own into any device. */
    async function drops(): Promise<Readonly<Record<string, number>>> {
      const { 'no-policy': _, ...ofTraffic } = (await ours.tunnel(TUNNEL.name)).drops;
      return ofTraffic;
    }

    async function begin(): Promise<void> {
      await ours.reset();
      await peer.reset();
      await peer.load(TUNNEL, 'right');
      await ours.load(TUNNEL, 'left', { start: 'trap' });
    }

    it('answers the first ping', async () => {
      await begin();
      expect((await ours.tunnel(TUNNEL.name)).state).toBe('waiting');
      expect(await ping(left, { ...ends, count: 1 })).toBe(1);
      const { child } = await ours.single(TUNNEL.name);
      expect([child.packetsOut, child.packetsIn]).toEqual([1, 1]);
      expect(await drops()).toEqual({});
    });

    it('loses none of what comes before the SA is up, as many as may wait', async () => {
      await begin();
      const answered = await burst(left, { ...ends, port: ECHO_PORT, count: HELD, size: 100, pause: 0 });
      expect(answered).toEqual({ sent: HELD, received: HELD, damaged: 0 });
      expect(await drops()).toEqual({});
    });

    /** What a ping is told in place of an answer. */
    async function told(patience: number): Promise<string> {
      const command = ['ping', '-n', '-c', '1', '-W', String(patience), '-I', ends.source, ends.destination];
      return (await left.exec(command, { check: false, timeout: 30_000 })).stdout;
    }

    it('tells senders at once that the peer refuses', async () => {
      await begin();
      const stranger = { ...TUNNEL, right: { ...TUNNEL.right, inner: ['10.9.0.0/24'] } };
      await peer.load(stranger, 'right');
      expect(await told(8)).toContain('Packet filtered');
      expect((await ours.tunnel(TUNNEL.name)).lastFailure?.reason).toBe('TS_UNACCEPTABLE');
    });

    // Ten seconds are enough once.
    if (workers !== '1') return;
    it('tells senders that the peer is unreachable, when they have waited as long as allowed', async () => {
      await ours.reset();
      await peer.stop();
      await ours.load(TUNNEL, 'left', { start: 'trap' });
      expect(await told(15)).toContain('Destination Host Unreachable');
      expect(await drops()).toEqual({ 'no-sa': 1 });
    });
  });
}
