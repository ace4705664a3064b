/**
 * Several CHILD SAs of one child of the configuration, each for a part of it: what gateways do that take one pair of
 * selectors an SA (RFC 7296 §2.9).
 */
import { describe, expect, it } from 'vitest';
import type { TunnelConfig } from '../../src/engine/config.ts';
import { formatSelectorPair, type SelectorPair } from '../../src/policy/selector.ts';
import { sel } from '../policy/helpers.ts';
import { type EnginePair, enginePair, opposite, type Peer, packet, protect, tunnel } from '../support/engine-net.ts';
import { child, connection } from '../support/ike-pair.ts';

const pair = (local: string[], remote: string[]): SelectorPair => ({ local: local.map(sel), remote: remote.map(sel) });
const LOCAL = ['10.1.0.0/24'];
const REMOTE = ['10.2.0.0/24', '10.3.0.0/24'];

function ours(change: Partial<TunnelConfig> = {}): TunnelConfig {
  const selectors = pair(LOCAL, REMOTE);
  const entry = protect({ selectors });
  return tunnel({
    connections: [connection({ children: [child('c', { selectors })] })],
    policy: [entry, { ...entry, direction: 'in' }],
    ...change,
  });
}

/** The peer has a child of its own for each pair. */
function byPairs(start: TunnelConfig['start'] = 'respond', remote = REMOTE): TunnelConfig {
  const parts = remote.map((range, i) => ({ name: `c${i}`, selectors: pair(LOCAL, [range]) }));
  const config = tunnel({
    connections: [connection({ children: parts.map(({ name, selectors }) => child(name, { selectors })) })],
    policy: parts.map(({ name, selectors }) => protect({ name, child: name, selectors })),
  });
  return opposite(config, { start });
}

const agreed = (peer: Peer): string[] =>
  [...peer.tunnel().children.values()].map(({ summary }) => formatSelectorPair(summary.selectors)).sort();
const BOTH = ['10.1.0.0/24 === 10.2.0.0/24', '10.1.0.0/24 === 10.3.0.0/24'];

/** Sends a packet to each of the peer's ranges; returns what arrived there. */
function sendBoth({ net, a, b }: EnginePair, text: string): string[] {
  const before = b.texts().length;
  for (const host of ['10.2.0.1', '10.3.0.1']) net.send(a, [packet('10.1.0.1', host, `${text} ${host}`)]);
  net.run(3_000);
  return b.texts().slice(before);
}

const idOf = (peer: Peer, selectors: string): number =>
  [...peer.tunnel().children.values()].find(({ summary }) => formatSelectorPair(summary.selectors) === selectors)!
    .summary.id;

describe('a peer that accepts one pair of ranges per CHILD SA', () => {
  it('is asked for another when a packet needs it, and packets that waited follow', () => {
    const test = enginePair({ a: ours(), b: byPairs() });
    expect(sendBoth(test, 'first').sort()).toEqual(['first 10.2.0.1', 'first 10.3.0.1']);
    expect(agreed(test.a)).toEqual(BOTH);
    expect(test.a.drops()).toEqual({});
    expect(test.a.of('failed')).toEqual([]);
  });

  it('is asked for the one that the packet needs, first or not (RFC 7296 §2.9)', () => {
    const test = enginePair({ a: ours(), b: byPairs() });
    test.net.send(test.a, [packet('10.1.0.1', '10.3.0.1', 'last range')]);
    test.net.run(3_000);
    expect(test.b.texts()).toEqual(['last range']);
    expect(agreed(test.a)).toEqual([BOTH[1]]);
  });

  it('is asked for all of them where the tunnel is wanted up, without a packet', () => {
    const test = enginePair({ a: ours({ start: 'initiate' }), b: byPairs() });
    test.net.run(3_000);
    expect(agreed(test.a)).toEqual(BOTH);
    expect(test.a.of('failed')).toEqual([]);
    expect(test.a.of('child-up')).toHaveLength(2);
  });

  it('is asked for all pairs, however many there are on both sides', () => {
    const selectors = pair(['10.1.0.0/24', '10.5.0.0/24'], [...REMOTE, '10.4.0.0/24']);
    const entry = protect({ selectors });
    const a = tunnel({ connections: [connection({ children: [child('c', { selectors })] })], policy: [entry] });
    const parts = selectors.local.flatMap((mine) =>
      selectors.remote.map((theirs) => ({ local: [mine], remote: [theirs] })),
    );
    const b = tunnel({
      connections: [connection({ children: parts.map((part, i) => child(`c${i}`, { selectors: part })) })],
      policy: parts.map((part, i) => protect({ name: `c${i}`, child: `c${i}`, selectors: part })),
    });
    const test = enginePair({ a: { ...a, start: 'initiate' }, b: opposite(b) });
    test.net.run(5_000);
    expect(agreed(test.a)).toEqual(parts.map(formatSelectorPair).sort());
    expect(test.a.of('failed')).toEqual([]);
  });

  it.each(['a', 'b'] as const)('keeps each part over a rekeying by %s', (side) => {
    const test = enginePair({ a: ours({ start: 'initiate' }), b: byPairs() });
    test.net.run(3_000);
    for (const selectors of side === 'a' ? BOTH : ['10.2.0.0/24 === 10.1.0.0/24', '10.3.0.0/24 === 10.1.0.0/24']) {
      const peer = test[side];
      test.net.act(peer, ({ ike }, now) => ike.rekeyChild(now, idOf(peer, selectors)));
      test.net.run(3_000);
      expect(agreed(test.a)).toEqual(BOTH);
      expect(sendBoth(test, selectors)).toHaveLength(2);
    }
    // What was replaced carries nothing any more: the newest SAs do.
    test.net.run(60_000);
    expect(sendBoth(test, 'later')).toHaveLength(2);
    expect(test.a.of('child-up')).toHaveLength(4);
    expect(test.a.drops()).toEqual({});
  });

  it('that has made them itself is not narrowed away from', () => {
    const test = enginePair({ a: ours({ start: 'respond' }), b: byPairs('initiate') });
    test.net.run(3_000);
    expect(agreed(test.a)).toEqual(BOTH);
    expect([...test.a.tunnel().children.values()].flatMap((sa) => test.a.tunnel().narrowedAway(sa))).toEqual([]);
    expect(sendBoth(test, 'x')).toHaveLength(2);
  });

  it.each(['initiate', 'trap'] as const)('and deletes one of them: start=%s has it made again', (start) => {
    const test = enginePair({ a: ours({ start }), b: byPairs() });
    sendBoth(test, 'up');
    test.net.act(test.b, ({ ike }, now) => ike.closeChild(now, idOf(test.b, '10.3.0.0/24 === 10.1.0.0/24')));
    test.net.run(3_000);
    expect(agreed(test.a)).toEqual(start === 'initiate' ? BOTH : [BOTH[0]]);
    expect(sendBoth(test, 'again')).toHaveLength(2);
    expect(agreed(test.a)).toEqual(BOTH);
  });

  it('and does not want one of them is asked once, then by packets now and then; the others go on', () => {
    const test = enginePair({ a: ours({ start: 'initiate' }), b: byPairs('respond', ['10.2.0.0/24']) });
    const { net, a } = test;
    net.run(60_000);
    expect(a.of('failed').map(({ reason }) => reason)).toEqual(['TS_UNACCEPTABLE']);
    for (let i = 0; i < 20; i++) sendBoth(test, `${i}`);
    // A minute of packets, of which one in ten seconds asks.
    expect(a.of('failed').length).toBeLessThanOrEqual(8);
    expect(a.of('failed').length).toBeGreaterThanOrEqual(5);
    expect(test.b.texts()).toHaveLength(20);
    expect(a.drops()).toEqual({ 'narrowed-by-peer': 20 });
    expect(agreed(a)).toEqual([BOTH[0]]);
  });
});
