import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { SectunnelError } from '../../../src/base/error.ts';
import { lockDefinitions, lockNetworkNamespace } from '../../../src/daemon/store/lock.ts';

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sectunnel-lock-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof SectunnelError) return error.message;
    throw error;
  }
  throw new Error('it was not refused');
}

it('a folder is for one daemon: the next one learns which has it, and gets it when that one ends', () => {
  const [folder, locks] = [temporaryFolder(), temporaryFolder()];
  const unlock = lockDefinitions(folder, locks);
  // It may be on a file system that is read-only.
  expect(readdirSync(folder)).toEqual([]);
  const [lock] = readdirSync(locks);
  expect(readFileSync(join(locks, lock!), 'utf8')).toBe(`${process.pid}\n`);
  // By whatever name.
  const other = join(temporaryFolder(), 'link');
  symlinkSync(folder, other);
  expect(refusal(() => lockDefinitions(other, locks))).toContain(
    `another sectunneld (process ${process.pid}) works with the folder ${other}: end it, or give this one`,
  );
  lockDefinitions(temporaryFolder(), locks)();
  unlock();
  lockDefinitions(folder, locks)();
  expect(readdirSync(locks)).toEqual([]);
});

it('a network namespace is for one daemon', () => {
  const folder = temporaryFolder();
  const unlock = lockNetworkNamespace(folder);
  expect(refusal(() => lockNetworkNamespace(folder))).toContain('works in this network namespace: end it, or run');
  unlock();
  expect(readdirSync(folder)).toEqual([]);
});
