/** Rekeying and deleting IKE SAs, one side at a time (RFC 7296 §1.3.2, §1.4.1, §2.18, §2.25.2). */
import { describe, expect, it } from 'vitest';
import { parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import { expectNothing, expectSame, expectUnbroken } from '../support/ike-expect.ts';
import { connection, mirrored, Wire } from '../support/ike-pair.ts';
import { established, expectRekeyed, idsOf, rekeyIke } from '../support/ike-tunnel.ts';

const sides = ['a', 'b'] as const;
const groups = (text: string) => connection({ proposals: [parseIkeProposalString(text)] });

describe.each(sides)('an IKE SA, from side %s', (side) => {
  //   host                                 peer
  //   │── SA(new SPI), Ni, KE ──────────────▶│
  //   │◀────────────── SA(new SPI), Nr, KE ──│   the children are the new IKE SA's on both sides
  //   │── DELETE, on the old one ───────────▶│
  //   │◀─────────────────────────── response │
  it('is rekeyed, and its children go over', () => {
    const pair = established();
    expectUnbroken(pair);
    const old = idsOf(pair);
    rekeyIke(pair, pair[side]);
    pair.run();
    expect(pair.sent).toHaveLength(4);
    expect(pair[side].ikeSa.initiator).toBe(true);
    expect(pair.peer(pair[side]).ikeSa.initiator).toBe(false);
    expectRekeyed(pair, old);
  });

  //   host                                 peer
  //   │── SA, Ni, KE ecp256 ────────────────▶│
  //   │◀──────── INVALID_KE_PAYLOAD(x25519) ─│
  //   │── SA, Ni, KE x25519 ────────────────▶│
  it('is rekeyed with the group that the peer asks for', () => {
    const mine = groups('aes128gcm16-prfsha256-ecp256-x25519');
    const theirs = groups('aes128gcm16-prfsha256-x25519');
    const pair = established(side === 'a' ? { a: mine, b: mirrored(theirs) } : { a: theirs, b: mirrored(mine) });
    expectUnbroken(pair);
    const old = idsOf(pair);
    rekeyIke(pair, pair[side]);
    pair.run();
    expect(pair.sent).toHaveLength(6);
    expectRekeyed(pair, old);
  });

  it('is rekeyed again and again', () => {
    const pair = established();
    expectUnbroken(pair);
    for (let i = 0; i < 5; i++) {
      rekeyIke(pair, i % 2 === 0 ? pair[side] : pair.peer(pair[side]));
      pair.run();
    }
    expectSame(pair, 1);
    expect(pair.a.of('ike-up')).toHaveLength(6);
  });

  //   host                                 peer
  //   │── DELETE(IKE) ──────────────────────▶│   the children go with it, without a word of their own
  //   │◀──────────────────────────── nothing │
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

  //   host                                 peer
  //   │── DELETE(IKE) ──────────────────────▶│
  //   │                     ✕────── nothing ─│   lost
  //   │── DELETE(IKE), retransmitted ───────▶│   answered though it is gone
  //   │◀──────────────────────────── nothing │
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
    rekeyIke(pair, host);
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

describe('one side rekeys the IKE SA, the other deletes it', () => {
  //   host                                 peer
  //   │── rekey ────────────────╲   ╱────────│   or one of them is lost, or comes when the other is answered
  //   │◀── DELETE(IKE) ─────────╱   ╲───────▶│
  //   │── response ────────────▶             │
  //   │           ◀── TEMPORARY_FAILURE ─────│
  it.each(['cross', 'delete lost', 'rekeying lost', 'delete first', 'rekeying first'])('%s', (how) => {
    for (const side of sides) {
      const pair = established();
      const host = pair[side];
      const peer = pair.peer(host);
      const wire = new Wire(pair);
      rekeyIke(pair, host);
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

  //   a                                      b
  //   │── DELETE(IKE) ─────────────╲   ╱─────│
  //   │◀── DELETE(IKE) ────────────╱   ╲────▶│
  //   │── nothing ─────────────────╲   ╱─────│
  //   │◀── nothing ────────────────╱   ╲────▶│
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
