import { defineConfig } from 'vitest/config';
import { SlowFirst } from './test/support/slow-first.ts';

// Two groups: what is pure and quick, on all processors; after it what starts daemons and peers in network namespaces,
// three files at a time: each has namespaces of its own, and waits more than it computes.
const config: ReturnType<typeof defineConfig> = defineConfig({
  test: {
    // The sources import what it makes, and a test run must not need a build.
    globalSetup: ['scripts/build-wasm.mjs'],
    sequence: { sequencer: SlowFirst },
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/interop/**'],
          testTimeout: 30_000,
          maxWorkers: '100%',
        },
      },
      {
        test: {
          name: 'interop',
          include: ['test/interop/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 120_000,
          maxWorkers: 3,
          sequence: { groupOrder: 1 },
        },
      },
    ],
    coverage: { provider: 'v8', include: ['src/**/*.ts'], reporter: ['text-summary', 'html'] },
  },
});

export default config;
