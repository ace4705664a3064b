/**
 * A daemon with more tunnels than it may have descriptors, or devices: those that there is room for run, for each of the
 * others it is said what is short, and they come up when there is room.
 */
import { expect, it } from 'vitest';
import { DaemonClient } from '../../src/control/client.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { buildMany, type ManyTunnels, nameOf, writeDocuments } from './many.ts';

const COUNT = 100;
/** Descriptors: more than the daemon needs for itself and to load its modules, and fewer than for all tunnels. */
const FEW = 160;
/** What the tunnels may not have ran out, or, as many start at once, for a moment all there is. */
const OUT = `${FEW} descriptors are allowed, and the last \\d+ are kept |No file descriptors left \\(the limit is ${FEW}\\)`;
const SHORT = new RegExp(`(?:${OUT}).*raise LimitNOFILE=`);
const TIMEOUT = 400_000;
/** Milliseconds: a tunnel that cannot start is tried again after a minute at most. */
const PATIENCE = 120_000;

describeInterop('more tunnels than there is room for', ['namespaces', 'nftables', 'build'], () => {
  let many: ManyTunnels;

  useLab(async (lab) => {
    many = await buildMany(lab, COUNT, { launcher: ['prlimit', `--nofile=${FEW}:${FEW}`] });
    const { ours, theirs } = many;
    for (const [end, side] of [
      [theirs, 'right'],
      [ours, 'left'],
    ] as const) {
      await end.command(['define', '--dir', writeDocuments(many, side, { kind: 'a device each' })]);
    }
    await theirs.command(['start', '--all']);
  });

  const states = async (): Promise<Map<string, string>> => {
    const client = new DaemonClient(many.ours.runDir);
    try {
      return new Map((await client.call('list', {})).tunnels.map(({ name, state }) => [name, state]));
    } finally {
      client.close();
    }
  };

  const namesIn = async (wanted: string): Promise<string[]> =>
    [...(await states())].flatMap(([name, state]) => (state === wanted ? [name] : []));

  it('of descriptors: some start and come up, and each of the others is named', { timeout: TIMEOUT }, async () => {
    const { ours } = many;
    const { code, stdout, stderr } = await ours.command(['start', '--all'], { check: false });
    expect(code).toBe(1);
    const [done, failed] = [...stdout.matchAll(/(\d+) (?:tunnels started|failed)/g)].map((match) => Number(match[1]));
    expect(done! + failed!).toBe(COUNT);
    expect(done).toBeGreaterThan(5);
    expect(failed).toBeGreaterThan(5);
    const errors = stderr.split('\n').filter((line) => line.startsWith('error: '));
    expect(errors).toHaveLength(failed!);
    expect(errors.filter((line) => !(SHORT.test(line) && /many\d+/.test(line)))).toEqual([]);
    expect(stderr).not.toMatch(/internal error|\n {4}at /);
    await waitFor('those that run', async () => (await namesIn('up')).length === done || undefined, PATIENCE, 500);
  });

  it('of descriptors when it starts: the others are tried again, and come up', { timeout: TIMEOUT }, async () => {
    const { ours } = many;
    await ours.command(['autostart', '--all']);
    await ours.stop('SIGTERM', 60_000);
    await ours.startDaemon();
    const waiting = await waitFor(
      'all to be tried',
      async () => {
        const { tunnels } = await ours.status();
        const tried = tunnels.every(({ state, lastFailure }) => state === 'up' || lastFailure !== undefined);
        return tried ? tunnels.filter(({ state }) => state !== 'up') : undefined;
      },
      PATIENCE,
      500,
    );
    expect(waiting.length).toBeGreaterThan(5);
    expect(waiting.length).toBeLessThan(COUNT - 5);
    expect(waiting.filter(({ lastFailure }) => !SHORT.test(lastFailure?.detail ?? ''))).toEqual([]);
    const retrying = await namesIn('waiting to retry');
    expect(waiting.map(({ name }) => name).filter((name) => !retrying.includes(name))).toEqual([]);
    const up = await namesIn('up');
    await ours.command(['destroy', ...up.slice(0, waiting.length)]);
    const wanted = new Set(waiting.slice(0, up.length).map(({ name }) => name));
    await waitFor(
      'those that waited to come up in the place of others',
      async () => (await namesIn('up')).filter((name) => wanted.has(name)).length === wanted.size || undefined,
      PATIENCE,
      500,
    );
  });

  it('of devices: one whose name another program has is named, and the others run', { timeout: TIMEOUT }, async () => {
    const { ours, left } = many;
    const [taken, other] = [nameOf(3), nameOf(5)];
    await ours.command(['destroy', '--all']);
    await left.ip([`tuntap add dev stun-${taken} mode tap`]);
    const { code, stdout, stderr } = await ours.command(['start', taken, other], { check: false });
    expect(stdout).toBe('1 tunnel started, 1 failed\n');
    expect(stderr).toMatch(
      new RegExp(`^error: .*create TUN device stun-${taken}: .*choose another name, or delete it`, 'm'),
    );
    expect(code).toBe(1);
    expect((await left.interfaces()).filter((name) => name === `stun-${taken}`)).toHaveLength(1);
    await left.ip([`tuntap del dev stun-${taken} mode tap`]);
    await ours.command(['start', taken]);
    await waitFor('it to run', async () => (await namesIn('up')).includes(taken) || undefined, PATIENCE, 500);
  });
});
