import { expect, it } from 'vitest';
import { SetMap } from '../../src/base/set-map.ts';

it('keeps what was added under a key, in order, each once, until it is deleted', () => {
  const map = new SetMap<string, number>();
  expect([...map.get('a')]).toEqual([]);
  for (const value of [3, 1, 3, 2]) map.add('a', value);
  map.add('b', 1);
  expect([...map.get('a')]).toEqual([3, 1, 2]);
  map.delete('a', 1);
  map.delete('a', 7);
  map.delete('c', 1);
  expect([...map.get('a')]).toEqual([3, 2]);
  for (const value of [3, 2]) map.delete('a', value);
  expect([...map.get('a')]).toEqual([]);
  expect([...map.get('b')]).toEqual([1]);
});
