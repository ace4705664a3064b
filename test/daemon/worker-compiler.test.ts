import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { COMPILER_FLAGS } from '../../src/daemon/workers/compiler.ts';

it('sets flags that this V8 knows', () => {
  // Node ends with an error for those that it does not know.
  expect(execFileSync(process.execPath, [...COMPILER_FLAGS, '-p', '6 * 7'], { encoding: 'utf8' })).toBe('42\n');
});
