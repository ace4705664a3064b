/**
 * Other programs take away what was put up for a tunnel, or change it, while traffic flows: it is put back at once, nothing
 * leaves in the clear afterwards, and the log tells what was taken. Counted on the line.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { afterEach, expect, it } from 'vitest';
import { Capture } from '../support/lab/capture.ts';
import type { Namespace } from '../support/lab/namespace.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  buildGateways,
  CLEAR,
  FAMILIES,
  FLUSH_RULES,
  type Gateways,
  leftovers,
  NAME,
  NETWORKS,
  resetBoth,
  startBoth,
  stopBoth,
  traffic,
} from './gateways.ts';

/** Milliseconds until what was taken is there again: the most, and for most. */
const LONGEST = 2_000;
const USUAL = 200;
/** Milliseconds of traffic after each. */
const AFTERWARDS = 150;

/** As a shell has them; `$T` is the tunnel's table. */
const TAMPERINGS: Readonly<Record<string, string>> = {
  'the rules of the fence flushed': 'nft flush table inet sectunnel',
  'the fence deleted': 'nft delete table inet sectunnel',
  'accept in front of the fence': 'nft insert rule inet sectunnel output accept',
  'a fence that sleeps': "nft add table inet sectunnel '{ flags dormant; }'",
  'a map of the fence flushed': 'nft flush map inet sectunnel out4',
  'all rules flushed': FLUSH_RULES,
  'a rule deleted': 'ip rule del pref 7000',
  'routes flushed': 'ip route flush table $T; ip -6 route flush table $T',
  'what leads nowhere deleted': 'ip route del unreachable 10.2.0.0/24 table $T metric 4294967295',
  'the device down and up': `ip link set stun-${NAME} down; ip link set stun-${NAME} up`,
  'rules and fence': `${FLUSH_RULES}; nft flush table inet sectunnel`,
  'everything of nftables, and all rules': `nft flush ruleset; ${FLUSH_RULES}`,
};

describeInterop('what other programs take', ['namespaces', 'tcpdump', 'nftables', 'build'], () => {
  let gateways: Gateways;

  useLab(async (lab) => {
    gateways = await buildGateways(lab);
  });
  afterEach(() => resetBoth(gateways));

  /** All of ours in a namespace, in no order. */
  const standing = async (namespace: Namespace): Promise<string> => {
    const words = ['rule show', 'route show table all proto 83'];
    const commands = FAMILIES.flatMap((family) => words.map((what) => `ip -${family} ${what}`));
    const { stdout } = await namespace.exec(['sh', '-c', `${commands.join('; ')}; nft -s list table inet sectunnel`], {
      check: false,
    });
    return stdout
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => !/^(0|32766|32767):/.test(line))
      .sort()
      .join('\n');
  };

  const shell = (command: string): Promise<unknown> => gateways.left.exec(['sh', '-c', command]);

  const told = (): string[] =>
    gateways.ours
      .log()
      .split('\n')
      .filter((line) => line.includes('another program'));

  it('is restored within milliseconds, without a packet in the clear afterwards, and is reported once', async () => {
    const { lab, left, ours } = gateways;
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    await shell('nft add table inet other; nft add chain inet other own; nft add rule inet other own accept');
    const rule = (await left.exec(['ip', 'rule', 'show'])).stdout;
    const table = /^7000:.*lookup (\d+)/m.exec(rule)![1]!;
    const before = await standing(left);
    const capture = await Capture.start(lab, left, 'eth0');
    const stop = traffic(gateways);
    const guarded: { readonly what: string; readonly from: number; readonly to: number; readonly took: number }[] = [];
    const foreign = (await left.exec(['nft', 'list', 'table', 'inet', 'other'])).stdout;
    for (const [what, command] of Object.entries(TAMPERINGS)) {
      await shell(`T=${table}; ${command}`);
      const at = Date.now();
      // A look takes as long as five programs take to start: what counts is when it began.
      const found = await waitFor(
        `${what}: put back`,
        async () => {
          const began = Date.now();
          return (await standing(left)) === before ? began : undefined;
        },
        LONGEST,
        1,
      );
      const from = Date.now();
      await new Promise((resolve) => setTimeout(resolve, AFTERWARDS));
      guarded.push({ what, from, to: Date.now(), took: found - at });
      if (command.includes('ruleset')) continue;
      expect((await left.exec(['nft', 'list', 'table', 'inet', 'other'])).stdout).toBe(foreign);
    }
    await stop();
    await capture.stop();
    const clear = await capture.times(CLEAR);
    for (const { what, from, to } of guarded) {
      expect({ what, clear: clear.filter((time) => time > from && time < to).length }).toEqual({ what, clear: 0 });
    }
    const times = guarded.map(({ took }) => took).sort((a, b) => a - b);
    lab.log('times', () => guarded.map(({ what, took }) => `${what}: ${took} ms`).join('\n'));
    expect(times[times.length >> 1]).toBeLessThan(USUAL);
    expect(told()).toHaveLength(2);
    expect(told().join('\n')).toMatch(
      /another program \(nft, process \d+\) changed the fence: chain input: \d of \d rules missing/,
    );
    expect(told().join('\n')).toMatch(/another program changed rules and routes: rule \d+: from .* missing/);
    await stopBoth(gateways);
    expect(await leftovers(left)).toBe('');
  });

  it('is restored for ever against a program that removes it again and again, at little cost and with few log lines', async () => {
    const { left, ours } = gateways;
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    const before = await standing(left);
    const lines = told().length;
    const cpu = processorTime(ours.pid);
    await shell('i=0; while [ $i -lt 100 ]; do nft flush table inet sectunnel || exit 1; i=$((i + 1)); done');
    const isWhole = async (): Promise<true | undefined> => ((await standing(left)) === before ? true : undefined);
    await waitFor('the fence to be whole', isWhole, LONGEST, 10);
    expect(processorTime(ours.pid) - cpu).toBeLessThan(2_000);
    expect(told().length - lines).toBeLessThanOrEqual(1);
    // Nothing that was taken once more is noticed later.
    await new Promise((resolve) => setTimeout(resolve, LONGEST));
    expect(await standing(left)).toBe(before);
    await stopBoth(gateways);
    await ours.stop();
    expect(told().at(-1)).toMatch(/another program .*\(\d+ times in the last minute\)/);
    await ours.startDaemon();
  });

  it('stays as other programs set it where it is theirs, and is shown meanwhile', async () => {
    const { lab, left, ours } = gateways;
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    const capture = await Capture.start(lab, left, 'eth0');
    const stop = traffic(gateways);
    const degraded = async (count: number): Promise<readonly string[]> =>
      await waitFor(`${count} lines of status`, async () => {
        const texts = (await ours.tunnel(NAME)).degraded;
        return texts.length === count ? texts : undefined;
      });
    await shell('ip rule add pref 100 to 10.2.0.0/24 lookup main');
    const [text] = await degraded(1);
    expect(text).toMatch(/another program's rule comes first.*100: from all to 10\.2\.0\.0\/24 lookup main/);
    expect((await ours.command(['status', NAME])).stdout).toContain(`  degraded: ${text}`);
    await shell('ip rule del pref 100');
    await degraded(0);
    await shell(`ip link set stun-${NAME} down`);
    expect(await degraded(1)).toEqual([expect.stringContaining(`ip link set stun-${NAME} up`)]);
    await shell(`ip link set stun-${NAME} up`);
    await degraded(0);
    await stop();
    await capture.stop();
    expect(await capture.packets(CLEAR)).toEqual([]);
    expect(ours.log().match(/another program's rule comes first/g)).toHaveLength(2);
    await stopBoth(gateways);
  });

  it('is put back in another network namespace too, which is let go of with the tunnel', async () => {
    const { lab, left, ours } = gateways;
    const blue = await lab.namespace('blue');
    await blue.ip(['addr add 10.1.0.1/24 dev lo', 'addr add fd01::1/64 dev lo nodad']);
    const sockets = (): number => socketsOf(ours.pid);
    const open = sockets();
    await startBoth(gateways, NETWORKS, { device: `<device netns='${blue.name}'/>` });
    await ours.up(NAME);
    const before = await standing(blue);
    expect(before).toContain('table inet sectunnel');
    expect(await standing(left)).toBe('');
    await blue.exec(['sh', '-c', `nft flush ruleset; ${FLUSH_RULES}`]);
    const isWhole = async (): Promise<true | undefined> => ((await standing(blue)) === before ? true : undefined);
    await waitFor('all of it to be back', isWhole, LONGEST, 1);
    await stopBoth(gateways);
    expect(await leftovers(blue)).toBe('');
    expect(sockets()).toBe(open);
  });
});

/** Milliseconds that a process has computed. */
function processorTime(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

function socketsOf(pid: number): number {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).filter((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`).startsWith('socket:');
    } catch {
      return false; // Closed meanwhile.
    }
  }).length;
}
