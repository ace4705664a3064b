import { describe, expect, it } from 'vitest';
import { TokenBucket } from '../../src/base/token-bucket.ts';

describe('TokenBucket', () => {
  it('gives a burst, then so many a second', () => {
    const bucket = new TokenBucket(10, 3);
    const taken = (now: number): number => [1, 2, 3, 4, 5].filter(() => bucket.take(now)).length;
    expect(taken(0)).toBe(3);
    expect(taken(100)).toBe(1);
    expect(taken(150)).toBe(0);
    expect(taken(60_000)).toBe(3);
    // A clock that steps back gives nothing.
    expect(taken(50_000)).toBe(0);
  });
});
