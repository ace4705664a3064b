/**
 * Both sides rekey the same CHILD SA, or one rekeys what the other deletes (RFC 7296 §2.8.1, §2.25.1). Every scenario is
 * run with nonces that make A win and with nonces that make B win.
 */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import type { ChildSa } from '../../src/ike/events.ts';
import { expectSame } from '../support/ike-expect.ts';
import { child, connection, type Host, mirrored, Pair, Wire } from '../support/ike-pair.ts';

const proposals = (text: string) =>
  connection({ children: [child('c', { proposals: [parseEspProposalString(text)] })] });
const PLAIN = { a: connection(), b: mirrored(connection()) };
const PFS = { a: proposals('aes128gcm16-x25519'), b: mirrored(proposals('aes128gcm16-x25519')) };
/** Each side offers first a group that the other does not accept. */
const WRONG_GROUPS = {
  a: proposals('aes128gcm16-ecp256-x25519'),
  b: mirrored(proposals('aes128gcm16-ecp384-x25519')),
};

/** Runs a scenario until both sides have won once; returns who won by seed. */
function bothWays(options: ConstructorParameters<typeof Pair>[0], scenario: (pair: Pair, wire: Wire) => void): void {
  const winners = new Set<string>();
  for (let seed = 1; seed <= 40 && winners.size < 2; seed++) {
    const pair = new Pair({ ...options, seed });
    pair.up();
    expectSame(pair, 1);
    const old = { a: pair.a.child.id, b: pair.b.child.id };
    const wire = new Wire(pair);
    for (const host of [pair.a, pair.b]) pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, host.child.id));
    scenario(pair, wire);
    wire.settle();
    expectSame(pair, 1);
    const left: ChildSa = pair.a.child;
    expect(left.replaces).toBe(old.a);
    expect(pair.b.child.replaces).toBe(old.b);
    for (const host of [pair.a, pair.b]) {
      const downs = host.of('child-down').map((event) => event.childId);
      expect(new Set(downs).size).toBe(downs.length);
      expect(host.of('child-up').length - downs.length).toBe(1);
      expect(host.of('failed')).toEqual([]);
      // Whichever side deletes it: to the owner it was replaced.
      const replaced = host === pair.a ? old.a : old.b;
      expect(host.of('child-down').find(({ childId }) => childId === replaced)?.reason).toBe('rekeyed');
    }
    // The loser never shows its own new SA, the winner shows both.
    winners.add(pair.a.of('child-up').length > pair.b.of('child-up').length ? 'a' : 'b');
    pair.run(120_000);
    expectSame(pair, 1);
  }
  expect(winners.size).toBe(2);
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
  it.each(['a', 'b'] as const)('the response to %s arrives after the first delete', (late) => {
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

  //   host                                 peer
  //   │            ┌────────── REKEY_SA ─────│   delayed
  //   │── REKEY_SA ┼────────────────────────▶│
  //   │◀───────────┼───────────── response ──│
  //   │── DELETE of old SA ─────▶            │   on its way
  //   │◀───────────┘                         │
  //   │── TEMPORARY_FAILURE ────────────────▶│
  it.each(['a', 'b'] as const)('%s receives the other request after its own rekeying', (late) => {
    for (let seed = 1; seed <= 4; seed++) {
      const pair = new Pair({ seed });
      pair.up();
      const host = pair[late];
      const peer = pair.peer(host);
      const wire = new Wire(pair);
      for (const each of [host, peer]) pair.act(each, (endpoint, now) => endpoint.rekeyChild(now, each.child.id));
      const delayed = wire.take(peer);
      // The whole rekeying of `host` takes place, up to its delete.
      wire.pass(host, peer);
      // TEMPORARY_FAILURE: it is deleting the old SA.
      pair.deliver(delayed);
      wire.settle();
      expectSame(pair, 1);
      pair.run(120_000);
      expectSame(pair, 1);
      expect(pair.a.of('child-up')).toHaveLength(2);
      expect(pair.b.of('child-up')).toHaveLength(2);
    }
  });

  //   host                                 peer
  //   │            ┌────────── REKEY_SA ─────│   delayed
  //   │── REKEY_SA ┼────────────────────────▶│
  //   │◀───────────┼───────────── response ──│
  //   │── DELETE ──┼────────────────────────▶│
  //   │◀───────────┼───────────── response ──│
  //   │◀───────────┘                         │
  //   │── CHILD_SA_NOT_FOUND ───────────────▶│
  it.each(['a', 'b'] as const)('%s receives the other request when the old SA is gone: CHILD_SA_NOT_FOUND', (late) => {
    const pair = new Pair();
    pair.up();
    const host = pair[late];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    for (const each of [host, peer]) pair.act(each, (endpoint, now) => endpoint.rekeyChild(now, each.child.id));
    const delayed = wire.take(peer);
    wire.pass(host, peer, host, peer);
    pair.deliver(delayed);
    wire.settle();
    expectSame(pair, 1);
    expect(host.of('child-up')).toHaveLength(2);
    expect(peer.of('child-up')).toHaveLength(2);
  });

  //   host                                 peer
  //   │── REKEY_SA(old) ────────────────────▶│
  //   │         ┌────────────────── response │   delayed: the new SA is up there, not here
  //   │◀────────┼───────────── REKEY_SA(new) │
  //   │── TEMPORARY_FAILURE ┼───────────────▶│   CHILD_SA_NOT_FOUND would have it forget the SA (RFC 7296 §2.25.1)
  //   │◀────────┘                            │   which comes up here, and is sent on
  it.each(['a', 'b'] as const)('%s is asked to replace an SA of which it has not heard yet', (late) => {
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
  });

  //   host                                 peer
  //   │── REKEY_SA ─────────────────────────▶│
  //   │         ┌────────────────── response │   delayed until the hard lifetime of the old one is over
  //   │── DELETE┼(old): waits                │
  //   │◀────────┘                            │   the new one is there, so it is used
  it.each(['a', 'b'] as const)('the old one of %s expires while its successor is made', (late) => {
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
  });

  //   a                                      b
  //   │── REKEY_SA, KE ecp256 ─────╲   ╱─────│
  //   │◀── REKEY_SA, KE ecp384 ────╱   ╲────▶│
  //   │── INVALID_KE_PAYLOAD ──────╲   ╱─────│
  //   │◀── INVALID_KE_PAYLOAD ─────╱   ╲────▶│
  //   │  both try again with the group that the other asks for, and collide as above
  it('with a wrong group on both sides first', () => {
    bothWays(WRONG_GROUPS, (pair, wire) => {
      for (let round = 0; round < 4; round++) {
        if (wire.waiting(pair.a) > 0) wire.pass(pair.a);
        if (wire.waiting(pair.b) > 0) wire.pass(pair.b);
      }
    });
  });

  it.each(['a', 'b'] as const)('with a wrong group, and the retry of %s late', (late) => {
    const pair = new Pair({ ...WRONG_GROUPS, seed: 3 });
    pair.up();
    const host = pair[late];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    for (const each of [pair.a, pair.b]) pair.act(each, (endpoint, now) => endpoint.rekeyChild(now, each.child.id));
    let retries = 0;
    pair.filter = (datagram) =>
      datagram.from === host && datagram.data[18] === 36 && retries++ === 1 ? 'hold' : 'deliver';
    pair.release();
    pair.run(300);
    wire.settle();
    pair.run(60_000);
    expectSame(pair, 1);
    expect(peer.of('failed')).toEqual([]);
  });
});

describe('one side rekeys what the other deletes', () => {
  const cases: [string, 'a' | 'b'][] = [
    ['a', 'a'],
    ['b', 'b'],
  ];
  function begin(side: 'a' | 'b'): { pair: Pair; wire: Wire; host: Host; peer: Host } {
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
  }

  //   host                                 peer
  //   │── REKEY_SA ─────────────╲   ╱────────│
  //   │◀── DELETE ──────────────╱   ╲───────▶│
  //   │── response ────────────▶             │   the SA is gone
  //   │           ◀── TEMPORARY_FAILURE ─────│   or CHILD_SA_NOT_FOUND: nothing to rekey
  it.each(cases)('the requests cross, %s', (_name, side) => {
    const { pair, wire } = begin(side);
    wire.settle();
    gone(pair);
  });

  //   host                                 peer
  //   │            ┌──────────── DELETE ─────│   delayed
  //   │── REKEY_SA ┼────────────────────────▶│
  //   │◀───────────┼──── TEMPORARY_FAILURE ──│
  //   │◀───────────┘                         │
  it.each(cases)('the rekeying arrives first, the delete late, %s', (_name, side) => {
    const { pair, wire, host, peer } = begin(side);
    const late = wire.take(peer);
    wire.pass(host, peer);
    pair.deliver(late);
    wire.settle();
    gone(pair);
  });

  it.each(cases)('the delete is lost, %s', (_name, side) => {
    const { pair, wire, peer } = begin(side);
    wire.take(peer);
    wire.settle();
    gone(pair);
  });

  it.each(cases)('the rekeying is lost, %s', (_name, side) => {
    const { pair, wire, host } = begin(side);
    wire.take(host);
    wire.settle();
    gone(pair);
  });

  it.each(cases)('the delete arrives first, %s', (_name, side) => {
    const { pair, wire, host, peer } = begin(side);
    wire.pass(peer, host);
    wire.settle();
    expect(peer.children.size).toBe(0);
    gone(pair);
  });
});
