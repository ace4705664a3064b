/** That a program with TUN devices or UDP sockets uses no CPU while it waits, and ends when it should: seen from outside, as a process of its own. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeInterop } from '../support/lab/requirements.ts';
import { enterNewNamespace, ipCommand } from './namespace.ts';

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
    files: [join(root, 'src/tun/linux.ts'), join(root, 'src/tun/udp/linux.ts')],
    include: [],
  };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const result = spawnSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8', timeout: 60_000 });
  if (result.status !== 0) throw new Error(result.stdout + result.stderr);
}

/** How a program opens `device`. */
const TUN_DEVICE = [
  "import { openLinuxTun } from './tun/linux.js';",
  'const device = openLinuxTun();',
  'device.onReadable(() => undefined);',
];
const UDP_SOCKET = [
  "import { linuxUdp } from './tun/udp/linux.js';",
  'const device = await linuxUdp().bind({ address: { family: 4, value: 0n }, port: 0 });',
  'device.onDatagram(() => undefined);',
  'device.send(new Uint8Array(10), { address: { family: 4, value: 0x7f000001n }, port: 9 });',
];

/** Runs a program that has `device` open and watched; resolves with its exit status and what it wrote. */
function run(
  opening: readonly string[],
  end: string,
): Promise<{ status: number | null; signal: string | null; output: string }> {
  const program = join(folder, 'program.js');
  const lines = [...opening, 'await new Promise((resolve) => setTimeout(resolve, 20));', end];
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

describeInterop('a process', ['namespaces'], () => {
  let leave: () => void;

  beforeAll(() => {
    compile();
    leave = enterNewNamespace();
    ipCommand('link', 'set', 'lo', 'up');
  }, 60_000);
  afterAll(() => {
    leave();
    rmSync(folder, { recursive: true, force: true });
  });

  describe.each([
    ['a TUN device', TUN_DEVICE],
    ['a UDP socket', UDP_SOCKET],
  ])('with %s', (_name, opening) => {
    it('ends by itself once the device is closed', async () => {
      expect(await run(opening, "await device.close(); console.log('closed');")).toEqual({
        status: 0,
        signal: null,
        output: 'closed\n',
      });
    });

    it('ends when it exits with the device open', async () => {
      expect(await run(opening, 'process.exit(3);')).toEqual({ status: 3, signal: null, output: '' });
    });

    it('ends when it fails with the device open', async () => {
      const { status, output } = await run(opening, "setTimeout(() => { throw new Error('a bug'); }, 1);");
      expect(status).toBe(1);
      expect(output).toContain('a bug');
    });

    it('stays while the device is open, without using the CPU', async () => {
      const { status, output } = await run(
        opening,
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
});
