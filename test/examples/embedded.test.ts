import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const program = fileURLToPath(new URL('../../build/examples/embedded.js', import.meta.url));

it('the embedded example runs two ends in one process, without root', async () => {
  expect(existsSync(program), 'npm run build makes it').toBe(true);
  const { stdout } = await promisify(execFile)(process.execPath, [program], { timeout: 20_000 });
  expect(stdout).toContain("right received 'hello' from 10.1.0.1 port 5000");
  expect(stdout).toContain("left received 'hello yourself' from 10.2.0.1 port 5000");
  expect(stdout).toMatch(/both ends are closed\n$/);
});
