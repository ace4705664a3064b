/** A tunnel that is up, the rekeying of its IKE SA, and what must have come of it. */
import { expect } from 'vitest';
import { expectClosed, expectSame } from './ike-expect.ts';
import { type Host, Pair, type PairOptions } from './ike-pair.ts';

export interface Ids {
  readonly a: number;
  readonly b: number;
}

export const idsOf = (pair: Pair): Ids => ({ a: pair.a.ikeSa.id, b: pair.b.ikeSa.id });

/** A tunnel that is up. */
export function established(options: PairOptions | Pair = {}, children = 1): Pair {
  const pair = options instanceof Pair ? options : new Pair(options);
  pair.up();
  expectSame(pair, children);
  pair.sent.length = 0;
  return pair;
}

export function rekeyIke(pair: Pair, ...hosts: Host[]): void {
  for (const host of hosts) {
    const { id } = host.ikeSa;
    pair.act(host, (endpoint, now) => endpoint.rekeyIkeSa(now, id));
  }
}

/** The children were never down, each side has its one new IKE SA, which works, and nothing is left of the old one. */
export function expectRekeyed(pair: Pair, old: Ids): void {
  pair.run(130_000);
  expectSame(pair, 1);
  for (const side of ['a', 'b'] as const) {
    const host = pair[side];
    expect(host.of('child-up')).toHaveLength(1);
    expect(host.of('child-down')).toEqual([]);
    expect(host.of('ike-up').map((event) => event.replaces)).toEqual([undefined, old[side]]);
    expect(host.of('ike-down')).toMatchObject([{ ikeSaId: old[side], reason: 'rekeyed' }]);
    expect(host.of('failed')).toEqual([]);
  }
  for (const host of [pair.a, pair.b]) {
    pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, host.child.id));
    pair.run();
    expectSame(pair, 1);
  }
  expectClosed(pair);
}
