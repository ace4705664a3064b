import { expect, it } from 'vitest';
import { Numbered } from '../../src/base/numbered.ts';

it('uses numbers again, of which it tells the next', () => {
  const numbered = new Numbered<string>();
  expect([numbered.add('a'), numbered.add('b'), numbered.add('c')]).toEqual([0, 1, 2]);
  numbered.remove(1);
  expect(numbered.get(1)).toBeUndefined();
  expect(numbered.next).toBe(1);
  expect(numbered.add('d')).toBe(1);
  expect(numbered.next).toBe(3);
  numbered.set(3, 'e');
  expect(numbered.get(3)).toBe('e');
});
