/**
 * With a kernel's own ESP at the other end: what is padded and what are dummies, either way; congestion that is marked;
 * and the UDP checksums of ESP over IPv6, which are right on a line that computes none.
 */
import { expect, it } from 'vitest';
import type { ChildStatus } from '../../src/host/status.ts';
import { Capture } from '../support/lab/capture.ts';
import type { Lab } from '../support/lab/lab.ts';
import { computeChecksums } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { burst } from '../support/lab/traffic.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { ALL_CARRIED, buildRig, ECHO_PORT, exchange, LINE, RIG_NEEDS, RIG_TIMEOUT, type Rig } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

/** Over IPv4, and over IPv6 with IPv6 inside. */
const OVER_4 = suiteTunnel('padded', SUITES.find(({ outer }) => outer === 4)!);
const OVER_6 = suiteTunnel('six', SUITES.find(({ outer, inner }) => outer === 6 && inner === 6)!);
const SIZE = 800;
/** AES-GCM with an ICV of 16 bytes: SPI, sequence number, IV, what is sealed to a multiple of 4, ICV. */
const espLength = (payload: number): number => 8 + 8 + 4 * Math.ceil((payload + 2) / 4) + 16;
const UDP_HEADER = 8;

describeInterop(
  'the outer side of ESP, with the kernel',
  [...RIG_NEEDS.kernel, 'tcpdump', 'tshark', 'nftables', 'build'],
  () => {
    let lab: Lab;
    let rig: Rig;
    let ours: Ours;

    useLab(async (made) => {
      lab = made;
      rig = await buildRig(lab, 'kernel');
      ours = await Ours.start(lab, rig.left);
    }, RIG_TIMEOUT);

    async function load(tunnel: Tunnel, esp: string): Promise<void> {
      await ours.reset();
      await rig.peer.load(tunnel, 'right');
      await ours.load(tunnel, 'left', { start: 'initiate', esp });
      await ours.up(tunnel.name);
    }

    const child = async (name: string): Promise<ChildStatus> => (await ours.single(name)).child;

    /** Lengths of the UDP payloads that hold ESP, by where they come from, while packets are exchanged. */
    async function espLengths(inner: 4 | 6): Promise<Record<'left' | 'right', Set<number>>> {
      const line = await Capture.start(lab, rig.left, LINE);
      expect(await exchange(rig, inner)).toEqual(ALL_CARRIED);
      await line.stop();
      const lengths = async (from: string): Promise<Set<number>> => {
        const fields = ['-T', 'fields', '-e', 'udp.length'];
        const found = await line.frames(`esp && ip.src == ${from}`, fields);
        return new Set(found.map((length) => Number(length) - UDP_HEADER));
      };
      return { left: await lengths(LEFT[4].outer), right: await lengths(RIGHT[4].outer) };
    }

    it('packets are padded to a size by us, and to the MTU by the kernel', async () => {
      await load({ ...OVER_4, tfcPadding: 'mtu' }, `<tfc padding='fixed' size='${SIZE}'/>`);
      const { left, right } = await espLengths(4);
      expect([...left]).toEqual([espLength(SIZE)]);
      expect(right.size).toBe(1);
      expect(Math.max(...right)).toBeGreaterThan(1_300);
      expect((await ours.tunnel(OVER_4.name)).drops).toEqual({});
    });

    it('dummies do no harm, and are counted', async () => {
      await load(OVER_4, `<tfc padding='multiple' size='256' dummies='50'/>`);
      const line = await Capture.start(lab, rig.left, LINE);
      await waitFor('dummies', async () => ((await child(OVER_4.name)).dummiesOut >= 20 ? true : undefined));
      await line.stop();
      const { dummiesOut, packetsOut } = await child(OVER_4.name);
      expect(packetsOut).toBe(0);
      const dummies = await line.frames(`esp && ip.src == ${LEFT[4].outer}`, ['-T', 'fields', '-e', 'udp.length']);
      expect(dummies.length).toBeGreaterThan(0);
      expect(dummies.length).toBeLessThanOrEqual(dummiesOut);
      expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
      const { stdout } = await rig.right.exec(['grep', 'XfrmInStateProtoError', '/proc/net/xfrm_stat']);
      expect(Number(stdout.trim().split(/\s+/)[1])).toBeGreaterThanOrEqual(20);
    });

    /** Marks on the line that congestion was met, in one direction, and pings with ECN inside. Answers as they came in. */
    async function pingedThrough(hook: 'output' | 'prerouting', mark: number): Promise<readonly string[]> {
      const [port, priority] = hook === 'output' ? ['dport', 'oifname'] : ['sport', 'iifname'];
      const rule = `table inet marks {
  chain marks { type filter hook ${hook} priority 0; ${priority} "${LINE}" udp ${port} 4500 ip ecn set ce; }
}`;
      const { name } = (await ours.tunnel(OVER_4.name)).device!;
      const inside = await Capture.start(lab, rig.left, name);
      await rig.left.exec(['nft', '-f', '-'], { input: rule });
      try {
        const numbers = ['-c', '2', '-i', '0.2', '-W', mark === 0 ? '1' : '5', '-Q', String(mark)];
        await rig.left.exec(['ping', '-n', ...numbers, '-I', LEFT[4].inner, RIGHT[4].inner], { check: false });
      } finally {
        await rig.left.exec(['nft', 'delete', 'table', 'inet', 'marks']);
      }
      await inside.stop();
      return (await inside.headers('icmp')).filter((line) => line.includes('echo reply'));
    }

    it('congestion that is marked on the way is told inside, by the kernel and by us', async () => {
      await load(OVER_4, '');
      const ect0 = 2;
      // An answer has the traffic class of its question, which has been marked by the kernel.
      const marked = await pingedThrough('output', ect0);
      expect(marked).toHaveLength(2);
      for (const answer of marked) expect(answer).toContain('tos 0x3,CE');
      expect((await child(OVER_4.name)).ecnMarked).toBe(0);
      const answers = await pingedThrough('prerouting', ect0);
      expect(answers).toHaveLength(2);
      for (const answer of answers) expect(answer).toContain('tos 0x3,CE');
      expect((await child(OVER_4.name)).ecnMarked).toBe(2);
      expect(await pingedThrough('prerouting', 0)).toEqual([]);
      expect((await ours.tunnel(OVER_4.name)).drops).toMatchObject({ congestion: 2 });
    });

    it('UDP checksums of ESP over IPv6 are there and right, also of runs', async () => {
      await load(OVER_6, '');
      await computeChecksums(rig.left, LINE);
      const line = await Capture.start(lab, rig.left, LINE);
      const [source, destination] = [LEFT[6].inner, RIGHT[6].inner];
      const many = { source, destination, port: ECHO_PORT, count: 300, size: 1_200, pause: 0 };
      expect((await burst(rig.left, many)).received).toBeGreaterThan(200);
      await line.stop();
      expect((await ours.status()).io.udp).toContain('gso');
      const checked = ['-o', 'udp.check_checksum:TRUE'];
      const ours6 = `udp.srcport == 4500 && ipv6.src == ${LEFT[6].outer}`;
      const all = await line.frames(ours6, checked);
      expect(all.length).toBeGreaterThan(200);
      expect(await line.frames(`${ours6} && udp.checksum.status == "Good"`, checked)).toHaveLength(all.length);
      expect(await line.frames(`${ours6} && udp.checksum == 0`, checked)).toEqual([]);
    });
  },
);
