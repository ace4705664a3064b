/** Commands for many tunnels: one request, progress for a person, a line for each failure, and what goes on when they are interrupted. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/cli/run.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, TestDaemon, tunnelDocument } from '../support/daemon.ts';

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

const NEVER = new Promise<void>(() => undefined);

async function sectunnel(
  { runDir }: TestDaemon,
  words: readonly string[],
  { isWatched = false, interrupted = NEVER } = {},
): Promise<Outcome> {
  let [out, err] = ['', ''];
  const code = await run(['--run-dir', runDir, ...words], {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    isWatched,
    readStdin: () => Promise.resolve(Buffer.alloc(0)),
    interrupted: () => interrupted,
  });
  return { code, out, err };
}

const branch = (at: number): string =>
  tunnelDocument({ name: `branch-${at}`, remote: `192.0.2.${10 + at}`, inner: ['10.1.0.0', `10.2.${at}.0`] });

/** A daemon, and a folder with documents of which one is wrong. */
async function scene(count = 5): Promise<{ daemon: TestDaemon; dir: string }> {
  const daemon = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
  await daemon.giveSecret('k1xBeR5vTq8wZn3mYc7sDf2gHj9pLa4o');
  const dir = join(daemon.folder, 'documents');
  mkdirSync(dir);
  for (let at = 0; at < count; at++) writeFileSync(join(dir, `b${at}.xml`), branch(at));
  writeFileSync(join(dir, 'notes.txt'), 'no document');
  return { daemon, dir };
}

async function names(daemon: TestDaemon, active?: boolean): Promise<string[]> {
  const { tunnels } = await daemon.client.call('list', active === undefined ? {} : { active });
  return tunnels.map(({ name }) => name);
}

describe('define --dir', () => {
  it('defines all of a folder, and names what is wrong with its file while the others go on', async () => {
    const { daemon, dir } = await scene();
    writeFileSync(join(dir, 'b2.xml'), branch(2).replace("prefixlen='24'", "prefixlen='99'"));
    const { code, out, err } = await sectunnel(daemon, ['define', '--dir', dir]);
    expect(out).toBe('4 tunnels defined, 1 failed\n');
    expect(err.split('\n').filter((line) => line.startsWith('error: '))).toHaveLength(1);
    expect(err).toContain(`error: ${join(dir, 'b2.xml')}`);
    expect(code).toBe(1);
    expect(await names(daemon)).toEqual(['branch-0', 'branch-1', 'branch-3', 'branch-4']);
  });

  it('tells a warning that many have of the first, and at the end once for the others', async () => {
    const { daemon, dir } = await scene(9);
    const lacking = '11111111-2222-3333-4444-555555555599';
    for (let at = 0; at < 9; at++) {
      writeFileSync(join(dir, `b${at}.xml`), branch(at).replace(/secret uuid='[^']*'/, `secret uuid='${lacking}'`));
    }
    const { code, out, err } = await sectunnel(daemon, ['define', '--dir', dir]);
    expect([code, out]).toEqual([0, '9 tunnels defined\n']);
    const told = err.split('\n').filter((line) => line.includes(`there is no secret ${lacking}`));
    // Several are defined at a time, and which is done first is open.
    expect(told).toEqual([
      expect.stringMatching(/^warning: branch-\d: there is no secret /),
      expect.stringMatching(/^warning: (branch-\d, ){4}branch-\d and 3 more: there is no secret /),
    ]);
    expect(new Set(told.join().match(/branch-\d/g)).size).toBe(6);
  });

  it('does not wait for a pipe in the folder, nor read a device', async () => {
    const { daemon, dir } = await scene(2);
    const [pipe, device] = ['b00.xml', 'b11.xml'].map((file) => join(dir, file));
    execFileSync('mkfifo', [pipe!]);
    symlinkSync('/dev/zero', device!);
    const { code, out, err } = await sectunnel(daemon, ['define', '--dir', dir]);
    expect(out).toBe('2 tunnels defined, 2 failed\n');
    for (const file of [pipe, device]) {
      expect(err).toContain(`error: cannot read ${file}: it is a pipe, a socket or a device, a file is required\n`);
    }
    expect(code).toBe(1);
  });

  it('takes several files, of which one cannot be read', async () => {
    const { daemon, dir } = await scene(2);
    const files = ['b0.xml', 'none.xml', 'b1.xml'].map((file) => join(dir, file));
    const { code, out, err } = await sectunnel(daemon, ['define', ...files]);
    expect(out).toBe('2 tunnels defined, 1 failed\n');
    expect(err).toContain(`error: cannot read ${files[1]}: there is no such file\n`);
    expect(code).toBe(1);
  });

  it('names each of a thousand that is wrong, and defines the others', async () => {
    const { daemon, dir } = await scene(0);
    const file = (at: number): string => join(dir, `b${String(at).padStart(4, '0')}.xml`);
    const xml = (at: number): string =>
      tunnelDocument({ name: `branch-${at}`, inner: ['10.1.0.0', `10.${2 + (at >> 8)}.${at & 0xff}.0`] });
    for (let at = 0; at < 1_000; at++) writeFileSync(file(at), xml(at));
    const uuid = '<uuid>7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a10</uuid>';
    writeFileSync(file(100), xml(100).replace('</name>', `</name>${uuid}`));
    writeFileSync(file(200), xml(200).replace("protocol='any'", "protocol='pigeon'"));
    writeFileSync(file(300), xml(300).slice(0, -20));
    writeFileSync(file(400), xml(400).replace('branch-400', 'branch-40'));
    writeFileSync(file(500), xml(500).replace('</name>', `</name>${uuid}`));
    rmSync(file(600));
    mkdirSync(file(600));
    rmSync(file(700));
    symlinkSync('nowhere', file(700));
    const { code, out, err } = await sectunnel(daemon, ['define', '--dir', dir]);
    expect(out).toBe('994 tunnels defined, 6 failed\n');
    expect(code).toBe(1);
    const errors = err
      .split('\n')
      .filter((line) => line.startsWith('error: '))
      .sort();
    expect(errors).toEqual([
      expect.stringContaining(`${file(200)}:13: <upperspec>: protocol='pigeon'`),
      expect.stringMatching(new RegExp(`${file(300)}:\\d+: `)),
      expect.stringContaining(`${file(400)}: tunnel 'branch-40' is defined by ${file(40)} already`),
      expect.stringContaining(`${file(500)}: tunnel 'branch-100' has the UUID`),
      expect.stringContaining(`cannot read ${file(600)}: `),
      expect.stringContaining(`cannot read ${file(700)}: there is no such file`),
    ]);
    expect(await names(daemon)).toHaveLength(994);
  }, 120_000);

  it('says so where two documents of several requests define the same tunnel', async () => {
    const { daemon, dir } = await scene(2);
    const long = `</name><description>${'x'.repeat(900_000)}</description>`;
    for (const at of [0, 1]) writeFileSync(join(dir, `b${at}.xml`), branch(at).replace('</name>', long));
    writeFileSync(join(dir, 'b2.xml'), branch(0).replace('</name>', long));
    const { code, out, err } = await sectunnel(daemon, ['define', '--dir', dir]);
    expect(err).toContain('error: two documents define tunnel branch-0, and the later one counts: give one');
    expect(out).toBe('3 tunnels defined, 1 failed\n');
    expect(code).toBe(1);
  });

  it('refuses a folder without documents', async () => {
    const { daemon } = await scene(0);
    const { code, err } = await sectunnel(daemon, ['define', '--dir', daemon.folder]);
    expect(err).toBe(`error: there is no *.xml in ${daemon.folder}\n`);
    expect(code).toBe(1);
  });

  it('puts documents that do not fit a request into several', async () => {
    const { daemon, dir } = await scene(3);
    const long = `<!--${'x'.repeat(900_000)}-->`;
    for (let at = 0; at < 3; at++) writeFileSync(join(dir, `b${at}.xml`), branch(at) + long);
    expect(await sectunnel(daemon, ['define', '--dir', dir])).toMatchObject({ code: 0, out: '3 tunnels defined\n' });
  });
});

describe('verbs of several tunnels', () => {
  it('do all, and tell a person how far they are', async () => {
    const { daemon, dir } = await scene();
    await sectunnel(daemon, ['define', '--dir', dir]);
    const started = await sectunnel(daemon, ['start', '--all'], { isWatched: true });
    expect(started).toMatchObject({ code: 0, out: '5 tunnels started\n' });
    expect(started.err).toContain('\r\u001b[Kstarting: 5 done, 0 failed, 0 remaining');
    expect(started.err.endsWith('\r\u001b[K')).toBe(true);
    expect(await names(daemon, true)).toHaveLength(5);
    // Those that run are not meant.
    expect(await sectunnel(daemon, ['start', '--all'])).toMatchObject({ code: 0, out: '0 tunnels started\n', err: '' });
    expect(await sectunnel(daemon, ['restart', '--all'])).toMatchObject({ code: 0, out: '5 tunnels restarted\n' });
    const marked = await sectunnel(daemon, ['autostart', 'branch-0', 'branch-1']);
    expect(marked.out).toBe('2 tunnels marked as autostarted\n');
    expect((await sectunnel(daemon, ['autostart', '--all', '--disable'])).out).toBe(
      '2 tunnels unmarked as autostarted\n',
    );
    expect((await sectunnel(daemon, ['destroy', '--all'])).out).toBe('5 tunnels destroyed\n');
    expect(await names(daemon, true)).toEqual([]);
    expect((await sectunnel(daemon, ['undefine', '--all'])).out).toBe('5 tunnels undefined\n');
    expect(await names(daemon)).toEqual([]);
  });

  it('go on with the others where one fails, and say so with exit code 1', async () => {
    const { daemon, dir } = await scene(2);
    await sectunnel(daemon, ['define', '--dir', dir]);
    await sectunnel(daemon, ['start', 'branch-0']);
    const { code, out, err } = await sectunnel(daemon, ['start', 'branch-0', 'nobody', 'branch-1', 'branch-1']);
    expect(out).toBe('1 tunnel started, 2 failed\n');
    expect(err).toContain('error: tunnel branch-0 is already active\n');
    expect(err).toContain("error: there is no tunnel 'nobody'");
    expect(code).toBe(1);
  });

  it('say how many are not up when the time of --wait is over', async () => {
    const { daemon, dir } = await scene(2);
    await sectunnel(daemon, ['define', '--dir', dir]);
    const { code, err } = await sectunnel(daemon, ['start', '--all', '--wait=0.1']);
    expect(err).toContain('error: 2 of 2 tunnels are not up after <1s: branch-0, branch-1;');
    expect(code).toBe(4);
  });

  it('go on in the daemon when they are interrupted', async () => {
    const { daemon, dir } = await scene();
    await sectunnel(daemon, ['define', '--dir', dir]);
    let [release, interrupt]: (() => void)[] = [];
    daemon.devicesFrom = new Promise((resolve) => {
      release = resolve;
    });
    const interrupted = new Promise<void>((resolve) => {
      interrupt = resolve;
    });
    const starting = sectunnel(daemon, ['start', '--all'], { interrupted });
    await eventually('the first', () => daemon.told.includes('open branch-0'));
    interrupt!();
    expect(await starting).toMatchObject({ code: 130, out: '' });
    expect((await starting).err).toMatch(/^interrupted: 0 tunnels started, 0 failed/);
    release!();
    await eventually('all of them', async () => (await names(daemon, true)).length === 5);
  });
});
