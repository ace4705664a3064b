import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';
import { SlowFirst } from './test/support/slow-first.ts';

// Three groups, one after another. First the quick tests, on all processors: four projects, two of which `npm run test:unit`
// runs. Then those that start daemons and peers in network namespaces, four files at a time: each has namespaces of its own,
// and waits more than it computes. Last those that want all processors for themselves.

/**
 * Files of layers that keep nothing but what a test makes: they may share a process, and what it has loaded. Those that
 * measure memory want one for themselves.
 */
const PURE =
  'test/{base,check,config,crypto,engine,esp,hostnet/filters,ike,pki,policy}/**/!(allocation|native).test.ts';

/**
 * Long searches for a counterexample, and what takes hundreds of tunnels or files: a third of the time of all that needs no root.
 * `npm run test:unit` leaves them out.
 */
const THOROUGH =
  'test/{cli/each,config/xml,crypto/native,daemon/{sleep,store/storage,unanswered},engine/{bounds,start,traffic},fuzz/fuzz,ike/{flood-places,simulation},policy/database}.test.ts';

/** What `npm run test:unit` does not run, as it needs root: what uses the lab, and a socket with a larger buffer. */
const ROOT: readonly string[] = [...usersOfTheLab(), 'test/tun/queue.test.ts'];

function usersOfTheLab(): string[] {
  return readdirSync('test', { recursive: true, encoding: 'utf8' })
    .map((file) => join('test', file))
    .filter((file) => file.endsWith('.test.ts') && !file.startsWith('test/interop/'))
    .filter((file) => readFileSync(file, 'utf8').includes('support/lab/'));
}

/** They measure how long others wait, or take all processors, so they have these for themselves: after all, one at a time. */
const ALONE = 'test/interop/{*flood,mass}.test.ts';

const config: ReturnType<typeof defineConfig> = defineConfig({
  test: {
    // The sources import what it makes, and a test run must not need a build.
    globalSetup: ['scripts/build-wasm.mjs'],
    sequence: { sequencer: SlowFirst },
    projects: [
      {
        test: {
          name: 'pure',
          include: [PURE],
          exclude: [THOROUGH, ...ROOT],
          testTimeout: 30_000,
          maxWorkers: '100%',
          isolate: false,
        },
      },
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/interop/**', PURE, THOROUGH, ...ROOT],
          testTimeout: 30_000,
          maxWorkers: '100%',
        },
      },
      {
        test: {
          name: 'thorough',
          include: [THOROUGH],
          testTimeout: 30_000,
          maxWorkers: '100%',
        },
      },
      {
        test: {
          name: 'root',
          include: [...ROOT],
          testTimeout: 30_000,
          maxWorkers: '100%',
        },
      },
      {
        test: {
          name: 'interop',
          include: ['test/interop/**/*.test.ts'],
          exclude: [ALONE],
          testTimeout: 180_000,
          hookTimeout: 240_000,
          maxWorkers: 4,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'alone',
          include: [ALONE],
          testTimeout: 180_000,
          hookTimeout: 240_000,
          maxWorkers: 1,
          sequence: { groupOrder: 2 },
        },
      },
    ],
    coverage: { provider: 'v8', include: ['src/**/*.ts'], reporter: ['text-summary', 'html'] },
  },
});

export default config;
