/** What other programs do to the fence in a kernel is found by its content, and put right at once. */
import { spawn, spawnSync } from 'node:child_process';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, type MockInstance, vi } from 'vitest';
import { parseAddress, prefixRange } from '../../../src/base/address.ts';
import type { FenceEntry, TunnelFence } from '../../../src/hostnet/fence/fence.ts';
import { LinuxFence } from '../../../src/hostnet/fence/linux.ts';
import { NftChannel } from '../../../src/hostnet/nft/channel.ts';
import { missing } from '../../support/lab/needs.ts';
import { enterNewNamespace } from '../../tun/namespace.ts';

const TABLE = 'inet sectunnel';

function entries(remote: string): FenceEntry[] {
  const [local, other] = ['10.1.0.0/24', remote].map((text) => {
    const [address, length] = text.split('/');
    return prefixRange(parseAddress(address!)!, Number(length));
  });
  return [{ action: 'guard', local: local!, remote: other! }];
}

const tunnel = (device: string, remote: string): TunnelFence => ({
  kind: 'tunnel',
  beside: [],
  device,
  own: { peer: parseAddress('10.9.0.2'), ports: [500, 4500], peerPorts: [500, 4500] },
  outbound: entries(remote),
  inbound: entries(remote),
  anySource: [],
  marked: [],
});

/** As another program changes it. */
function change(...lines: readonly string[]): void {
  const { status, stderr } = spawnSync('nft', ['-f', '-'], { input: `${lines.join('\n')}\n`, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

/** What stands, whatever the order in which it was made. */
function listing(): string {
  const listed = spawnSync('nft', ['-s', 'list', 'table', 'inet', 'sectunnel'], { encoding: 'utf8' }).stdout;
  const [head, ...blocks] = listed.replace(/\n}\s*$/, '').split(/\n+(?=\t\w)/);
  return [head, ...blocks.map((block) => block.trim()).sort()].join('\n');
}

/** Has another program change something after each commit of ours, before it is read back. */
function meddleAfterCommits(meddle: () => void): MockInstance {
  const { commit } = NftChannel.prototype;
  return vi.spyOn(NftChannel.prototype, 'commit').mockImplementation(async function (this: NftChannel, text) {
    await commit.call(this, text);
    meddle();
  });
}

async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setTimeout(resolve, 1));
}

describe.skipIf(missing(['namespaces', 'nftables']).length > 0)('a fence that other programs change', () => {
  let leave: () => void;
  let fence: LinuxFence;
  let heard: number;
  let whole: string;
  /** The id of the part of the tunnel `a`. */
  let id: string;

  beforeAll(() => {
    leave = enterNewNamespace();
  });
  afterAll(() => leave());

  beforeEach(async () => {
    fence = new LinuxFence();
    heard = 0;
    fence.watch(() => heard++);
    await fence.set('tunnel:a', tunnel('stun0', '10.2.0.0/24'));
    await fence.set('tunnel:b', tunnel('stun1', '10.3.0.0/24'));
    await fence.set('bridge:lan', { kind: 'bridge', bridge: 'virbr9', devices: ['stun0'], closed: true, dns: false });
    await fence.set('network:lan', { kind: 'untranslated', bridge: 'virbr9', device: 'stun0' });
    whole = listing();
    id = /chain (t[0-9a-f]{12})_out \{\n[^}]*10\.2\.0/.exec(whole)![1]!;
    await turns();
    await fence.mend('reported');
    heard = 0;
  });
  afterEach(async () => {
    await fence.close();
    change('flush ruleset');
  });

  const chain = (name: string, hook: string): string => `add chain ${TABLE} ${name} { ${hook} }`;

  it.each([
    ['all rules flushed', () => [`flush table ${TABLE}`], /^chain input: \d+ of \d+ rules missing$/],
    ['a chain flushed', () => [`flush chain ${TABLE} ${id}_out`], /^chain out of tunnel a: 1 of 1 rules missing$/],
    ['the table deleted', () => [`delete table ${TABLE}`], /^table inet sectunnel: missing$/],
    ['everything deleted', () => ['flush ruleset'], /^table inet sectunnel: missing$/],
    ['accept in front', () => [`insert rule ${TABLE} output accept`], /^chain output: 1 added to \d+ rules$/],
    ['return in front of a part', () => [`insert rule ${TABLE} ${id}_out return`], /^chain out of tunnel a: 1 added/],
    [
      'a rule replaced by another',
      () => [`flush chain ${TABLE} ${id}_out`, `add rule ${TABLE} ${id}_out accept`],
      /^chain out of tunnel a: rules changed$/,
    ],
    [
      'a policy',
      () => [chain('output', 'type filter hook postrouting priority 80; policy drop;')],
      /^chain output: properties/,
    ],
    [
      'a base chain of another priority',
      () => [
        ...['flush', 'delete'].map((verb) => `${verb} chain ${TABLE} output`),
        chain('output', 'type filter hook output priority 300; policy accept;'),
        `add rule ${TABLE} output accept`,
      ],
      /^chain output: \d+ of \d+ rules missing$/,
    ],
    [
      'a base chain without a hook',
      () => [...['flush', 'delete'].map((verb) => `${verb} chain ${TABLE} forward`), `add chain ${TABLE} forward`],
      /^chain forward: \d+ of \d+ rules missing$/,
    ],
    [
      'a base chain deleted',
      () => ['flush', 'delete'].map((verb) => `${verb} chain ${TABLE} forward`),
      /^chain forward: missing$/,
    ],
    [
      'a chain of translation deleted',
      () => ['flush', 'delete'].map((verb) => `${verb} chain ${TABLE} postrouting`),
      /^chain postrouting: missing$/,
    ],
    [
      'a table that sleeps',
      () => [`add table ${TABLE} { flags dormant; }`],
      /^table inet sectunnel: properties changed$/,
    ],
    ['a map flushed', () => [`flush map ${TABLE} in4`], /^set in4: 2 of 2 elements missing$/],
    [
      'an element deleted',
      () => [`delete element ${TABLE} out4 { 10.1.0.0/24 . 10.2.0.0/24 }`],
      /^set out4: 1 of 2 elements missing$/,
    ],
    [
      'an element changed',
      () => [
        `delete element ${TABLE} out4 { 10.1.0.0/24 . 10.2.0.0/24 }`,
        `add element ${TABLE} out4 { 10.1.0.0/24 . 10.2.0.0/24 : accept }`,
      ],
      /^set out4: elements changed$/,
    ],
    [
      'a chain of their own, and a jump to it',
      () => [`add chain ${TABLE} own`, `add rule ${TABLE} own accept`, `insert rule ${TABLE} output jump own`],
      /^chain own: added$/,
    ],
    ['a set of their own', () => [`add set ${TABLE} own { type ipv4_addr; }`], /^set own: added$/],
  ] as const)('has %s, and is whole again', async (_, lines, found) => {
    change(...lines());
    await expect.poll(() => heard, { interval: 1 }).toBeGreaterThan(0);
    const mended = await fence.mend('reported');
    expect(listing()).toBe(whole);
    expect(mended.found[0]).toMatch(found);
    expect(mended.by).toEqual([expect.stringMatching(/^nft, process \d+$/)]);
    // Our own change wakes nothing.
    heard = 0;
    await turns();
    expect(heard).toBe(0);
    expect((await fence.mend('everything')).found).toEqual([]);
  });

  it('is not checked for changes to other tables, nor listed when no change was reported', async () => {
    for (let times = 0; times < 5; times++) change('add table inet other', 'add chain inet other input');
    change('flush table inet other', 'add table ip sectunnel', 'delete table ip sectunnel');
    await turns();
    expect(heard).toBe(0);
    change('delete table inet other');
    await fence.set('tunnel:c', tunnel('stun2', '10.4.0.0/24'));
    await turns();
    expect([heard, (await fence.mend('reported')).found]).toEqual([0, []]);
  });

  it('is compared to find changes, where none can be reported', async () => {
    const deaf = new LinuxFence();
    await deaf.set('tunnel:c', tunnel('stun2', '10.4.0.0/24'));
    change(`flush map ${TABLE} out4`);
    expect((await deaf.mend()).found).toEqual([expect.stringMatching(/^set out4: /)]);
    change(`insert rule ${TABLE} input accept`);
    // What it changes itself builds on what should stand.
    await deaf.set('tunnel:d', tunnel('stun3', '10.5.0.0/24'));
    expect(listing()).not.toMatch(/policy accept;\n\t\taccept/);
    expect((await deaf.mend()).found).toEqual([expect.stringMatching(/^chain input: 1 added to /)]);
    await deaf.set('tunnel:d', undefined);
    await deaf.close();
  });

  it('keeps what a program before it left, until that is set or let go', async () => {
    const next = new LinuxFence();
    await next.set('tunnel:a', tunnel('stun0', '10.2.0.0/24'));
    change(`add set ${TABLE} own { type ipv4_addr; }`, `flush chain ${TABLE} ${id}_out`);
    expect((await next.mend()).found).toEqual(['chain out of tunnel a: 1 of 1 rules missing', 'set own: added']);
    expect(listing()).toMatch(/10\.3\.0\.0\/24/);
    await next.reconcile('tunnel', []);
    expect(listing()).not.toMatch(/10\.3\.0\.0\/24/);
    await next.close();
  });

  it('replaces what a version with other hooks left', async () => {
    change(
      `delete table ${TABLE}`,
      `add table ${TABLE}`,
      chain('output', 'type filter hook output priority -10; policy accept;'),
      `add rule ${TABLE} output oifname "lo" accept`,
    );
    const later = new LinuxFence();
    await later.set('tunnel:a', tunnel('stun0', '10.2.0.0/24'));
    expect(listing()).toMatch(/chain output \{\n\t\ttype filter hook postrouting priority 80;/);
    expect(listing()).not.toContain('hook output');
  });

  it('is made anew when another program changed it between our change and reading it back', async () => {
    const meddled = new LinuxFence();
    const meddling = meddleAfterCommits(() => change(`flush chain ${TABLE} output`));
    await meddled.set('tunnel:a', tunnel('stun0', '10.2.0.0/24'));
    expect(listing()).not.toMatch(/chain output \{[^}]* vmap @out4/);
    meddling.mockRestore();
    await meddled.mend();
    expect(listing()).toMatch(/chain output \{[^}]* vmap @out4/);
    expect((await meddled.mend()).found).toEqual([]);
    await meddled.close();
  });

  it('is compared as a whole when more changed than could be reported', async () => {
    change('add table inet other', 'add chain inet other some');
    const rules = Array.from(
      { length: 30_000 },
      (_, i) => `add rule inet other some tcp dport ${i + 1} counter accept`,
    );
    change(`flush chain ${TABLE} ${id}_out`, ...rules);
    await expect.poll(() => heard, { interval: 1 }).toBeGreaterThan(0);
    expect((await fence.mend('reported')).found).toContain('chain out of tunnel a: 1 of 1 rules missing');
    expect(listing()).toBe(whole);
  });

  it('keeps counting where it was', async () => {
    change(
      `flush table ${TABLE}`,
      `delete counter ${TABLE} ${id}_clear-out`,
      `add counter ${TABLE} ${id}_clear-out { packets 7 bytes 9 }`,
    );
    await fence.mend();
    expect((await fence.counters()).get('tunnel:a')).toMatchObject({ 'clear-out': 7 });
    change(`delete table ${TABLE}`);
    await fence.mend();
    expect((await fence.counters()).get('tunnel:a')).toMatchObject({ 'clear-out': 7 });
  });

  it('reports why it cannot be restored, and is restored when it can be', async () => {
    // A table that a program owns is changed by no other, and ends with it.
    const owner = spawn('nft', ['-i'], { stdio: ['pipe', 'ignore', 'ignore'] });
    const ended = new Promise((resolve) => owner.on('close', resolve));
    owner.stdin.write(`delete table ${TABLE}; add table ${TABLE} { flags owner; }\n`);
    await expect.poll(() => listing(), { interval: 5 }).toContain('flags owner');
    await expect(fence.mend('reported')).rejects.toThrow(/another program owns the table/);
    await expect(fence.mend('reported')).rejects.toThrow(/another program owns the table/);
    owner.stdin.end();
    await ended;
    // The kernel tells nobody of that: it is compared because it could not be put right before.
    await fence.mend('reported');
    expect(listing()).toBe(whole);
  });
});
