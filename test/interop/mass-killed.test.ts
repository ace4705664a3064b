/**
 * A daemon that is killed at any moment while it starts many tunnels, and while the next one takes them over: what stands
 * afterwards is that of the tunnels that run, nothing of other programs is touched, and nothing is left in the end.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { Dice } from './differential/packets.ts';
import { leftovers } from './gateways.ts';
import { buildMany, isForUdp, type ManyTunnels, nameOf, rightNetwork, writeDocuments } from './many.ts';

const COUNT = 30;
/** Those that share routing tables, as most do. */
const TUNNELS = Array.from({ length: COUNT }, (_, tunnel) => tunnel).filter((tunnel) => !isForUdp(tunnel));
const ROUNDS = 2;
/** Milliseconds that tunnels may take until they are up again. */
const PATIENCE = 60_000;
const TIMEOUT = 600_000;
/** With SECTUNNEL_SEED=… of a run that failed the daemon is killed at the same moments. */
const SEED = Number(process.env.SECTUNNEL_SEED ?? Date.now() % 1_000_000);

/** What other programs have, with numbers and names close to ours. */
const FOREIGN: readonly string[] = [
  'rule add pref 7000 from 198.51.100.1 lookup 1398079999 protocol 84',
  'rule add pref 7001 from 10.1.0.0/24 to 10.9.0.0/24 lookup 1398034834',
  'rule add pref 32765 from 198.51.100.2 to 10.1.0.0/24 unreachable protocol 84',
  '-6 rule add pref 7002 from fd01::/64 to fd09::/64 lookup 1397984421 protocol 82',
  'route add blackhole 10.9.0.0/24 table 1397984421 proto 84',
  'route add blackhole 10.9.0.0/24 table 1398079999 proto static',
  'route add unreachable 10.9.1.0/24 proto 82',
  '-6 route add unreachable fd09::/64 table 1397984421 proto 84',
  'tuntap add dev stun-many mode tun',
  `tuntap add dev stun-${nameOf(COUNT)} mode tun`,
];
const FOREIGN_TABLES = `table inet sectunnel2 {
  chain t0123456789ab_leave { drop; }
  chain forward { type filter hook forward priority -10; ip saddr 198.51.100.1 jump t0123456789ab_leave; }
}
table ip sectunnel {
  map out4 { type ipv4_addr . ipv4_addr : verdict; flags interval; elements = { 198.51.100.1 . 10.9.0.0/24 : drop } }
}
table bridge sectunnel { }
`;

describeInterop('a daemon that is killed while it starts many tunnels', ['namespaces', 'nftables', 'build'], () => {
  let many: ManyTunnels;
  let before: string;

  useLab(async (lab) => {
    many = await buildMany(lab, COUNT);
    const { left, ours, theirs } = many;
    for (const words of FOREIGN) await left.exec(['ip', ...words.split(' ')]);
    await left.exec(['nft', '-f', '-'], { input: FOREIGN_TABLES });
    await waitFor('the kernel to have its own addresses', async () => {
      const { stdout } = await left.exec(['ip', '-6', '-o', 'addr', 'show', 'scope', 'link', '-tentative']);
      return ['eth0', 'lan0'].every((link) => stdout.includes(` ${link} `)) || undefined;
    });
    before = await standing(many);
    const which = { kind: 'a device each', tunnels: TUNNELS } as const;
    await theirs.command(['define', '--dir', writeDocuments(many, 'right', which)]);
    await theirs.command(['start', '--all']);
    await ours.command(['define', '--dir', writeDocuments(many, 'left', which)]);
  });

  it(`leaves what the next one puts right, and nothing in the end: SECTUNNEL_SEED=${SEED}`, {
    timeout: TIMEOUT,
  }, async () => {
    const { ours } = many;
    const dice = new Dice(SEED);
    const began = performance.now();
    await ours.command(['start', '--all']);
    const whole = Math.ceil(performance.now() - began);
    await ours.command(['destroy', '--all']);
    expect(await standing(many)).toBe(before);
    for (let round = 0; round < ROUNDS; round++) {
      const starting = ours.command(['start', '--all'], { check: false });
      await sleep(dice.below(whole));
      await ours.stop('SIGKILL');
      await starting;
      // The next one is killed as well, while it takes over.
      await ours.startDaemon();
      await sleep(dice.below(Math.ceil(whole / 2)));
      await ours.stop('SIGKILL');
      await ours.startDaemon();
      await expectPutRight(many);
      if (round % 2 === 0) await ours.command(['destroy', '--all'], { check: false });
      else {
        await ours.stop('SIGKILL');
        await ours.release();
        await ours.startDaemon();
      }
      expect(await standing(many)).toBe(before);
    }
  });
});

/** All that this host has of rules, routes, links and nftables. */
async function standing({ left }: ManyTunnels): Promise<string> {
  const routes = ['-4', '-6'].map((family) => left.exec(['ip', family, 'route', 'show', 'table', 'all']));
  const texts = (await Promise.all(routes)).map(({ stdout }) => stdout);
  const links = (await left.interfaces()).join(' ');
  return [await leftovers(left), ...texts, links].join('\n');
}

/** Those that run come up, with fence and routes; of the others nothing stands. */
async function expectPutRight({ ours, left }: ManyTunnels): Promise<void> {
  const { code } = await ours.command(['start', '--wait=1', nameOf(0), nameOf(1)], { check: false });
  expect(code).not.toBe(3);
  const end = performance.now() + PATIENCE;
  let tunnels: { name: string; state: string }[] = [];
  do {
    await sleep(200);
    const all = (await ours.status()).tunnels.map(({ name, state }) => ({ name, state }));
    tunnels = all.filter(({ state }) => state !== 'inactive');
  } while (tunnels.some(({ state }) => state !== 'up') && performance.now() < end);
  expect(tunnels.filter(({ state }) => state !== 'up')).toEqual([]);
  const running = new Set(tunnels.map(({ name }) => name));
  const text = await leftovers(left);
  const networks = TUNNELS.map((tunnel) => ({ tunnel, lines: linesWith(text, rightNetwork(tunnel)) }));
  for (const { tunnel, lines } of networks) {
    const parts = {
      routes: lines.some((line) => / table \d+/.test(line)),
      fence: lines.some((line) => / jump /.test(line)),
    };
    const runs = running.has(nameOf(tunnel));
    expect({ tunnel, ...parts }).toEqual({ tunnel, routes: runs, fence: runs });
  }
}

function linesWith(text: string, part: string): string[] {
  return text.split('\n').filter((line) => line.includes(part));
}
