/** The package as another program gets it: packed, unpacked into its node_modules, and loaded both ways. */
import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';

const run = promisify(execFile);
const ROOT = resolve(import.meta.dirname, '../..');

/** Two ends on sockets of the system; `sectunnel` and `testing` are loaded, and the program is in an async function. */
const PROGRAM = `
  const { nodeProvider, nodeUdp, parseDocument, planTunnel, TunnelHost, utf8 } = sectunnel;
  const { MemoryDevice } = testing;
  const document = (local, remote, inner, port, peer, start) => \`<sectunnel type='ipsec'><name>t</name>
    <sa><local address='\${local}' port='\${port}'><id type='fqdn'>\${inner[0]}</id></local>
      <remote address='\${remote}' port='\${peer}'><id type='fqdn'>\${inner[1]}</id></remote>
      <auth type='psk'><secret uuid='11111111-2222-3333-4444-555555555501'/></auth>
      <ike start='\${start}'/><esp/></sa>
    <sp name='lan'><src_range address='\${inner[0]}'/><dst_range address='\${inner[1]}'/><upperspec protocol='any'/>
      <policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel' level='require'>
        <src address='any'/><dst address='any'/></rule></policy></sp></sectunnel>\`;
  const end = async (xml) => {
    const { tunnel } = await planTunnel(await parseDocument(xml));
    const host = new TunnelHost({ network: nodeUdp, crypto: nodeProvider, secretFor: () => utf8('the key'),
      onEvent: (event) => { JSON.stringify(event); throw new Error('a bug of the program'); }, onError: () => undefined });
    await host.add(tunnel, new MemoryDevice());
    return host;
  };
  const port = 20_000 + (process.pid % 20_000);
  const right = await end(document('127.0.0.1', 'any', ['10.2.0.1', '10.1.0.1'], port, 500, 'respond'));
  const left = await end(document('any', '127.0.0.1', ['10.1.0.1', '10.2.0.1'], port + 20_000, port, 'trap'));
  await left.up('t', { signal: AbortSignal.timeout(20_000) });
  console.log(left.status('t').state);
  await left[Symbol.asyncDispose]();
  await right.close();
  await parseDocument('<sectunnel').catch((error) => console.log(error instanceof sectunnel.DocumentError));
`;

let folder: string;

beforeAll(async () => {
  expect(existsSync(join(ROOT, 'dist/public/index.js')), 'npm run build makes it').toBe(true);
  folder = mkdtempSync(join(tmpdir(), 'sectunnel-test-'));
  const modules = join(folder, 'node_modules');
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
    cwd: ROOT,
  });
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
  await run('tar', ['xzf', filename], { cwd: folder });
  const { dependencies } = JSON.parse(readFileSync(join(folder, 'package/package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  cpSync(join(folder, 'package'), join(modules, 'sectunnel'), { recursive: true });
  // What it depends on, and nothing else of what is installed here.
  for (const name of Object.keys(dependencies)) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
  }
}, 60_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

it.each([
  [
    'require',
    'cjs',
    `const sectunnel = require('sectunnel'), testing = require('sectunnel/testing'); (async () => {${PROGRAM}})();`,
  ],
  [
    'import',
    'mjs',
    `import * as sectunnel from 'sectunnel';\nimport * as testing from 'sectunnel/testing';\n${PROGRAM}`,
  ],
])('works for a program that loads it by %s', async (_, extension, program) => {
  const file = join(folder, `program.${extension}`);
  writeFileSync(file, program);
  const { stdout, stderr } = await run(process.execPath, [file], { timeout: 30_000 });
  expect({ stdout, stderr }).toEqual({ stdout: 'up\ntrue\n', stderr: '' });
});

it('has types that are whole, for a program that checks those of its libraries', async () => {
  const { exports } = JSON.parse(readFileSync(join(folder, 'package/package.json'), 'utf8')) as {
    exports: Record<string, unknown>;
  };
  const entries = Object.keys(exports).filter((entry) => !entry.endsWith('.json'));
  expect(entries).toHaveLength(7);
  const imports = entries.map((entry, index) => `export * as entry${index} from '${join('sectunnel', entry)}';\n`);
  writeFileSync(join(folder, 'types.mts'), imports.join(''));
  const options = ['--noEmit', '--strict', '--skipLibCheck', 'false', '--target', 'es2023', '--module', 'nodenext'];
  const types = ['--typeRoots', join(ROOT, 'node_modules/@types'), '--types', 'node'];
  const compiler = [join(ROOT, 'node_modules/typescript/bin/tsc'), ...options, ...types, 'types.mts'];
  const { stdout } = await run(process.execPath, compiler, { cwd: folder }).catch((error: { stdout: string }) => error);
  expect(stdout).toBe('');
});

it('has documents whose links lead to what is in it', () => {
  const root = join(folder, 'package');
  const documents = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.md'));
  expect(documents.length).toBeGreaterThan(8);
  const broken = documents.flatMap((file) =>
    [...readFileSync(join(root, file), 'utf8').matchAll(/\]\((?!https?:|#)([^)#\s]+)[^)]*\)/g)]
      .map((match) => match[1]!)
      .filter((link) => !existsSync(join(root, dirname(file), link)))
      .map((link) => `${file}: ${link}`),
  );
  expect(broken).toEqual([]);
});
