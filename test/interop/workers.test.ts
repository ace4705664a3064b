/**
 * Worker threads that carry the packets: they are told of in the status, a rekeying loses nothing, and when one ends in
 * the middle of traffic another goes on with the same SAs.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { projectRoot } from '../support/lab/root.ts';
import { burst, ping, startEcho } from '../support/lab/traffic.ts';
import { transfer } from '../support/lab/transfer.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { addInner, ECHO_PORT, LINE } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const NAME = 'threads';
const TUNNEL = suiteTunnel(NAME, SUITES[0]!);
const PRELOAD = fileURLToPath(new URL('../support/lab/end-worker.mjs', import.meta.url));
const [SOURCE, DESTINATION] = [LEFT[4].inner, RIGHT[4].inner];
const PORT = 7300;

const NEEDS = ['namespaces', 'build'] as const;

describeInterop('a pair of worker threads', NEEDS, () => carry(1));
describeInterop('two pairs of worker threads', NEEDS, () => carry(2));

describeInterop('worker threads that wait for packets', ['build'], () => {
  it('do not keep a program from ending at once', () => {
    const built = (path: string): string =>
      JSON.stringify(new URL(`dist/${path}`, pathToFileURL(`${projectRoot()}/`)).href);
    const program = `
      const { TunnelHost } = await import(${built('host/host.js')});
      const { nodeProvider } = await import(${built('crypto/node/provider.js')});
      const { linuxUdp } = await import(${built('tun/udp/linux.js')});
      const workers = { pairs: 2 };
      const host = new TunnelHost({ network: linuxUdp(), crypto: nodeProvider, secretFor: () => undefined, workers });
      const threads = () => host.workers().filter(({ cpu }) => cpu > 0).length;
      while (threads() < 4) await new Promise((resolve) => setTimeout(resolve, 20));
      // Longer than it takes them to have nothing to do.
      setTimeout(() => process.exit(7), 1_000);
    `;
    const folder = mkdtempSync(join(tmpdir(), 'workers-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const file = join(folder, 'program.mjs');
    writeFileSync(file, program);
    const { status, stderr } = spawnSync(process.execPath, [file], { encoding: 'utf8', timeout: 30_000 });
    expect([status, stderr]).toEqual([7, '']);
  });
});

function carry(pairs: number): void {
  let left: Namespace;
  let right: Namespace;
  let ends: { left: Ours; right: Ours };

  useLab(async (lab) => {
    [left, right] = [await lab.namespace('left'), await lab.namespace('right')];
    await cable(
      { namespace: left, device: LINE, addresses: [`${LEFT[4].outer}/24`] },
      { namespace: right, device: LINE, addresses: [`${RIGHT[4].outer}/24`] },
    );
    await addInner(left, LEFT);
    await addInner(right, RIGHT);
    await startEcho(lab, right, '::', ECHO_PORT);
    const options = { nodeArguments: ['--import', PRELOAD], arguments: ['--workers', String(pairs)] };
    ends = {
      left: await Ours.start(lab, left, options),
      right: await Ours.start(lab, right, { arguments: ['--workers', String(pairs)] }),
    };
    await ends.right.load(TUNNEL, 'right', { start: 'respond' });
    await ends.left.load(TUNNEL, 'left', { start: 'initiate' });
    await ends.left.up(NAME);
    await ends.right.up(NAME);
  });

  const pings = (): Promise<number> => ping(left, { source: SOURCE, destination: DESTINATION, count: 3 });

  /** How often workers of a role were started again at the left end. */
  const restarts = async (role: 'send' | 'receive'): Promise<number> => {
    const { workers } = await ends.left.status();
    return workers.threads.filter((thread) => thread.role === role).reduce((sum, thread) => sum + thread.restarts, 0);
  };

  it('are told of, and carry what there is', async () => {
    const { workers } = await ends.left.status();
    expect(workers.mode).toBe(pairs === 1 ? '1 pair' : `${pairs} pairs`);
    expect(workers.threads.map(({ role, running }) => [role, running])).toEqual([
      ...new Array(pairs).fill(['send', true]),
      ...new Array(pairs).fill(['receive', true]),
    ]);
    const before = (await ends.left.single(NAME)).child;
    expect(await pings()).toBe(3);
    const after = (await ends.left.single(NAME)).child;
    expect([after.packetsOut - before.packetsOut, after.packetsIn - before.packetsIn]).toEqual([3, 3]);
    const options = { source: SOURCE, destination: DESTINATION, port: PORT, bytes: 20_000_000, timeout: 20_000 };
    const { sent, arrived } = await transfer(left, right, options);
    expect(arrived).toBe(sent);
    expect((await ends.left.command(['status'])).stdout).toContain(`workers: ${workers.mode}; send: `);
  });

  it('carry many flows, each in its order', async () => {
    const { child } = await ends.left.single(NAME);
    const flow = { source: SOURCE, destination: DESTINATION, port: ECHO_PORT, count: 25 };
    const bursts = await Promise.all(Array.from({ length: 8 }, () => burst(left, flow)));
    expect(bursts.map(({ received }) => received)).toEqual(new Array(8).fill(25));
    const streams = Array.from({ length: 4 }, (_, i) =>
      transfer(left, right, {
        source: SOURCE,
        destination: DESTINATION,
        port: PORT + 1 + i,
        bytes: 2_000_000,
        timeout: 20_000,
      }),
    );
    for (const { sent, arrived } of await Promise.all(streams)) expect(arrived).toBe(sent);
    const after = (await ends.left.single(NAME)).child;
    expect(after.packetsOut - child.packetsOut).toBeGreaterThan(8 * 25);
    expect(after.packetsIn - child.packetsIn).toBeGreaterThan(8 * 25);
    for (const end of [ends.left, ends.right]) expect((await end.tunnel(NAME)).drops).toEqual({});
  });

  it.each([
    ['sends', 'SIGUSR2', 'send'],
    ['receives', 'SIGWINCH', 'receive'],
  ] as const)('another takes the place of one that %s, with the same SAs', async (_, signal, role) => {
    const { ike, child } = await ends.left.single(NAME);
    const former = await restarts(role);
    // One that is blocked in a system call ends with the next packet that it gets.
    const traffic = burst(left, { source: SOURCE, destination: DESTINATION, port: ECHO_PORT, count: 200, pause: 8 });
    process.kill(ends.left.pid, signal);
    await waitFor('another worker', async () => ((await restarts(role)) > former ? true : undefined));
    const { received } = await traffic;
    expect(await waitFor('the tunnel to carry again', async () => ((await pings()) === 3 ? true : undefined))).toBe(
      true,
    );
    const now = await ends.left.single(NAME);
    expect([now.ike.spiInitiator, now.child.spiIn, now.child.spiOut]).toEqual([
      ike.spiInitiator,
      child.spiIn,
      child.spiOut,
    ]);
    // What it counted is not forgotten, and the other end has seen no sequence number twice.
    expect(now.child.packetsOut).toBeGreaterThan(child.packetsOut + received / 2);
    expect((await ends.right.tunnel(NAME)).drops).toEqual({});
    expect(ends.left.log()).toContain(`that ${role}s packets has ended (`);
    expect((await ends.left.status()).counters.bug ?? 0).toBe(0);
  });

  it('lose no packet while SAs are replaced', async () => {
    const lifetimes = { ikeLifetime: { soft: 600, hard: 900 }, espLifetime: { soft: 1, hard: 60 } };
    for (const end of [ends.left, ends.right]) await end.reset();
    await ends.right.load(TUNNEL, 'right', { start: 'respond' });
    await ends.left.load(TUNNEL, 'left', { start: 'initiate', ...lifetimes });
    await ends.left.up(NAME);
    await ends.right.up(NAME);
    const first = (await ends.left.single(NAME)).child.spiIn;
    const result = await burst(left, {
      source: SOURCE,
      destination: DESTINATION,
      port: ECHO_PORT,
      count: 600,
      pause: 5,
    });
    expect(result.received).toBe(600);
    expect(
      (await ends.left.tunnel(NAME)).ikeSas.flatMap((sa) => sa.children.map((child) => child.spiIn)),
    ).not.toContain(first);
  });

  it('let go of everything at the end', async () => {
    expect([await ends.left.stop(), await ends.right.stop()]).toEqual([0, 0]);
  });
}
