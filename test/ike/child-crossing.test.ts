/** Both sides make the same CHILD SA, or delete it, at the same time (RFC 7296 §1.3.1, §1.4.1, §2.8.1). */
import { describe, expect, it } from 'vitest';
import { expectClosed, expectSame, expectUnbroken } from '../support/ike-expect.ts';
import { everyOrder, winnerOf } from '../support/ike-nonces.ts';
import { child, connection, type Host, mirrored, net, Pair, Wire } from '../support/ike-pair.ts';
import { established } from '../support/ike-tunnel.ts';

const sides = ['a', 'b'] as const;
const TWO = ['c', 'd'].map((name, i) =>
  child(name, { selectors: { local: [net(`10.1.${i}.0/24`)], remote: [net(`10.2.${i}.0/24`)] } }),
);

/** An IKE SA without a CHILD SA, whose sides may make these now. */
function childless(pair: Pair, children = connection().children): Pair {
  pair.a.endpoint.replaceConnection(connection({ children: [] }));
  pair.b.endpoint.replaceConnection(mirrored(connection({ children: [] })));
  pair.up();
  expectSame(pair, 0);
  pair.a.endpoint.replaceConnection(connection({ children }));
  pair.b.endpoint.replaceConnection(mirrored(connection({ children })));
  return pair;
}

function initiate(pair: Pair, host: Host, name?: string): void {
  pair.act(host, (endpoint, now) => endpoint.initiate(now, 'net', name === undefined ? {} : { child: name }));
}

describe('the same CHILD SA, made from both sides', () => {
  //   a                                      b
  //   │── SA, Ni a ────────────────╲   ╱─────│   no REKEY_SA: for the IKE protocol these are two
  //   │◀── SA, Ni b ───────────────╱   ╲────▶│
  //   │── response: Nr ────────────╲   ╱─────│   each side may have sent on its answer: there was no other
  //   │◀── response: Nr ───────────╱   ╲────▶│
  //   │  the one of the exchange with the lowest nonce is deleted by the side that began it
  it('is one in the end: the exchange with the lowest nonce loses, and packets on it are received', () => {
    everyOrder({}, (fresh, nonces) => {
      const pair = childless(fresh);
      const wire = new Wire(pair);
      for (const host of [pair.a, pair.b]) initiate(pair, host);
      // Until its answer is there, packets on it wait (`engine/early.test.ts`).
      wire.pass(pair.a, pair.b, pair.a, pair.b);
      expectUnbroken(pair);
      for (const host of [pair.a, pair.b]) {
        const theirs = pair.peer(host).of('child-up')[0]!.child.spiOut;
        expect(host.of('child-up').map(({ child: { spiIn } }) => spiIn)).toContain(theirs);
      }
      const order = nonces.order();
      expect(order.count).toBe(4);
      wire.settle();
      pair.run(61_000);
      expectSame(pair, 1);
      const winner = pair[winnerOf(order)];
      expect(winner.child.offered).toBeDefined();
      expect(pair.peer(winner).of('child-down')).toMatchObject([{ reason: 'redundant' }]);
      for (const host of [pair.a, pair.b]) {
        expect(host.of('child-up')).toHaveLength(2);
        expect(host.of('child-down')).toHaveLength(1);
        expect(host.of('failed')).toEqual([]);
      }
      expectClosed(pair);
      return order;
    });
  });

  //   late                                 peer
  //   │── SA, Ni ──────┐                     │   delayed
  //   │◀───────────────┼───────────── SA, Ni │
  //   │── response ────┼────────────────────▶│   up on both sides
  //   │                └────────────────────▶│   peer has no request out any more
  it.each(sides)('is one in the end when the request of %s comes late', (late) => {
    everyOrder({}, (fresh, nonces) => {
      const pair = childless(fresh);
      const host = pair[late];
      const wire = new Wire(pair);
      for (const each of [host, pair.peer(host)]) initiate(pair, each);
      const delayed = wire.take(host);
      wire.pass(pair.peer(host), host);
      pair.deliver(delayed);
      const order = nonces.order();
      wire.settle();
      pair.run(61_000);
      expectSame(pair, 1);
      expectClosed(pair);
      return order;
    });
  });
});

describe.each(sides)('a CHILD SA, asked for by %s', (side) => {
  it('twice is made once', () => {
    const pair = childless(new Pair());
    for (let i = 0; i < 2; i++) initiate(pair, pair[side]);
    pair.run();
    initiate(pair, pair[side]);
    pair.run();
    expectSame(pair, 1);
    for (const host of [pair.a, pair.b]) expect(host.of('child-up')).toHaveLength(1);
    expectClosed(pair);
  });

  it('while the other side asks for another: both are up', () => {
    const pair = childless(new Pair(), TWO);
    initiate(pair, pair[side], 'c');
    initiate(pair, pair.peer(pair[side]), 'd');
    pair.run();
    expectSame(pair, 2);
    for (const host of [pair.a, pair.b]) expect(host.of('child-up')).toHaveLength(2);
    expectClosed(pair);
  });
});

describe('deletes of the same CHILD SA that cross', () => {
  function expectDeleted(pair: Pair): void {
    expectSame(pair, 0);
    for (const host of [pair.a, pair.b]) {
      expect(host.of('child-down')).toMatchObject([{ reason: 'requested' }]);
      expect(host.of('failed')).toEqual([]);
    }
    expectClosed(pair);
  }

  function close(pair: Pair): void {
    for (const host of [pair.a, pair.b]) pair.act(host, (endpoint, now) => endpoint.closeChild(now, host.child.id));
  }

  //   a                                      b
  //   │── DELETE ──────────────────╲   ╱─────│
  //   │◀── DELETE ─────────────────╱   ╲────▶│
  //   │── nothing ─────────────────╲   ╱─────│   neither answers with a Delete payload (RFC 7296 §1.4.1)
  //   │◀── nothing ────────────────╱   ╲────▶│
  it('are each answered with nothing', () => {
    const pair = established();
    close(pair);
    pair.run();
    expect(pair.sent).toHaveLength(4);
    expectDeleted(pair);
  });

  const MESSAGES = ['the request of a', 'the request of b', 'the response of b', 'the response of a'] as const;

  //   a                                      b
  //   │── DELETE ────────✕         ┌─────────│
  //   │◀───────────────────────────┘         │
  //   │── nothing ──────────────────────────▶│   b knows that a has not the SA either
  //   │── DELETE, retransmitted ────────────▶│
  //   │◀──────────────────────────── nothing │
  it.each(MESSAGES)('end so when %s is lost', (which) => {
    const pair = established();
    let message = 0;
    pair.filter = () => (message++ === MESSAGES.indexOf(which) ? 'drop' : 'deliver');
    close(pair);
    pair.run(5_000);
    expectDeleted(pair);
  });

  it.each(MESSAGES.flatMap((which) => [100, 3_000].map((delay) => ({ which, delay }))))(
    'end so when $which is $delay ms late',
    ({ which, delay }) => {
      const pair = established();
      let message = 0;
      pair.filter = () => (message++ === MESSAGES.indexOf(which) ? 'hold' : 'deliver');
      close(pair);
      pair.run(delay);
      pair.release();
      pair.run(5_000);
      expectDeleted(pair);
    },
  );
});
