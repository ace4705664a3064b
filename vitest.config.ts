import { defineConfig } from 'vitest/config';
import { SlowFirst } from './test/support/slow-first.ts';

// Two groups: what is quick, on all processors; after it what starts daemons and peers in network namespaces, four files
// at a time: each has namespaces of its own, and waits more than it computes.

/**
 * Files of layers that keep nothing but what a test makes: they may share a process, and what it has loaded. Those that
 * measure memory want one for themselves.
 */
const PURE = 'test/{base,check,config,crypto,engine,esp,filters,ike,pki,policy}/**/!(allocation|native).test.ts';

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
          testTimeout: 180_000,
          hookTimeout: 240_000,
          maxWorkers: 4,
          sequence: { groupOrder: 1 },
        },
      },
    ],
    coverage: { provider: 'v8', include: ['src/**/*.ts'], reporter: ['text-summary', 'html'] },
  },
});

export default config;
