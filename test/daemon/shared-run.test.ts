import { expect, it } from 'vitest';
import { SharedRun } from '../../src/daemon/shared-run.ts';

/** Runs that the test ends. */
function runs(): { shared: SharedRun<number>; ends: ((failure?: Error) => void)[] } {
  const ends: ((failure?: Error) => void)[] = [];
  const shared = new SharedRun<number>(() => {
    const number = ends.length;
    return new Promise((resolve, reject) => {
      ends.push((failure) => (failure === undefined ? resolve(number) : reject(failure)));
    });
  });
  return { shared, ends };
}

it('serves all callers during a run with the next one, which begins when that has ended', async () => {
  const { shared, ends } = runs();
  const first = shared.run();
  const later = [shared.run(), shared.run(), shared.run()];
  expect(ends).toHaveLength(1);
  ends[0]!();
  expect(await first).toBe(0);
  await expect.poll(() => ends.length).toBe(2);
  const last = shared.run();
  ends[1]!();
  expect(await Promise.all(later)).toEqual([1, 1, 1]);
  await expect.poll(() => ends.length).toBe(3);
  ends[2]!();
  expect(await last).toBe(2);
  expect(ends).toHaveLength(3);
});

it('goes on after a run that failed', async () => {
  const { shared, ends } = runs();
  const [first, second] = [shared.run(), shared.run()];
  ends[0]!(new Error('no'));
  await expect(first).rejects.toThrow('no');
  await expect.poll(() => ends.length).toBe(2);
  ends[1]!();
  expect(await second).toBe(1);
  const third = shared.run();
  ends[2]!();
  expect(await third).toBe(2);
});
