import { describe, expect, it } from 'vitest';
import { globMatcher, isGlob } from '../../src/base/glob.ts';

describe('a pattern of names', () => {
  it.each([
    ['branch-*', 'branch-1', true],
    ['branch-*', 'branch-', true],
    ['branch-*', 'a-branch-1', false],
    ['*', '', true],
    ['*-[0-9]', 'hub-7', true],
    ['*-[!0-9]', 'hub-7', false],
    ['*-[!0-9]', 'hub-x', true],
    ['b?', 'b1', true],
    ['b?', 'b', false],
    ['b?', 'b12', false],
    ['a*b*c', 'a-b-b-c', true],
    ['a*b*c', 'a-c-b', false],
    ['[]a]', ']', true],
    ['[a', '[a', true],
    ['a.b', 'axb', false],
    ['gw-[a-cx]', 'gw-x', true],
    ['gw-[a-cx]', 'gw-d', false],
    ['Ü*', 'Übersee', true],
  ])('%s against %s: %s', (pattern, text, fits) => {
    expect(globMatcher(pattern)(text)).toBe(fits);
  });

  it('is told from a name', () => {
    expect(['lan', 'branch-*', 'b?', '[a]'].map(isGlob)).toEqual([false, true, true, true]);
  });

  it('costs no more for many stars', () => {
    const matches = globMatcher(`${'a*'.repeat(100)}b`);
    const began = performance.now();
    expect(matches('a'.repeat(2_000))).toBe(false);
    expect(performance.now() - began).toBeLessThan(2_000);
  });
});
