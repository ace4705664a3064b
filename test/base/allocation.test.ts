/** Where memory for keys lies: measured, so in a process of its own. */

import { setImmediate as turn } from 'node:timers/promises';
import v8 from 'node:v8';
import vm from 'node:vm';
import { describe, expect, it } from 'vitest';
import { secretBytes } from '../../src/base/secret-bytes.ts';

/**
 * V8 frees the memory of buffers beside the program, and takes it off the count with the next collection; finalizers run in
 * the turns between. What an earlier test left would otherwise be taken off while this one measures.
 */
async function collectGarbage(): Promise<void> {
  v8.setFlagsFromString('--expose-gc');
  const collect = vm.runInNewContext('gc') as () => void;
  for (let round = 0; round < 3; round++) {
    collect();
    await turn();
  }
}

describe('memory for keys', () => {
  it('lies outside the heap of V8, however small', async () => {
    const count = 200_000;
    await collectGarbage();
    const before = process.memoryUsage().arrayBuffers;
    const kept = Array.from({ length: count }, () => secretBytes(16));
    const grown = process.memoryUsage().arrayBuffers - before;
    // An array of so few bytes has none of its own there.
    const ordinary = Array.from({ length: count }, () => new Uint8Array(16));
    const grownByOrdinary = process.memoryUsage().arrayBuffers - before - grown;
    expect([kept.length, ordinary.length]).toEqual([count, count]);
    // The count is of the whole process, where others (the runner's messages) free a few bytes meanwhile: it is either about
    // 16 bytes each or about none, and the middle tells which.
    expect(grown).toBeGreaterThan((16 * count) / 2);
    expect(grownByOrdinary).toBeLessThan((16 * count) / 2);
  });
});
