/**
 * Both sides rekey the same IKE SA (RFC 7296 §2.8.2, §2.25.2). Every scenario is run until each of the nonces was the
 * lowest once.
 */
import { describe, expect, it } from 'vitest';
import { parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import { ExchangeType } from '../../src/ike/wire/iana.ts';
import { decodeHeader } from '../../src/ike/wire/message.ts';
import { expectNothing, expectSame, expectUnbroken } from '../support/ike-expect.ts';
import { everyOrder, winnerOf } from '../support/ike-nonces.ts';
import { connection, type Host, mirrored, type Pair, type PairOptions, Wire } from '../support/ike-pair.ts';
import { established, expectRekeyed, idsOf, rekeyIke } from '../support/ike-tunnel.ts';

const sides = ['a', 'b'] as const;
const groups = (text: string) => connection({ proposals: [parseIkeProposalString(text)] });
/** Each side offers first a group that the other does not accept. */
const WRONG_GROUPS = {
  a: groups('aes128gcm16-prfsha256-ecp256-x25519'),
  b: mirrored(groups('aes128gcm16-prfsha256-ecp384-x25519')),
};

/** The hard lifetime of an IKE SA ends in the test. */
const SHORT = { a: connection({ lifetime: { soft: 14_400_000, hard: 20_000, jitter: 0 } }) };

/** IKE SAs that have children, and their states. */
function withChild({ endpoint }: Host): string[] {
  const sas = endpoint.status().filter(({ children }) => children.length > 0);
  return sas.map(({ state, spiInitiator }) => `${state} ${spiInitiator}`);
}

/** Runs a scenario with each order of the nonces; where both exchanges come to something, the nonces say which stays. */
function bothWays(options: PairOptions, scenario: (pair: Pair, wire: Wire) => void, nonceCount = 4): void {
  everyOrder(options, (fresh, nonces) => {
    const pair = established(fresh);
    expectUnbroken(pair);
    const old = idsOf(pair);
    const wire = new Wire(pair);
    rekeyIke(pair, pair.a, pair.b);
    scenario(pair, wire);
    wire.settle();
    const order = nonces.order();
    expect(order.count).toBe(nonceCount);
    pair.run(3_000);
    if (nonceCount === 4) expect(pair[winnerOf(order)].ikeSa.initiator).toBe(true);
    expectRekeyed(pair, old);
    return order;
  });
}

/** Both requests meet INVALID_KE_PAYLOAD, and both sides have tried again. */
function refuseGroups(pair: Pair, wire: Wire): void {
  wire.pass(pair.a, pair.b, pair.a, pair.b);
  expect(pair.held.map(({ data }) => decodeHeader(data))).toMatchObject([
    { exchange: ExchangeType.CREATE_CHILD_SA, response: false },
    { exchange: ExchangeType.CREATE_CHILD_SA, response: false },
  ]);
}

describe('both sides rekey the same IKE SA', () => {
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
      3,
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
      3,
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
      3,
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
      3,
    );
  });

  //   late                                 peer
  //   │── rekey ────✕                        │   lost, again and again
  //   │◀────────────────────────────── rekey │
  //   │── response ─────────────────────────▶│   the children are with the new IKE SA there
  //   │             ✕─────────────── DELETE ─│   lost, again and again
  //   │   the hard lifetime of the old one ends: the children go over here too, and the peer is asked
  it.each(sides)('the request of %s and the DELETE of the other are lost until the lifetime ends', (late) => {
    const pair = established(SHORT);
    pair.run(10_000);
    const old = idsOf(pair);
    const wire = new Wire(pair);
    rekeyIke(pair, pair.a, pair.b);
    const host = pair[late];
    wire.take(host);
    wire.pass(pair.peer(host), host);
    pair.run(11_000);
    expect(withChild(host)).toEqual(withChild(pair.peer(host)));
    expect(withChild(host)).toEqual([expect.stringMatching(/^established /)]);
    wire.settle();
    pair.run(2_000);
    expectSame(pair, 1);
    expect(host.of('ike-down')).toMatchObject([{ ikeSaId: old[late], reason: 'rekeyed' }]);
    expect([...pair.a.of('child-down'), ...pair.b.of('child-down')]).toEqual([]);
  });

  //   a                                      b
  //   │── rekey ─────────────────╲   ╱───────│   both requests cross
  //   │◀── rekey ────────────────╱   ╲──────▶│
  //   │── response ──✕            ✕──────────│   both are lost, again and again
  //   │   the hard lifetime ends: each goes on with what the peer has made, which that one does not know of yet
  function loseResponses(options: PairOptions): Wire {
    const pair = established({ ...SHORT, ...options });
    pair.run(10_000);
    const wire = new Wire(pair);
    rekeyIke(pair, pair.a, pair.b);
    wire.pass(pair.a, pair.b);
    pair.run(11_000);
    pair.held.length = 0;
    expect(withChild(pair.a)).not.toEqual(withChild(pair.b));
    return wire;
  }

  it('both responses are lost until the lifetime ends, and come then', () => {
    const winners = new Set<boolean>();
    for (let seed = 1; seed <= 20 && winners.size < 2; seed++) {
      const wire = loseResponses({ seed });
      const { pair } = wire;
      wire.open();
      pair.run(15_000);
      expectSame(pair, 1);
      winners.add(pair.a.ikeSa.initiator);
      expect([...pair.a.of('child-down'), ...pair.b.of('child-down')]).toEqual([]);
    }
    expect(winners.size).toBe(2);
  });

  it('both responses are lost for ever: each asks the peer, and is rid of what it does not have', () => {
    const wire = loseResponses({});
    const { pair } = wire;
    const old = pair.a.endpoint.status()[0]!.spiInitiator;
    wire.open();
    pair.filter = ({ data }) => (decodeHeader(data).initiatorSpi === old ? 'drop' : 'deliver');
    pair.run(20_000);
    for (const host of [pair.a, pair.b]) {
      expect(withChild(host)).toEqual([]);
      expect(host.of('child-down')).toHaveLength(1);
    }
    pair.run(300_000);
    expectNothing(pair);
  });

  //   a                                      b
  //   │── SA, Ni, KE ecp256 ───────╲   ╱─────│
  //   │◀── SA, Ni, KE ecp384 ──────╱   ╲────▶│
  //   │── INVALID_KE_PAYLOAD ──────╲   ╱─────│
  //   │◀── INVALID_KE_PAYLOAD ─────╱   ╲────▶│
  //   │  both try again with the group that the other asks for, and collide as above
  it('with a wrong group on both sides', () => {
    bothWays(WRONG_GROUPS, (pair, wire) => {
      refuseGroups(pair, wire);
      wire.pass(pair.a, pair.b, pair.a, pair.b);
    });
  });

  //   late                                 peer
  //   │   both requests meet INVALID_KE_PAYLOAD, both sides try again
  //   │── rekey ───────┐                     │   delayed
  //   │◀───────────────┼────────────── rekey │
  //   │── response ────┼────────────────────▶│
  //   │◀───────────────┼───────────── DELETE │
  //   │── response ────┼────────────────────▶│   the old IKE SA is gone on both sides
  //   │                └────────────────────▶│
  it.each(sides)('with a wrong group, and the retry of %s late', (late) => {
    bothWays(
      WRONG_GROUPS,
      (pair, wire) => {
        refuseGroups(pair, wire);
        const host = pair[late];
        const peer = pair.peer(host);
        const delayed = wire.take(host);
        wire.pass(peer, host, peer, host);
        pair.deliver(delayed);
      },
      3,
    );
  });
});
