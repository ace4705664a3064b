/** Options of Node that programs do not run with, and what their threads get of it. */
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { WORKER_OPTIONS } from '../../src/base/worker-options.ts';
import { isRefusedOption, NO_INSPECTOR } from '../../src/sys/node-options.ts';

it('tells options that open the inspector or write memory from others', () => {
  const refused = ['--inspect', '--inspect-brk=0.0.0.0:1', '--inspect_port=9229', '--heapsnapshot-signal=SIGUSR2'];
  const more = ['--heap-prof', '--report-on-signal', '--report-on-fatalerror', '--perf_basic_prof', '--tls-keylog=f'];
  expect([...refused, ...more].filter((word) => !isRefusedOption(word))).toEqual([]);
  expect(['--max-old-space-size=512', '--no-warnings', NO_INSPECTOR, ''].filter(isRefusedOption)).toEqual([]);
});

it('starts every program of the package without an address for the inspector', () => {
  expect(readFileSync('bin/launch', 'utf8')).toContain(`exec node '${NO_INSPECTOR}' `);
  const { bin } = JSON.parse(readFileSync('package.json', 'utf8')) as { bin: Record<string, string> };
  for (const path of Object.values(bin)) expect(readFileSync(path, 'utf8')).toContain('/launch" ');
});

it('gives threads neither options nor environment', async () => {
  process.env.NODE_OPTIONS = '--no-warnings';
  const code = "require('worker_threads').parentPort.postMessage([process.execArgv, { ...process.env }])";
  const worker = new Worker(code, { ...WORKER_OPTIONS, eval: true });
  delete process.env.NODE_OPTIONS;
  const seen = await new Promise((resolve) => worker.once('message', resolve));
  await worker.terminate();
  expect(seen).toEqual([[], {}]);
});
