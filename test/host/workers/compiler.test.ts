import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { compilerFlags } from '../../../src/host/workers/compiler.ts';

it('sets flags that this V8 knows', () => {
  // Node ends with an error for those that it does not know.
  const flags = compilerFlags(process.versions.v8);
  expect(execFileSync(process.execPath, [...flags, '-p', '6 * 7'], { encoding: 'utf8' })).toBe('42\n');
});

it('leaves out what Node 22 and 24 no longer have', () => {
  expect(compilerFlags('11.3.244.8-node.38')).toContain('--interrupt-budget=4000');
  for (const version of ['12.4.254.21-node.33', '13.6.233.17-node.63']) {
    expect(compilerFlags(version).some((flag) => flag.includes('budget'))).toBe(false);
    expect(compilerFlags(version)).toContain('--always-sparkplug');
  }
});
