import { describe, expect, it } from 'vitest';
import { slope } from '../../bench/stats.ts';

describe('the slope of points', () => {
  it('is that of the line that they are on', () => {
    expect(slope([0, 1, 2, 5].map((x) => [x, 3 - 2 * x] as const))).toBeCloseTo(-2);
    expect(slope([0, 1, 2].map((x) => [x, 7] as const))).toBe(0);
  });

  it('is that of the line that fits best, so that what goes up and down is flat', () => {
    expect(
      slope([
        [0, 10],
        [1, 12],
        [2, 8],
        [3, 12],
        [4, 10],
      ]),
    ).toBeCloseTo(0);
    expect(
      slope([
        [0, 0],
        [1, 3],
        [2, 2],
        [3, 5],
      ]),
    ).toBeCloseTo(1.4);
  });

  it('of fewer than two is none', () => {
    expect(slope([])).toBeNaN();
    expect(slope([[1, 1]])).toBeNaN();
  });
});
