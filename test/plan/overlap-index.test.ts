/** Of thousands of documents only those are compared that may claim the same packets. */
import { expect, it } from 'vitest';
import type { SectunnelDocument } from '../../src/config/model.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { OverlapIndex } from '../../src/plan/overlap-index.ts';
import { overlapsAmong } from '../../src/plan/overlaps.ts';
import { fastest } from '../support/growth.ts';

function branch(at: number, remote = `10.${1 + (at >> 8)}.${at & 0xff}.0`): SectunnelDocument {
  return parseDocument(
    `<sectunnel type='ipsec'><name>t${at}</name><sa><auth type='psk'><secret usage='k'/></auth></sa>
      <sp name='lan'><src_range address='10.0.0.0' prefixlen='24'/><dst_range address='${remote}' prefixlen='24'/>
      <upperspec protocol='any'/><policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel'/></policy></sp>
    </sectunnel>`,
    { newUuid: () => '11111111-2222-3333-4444-555555555555' },
  );
}

function indexOf(count: number): OverlapIndex {
  const index = new OverlapIndex();
  for (let at = 0; at < count; at++) index.set(branch(at));
  return index;
}

it('a document is held against those that may overlap with it, and not against itself', () => {
  const index = indexOf(300);
  expect(index.near(branch(7))).toEqual([]);
  const other = branch(1_000, '10.1.7.0');
  expect(index.near(other).map(({ name }) => name)).toEqual(['t7']);
  expect(overlapsAmong(other, index.near(other)).conflicts[0]?.tunnel).toBe('t7');
  index.set(branch(7, '10.200.0.0'));
  expect(index.near(other)).toEqual([]);
  index.delete('t8');
  expect(index.near(branch(1_000, '10.1.8.0'))).toEqual([]);
});

it('the cost of a document does not grow with their number', { timeout: 30_000 }, () => {
  const costs = [100, 4_000].map((count) => {
    const index = indexOf(count);
    const fresh = Array.from({ length: 100 }, (_, at) => branch(count + at));
    return fastest(8, () => {
      for (const document of fresh) {
        overlapsAmong(document, index.near(document));
        index.set(document);
      }
      for (const { name } of fresh) index.delete(name);
    });
  });
  // A scan of all would cost forty times as much.
  expect(costs[1]! / costs[0]!).toBeLessThan(8);
});
