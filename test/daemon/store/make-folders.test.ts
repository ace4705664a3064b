import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { makeFolders } from '../../../src/daemon/store/make-folders.ts';

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'sectunnel-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  return path;
}

it('makes the folder and those above it, each with the mode', () => {
  const root = folder();
  makeFolders(join(root, 'a/b/c'), 0o700);
  for (const made of ['a', 'a/b', 'a/b/c']) expect(statSync(join(root, made)).mode & 0o777).toBe(0o700);
  makeFolders(join(root, 'a/b/c'), 0o700);
});

it('ends where the kernel makes no folder, though those above it are there', () => {
  expect(() => makeFolders('/proc/sectunnel/run', 0o700)).toThrow('ENOENT');
});

it('says that a file stands in the way', () => {
  const root = folder();
  writeFileSync(join(root, 'file'), '');
  expect(() => makeFolders(join(root, 'file/run'), 0o700)).toThrow('ENOTDIR');
});
