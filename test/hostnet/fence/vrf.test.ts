/**
 * Fences of tunnels in VRFs in a kernel: that it takes them, wherever they come from and go to, and that packets of the default domain
 * are not concerned.
 */
import { spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseAddress, prefixRange } from '../../../src/base/address.ts';
import type { FenceEntry, TunnelFence } from '../../../src/hostnet/fence/fence.ts';
import { ELSEWHERE } from '../../../src/hostnet/fence/fence.ts';
import { LinuxFence } from '../../../src/hostnet/fence/linux.ts';
import { missing } from '../../support/lab/needs.ts';
import { enterNewNamespace, ipCommand } from '../../tun/namespace.ts';

const range = (text: string): FenceEntry['local'] => prefixRange(parseAddress(text)!, text.includes(':') ? 64 : 24);

/** Of both families, also for the host's own packets of any source. */
function part(vrf: string | undefined, change: Partial<TunnelFence> = {}): TunnelFence {
  const guard = (local: string, remote: string): FenceEntry => ({
    action: 'guard',
    local: range(local),
    remote: range(remote),
  });
  const entries = [guard('10.9.0.0', '10.8.0.0'), guard('fd09::', 'fd08::')];
  return {
    kind: 'tunnel',
    ...(vrf === undefined ? {} : { vrf }),
    ...{ device: `stun-${vrf}`, beside: [], own: ELSEWHERE, outbound: entries, inbound: entries, marked: [] },
    anySource: [guard('0.0.0.0', '10.8.0.0')],
    ...change,
  };
}

function nft(...words: string[]): string {
  return spawnSync('nft', words, { encoding: 'utf8' }).stdout;
}

/** Whether the host itself may send there, in the default domain. */
function maySend(): Promise<boolean> {
  const socket = createSocket('udp4');
  return new Promise((resolve) => {
    socket.send('x', 7, '10.8.0.2', (error) => {
      socket.close();
      resolve(error === null);
    });
  });
}

describe.skipIf(missing(['namespaces', 'nftables']).length > 0)('the fence of a tunnel in a VRF', () => {
  let leave: () => void;

  beforeAll(() => {
    leave = enterNewNamespace();
    ipCommand('link', 'add', 'left', 'type', 'veth', 'peer', 'name', 'right');
    for (const link of ['lo', 'left', 'right']) ipCommand('link', 'set', link, 'up');
    ipCommand('addr', 'add', '10.9.0.1/24', 'dev', 'left');
    ipCommand('route', 'add', '10.8.0.0/24', 'dev', 'left');
    ipCommand('neigh', 'add', '10.8.0.2', 'lladdr', '02:00:00:00:00:02', 'dev', 'left', 'nud', 'permanent');
  });
  afterAll(() => leave());

  it('does not concern the same addresses in the default domain', async () => {
    const fence = new LinuxFence();
    for (const vrf of ['blue', 'red']) await fence.set(`tunnel:${vrf}`, part(vrf));
    expect(await maySend()).toBe(true);
    await fence.set('tunnel:here', part(undefined));
    expect(await maySend()).toBe(false);
    await fence.set('tunnel:here', undefined);
    expect(await maySend()).toBe(true);
    const elements = nft('list', 'map', 'inet', 'sectunnel', 'vrfout4');
    for (const vrf of ['blue', 'red']) expect(elements).toContain(`"${vrf}" . 10.9.0.0/24 . 10.8.0.0/24`);
    expect(await fence.mend()).toEqual({ found: [], by: [] });
    for (const vrf of ['blue', 'red']) await fence.set(`tunnel:${vrf}`, undefined);
    expect(nft('list', 'tables')).toBe('');
  });

  it('has the policies of one VRF asked in turn, be they few, many, or overlapping', async () => {
    const fence = new LinuxFence();
    const [first] = part('blue').outbound;
    const many = Array.from({ length: 40 }, (_, at) => ({ ...first!, remote: range(`10.8.${2 * at}.0`) }));
    await fence.set('tunnel:a', part('blue'));
    await fence.set('tunnel:b', part('blue', { device: 'stun-b', beside: ['stun-blue'] }));
    await fence.set('tunnel:c', part('blue', { device: 'stun-c', outbound: many, inbound: many }));
    expect(nft('list', 'chain', 'inet', 'sectunnel', 'vrfforward').match(/jump v/g)?.length).toBeGreaterThan(1);
    expect(nft('list', 'chain', 'inet', 'sectunnel', 'forward')).not.toMatch(/jump v/);
    expect(
      nft('list', 'set', 'inet', 'sectunnel', 'vrfdevices')
        .match(/"stun-\w+"/g)
        ?.sort(),
    ).toEqual([...['"stun-b"', '"stun-blue"', '"stun-c"']]);
    expect(await maySend()).toBe(true);
    for (const name of ['a', 'b', 'c']) await fence.set(`tunnel:${name}`, undefined);
    expect(nft('list', 'tables')).toBe('');
  });

  it('goes to another domain with its tunnel, and back', async () => {
    const fence = new LinuxFence();
    for (const vrf of ['blue', undefined, 'red']) {
      await fence.set('tunnel:t', part(vrf));
      expect(await maySend()).toBe(vrf !== undefined);
      const chains = nft('list', 'chains', 'inet').match(/chain [tv][0-9a-f]{12}_leave/g);
      expect(chains).toEqual([expect.stringMatching(vrf === undefined ? /^chain t/ : /^chain v/)]);
    }
    await fence.set('tunnel:t', undefined);
  });

  it('is kept for the next program, which takes it over or lets it go', async () => {
    const before = new LinuxFence();
    for (const vrf of ['blue', 'red', undefined]) await before.set(`tunnel:${vrf}`, part(vrf));
    const next = new LinuxFence();
    await next.set('tunnel:blue', part('blue'));
    expect(nft('list', 'chains', 'inet').match(/chain v[0-9a-f]{12}_leave/g)).toHaveLength(2);
    expect(nft('list', 'chain', 'inet', 'sectunnel', 'forward')).not.toMatch(/jump v/);
    expect(await maySend()).toBe(false);
    await next.reconcile('tunnel', ['tunnel:blue']);
    expect(nft('list', 'chains', 'inet').match(/chain v[0-9a-f]{12}_leave/g)).toHaveLength(1);
    expect(await maySend()).toBe(true);
    await next.set('tunnel:blue', undefined);
    expect(nft('list', 'tables')).toBe('');
  });
});
