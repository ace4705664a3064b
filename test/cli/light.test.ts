/** A command that asks the daemon starts at once: it loads nothing that reads documents or negotiates. */
import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { ExitCode } from '../../src/cli/exit-code.ts';
import { temporaryFolder } from '../support/folder.ts';

const ROOT = join(import.meta.dirname, '../..');

/** The files that a command of the built program loads, as V8 lists them. */
async function loadedBy(words: readonly string[]): Promise<string[]> {
  const folder = temporaryFolder();
  const [coverage, run] = [join(folder, 'coverage'), join(folder, 'run')];
  mkdirSync(run);
  const args = [join(ROOT, 'dist/cli/main.js'), '--run-dir', run, ...words];
  const ran = promisify(execFile)(process.execPath, args, { env: { ...process.env, NODE_V8_COVERAGE: coverage } });
  const code = await ran.then(
    () => 0,
    (error: { readonly code: number }) => error.code,
  );
  expect(code).toBe(ExitCode.Unreachable);
  const texts = readdirSync(coverage).map((file) => readFileSync(join(coverage, file), 'utf8'));
  return texts.flatMap((text) => [...text.matchAll(/"url":"file:\/\/([^"]*)"/g)].map(([, file]) => file!));
}

it.each([['list', '--all'], ['status'], ['start', 'net'], ['secret-list']])('%s %s', async (...words) => {
  const files = await loadedBy(words.filter((word) => word !== undefined));
  expect(files.length).toBeGreaterThan(40);
  const heavy = files.filter((file) => /node_modules|dist\/(config\/(?!size)|crypto|ike|engine|host|pki)/.test(file));
  expect(heavy).toEqual([]);
});
