/**
 * Both sides rekey the same CHILD SA, or one rekeys what the other deletes (RFC 7296 §2.8.1, §2.25.1). Where the nonces
 * decide, a scenario is run until each of them was the lowest once.
 */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import { ExchangeType } from '../../src/ike/wire/iana.ts';
import { decodeHeader } from '../../src/ike/wire/message.ts';
import { expectClosed, expectSame, expectUnbroken } from '../support/ike-expect.ts';
import { everyOrder, winnerOf } from '../support/ike-nonces.ts';
import { child, connection, type Host, mirrored, Pair, type PairOptions, Wire } from '../support/ike-pair.ts';

const proposals = (text: string) =>
  connection({ children: [child('c', { proposals: [parseEspProposalString(text)] })] });
const PLAIN = { a: connection(), b: mirrored(connection()) };
const PFS = { a: proposals('aes128gcm16-x25519'), b: mirrored(proposals('aes128gcm16-x25519')) };
/** Each side offers first a group that the other does not accept. */
const WRONG_GROUPS = {
  a: proposals('aes128gcm16-ecp256-ecp521'),
  b: mirrored(proposals('aes128gcm16-ecp384-ecp521')),
};

const sides = ['a', 'b'] as const;

interface Begun {
  readonly pair: Pair;
  readonly wire: Wire;
  readonly old: { readonly a: number; readonly b: number };
}

/** A tunnel whose CHILD SA both sides have just begun to rekey. */
function begin(pair: Pair): Begun {
  pair.up();
  expectSame(pair, 1);
  expectUnbroken(pair);
  const old = { a: pair.a.child.id, b: pair.b.child.id };
  const wire = new Wire(pair);
  for (const host of [pair.a, pair.b]) pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, host.child.id));
  return { pair, wire, old };
}

/** One successor is left, the owner was told of each SA once, and no packet was lost. */
function expectReplaced({ pair, old }: Begun): void {
  pair.run(120_000);
  expectSame(pair, 1);
  for (const side of sides) {
    const host = pair[side];
    expect(host.child.replaces).toBe(old[side]);
    expect(host.of('child-up').length - host.of('child-down').length).toBe(1);
    // Whichever side deletes it: to the owner it was replaced.
    expect(host.of('child-down').find(({ childId }) => childId === old[side])?.reason).toBe('rekeyed');
    expect(host.of('failed')).toEqual([]);
  }
  expectClosed(pair);
}

/** Runs a scenario with each order of the nonces; where both exchanges come to something, the nonces say which stays. */
function bothWays(options: PairOptions, scenario: (pair: Pair, wire: Wire) => void, nonceCount = 4): void {
  everyOrder(options, (fresh, nonces) => {
    const begun = begin(fresh);
    const { pair, wire } = begun;
    scenario(pair, wire);
    wire.settle();
    expectSame(pair, 1);
    const order = nonces.order();
    expect(order.count).toBe(nonceCount);
    if (nonceCount === 4) {
      const made = pair.a.child.offered === undefined ? 'b' : 'a';
      expect(made).toBe(winnerOf(order));
      // The loser never shows its own new SA, the winner shows both.
      expect(pair[made].of('child-up')).toHaveLength(3);
      expect(pair.peer(pair[made]).of('child-up')).toHaveLength(2);
    }
    expectReplaced(begun);
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

describe('both sides rekey the same CHILD SA', () => {
  //   a                                      b
  //   │── REKEY_SA(old), Ni a ─────╲   ╱─────│   both requests cross
  //   │◀── REKEY_SA(old), Ni b ────╱   ╲────▶│
  //   │── response: Nr ────────────╲   ╱─────│   both new SAs come up
  //   │◀── response: Nr ───────────╱   ╲────▶│
  //   │  the exchange with the lowest of the four nonces loses: its initiator deletes the SA it made,
  //   │  the other initiator deletes the old SA
  it.each([
    ['plain', PLAIN],
    ['with a key exchange', PFS],
  ])('%s: the exchange with the lowest nonce loses', (_how, options) => {
    bothWays(options, (pair, wire) => {
      wire.pass(pair.a, pair.b, pair.a, pair.b);
    });
  });

  //   late                                 peer
  //   │── REKEY_SA ─────────────╲   ╱────────│
  //   │◀── REKEY_SA ────────────╱   ╲───────▶│
  //   │            ┌──────── response ───────│   delayed
  //   │── response ┼────────────────────────▶│
  //   │◀───────────┼───── DELETE of old SA ──│   or of the SA that lost
  //   │── response ┼────────────────────────▶│
  //   │◀───────────┘                         │   only now late knows the fourth nonce
  it.each(sides)('the response to %s arrives after the first delete', (late) => {
    bothWays(PLAIN, (pair, wire) => {
      const host = pair[late];
      const peer = pair.peer(host);
      wire.pass(peer, host);
      // Both requests are answered; the answer to `host` stays on the way.
      const delayed = wire.take(peer);
      wire.pass(host);
      while (wire.waiting(peer) > 0) wire.pass(peer);
      while (wire.waiting(host) > 0) wire.pass(host);
      while (wire.waiting(peer) > 0) wire.pass(peer);
      pair.deliver(delayed);
    });
  });

  //   late                                 peer
  //   │── REKEY_SA ─────────────╲   ╱────────│
  //   │◀── REKEY_SA ────────────╱   ╲───────▶│
  //   │            ┌──────── response ───────│   delayed
  //   │── response ┼────────────────────────▶│
  //   │◀───────────┼───── DELETE of old SA ──│   or of the SA that lost
  //   │── response ┼────────────────────────▶│
  //   │◀───────────┼───── DELETE of new SA ──│   which the owner of peer closes
  //   │── response ┼────────────────────────▶│
  //   │◀───────────┘                         │   the new SA of late, if it has won, has come and gone there already
  it.each(sides)('the response to %s arrives after the delete of the new SA too', (late) => {
    everyOrder({}, (fresh, nonces) => {
      const { pair, wire, old } = begin(fresh);
      const host = pair[late];
      const peer = pair.peer(host);
      wire.pass(peer, host);
      const delayed = wire.take(peer);
      wire.pass(host, peer, host);
      pair.watch = () => {};
      const left = peer.endpoint.status()[0]!.children.find(({ state }) => state === 'installed')!;
      pair.act(peer, (endpoint, now) => endpoint.closeChild(now, left.id));
      wire.pass(peer, host);
      pair.deliver(delayed);
      const order = nonces.order();
      wire.settle();
      pair.run(120_000);
      expectSame(pair, 0);
      for (const side of sides) {
        expect(pair[side].of('child-down').map(({ childId }) => childId)).toContain(old[side]);
        expect(pair[side].of('failed')).toEqual([]);
      }
      expectClosed(pair);
      return order;
    });
  });

  //   late                                 peer
  //   │── REKEY_SA ───✕                      │   lost
  //   │◀────────────────────────── REKEY_SA ─│
  //   │── response ─────────────────────────▶│
  //   │◀──────────────────── DELETE of old ──│
  //   │── REKEY_SA, retransmitted ──────────▶│
  //   │◀───────────────── CHILD_SA_NOT_FOUND │
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
  //   │── REKEY_SA ┐                         │   delayed
  //   │◀───────────┼────────────── REKEY_SA ─│
  //   │── response ┼────────────────────────▶│
  //   │            │     ┌───── DELETE(old) ─│   delayed, or not
  //   │            └─────┼──────────────────▶│
  //   │◀─────────────────┼ TEMPORARY_FAILURE │
  //   │◀─────────────────┘                   │
  it.each(sides.flatMap((late) => (['before', 'after'] as const).map((when) => ({ late, when }))))(
    'the request of $late comes when the other is deleting: TEMPORARY_FAILURE, $when its DELETE',
    ({ late, when }) => {
      bothWays(
        {},
        (pair, wire) => {
          const host = pair[late];
          const peer = pair.peer(host);
          const delayed = wire.take(host);
          wire.pass(peer, host);
          pair.deliver(delayed);
          // Two wait now: the DELETE, and the refusal.
          expect(wire.waiting(peer)).toBe(2);
          const deletion = wire.take(peer);
          if (when === 'after') pair.deliver(deletion);
          wire.pass(peer);
          if (when === 'before') pair.deliver(deletion);
        },
        3,
      );
    },
  );

  //   late                                 peer
  //   │── REKEY_SA ┐                         │   delayed
  //   │◀───────────┼────────────── REKEY_SA ─│
  //   │── response ┼────────────────────────▶│
  //   │◀───────────┼──────────────── DELETE ─│
  //   │── response ┼────────────────────────▶│
  //   │            └────────────────────────▶│
  //   │◀───────────────── CHILD_SA_NOT_FOUND │
  it.each(sides)('the request of %s comes when the old SA is gone: CHILD_SA_NOT_FOUND', (late) => {
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

  //   host                                 peer
  //   │── REKEY_SA(old) ────────────────────▶│
  //   │         ┌────────────────── response │   delayed: the new SA is up there, not here
  //   │◀────────┼───────────── REKEY_SA(new) │
  //   │── TEMPORARY_FAILURE ┼───────────────▶│   CHILD_SA_NOT_FOUND would have it forget the SA (RFC 7296 §2.25.1)
  //   │◀────────┘                            │   which comes up here, and is sent on
  it.each(sides)('%s is asked to replace an SA of which it has not heard yet', (late) => {
    const pair = new Pair();
    pair.up();
    const host = pair[late];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    const old = host.child.id;
    pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, old));
    wire.pass(host);
    const delayed = wire.take(peer);
    const made = peer.of('child-up').at(-1)!.child.id;
    pair.act(peer, (endpoint, now) => endpoint.rekeyChild(now, made));
    wire.pass(peer, host);
    pair.deliver(delayed);
    wire.settle();
    expectSame(pair, 1);
    expect(peer.children.has(made)).toBe(true);
    pair.run(10_000);
    expectSame(pair, 1);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── REKEY_SA ─────────────────────────▶│
  //   │         ┌────────────────── response │   delayed until the hard lifetime of the old one is over
  //   │── DELETE┼(old): waits                │
  //   │◀────────┘                            │   the new one is there, so it is used
  it.each(sides)('the old one of %s expires while its successor is made', (late) => {
    const config = connection({ children: [child('c', { lifetime: { soft: 3_600_000, hard: 20_000, jitter: 0 } })] });
    const pair = new Pair({ a: config, b: mirrored(config) });
    pair.up();
    const host = pair[late];
    const wire = new Wire(pair);
    const old = host.child.id;
    pair.run(17_000);
    pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, old));
    wire.pass(host);
    pair.run(3_500);
    expect(host.of('child-down')).toMatchObject([{ childId: old, reason: 'expired' }]);
    wire.settle();
    expectSame(pair, 1);
    expect(host.child.replaces).toBe(old);
    expectClosed(pair);
  });

  //   a                                      b
  //   │── REKEY_SA, KE ecp256 ─────╲   ╱─────│
  //   │◀── REKEY_SA, KE ecp384 ────╱   ╲────▶│
  //   │── INVALID_KE_PAYLOAD ──────╲   ╱─────│
  //   │◀── INVALID_KE_PAYLOAD ─────╱   ╲────▶│
  //   │  both try again with the group that the other asks for, and collide as above
  it('with a wrong group on both sides first', () => {
    bothWays(WRONG_GROUPS, (pair, wire) => {
      refuseGroups(pair, wire);
      wire.pass(pair.a, pair.b, pair.a, pair.b);
    });
  });

  //   late                                 peer
  //   │── REKEY_SA, wrong group ╲   ╱────────│
  //   │◀── REKEY_SA, wrong group╱   ╲───────▶│
  //   │── INVALID_KE_PAYLOAD ───╲   ╱────────│
  //   │◀── INVALID_KE_PAYLOAD ──╱   ╲───────▶│
  //   │── REKEY_SA ┐                         │   delayed
  //   │◀───────────┼────────────── REKEY_SA ─│
  //   │── response ┼────────────────────────▶│
  //   │◀───────────┼──────────────── DELETE ─│
  //   │── response ┼────────────────────────▶│
  //   │            └────────────────────────▶│
  //   │◀───────────────── CHILD_SA_NOT_FOUND │
  it.each(sides)('with a wrong group, and the retry of %s late', (late) => {
    bothWays(
      WRONG_GROUPS,
      (pair, wire) => {
        const host = pair[late];
        const peer = pair.peer(host);
        refuseGroups(pair, wire);
        const delayed = wire.take(host);
        wire.pass(peer, host, peer, host);
        pair.deliver(delayed);
      },
      3,
    );
  });
});

describe('one side rekeys what the other deletes', () => {
  function cross(side: 'a' | 'b'): { pair: Pair; wire: Wire; host: Host; peer: Host } {
    const pair = new Pair();
    pair.up();
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, host.child.id));
    pair.act(peer, (endpoint, now) => endpoint.closeChild(now, peer.child.id));
    return { pair, wire, host, peer };
  }

  function gone(pair: Pair): void {
    pair.run(20_000);
    expectSame(pair, 0);
    for (const host of [pair.a, pair.b]) {
      expect(host.of('child-down')).toHaveLength(1);
      expect(host.of('failed')).toEqual([]);
    }
    expectClosed(pair);
  }

  //   host                                 peer
  //   │── REKEY_SA ─────────────╲   ╱────────│
  //   │◀── DELETE ──────────────╱   ╲───────▶│
  //   │── response ────────────▶             │   the SA is gone
  //   │           ◀── TEMPORARY_FAILURE ─────│   or CHILD_SA_NOT_FOUND: nothing to rekey
  it.each(sides)('the requests cross, %s', (side) => {
    const { pair, wire } = cross(side);
    wire.settle();
    gone(pair);
  });

  //   host                                 peer
  //   │            ┌──────────── DELETE ─────│   delayed
  //   │── REKEY_SA ┼────────────────────────▶│
  //   │◀───────────┼──── TEMPORARY_FAILURE ──│
  //   │◀───────────┘                         │
  it.each(sides)('the rekeying arrives first, the delete late, %s', (side) => {
    const { pair, wire, host, peer } = cross(side);
    const late = wire.take(peer);
    wire.pass(host, peer);
    pair.deliver(late);
    wire.settle();
    gone(pair);
  });

  //   host                                 peer
  //   │── REKEY_SA ─────────────────────────▶│
  //   │                     ✕────── DELETE ──│   lost
  //   │◀────────────────── TEMPORARY_FAILURE │
  //   │◀──────────── DELETE, retransmitted ──│
  it.each(sides)('the delete is lost, %s', (side) => {
    const { pair, wire, peer } = cross(side);
    wire.take(peer);
    wire.settle();
    gone(pair);
  });

  //   host                                 peer
  //   │── REKEY_SA ──✕                       │   lost
  //   │◀─────────────────────────── DELETE ──│
  //   │── response ─────────────────────────▶│
  //   │── REKEY_SA, retransmitted ──────────▶│
  //   │◀───────────────── CHILD_SA_NOT_FOUND │   and nobody wants it any more
  it.each(sides)('the rekeying is lost, %s', (side) => {
    const { pair, wire, host } = cross(side);
    wire.take(host);
    wire.settle();
    gone(pair);
  });

  it.each(sides)('the delete arrives first, %s', (side) => {
    const { pair, wire, host, peer } = cross(side);
    wire.pass(peer, host);
    wire.settle();
    expect(peer.children.size).toBe(0);
    gone(pair);
  });
});
