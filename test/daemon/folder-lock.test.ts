import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { lockFolder } from '../../src/daemon/folder-lock.ts';
import { ControlError } from '../../src/daemon/protocol.ts';

it('a folder is for one daemon: the next is told which has it, and may have it after that one', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sectunnel-lock-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const unlock = lockFolder(folder);
  expect(readFileSync(join(folder, '.lock'), 'utf8')).toBe(`${process.pid}\n`);
  let refusal: unknown;
  try {
    lockFolder(folder);
  } catch (error) {
    refusal = error;
  }
  expect(refusal).toBeInstanceOf(ControlError);
  expect(String(refusal)).toContain(
    `(process ${process.pid}) works with the folder ${folder}: end it, or give this one`,
  );
  unlock();
  lockFolder(folder)();
});
