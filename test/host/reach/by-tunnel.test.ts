import { expect, it } from 'vitest';
import { ByTunnel } from '../../../src/host/reach/by-tunnel.ts';

it('finds what belongs to a tunnel, also when a key comes to belong to another', () => {
  const map = new ByTunnel<string, { readonly tunnel: string; readonly n: number }>(({ tunnel }) => tunnel);
  map.set('x', { tunnel: 'a', n: 1 });
  map.set('y', { tunnel: 'a', n: 2 });
  map.set('z', { tunnel: 'b', n: 3 });
  expect(map.of('a').map(({ n }) => n)).toEqual([1, 2]);
  map.set('x', { tunnel: 'b', n: 4 });
  expect([map.of('a'), map.of('b')].map((values) => values.map(({ n }) => n))).toEqual([[2], [3, 4]]);
  expect(map.get('x')?.n).toBe(4);
  map.delete('z');
  map.forget('a');
  expect([...map]).toEqual([['x', { tunnel: 'b', n: 4 }]]);
  expect([map.size, [...map.keys()]]).toEqual([1, ['x']]);
});
