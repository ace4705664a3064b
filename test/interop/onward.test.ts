/**
 * What came out of the tunnel for the network behind a gateway, while the link or the address of that network is gone and the only
 * route left is the default one: it does not leave in the clear, and where it would, this is told.
 */
import { afterEach, expect, it } from 'vitest';
import { Capture } from '../support/lab/capture.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  buildGateways,
  CLEAR,
  type Entry,
  FAMILIES,
  type Gateways,
  INNER,
  knock,
  leftovers,
  NAME,
  NETWORKS,
  resetBoth,
  startBoth,
  stopBoth,
} from './gateways.ts';

const LAN = ['10.1.0.1/24', 'fd01::1/64'] as const;
const DEFAULTS = ['via 192.0.2.2', 'via 2001:db8::2'] as const;
const REFUSED =
  'It comes out of the tunnel, but its network has no route of its own any more, and this host refuses it rather than send it on in the clear.';

describeInterop('what comes out of a tunnel', ['namespaces', 'tcpdump', 'nftables', 'build'], () => {
  let gateways: Gateways;

  const ip = (...commands: string[]): Promise<void> => gateways.left.ip(commands);
  const restoreLan = (): Promise<void> =>
    ip('link set lan0 up', 'addr flush dev lan0 scope global', ...LAN.map((one) => `addr add ${one} dev lan0 nodad`));

  useLab(async (lab) => {
    gateways = await buildGateways(lab);
    await ip(...DEFAULTS.map((way) => `route add default ${way}`));
  });
  afterEach(async () => {
    await resetBoth(gateways);
    await restoreLan();
  });

  const start = async (entries: readonly Entry[] = NETWORKS): Promise<void> => {
    await startBoth(gateways, entries);
    await gateways.ours.up(NAME);
  };
  const explain = async (family: 4 | 6, more: readonly string[] = []): Promise<{ code: number; text: string }> => {
    const { far, client } = INNER[family];
    const proto = family === 4 ? 'icmp' : 'icmpv6';
    const words = ['explain', NAME, '--src', far, '--dst', client, '--proto', proto, '--direction', 'in', ...more];
    const { code, stdout, stderr } = await gateways.ours.command(words, { check: false });
    return { code, text: stdout + stderr };
  };
  /** The same of a packet from the client, which goes into the tunnel. */
  const explainOut = async (family: 4 | 6): Promise<{ code: number | null; stdout: string }> => {
    const { far, client } = INNER[family];
    const out = ['explain', NAME, '--src', client, '--dst', far, '--proto', family === 4 ? 'icmp' : 'icmpv6'];
    return await gateways.ours.command(out, { check: false });
  };
  /** Echo requests from the other side to the client: how many of three are answered. */
  const reached = (family: 4 | 6): Promise<number> => knock(gateways.right, INNER[family].far, INNER[family].client);
  const allReached = (): Promise<unknown> =>
    waitFor(
      'the client to be reached',
      async () => (await Promise.all(FAMILIES.map(reached))).every((count) => count === 3) || undefined,
    );
  const degraded = async (count: number): Promise<readonly string[]> =>
    await waitFor(`${count} lines of status`, async () => {
      const texts = (await gateways.ours.tunnel(NAME)).degraded.filter((text) => text.startsWith('packets out of'));
      return texts.length === count ? texts : undefined;
    });
  /** Packets in the clear on the line while the other side sends all the time. */
  const clearDuring = async (action: () => Promise<void>): Promise<readonly string[]> => {
    const { lab, left, right } = gateways;
    const capture = await Capture.start(lab, left, 'eth0');
    const pings = FAMILIES.map((family) => {
      const { far, client } = INNER[family];
      return right.spawn(`ping ${far}`, ['ping', '-n', '-q', '-i', '0.01', '-W', '1', '-I', far, client]);
    });
    for (const ping of pings) lab.defer(() => ping.stop('SIGKILL'));
    await action();
    await Promise.all(pings.map((ping) => ping.stop('SIGINT')));
    await capture.stop();
    return await capture.packets(CLEAR);
  };

  it.each([
    ['the link goes down', 'link set lan0 down'],
    ['the addresses go', 'addr flush dev lan0 scope global'],
  ])('does not leave by the default route when %s, and this is told until the way is back', async (_, change) => {
    await start();
    await allReached();
    for (const ask of [explain, explainOut])
      for (const family of FAMILIES) expect(await ask(family)).toMatchObject({ code: 0 });
    const clear = await clearDuring(async () => {
      await ip(change);
      const [told] = await degraded(1);
      expect(told).toMatch(
        /^packets out of the tunnel for 10\.1\.0\.0\/24, fd01::\/64 are refused, as they have no route any more and/,
      );
      expect((await gateways.ours.command(['list'])).stdout).toMatch(/active \(up, degraded\)/);
      for (const family of FAMILIES) {
        const { code, text } = await explain(family);
        expect([code, text]).toEqual([5, expect.stringContaining(REFUSED)]);
        expect(await explainOut(family)).toMatchObject({
          code: 5,
          stdout: expect.stringContaining('has no route of its own any more, and replies to it are refused'),
        });
      }
    });
    expect(clear).toEqual([]);
    await restoreLan();
    await degraded(0);
    await allReached();
    for (const ask of [explain, explainOut])
      for (const family of FAMILIES) expect(await ask(family)).toMatchObject({ code: 0 });
    expect(gateways.ours.log()).not.toContain('another program');
    await stopBoth(gateways);
    expect(await leftovers(gateways.left)).toBe('');
  });

  it('stays refused while no daemon runs, and the next one knows', async () => {
    const { ours } = gateways;
    await start();
    await allReached();
    await ours.stop('SIGKILL');
    await ip('link set lan0 down');
    await ours.startDaemon();
    await ours.up(NAME);
    expect(await clearDuring(async () => void (await degraded(1)))).toEqual([]);
    expect(await explain(4)).toMatchObject({ code: 5, text: expect.stringContaining(REFUSED) });
  });

  it('leaves by the default route where the network never had another, and this is told', async () => {
    await ip('addr flush dev lan0 scope global');
    await start();
    expect((await clearDuring(() => new Promise((resolve) => setTimeout(resolve, 1_000)))).length).toBeGreaterThan(0);
    expect((await gateways.ours.tunnel(NAME)).degraded.join()).not.toContain('packets out of');
    for (const [at, family] of FAMILIES.entries()) {
      const { code, text } = await explain(family);
      expect([code, text]).toEqual([
        5,
        expect.stringContaining(
          "It comes out of the tunnel, but this host sends it on in the clear by eth0, the link of the tunnel's own packets.",
        ),
      ]);
      const [remedy] = /ip route add unreachable \S+ metric \d+/.exec(text)!;
      await gateways.left.exec(remedy!.split(' '));
      expect((await explain(family)).text).toContain('no route leads on from there');
      await gateways.left.exec(remedy!.replace('add', 'del').split(' '));
      // Said to be meant, it is.
      await ip(`route add ${INNER[family].left} ${DEFAULTS[at]}`);
      expect(await explain(family)).toMatchObject({ code: 0 });
      await ip(`route del ${INNER[family].left} ${DEFAULTS[at]}`);
    }
  });

  it('goes to a network on the link of the peer', async () => {
    await ip('addr flush dev lan0 scope global', ...LAN.map((one) => `addr add ${one} dev eth0 nodad`));
    try {
      await start();
      for (const family of FAMILIES) expect(await explain(family)).toMatchObject({ code: 0 });
      await ip(...LAN.map((one) => `addr del ${one} dev eth0`));
      await degraded(1);
      expect(await explain(4)).toMatchObject({ code: 5, text: expect.stringContaining(REFUSED) });
    } finally {
      await ip('addr flush dev eth0 to 10.1.0.0/24', 'addr flush dev eth0 to fd01::/64');
    }
  });

  it('goes by the default route where the policy is for all addresses', async () => {
    await ip('link set lan0 down');
    await start(
      FAMILIES.map((family) => ({
        name: `all${family}`,
        from: family === 4 ? '0.0.0.0/0' : '::/0',
        to: INNER[family].right,
      })),
    );
    expect(await gateways.left.exec(['ip', 'rule'])).toMatchObject({
      stdout: expect.not.stringContaining('3276[45]:'),
    });
    for (const family of FAMILIES) expect(await explain(family)).toMatchObject({ code: 0 });
  });
});
