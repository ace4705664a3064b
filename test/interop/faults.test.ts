/**
 * What can go wrong under a running tunnel, between two daemons of ours: the left one with worker threads, the right one
 * without. After each fault the tunnel carries again; while it lasts nothing spins, and counters tell what it is.
 */
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { cpuSeconds, residentMemory } from '../../bench/tunnel/usage.ts';
import { Capture } from '../support/lab/capture.ts';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { ping } from '../support/lab/traffic.ts';
import type { Side } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { addInner, LINE } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const NAME = 'faults';
const TUNNEL = suiteTunnel(NAME, SUITES[0]!);
const FLOOD = fileURLToPath(new URL('../support/lab/flood.mjs', import.meta.url));
const [SOURCE, DESTINATION] = [LEFT[4].inner, RIGHT[4].inner];
const SIDES = ['left', 'right'] as const;
/** Seconds of processor time that a daemon may take in a second with nothing to do: a loop that spins takes all. */
const IDLE = 0.5;
const FLOOD_DATAGRAMS = 100_000;
/** MiB that the memory of a flooded daemon may grow by: garbage that is not collected yet. */
const GARBAGE = 100;

describeInterop('a fault', ['namespaces', 'tcpdump', 'build'], () => {
  let lab: Lab;
  let hosts: Record<Side, Namespace>;
  let ends: Record<Side, Ours>;

  useLab(async (made) => {
    lab = made;
    hosts = { left: await lab.namespace('left'), right: await lab.namespace('right') };
    await cable(
      { namespace: hosts.left, device: LINE, addresses: [`${LEFT[4].outer}/24`] },
      { namespace: hosts.right, device: LINE, addresses: [`${RIGHT[4].outer}/24`] },
    );
    await addInner(hosts.left, LEFT);
    await addInner(hosts.right, RIGHT);
    ends = {
      left: await Ours.start(lab, hosts.left, { arguments: ['--workers', '1'] }),
      right: await Ours.start(lab, hosts.right, { arguments: ['--workers', '0'] }),
    };
    await ends.right.load(TUNNEL, 'right', { start: 'respond' });
    await ends.left.load(TUNNEL, 'left', { start: 'initiate' });
    for (const side of SIDES) await ends[side].up(NAME);
  });

  const carries = (): Promise<true> =>
    waitFor('the tunnel to carry', async () => {
      const answered = await ping(hosts.left, { source: SOURCE, destination: DESTINATION, count: 3 });
      return answered === 3 ? true : undefined;
    });

  /** Packets that get no answer: one after another, so that errors of ICMP have the time to come. */
  const inVain = async (from: Side): Promise<void> => {
    const [source, destination] = from === 'left' ? [SOURCE, DESTINATION] : [DESTINATION, SOURCE];
    const numbers = ['-c', '30', '-i', '0.01', '-W', '0.2'];
    await hosts[from].exec(['ping', '-n', '-q', '-I', source, ...numbers, destination], { check: false });
  };

  const counter = async (side: Side, name: string): Promise<number> => (await ends[side].status()).counters[name] ?? 0;

  const expectIdle = async (): Promise<void> => {
    const used = (): number[] => SIDES.map((side) => cpuSeconds(ends[side].pid));
    const before = used();
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const spent = used().map((seconds, i) => seconds - before[i]!);
    expect(Math.max(...spent)).toBeLessThan(IDLE);
  };

  const spis = async (): Promise<string> => (await ends.left.single(NAME)).child.spiIn;

  it.each([
    ['an interface that is down', 'ENETUNREACH', `link set ${LINE} down`, `link set ${LINE} up`],
    [
      'a host that cannot be reached',
      'EHOSTUNREACH',
      `route add unreachable ${RIGHT[4].outer}/32`,
      `route del unreachable ${RIGHT[4].outer}/32`,
    ],
  ])('that is %s is counted, and over when it is', async (_, error, begin, end) => {
    await carries();
    const before = await spis();
    const counted = await counter('left', `send-${error}`);
    await hosts.left.ip([begin]);
    await inVain('left');
    expect(await counter('left', `send-${error}`)).toBeGreaterThan(counted);
    await expectIdle();
    await hosts.left.ip([end]);
    await carries();
    expect(await spis()).toBe(before);
  });

  it('that is a queue without room is counted, and over when it is', async () => {
    for (const side of SIDES) {
      await hosts[side].exec(['tc', 'qdisc', 'replace', 'dev', LINE, 'root', 'pfifo', 'limit', '0']);
      await inVain(side);
      expect(await counter(side, 'send-ENOBUFS')).toBeGreaterThan(0);
      await expectIdle();
      await hosts[side].exec(['tc', 'qdisc', 'del', 'dev', LINE, 'root']);
    }
    await carries();
  });

  it.each(SIDES)(
    'that takes the device of the %s end away costs the tunnel its SAs, and makes another',
    async (side) => {
      await carries();
      const before = await spis();
      const { device } = await ends[side].tunnel(NAME);
      await hosts[side].ip([`link del ${device!.name}`]);
      await waitFor('new SAs', async () => {
        const [left, right] = await Promise.all(SIDES.map((each) => ends[each].tunnel(NAME)));
        if (left!.state !== 'up' || right!.state !== 'up') return undefined;
        return left!.ikeSas.every((sa) => sa.children.every((child) => child.spiIn !== before)) ? true : undefined;
      });
      expect(ends[side].log()).toContain('the device was removed, the tunnel is stopped');
      await expectIdle();
      await carries();
    },
  );

  it('that ends the peer’s program is counted, and over when there is another', async () => {
    await carries();
    const refused = await counter('left', 'send-ECONNREFUSED');
    await ends.right.stop('SIGKILL');
    await inVain('left');
    expect(await counter('left', 'send-ECONNREFUSED')).toBeGreaterThan(refused);
    const spent = cpuSeconds(ends.left.pid);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(cpuSeconds(ends.left.pid) - spent).toBeLessThan(IDLE);
    // It finds its tunnel among those that start with it, and waits for us.
    await ends.right.startDaemon();
    await ends.left.command(['destroy', NAME]);
    await ends.left.command(['start', NAME]);
    for (const side of SIDES) await ends[side].up(NAME);
    await carries();
  });

  it('that is a flood of garbage and of what was received before harms nothing else', async () => {
    // CHILD SAs are replaced all the time: IKE has to answer in the middle of it.
    const lifetimes = { espLifetime: { soft: 1, hard: 60 } };
    for (const side of SIDES) await ends[side].reset();
    await ends.left.load(TUNNEL, 'left', { start: 'respond' });
    await ends.right.load(TUNNEL, 'right', { start: 'initiate', ...lifetimes });
    for (const side of SIDES) await ends[side].up(NAME);
    const capture = await Capture.start(lab, hosts.right, LINE);
    await carries();
    await capture.stop();
    const { pid } = ends.left;
    const [memory, lines, before] = [residentMemory(pid), ends.left.log().split('\n').length, await spis()];
    const words = [process.execPath, FLOOD, capture.file, LEFT[4].outer, '4500', String(FLOOD_DATAGRAMS)];
    const flood = hosts.right.exec(words, { timeout: 40_000 });
    await waitFor('a new SA in the middle of the flood', async () => {
      // For a moment there are two.
      const now = await spis().catch(() => before);
      return now === before ? undefined : true;
    });
    await flood;
    await carries();
    const { counters, tunnels } = await ends.left.status();
    for (const reason of ['esp-unknown-spi', 'keepalives', 'empty']) {
      expect(counters[reason], reason).toBeGreaterThan(100);
    }
    // What has the SPI of an SA is its tunnel's.
    for (const reason of ['bad-icv', 'replay', 'too-short'])
      expect(tunnels[0]!.drops[reason], reason).toBeGreaterThan(100);
    const malformed = Object.entries(counters).filter(([reason]) => reason.startsWith('malformed'));
    expect(malformed.reduce((sum, [, count]) => sum + count, 0)).toBeGreaterThan(100);
    expect(counters.bug ?? 0).toBe(0);
    expect(residentMemory(pid) - memory).toBeLessThan(GARBAGE);
    // A few lines for each SA that took the place of another; none for what was dropped.
    const rekeys = ends.left.log().split('\n').length - lines;
    expect(rekeys).toBeLessThan(300);
    await expectIdle();
  });
});
