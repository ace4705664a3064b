import { expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { forEachRun } from '../../src/engine/tags.ts';

/** A batch of packets with these tags; `undefined` for one that was dropped. */
function tagged(tags: readonly (number | undefined)[]): PacketBatch {
  const batch = new PacketBatch(tags.length, 4);
  for (const tag of tags) {
    const slot = batch.push(Uint8Array.of(1));
    batch.tag[slot] = tag ?? 9;
    if (tag === undefined) batch.length[slot] = 0;
  }
  return batch;
}

it.each([
  [[], []],
  [[undefined, undefined], []],
  [
    [1, 1, 2, 1],
    [
      [1, 0, 2],
      [2, 2, 3],
      [1, 3, 4],
    ],
  ],
  [
    [undefined, 1, undefined, 1, undefined, 2],
    [
      [1, 1, 5],
      [2, 5, 6],
    ],
  ],
])('packets of one tag that follow one another are one run: %j', (tags, runs) => {
  const found: number[][] = [];
  forEachRun(tagged(tags), (...run) => found.push(run));
  expect(found).toEqual(runs);
});
