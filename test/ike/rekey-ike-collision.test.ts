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

