/** Rekeying and deleting IKE SAs, from one side and from both (RFC 7296 §1.3.2, §1.4.1, §2.8.2, §2.18, §2.25.2). */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import { expectNothing, expectSame } from '../support/ike-expect.ts';
import { child, connection, type Host, mirrored, net, Pair, Wire } from '../support/ike-pair.ts';

const sides = ['a', 'b'] as const;
const groups = (text: string) => connection({ proposals: [parseIkeProposalString(text)] });

function established(options: ConstructorParameters<typeof Pair>[0] = {}, children = 1): Pair {
  const pair = new Pair(options);
  pair.up();
  expectSame(pair, children);
  pair.sent.length = 0;
  return pair;
}

function rekey(pair: Pair, ...hosts: Host[]): void {
  for (const host of hosts) {
    const { id } = host.ikeSa;
    pair.act(host, (endpoint, now) => endpoint.rekeyIkeSa(now, id));
  }
}

/** The children were never down, and each side has its one new IKE SA. */
function expectRekeyed(pair: Pair, old: { a: number; b: number }): void {
  pair.run(130_000);
  expectSame(pair, 1);
  for (const side of sides) {
    const host = pair[side];
    expect(host.of('child-up')).toHaveLength(1);
    expect(host.of('child-down')).toEqual([]);
    expect(host.of('ike-up').map((event) => event.replaces)).toEqual([undefined, old[side]]);
    expect(host.of('ike-down')).toMatchObject([{ ikeSaId: old[side], reason: 'rekeyed' }]);
    expect(host.of('failed')).toEqual([]);
  }
  // And the new one works.
  pair.act(pair.a, (endpoint, now) => endpoint.rekeyChild(now, pair.a.child.id));
  pair.run();
  expectSame(pair, 1);
}

const idsOf = (pair: Pair): { a: number; b: number } => ({ a: pair.a.ikeSa.id, b: pair.b.ikeSa.id });

/** IKE SAs that have children, and their states. */
function withChild({ endpoint }: Host): string[] {
  const sas = endpoint.status().filter(({ children }) => children.length > 0);
  return sas.map(({ state, spiInitiator }) => `${state} ${spiInitiator}`);
}

describe.each(sides)('an IKE SA, from side %s', (side) => {
  it('is rekeyed, and its children go over', () => {
    const pair = established();
    const old = idsOf(pair);
    rekey(pair, pair[side]);
    pair.run();
    expect(pair.sent).toHaveLength(4);
    expect(pair[side].ikeSa.initiator).toBe(true);
    expect(pair.peer(pair[side]).ikeSa.initiator).toBe(false);
    expectRekeyed(pair, old);
  });

  it('is rekeyed with the group that the peer asks for', () => {
    const mine = groups('aes128gcm16-prfsha256-ecp256-x25519');
    const theirs = groups('aes128gcm16-prfsha256-x25519');
    const pair = established(side === 'a' ? { a: mine, b: mirrored(theirs) } : { a: theirs, b: mirrored(mine) });
    const old = idsOf(pair);
    rekey(pair, pair[side]);
    pair.run();
    expect(pair.sent).toHaveLength(6);
    expectRekeyed(pair, old);
  });

  it('is rekeyed again and again', () => {
    const pair = established();
    for (let i = 0; i < 5; i++) {
      rekey(pair, i % 2 === 0 ? pair[side] : pair.peer(pair[side]));
      pair.run();
    }
    expectSame(pair, 1);
    expect(pair.a.of('ike-up')).toHaveLength(6);
  });

  it('is deleted with its children', () => {
    const pair = established();
    const host = pair[side];
    pair.act(host, (endpoint, now) => endpoint.closeIkeSa(now, host.ikeSa.id));
    expect(host.of('ike-down')).toMatchObject([{ reason: 'requested' }]);
    expect(host.of('child-down')).toMatchObject([{ reason: 'ike-down' }]);
    pair.run();
    expect(pair.peer(host).of('ike-down')).toMatchObject([{ reason: 'deleted-by-peer' }]);
    pair.run(20_000);
    expectNothing(pair);
  });

  it('is gone on both sides also when the answer to the delete is lost', () => {
    const pair = established();
    const host = pair[side];
    const wire = new Wire(pair);
    pair.act(host, (endpoint, now) => endpoint.closeConnection(now, 'net'));
    wire.pass(host);
    wire.take(pair.peer(host));
    wire.open();
    pair.run(20_000);
    expectNothing(pair);
    expect(pair.sent).toHaveLength(4);
    expect(pair.peer(host).endpoint.counters()['replayed-request']).toBe(1);
  });

  it('stays up when its rekeying is refused, and tries again', () => {
    const pair = established();
    const host = pair[side];
    const peer = pair.peer(host);
    const other = groups('aes256-sha256-ecp384');
    peer.endpoint.replaceConnection(side === 'a' ? mirrored(other) : other);
    rekey(pair, host);
    pair.run();
    expectSame(pair, 1);
    expect(host.of('failed')).toMatchObject([{ reason: 'NO_PROPOSAL_CHOSEN' }]);
    expect(peer.of('failed')[0]!.detail).toContain('ecp384');
    peer.endpoint.replaceConnection(side === 'a' ? mirrored(connection()) : connection());
    pair.run(31_000);
    expectSame(pair, 1);
    expect(host.of('ike-up')).toHaveLength(2);
  });

  it('is rekeyed by its lifetime, with jitter, and ends with the hard one', () => {
    const a = connection({ lifetime: { soft: 100_000, hard: 150_000, jitter: 20_000 } });
    const b = mirrored(connection({ lifetime: { soft: 0, hard: 0, jitter: 0 } }));
    const pair = established(side === 'a' ? { a, b } : { a: connection({ lifetime: b.lifetime }), b: mirrored(a) });
    const host = pair[side];
    const { rekeyAt, expiresAt, establishedAt } = host.ikeSa;
    expect(rekeyAt! - establishedAt!).toBeGreaterThan(80_000);
    expect(rekeyAt! - establishedAt!).toBeLessThanOrEqual(100_000);
    expect(expiresAt! - establishedAt!).toBe(150_000);
    pair.runUntil(rekeyAt! - 1);
    expect(host.of('ike-up')).toHaveLength(1);
    pair.runUntil(rekeyAt! + 500);
    expect(host.of('ike-up')).toHaveLength(2);
    expectSame(pair, 1);
  });
});

describe('both sides rekey the same IKE SA', () => {
  function bothWays(
    options: ConstructorParameters<typeof Pair>[0],
    scenario: (pair: Pair, wire: Wire) => void,
    wins = 2,
  ): void {
    const winners = new Set<boolean>();
    for (let seed = 1; seed <= 40 && winners.size < wins; seed++) {
      const pair = established({ ...options, seed });
      const old = idsOf(pair);
      const wire = new Wire(pair);
      rekey(pair, pair.a, pair.b);
      scenario(pair, wire);
      wire.settle();
      pair.run(3_000);
      winners.add(pair.a.ikeSa.initiator);
      expectRekeyed(pair, old);
    }
    expect(winners.size).toBe(wins);
  }

  //   a                                      b
  //   │── SA, Ni a, KE ────────────╲   ╱─────│   both requests cross on the old IKE SA
  //   │◀── SA, Ni b, KE ───────────╱   ╲────▶│
  //   │── response: Nr ────────────╲   ╱─────│   two new IKE SAs
  //   │◀── response: Nr ───────────╱   ╲────▶│
  //   │  the exchange with the lowest of the four nonces loses: its initiator deletes the IKE SA it made,
  //   │  the children go over to the other, whose initiator deletes the old one
  it('the exchange with the lowest nonce loses', () => {
    bothWays({}, (pair, wire) => wire.pass(pair.a, pair.b, pair.a, pair.b));
  });

  //   late                                 peer
  //   │── rekey ────────────────╲   ╱────────│
  //   │◀── rekey ───────────────╱   ╲───────▶│
  //   │            ┌──────── response ───────│   delayed
  //   │── response ┼────────────────────────▶│
  //   │◀───────────┼─────────────── DELETE ──│
  //   │── response ┼────────────────────────▶│
  //   │◀───────────┘                         │
  it.each(sides)('the response to %s arrives when all else is done', (late) => {
    bothWays({}, (pair, wire) => {
      const host = pair[late];
      const peer = pair.peer(host);
      wire.pass(host);
      wire.pass(peer);
      wire.take(peer);
      const delayed = wire.pair.sent.filter((datagram) => datagram.from === peer).at(-1)!;
      wire.pass(host);
      while (wire.waiting(peer) > 0) wire.pass(peer);
      while (wire.waiting(host) > 0) wire.pass(host);
      pair.deliver(delayed);
    });
  });

  //   late                                 peer
  //   │── rekey ────✕                        │
  //   │◀────────────────────────────── rekey │   completes
  //   │── rekey, retransmitted ─────────────▶│
  it.each(sides)('the request of %s is lost, and comes again when the other is done', (late) => {
    bothWays(
      {},
      (pair, wire) => {
        wire.take(pair[late]);
        wire.open();
        pair.run(5_000);
      },
      1,
    );
  });

  //   late                                 peer
  //   │── rekey ───────┐                     │   delayed
  //   │◀───────────────┼────────────── rekey │
  //   │── response ────┼────────────────────▶│
  //   │                └────────────────────▶│   peer's DELETE of the old IKE SA is on its way
  it.each(sides)('the request of %s arrives when the other is deleting', (late) => {
    bothWays(
      {},
      (pair, wire) => {
        const host = pair[late];
        const peer = pair.peer(host);
        const delayed = wire.take(host);
        wire.pass(peer, host);
        pair.deliver(delayed);
      },
      1,
    );
  });

  //   late                                 peer
  //   │── rekey ───────┐                     │   delayed
  //   │◀───────────────┼────────────── rekey │
  //   │── response ────┼────────────────────▶│
  //   │◀───────────────┼───────────── DELETE │
  //   │── response ────┼────────────────────▶│   the old IKE SA is gone on both sides
  //   │                └────────────────────▶│
  it.each(sides)('the request of %s arrives when the other has deleted', (late) => {
    bothWays(
      {},
      (pair, wire) => {
        const host = pair[late];
        const peer = pair.peer(host);
        const delayed = wire.take(host);
        wire.pass(peer, host, peer, host);
        pair.deliver(delayed);
      },
      1,
    );
  });

  //   late                                 peer
  //   │── rekey ───────┐                     │   delayed
  //   │◀───────────────┼────────────── rekey │
  //   │── response ────┼────────────────────▶│
  //   │                ✕──────────── DELETE ─│   lost
  //   │                └────────────────────▶│
  //   │◀────────────────── TEMPORARY_FAILURE │   the children go over, whether the DELETE comes or not
  it.each(sides)('the request of %s is refused, and the DELETE of the other is late', (late) => {
    bothWays(
      {},
      (pair, wire) => {
        const host = pair[late];
        const peer = pair.peer(host);
        const delayed = wire.take(host);
        wire.pass(peer, host);
        wire.take(peer);
        pair.deliver(delayed);
        wire.pass(peer);
        expect(withChild(host)).toEqual(withChild(peer));
        expect(withChild(host)).toEqual([expect.stringMatching(/^established /)]);
      },
      1,
    );
  });

  const WRONG = {
    a: groups('aes128gcm16-prfsha256-ecp256-x25519'),
    b: mirrored(groups('aes128gcm16-prfsha256-ecp384-x25519')),
  };

  it('with a wrong group on both sides', () => {
    bothWays(WRONG, (pair, wire) => wire.pass(pair.a, pair.b, pair.a, pair.b));
  });

  it.each(sides)('with a wrong group, and the retry of %s late', (late) => {
    bothWays(
      WRONG,
      (pair, wire) => {
        const host = pair[late];
        const peer = pair.peer(host);
        wire.pass(host, peer, host, peer);
        const delayed = wire.take(host);
        wire.settle();
        pair.deliver(delayed);
      },
      1,
    );
  });
});

describe('one side rekeys the IKE SA, the other deletes it', () => {
  it.each(['cross', 'delete lost', 'rekeying lost', 'delete first', 'rekeying first'])('%s', (how) => {
    for (const side of sides) {
      const pair = established();
      const host = pair[side];
      const peer = pair.peer(host);
      const wire = new Wire(pair);
      rekey(pair, host);
      pair.act(peer, (endpoint, now) => endpoint.closeConnection(now, 'net'));
      if (how === 'delete lost') wire.take(peer);
      if (how === 'rekeying lost') wire.take(host);
      if (how === 'delete first') wire.pass(peer, host);
      if (how === 'rekeying first') wire.pass(host, peer);
      wire.settle();
      pair.run(120_000);
      expectNothing(pair);
      for (const each of [pair.a, pair.b]) expect(each.of('ike-down')).toHaveLength(1);
    }
  });

  it('both delete it', () => {
    const pair = established();
    const wire = new Wire(pair);
    for (const host of [pair.a, pair.b]) pair.act(host, (endpoint, now) => endpoint.closeConnection(now, 'net'));
    wire.settle();
    pair.run(20_000);
    expectNothing(pair);
    for (const host of [pair.a, pair.b]) expect(host.of('ike-down')).toMatchObject([{ reason: 'requested' }]);
  });
});

describe('the IKE SA and its children at the same time', () => {
  const PFS = connection({ children: [child('c', { proposals: [parseEspProposalString('aes128gcm16-x25519')] })] });

  it.each(sides)('%s rekeys the IKE SA, the other the child: both are busy and try again', (side) => {
    const pair = established({ a: PFS });
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    rekey(pair, host);
    pair.act(peer, (endpoint, now) => endpoint.rekeyChild(now, peer.child.id));
    wire.settle();
    expect(host.of('child-up')).toHaveLength(1);
    expect(host.of('ike-up')).toHaveLength(1);
    pair.run(20_000);
    expectSame(pair, 1);
    expect(host.of('child-up')).toHaveLength(2);
    expect(host.of('ike-up')).toHaveLength(2);
  });

  it.each(sides)('%s rekeys the IKE SA, the other makes a child', (side) => {
    const children = ['c', 'd'].map((name, i) =>
      child(name, { selectors: { local: [net(`10.1.${i}.0/24`)], remote: [net(`10.2.${i}.0/24`)] } }),
    );
    const pair = new Pair({ a: connection({ children }) });
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'c' }));
    pair.run();
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    rekey(pair, host);
    pair.act(peer, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'd' }));
    wire.settle();
    pair.run(20_000);
    expect(pair.a.children.size).toBe(2);
    expect(pair.b.children.size).toBe(2);
    expect(host.of('ike-up')).toHaveLength(2);
    expect(peer.of('failed')).toEqual([]);
  });

  it.each(sides)('%s rekeys the IKE SA, the other deletes the child', (side) => {
    const pair = established();
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    rekey(pair, host);
    pair.act(peer, (endpoint, now) => endpoint.closeChild(now, peer.child.id));
    wire.settle();
    pair.run(20_000);
    expectSame(pair, 0);
    expect(host.of('ike-up')).toHaveLength(2);
  });

  it.each(sides)('%s rekeys the child, the other deletes the IKE SA', (side) => {
    const pair = established();
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, host.child.id));
    pair.act(peer, (endpoint, now) => endpoint.closeConnection(now, 'net'));
    wire.settle();
    pair.run(20_000);
    expectNothing(pair);
    for (const each of [pair.a, pair.b]) expect(each.of('child-down')).toHaveLength(1);
  });

  it('everything is rekeyed from both sides at once', () => {
    for (let seed = 1; seed <= 10; seed++) {
      const children = ['c', 'd', 'e'].map((name, i) =>
        child(name, { selectors: { local: [net(`10.1.${i}.0/24`)], remote: [net(`10.2.${i}.0/24`)] } }),
      );
      const pair = established({ a: connection({ children }), seed }, 3);
      for (const host of [pair.a, pair.b]) {
        pair.act(host, (endpoint, now) => {
          endpoint.rekeyIkeSa(now, host.ikeSa.id);
          for (const id of host.children.keys()) endpoint.rekeyChild(now, id);
        });
      }
      pair.run(60_000);
      expect(pair.a.children.size).toBe(3);
      expectSame(pair, 3);
      expect(pair.a.of('ike-up')).toHaveLength(2);
    }
  });
});
