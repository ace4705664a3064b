/** The programs as they are shipped: few files, and the inspector shut before anything else runs. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const FOLDER = 'dist/programs';

/** The files that a program loads before it runs, in the order in which they run. */
function loaded(file: string, found: string[] = []): string[] {
  const text = readFileSync(join(FOLDER, file), 'utf8');
  for (const [, name] of text.matchAll(/^import (?:[^;]* from )?"\.\/([^"]+)";/gm)) {
    if (!found.includes(name!)) loaded(name!, found);
  }
  if (!found.includes(file)) found.push(file);
  return found;
}

it.each(['sectunneld.js', 'sectunnel.js', 'network-hook.js'])('%s shuts the inspector first', (program) => {
  const [first] = loaded(program);
  const text = readFileSync(join(FOLDER, first!), 'utf8');
  expect(text).toContain('process.on("SIGUSR1"');
  // Packages that it imports would run before it.
  expect([...text.matchAll(/from "([^"]+)"/g)].map(([, name]) => name)).toEqual(['node:fs']);
});

it('are few files, each of which finds its neighbours', () => {
  const files = readdirSync(FOLDER);
  expect(files.length).toBeLessThan(100);
  const texts = files.map((file) => readFileSync(join(FOLDER, file), 'utf8')).join('\n');
  const started = [...texts.matchAll(/new URL\("([^"]+)", import\.meta\.url\)/g)].map(([, path]) => path!);
  expect(started).toEqual(expect.arrayContaining(['./packet-worker.js', './verifier-worker.js', 'network-hook.js']));
  for (const path of started) expect(() => readFileSync(join(FOLDER, path)), path).not.toThrow();
});
