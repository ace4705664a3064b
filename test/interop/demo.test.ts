import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { describeInterop } from '../support/lab/requirements.ts';

const program = fileURLToPath(new URL('../../build/scripts/demo.js', import.meta.url));

async function demo(...prefix: readonly string[]): Promise<string> {
  const words = [...prefix, process.execPath, program];
  const { stdout } = await promisify(execFile)('env', words, { timeout: 150_000 });
  return stdout;
}

describeInterop('the demo', ['namespaces', 'tcpdump', 'build'], () => {
  it('shows the seed’s document at work between two namespaces', async () => {
    const said = await demo();
    expect(said).not.toContain('FAIL');
    expect(said).toContain('ok   nothing else passed');
    expect(said).toMatch(/\ndemo: 14 passed, 0 failed\n$/);
  });

  it('shows the same in memory to users without privileges, and says so', async () => {
    const said = await demo('setpriv', '--reuid=65534', '--regid=65534', '--clear-groups');
    expect(said).toMatch(/^demo: not root; the same runs in one process, with devices in memory\n/);
    expect(said).toMatch(/\ndemo: 6 passed, 0 failed\n$/);
  });
});
