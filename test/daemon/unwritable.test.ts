/** A daemon whose folders are on a file system that is read-only, or full. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { afterEach, expect, it, onTestFinished, vi } from 'vitest';
import { silentLogger } from '../../src/base/log.ts';
import { lockIfPossible, lockNetworkNamespace } from '../../src/daemon/store/lock.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, TestDaemon, temporaryFolder, tunnelDocument } from '../support/daemon.ts';
import { faults } from '../support/faults.ts';

vi.mock('node:fs', async (original) => {
  const { faulty } = await import('../support/faults.ts');
  return faulty('fs', await original<typeof import('node:fs')>());
});

afterEach(() => void faults.lift());

it.each(['EROFS', 'ENOSPC'] as const)(
  'serves what it has where %s keeps it from making folders, and says so',
  async (code) => {
    const test = new TestDaemon(new MemoryNetwork().host([address('192.0.2.1')]), temporaryFolder());
    for (const folder of [test.configDir, test.runDir]) mkdirSync(folder, { mode: 0o700 });
    writeFileSync(`${test.configDir}/net.xml`, tunnelDocument({ start: 'respond' }), { mode: 0o600 });
    faults.arm({ edge: /^fs\.mkdir/, nth: 1, code, lasting: true });
    await test.open();
    onTestFinished(() => test.close());
    expect(readdirSync(test.configDir)).toEqual(['net.xml']);
    const said = test.lines.filter(({ level }) => level === 'error').map(({ text }) => text);
    expect(said).toEqual(
      ['autostart', 'live', 'secrets'].map((name) => expect.stringMatching(`/${name} for .*\\(${code}\\)`)),
    );
    const { client } = test;
    expect((await client.call('list', {})).tunnels).toMatchObject([{ name: 'net', state: 'inactive' }]);
    const refusal = (work: Promise<unknown>): Promise<string> => work.then(() => 'done', String);
    expect(await refusal(client.call('autostart', { name: 'net', enable: true }))).toContain(`autostart for`);
    expect(await refusal(test.giveSecret())).toContain(`secrets for`);
    expect((await client.call('reload', {})).unchanged).toBe(1);
    // There is room again: no restart is needed.
    faults.lift();
    await test.giveSecret();
    await client.call('autostart', { name: 'net', enable: true });
    faults.arm({ edge: /^fs\.mkdir/, nth: 1, code, lasting: true });
    const { warnings } = await client.call('start', { name: 'net' });
    expect(warnings.at(-1)).toMatch(new RegExp(`the tunnel runs, but .*/live for .*\\(${code}\\)`));
    expect(await client.call('info', { name: 'net' })).toMatchObject({ active: true });
  },
);

it('does without locks where none can be written, and refuses other errors', () => {
  const locks = temporaryFolder();
  const lines: string[] = [];
  const log = { ...silentLogger, error: (_: object, text: string) => void lines.push(text) };
  faults.arm({ edge: /^fs\.openSync/, nth: 1, code: 'EROFS', lasting: true });
  lockIfPossible(log, () => lockNetworkNamespace(locks))();
  expect(lines).toEqual([
    expect.stringMatching(/cannot be written: read-only .*Nothing keeps a second sectunneld out$/),
  ]);
  faults.lift();
  faults.arm({ edge: /^fs\.openSync/, nth: 1, code: 'EACCES', lasting: true });
  expect(() => lockIfPossible(log, () => lockNetworkNamespace(locks))).toThrow('(EACCES)');
});
