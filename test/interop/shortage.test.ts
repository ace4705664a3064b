/**
 * A daemon with worker threads, in a namespace of its own, that runs out of descriptors and of room on its disk. Its tunnel
 * carries all the time; commands are answered, by what they did or by what there is none left of; and all is as before when
 * there is some again.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours, sectunnelDocument } from '../support/lab/ours.ts';
import { type RunResult, run, waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { ping } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { addInner, LINE } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const NAME = 'shortage';
const TUNNEL = suiteTunnel(NAME, SUITES[0]!);
const ENDS_WORKERS = fileURLToPath(new URL('../support/lab/end-worker.mjs', import.meta.url));
const UNCAUGHT = fileURLToPath(new URL('../support/lab/uncaught.mjs', import.meta.url));
/** Of the disk for definitions, and of that for what runs. */
const DISK = '96k';
const SECRET = '11111111-2222-3333-4444-5555555555a1';
/** What says that there are no descriptors left: the daemon, or its silence to a connection that it cannot take. */
const NO_DESCRIPTORS =
  /file descriptors? left|out of file descriptors|no file descriptor|last \d+ are kept for control|EMFILE/;
/** Descriptors that the start of a program takes, and a connection. */
const ENOUGH = 12;

describeInterop('a daemon that runs out', ['namespaces', 'build'], () => {
  let hosts: { left: Namespace; right: Namespace };
  let left: Ours;
  let disks: { config: string; live: string };

  useLab(async (lab: Lab) => {
    hosts = { left: await lab.namespace('left'), right: await lab.namespace('right') };
    await cable(
      { namespace: hosts.left, device: LINE, addresses: [`${LEFT[4].outer}/24`] },
      { namespace: hosts.right, device: LINE, addresses: [`${RIGHT[4].outer}/24`] },
    );
    await addInner(hosts.left, LEFT);
    await addInner(hosts.right, RIGHT);
    const folder = join(lab.folder, `sectunnel-${hosts.left.name}`);
    disks = { config: join(folder, 'config'), live: join(folder, 'run', 'live') };
    // Seen by the daemon alone, and gone with it.
    const mounts = Object.values(disks).map(
      (path) => `mkdir -p -m 700 ${path} && mount -t tmpfs -o size=${DISK},mode=0700 tmpfs ${path}`,
    );
    left = await Ours.start(lab, hosts.left, {
      arguments: ['--workers', '1'],
      nodeArguments: ['--import', ENDS_WORKERS, '--import', UNCAUGHT],
      launcher: ['unshare', '--mount', 'sh', '-c', `${mounts.join(' && ')} && exec "$@"`, 'sh'],
    });
    const right = await Ours.start(lab, hosts.right, { arguments: ['--workers', '0'] });
    await right.load(TUNNEL, 'right', { start: 'respond' });
    await left.secret(TUNNEL.left.psk, SECRET);
    await define(NAME);
    await left.command(['start', NAME]);
    await left.up(NAME);
  });

  const document = (name: string, soft = 3600): string =>
    sectunnelDocument(
      { ...TUNNEL, name },
      'left',
      { start: name === NAME ? 'initiate' : 'trap', espLifetime: { soft, hard: 7200 } },
      SECRET,
    ).replace(/<dst_range address='10\.\d+\.\d+\./g, (all) =>
      name === NAME ? all : `<dst_range address='10.250.${netOf(name)}.`,
    );

  /** Each tunnel has a net of its own. */
  const netOf = (name: string): number => Number(/\d+$/.exec(name)?.[0] ?? 200 + name.length);

  const define = (name: string): Promise<string> => left.defineDocument(name, document(name));

  const carries = async (): Promise<void> => {
    const way = { source: LEFT[4].inner, destination: RIGHT[4].inner, count: 3 };
    await waitFor('the tunnel to carry', async () => ((await ping(hosts.left, way)) === 3 ? true : undefined));
  };

  /** Whether the daemon did it; where it did not, it says why. */
  const does = async (words: readonly string[], why: RegExp, input = ''): Promise<boolean> => {
    const { code, stderr } = await left.command(words, { input, check: false });
    process.kill(left.pid, 0);
    if (code === 0) return true;
    expect(stderr).toMatch(why);
    expect(stderr).not.toMatch(/internal error|\n {4}at /);
    return false;
  };

  /** What the daemon says of a thing that it did all the same. */
  const warned = async (words: readonly string[], input = ''): Promise<string> => {
    const { stderr } = await left.command(words, { input });
    expect(stderr).toMatch(/^warning: /m);
    return stderr;
  };

  /** The path of a file as the daemon sees it. */
  const inside = (...path: string[]): string => join(`/proc/${left.pid}/root`, ...path);

  describeDescriptors();
  describeDisk();
  describeErrors();

  function describeDescriptors(): void {
    /** Lets the daemon have so many descriptors more than it has open; all that it had without a number. */
    let most = 0;
    const leave = async (more?: number): Promise<void> => {
      let limit = most;
      if (more !== undefined) {
        const open = new Set(readdirSync(`/proc/${left.pid}/fd`).map(Number));
        limit = 0;
        for (let free = 0; free < more || open.has(limit); limit++) if (!open.has(limit)) free++;
      }
      await run(['prlimit', '--pid', String(left.pid), `--nofile=${limit}:`]);
    };

    it('of descriptors answers all the same, carries, and rekeys', async () => {
      most = Number(/open files +(\d+)/.exec(readFileSync(`/proc/${left.pid}/limits`, 'utf8'))![1]);
      await left.command(['update', '--live', '-'], { input: document(NAME, 2) });
      // The SA that there is keeps its lifetime; the next one has two seconds.
      const spis = async (): Promise<string[]> =>
        (await left.tunnel(NAME)).ikeSas.flatMap(({ children }) => children.map(({ spiIn }) => spiIn));
      const [first] = await spis();
      await left.command(['rekey', NAME]);
      const before = await waitFor('another CHILD SA alone', async () => {
        const [one, ...more] = await spis();
        return more.length === 0 && one !== first ? one : undefined;
      });
      for (let more = 0; more < ENOUGH; more++) {
        await leave(more);
        await does(['status'], NO_DESCRIPTORS);
        await does(['secret-set-value', SECRET, '--plain'], NO_DESCRIPTORS, TUNNEL.left.psk);
        if (await does(['define', '-'], NO_DESCRIPTORS, document('more')))
          await does(['start', 'more'], NO_DESCRIPTORS);
        await does(['destroy', 'more'], new RegExp(`is not active|there is no tunnel|${NO_DESCRIPTORS.source}`));
      }
      await leave(0);
      await carries();
      // Its sockets to nftables stay open: the fence is watched without another descriptor.
      await hosts.left.exec(['nft', 'delete', 'table', 'inet', 'sectunnel']);
      const table = (): Promise<RunResult> =>
        hosts.left.exec(['nft', 'list', 'table', 'inet', 'sectunnel'], { check: false });
      await waitFor('the fence to be back', async () => ((await table()).code === 0 ? true : undefined));
      await new Promise((resolve) => setTimeout(resolve, 2_000));
      await carries();
      await leave();
      expect(await spis()).not.toContain(before);
      await left.command(['update', '--live', '-'], { input: document(NAME) });
      expect(left.log()).not.toContain('the fence could not be checked');
      await left.command(['destroy', 'more'], { check: false });
      await left.command(['undefine', 'more'], { check: false });
    });

    it('of descriptors gets another worker when there are some again', async () => {
      await leave(0);
      for (const signal of ['SIGUSR2', 'SIGWINCH'] as const) process.kill(left.pid, signal);
      await waitFor('the end of the workers', async () => {
        return /worker that sends packets has ended/.test(left.log()) || undefined;
      });
      await new Promise((resolve) => setTimeout(resolve, 500));
      await leave();
      await carries();
    });

    it('by its own tunnels keeps enough to be asked, to fence and to write', async () => {
      await run(['prlimit', '--pid', String(left.pid), '--nofile=70:']);
      const names = Array.from({ length: 70 }, (_, at) => `many${at}`);
      let refused: RunResult | undefined;
      const started: string[] = [];
      for (const name of names) {
        await define(name);
        refused = await left.command(['start', name], { check: false });
        if (refused.code !== 0) break;
        started.push(name);
      }
      expect(refused?.stderr).toMatch(/70 descriptors are allowed, and the last 17 are kept for control.*LimitNOFILE=/);
      expect(await left.command(['status'])).toMatchObject({
        stdout: expect.stringMatching(/file descriptors: \d+ of 70 are open/),
      });
      await left.command(['secret-set-value', SECRET, '--plain'], { input: TUNNEL.left.psk });
      await carries();
      for (const name of started) await left.command(['destroy', name]);
      for (const name of [...started, names[started.length]!]) await left.command(['undefine', name]);
      await leave();
    });
  }

  function describeDisk(): void {
    const FULL = /no space left on device \(ENOSPC\)\. No disk space left: make room there/;
    const filler = (disk: string): string => inside(disk, 'filler');
    const fill = (disk: string): void => {
      const bytes = Buffer.alloc(4096);
      for (;;) {
        try {
          writeFileSync(filler(disk), bytes, { flag: 'a' });
        } catch {
          return;
        }
      }
    };
    const kept = (): string => readFileSync(inside(disks.config, `${NAME}.xml`), 'utf8');
    const running = async (): Promise<string> => (await left.command(['dumpxml', NAME])).stdout;
    const nothingOver = (): void => {
      const names = Object.values(disks).flatMap((disk) =>
        readdirSync(inside(disk), { recursive: true, encoding: 'utf8' }),
      );
      expect(names.filter((name) => name.endsWith('.new'))).toEqual([]);
    };

    it.each(['config', 'live'] as const)('of room for %s says what is done and what is not', async (which) => {
      const before = { kept: kept(), running: await running() };
      fill(disks[which]);
      const changed = document(NAME, 3599);
      if (which === 'config') {
        expect(await does(['update', '--live', '--config', '-'], FULL, changed)).toBe(false);
        expect({ kept: kept(), running: await running() }).toEqual(before);
        await carries();
        expect(await does(['define', '-'], FULL, document('another'))).toBe(false);
        expect(await does(['secret-set-value', SECRET, '--plain'], FULL, 'another key')).toBe(false);
        expect(await does(['update', '--live', '-'], FULL, changed)).toBe(true);
      } else {
        // What runs does, and it is said that the next daemon would not find it so.
        expect(await warned(['update', '--live', '-'], changed)).toMatch(FULL);
        expect({ kept: kept(), changed: (await running()) !== before.running }).toEqual({
          kept: before.kept,
          changed: true,
        });
        await carries();
        await left.command(['define', '-'], { input: document('another') });
        expect(await warned(['start', 'another'])).toMatch(FULL);
        await left.command(['destroy', 'another']);
        await left.command(['undefine', 'another']);
      }
      nothingOver();
      rmSync(filler(disks[which]));
      await left.command(['update', '--live', '--config', '-'], { input: document(NAME) });
      await carries();
    });

    it('of a disk that can be written says what cannot be kept, and does the rest', async () => {
      const remount = (how: string): Promise<RunResult> =>
        run(['nsenter', '-t', String(left.pid), '-m', 'mount', '-o', `remount,${how}`, disks.live]);
      const before = await running();
      await remount('ro');
      const said = await warned(['update', '--live', '-'], document(NAME, 3598));
      expect(said).toMatch(/cannot be written: read-only file system \(EROFS\)/);
      expect(await running()).not.toBe(before);
      await carries();
      const stays = new RegExp(`cannot be removed: read-only .*The next daemon starts tunnel ${NAME} again; remove`);
      expect(await does(['destroy', NAME], stays)).toBe(false);
      expect((await left.tunnel(NAME)).active).toBe(false);
      await remount('rw');
      await left.command(['start', NAME]);
      await carries();
    });
  }

  function describeErrors(): void {
    it('that is uncaught does not end the daemon; a bug ends it, with its fence installed', async () => {
      process.kill(left.pid, 'SIGPWR');
      await waitFor(
        'the error in the log',
        async () => /EMFILE: too many open files, injected.*raise/.test(left.log()) || undefined,
      );
      await carries();
      process.kill(left.pid, 'SIGXCPU');
      await waitFor('the end', async () => /ended: exit code 1/.test(left.log()) || undefined);
      expect(left.log()).toMatch(/bug: the daemon exits: injected bug/);
      const { stdout } = await hosts.left.exec(['nft', 'list', 'table', 'inet', 'sectunnel']);
      expect(stdout).toMatch(/ip saddr 10\.1\.0\.0\/24 ip daddr 10\.2\.0\.0\/24 .*drop/);
      expect((await hosts.left.exec(['ip', 'rule'])).stdout).toMatch(/70\d\d:/);
    });
  }
});
