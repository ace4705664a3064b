/** The IKE SA is rekeyed or deleted while something happens to its CHILD SAs (RFC 7296 §2.25.1, §2.25.2). */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import { expectClosed, expectNothing, expectSame, expectUnbroken } from '../support/ike-expect.ts';
import { child, connection, type Host, net, Pair, Wire } from '../support/ike-pair.ts';
import { established, rekeyIke } from '../support/ike-tunnel.ts';

const sides = ['a', 'b'] as const;
/** What becomes of the two requests, of which `host` sends the first. */
const WAYS = [
  'they cross',
  'the first is late',
  'the second is late',
  'the first is lost',
  'the second is lost',
] as const;
const RUNS = sides.flatMap((side) => WAYS.map((way) => ({ side, way })));

const PFS = connection({ children: [child('c', { proposals: [parseEspProposalString('aes128gcm16-x25519')] })] });
const some = (names: readonly string[]) =>
  names.map((name, i) =>
    child(name, { selectors: { local: [net(`10.1.${i}.0/24`)], remote: [net(`10.2.${i}.0/24`)] } }),
  );

/** The requests of `host` and of the other side have just been sent: they go their way, and all comes to rest. */
function travel(pair: Pair, wire: Wire, host: Host, way: (typeof WAYS)[number]): void {
  const peer = pair.peer(host);
  if (way !== 'they cross') {
    const [late, other] = way.startsWith('the first') ? [host, peer] : [peer, host];
    const taken = wire.take(late);
    wire.pass(other, late);
    if (way.endsWith('late')) pair.deliver(taken);
  }
  wire.settle();
}

describe('one side rekeys the IKE SA', () => {
  //   host                                 peer
  //   │── rekey IKE ────────────╲   ╱────────│
  //   │◀── REKEY_SA ────────────╱   ╲───────▶│
  //   │── TEMPORARY_FAILURE ────╲   ╱────────│   each is busy with its own
  //   │◀── TEMPORARY_FAILURE ───╱   ╲───────▶│
  //   │   both try again after some seconds, at different times
  it.each(RUNS)('$side, and the other the child, when $way: a busy side is asked again', ({ side, way }) => {
    const pair = established({ a: PFS });
    expectUnbroken(pair);
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    rekeyIke(pair, host);
    pair.act(peer, (endpoint, now) => endpoint.rekeyChild(now, peer.child.id));
    travel(pair, wire, host, way);
    if (way === 'they cross') {
      expect(pair.sent).toHaveLength(4);
      for (const each of [host, peer]) expect([...each.of('child-up'), ...each.of('ike-up')]).toHaveLength(2);
    }
    pair.run(61_000);
    expectSame(pair, 1);
    for (const each of [host, peer]) {
      expect(each.of('child-up')).toHaveLength(2);
      expect(each.of('ike-up')).toHaveLength(2);
      expect(each.of('failed')).toEqual([]);
    }
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── rekey IKE ────────────╲   ╱────────│
  //   │◀── SA, Ni, TSi, TSr ────╱   ╲───────▶│
  //   │── TEMPORARY_FAILURE ────╲   ╱────────│
  //   │◀── TEMPORARY_FAILURE ───╱   ╲───────▶│
  it.each(RUNS)('$side, and the other makes a child, when $way', ({ side, way }) => {
    const pair = new Pair({ a: connection({ children: some(['c', 'd']) }) });
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'c' }));
    pair.run();
    expectUnbroken(pair);
    const host = pair[side];
    const wire = new Wire(pair);
    rekeyIke(pair, host);
    pair.act(pair.peer(host), (endpoint, now) => endpoint.initiate(now, 'net', { child: 'd' }));
    travel(pair, wire, host, way);
    pair.run(61_000);
    expectSame(pair, 2);
    for (const each of [pair.a, pair.b]) {
      expect(each.of('child-up')).toHaveLength(2);
      expect(each.of('ike-up')).toHaveLength(2);
      expect(each.of('failed')).toEqual([]);
    }
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── rekey IKE ────────────╲   ╱────────│
  //   │◀── DELETE of the child ─╱   ╲───────▶│
  //   │── response ─────────────╲   ╱────────│
  //   │◀── TEMPORARY_FAILURE ───╱   ╲───────▶│   it is deleting a CHILD SA
  it.each(RUNS)('$side, and the other deletes the child, when $way', ({ side, way }) => {
    const pair = established();
    const host = pair[side];
    const peer = pair.peer(host);
    const wire = new Wire(pair);
    rekeyIke(pair, host);
    pair.act(peer, (endpoint, now) => endpoint.closeChild(now, peer.child.id));
    travel(pair, wire, host, way);
    pair.run(61_000);
    expectSame(pair, 0);
    for (const each of [host, peer]) {
      expect(each.of('ike-up')).toHaveLength(2);
      expect(each.of('child-down')).toHaveLength(1);
      expect(each.of('failed')).toEqual([]);
    }
    expectClosed(pair);
  });
});

describe('one side deletes the IKE SA', () => {
  const MEANWHILE: Record<string, (pair: Pair, host: Host) => void> = {
    'rekeys the child': (pair, host) => pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, host.child.id)),
    'deletes the child': (pair, host) => pair.act(host, (endpoint, now) => endpoint.closeChild(now, host.child.id)),
    'makes a child': (pair, host) => pair.act(host, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'd' })),
  };

  //   host                                 peer
  //   │── rekeys, deletes, makes╲   ╱────────│
  //   │◀── DELETE of the IKE SA ╱   ╲───────▶│
  //   │── response ────────────▶             │   all is gone here
  //   │            ◀── TEMPORARY_FAILURE ────│   or nothing found: it is going there too
  it.each(Object.keys(MEANWHILE).flatMap((what) => RUNS.map((run) => ({ ...run, what }))))(
    'while $side $what, when $way',
    ({ side, way, what }) => {
      const pair = new Pair({ a: connection({ children: some(['c', 'd']) }) });
      pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'c' }));
      pair.run();
      const host = pair[side];
      const wire = new Wire(pair);
      MEANWHILE[what]!(pair, host);
      pair.act(pair.peer(host), (endpoint, now) => endpoint.closeConnection(now, 'net'));
      travel(pair, wire, host, way);
      pair.run(61_000);
      expectNothing(pair);
      for (const each of [pair.a, pair.b]) {
        expect(each.of('ike-down')).toHaveLength(1);
        expect(each.of('failed')).toEqual([]);
      }
    },
  );
});

//   a                                      b
//   │── rekey IKE, REKEY_SA c, d, e ───────│   one after the other: each side has one request out
//   │─────── rekey IKE, REKEY_SA c, d, e ──│
it.each(sides.flatMap((side) => (['IKE SA', 'CHILD SAs'] as const).map((first) => ({ side, first }))))(
  'everything is rekeyed from both sides at once, the $first of $side first',
  ({ side, first }) => {
    for (let seed = 1; seed <= 5; seed++) {
      const pair = established({ a: connection({ children: some(['c', 'd', 'e']) }), seed }, 3);
      expectUnbroken(pair);
      for (const host of [pair.a, pair.b]) {
        const ikeFirst = (first === 'IKE SA') === (host === pair[side]);
        const { id } = host.ikeSa;
        pair.act(host, (endpoint, now) => {
          if (ikeFirst) endpoint.rekeyIkeSa(now, id);
          for (const childId of host.children.keys()) endpoint.rekeyChild(now, childId);
          if (!ikeFirst) endpoint.rekeyIkeSa(now, id);
        });
      }
      pair.run(90_000);
      expectSame(pair, 3);
      for (const host of [pair.a, pair.b]) {
        expect(host.of('ike-up')).toHaveLength(2);
        expect(host.of('failed')).toEqual([]);
        const replaced = [...host.children.values()].map(({ replaces }) => replaces);
        expect(replaced).not.toContain(undefined);
      }
      expectClosed(pair);
    }
  },
);
