import { defineConfig } from 'vitest/config';
import { SlowFirst } from './test/support/slow-first.ts';

// Three groups: what is quick, on all processors; after it what starts daemons and peers in network namespaces, four files
// at a time: each has namespaces of its own, and waits more than it computes; last what measures how long others wait.

/**
 * Files of layers that keep nothing but what a test makes: they may share a process, and what it has loaded. Those that
 * measure memory want one for themselves.
 */
const PURE =
  'test/{base,check,config,crypto,engine,esp,hostnet/filters,ike,pki,policy}/**/!(allocation|native).test.ts';

/** They measure how long others wait, so they have the processors for themselves: after all, one at a time. */
const MEASURED = 'test/interop/*flood.test.ts';

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
          testTimeout: 30_000,
          maxWorkers: '100%',
          isolate: false,
        },
      },
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/interop/**', PURE],
          testTimeout: 30_000,
          maxWorkers: '100%',
        },
      },
      {
        test: {
          name: 'interop',
          include: ['test/interop/**/*.test.ts'],
          exclude: [MEASURED],
          testTimeout: 180_000,
          hookTimeout: 240_000,
          maxWorkers: 4,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'measured',
          include: [MEASURED],
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
