/** Liveness, lifetimes, restarts, duplicates, and peers that are gone (RFC 7296 §2.4, §2.8). */
import { describe, expect, it } from 'vitest';
import { parseAddress } from '../../src/base/address.ts';
import { utf8 } from '../../src/base/text.ts';
import { expectClosed, expectNothing, expectSame } from '../support/ike-expect.ts';
import { child, connection, mirrored, net, Pair, Wire } from '../support/ike-pair.ts';
import { sealing } from '../support/ike-tamper.ts';

const sides = ['a', 'b'] as const;
const WATCHFUL = connection({ dpd: { interval: 10_000 } });

function established(options: ConstructorParameters<typeof Pair>[0] = {}): Pair {
  const pair = new Pair(options);
  pair.up();
  expectSame(pair, 1);
  pair.sent.length = 0;
  return pair;
}

describe('liveness checks', () => {
  it('ask a silent peer, and no other', () => {
    const pair = established({ a: WATCHFUL, b: mirrored(connection()) });
    pair.run(9_000);
    expect(pair.sent).toHaveLength(0);
    pair.run(2_000);
    expect(pair.sent).toHaveLength(2);
    for (let i = 0; i < 20; i++) {
      pair.run(5_000);
      pair.act(pair.a, (endpoint, now) => endpoint.childReceived(now, pair.a.child.spiIn));
    }
    expect(pair.sent).toHaveLength(2);
    pair.run(60_000);
    expect(pair.sent.length).toBeGreaterThan(8);
    expectSame(pair, 1);
  });

  it('wake their owner once an interval, and not at all for requests that were answered', () => {
    const quiet = connection({ dpd: { interval: 10_000 }, nat: { mode: 'auto', keepalive: 0 } });
    const pair = established({ a: quiet, b: mirrored(connection()) });
    for (let wakes = 1; wakes <= 10; wakes++) {
      pair.runUntil(pair.a.endpoint.nextTimeout()!);
      expect(pair.sent.filter(({ from }) => from === pair.a)).toHaveLength(wakes);
      pair.run(25);
    }
  });

  it('find out that the peer is gone', () => {
    const pair = established({ a: WATCHFUL, b: mirrored(connection()) });
    pair.filter = () => 'drop';
    pair.run(200_000);
    expect(pair.a.of('ike-down')).toMatchObject([{ reason: 'peer-dead' }]);
    expect(pair.a.of('child-down')).toMatchObject([{ reason: 'ike-down' }]);
    expect(pair.a.endpoint.status()).toEqual([]);
    expect(pair.a.endpoint.nextTimeout()).toBeUndefined();
  });

  it('come at once when they are asked for, and find a dead peer in seconds', () => {
    const pair = established();
    pair.act(pair.a, (endpoint, now) => endpoint.probe(now));
    pair.run(1_000);
    expect(pair.sent).toHaveLength(2);
    pair.filter = () => 'drop';
    pair.act(pair.a, (endpoint, now) => endpoint.probe(now));
    pair.run(10_000);
    expect(pair.a.of('ike-down')).toMatchObject([{ reason: 'peer-dead', detail: 'no answer for 7 s' }]);
  });

  it('leave a peer that only calls us its full time', () => {
    const anywhere = mirrored(connection());
    const pair = established({ b: { ...anywhere, remote: { ...anywhere.remote, address: undefined } } });
    pair.filter = () => 'drop';
    pair.act(pair.b, (endpoint, now) => endpoint.probe(now));
    pair.run(60_000);
    expect(pair.b.of('ike-down')).toEqual([]);
    pair.run(60_000);
    expect(pair.b.of('ike-down')).toMatchObject([{ reason: 'peer-dead' }]);
  });

  it('send a request that is out again at once, and from then on as if it were new', () => {
    const pair = established();
    pair.filter = () => 'drop';
    pair.act(pair.a, (endpoint, now) => endpoint.rekeyChild(now, pair.a.child.id));
    pair.run(60_000);
    const before = pair.now;
    const times: number[] = [];
    pair.filter = () => {
      times.push(pair.now - before);
      return 'drop';
    };
    pair.act(pair.a, (endpoint, now) => endpoint.probe(now));
    pair.run(6_900);
    expect(times).toEqual([0, 1_000, 3_000]);
    expect(pair.a.of('ike-down')).toEqual([]);
  });

  it('give up a peer in seconds that restarted: it says that it does not know the IKE SA, and answers nothing else', () => {
    const pair = established();
    pair.b.restart(mirrored(connection()));
    pair.act(pair.a, (endpoint, now) => endpoint.probe(now));
    pair.run(20_000);
    expect(pair.a.of('ike-down')).toMatchObject([{ reason: 'peer-dead', detail: 'no answer for 7 s' }]);
    expect(pair.sent.filter(({ from }) => from === pair.a)).toHaveLength(3);
  });

  it('believe a peer that answers, whatever unauthenticated messages claim meanwhile', () => {
    const pair = established();
    const stranger = new Pair({ seed: 2 }).b.endpoint;
    let lost = 0;
    pair.filter = ({ from, path, data }) => {
      if (from !== pair.a) return 'deliver';
      stranger.handleDatagram(pair.now, path, data);
      const hint = stranger.pollTransmit()!;
      pair.deliver({ from: pair.b, to: pair.a, path: { local: path.remote, remote: path.local }, data: hint.data });
      return lost++ < 2 ? 'drop' : 'deliver';
    };
    pair.act(pair.a, (endpoint, now) => endpoint.probe(now));
    pair.run(60_000);
    expect(pair.a.endpoint.counters()['unauthenticated-notify']).toBe(3);
    expectSame(pair, 1);
  });

  it('wait longer after each try', () => {
    const pair = established({ a: WATCHFUL, b: mirrored(connection()) });
    const times: number[] = [];
    pair.filter = () => {
      times.push(pair.now);
      return 'drop';
    };
    pair.run(200_000);
    expect(times.slice(1).map((time, i) => time - times[i]!)).toEqual([
      1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000,
    ]);
    expect(new Set(pair.sent.map(({ data }) => data.join())).size).toBe(1);
  });
});

describe('children by lifetime', () => {
  const lifetime = { soft: 20_000, hard: 30_000, jitter: 5_000 };
  const config = connection({ children: [child('c', { lifetime })] });

  it('are rekeyed in time, for ever, though both sides have the same lifetimes', () => {
    for (let seed = 1; seed <= 5; seed++) {
      const pair = established({ a: config, seed });
      pair.run(400_500);
      const rekeyed = pair.a.of('child-up').length;
      expect(rekeyed).toBeGreaterThan(18);
      expect(rekeyed).toBeLessThan(40);
      for (const host of [pair.a, pair.b]) {
        expect(new Set(host.of('child-down').map((event) => event.reason))).toEqual(new Set(['rekeyed']));
      }
    }
  });

  it('expire when they cannot be rekeyed', () => {
    const pair = established({ a: config });
    pair.filter = () => 'drop';
    pair.run(31_000);
    for (const host of [pair.a, pair.b]) expect(host.of('child-down')).toMatchObject([{ reason: 'expired' }]);
  });
});

describe.each(['a', 'b'] as const)('%s restarts, with the same address', (side) => {
  //   host                                 peer
  //   │  loses everything                    │   has the old IKE SA
  //   │── IKE_SA_INIT ──────────────────────▶│
  //   │── IKE_AUTH: … N(INITIAL_CONTACT) ───▶│   and now the new one alone
  it.each(sides)('and says INITIAL_CONTACT: the old IKE SA goes, which %s had begun', (before) => {
    const pair = new Pair();
    pair.up(pair[before]);
    const host = pair[side];
    const peer = pair.peer(host);
    host.restart(side === 'a' ? connection() : mirrored(connection()));
    pair.up(host);
    expectSame(pair, 1);
    expect(peer.of('ike-down')).toMatchObject([{ reason: 'peer-restarted' }]);
    expect(peer.of('child-down')).toMatchObject([{ reason: 'ike-down' }]);
    expect(peer.of('ike-up')).toHaveLength(2);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │  loses everything                    │
  //   │◀──────────────────── CREATE_CHILD_SA │   on the old IKE SA
  //   │── INVALID_IKE_SPI ──────────────────▶│   not authentic: a hint. The peer asks some times more, and gives up
  //   │◀──────────────────────── IKE_SA_INIT │   its owner calls again
  it('and is called: the peer gives up the old IKE SA in seconds, and a new one comes up', () => {
    const pair = new Pair();
    pair.up();
    const host = pair[side];
    const peer = pair.peer(host);
    host.restart(side === 'a' ? connection() : mirrored(connection()));
    pair.act(peer, (endpoint, now) => endpoint.rekeyChild(now, peer.child.id));
    const began = pair.now;
    while (peer.ikeSas.size > 0) pair.run(100);
    expect(pair.now - began).toBeLessThan(15_000);
    expect(peer.of('ike-down')).toMatchObject([{ reason: 'peer-dead' }]);
    pair.up(peer);
    expectSame(pair, 1);
    expectClosed(pair);
  });
});

describe('two connections between the same two', () => {
  const second = connection({
    name: 'second',
    children: [child('d', { selectors: { local: [net('10.3.0.0/24')], remote: [net('10.4.0.0/24')] } })],
  });
  const both = [connection(), { ...second, proposals: [...second.proposals] }];

  // As of hosts that have both IP versions.
  const elsewhere = both.map((config) =>
    config.name === 'net'
      ? config
      : {
          ...config,
          local: { ...config.local, address: parseAddress('2001:db8::1')! },
          remote: { ...config.remote, address: parseAddress('2001:db8::2')! },
        },
  );

  it.each([
    ['at one address', both],
    ['at several', elsewhere],
  ])('brought up at once or one after the other, both stay: %s', (_where, a) => {
    for (const wait of [0, 15, 30, 500]) {
      const pair = new Pair({ a });
      for (const name of ['net', 'second']) {
        pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, name));
        pair.run(wait);
      }
      pair.run(5_000);
      expectSame(pair, 2, 2);
      for (const host of [pair.a, pair.b]) expect(host.of('ike-down')).toEqual([]);
    }
  });
});

describe('two initiators at once', () => {
  //   a                                      b
  //   │── IKE_SA_INIT ─────────────╲   ╱─────│
  //   │◀── IKE_SA_INIT ────────────╱   ╲────▶│
  //   │   each goes on with both: two IKE SAs, each with the child
  //   │   a second later the one whose initiator has the lower SPI goes, deleted by that side alone
  it.each([
    ['crossing from the start', 0],
    ['crossing in IKE_AUTH', 1],
  ])('%s: one IKE SA is left, with all children, and no loop', (_how, rounds) => {
    const kept = new Set<boolean>();
    for (let seed = 1; seed <= 20; seed++) {
      const pair = new Pair({ seed });
      const wire = new Wire(pair);
      for (const host of [pair.a, pair.b]) pair.act(host, (endpoint, now) => endpoint.initiate(now, 'net'));
      for (let i = 0; i < rounds; i++) wire.pass(pair.a, pair.b, pair.a, pair.b);
      wire.settle();
      expect(pair.a.ikeSas.size).toBeGreaterThanOrEqual(1);
      pair.run(3_000);
      expectSame(pair, 1);
      kept.add(pair.a.ikeSa.initiator);
      const sent = pair.sent.length;
      pair.run(100_000);
      expect(pair.sent).toHaveLength(sent);
      expectSame(pair, 1);
      for (const host of [pair.a, pair.b]) {
        expect(host.of('ike-up').length - host.of('ike-down').length).toBe(1);
        expect(host.of('failed')).toEqual([]);
      }
      expectClosed(pair);
    }
    expect(kept.size).toBe(2);
  });

  it('one is far ahead: the later one joins it', () => {
    const pair = new Pair();
    const wire = new Wire(pair);
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    pair.act(pair.b, (endpoint, now) => endpoint.initiate(now, 'net'));
    const late = wire.take(pair.b);
    wire.settle();
    pair.deliver(late);
    pair.run(31_000);
    expectSame(pair, 1);
  });

  it('each wants another child: the one that is left has both', () => {
    const children = ['c', 'd'].map((name, i) =>
      child(name, { selectors: { local: [net(`10.1.${i}.0/24`)], remote: [net(`10.2.${i}.0/24`)] } }),
    );
    for (let seed = 1; seed <= 6; seed++) {
      const pair = new Pair({ seed, a: connection({ children }) });
      pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'c' }));
      pair.act(pair.b, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'd' }));
      pair.run(5_000);
      expectSame(pair, 2);
    }
  });
});

describe('closing', () => {
  it('a connection that is only coming up', () => {
    const pair = new Pair();
    pair.filter = () => 'drop';
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    pair.act(pair.a, (endpoint, now) => endpoint.closeConnection(now, 'net'));
    expectNothing(pair);
    expect(pair.a.of('failed')).toEqual([]);
  });

  it.each([
    ['before the request arrives', 1],
    ['before the answer arrives', 2],
  ])('a connection whose IKE_AUTH is out, %s: the peer keeps no ghost', (_when, passed) => {
    const pair = new Pair();
    const wire = new Wire(pair);
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    wire.pass(pair.a, pair.b);
    if (passed === 2) wire.pass(pair.a);
    expect(pair.a.endpoint.status()).toMatchObject([{ state: 'auth-sent' }]);
    pair.act(pair.a, (endpoint, now) => endpoint.closeConnection(now, 'net'));
    wire.settle();
    pair.run(20_000);
    expectNothing(pair);
    expect(pair.b.of('ike-down')).toMatchObject([{ reason: 'deleted-by-peer' }]);
    expect(pair.a.of('ike-up')).toEqual([]);
    expect(pair.a.of('failed')).toEqual([]);
  });

  it('a connection whose IKE_AUTH is refused meanwhile sends no delete', () => {
    const pair = new Pair();
    pair.b.secret = 'another';
    const wire = new Wire(pair);
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    wire.pass(pair.a, pair.b, pair.a);
    pair.act(pair.a, (endpoint, now) => endpoint.closeConnection(now, 'net'));
    wire.pass(pair.b);
    expect(wire.waiting(pair.a)).toBe(0);
    pair.run(20_000);
    expectNothing(pair);
  });

  it('a connection whose IKE_AUTH is not answered ends in time', () => {
    const pair = new Pair();
    const wire = new Wire(pair);
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    wire.pass(pair.a, pair.b);
    pair.filter = () => 'drop';
    pair.act(pair.a, (endpoint, now) => endpoint.closeConnection(now, 'net'));
    pair.run(100_000);
    expectNothing(pair);
    const told = pair.a.events.map(({ type }) => type);
    expect(told).toEqual(['need-secret', 'child-offered']);
  });

  it('a connection for good', () => {
    const pair = established();
    pair.act(pair.a, (endpoint, now) => endpoint.removeConnection(now, 'net'));
    pair.run(20_000);
    expectNothing(pair);
    expect(() => pair.a.endpoint.initiate(pair.now, 'net')).toThrow('no connection net');
  });

  it('while the peer is gone ends in time', () => {
    const pair = established();
    pair.filter = () => 'drop';
    pair.act(pair.a, (endpoint, now) => endpoint.closeConnection(now, 'net'));
    pair.run(100_000);
    expect(pair.a.endpoint.status()).toEqual([]);
    expect(pair.a.of('ike-down')).toHaveLength(1);
  });
});

describe('a mistake of ours', () => {
  it('when time passes ends the IKE SA that it hits, is counted and reported, and does not recur', () => {
    let broken = false;
    const crypto = sealing(() => {
      if (broken) throw new Error('a test breaks it');
    });
    const pair = established({ a: WATCHFUL, b: mirrored(connection()), aOptions: { crypto } });
    broken = true;
    pair.run(60_000);
    expect(pair.a.endpoint.counters().bug).toBe(1);
    expect(pair.a.of('note').at(-1)).toMatchObject({ level: 'warn' });
    expect(pair.a.of('ike-down')).toMatchObject([{ reason: 'failed' }]);
    expect(pair.a.endpoint.status()).toEqual([]);
    expect(pair.a.endpoint.nextTimeout()).toBeUndefined();
  });

  it('when a secret comes ends the one set-up', () => {
    const crypto = sealing(() => {
      throw new Error('a test breaks it');
    });
    const pair = new Pair({ bOptions: { crypto } });
    pair.up();
    expect(pair.b.endpoint.counters().bug).toBe(1);
    expect(pair.b.endpoint.status()).toEqual([]);
    expect(pair.b.ikeSas.size).toBe(0);
  });
});

describe('secrets and keys', () => {
  it('are in no event but the one that gives keys to ESP', () => {
    const pair = established();
    const secret = utf8('a secret').join();
    for (const host of [pair.a, pair.b]) {
      for (const event of host.events.filter(({ type }) => type !== 'child-up')) {
        const text = JSON.stringify(event, (_key, value: unknown) =>
          typeof value === 'bigint' ? value.toString() : value instanceof Uint8Array ? value.join() : value,
        );
        expect(text).not.toContain(secret);
        expect(text).not.toContain('a secret');
      }
    }
  });
});
