import { describe, expect, it, vi } from 'vitest';
import { bootNow, watchSleep } from '../../src/sys/boot-clock.ts';

describe.runIf(process.platform === 'linux')('the clock that counts sleep', () => {
  it('goes on as the monotonic one does while the host is awake', async () => {
    const [boot, monotonic] = [bootNow(), performance.now()];
    await new Promise((resolve) => setTimeout(resolve, 60));
    const [passed, wanted] = [bootNow() - boot, performance.now() - monotonic];
    expect(Math.abs(passed - wanted)).toBeLessThan(5);
    expect(bootNow()).toBeGreaterThanOrEqual(boot);
  });

  it('reports how long the host slept, once, and nothing when it did not', async () => {
    const slept: number[] = [];
    const watch = watchSleep((asleep) => slept.push(asleep));
    await new Promise((resolve) => setTimeout(resolve, 2_300));
    expect(slept).toEqual([]);
    // What sleep does to a process: the monotonic clock is behind what it would be.
    const real = performance.now.bind(performance);
    const monotonic = vi.spyOn(performance, 'now').mockImplementation(() => real() - 90_000);
    await vi.waitFor(() => expect(slept).toHaveLength(1), { timeout: 5_000 });
    expect(slept[0]).toBeGreaterThan(89_900);
    expect(slept[0]).toBeLessThan(90_100);
    await new Promise((resolve) => setTimeout(resolve, 2_300));
    expect(slept).toHaveLength(1);
    monotonic.mockRestore();
    await watch.close();
  });
});
