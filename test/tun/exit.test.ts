/** That a program with TUN devices uses no CPU while it waits, and ends when it should: seen from outside, as a process of its own. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeInterop } from '../support/lab/requirements.ts';
import { enterNewNamespace } from './namespace.ts';

const root: string = fileURLToPath(new URL('../..', import.meta.url));
/** Inside the project, so that the compiled files find its packages. */
const folder: string = join(root, 'node_modules', '.cache', `sectunnel-exit-test-${process.pid}`);

/** Compiles src/tun, without checks: the type checker has a run of its own. */
function compile(): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  const config = {
    extends: join(root, 'tsconfig.json'),
    compilerOptions: {
      noEmit: false,
      noCheck: true,
      allowImportingTsExtensions: false,
      rootDir: join(root, 'src'),
      outDir: folder,
    },
    files: [join(root, 'src/tun/linux-tun.ts')],
    include: [],
  };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const result = spawnSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8', timeout: 60_000 });
  if (result.status !== 0) throw new Error(result.stdout + result.stderr);
}

/** Runs a program that has `device` open and watched; resolves with its exit status and how long it took. */
function run(end: string): Promise<{ status: number | null; signal: string | null; output: string }> {
  const program = join(folder, 'program.js');
  const lines = [
    "import { openLinuxTun } from './tun/linux-tun.js';",
    'const device = openLinuxTun();',
    'device.onReadable(() => undefined);',
    'await new Promise((resolve) => setTimeout(resolve, 20));',
    end,
  ];
  writeFileSync(program, lines.join('\n'));
  const child = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'pipe'], timeout: 10_000 });
  let output = '';
  child.stdout.on('data', (data) => {
    output += data;
  });
  child.stderr.on('data', (data) => {
    output += data;
  });
  return new Promise((resolve) => child.on('close', (status, signal) => resolve({ status, signal, output })));
}

describeInterop('a process with a TUN device', ['namespaces'], () => {
  let leave: () => void;

  beforeAll(() => {
    compile();
    leave = enterNewNamespace();
  }, 60_000);
  afterAll(() => {
    leave();
    rmSync(folder, { recursive: true, force: true });
  });

  it('ends by itself once the device is closed', async () => {
    expect(await run("await device.close(); console.log('closed');")).toEqual({
      status: 0,
      signal: null,
      output: 'closed\n',
    });
  });

  it('ends when it exits with the device open', async () => {
    expect(await run('process.exit(3);')).toEqual({ status: 3, signal: null, output: '' });
  });

  it('ends when it fails with the device open', async () => {
    const { status, output } = await run("setTimeout(() => { throw new Error('a bug'); }, 1);");
    expect(status).toBe(1);
    expect(output).toContain('a bug');
  });

  it('stays while the device is open, without using the CPU', async () => {
    const { status, output } = await run(
      `const start = process.cpuUsage();
      setTimeout(() => {
        const { user, system } = process.cpuUsage(start);
        console.log(user + system);
        process.exit(0);
      }, 1000);`,
    );
    expect(status).toBe(0);
    expect(Number(output)).toBeGreaterThan(0);
    expect(Number(output)).toBeLessThan(20_000);
  });
});
