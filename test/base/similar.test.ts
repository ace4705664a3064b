import { describe, expect, it } from 'vitest';
import { nearest, suggestion } from '../../src/base/similar.ts';

describe('the nearest name', () => {
  const names = ['start', 'status', 'destroy', 'aes256gcm16', 'ls'];

  it('is equal but for case and what joins its parts, or a few edits away', () => {
    expect(nearest('START', names)).toBe('start');
    expect(nearest('aes256-gcm-16', names)).toBe('aes256gcm16');
    expect(nearest('strat', names)).toBe('start');
    expect(nearest('statu', names)).toBe('status');
    expect(nearest('l-s', names)).toBe('ls');
  });

  it('is the one with the fewest edits, not the first', () => {
    expect(nearest('stats', ['start', 'status'])).toBe('status');
  });

  it('is none where nothing is near', () => {
    for (const word of ['', 'x', 'lx', 'undefine', 'x'.repeat(100_000)]) expect(nearest(word, names)).toBeUndefined();
    expect(suggestion('nothing', names)).toBe('');
    expect(suggestion('destory', names)).toBe(" (did you mean 'destroy'?)");
  });
});
