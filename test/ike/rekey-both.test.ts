/** The IKE SA is rekeyed or deleted while something happens to its CHILD SAs (RFC 7296 §2.25.2). */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import { expectNothing, expectSame } from '../support/ike-expect.ts';
import { child, connection, net, Pair, Wire } from '../support/ike-pair.ts';
import { established, rekeyIke } from '../support/ike-rekeyed.ts';

const sides = ['a', 'b'] as const;

describe('the IKE SA and its children at the same time', () => {
  const PFS = connection({ children: [child('c', { proposals: [parseEspProposalString('aes128gcm16-x25519')] })] });

  it.each(sides)('%s rekeys the IKE SA, the other the child: both are busy and try again', (side) => {
    const pair = established({ a: PFS });
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    rekeyIke(pair, host);
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
    rekeyIke(pair, host);
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
    rekeyIke(pair, host);
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
