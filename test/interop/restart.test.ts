/**
 * The end of a daemon opens nothing: over an orderly restart, over a start that fails and at boot no packet that is to be
 * protected passes in the clear. Counted on the line, under traffic of the gateway and of a client behind it.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import { addressCommand } from '../support/lab/namespace.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  buildGateways,
  CLEAR,
  counted,
  documents,
  FAMILIES,
  FLUSH_RULES,
  type Gateways,
  INNER,
  leftovers,
  NAME,
  NETWORKS,
  resetBoth,
  startBoth,
  stopBoth,
  traffic,
} from './gateways.ts';

/** Milliseconds in which traffic passes that is let pass: dozens of packets of each source. */
const MOMENT = 1_000;

describeInterop('the end of a daemon', ['namespaces', 'tcpdump', 'nftables', 'build'], () => {
  let gateways: Gateways;

  useLab(async (lab) => {
    gateways = await buildGateways(lab);
  });
  afterEach(() => resetBoth(gateways));

  /** Packets in the clear while something happens under traffic, which is answered before or afterwards. */
  const clearDuring = (action: () => Promise<unknown>): Promise<number> =>
    counted(gateways, CLEAR, async () => {
      const stop = traffic(gateways);
      await action();
      await sleep(MOMENT);
      expect(await stop()).toBeGreaterThan(0);
    });

  it('is seen by this lab where nothing is protected', async () => {
    expect(await clearDuring(() => Promise.resolve())).toBeGreaterThan(40);
  });

  it.each([
    { what: 'a tunnel with autostart', autostart: true, pause: 0, signal: 'SIGTERM' },
    { what: 'a tunnel with autostart, two seconds later', autostart: true, pause: 2_000, signal: 'SIGINT' },
    { what: 'a tunnel that was started by hand', autostart: false, pause: 0, signal: 'SIGINT' },
    { what: 'a tunnel that was started by hand, two seconds later', autostart: false, pause: 2_000, signal: 'SIGTERM' },
  ] as const)('opens nothing until the next one runs: $what', async ({ autostart, pause, signal }) => {
    const { ours, left } = gateways;
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    if (autostart) await ours.command(['autostart', NAME]);
    expect(
      await clearDuring(async () => {
        await sleep(MOMENT / 2);
        expect(await ours.stop(signal)).toBe(0);
        expect(await left.interfaces()).not.toContain(`stun-${NAME}`);
        expect(await leftovers(left)).toContain('table inet sectunnel');
        await sleep(pause);
        await ours.startDaemon();
        await ours.up(NAME, 30_000);
      }),
    ).toBe(0);
    if (autostart) await ours.command(['autostart', NAME, '--disable']);
    await stopBoth(gateways);
    expect(await leftovers(left)).toBe('');
  });

  it('opens nothing for a transient tunnel, which the next one lists, and destroy removes', async () => {
    const { ours, left } = gateways;
    await ours.command(['create', '-'], {
      input: documents([{ ...NETWORKS[0]!, name: 'other' }]).left.replace(NAME, 'passing'),
    });
    await ours.stop();
    expect(await leftovers(left)).toContain('table inet sectunnel');
    await ours.startDaemon();
    expect((await ours.command(['list', '--transient'])).stdout).toContain('passing');
    await ours.destroy('passing');
    expect(await leftovers(left)).toBe('');
  });

  it('lets pass what is protected only if possible, as before its first SA', async () => {
    const { ours, left } = gateways;
    await startBoth(
      gateways,
      NETWORKS.map((entry) => ({ ...entry, level: 'use' })),
    );
    await ours.up(NAME);
    expect(await clearDuring(() => Promise.resolve())).toBe(0);
    await ours.stop();
    expect(await clearDuring(() => Promise.resolve())).toBeGreaterThan(40);
    await ours.startDaemon();
    await ours.up(NAME, 30_000);
    await stopBoth(gateways);
    expect(await leftovers(left)).toBe('');
  });

  it('opens nothing where the next one cannot start, or cannot read the document', async () => {
    const { ours, left } = gateways;
    await startBoth(gateways, NETWORKS);
    await ours.up(NAME);
    const live = join(ours.folder, 'run', 'live', `${NAME}.xml`);
    const kept = join(ours.folder, 'config', `${NAME}.xml`);
    const before = readFileSync(kept);
    expect(
      await clearDuring(async () => {
        await sleep(MOMENT / 2);
        await ours.stop();
        const { code, stderr } = await ours.failToStart(['--crypto', 'openssl', '--config-dir', '/proc/no-folder']);
        expect(code).toBe(1);
        expect(stderr).toMatch(
          new RegExp(`^error: .*no-folder.*\n.*installed fences and rules stay.*sectunnel release.*: ${NAME}$`, 'm'),
        );
        for (const file of [live, kept]) writeFileSync(file, '<sectunnel');
        await ours.startDaemon();
        expect(ours.log()).toMatch(/none of the documents of this tunnel can be read.*its fence stays/);
        await sleep(MOMENT);
        // Nor does it forget the tunnel.
        await ours.stop();
        expect(readdirSync(join(ours.folder, 'run', 'live'))).toEqual([`${NAME}.xml`]);
        writeFileSync(kept, before);
        await ours.startDaemon();
        await ours.up(NAME, 30_000);
      }),
    ).toBe(0);
    await ours.stop();
    for (const file of [live, kept]) writeFileSync(file, '<sectunnel');
    await ours.startDaemon();
    expect(await leftovers(left)).toContain('table inet sectunnel');
    await ours.destroy(NAME);
    expect(await leftovers(left)).toBe('');
    writeFileSync(kept, before);
    await ours.stop();
    await ours.startDaemon();
    await gateways.theirs.destroy(NAME);
  });

  it('is not needed at boot: fences are installed before the network is up, and the daemon takes them over', async () => {
    const { ours, theirs, left } = gateways;
    await startBoth(gateways, NETWORKS);
    await ours.command(['destroy', NAME]);
    await ours.command(['autostart', NAME]);
    // Rules for transport mode want its address.
    const hosts = documents([{ name: 'hosts', from: '10.1.9.1/32', to: '192.0.2.77/32' }], { start: 'respond' });
    await ours.defineDocument('hosts', hosts.left.replace(NAME, 'hosts').replace("mode='tunnel'", "mode='transport'"));
    await ours.command(['autostart', 'hosts']);
    await ours.stop();
    expect(await leftovers(left)).toBe('');
    // A network that is not up has neither addresses nor routes.
    const addresses = { eth0: ['192.0.2.1/24', '2001:db8::1/64'], lan0: ['10.1.0.1/24', 'fd01::1/64'] };
    await left.ip(Object.keys(addresses).map((device) => `addr flush dev ${device}`));
    expect((await ours.raise()).stderr).toContain('fence installed; the daemon adds the rules');
    expect(await leftovers(left)).toContain('table inet sectunnel');
    expect(await leftovers(left)).toContain('192.0.2.77');
    expect(
      await counted(gateways, 'net 10.2.0.0/24 or net fd02::/64', async () => {
        const stop = traffic(gateways);
        await left.ip(
          Object.entries(addresses).flatMap(([device, all]) => all.map((one) => addressCommand(one, device))),
        );
        await left.ip(['route add 10.2.0.0/16 via 192.0.2.2', 'route replace fd02::/64 via 2001:db8::2']);
        await sleep(MOMENT);
        // What names no source gets that of the line then.
        await left.exec(['sh', '-c', FLUSH_RULES]);
        for (const family of FAMILIES) {
          const { stdout } = await left.exec(['ping', '-n', '-c', '3', '-i', '0.1', '-W', '1', INNER[family].far], {
            check: false,
          });
          expect(stdout).toMatch(/ 0 received/);
        }
        await ours.startDaemon();
        // While a daemon runs there is nothing to do.
        expect((await ours.raise()).stderr).toMatch(/sectunneld runs \(process \d+\) and maintains the fences itself/);
        await ours.up(NAME, 30_000);
        await sleep(MOMENT);
        expect(await stop()).toBeGreaterThan(0);
      }),
    ).toBe(0);
    await ours.command(['undefine', 'hosts']);
    await ours.command(['autostart', NAME, '--disable']);
    await ours.destroy(NAME);
    await theirs.destroy(NAME);
    expect(await leftovers(left)).toBe('');
  });

  it('is followed by release, which removes everything, any number of times, and nothing under a daemon', async () => {
    const { lab, ours, left } = gateways;
    const blue = await lab.namespace('blue');
    await startBoth(gateways, NETWORKS);
    const elsewhere = documents(NETWORKS, { device: `<device netns='${blue.name}'/>` }).left.replace(NAME, 'elsewhere');
    await ours.defineDocument('elsewhere', elsewhere);
    await ours.command(['start', 'elsewhere']);
    await ours.command(['autostart', 'elsewhere']);
    const refused = await ours.release({ check: false });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/sectunneld runs \(process \d+\).*stop it first.*or .*sectunnel destroy/);
    await ours.stop();
    for (const namespace of [left, blue]) expect(await leftovers(namespace)).toContain('table inet sectunnel');
    const { stdout, stderr } = await ours.release();
    expect(stdout).toMatch(/^Removed: the fence \(table inet sectunnel\), \d+ rules, \d+ routes$/m);
    expect(stdout).toMatch(new RegExp(`^Removed in network namespace ${blue.name}: the fence`, 'm'));
    expect(stdout).toContain(`The next daemon does not start: elsewhere, ${NAME}\n`);
    expect(stderr).toBe('note: autostart installs the fences of these tunnels again at the next boot: elsewhere\n');
    for (const namespace of [left, blue]) expect(await leftovers(namespace)).toBe('');
    expect((await ours.release()).stdout).toBe('Nothing to remove\n');
    await ours.startDaemon();
    expect((await ours.tunnel(NAME)).active).toBe(false);
    await ours.command(['destroy', 'elsewhere']);
    await ours.command(['undefine', 'elsewhere']);
    await gateways.theirs.destroy(NAME);
    for (const namespace of [left, blue]) expect(await leftovers(namespace)).toBe('');
  });
});
