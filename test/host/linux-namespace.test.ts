/** A network namespace in which tunnels stand, in a kernel: what is put up without a device, taken over and taken away. */
import { spawnSync } from 'node:child_process';
import { beforeAll, describe, expect, it } from 'vitest';
import { parseDocument } from '../../src/config/parse.ts';
import { FenceAloneError, LinuxNamespace } from '../../src/host/linux-namespace.ts';
import { TableReader } from '../../src/hostnet/fence/content.ts';
import { NftChannel } from '../../src/hostnet/nft/channel.ts';
import { unresolvedDevicePlan } from '../../src/plan/device.ts';
import { address, tunnelDocument } from '../support/daemon.ts';
import { missing } from '../support/lab/needs.ts';
import { enterNewNamespace, ipCommand } from '../tun/namespace.ts';

const wants = missing(['namespaces', 'nftables']);

const ruleset = (): string => spawnSync('nft', ['list', 'ruleset'], { encoding: 'utf8' }).stdout;
const rules = (): string => ipCommand('rule', 'show');
const namespace = (): LinuxNamespace => new LinuxNamespace(undefined, undefined, () => undefined);
const LAN = unresolvedDevicePlan(parseDocument(tunnelDocument()));
const OTHER = unresolvedDevicePlan(parseDocument(tunnelDocument({ name: 'other', inner: ['10.3.0.0', '10.4.0.0'] })));
const HOSTS = unresolvedDevicePlan(
  parseDocument(
    tunnelDocument({ name: 'hosts', inner: ['192.0.2.1', '192.0.2.2'] })
      .replaceAll("prefixlen='24'", "prefixlen='32'")
      .replace("mode='tunnel'", "mode='transport'"),
  ),
);

describe.skipIf(wants.length > 0)('what stands of tunnels without a device', () => {
  beforeAll(() => {
    enterNewNamespace();
    ipCommand('link', 'set', 'lo', 'up');
  });

  it('is the fence alone where rules cannot be installed yet, and is removed with the tunnel', async () => {
    const here = namespace();
    const refusal = here.raise(HOSTS);
    await expect(refusal).rejects.toThrow(FenceAloneError);
    await expect(refusal).rejects.toThrow('192.0.2.1, which is not an address of this host');
    expect(here.stands('hosts')).toBe(true);
    expect(ruleset()).toContain('192.0.2.2');
    await here.release('hosts');
    expect(here.stands('hosts')).toBe(false);
    expect(ruleset()).toBe('');
    await here.close();
  });

  it('is kept by the next program as far as it is known whose it is, and all rules while that is not known', async () => {
    const before = namespace();
    for (const plan of [LAN, OTHER]) await before.raise(plan);
    const [fence, led] = [ruleset(), rules()];
    await before.close();

    const here = namespace();
    here.takeOver('net', undefined);
    here.takeOver('other', OTHER.routing);
    await here.reconcile();
    expect([ruleset(), rules()]).toEqual([fence, led]);
    await here.release('net');
    expect(rules()).not.toContain('10.1.0.0/24');
    expect(rules()).toContain('10.3.0.0/24');
    expect(ruleset()).not.toContain('10.2.0.0');
    expect(ruleset()).toContain('10.4.0.0');
    await here.release('other');
    expect(ruleset()).toBe('');
    await here.close();
  });

  it('leaves what the host itself sends alone while its addresses there are for guests', async () => {
    const here = namespace();
    await here.raise(LAN);
    expect(ruleset()).toMatch(/10\.2\.0\.0\/24 : jump t[0-9a-f]+_hostany/);
    const removeRouting = await here.routeBridge(
      'virbr9',
      [{ address: address('10.1.0.0'), prefixLength: 24 }],
      undefined,
    );
    expect(ruleset()).not.toMatch(/: jump t[0-9a-f]+_hostany/);
    await removeRouting();
    expect(ruleset()).toMatch(/10\.2\.0\.0\/24 : jump t[0-9a-f]+_hostany/);
    await here.release('net');
    expect(ruleset()).toBe('');
    await here.close();
  });

  it('is not made again when it is raised as it stands', async () => {
    const here = namespace();
    here.watch();
    await here.raise(LAN);
    // What is made again has new handles.
    const handles = (): string => spawnSync('nft', ['-a', 'list', 'ruleset'], { encoding: 'utf8' }).stdout;
    const before = handles();
    await here.raise(LAN);
    expect(handles()).toBe(before);
    spawnSync('nft', ['flush', 'ruleset']);
    await here.raise(LAN);
    expect(ruleset()).toContain('10.2.0.0');
    await here.release('net');
    await here.close();
  });

  it('is fenced for many at once, in as many commits as for two', async () => {
    const channel = new NftChannel((work) => work());
    const table = new TableReader('sectunnel', channel);
    const commitsFor = async (count: number): Promise<number> => {
      const here = namespace();
      here.watch();
      const names = Array.from({ length: count }, (_, at) => `many${at}`);
      const plans = names.map((name, at) =>
        unresolvedDevicePlan(parseDocument(tunnelDocument({ name, inner: ['10.5.0.0', `10.6.${at}.0`] }))),
      );
      const before = table.generation();
      expect(await here.raiseFences(plans)).toEqual(new Map());
      const commits = table.generation() - before;
      expect(names.every((name) => here.stands(name))).toBe(true);
      for (let at = 0; at < count; at++) expect(ruleset()).toContain(`10.6.${at}.0`);
      const [after, own] = [table.generation(), plans.at(-1)!];
      await here.raise(own);
      expect([table.generation(), rules()]).toEqual([after, expect.stringContaining(`10.6.${count - 1}.0`)]);
      await Promise.all(names.map((name) => here.release(name)));
      expect([ruleset(), rules()]).toEqual(['', expect.not.stringContaining('10.6.')]);
      await here.close();
      return commits;
    };
    const two = await commitsFor(2);
    expect(two).toBeGreaterThan(0);
    expect(await commitsFor(50)).toBe(two);
    channel.close();
  });

  it('is cleared whichever process installed it, and then there is nothing to clear', async () => {
    const before = namespace();
    await before.raise(LAN);
    before.routing.routeBridge('virbr9', [], LAN.routing);
    spawnSync('nft', ['delete', 'rule', 'inet', 'sectunnel', 'output']);
    spawnSync('nft', ['add', 'chain', 'inet', 'sectunnel', 'strange']);
    await before.close();
    const here = namespace();
    const { fence, rules: count, routes } = await here.clear();
    expect({ fence, some: count > 4 && routes > 0 }).toEqual({ fence: true, some: true });
    expect(ruleset()).toBe('');
    expect(rules()).not.toMatch(/virbr9|10\.1\.0\.0/);
    expect(await here.clear()).toEqual({ fence: false, rules: 0, routes: 0 });
    await here.close();
  });
});
