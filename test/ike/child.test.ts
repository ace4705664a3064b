/** CREATE_CHILD_SA and INFORMATIONAL for CHILD SAs, one side at a time (RFC 7296 §1.3, §1.4, §2.8). */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import { ExchangeType } from '../../src/ike/wire/iana.ts';
import { expectClosed, expectSame, expectUnbroken } from '../support/ike-expect.ts';
import { child, connection, type Host, mirrored, net, Pair, Wire } from '../support/ike-pair.ts';
import { sealing } from '../support/ike-tamper.ts';
import { established } from '../support/ike-tunnel.ts';

const WITH_PFS = connection({ children: [child('c', { proposals: [parseEspProposalString('aes128gcm16-x25519')] })] });

function rekey(pair: Pair, host: Host): void {
  const { id } = host.child;
  pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, id));
}

const sides = ['a', 'b'] as const;

describe.each(sides)('a CHILD SA, from side %s', (side) => {
  //   host                                 peer
  //   │── DELETE(spi of host) ──────────────▶│
  //   │◀────────────── DELETE(spi of peer) ──│
  it('is deleted', () => {
    const pair = established();
    const host = pair[side];
    const { id } = host.child;
    pair.act(host, (endpoint, now) => endpoint.closeChild(now, id));
    expect(host.of('child-down')).toMatchObject([{ childId: id, reason: 'requested' }]);
    pair.run();
    expectSame(pair, 0);
    expect(pair.peer(host).of('child-down')).toMatchObject([{ reason: 'deleted-by-peer' }]);
    expect(pair.sent).toHaveLength(2);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── REKEY_SA(old), SA, Ni, TS ────────▶│
  //   │◀────────────────────── SA, Nr, TS ───│   the peer receives on both, and sends on the old one
  //   │── DELETE(old) ──────────────────────▶│   host sends on the new one; now the peer does too
  //   │◀────────────────────── DELETE(old) ──│
  it.each([
    ['without a key exchange', connection()],
    ['with one of its own', WITH_PFS],
  ])('is rekeyed %s', (_how, a) => {
    const pair = established({ a });
    const host = pair[side];
    const before = host.child;
    expectUnbroken(pair);
    rekey(pair, host);
    pair.run();
    expectSame(pair, 1);
    expect(pair.sent).toHaveLength(4);
    expect(host.child.replaces).toBe(before.id);
    expect(host.child.spiIn).not.toBe(before.spiIn);
    expect(host.child.dhGroup).toBe(a === WITH_PFS ? 'x25519' : undefined);
    for (const each of [pair.a, pair.b]) {
      expect(each.of('child-up')).toHaveLength(2);
      expect(each.of('child-down')).toMatchObject([{ reason: 'rekeyed' }]);
    }
    expectClosed(pair);
  });

  it('carries traffic all the time while it is rekeyed', () => {
    const pair = established();
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    rekey(pair, host);
    wire.pass(host);
    // The responder has both, and sends on the old one.
    expect(peer.children.size).toBe(2);
    expect(peer.of('child-send')).toEqual([]);
    expect(peer.of('child-up')[1]!.sendNow).toBe(false);
    wire.pass(peer);
    // The initiator has both and sends on the new one, until the peer has confirmed.
    expect(host.children.size).toBe(2);
    expect(host.of('child-up')[1]!.sendNow).toBe(true);
    const fresh = peer.of('child-up')[1]!.child;
    pair.act(peer, (endpoint, now) => endpoint.childReceived(now, fresh.spiIn));
    pair.act(peer, (endpoint, now) => endpoint.childReceived(now, fresh.spiIn));
    expect(peer.of('child-send')).toEqual([{ type: 'child-send', childId: fresh.id }]);
    wire.settle();
    expectSame(pair, 1);
    expect(peer.of('child-send')).toHaveLength(1);
  });

  it('moves the responder over with the delete, when no packet came before', () => {
    const pair = established();
    const peer = pair.peer(pair[side]);
    rekey(pair, pair[side]);
    pair.run();
    const types = peer.events.map((event) => event.type);
    expect(types.slice(-3)).toEqual(['child-up', 'child-send', 'child-down']);
  });

  //   host                                 peer
  //   │── REKEY_SA(old), KE ecp256 ─────────▶│
  //   │◀──────── INVALID_KE_PAYLOAD(ecp384) ─│
  //   │── REKEY_SA(old), KE ecp384 ─────────▶│
  it('is rekeyed with the group that the peer asks for', () => {
    const proposals = { mine: 'aes128gcm16-ecp256-ecp384', theirs: 'aes128gcm16-ecp384' };
    const of = (text: string) => connection({ children: [child('c', { proposals: [parseEspProposalString(text)] })] });
    const [a, b] = side === 'a' ? [proposals.mine, proposals.theirs] : [proposals.theirs, proposals.mine];
    const pair = established({ a: of(a), b: mirrored(of(b)) });
    expectUnbroken(pair);
    rekey(pair, pair[side]);
    pair.run();
    expectSame(pair, 1);
    expect(pair.sent).toHaveLength(6);
    expect(pair.a.child.dhGroup).toBe('ecp384');
    expectClosed(pair);
  });

  it('is rekeyed with the group of the IKE SA first, which the peer has', () => {
    const of = (text: string) => connection({ children: [child('c', { proposals: [parseEspProposalString(text)] })] });
    const [a, b] = ['aes128gcm16-ecp256-x25519', 'aes128gcm16-x25519-ecp256'];
    const pair = established({ a: of(side === 'a' ? a! : b!), b: mirrored(of(side === 'a' ? b! : a!)) });
    rekey(pair, pair[side]);
    pair.run();
    expectSame(pair, 1);
    expect(pair.sent).toHaveLength(4);
    expect(pair.a.child.dhGroup).toBe('x25519');
  });

  it('is rekeyed with its own group first, whatever the IKE SA has by now', () => {
    const proposals = [parseEspProposalString('aes128gcm16-x25519-ecp256')];
    const of = (ike: string) =>
      connection({ proposals: [parseIkeProposalString(ike)], children: [child('c', { proposals })] });
    const pair = established({
      a: of('aes128gcm16-prfsha256-x25519'),
      b: mirrored(of('aes128gcm16-prfsha256-x25519')),
    });
    rekey(pair, pair[side]);
    pair.run();
    expect(pair.a.child.dhGroup).toBe('x25519');
    for (const host of [pair.a, pair.b]) {
      const config = of('aes128gcm16-prfsha256-ecp256');
      host.endpoint.replaceConnection(host === pair.a ? config : mirrored(config));
    }
    const { id } = pair[side].ikeSa;
    pair.act(pair[side], (endpoint, now) => endpoint.rekeyIkeSa(now, id));
    pair.run();
    expect(pair.a.ikeSa.suite).toContain('ecp256');
    pair.sent.length = 0;
    rekey(pair, pair[side]);
    pair.run();
    expectSame(pair, 1);
    // Without one that says INVALID_KE_PAYLOAD.
    expect(pair.sent).toHaveLength(4);
    expect(pair.a.child.dhGroup).toBe('x25519');
  });

  it('ends with its hard lifetime', () => {
    const pair = established();
    const host = pair[side];
    pair.act(host, (endpoint, now) => endpoint.childHardExpired(now, host.child.spiIn));
    expect(host.of('child-down')).toMatchObject([{ reason: 'expired' }]);
    pair.run();
    expectSame(pair, 0);
  });

  it('is rekeyed when its soft lifetime is over, once', () => {
    const pair = established();
    const host = pair[side];
    const { spiIn } = host.child;
    pair.act(host, (endpoint, now) => endpoint.childSoftExpired(now, spiIn));
    pair.act(host, (endpoint, now) => endpoint.childSoftExpired(now, spiIn));
    pair.run();
    expectSame(pair, 1);
    expect(host.of('child-up')).toHaveLength(2);
    expect(pair.sent).toHaveLength(4);
  });

  it('is not made anew when the peer is deleting it', () => {
    const pair = established();
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    // The delete gets lost for so long that the rekeying comes first.
    pair.act(peer, (endpoint, now) => endpoint.closeChild(now, peer.child.id));
    const lost = wire.take(peer);
    rekey(pair, host);
    wire.pass(host, peer);
    // TEMPORARY_FAILURE: the peer is deleting it. Then the delete arrives after all.
    pair.deliver(lost);
    wire.settle();
    pair.run(10_000);
    expectSame(pair, 0);
  });

  //   host                                 peer
  //   │                                      │   has lost the SA
  //   │── REKEY_SA(old) ────────────────────▶│
  //   │◀───────────────── CHILD_SA_NOT_FOUND │
  //   │── SA, Ni, TS: a new child ──────────▶│
  it('is made anew when the peer has lost it', () => {
    let loses = false;
    // Its delete names another SA: it believes that it is deleted.
    const crypto = sealing(({ exchange, response, content }) => {
      if (loses && exchange === ExchangeType.INFORMATIONAL && !response) content.fill(0xff, 8, 12);
    });
    const pair = established(side === 'a' ? { bOptions: { crypto } } : { aOptions: { crypto } });
    const host = pair[side];
    const peer = pair.peer(host);
    const old = host.child.id;
    loses = true;
    pair.act(peer, (endpoint, now) => endpoint.closeChild(now, peer.child.id));
    pair.run();
    loses = false;
    expect([host.children.size, peer.children.size]).toEqual([1, 0]);
    rekey(pair, host);
    pair.run();
    expectSame(pair, 1);
    expect(host.of('child-down')).toMatchObject([{ childId: old, reason: 'deleted-by-peer' }]);
    expect(host.child.replaces).toBeUndefined();
    for (const each of [host, peer]) expect(each.of('failed')).toEqual([]);
    expectClosed(pair);
  });

  it('stays up when the peer refuses its rekeying, which is tried again', () => {
    const pair = established({ a: WITH_PFS });
    const host = pair[side];
    const peer = pair.peer(host);
    const other = connection({
      children: [child('c', { proposals: [parseEspProposalString('aes256-sha256-ecp256')] })],
    });
    peer.endpoint.replaceConnection(side === 'a' ? mirrored(other) : other);
    rekey(pair, host);
    pair.run();
    expectSame(pair, 1);
    expect(host.of('failed')).toMatchObject([{ reason: 'NO_PROPOSAL_CHOSEN', child: 'c' }]);
    expect(peer.of('failed')[0]!.detail).toContain('ecp256');
    peer.endpoint.replaceConnection(side === 'a' ? mirrored(WITH_PFS) : WITH_PFS);
    pair.run(31_000);
    expectSame(pair, 1);
    expect(host.of('child-up')).toHaveLength(2);
  });

  it('is refused beyond the bound', () => {
    const children = ['c', 'd', 'e'].map((name, i) =>
      child(name, { selectors: { local: [net(`10.1.${i}.0/24`)], remote: [net(`10.2.${i}.0/24`)] } }),
    );
    const limits = { maxChildrenPerIkeSa: 2 };
    const pair = new Pair({ a: connection({ children }), aOptions: { limits }, bOptions: { limits } });
    pair.up(pair[side]);
    expectSame(pair, 2);
    expect(pair[side].of('failed')).toMatchObject([{ reason: 'NO_ADDITIONAL_SAS', child: 'e' }]);
  });
});

describe('the side that answered a rekeying', () => {
  //   host                                 peer
  //   │── REKEY_SA(old) ────────────────────▶│
  //   │◀─────────────────────────── response │   soft lifetime of the old SA ends here: it is replaced already
  //   │── DELETE(old) ──────────────────────▶│
  it.each(sides)('ignores the soft expiry of the old SA, %s', (side) => {
    const pair = established();
    const peer = pair.peer(pair[side]);
    const old = peer.child;
    const wire = new Wire(pair);
    rekey(pair, pair[side]);
    wire.pass(pair[side]);
    pair.act(peer, (endpoint, now) => endpoint.childSoftExpired(now, old.spiIn));
    wire.settle();
    expectSame(pair, 1);
    for (const each of [pair.a, pair.b]) expect(each.of('child-up')).toHaveLength(2);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── REKEY_SA(old) ────────────────────▶│
  //   │◀─────────────────────────── response │   hard lifetime of the old SA ends here
  //   │── DELETE(old) ──────────╲   ╱────────│
  //   │◀── DELETE(old) ─────────╱   ╲───────▶│
  it.each(sides)('acts on the hard expiry of the old SA, %s', (side) => {
    const pair = established();
    const host = pair[side];
    const peer = pair.peer(host);
    const old = peer.child;
    const wire = new Wire(pair);
    rekey(pair, host);
    wire.pass(host);
    pair.act(peer, (endpoint, now) => endpoint.childHardExpired(now, old.spiIn));
    expect(peer.of('child-down')).toMatchObject([{ childId: old.id, reason: 'expired' }]);
    wire.settle();
    expectSame(pair, 1);
    for (const each of [host, peer]) expect(each.of('child-down')).toHaveLength(1);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── REKEY_SA(old) ────────────────────▶│
  //   │                   ✕──────── response │   and nothing comes from host for a minute
  //   │              ✕───────── DELETE(old) ─│
  it.each(sides)('deletes the old SA itself when the delete never comes, once, %s', (side) => {
    const pair = established();
    const host = pair[side];
    const peer = pair.peer(host);
    const old = peer.child.id;
    const wire = new Wire(pair);
    rekey(pair, host);
    wire.pass(host);
    // The initiator goes away, its address answers no more.
    pair.filter = () => 'drop';
    pair.run(61_000);
    wire.open();
    expect(peer.of('child-down')).toEqual([]);
    pair.run(20_000);
    expect(peer.of('child-down').filter((event) => event.childId === old)).toHaveLength(1);
  });

  //   host                                 peer
  //   │── REKEY_SA(old) ────────────────────▶│
  //   │◀─────────────────────────── response │
  //   │── DELETE(old) ──────────╲   ╱────────│
  //   │◀── DELETE(new) ─────────╱   ╲───────▶│
  it.each(sides)('may delete the new SA before the old, %s', (side) => {
    const pair = established();
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    rekey(pair, host);
    wire.pass(host, peer);
    const fresh = peer.of('child-up')[1]!.child;
    pair.act(peer, (endpoint, now) => endpoint.closeChild(now, fresh.id));
    wire.settle();
    expectSame(pair, 0);
    for (const each of [host, peer]) expect(each.of('child-down')).toHaveLength(2);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── REKEY_SA(old) ────────────────────▶│
  //   │      ┌───────────────────── response │   arrives before the delete, or after it
  //   │◀─────┼─────────────── DELETE(old) ───│   which is for host to send
  //   │◀─────┘                               │
  it.each(sides)('may delete the old SA, though that is not its part, %s', (side) => {
    for (const early of [false, true]) {
      const pair = established();
      const host = pair[side];
      const peer = pair.peer(host);
      const wire = new Wire(pair);
      const old = peer.child.id;
      rekey(pair, host);
      wire.pass(host);
      const answer = wire.take(peer);
      if (!early) pair.deliver(answer);
      pair.act(peer, (endpoint, now) => endpoint.closeChild(now, old));
      wire.pass(peer);
      if (early) pair.deliver(answer);
      wire.settle();
      expectSame(pair, 1);
      for (const each of [pair.a, pair.b]) expect(each.of('child-down')).toHaveLength(1);
      expectClosed(pair);
    }
  });

  //   host                                 peer
  //   │── REKEY_SA(old) ────────────────────▶│
  //   │      ┌───────────────────── response │
  //   │◀─────┼─────────────── DELETE(new) ───│   of which host has not heard yet
  //   │◀─────┘                               │   nobody wants it: the old one goes too
  it.each(sides)('may delete the new SA before its answer arrives, %s', (side) => {
    const pair = established();
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    rekey(pair, host);
    wire.pass(host);
    const answer = wire.take(peer);
    const fresh = peer.of('child-up')[1]!.child;
    pair.act(peer, (endpoint, now) => endpoint.closeChild(now, fresh.id));
    wire.pass(peer);
    pair.deliver(answer);
    wire.settle();
    expectSame(pair, 0);
    expect(host.of('child-up')).toHaveLength(1);
    expect(host.of('child-down')).toHaveLength(1);
    expect(peer.of('child-down')).toHaveLength(2);
    expectClosed(pair);
  });
});

describe('an old SA whose delete is not confirmed', () => {
  it.each(sides)('is used no longer than its hard lifetime, %s', (side) => {
    const pair = established();
    const host = pair[side];
    const old = host.child;
    const wire = new Wire(pair);
    rekey(pair, host);
    wire.pass(host, pair.peer(host));
    expect(host.of('child-down')).toEqual([]);
    pair.act(host, (endpoint, now) => endpoint.childHardExpired(now, old.spiIn));
    expect(host.of('child-down')).toMatchObject([{ childId: old.id, reason: 'expired' }]);
    wire.settle();
    expectSame(pair, 1);
    expect(host.of('child-down')).toHaveLength(1);
  });
});
