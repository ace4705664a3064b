/**
 * Hundreds of tunnels between two gateways, from their definition to their end: all of them carry, and no packet that they are to
 * protect passes in the clear, whatever happens to the daemon.
 */
import { expect, it, vi } from 'vitest';
import { DaemonClient } from '../../src/control/client.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { ping } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { leftovers } from './gateways.ts';
import {
  allUp,
  buildMany,
  clearDuring,
  type DeviceKind,
  isForUdp,
  leftClient,
  leftGateway,
  type ManyTunnels,
  nameOf,
  rightHost,
  tunnelOfPacket,
  writeDocuments,
} from './many.ts';

const COUNT = 200;
/** Milliseconds that hundreds of tunnels may take to end in good order. */
const GRACE = 60_000;

/** Tunnels that are looked at more closely. */
const SOME = [0, 1, 44, 99, 117, 198, COUNT - 1];

const HALF = Array.from({ length: COUNT / 2 }, (_, at) => at);

vi.setConfig({ testTimeout: 600_000 });

const KINDS: readonly DeviceKind[] = ['a device each', 'one shared device'];

for (const kind of KINDS) {
  describeInterop(`${COUNT} tunnels with ${kind}`, ['namespaces', 'tcpdump', 'nftables', 'build'], () => {
    let many: ManyTunnels;

    useLab(async (lab) => {
      many = await buildMany(lab, COUNT);
    });

    it('are defined from a folder and started by one command, and each is fenced when it has started', async () => {
      const { ours, theirs } = many;
      for (const [end, side] of [
        [theirs, 'right'],
        [ours, 'left'],
      ] as const) {
        const { stdout } = await end.command(['define', '--dir', writeDocuments(many, side, { kind })]);
        expect(stdout).toBe(`${COUNT} tunnels defined\n`);
      }
      expect(await theirs.command(['start', '--all'])).toMatchObject({ stdout: `${COUNT} tunnels started\n` });
      const started = await startTimes(ours);
      const packets = await clearDuring(many, async (round) => {
        await round();
        expect(await ours.command(['start', '--all'])).toMatchObject({ stdout: `${COUNT} tunnels started\n` });
        await round();
      });
      expect(started.times.size).toBe(COUNT);
      started.end();
      // The lab sees what passes in the clear, for each tunnel.
      expect(new Set(packets.map(tunnelOfPacket)).size).toBe(COUNT);
      const late = packets.filter((packet) => packet.at > started.times.get(nameOf(tunnelOfPacket(packet)))!);
      expect(late).toEqual([]);
    });

    it('come up, all of them, and carry packets of the gateway and of the client behind it', async () => {
      await allUp(many);
      await expectCarried(many);
    });

    it('let nothing pass in the clear when the daemon is killed, and the next one has all of them carry again', async () => {
      const { ours } = many;
      const packets = await clearDuring(many, async (round) => {
        await ours.stop('SIGKILL');
        await round();
        await ours.startDaemon();
        await allUp(many);
        await round();
      });
      expect(packets).toEqual([]);
      await expectCarried(many);
    });

    it('open nothing of the others when half of them are destroyed', async () => {
      const { ours } = many;
      const packets = await clearDuring(many, async (round) => {
        await ours.command(['destroy', ...HALF.map(nameOf)]);
        await round();
      });
      expect(new Set(packets.map(tunnelOfPacket))).toEqual(new Set(HALF));
    });

    it('let nothing pass in the clear while the daemon ends, and afterwards', async () => {
      const { ours } = many;
      const packets = await clearDuring(many, async (round) => {
        expect(await ours.stop('SIGTERM', GRACE)).toBe(0);
        await round();
      });
      expect(new Set(packets.map(tunnelOfPacket))).toEqual(new Set(HALF));
    });

    it('leave nothing behind when they are released without a daemon, or destroyed', async () => {
      const { ours, theirs, left, right } = many;
      expect((await ours.release()).stdout).toMatch(/^Removed: the fence/);
      expect((await theirs.command(['destroy', '--all'])).stdout).toBe(`${COUNT} tunnels destroyed\n`);
      for (const end of [left, right]) {
        expect(await leftovers(end)).toBe('');
        expect((await end.interfaces()).filter((name) => !/^(lo|eth0|lan0)$/.test(name))).toEqual([]);
      }
      await ours.startDaemon();
      for (const end of [ours, theirs]) {
        expect((await end.command(['undefine', '--all'])).stdout).toBe(`${COUNT} tunnels undefined\n`);
        expect(await end.status()).toMatchObject({ tunnels: [] });
      }
    });
  });
}

/** When each tunnel had started, as the daemon says, in milliseconds since 1970. */
async function startTimes(ours: ManyTunnels['ours']): Promise<{ times: ReadonlyMap<string, number>; end: () => void }> {
  const client = new DaemonClient(ours.runDir);
  const times = new Map<string, number>();
  client.onEvent = ({ tunnel, event, time }) => {
    if (event === 'started') times.set(tunnel, Date.parse(time));
  };
  await client.call('event', {});
  return { times, end: () => client.close() };
}

/** Through some of the tunnels, both ways. */
async function expectCarried({ left, client }: ManyTunnels): Promise<void> {
  const answered = SOME.filter((tunnel) => !isForUdp(tunnel)).flatMap((tunnel) => [
    ping(left, { source: leftGateway(tunnel), destination: rightHost(tunnel) }),
    ping(client, { source: leftClient(tunnel), destination: rightHost(tunnel) }),
  ]);
  expect(new Set(await Promise.all(answered))).toEqual(new Set([3]));
}
