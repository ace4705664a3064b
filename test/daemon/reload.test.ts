/** Definitions that are changed on the disk, and read again while the daemon runs. */
import { chmodSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { messageOf } from '../../src/base/text.ts';
import { run } from '../../src/cli/run.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, TestDaemon, temporaryFolder, tunnelDocument } from '../support/daemon.ts';

const UUID = '7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a10';

function machine(folder?: string): Promise<TestDaemon> {
  return TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]), folder);
}

/** A document whose inner network tells its editions apart. */
function edition(name: string, third: number, extra = ''): string {
  return tunnelDocument({ name, start: 'respond', inner: ['10.1.0.0', `10.${third}.0.0`], extra });
}

function write(test: TestDaemon, name: string, xml: string): void {
  writeFileSync(join(test.configDir, `${name}.xml`), xml, { mode: 0o600 });
}

const kept = async ({ client }: TestDaemon, name: string): Promise<string> =>
  (await client.call('dumpxml', { name, inactive: true })).xml;

it('takes over what is new and what changed, forgets what is gone, and leaves the rest', async () => {
  const test = await machine();
  await test.giveSecret();
  for (const [index, name] of ['same', 'other', 'gone'].entries())
    await test.client.call('define', { xml: edition(name, 10 + index) });
  write(test, 'same', `<!-- by hand -->${edition('same', 10)}`);
  write(test, 'other', edition('other', 21));
  write(test, 'fresh', edition('fresh', 22));
  rmSync(join(test.configDir, 'gone.xml'));
  expect(await test.client.call('reload', {})).toMatchObject({
    defined: ['fresh'],
    changed: [{ name: 'other', active: false }],
    forgotten: [{ name: 'gone', active: false }],
    unchanged: 1,
    problems: [],
  });
  expect((await test.client.call('list', {})).tunnels.map(({ name }) => name)).toEqual(['fresh', 'other', 'same']);
  expect(await kept(test, 'other')).toContain('10.21.0.0');
  expect(await test.client.call('reload', {})).toMatchObject({ defined: [], changed: [], forgotten: [], unchanged: 3 });
});

it('leaves a tunnel that runs with its document until it is restarted, and shows that it does', async () => {
  const test = await machine();
  const { client } = test;
  await test.giveSecret();
  await client.call('define', { xml: edition('net', 20) });
  await client.call('start', { name: 'net' });
  expect(await client.call('info', { name: 'net' })).toMatchObject({ outdated: false });
  write(test, 'net', edition('net', 21));
  expect(await client.call('reload', {})).toMatchObject({ changed: [{ name: 'net', active: true }] });
  expect((await client.call('dumpxml', { name: 'net', inactive: false })).xml).toContain('10.20.0.0');
  expect(await client.call('info', { name: 'net' })).toMatchObject({ active: true, outdated: true });
  await client.call('restart', { name: 'net' });
  expect((await client.call('dumpxml', { name: 'net', inactive: false })).xml).toContain('10.21.0.0');
  expect(await client.call('info', { name: 'net' })).toMatchObject({ outdated: false });
  rmSync(join(test.configDir, 'net.xml'));
  expect(await client.call('reload', {})).toMatchObject({ forgotten: [{ name: 'net', active: true }] });
  expect(await client.call('info', { name: 'net' })).toMatchObject({ active: true, persistent: false });
});

it('keeps what it knew where a file is wrong, with file and line in answer and log', async () => {
  const test = await machine();
  const { client } = test;
  await test.giveSecret();
  await client.call('define', { xml: edition('net', 20) });
  write(test, 'net', edition('net', 21).replace("protocol='any'", "protocol='pigeon'"));
  write(test, 'misnamed', edition('net', 22));
  mkdirSync(join(test.configDir, 'folder.xml'));
  const { problems, unchanged } = await client.call('reload', {});
  expect({ count: problems.length, unchanged }).toEqual({ count: 2, unchanged: 0 });
  const [misnamed, broken] = problems;
  expect(misnamed).toMatch(/misnamed\.xml: the document names the tunnel 'net'/);
  expect(broken).toMatch(/net\.xml:13: <upperspec>: protocol='pigeon'/);
  expect(await kept(test, 'net')).toContain('10.20.0.0');
  const errors = test.lines.filter(({ level }) => level === 'error').map(({ text }) => text);
  expect(errors).toEqual(problems.map((text) => `definition not read, the previous one stays: ${text}`));
});

it('follows links to documents that other users cannot change, and names files that are not documents', async () => {
  const test = await machine();
  await test.giveSecret();
  const elsewhere = temporaryFolder();
  const link = (name: string, target: string): void => symlinkSync(target, join(test.configDir, `${name}.xml`));
  for (const name of ['linked', 'open']) {
    writeFileSync(join(elsewhere, name), edition(name, 21), { mode: 0o600 });
    link(name, join(elsewhere, name));
  }
  chmodSync(join(elsewhere, 'open'), 0o666);
  link('endless', '/dev/zero');
  link('lost', join(elsewhere, 'nothing'));
  const { defined, problems } = await test.client.call('reload', {});
  expect(defined).toEqual(['linked']);
  expect(problems).toEqual([
    expect.stringMatching(/endless\.xml: it is no regular file; a file is required/),
    expect.stringMatching(/lost\.xml: no such file/),
    expect.stringMatching(/open\.xml: it leads to .*, which has mode 0666, so others may change it: chmod go-w /),
  ]);
  // The next daemon knows it, too, and a change where it leads to is seen.
  writeFileSync(join(elsewhere, 'linked'), edition('linked', 22));
  expect(await test.client.call('reload', {})).toMatchObject({ changed: [{ name: 'linked' }] });
  await test.close();
  const next = await machine(test.folder);
  expect(await kept(next, 'linked')).toContain('10.22.0.0');
});

it('keeps identities: a UUID that is another tunnel’s is refused, one that moved with its file is taken', async () => {
  const test = await machine();
  const { client } = test;
  await test.giveSecret();
  await client.call('define', { xml: edition('net', 20, `<uuid>${UUID}</uuid>`) });
  // Without a UUID it stays the same tunnel.
  write(test, 'net', edition('net', 21));
  expect(await client.call('reload', {})).toMatchObject({ changed: [{ name: 'net' }] });
  expect((await client.call('info', { name: 'net' })).uuid).toBe(UUID);
  write(test, 'thief', edition('thief', 22, `<uuid>${UUID}</uuid>`));
  expect((await client.call('reload', {})).problems).toEqual([expect.stringContaining(`thief.xml: tunnel 'net' has`)]);
  rmSync(join(test.configDir, 'net.xml'));
  expect(await client.call('reload', {})).toMatchObject({ defined: ['thief'], forgotten: [{ name: 'net' }] });
});

it('starts a tunnel that was to run and had no document that could be read', async () => {
  const folder = temporaryFolder();
  const first = new TestDaemon(new MemoryNetwork().host([address('192.0.2.1')]), folder);
  await first.open();
  await first.giveSecret();
  await first.client.call('define', { xml: edition('net', 20) });
  await first.client.call('autostart', { name: 'net', enable: true });
  await first.close();
  write(first, 'net', '<sectunnel');
  const test = await machine(folder);
  expect((await test.client.call('list', {})).tunnels).toEqual([]);
  write(test, 'net', edition('net', 21));
  expect(await test.client.call('reload', {})).toMatchObject({ defined: ['net'] });
  await eventually('it to run', async () => (await test.client.call('info', { name: 'net' })).active);
});

it('forgets nothing of a tunnel that is to run, nor anything when the folder is gone or others may write to it', async () => {
  const test = await machine();
  const { client } = test;
  await test.giveSecret();
  await client.call('define', { xml: edition('net', 20) });
  await client.call('define', { xml: edition('idle', 21) });
  await client.call('start', { name: 'net' });
  test.refuseDevices = true;
  test.devices.get((await client.call('info', { name: 'net' })).device!)!.fail(new Error('taken away'));
  await eventually('it to wait', async () => (await client.call('info', { name: 'net' })).retrying);
  rmSync(join(test.configDir, 'net.xml'));
  expect((await client.call('reload', {})).problems).toEqual([expect.stringContaining('file of tunnel net is gone')]);
  expect(await client.call('info', { name: 'net' })).toMatchObject({ retrying: true, persistent: true });
  const away = `${test.configDir}-away`;
  renameSync(test.configDir, away);
  expect(await client.call('reload', {}).then(String, messageOf)).toContain(
    'cannot be used: no such file or directory',
  );
  symlinkSync(away, test.configDir);
  expect(await client.call('reload', {}).then(String, messageOf)).toContain('it is a link to');
  rmSync(test.configDir);
  renameSync(away, test.configDir);
  expect((await client.call('list', {})).tunnels.map(({ name }) => name)).toEqual(['idle', 'net']);
});

it('reports overlaps and dangling autostart links, and serves many simultaneous requests in two runs', async () => {
  const test = await machine();
  const { client, daemon } = test;
  await test.giveSecret('a pre-shared key that is long enough');
  await client.call('define', { xml: edition('one', 20) });
  write(test, 'two', edition('two', 20));
  symlinkSync('../nobody.xml', join(test.configDir, 'autostart', 'nobody.xml'));
  const results = await Promise.all(Array.from({ length: 50 }, () => daemon.reload()));
  expect(new Set(results).size).toBe(2);
  expect(results[0]!.defined).toEqual(['two']);
  expect(results[0]!.warnings).toEqual([
    'nobody: autostart is set, but the tunnel is not defined',
    expect.stringMatching(/^two: .*tunnel one protects the same packets/),
  ]);
});

/** All that a reload might touch: the folders, what is known, and what was told. */
async function everything({ client, configDir, runDir, lines, told }: TestDaemon): Promise<unknown> {
  const filesIn = (folder: string): string[] => readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  const { tunnels } = await client.call('list', {});
  const documents = await Promise.all(
    tunnels.flatMap(({ name, active }) =>
      [true, ...(active ? [false] : [])].map((inactive) => client.call('dumpxml', { name, inactive })),
    ),
  );
  const { tunnels: all } = await client.call('status', {});
  const sas = all.map(({ name, ikeSas }) => ({ name, ikeSas: ikeSas.map(({ id }) => id) }));
  const known = tunnels.map(({ since: _, ...tunnel }) => tunnel);
  return { files: [filesIn(configDir), filesIn(runDir)], known, documents, sas, lines: [...lines], told: [...told] };
}

it('says what it would do on a dry run, as it is then done, and changes nothing', async () => {
  const test = await machine();
  const { client } = test;
  await test.giveSecret('a pre-shared key that is long enough');
  for (const [index, name] of ['same', 'running', 'gone', 'old'].entries())
    await client.call('define', { xml: edition(name, 10 + index, name === 'old' ? `<uuid>${UUID}</uuid>` : '') });
  for (const name of ['running', 'gone']) await client.call('start', { name });
  for (const name of ['gone', 'old']) rmSync(join(test.configDir, `${name}.xml`));
  write(test, 'running', edition('running', 21));
  write(test, 'broken', '<sectunnel');
  // It has the UUID of one that goes, and the networks of another that comes.
  write(test, 'heir', edition('heir', 22, `<uuid>${UUID}</uuid>`));
  write(test, 'twin', edition('twin', 22));
  const before = await everything(test);
  const plan = await client.call('reload', { plan: true });
  expect(await everything(test)).toEqual(before);
  expect(plan).toMatchObject({
    defined: ['heir', 'twin'],
    changed: [
      {
        name: 'running',
        active: true,
        differences: [{ path: 'sp[lan]/dst_range/@address', before: '10.11.0.0', after: '10.21.0.0' }],
      },
    ],
    forgotten: [
      { name: 'gone', active: true },
      { name: 'old', active: false },
    ],
    unchanged: 1,
    problems: [expect.stringMatching(/broken\.xml:1: /)],
  });
  expect(plan.warnings.join()).toContain('twin: ');
  expect(await client.call('reload', {})).toEqual(plan);
});

it('shows the plan of a dry run', async () => {
  const test = await machine();
  await test.giveSecret();
  for (const [index, name] of ['net', 'gone', 'same'].entries())
    await test.client.call('define', { xml: edition(name, 20 + index) });
  await test.client.call('start', { name: 'net' });
  write(test, 'net', edition('net', 25, '<title>new</title>'));
  write(test, 'fresh', edition('fresh', 26));
  rmSync(join(test.configDir, 'gone.xml'));
  let out = '';
  const terminal = {
    out: (text: string): void => {
      out += text;
    },
    err: (): void => undefined,
    readStdin: () => Promise.reject(new Error('not read')),
    interrupted: () => Promise.resolve(),
  };
  expect(await run(['--run-dir', test.runDir, 'reload', '--dry-run'], terminal)).toBe(0);
  expect(out).toBe(
    `Tunnel fresh would be defined
Tunnel net would change; it runs with its previous document until 'sectunnel restart net':
    title added
    sp[lan]/dst_range/@address: 10.20.0.0 -> 10.25.0.0
    'sectunnel update --live' instead: IKE SA kept; CHILD SAs negotiated anew: lan
Tunnel gone would be forgotten: its file is gone
1 definition would stay as it is
Nothing was changed. A reload interrupts no tunnel.
`,
  );
});

it('is a verb of the command, which fails when not all could be taken over', async () => {
  const test = await machine();
  await test.giveSecret();
  await test.client.call('define', { xml: edition('net', 20) });
  await test.client.call('start', { name: 'net' });
  write(test, 'net', edition('net', 21));
  write(test, 'broken', '<sectunnel');
  const printed: { out: string; err: string } = { out: '', err: '' };
  const terminal = {
    out: (text: string): void => {
      printed.out += text;
    },
    err: (text: string): void => {
      printed.err += text;
    },
    readStdin: () => Promise.reject(new Error('not read')),
    interrupted: () => Promise.resolve(),
  };
  const sectunnel = (...words: string[]): Promise<number> => run(['--run-dir', test.runDir, ...words], terminal);
  expect(await sectunnel('reload')).toBe(1);
  expect(printed.out).toBe(
    "Tunnel net changed; it runs with its previous document until 'sectunnel restart net'\n0 definitions unchanged\n",
  );
  expect(printed.err).toMatch(/^error: .*broken\.xml/m);
  await sectunnel('list');
  expect(printed.out).toContain('active (waiting, outdated)');
  await sectunnel('info', 'net');
  expect(printed.out).toContain("yes: 'sectunnel restart net' starts with the defined document");
  rmSync(join(test.configDir, 'broken.xml'));
  expect(await sectunnel('reload', '--json')).toBe(0);
});
