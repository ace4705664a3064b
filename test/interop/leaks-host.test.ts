/**
 * What a policy requires protection for never passes in the clear, out or in: not before there is an SA, not when the daemon
 * was killed, not when routes and rules are gone as well. Counted on the line.
 */
import { afterEach, expect, it } from 'vitest';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { ping } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  buildGateways,
  CLEAR,
  counted,
  documents,
  FAMILIES,
  type Gateways,
  INNER,
  KEY,
  knock,
  leftovers,
  NAME,
  NETWORKS,
  resetBoth,
  startBoth,
  stopBoth,
} from './gateways.ts';

describeInterop('what must be protected', ['namespaces', 'tcpdump', 'nftables', 'build'], () => {
  let gateways: Gateways;

  useLab(async (lab) => {
    gateways = await buildGateways(lab);
  });
  afterEach(() => resetBoth(gateways));

  /** Echo requests from both sources in both families. Returns how many were answered. */
  const asked = async (ask: typeof knock): Promise<number> => {
    const { left, client } = gateways;
    const answers = await Promise.all(
      FAMILIES.flatMap((family) => {
        const { far, gateway, client: source } = INNER[family];
        return [ask(left, gateway, far), ask(client, source, far)];
      }),
    );
    return answers.reduce((sum, count) => sum + count, 0);
  };
  const knocks = (): Promise<number> => asked(knock);
  const answers = (): Promise<number> => asked((from, source, destination) => ping(from, { source, destination }));

  const drops = async (name: string): Promise<number> => (await gateways.ours.tunnel(NAME)).drops[name] ?? 0;

  it('does not leave while the peer is silent, nor when the daemon was killed, nor without its rules', async () => {
    const { left, ours } = gateways;
    // There is a way in the clear.
    expect(await counted(gateways, CLEAR, async () => expect(await answers()).toBe(12))).toBeGreaterThanOrEqual(12);
    await ours.defineDocument(NAME, documents(NETWORKS).left);
    await ours.command(['start', NAME]);
    expect(await counted(gateways, CLEAR, async () => expect(await knocks()).toBe(0))).toBe(0);

    await ours.stop('SIGKILL');
    expect(await counted(gateways, CLEAR, async () => expect(await knocks()).toBe(0))).toBe(0);
    const flush = FAMILIES.map((family) => `while ip -${family} rule del priority 7000; do :; done`);
    await left.exec(['sh', '-c', `${flush.join('; ')} 2>&1`], { check: false });
    const everything = FAMILIES.map((family) => `ip -${family} route flush table all proto 83`);
    await left.exec(['sh', '-c', everything.join('; ')], { check: false });
    expect(await leftovers(left)).not.toMatch(/from (10|fd01)|dev stun/);
    expect(await counted(gateways, CLEAR, async () => expect(await knocks()).toBe(0))).toBe(0);

    // The next one mends everything, and tells what the fence held.
    await gateways.theirs.defineDocument(NAME, documents(NETWORKS).right);
    await gateways.theirs.command(['start', NAME]);
    await ours.startDaemon();
    await ours.up(NAME, 30_000);
    expect(await drops('fence-clear-out')).toBeGreaterThanOrEqual(12);
    expect(await counted(gateways, CLEAR, async () => expect(await answers()).toBe(12))).toBe(0);
    await stopBoth(gateways);
    expect(await leftovers(left)).toBe('');
  });

  it('does not leave while a tunnel that starts with the daemon cannot start', async () => {
    const { left, ours } = gateways;
    await ours.defineDocument(NAME, documents(NETWORKS).left);
    await ours.command(['autostart', NAME]);
    await ours.command(['secret-undefine', KEY]);
    await ours.stop();
    expect(await leftovers(left)).toBe('');
    await ours.startDaemon();
    await waitFor('the attempt to fail', async () => (await ours.tunnel(NAME)).lastFailure);
    expect(await counted(gateways, CLEAR, async () => expect(await knocks()).toBe(0))).toBe(0);
    await ours.secret('a pre-shared key', KEY);
    await ours.command(['autostart', NAME, '--disable']);
    await ours.command(['destroy', NAME], { check: false });
    expect(await leftovers(left)).toBe('');
    expect(await counted(gateways, CLEAR, async () => expect(await answers()).toBe(12))).toBeGreaterThanOrEqual(12);
  });

  it('does not come in, for the gateway or through it, and is counted', async () => {
    const { right, client, ours, theirs } = gateways;
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    // The other side has forgotten its policy.
    await theirs.command(['destroy', NAME]);
    const before = await drops('fence-clear-in');
    for (const family of FAMILIES) {
      const { far, gateway, client: source } = INNER[family];
      expect(await knock(right, far, gateway)).toBe(0);
      expect(await knock(right, far, source)).toBe(0);
    }
    expect((await drops('fence-clear-in')) - before).toBe(12);
    expect((await client.counters('eth0')).rxPackets).toBeGreaterThan(0);
    await ours.command(['destroy', NAME]);
  });

  it('has no way while its device is gone, and a new one when the daemon is back', async () => {
    const { left, ours } = gateways;
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    expect(
      await counted(gateways, CLEAR, async () => {
        await left.ip([`link del stun-${NAME}`]);
        await knocks();
      }),
    ).toBe(0);
    await ours.up(NAME, 30_000);
    expect(await answers()).toBe(12);
    // A document that cannot run here does not take its place.
    const broken = documents([...NETWORKS, { name: 'x', from: '10.1.0.0/24', to: '10.5.0.0/24' }], {
      device: "<device netns='nowhere'/>",
    }).left;
    expect((await ours.command(['update', '--live', '-'], { input: broken, check: false })).code).not.toBe(0);
    await ours.up(NAME, 30_000);
    expect(await answers()).toBe(12);
    // One that differs in its policy takes its place while the SAs that it does not concern stay, and packets pass.
    const spis = async (): Promise<string[]> =>
      (await ours.tunnel(NAME)).ikeSas.flatMap(({ children }) => children.map(({ spiIn }) => spiIn)).sort();
    const before = await spis();
    const more = [...NETWORKS, { name: 'more', from: '10.1.0.0/24', to: '10.5.0.0/24' }];
    expect(
      await counted(gateways, CLEAR, async () => {
        for (const entries of [more, NETWORKS]) {
          const { stdout } = await ours.command(['update', '--live', '-'], { input: documents(entries).left });
          expect(stdout).toMatch(/\nIKE SA kept; CHILD SAs kept: .*; (added|removed): more\n$/);
          expect(await answers()).toBe(12);
          const { stdout: routes } = await left.exec(['ip', 'route', 'show', 'table', 'all', '10.5.0.0/24']);
          expect(routes.includes('dev ')).toBe(entries === more);
        }
      }),
    ).toBe(0);
    expect(await spis()).toEqual(before);
    // Nor does anything pass while another daemon starts.
    await ours.stop('SIGKILL');
    expect(
      await counted(gateways, CLEAR, async () => {
        await Promise.all([ours.startDaemon(), knocks()]);
        await ours.up(NAME, 30_000);
      }),
    ).toBe(0);
    await stopBoth(gateways);
    expect(await leftovers(left)).toBe('');
  });
});
