/** Who waits is served in turn, and no source keeps another waiting for more than one of its own. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FairQueue } from '../../src/pki/threads/fair-queue.ts';

function drain(queue: FairQueue<string>): string[] {
  const served: string[] = [];
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) served.push(next);
  return served;
}

describe('a fair queue', () => {
  it('serves its sources in turn, and of each the first that came', () => {
    const queue = new FairQueue<string>(8, 16);
    for (const item of ['a1', 'a2', 'a3', 'b1', 'c1', 'c2']) expect(queue.push(item[0]!, item)).toBe(true);
    expect(queue.shift()).toBe('a1');
    // It has its turn behind those that wait already.
    queue.push('d', 'd1');
    expect(drain(queue)).toEqual(['b1', 'c1', 'a2', 'd1', 'c2', 'a3']);
    expect(queue.size).toBe(0);
    expect(queue.shift()).toBeUndefined();
  });

  it('has bounded room for each source, and for all', () => {
    const queue = new FairQueue<string>(2, 5);
    expect(['1', '2', '3'].map((n) => queue.push('a', n))).toEqual([true, true, false]);
    expect(['b', 'c', 'd', 'e'].map((source) => queue.push(source, source))).toEqual([true, true, true, false]);
    queue.shift();
    expect(queue.push('a', '3')).toBe(true);
    expect(queue.size).toBe(5);
  });

  it('has one of each source served before a second of any, whatever comes in which order', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('a', 'b', 'c', 'd'), { maxLength: 40 }), (sources) => {
        const queue = new FairQueue<string>(40, 40);
        for (const [at, source] of sources.entries()) queue.push(source, `${source}${at}`);
        const served = drain(queue);
        expect([...served].sort()).toEqual(sources.map((source, at) => `${source}${at}`).sort());
        const seen = new Map<string, number>();
        for (const [source] of served) {
          const rank = (seen.get(source!) ?? 0) + 1;
          seen.set(source!, rank);
          // Nothing is served for the n-th time while another waits for an earlier turn.
          for (const other of new Set(sources)) {
            const left = sources.filter((one) => one === other).length - (seen.get(other) ?? 0);
            if (left > 0) expect((seen.get(other) ?? 0) + 1).toBeGreaterThanOrEqual(rank);
          }
        }
      }),
    );
  });
});
