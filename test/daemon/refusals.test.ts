/** Whatever a user gets wrong is answered with a sentence: no place in the sources, and never as a fault of the program. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { run } from '../../src/cli/run.ts';
import { VERBS, type Verb } from '../../src/control/verbs.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, SECRET_UUID, TestDaemon, temporaryFolder, tunnelDocument } from '../support/daemon.ts';

/** A place in the sources, or what is said of a bug. */
const RAW = /\n\s+at |internal error/;

async function daemon(): Promise<TestDaemon> {
  return TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
}

const WRONG: readonly unknown[] = [
  ...[undefined, null, true, -1, 1e300, [], {}, '', ' ', '../x', 'no-such', '%', '<a/>', '\u0000', '\ud800', '☃'],
  ...['x'.repeat(5_000), '<sectunnel/>', '<secret/>', '<network/>', '<!DOCTYPE a []><a/>', '&', '192.0.2.1', '::'],
];

it('requests with wrong parameters are refused in words', async () => {
  const { client, lines } = await daemon();
  const answers: string[] = [];
  for (const [verb, takes] of Object.entries(VERBS)) {
    for (const value of WRONG) {
      const params = Object.fromEntries(Object.keys(takes).map((name) => [name, value]));
      await client
        .call(verb as Verb, params as never)
        .catch((error: Error) => answers.push(`${verb}: ${error.message}`));
    }
  }
  expect(answers.length).toBeGreaterThan(Object.keys(VERBS).length * 5);
  expect(answers.filter((answer) => RAW.test(answer))).toEqual([]);
  expect(lines.filter(({ text }) => text === 'request failed')).toEqual([]);
});

it('so are files and folders that cannot be used, and what does not fit the state', async () => {
  const test = await daemon();
  const folder = temporaryFolder();
  const file = (name: string, content: string | Buffer): string => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
  const document = file('net.xml', tunnelDocument());
  mkdirSync(join(folder, 'folder'));
  chmodSync(file('empty', ''), 0o600);
  const said: string[] = [];
  const sectunnel = async (...words: string[]): Promise<number> => {
    const note = (text: string): void => void said.push(`${words.join(' ')}: ${text}`);
    const readStdin = (): Promise<Buffer> => Promise.resolve(Buffer.from([0xff, 0xfe, 0]));
    const terminal = { out: note, err: note, readStdin, interrupted: () => Promise.resolve() };
    return run(['--run-dir', test.runDir, ...words], terminal);
  };
  const files = ['nothing', 'folder', 'empty'].map((name) => join(folder, name));
  files.push(file('binary', Buffer.from([0xff, 0, 0xfe])), file('xml', '<a><b></a>'), '-', '');
  const byFile = ['define', 'create', 'update', 'secret-define', 'net-import', 'net-define', 'export', 'check'];
  for (const verb of byFile) for (const path of files) expect(await sectunnel(verb, path), verb + path).not.toBe(0);
  for (const path of files) expect(await sectunnel('secret-set-value', SECRET_UUID, '--file', path)).not.toBe(0);
  const byName = [
    'start',
    'destroy',
    'undefine',
    'autostart',
    'info',
    'dumpxml',
    'status',
    'pki-check',
    'secret-undefine',
  ];
  for (const verb of byName) expect(await sectunnel(verb, 'no-such'), verb).not.toBe(0);
  await sectunnel('define', document);
  for (const words of [
    ['start', 'net'],
    ['destroy', 'net'],
    ['create', document],
    ['restart', 'net'],
  ]) {
    expect(await sectunnel(...words)).not.toBe(0);
  }
  await test.giveSecret();
  test.refuseDevices = true;
  expect(await sectunnel('start', 'net')).not.toBe(0);
  expect(said.filter((text) => RAW.test(text))).toEqual([]);
  expect(test.lines.filter(({ text, fields }) => RAW.test(`${text}${JSON.stringify(fields)}`))).toEqual([]);
});
