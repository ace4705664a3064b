/** The order of tunnels whose policies meet: it is total, keeps ages, and follows what is up in a redundancy group. */
import { describe, expect, it } from 'vitest';
import { parseAddress, prefixRange } from '../../../src/base/address.ts';
import { type Claimant, TunnelOrder } from '../../../src/hostnet/steering/tunnel-order.ts';
import type { PolicyEntry } from '../../../src/policy/database.ts';
import { claimsOf } from '../../../src/policy/precedence.ts';
import { makeSelector, type TrafficSelector } from '../../../src/policy/selector.ts';
import { fastest } from '../../support/growth.ts';

function selector(text: string): TrafficSelector {
  const [address, length] = text.split('/');
  return makeSelector(prefixRange(parseAddress(address!)!, Number(length)));
}

function claimant(tunnel: string, remote: string, redundancy?: Claimant['redundancy']): Claimant {
  const selectors = { local: [selector('10.1.0.0/24')], remote: [selector(remote)] };
  const entry = {
    name: tunnel,
    direction: 'out',
    action: 'protect',
    priority: 0,
    level: 'require',
    selectors,
  } as const;
  return { tunnel, device: `stun-${tunnel}`, claims: claimsOf([entry]), redundancy };
}

function orderOf(...claimants: readonly Claimant[]): TunnelOrder {
  const order = new TunnelOrder();
  for (const each of claimants) order.set(each);
  return order;
}

describe('tunnels', () => {
  it('of other routing domains have nothing in common, whatever their policies', () => {
    const order = orderOf(claimant('a', '10.2.0.0/24'), { ...claimant('b', '10.2.0.0/24'), vrf: 'blue' });
    expect([order.before('b'), order.behind('a')]).toEqual([[], []]);
    order.set(claimant('b', '10.2.0.0/24'));
    expect(order.behind('a')).toEqual(['b']);
  });

  it('that have nothing in common know nothing of each other', () => {
    const order = orderOf(claimant('a', '10.2.0.0/24'), claimant('b', '10.3.0.0/24'));
    expect([order.before('a'), order.behind('a'), order.devicesBeside('a'), order.carrier('a')]).toEqual([
      [],
      [],
      [],
      'a',
    ]);
  });

  it('that are more specific go first, whatever their age', () => {
    const order = orderOf(claimant('wide', '0.0.0.0/0'), claimant('a', '10.2.0.0/24'), claimant('b', '10.3.0.0/24'));
    expect(order.before('wide')).toEqual(['a', 'b']);
    expect(order.behind('a')).toEqual(['wide']);
    expect(order.devicesBeside('wide')).toEqual(['stun-a', 'stun-b']);
    expect(order.devicesBeside('a')).toEqual([]);
    order.delete('a');
    expect(order.devicesBeside('wide')).toEqual(['stun-b']);
  });

  it('that are equally specific go by age, which they keep when they are set anew', () => {
    const crossing = { ...claimant('x', '10.2.0.0/24') };
    const order = orderOf(crossing, { ...claimant('y', '10.2.0.0/24') });
    order.set(crossing);
    expect([order.before('y'), order.before('x')]).toEqual([['x'], []]);
    order.delete('x');
    order.set(crossing);
    expect([order.before('y'), order.before('x')]).toEqual([[], ['y']]);
  });
});

describe('tunnels that can have no order', () => {
  it('are reported: by a group between whose tunnels another one is ordered', () => {
    const order = orderOf(claimant('g1', '10.4.0.0/24', { group: 'g', preference: 100 }), claimant('m', '10.4.0.0/23'));
    expect([order.circle('g1'), order.circle('m')]).toEqual([[], []]);
    order.set(claimant('g2', '10.4.0.0/22', { group: 'g', preference: 200 }));
    expect([...new Set(order.circle('g2'))].toSorted()).toEqual(['g1', 'g2', 'm']);
    order.delete('m');
    expect(order.circle('g2')).toEqual([]);
  });

  it('are reported: by three tunnels, each of which goes before the next', () => {
    const entry = (remote: string, priority: number): PolicyEntry => ({
      ...{ name: remote, direction: 'out', action: 'protect', priority, level: 'require' },
      selectors: { local: [selector('10.1.0.0/24')], remote: [selector(remote)] },
    });
    const several = (tunnel: string, entries: readonly PolicyEntry[]): Claimant => ({
      ...{ tunnel, device: tunnel, claims: claimsOf(entries), redundancy: undefined },
    });
    const order = orderOf(
      several('a', [entry('10.20.0.0/24', 2), entry('10.22.0.0/24', 1)]),
      several('b', [entry('10.21.0.0/24', 2), entry('10.20.0.0/24', 1)]),
    );
    expect(order.circle('b')).toEqual([]);
    order.set(several('c', [entry('10.22.0.0/24', 2), entry('10.21.0.0/24', 1)]));
    expect([...new Set(order.circle('c'))].toSorted()).toEqual(['a', 'b', 'c']);
  });

  it('are none where every tunnel is for one range', () => {
    const order = orderOf(
      ...['0/8', '0/9', '128/9', '0/10', '64/10', '0/24'].map((text, at) => {
        const [second, length] = text.split('/');
        return claimant(`t${at}`, `10.${second}.0.0/${length}`);
      }),
    );
    for (let at = 0; at < 6; at++) expect(order.circle(`t${at}`)).toEqual([]);
  });
});

describe('of a redundancy group', () => {
  const member = (tunnel: string, preference: number): Claimant =>
    claimant(tunnel, '10.2.0.0/24', { group: 'g', preference });

  it('the preferred of those that are up carries', () => {
    const order = orderOf(member('a', 100), member('b', 200), member('c', 100));
    const all = ['a', 'b', 'c'];
    const carrier = (): readonly string[] => [...new Set(all.map((each) => order.carrier(each)))];
    expect(carrier()).toEqual(['b']);
    expect([order.setUp('c', true), carrier()]).toEqual([true, ['c']]);
    expect([order.setUp('c', true), carrier()]).toEqual([false, ['c']]);
    expect([order.setUp('a', true), carrier()]).toEqual([true, ['a']]);
    expect([order.setUp('b', true), carrier()]).toEqual([true, ['b']]);
    expect([order.setUp('b', false), carrier()]).toEqual([true, ['a']]);
    order.delete('a');
    expect(carrier()).toContain('c');
  });

  it('each lets pass what goes by the devices of the others', () => {
    const order = orderOf(member('a', 1), member('b', 2));
    expect([order.devicesBeside('a'), order.devicesBeside('b')]).toEqual([['stun-b'], ['stun-a']]);
  });

  it('a tunnel of another group is none of it', () => {
    const order = orderOf(member('a', 1), claimant('b', '10.2.0.0/24', { group: 'h', preference: 9 }));
    expect([order.mates('a'), order.carrier('b'), order.before('b')]).toEqual([[], 'b', ['a']]);
    expect(order.setUp('b', true)).toBe(false);
  });
});

describe('the cost of a tunnel', () => {
  const round = (order: TunnelOrder, first: number): void => {
    for (let at = first; at < first + 100; at++) order.set(claimant(`t${at}`, `10.${1 + (at >> 8)}.${at & 0xff}.0/24`));
    for (let at = first; at < first + 100; at++) order.delete(`t${at}`);
  };

  it('does not grow with their number', () => {
    const costs = [100, 4_000].map((count) => {
      const order = new TunnelOrder();
      for (let at = 0; at < count; at++) order.set(claimant(`t${at}`, `10.${1 + (at >> 8)}.${at & 0xff}.0/24`));
      return fastest(8, () => round(order, count));
    });
    // Forty times as many: a scan of all would cost forty times as much.
    expect(costs[1]! / costs[0]!).toBeLessThan(8);
  });
});
