/** The hook that libvirt calls for networks: how it is installed, and what it answers before anybody is asked. */
import { spawnSync } from 'node:child_process';
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/cli/run.ts';
import { TUNNEL_NAMESPACE } from '../../src/libvirt/namespace.ts';
import { NO_INSPECTOR } from '../../src/sys/node-options.ts';
import { temporaryFolder } from '../support/daemon.ts';

async function sectunnel(...words: string[]): Promise<{ code: number; out: string; err: string }> {
  let [out, err] = ['', ''];
  const code = await run(words, {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    readStdin: () => Promise.resolve(Buffer.alloc(0)),
    interrupted: () => Promise.resolve(),
  });
  return { code, out, err };
}

const PLAIN = '<hookData><network><name>lan</name></network></hookData>';
const HELD = `<hookData><network><name>lan</name><metadata><t:tunnel xmlns:t="${TUNNEL_NAMESPACE}" name="t"/></metadata></network></hookData>`;

/** A hook whose program stands for ours: it writes down what it was called with, and answers as it is told. */
async function hook(answer: number): Promise<{ call(operation: string, xml: string): number | null; asked(): string }> {
  const folder = temporaryFolder();
  const path = join(folder, 'hooks', '50-sectunnel');
  expect((await sectunnel('hook', 'install', '--dir', join(folder, 'hooks'))).code).toBe(0);
  const program = join(folder, 'program');
  const log = join(folder, 'log');
  writeFileSync(program, `#!/bin/sh\necho "$3 $4 $(cat)" >>'${log}'\nexit ${answer}\n`);
  chmodSync(program, 0o755);
  const script = readFileSync(path, 'utf8').replace(/\| '.*network-hook\.js'/, `| '${program}'`);
  expect(script).toContain(program);
  writeFileSync(path, script);
  writeFileSync(log, '');
  return {
    call: (operation, input) => spawnSync(path, ['lan', operation, 'begin', '-'], { input }).status,
    asked: () => readFileSync(log, 'utf8'),
  };
}

describe('the hook', () => {
  it('asks about networks that name a tunnel, and passes the answer on to a start alone', async () => {
    const willing = await hook(0);
    expect([willing.call('start', HELD), willing.call('stopped', HELD)]).toEqual([0, 0]);
    expect(willing.asked()).toBe(`lan start ${HELD}\nlan stopped ${HELD}\n`);
    const unwilling = await hook(1);
    expect([unwilling.call('start', HELD), unwilling.call('stopped', HELD)]).toEqual([1, 0]);
  });

  it('runs a Node that takes no options from the environment, and whose inspector has no address', async () => {
    const { out } = await sectunnel('hook', 'print');
    expect(out).toContain(`'${process.execPath}' '${NO_INSPECTOR}' `);
    const script = out.replace(/\| .*network-hook\.js'.* && exit 0/, '; env');
    const env = { NODE_OPTIONS: '--inspect', NODE_PATH: '/tmp', PATH: process.env.PATH };
    const { stdout } = spawnSync('sh', ['-c', script, 'hook', 'lan', 'start'], { input: HELD, env, encoding: 'utf8' });
    expect(stdout).toContain('PATH=');
    expect(stdout).not.toMatch(/^NODE_/m);
  });

  it('lets all other networks start, and everything else happen, without asking', async () => {
    const { call, asked } = await hook(1);
    expect([call('start', PLAIN), call('stopped', PLAIN)]).toEqual([0, 0]);
    for (const operation of ['started', 'updated', 'port-created', 'port-deleted']) {
      expect([operation, call(operation, HELD)]).toEqual([operation, 0]);
    }
    expect(asked()).toBe('');
  });

  it('vetoes a start when its program cannot be run', async () => {
    const folder = temporaryFolder();
    await sectunnel('hook', 'install', '--dir', folder);
    const path = join(folder, '50-sectunnel');
    writeFileSync(path, readFileSync(path, 'utf8').replace(process.execPath, '/nowhere/node'));
    const { status, stderr } = spawnSync(path, ['lan', 'start', 'begin', '-'], { input: HELD, encoding: 'utf8' });
    expect(status).toBe(1);
    expect(stderr).toContain('/nowhere/node');
    expect(spawnSync(path, ['lan', 'start', 'begin', '-'], { input: PLAIN }).status).toBe(0);
  });
});

describe('installing the hook', () => {
  it('writes an executable for the daemon of this command, takes it away, and touches no other', async () => {
    const folder = join(temporaryFolder(), "it's", 'network.d');
    const path = join(folder, '50-sectunnel');
    const { code, out, err } = await sectunnel('--run-dir', "/run/o'ne", 'hook', 'install', '--dir', folder);
    expect([code, out, err]).toEqual([
      0,
      `Hook ${path} installed\n`,
      expect.stringContaining('systemctl reload libvirtd'),
    ]);
    expect(statSync(path).mode & 0o777).toBe(0o755);
    const script = readFileSync(path, 'utf8');
    expect(script).toContain(`'/run/o'\\''ne' '10' "$1" "$2"`);
    expect((await sectunnel('--run-dir', "/run/o'ne", 'hook', 'print', '--dir', folder)).out).toBe(script);
    // Over an older one.
    expect((await sectunnel('hook', 'install', '--dir', folder, '--timeout', '2.5')).code).toBe(0);
    expect(readFileSync(path, 'utf8')).toContain("'2.5'");
    expect((await sectunnel('hook', 'remove', '--dir', folder)).out).toBe(`Hook ${path} removed\n`);
    expect(await sectunnel('hook', 'remove', '--dir', folder)).toMatchObject({
      code: 1,
      err: `error: there is no hook ${path}\n`,
    });
    writeFileSync(path, '#!/bin/sh\n');
    for (const action of ['install', 'remove']) {
      const refused = await sectunnel('hook', action, '--dir', folder);
      expect([refused.code, refused.err]).toEqual([1, expect.stringContaining('was not written by sectunnel')]);
    }
  });

  it.each([
    [['hook', 'uninstall'], 'hook wants install, remove or print'],
    [['hook', 'install', '--timeout', 'soon'], '--timeout soon: expected 0.1 to 600 seconds'],
  ])('refuses %j', async (words, message) => {
    const { code, err } = await sectunnel(...words);
    expect([code, err]).toEqual([2, expect.stringContaining(message)]);
  });
});
