/** The fence in a kernel: what it drops, counts and lets pass, and what happens to it when its program dies. */
import { spawn, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AddressRange, parseAddress, prefixRange } from '../../../src/base/address.ts';
import type { BridgeFence, FenceEntry, TunnelFence } from '../../../src/hostnet/fence/fence.ts';
import { LinuxFence } from '../../../src/hostnet/fence/linux.ts';
import { behindOptions, inTwo, plainPacket } from '../../interop/differential/packets.ts';
import { type Link, LinkSender } from '../../interop/differential/wire.ts';
import { missing } from '../../support/lab/needs.ts';
import { enterNewNamespace, ipCommand } from '../../tun/namespace.ts';

const wants = missing(['namespaces', 'nftables']);

function range(text: string): AddressRange {
  const [address, length] = text.split('/');
  return prefixRange(parseAddress(address!)!, Number(length));
}

function entry(local: string, remote: string, change: Partial<FenceEntry> = {}): FenceEntry {
  return { action: 'guard', local: range(local), remote: range(remote), ...change };
}

const tunnel = (change: Partial<TunnelFence> = {}): TunnelFence => ({
  kind: 'tunnel',
  beside: [],
  device: 'stun0',
  own: { peer: parseAddress('10.9.0.2'), ports: [500, 4500], peerPorts: [500, 4500] },
  outbound: [entry('10.9.0.0/24', '10.9.0.0/24')],
  inbound: [],
  anySource: [],
  marked: [],
  ...change,
});

function nft(...words: string[]): string {
  return spawnSync('nft', words, { encoding: 'utf8' }).stdout;
}

/** The error's code where the datagram may not leave. */
function send(destination: string, port: number, from = 0): Promise<string | undefined> {
  const socket = createSocket(destination.includes(':') ? 'udp6' : 'udp4');
  return new Promise((resolve) => {
    socket.bind(from, () =>
      socket.send('x', port, destination, (error) => {
        socket.close();
        resolve(error === null ? undefined : (error as NodeJS.ErrnoException).code);
      }),
    );
  });
}

function linkHere(name: string): Link {
  const [{ ifindex, address }] = JSON.parse(ipCommand('-j', 'link', 'show', 'dev', name)) as [LinkJson];
  const bytes = Uint8Array.from(Buffer.from(address.replaceAll(':', ''), 'hex'));
  return { namespace: '/proc/thread-self/ns/net', index: ifindex, address: bytes };
}

interface LinkJson {
  readonly ifindex: number;
  readonly address: string;
}

describe.skipIf(wants.length > 0)('the fence of nftables', () => {
  let leave: () => void;

  beforeAll(() => {
    leave = enterNewNamespace();
    ipCommand('link', 'add', 'left', 'type', 'veth', 'peer', 'name', 'right');
    for (const link of ['lo', 'left', 'right']) ipCommand('link', 'set', link, 'up');
    ipCommand('addr', 'add', '10.9.0.1/24', 'dev', 'left');
    ipCommand('addr', 'add', 'fd09::1/64', 'dev', 'left', 'nodad');
    for (const peer of ['10.9.0.2', '10.9.0.3', '10.9.0.5', 'fd09::2']) {
      ipCommand('neigh', 'add', peer, 'lladdr', '02:00:00:00:00:02', 'dev', 'left', 'nud', 'permanent');
    }
  });
  afterAll(() => leave());

  it('drops and counts what the policy guards, lets the tunnel’s own packets pass, and is gone without parts', async () => {
    const fence = new LinuxFence();
    expect(await send('10.9.0.2', 7)).toBeUndefined();
    await fence.set('tunnel:a', tunnel());
    expect(await send('10.9.0.2', 7)).toBe('EPERM');
    expect(await send('10.9.0.3', 7)).toBe('EPERM');
    expect(await send('10.9.0.2', 500, 4500)).toBeUndefined();
    expect(await send('10.9.0.3', 500, 4500)).toBe('EPERM');
    expect(await fence.counters()).toEqual(new Map([['tunnel:a', { 'clear-out': 3, 'clear-in': 0, discarded: 0 }]]));
    // Set anew: the counters go on.
    await fence.set('tunnel:a', tunnel({ outbound: [entry('10.9.0.0/24', '10.9.0.3/32')] }));
    expect(await send('10.9.0.2', 7)).toBeUndefined();
    expect(await send('10.9.0.3', 7)).toBe('EPERM');
    expect((await fence.counters()).get('tunnel:a')).toMatchObject({ 'clear-out': 4 });
    await fence.set('tunnel:a', undefined);
    expect(nft('list', 'tables')).toBe('');
    await fence.set('tunnel:never', undefined);
  });

  it('lets pass what goes by the devices of tunnels beside it, few or many, and no other', async () => {
    const fence = new LinuxFence();
    const others = (count: number): string[] => Array.from({ length: count }, (_, at) => `stun-o${at}`);
    for (const beside of [[], others(2), others(40), others(1), ['left'], [...others(40), 'left'], ['left']]) {
      await fence.set('tunnel:t', tunnel({ beside }));
      expect(await send('10.9.0.3', 7000)).toBe(beside.includes('left') ? undefined : 'EPERM');
      const sets = nft('list', 'sets', 'table', 'inet', 'sectunnel');
      expect(sets.match(/stun-o\d+/g)?.length ?? 0).toBe(beside.length > 8 ? 40 : 0);
    }
    await fence.set('tunnel:t', undefined);
    expect(nft('list', 'tables')).toBe('');
  });

  it('asks the entries in their order, by protocol and ports', async () => {
    const fence = new LinuxFence();
    const ports = (start: number, end = start): FenceEntry['remotePorts'] => ({ start, end });
    const outbound = [
      entry('10.9.0.0/24', '10.9.0.2/32', { action: 'pass', protocol: 17, remotePorts: ports(53) }),
      entry('10.9.0.0/24', '10.9.0.0/24', { protocol: 17, remotePorts: ports(50, 60), localPorts: ports(4000, 4001) }),
      entry('0.0.0.0/0', '0.0.0.0/0', { action: 'discard', protocol: 17, remotePorts: ports(65_535) }),
      entry('::/0', '::/0', { protocol: 17, remotePorts: ports(7) }),
    ];
    await fence.set('tunnel:a', tunnel({ outbound }));
    const answers = [
      await send('10.9.0.2', 53, 4000),
      await send('10.9.0.3', 53, 4000),
      await send('10.9.0.3', 53, 4002),
      await send('10.9.0.3', 60, 4001),
      await send('10.9.0.3', 65_535),
      await send('10.9.0.3', 7),
      await send('fd09::2', 7),
      await send('fd09::2', 8),
    ];
    expect(answers).toEqual([undefined, 'EPERM', undefined, 'EPERM', 'EPERM', undefined, 'EPERM', undefined]);
    expect((await fence.counters()).get('tunnel:a')).toEqual({ 'clear-out': 3, 'clear-in': 0, discarded: 1 });
    await fence.set('tunnel:a', undefined);
  });

  it('stays when its program dies, until the next one sets the same part or reconciles', async () => {
    const dead = new LinuxFence();
    await dead.set('tunnel:a', tunnel());
    await dead.set('tunnel:b', tunnel({ outbound: [entry('10.9.0.0/24', '10.9.0.3/32')] }));
    const next = new LinuxFence();
    await next.set('tunnel:a', tunnel({ outbound: [] }));
    expect(await send('10.9.0.2', 7)).toBeUndefined();
    expect(await send('10.9.0.3', 7)).toBe('EPERM');
    await next.reconcile('tunnel', ['tunnel:b']);
    expect(await send('10.9.0.3', 7)).toBe('EPERM');
    await next.reconcile('bridge', []);
    expect(await send('10.9.0.3', 7)).toBe('EPERM');
    await next.reconcile('tunnel', []);
    expect(await send('10.9.0.3', 7)).toBeUndefined();
    expect([...(await next.counters()).keys()]).toEqual(['tunnel:a']);
    await next.set('tunnel:a', undefined);
    await new LinuxFence().set('tunnel:a', tunnel());
    await new LinuxFence().set('tunnel:a', undefined);
    expect(nft('list', 'tables')).toBe('');
  });

  it('is taken over by the next program part by part, and lets pass meanwhile what is for elsewhere', async () => {
    const part = (host: string): TunnelFence => {
      const remote = `${host}/32`;
      // Of the host's own packets those that go there are dropped whatever their source.
      return tunnel({ outbound: [entry('10.8.0.0/24', remote)], anySource: [entry('0.0.0.0/0', remote)] });
    };
    const hosts = { 'tunnel:a': '10.9.0.2', 'tunnel:b': '10.9.0.3' };
    const dead = new LinuxFence();
    for (const [key, host] of Object.entries(hosts)) await dead.set(key, part(host));
    const answers = (): Promise<(string | undefined)[]> =>
      Promise.all(['10.9.0.2', '10.9.0.3', '10.9.0.5'].map((host) => send(host, 7)));
    const listed = (): string => nft('list', 'chain', 'inet', 'sectunnel', 'host');
    const [before, chain] = [await answers(), listed()];
    expect(before).toEqual(['EPERM', 'EPERM', undefined]);
    const next = new LinuxFence();
    await next.reconcile('tunnel', Object.keys(hosts));
    for (const [key, host] of Object.entries(hosts)) {
      await next.set(key, part(host));
      expect(await answers()).toEqual(before);
    }
    // In the end a map leads there alone, as before.
    expect(listed()).toBe(chain);
    expect((await next.mend()).found).toEqual([]);
    for (const key of Object.keys(hosts)) await next.set(key, undefined);
    expect(nft('list', 'tables')).toBe('');
  });

  it('comes back whole when a firewall took it away', async () => {
    const fence = new LinuxFence();
    await fence.set('tunnel:a', tunnel());
    await fence.set('tunnel:b', tunnel({ outbound: [entry('10.9.0.0/24', '10.9.0.3/32')] }));
    expect((await fence.mend()).found).toEqual([]);
    nft('flush', 'ruleset');
    expect((await fence.mend()).found).toEqual(['table inet sectunnel: missing']);
    expect(await send('10.9.0.3', 7)).toBe('EPERM');
    nft('flush', 'ruleset');
    await fence.set('tunnel:b', undefined);
    expect(await send('10.9.0.3', 7)).toBe('EPERM');
    nft('flush', 'ruleset');
    await fence.set('tunnel:a', tunnel());
    expect(await send('10.9.0.3', 7)).toBe('EPERM');
    await fence.set('tunnel:a', undefined);
    expect(nft('list', 'tables')).toBe('');
  });

  it('shows a packet to the tunnel that it concerns, and to all whose addresses overlap', async () => {
    const fence = new LinuxFence();
    const to = (remote: string): TunnelFence => tunnel({ outbound: [entry('10.9.0.0/24', remote)] });
    await fence.set('tunnel:a', to('10.9.0.3/32'));
    await fence.set('tunnel:b', to('10.9.0.4/32'));
    await fence.set('tunnel:all', to('0.0.0.0/0'));
    await fence.set('tunnel:some', to('10.9.0.4/31'));
    const rules = nft('list', 'chain', 'inet', 'sectunnel', 'output');
    expect(rules.match(/vmap @out4/g)).toHaveLength(1);
    expect(rules.match(/jump t/g)).toHaveLength(2);
    expect(rules).toMatch(/ip saddr 10.9.0.0\/24 ip daddr 10.9.0.4\/31 jump t/);
    expect(await send('10.9.0.5', 7)).toBe('EPERM');
    await fence.set('tunnel:some', undefined);
    expect(nft('list', 'map', 'inet', 'sectunnel', 'out4').match(/: jump/g)).toHaveLength(2);
    expect(await send('10.9.0.3', 7)).toBe('EPERM');
    // What was between others is not shown any more when it is for other addresses.
    await fence.set('tunnel:a', to('10.9.0.5/32'));
    await fence.set('tunnel:all', undefined);
    expect(nft('list', 'chain', 'inet', 'sectunnel', 'output')).not.toContain('jump t');
    expect([await send('10.9.0.3', 7), await send('10.9.0.2', 7)]).toEqual([undefined, undefined]);
    const counters = await fence.counters();
    expect([counters.get('tunnel:a'), counters.get('tunnel:all')]).toEqual([
      { 'clear-out': 1, 'clear-in': 0, discarded: 0 },
      undefined,
    ]);
    // The one that finds them puts all of them where they belong.
    const next = new LinuxFence();
    for (const [key, remote] of [
      ['tunnel:a', '10.9.0.3/32'],
      ['tunnel:b', '10.9.0.4/32'],
    ] as const) {
      await next.set(key, to(remote));
    }
    expect(nft('list', 'map', 'inet', 'sectunnel', 'in4').match(/: jump/g)).toHaveLength(2);
    for (const key of ['tunnel:a', 'tunnel:b']) await next.set(key, undefined);
    expect(nft('list', 'tables')).toBe('');
  });

  it('drops what the host itself sends to protected destinations, whatever the source, unless a tunnel carries it', async () => {
    const fence = new LinuxFence();
    const any = (remote: string, change: Partial<FenceEntry> = {}): FenceEntry => entry('0.0.0.0/0', remote, change);
    const to = (...anySource: readonly FenceEntry[]): TunnelFence =>
      tunnel({ outbound: [entry('10.1.0.0/24', '10.9.0.0/24')], anySource });
    const map = (): number => nft('list', 'map', 'inet', 'sectunnel', 'host4').match(/: jump/g)?.length ?? 0;
    await fence.set('tunnel:a', to(any('10.9.0.3/32')));
    await fence.set('tunnel:b', to(any('10.9.0.5/32', { protocol: 6 })));
    expect([await send('10.9.0.2', 7), await send('10.9.0.3', 7), await send('10.9.0.5', 7)]).toEqual([
      undefined,
      'EPERM',
      undefined,
    ]);
    // IKE and ESP of any tunnel are not clear text.
    expect([await send('10.9.0.3', 500, 4500), await send('10.9.0.3', 4500, 7)]).toEqual([undefined, 'EPERM']);
    expect(map()).toBe(2);
    // One look-up finds the part, whatever the number of tunnels.
    const rules = nft('list', 'chain', 'inet', 'sectunnel', 'host');
    expect(rules.match(/vmap @host/g)).toHaveLength(2);
    expect(rules).not.toContain('jump t');
    // Overlapping ones are all asked, each by its own entries.
    const passing = any('10.9.0.2/32', { action: 'pass' });
    await fence.set('tunnel:c', to(passing, any('10.9.0.0/24', { protocol: 17 })));
    expect(map()).toBe(1);
    expect([await send('10.9.0.2', 7), await send('10.9.0.3', 7), await send('10.9.0.5', 7)]).toEqual([
      undefined,
      'EPERM',
      'EPERM',
    ]);
    expect((await fence.mend()).found).toEqual([]);
    // Into tunnels of this host, known by their group.
    ipCommand('link', 'set', 'left', 'group', '83');
    expect(await send('10.9.0.3', 7)).toBeUndefined();
    ipCommand('link', 'set', 'left', 'group', '0');
    nft('flush', 'map', 'inet', 'sectunnel', 'host4');
    expect(await send('10.9.0.5', 7)).toBeUndefined();
    expect((await fence.mend()).found).toHaveLength(1);
    expect(await send('10.9.0.5', 7)).toBe('EPERM');
    await fence.set('tunnel:c', undefined);
    expect(map()).toBe(2);
    expect([await send('10.9.0.3', 7), await send('10.9.0.5', 7)]).toEqual(['EPERM', undefined]);
    // The next program finds them, and takes away what is not wanted any more.
    const next = new LinuxFence();
    await next.set('tunnel:b', to(any('10.9.0.2/32')));
    expect([await send('10.9.0.2', 7), await send('10.9.0.3', 7)]).toEqual(['EPERM', 'EPERM']);
    await next.reconcile('tunnel', []);
    expect([await send('10.9.0.2', 7), await send('10.9.0.3', 7)]).toEqual(['EPERM', undefined]);
    await next.set('tunnel:b', undefined);
    expect(nft('list', 'tables')).toBe('');
  });

  it('changes nothing when it is refused, and says why', async () => {
    const fence = new LinuxFence();
    await fence.set('tunnel:a', tunnel());
    const before = nft('list', 'ruleset');
    await expect(fence.set('tunnel:b', tunnel({ device: 'st"un' }))).rejects.toThrow("the link name 'st\"un'");
    expect(nft('list', 'ruleset')).toBe(before);
    await fence.set('tunnel:a', undefined);
    // A table that a program owns is changed by no other.
    const owner = spawn('nft', ['-i'], { stdio: ['pipe', 'ignore', 'ignore'] });
    owner.stdin.write('add table inet sectunnel { flags owner; }\n');
    const listed = (): string => nft('list', 'table', 'inet', 'sectunnel');
    await expect.poll(listed, { interval: 5 }).toContain('flags owner');
    const owned = listed();
    await expect(fence.set('tunnel:a', tunnel())).rejects.toThrow('another program owns the table inet sectunnel');
    expect(listed()).toBe(owned);
    owner.stdin.end();
    await once(owner, 'close');
  });

  it('closes a bridge to all but its tunnel, and decides by addresses alone when the entries are very many', async () => {
    const fence = new LinuxFence();
    const bridge: BridgeFence = { kind: 'bridge', bridge: 'virbr9', devices: ['stun0'], closed: true, dns: false };
    await fence.set('bridge:net', bridge);
    expect(nft('list', 'table', 'inet', 'sectunnel')).toMatch(
      /iifname "virbr9" oifname \{ ("virbr9", "stun0"|"stun0", "virbr9") \} return/,
    );
    const outbound = Array.from({ length: 1000 }, (_, i) =>
      entry('10.9.0.0/24', `10.8.${i >> 8}.${i & 0xff}/32`, { protocol: 6 }),
    );
    await fence.set('tunnel:many', tunnel({ outbound: [...outbound, entry('10.9.0.1/32', '10.9.0.3/32')] }));
    expect(nft('list', 'set', 'inet', 'sectunnel', remoteSet())).toContain('10.8.0.0-10.8.3.231');
    expect(await send('10.9.0.3', 7)).toBe('EPERM');
    expect(await send('10.9.0.2', 7)).toBeUndefined();
    await fence.set('tunnel:many', undefined);
    await fence.set('bridge:net', undefined);
    expect(nft('list', 'tables')).toBe('');
  });

  it('lets pass what stays on a bridge, whatever policies say of it', async () => {
    const fence = new LinuxFence();
    await fence.set('tunnel:all', tunnel({ outbound: [entry('10.9.0.0/24', '0.0.0.0/0')] }));
    expect(await send('10.9.0.2', 7)).toBe('EPERM');
    for (const closed of [false, true]) {
      await fence.set('network:lan', { kind: 'bridge', bridge: 'left', devices: ['stun0'], closed, dns: !closed });
      expect(await send('10.9.0.2', 7)).toBeUndefined();
    }
    await fence.set('network:lan', undefined);
    expect(await send('10.9.0.2', 7)).toBe('EPERM');
    await fence.set('tunnel:all', undefined);
  });

  it('lets guests ask no name server of the host, however they write it', async () => {
    const guest = new LinkSender(linkHere('right'), linkHere('left'));
    const ends = [parseAddress('fd09::2')!, parseAddress('fd09::1')!] as const;
    const MARKER = 7054;
    let id = 1;
    /** Which of three ways to write a datagram come to a server of the host. */
    const asked = async (port: number): Promise<string[]> => {
      const server = createSocket('udp6');
      const heard: number[] = [];
      server.on('message', (message) => heard.push(message.readUInt32BE(4)));
      const marker = createSocket('udp6');
      await Promise.all([once(server.bind(port, '::'), 'listening'), once(marker.bind(MARKER, '::'), 'listening')]);
      const [whole, cut, hidden] = [0, 1, 2].map((tag) => plainPacket(tag, ends, port));
      const behind = once(marker, 'message');
      guest.send([whole!, ...inTwo(cut!, id++), ...inTwo(behindOptions(hidden!), id++, 8)], ends[1]);
      guest.send([plainPacket(0, ends, MARKER)], ends[1]);
      await behind;
      await setImmediate();
      for (const socket of [server, marker]) socket.close();
      return heard.sort().map((tag) => ['whole', 'cut', 'hidden'][tag]!);
    };
    const fence = new LinuxFence();
    const bridge: BridgeFence = { kind: 'bridge', bridge: 'left', devices: ['stun0'], closed: true, dns: true };
    await fence.set('network:lan', bridge);
    expect(await asked(53)).toEqual(['whole', 'cut', 'hidden']);
    await fence.set('network:lan', { ...bridge, dns: false });
    expect(await asked(53)).toEqual([]);
    expect(await asked(5053)).toEqual(['whole', 'cut']);
    await fence.set('network:lan', undefined);
    guest.close();
  });

  it('keeps addresses as they are only where it is asked to, and finds that again', async () => {
    const fence = new LinuxFence();
    await fence.set('tunnel:a', tunnel());
    expect(nft('list', 'chains')).not.toContain('type nat');
    await fence.set('network:lan', { kind: 'untranslated', bridge: 'virbr9', device: 'stun0' });
    expect(nft('list', 'table', 'inet', 'sectunnel')).toMatch(
      /iifname "virbr9" oifname "stun0" snat ip to ip saddr[\s\S]*snat ip6 to ip6 saddr/,
    );
    await new LinuxFence().reconcile('untranslated', []);
    expect(nft('list', 'chains')).not.toContain('type nat');
    await fence.mend();
    expect(nft('list', 'chains')).toContain('type nat hook postrouting');
    await fence.set('network:lan', undefined);
    expect(nft('list', 'chains')).not.toContain('type nat');
    await fence.set('tunnel:a', undefined);
    expect(nft('list', 'tables')).toBe('');
  });

  function remoteSet(): string {
    return /set (t[0-9a-f]+_remote4)/.exec(nft('list', 'sets', 'inet'))![1]!;
  }
});
