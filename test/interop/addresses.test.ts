/**
 * The host's own addresses come after the tunnel, change, go and return: what the host sends without a source follows them,
 * and while there is none for it, it is refused instead of leaving in the clear.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import { Capture } from '../support/lab/capture.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  buildGateways,
  type Entry,
  FAMILIES,
  FLUSH_RULES,
  type Gateways,
  INNER,
  knock,
  leftovers,
  NAME,
  NETWORKS,
  OUTER,
  resetBoth,
  startBoth,
  stopBoth,
} from './gateways.ts';

/** Anything to or from the other side outside of the tunnel, whatever its source. */
const ANY_CLEAR = 'net 10.2.0.0/24 or net fd02::/64';
const LAN = ['10.1.0.1/24', 'fd01::1/64'] as const;
/** Milliseconds until the kernel has been told what follows from a change, seen through programs that are started. */
const SOON = 1_000;
/** Of duplicate address detection, in milliseconds. */
const DETECTION = 5_000;
/** How often rules are taken away, a tenth of a second between. */
const FLUSHES = 10;

describeInterop('addresses of the host that come and go', ['namespaces', 'tcpdump', 'nftables', 'build'], () => {
  let gateways: Gateways;

  useLab(async (lab) => {
    gateways = await buildGateways(lab);
  });
  afterEach(async () => {
    await resetBoth(gateways);
    await gateways.left.ip(['addr flush dev lan0 scope global', ...LAN.map((one) => `addr add ${one} dev lan0 nodad`)]);
  });

  /** How many of two echo requests without a source were answered. */
  const unbound = async (family: 4 | 6): Promise<number> => {
    const words = ['-n', '-q', '-c', '2', '-i', '0.1', '-W', '1', INNER[family].far];
    const { stdout } = await gateways.left.exec(['ping', ...words], { check: false });
    return Number(/(\d+) received/.exec(stdout)?.[1] ?? 0);
  };
  const both = (): Promise<number[]> => Promise.all(FAMILIES.map(unbound));
  /** On a host with much to do a ping may be late. */
  const carried = (): Promise<unknown> =>
    waitFor('both families to be carried', async () => String(await both()) === '2,2' || undefined);

  const carried4 = (): Promise<unknown> =>
    waitFor('IPv4 to be carried', async () => (await unbound(4)) === 2 || undefined);

  /**
   * The source that the kernel gives a packet to the other side; `refused` when it has no way: over IPv6 there is one into
   * the device then, and no source for it.
   */
  const source = async (family: 4 | 6): Promise<string> => {
    const { stdout } = await gateways.left.exec(['ip', 'route', 'get', INNER[family].far], { check: false });
    if (stdout.trim() === '' || (/ dev stun-/.test(stdout) && !stdout.includes(' src '))) return 'refused';
    return / dev stun-\S+ .*src (\S+)/.exec(stdout)?.[1] ?? stdout;
  };
  const sources = async (wanted: readonly string[], limit = SOON): Promise<void> => {
    await waitFor(
      `the sources ${wanted.join(', ')}`,
      async () => {
        const found = await Promise.all(FAMILIES.map(source));
        return found.join() === wanted.join() ? true : undefined;
      },
      limit,
      1,
    );
  };

  const degraded = async (count: number): Promise<readonly string[]> =>
    await waitFor(`${count} lines of status`, async () => {
      const texts = (await gateways.ours.tunnel(NAME)).degraded;
      return texts.length === count ? texts : undefined;
    });

  /** Runs it while programs that name no source send all the time: nothing but the tunnel may be seen on the line. */
  const withoutClear = async (action: () => Promise<void>): Promise<void> => {
    const { lab, left } = gateways;
    const capture = await Capture.start(lab, left, 'eth0');
    const senders = FAMILIES.map((family) => {
      const ping = `ping -n -q -c 1 -W 0.05 ${INNER[family].far} >/dev/null 2>&1`;
      return left.spawn(`sender ${family}`, ['sh', '-c', `while :; do ${ping}; sleep 0.01; done`]);
    });
    for (const sender of senders) lab.defer(() => sender.stop('SIGKILL'));
    await action();
    await Promise.all(senders.map((sender) => sender.stop('SIGKILL')));
    await capture.stop();
    expect(await capture.packets(ANY_CLEAR)).toEqual([]);
  };

  it('after the tunnel: it is degraded and refuses what has no source, until they are there', async () => {
    const { left, ours, client } = gateways;
    await left.ip(['addr flush dev lan0 scope global']);
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    await withoutClear(async () => {
      expect(await degraded(1)).toEqual([
        expect.stringMatching(
          /^this host has no address in 10\.1\.0\.0\/24, fd01::\/64: its own packets to 10\.2\.0\.0\/24, fd02::\/64 are refused/,
        ),
      ]);
      expect((await ours.command(['status', NAME])).stdout).toContain(`${NAME}: up, degraded, device stun-${NAME}`);
      expect((await ours.command(['list'])).stdout).toMatch(/active \(up, degraded\)/);
      expect(await both()).toEqual([0, 0]);
      // Other hosts are carried: they need no address of this one but to find it.
      await left.ip(['route add 10.1.0.0/24 dev lan0']);
      await client.ip([`neigh replace 10.1.0.1 dev eth0 lladdr ${await macOf('lan0')}`]);
      expect(await knock(client, INNER[4].client, INNER[4].far)).toBe(3);
      await left.ip(LAN.map((address) => `addr add ${address} dev lan0 nodad`));
      await sources(['10.1.0.1', 'fd01::1']);
      await degraded(0);
      await carried();
    });
    expect((await ours.command(['list'])).stdout).toMatch(/active \(up\)/);
    // Once for both families, and once for the one that still lacks its address when the other has it.
    expect(ours.log().match(/"msg":"this host has no address/g)!.length).toBeLessThanOrEqual(2);
    expect(ours.log()).toContain('resolved: this host has no address');
    await stopBoth(gateways);
    expect(await leftovers(left)).toBe('');
  });

  it('that change are the new source at once, and no other program is blamed', async () => {
    const { left, ours } = gateways;
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    await withoutClear(async () => {
      await sources(['10.1.0.1', 'fd01::1']);
      await left.ip(['addr add 10.1.0.20/24 dev lan0', 'addr add fd01::20/64 dev lan0 nodad']);
      await left.ip(['addr del 10.1.0.1/24 dev lan0', 'addr del fd01::1/64 dev lan0']);
      await left.ip(['addr add 10.1.0.20/24 dev lan0']).catch(() => undefined);
      await sources(['10.1.0.20', 'fd01::20']);
      await carried();
    });
    expect(ours.log()).toMatch(
      /the addresses of this host changed: its own packets without a source are now sent from/,
    );
    await stopBoth(gateways);
  });

  it('that go and return are given back, also when IPv6 first looks for duplicates', async () => {
    const { left, ours } = gateways;
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    await withoutClear(async () => {
      await left.ip(LAN.map((address) => `addr del ${address} dev lan0`));
      await sources(['refused', 'refused']);
      // Its own packets, and those for the LAN.
      await degraded(2);
      expect(await both()).toEqual([0, 0]);
      await left.ip(LAN.map((address) => `addr add ${address} dev lan0`));
      await sources(['10.1.0.1', 'fd01::1'], DETECTION);
      await degraded(0);
      await carried();
    });
    await stopBoth(gateways);
  });

  it.each([
    { what: 'is set down', signal: undefined },
    { what: 'ends with a daemon that is killed', signal: 'SIGKILL' },
    { what: 'ends with a daemon that is stopped', signal: 'SIGTERM' },
  ] as const)('are no way around a device that $what, whatever source the host would choose', async ({ signal }) => {
    const { left, right, ours } = gateways;
    const device = `stun-${NAME}`;
    // One that the policy is not for. It shares more bits with the other side than the LAN's, so it is what the kernel
    // chooses (RFC 6724 section 5, rule 8), and what it sends has a way there.
    await left.ip(['addr add fd03::1/64 dev eth0 nodad']);
    await right.ip(['route add fd03::/64 via 2001:db8::1']);
    expect(await knock(left, 'fd03::1', INNER[6].far)).toBe(3);
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    await withoutClear(async () => {
      await carried();
      if (signal === undefined) await left.ip([`link set ${device} down`]);
      else await ours.stop(signal);
      expect(await both()).toEqual([0, 0]);
    });
    await left.ip(['addr del fd03::1/64 dev eth0']);
    await right.ip(['route del fd03::/64']);
    if (signal === undefined) await left.ip([`link set ${device} up`]);
    else await ours.startDaemon();
    await ours.up(NAME, 30_000);
    await carried();
    await stopBoth(gateways);
    expect(await leftovers(left)).toBe('');
  });

  /** Sends without a source all the time and flushes the rules again and again. Returns what passed in the clear, and what was dropped. */
  const flushed = async (
    families: readonly (4 | 6)[],
    signal?: 'SIGKILL' | 'SIGTERM',
  ): Promise<{ clear: readonly string[]; dropped: number }> => {
    const { lab, left, ours } = gateways;
    const capture = await Capture.start(lab, left, 'eth0');
    const pings = families.map((family) =>
      left.spawn(`ping ${family}`, ['ping', '-n', '-q', '-i', '0.005', '-W', '1', INNER[family].far]),
    );
    for (const ping of pings) lab.defer(() => ping.stop('SIGKILL'));
    // They begin while they have a way.
    await sleep(100);
    if (signal !== undefined) await ours.stop(signal);
    for (let times = 0; times < FLUSHES; times++) {
      await left.exec(['sh', '-c', FLUSH_RULES]);
      await sleep(100);
    }
    const dropped = await fenceDrops();
    await Promise.all(pings.map((ping) => ping.stop('SIGINT')));
    await capture.stop();
    lab.log('flushed', () => `${dropped} dropped; ${pings.map(({ output }) => output).join('')}`);
    return { clear: await capture.packets(ANY_CLEAR), dropped };
  };

  it.each([
    { what: 'while the daemon runs', signal: undefined },
    { what: 'after it was killed', signal: 'SIGKILL' },
    { what: 'after it was stopped', signal: 'SIGTERM' },
  ] as const)('pass nothing in the clear when another program flushes the rules $what', async ({ signal }) => {
    const { left, ours } = gateways;
    // Without rules packets without a source get that of the line, and have a way both ways.
    expect(await both()).toEqual([2, 2]);
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    await carried();
    const { clear, dropped } = await flushed(FAMILIES, signal);
    expect(clear).toEqual([]);
    // Of two families, two hundred a second, as fast as the machine is.
    expect(dropped).toBeGreaterThan(signal === undefined ? 0 : 20);
    if (signal !== undefined) await ours.startDaemon();
    await ours.up(NAME, 30_000);
    await carried();
    await stopBoth(gateways);
    expect(await leftovers(left)).toBe('');
  });

  it('pass nothing in the clear to everywhere, where the policy discards what they have no entry for', async () => {
    const { ours } = gateways;
    const everywhere: Entry = { name: 'all', from: INNER[4].left, to: '0.0.0.0/0' };
    const rest: Entry = { name: 'rest', from: OUTER.left[4], to: '0.0.0.0/0', action: 'discard', priority: -9 };
    await startBoth(gateways, [everywhere, rest]);
    await ours.up(NAME);
    await carried4();
    const { clear, dropped } = await flushed([4], 'SIGKILL');
    expect(clear).toEqual([]);
    expect(dropped).toBe(0);
    expect(await fenceDrops('discarded')).toBeGreaterThan(20);
    await ours.startDaemon();
    await ours.up(NAME, 30_000);
    await stopBoth(gateways);
  });

  it('that the policy does not know send nothing to the other side, unless an entry lets them pass', async () => {
    const { left, ours } = gateways;
    const fromLine = (): Promise<number[]> =>
      Promise.all(FAMILIES.map((family) => knock(left, OUTER.left[family], INNER[family].far)));
    const explained = async (): Promise<string> => {
      const ends = ['--src', OUTER.left[4], '--dst', INNER[4].far, '--proto', 'icmp'];
      return (await ours.command(['explain', NAME, ...ends], { check: false })).stdout;
    };
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    expect(await fromLine()).toEqual([0, 0]);
    expect(await fenceDrops()).toBe(6);
    expect(await explained()).toContain("action='none'");
    await stopBoth(gateways);
    const exceptions = FAMILIES.map(
      (family): Entry => ({ name: `own${family}`, from: OUTER.left[family], to: INNER[family].right, action: 'none' }),
    );
    await startBoth(gateways, [...NETWORKS, ...exceptions]);
    await ours.up(NAME);
    expect(await fromLine()).toEqual([3, 3]);
    expect(await fenceDrops()).toBe(0);
    expect(await explained()).toContain('It is sent in the clear, as the policy says');
    await stopBoth(gateways);
  });

  /** Packets that the fence dropped, because they would have left in the clear or for another reason. */
  async function fenceDrops(reason = 'clear-out'): Promise<number> {
    const { stdout } = await gateways.left.exec(['nft', '-j', 'list', 'counters', 'table', 'inet', 'sectunnel']);
    const { nftables } = JSON.parse(stdout) as { nftables: { counter?: { name: string; packets: number } }[] };
    const counters = nftables.flatMap(({ counter }) =>
      counter?.name.endsWith(`_${reason}`) === true ? [counter.packets] : [],
    );
    return counters.reduce((sum, packets) => sum + packets, 0);
  }

  async function macOf(device: string): Promise<string> {
    const { stdout } = await gateways.left.exec(['cat', `/sys/class/net/${device}/address`]);
    return stdout.trim();
  }
});
