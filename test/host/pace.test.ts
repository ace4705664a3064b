/** Pieces of work of all kinds share the rounds of the event loop. */
import { setImmediate as nextRound } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { ownRound } from '../../src/host/pace.ts';

it('one piece goes on in each round of the event loop, whoever asks, in the order in which they ask', async () => {
  const done: string[] = [];
  const piece = async (name: string): Promise<void> => {
    await ownRound();
    done.push(name);
  };
  const all = [...'abcdef'].map(piece);
  for (let round = 0; done.length < all.length; round++) {
    const before = done.length;
    await nextRound();
    expect(done.length - before).toBeLessThanOrEqual(1);
    expect(round).toBeLessThan(50);
  }
  expect(done.join('')).toBe('abcdef');
});
