/** docs/library.md shows parts of the examples, which run. */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const program = fileURLToPath(new URL('../../build/examples/loop.js', import.meta.url));

describe('docs/library.md', () => {
  it('shows code that is in an example, word for word', () => {
    const examples = readdirSync('examples')
      .filter((file) => file.endsWith('.ts'))
      .map((file) => readFileSync(`examples/${file}`, 'utf8'));
    const shown = [...readFileSync('docs/library.md', 'utf8').matchAll(/^```ts\n(.*?)^```$/gms)].map(
      ([, code]) => code!,
    );
    expect(shown.length).toBeGreaterThanOrEqual(3);
    expect(shown.filter((code) => !examples.some((example) => example.includes(code)))).toEqual([]);
  });

  it('shows a loop that carries a packet from one engine to another', async () => {
    expect(existsSync(program), 'npm run build makes it').toBe(true);
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [program], { timeout: 20_000 });
    expect(stderr).toBe('');
    expect(stdout).toContain("received 'hello' from 10.1.0.1 port 5000");
    expect(stdout.match(/child-down/g)).toHaveLength(2);
  });
});
