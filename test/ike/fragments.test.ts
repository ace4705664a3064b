/** IKE fragmentation (RFC 7383) between endpoints, and attacks on it. */
import { describe, expect, it } from 'vitest';
import { sealPart } from '../../src/ike/protect/protect.ts';
import { MAX_FRAGMENTS } from '../../src/ike/protect/reassembly.ts';
import { ExchangeType, NotifyType, PayloadType } from '../../src/ike/wire/iana.ts';
import { decodeHeader, decodeMessage, type IkeHeader } from '../../src/ike/wire/message.ts';
import { findNotify } from '../../src/ike/wire/payload.ts';
import { notifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { expectClosed, expectNothing, expectSame } from '../support/ike-expect.ts';
import { FakePeer } from '../support/ike-fake-peer.ts';
import { large, lossySetUp } from '../support/ike-fragmented.ts';
import { connection, type Datagram, mirrored, Pair } from '../support/ike-pair.ts';
import { counting } from './arbitraries.ts';

const { IKE_AUTH, IKE_SA_INIT, INFORMATIONAL } = ExchangeType;
const { IKEV2_FRAGMENTATION_SUPPORTED, INVALID_SYNTAX } = NotifyType;

/** `npm run bench -- fragments` goes through a thousand. */
const SEEDS = 10;

const sides = ['a', 'b'] as const;
/** Bytes of an identity, and the fragments of 576 bytes that IKE_AUTH is in then. */
const SIZES: [bytes: number, fragments: number][] = [
  [0, 1],
  [200, 2],
  [7_000, 30],
];

const partOf = ({ data }: Datagram): ReturnType<typeof decodeMessage>['protectedPart'] =>
  decodeMessage(data).protectedPart;
const totalOf = (datagram: Datagram): number => partOf(datagram)?.fragment?.total ?? 1;
const authsFrom = (pair: Pair, from: unknown): Datagram[] =>
  pair.sent.filter((datagram) => datagram.from === from && decodeHeader(datagram.data).exchange === IKE_AUTH);

describe('a set-up', () => {
  it.each(SIZES)('with identities of %i bytes: IKE_AUTH in %i fragments', (bytes, fragments) => {
    const pair = new Pair({ a: large(bytes, { fragmentSize: 576 }) });
    pair.up();
    expectSame(pair, 1);
    const requests = authsFrom(pair, pair.a);
    expect(requests).toHaveLength(fragments);
    expect(requests.map((datagram) => partOf(datagram)?.fragment?.number ?? 1)).toEqual(requests.map((_, i) => i + 1));
    // 28 bytes of IP and UDP headers, 4 of the non-ESP marker.
    for (const { data } of requests) expect(data.length + 32).toBeLessThanOrEqual(576);
  });

  it('does not fragment what fits, nor ever IKE_SA_INIT', () => {
    const pair = new Pair({ a: large(400) });
    pair.up();
    expect(pair.sent).toHaveLength(4);
    const proposals = new Array(40).fill(connection().proposals[0]);
    const other = new Pair({ a: large(1_000, { proposals, fragmentSize: 576 }) });
    other.up();
    const init = other.sent.filter(({ data }) => decodeHeader(data).exchange === IKE_SA_INIT);
    expect(init).toHaveLength(2);
    expect(init[0]!.data.length).toBeGreaterThan(576);
    expect(other.sent.length).toBeGreaterThan(6);
    expectSame(other, 1);
  });

  it.each([
    ['neither side wants fragments', 0, 0],
    ['the initiator does not', 0, 576],
    ['the responder does not', 576, 0],
  ])('goes in one piece where %s', (_name, a, b) => {
    const pair = new Pair({ a: large(3_000, { fragmentSize: a }), b: mirrored(large(3_000, { fragmentSize: b })) });
    pair.up();
    expectSame(pair, 1);
    expect(pair.sent).toHaveLength(4);
    const says = ({ data }: Datagram): boolean =>
      findNotify(decodeMessage(data).payloads, IKEV2_FRAGMENTATION_SUPPORTED) !== undefined;
    // RFC 7383 §2.3: an answer says it only to a request that did.
    expect(pair.sent.slice(0, 2).map(says)).toEqual([a > 0, false]);
  });

  describe.each(sides)('that %s begins', (side) => {
    //   host                                 peer
    //   │── IKE_AUTH, fragment 2 of 2 ────────▶│
    //   │── IKE_AUTH, fragment 2 of 2 ────────▶│   again
    //   │── IKE_AUTH, fragment 1 of 2 ────────▶│
    it.each(SIZES)('with identities of %i bytes, %i fragments in the wrong order and twice', (bytes, fragments) => {
      const pair = new Pair({ a: large(bytes, { fragmentSize: 576 }) });
      const host = pair[side];
      pair.delay = () => 5 + pair.random.below(400);
      pair.copies = () => 2;
      pair.up(host);
      // The second IKE_SA_INIT may have come so late that it opened another, which is forgotten.
      pair.run(35_000);
      expectSame(pair, 1);
      expect(authsFrom(pair, host).map(totalOf)).toContain(fragments);
      for (const each of [pair.a, pair.b]) expect([...each.of('ike-up'), ...each.of('child-up')]).toHaveLength(2);
      expectClosed(pair);
    });

    //   host                                 peer
    //   │── IKE_AUTH, fragment 1 of 2 ────────▶│
    //   │── IKE_AUTH, fragment 2 of 2 ──✕      │
    //   │── IKE_AUTH, all fragments ──────────▶│   retransmitted; of the answer one is lost, too
    it.each(
      SIZES.flatMap(([bytes, fragments]) => (['first', 'last'] as const).map((lost) => ({ bytes, fragments, lost }))),
    )(
      'in $fragments fragments, of which the $lost is lost once in each direction: all are sent again, byte for byte',
      ({ bytes, lost }) => {
        const pair = new Pair({ a: large(bytes, { fragmentSize: 576 }) });
        const host = pair[side];
        const dropped = new Set<unknown>();
        pair.filter = (datagram) => {
          if (decodeHeader(datagram.data).exchange !== IKE_AUTH || dropped.has(datagram.from)) return 'deliver';
          const { number, total } = partOf(datagram)?.fragment ?? { number: 1, total: 1 };
          if (number !== (lost === 'first' ? 1 : total)) return 'deliver';
          dropped.add(datagram.from);
          return 'drop';
        };
        pair.up(host);
        pair.run(10_000);
        expectSame(pair, 1);
        expect(dropped.size).toBe(2);
        const times = new Map<string, number>();
        for (const { data } of authsFrom(pair, host)) times.set(data.join(), (times.get(data.join()) ?? 0) + 1);
        // The first loss is mended by the second set, that of the answer by the third.
        expect(new Set(times.values())).toEqual(new Set([3]));
        for (const each of [pair.a, pair.b]) expect([...each.of('ike-up'), ...each.of('child-up')]).toHaveLength(2);
        expectClosed(pair);
      },
    );
  });

  it.each([3, 8, 30])('in some %i fragments completes when one datagram in ten is lost, whatever the seed', (count) => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const pair = lossySetUp(seed, count, 0.1);
      expect(pair.a.of('failed'), `seed ${seed}`).toEqual([]);
      expectSame(pair, 1);
    }
  });

  it('over a path with a smaller MTU: in more and smaller fragments, in both directions', () => {
    const pair = new Pair({ a: large(2_000, { fragmentSize: 9_000 }) });
    pair.filter = ({ data }) => (data.length > 600 ? 'drop' : 'deliver');
    pair.up();
    pair.run(60_000);
    expectSame(pair, 1);
    const totals = (from: unknown): number[] => [...new Set(authsFrom(pair, from).map(totalOf))];
    expect(totals(pair.a)).toEqual([1, 4, 9]);
    // The answer is made as small as the request that came through, at once, and so is all that follows.
    expect(totals(pair.b)).toEqual([5]);
    const before = pair.sent.length;
    const { children } = connection();
    const proposals = new Array(60).fill(children[0]!.proposals[0]);
    const config = large(2_000, { fragmentSize: 9_000, children: [{ ...children[0]!, proposals }] });
    pair.a.endpoint.replaceConnection(config);
    pair.b.endpoint.replaceConnection(mirrored(config));
    pair.act(pair.a, (endpoint, now) => endpoint.closeChild(now, pair.a.child.id));
    pair.run();
    pair.up();
    expectSame(pair, 1);
    expect(Math.max(...pair.sent.slice(before).map(totalOf))).toBeGreaterThan(2);
    expect(pair.a.endpoint.counters().retransmissions).toBe(4);
  });

  it('is followed by exchanges in fragments, also on the IKE SA that replaces it', () => {
    const [config] = connection().children;
    const children = [{ ...config!, proposals: new Array(60).fill(config!.proposals[0]) }];
    const pair = new Pair({ a: connection({ fragmentSize: 576, children }) });
    pair.up();
    pair.act(pair.a, (endpoint, now) => endpoint.rekeyIkeSa(now, pair.a.ikeSa.id));
    pair.run();
    const before = pair.sent.length;
    pair.act(pair.b, (endpoint, now) => endpoint.rekeyChild(now, pair.b.child.id));
    pair.run();
    expectSame(pair, 1);
    expect(Math.max(...pair.sent.slice(before).map(totalOf))).toBeGreaterThan(2);
  });

  it('whose fragments never all come leaves nothing', () => {
    const pair = new Pair({ a: large(2_000, { fragmentSize: 576 }) });
    pair.filter = (datagram) => (partOf(datagram)?.fragment?.number === 3 ? 'drop' : 'deliver');
    pair.up();
    pair.run(200_000);
    expectNothing(pair);
    expect(pair.a.of('failed')).toMatchObject([{ reason: 'timeout' }]);
  });
});

describe('the answer to a request in fragments', () => {
  const comeUp = (): Pair => {
    const pair = new Pair({ a: large(2_000, { fragmentSize: 576 }) });
    pair.up();
    return pair;
  };

  it('goes out again for the first fragment alone, from the cache (RFC 7383 §2.6.1)', () => {
    const pair = comeUp();
    const answer = authsFrom(pair, pair.b).map(({ data }) => data);
    const [first, ...others] = authsFrom(pair, pair.a);
    pair.now += 1_000;
    const before = pair.sent.length;
    for (const datagram of others) pair.deliver(datagram);
    expect(pair.sent.length).toBe(before);
    pair.deliver(first!);
    expect(pair.sent.slice(before).map(({ data }) => data)).toEqual(answer);
    expectSame(pair, 1);
  });

  it('does not go out more than four times a second: one datagram would call forth dozens', () => {
    const pair = comeUp();
    const [first] = authsFrom(pair, pair.a);
    const before = pair.sent.length;
    for (let i = 0; i < 100; i++) {
      pair.now += 10;
      pair.deliver(first!);
    }
    expect(pair.sent.length - before).toBeGreaterThan(0);
    expect(pair.sent.length - before).toBeLessThanOrEqual(4 * totalOf(pair.sent.at(-1)!));
    expect(pair.b.endpoint.counters()['rate-limited']).toBeGreaterThan(90);
  });

  it('does not go out for a forged first fragment', () => {
    const pair = comeUp();
    const [first] = authsFrom(pair, pair.a);
    pair.now += 1_000;
    const before = pair.sent.length;
    for (const at of [35, 40, first!.data.length - 1]) {
      const data = first!.data.slice();
      data[at] = data[at]! ^ 1;
      pair.deliver({ ...first!, data });
    }
    expect(pair.sent.length).toBe(before);
    expect(pair.b.endpoint.counters()['old-message-id']).toBe(3);
  });
});

/** An endpoint that waits for IKE_AUTH, and a peer that seals whatever it likes. */
class Trickster {
  readonly peer: FakePeer = new FakePeer();
  #counter = 1_000;

  constructor(announces = true) {
    const notifies = announces ? [notifyPayload(IKEV2_FRAGMENTATION_SUPPORTED)] : [];
    this.peer.init((payloads) => [...payloads, ...notifies]);
  }

  seal(
    number: number,
    total: number,
    content: Uint8Array = counting(100),
    change: Partial<IkeHeader> = {},
  ): Uint8Array {
    const { initiatorSpi, spi: responderSpi, crypto } = this.peer;
    const header = { initiatorSpi, responderSpi, exchange: IKE_AUTH, initiator: true, response: false, messageId: 1 };
    const place = { number, total };
    return sealPart(
      { ...header, ...change },
      { firstPayload: PayloadType.IDi, content, place },
      crypto.outbound,
      this.#counter++,
    );
  }

  /** … and nothing comes back. */
  sendInVain(...sealed: Uint8Array[]): void {
    for (const data of sealed) expect(this.peer.send(data)).toEqual([]);
  }

  count(name: keyof ReturnType<FakePeer['host']['endpoint']['counters']>): number {
    return this.peer.host.endpoint.counters()[name];
  }

  comesUp(): void {
    expect(this.peer.request(IKE_AUTH, this.peer.authPayloads())).toBeDefined();
    expect(this.peer.host.ikeSas.size).toBe(1);
  }
}

describe('fragments of a peer that plays tricks', () => {
  it.each([
    ['number 0', 0, 3, 'malformed-bad-value'],
    ['a number above the total', 4, 3, 'malformed-bad-value'],
    ['a total of 0', 1, 0, 'malformed-bad-value'],
    ['a total of 65,535', 1, 0xffff, 'fragment-refused'],
  ] as const)('with %s: counted, not answered, not kept', (_name, number, total, counter) => {
    const trickster = new Trickster();
    trickster.sendInVain(trickster.seal(number, total));
    expect(trickster.count(counter)).toBe(1);
    trickster.comesUp();
  });

  it('with two totals at once: the larger replaces the smaller, which does not come back', () => {
    const trickster = new Trickster();
    for (const [number, total] of [
      [1, 2],
      [1, 3],
      [2, 2],
      [2, 3],
      [1, 2],
    ] as const) {
      trickster.sendInVain(trickster.seal(number, total));
    }
    expect(trickster.count('fragment-ignored')).toBe(2);
    trickster.comesUp();
  });

  it('of two exchanges with one message ID: the other is refused', () => {
    const trickster = new Trickster();
    trickster.comesUp();
    const header = { exchange: INFORMATIONAL, messageId: 2 };
    trickster.sendInVain(trickster.seal(1, 2, new Uint8Array(0), header));
    trickster.sendInVain(
      trickster.seal(2, 2, new Uint8Array(0), { ...header, exchange: ExchangeType.CREATE_CHILD_SA }),
    );
    expect(trickster.count('fragment-refused')).toBe(1);
  });

  it('that are nonsense together: refused as a message in one piece is, and the answer is cached', () => {
    const trickster = new Trickster();
    const first = trickster.seal(1, 2);
    trickster.sendInVain(first);
    const [answer] = trickster.peer.send(trickster.seal(2, 2));
    expect(trickster.peer.open(answer!).payloads).toMatchObject([{ notify: INVALID_SYNTAX }]);
    expect(trickster.peer.send(first)).toEqual([answer]);
  });

  it('with nothing in them, as many as there may be: a message that is not valid', () => {
    const trickster = new Trickster();
    const nothing = new Uint8Array(0);
    for (let number = 1; number < MAX_FRAGMENTS; number++) {
      trickster.sendInVain(trickster.seal(number, MAX_FRAGMENTS, nothing));
    }
    const [answer] = trickster.peer.send(trickster.seal(MAX_FRAGMENTS, MAX_FRAGMENTS, nothing));
    expect(trickster.peer.open(answer!).payloads).toMatchObject([{ notify: INVALID_SYNTAX }]);
  });

  it('beyond 256 KiB: all are dropped, and another message is served', () => {
    const trickster = new Trickster();
    for (let number = 2; number <= 6; number++) {
      trickster.sendInVain(trickster.seal(number, 10, new Uint8Array(60_000)));
    }
    expect(trickster.count('fragment-refused')).toBe(1);
    trickster.comesUp();
  });

  it('that never become whole are forgotten after a minute', () => {
    const trickster = new Trickster();
    const { peer } = trickster;
    trickster.comesUp();
    trickster.sendInVain(trickster.seal(1, 2, new Uint8Array(0), { exchange: INFORMATIONAL, messageId: 2 }));
    peer.wait(59_000);
    expect(trickster.count('fragments-expired')).toBe(0);
    peer.wait(2_000);
    expect(trickster.count('fragments-expired')).toBe(1);
    expect(peer.request(INFORMATIONAL, [])).toEqual([]);
  });

  it('that it did not say it would send are refused', () => {
    const trickster = new Trickster(false);
    trickster.sendInVain(trickster.seal(1, 1));
    expect(trickster.count('fragment-refused')).toBe(1);
    trickster.comesUp();
  });
});

describe('fragments of another host', () => {
  it('forged, before each true one: nothing of them is kept, and the message comes together', () => {
    const pair = new Pair({ a: large(2_000, { fragmentSize: 576 }) });
    pair.filter = (datagram) => {
      if (partOf(datagram)?.fragment === undefined) return 'deliver';
      const forged = (change: (data: Uint8Array) => unknown): void => {
        const data = datagram.data.slice();
        change(data);
        datagram.to.endpoint.handleDatagram(pair.now, datagram.path, data);
      };
      forged((data) => data.fill(0, 60));
      // A larger total, one that is too large, another number.
      forged((data) => data.set([0, 200], 34));
      forged((data) => data.set([255, 255], 34));
      forged((data) => data.set([0, 4], 32));
      return 'deliver';
    };
    pair.up();
    expectSame(pair, 1);
    expect(pair.a.endpoint.counters().retransmissions).toBe(0);
    expect(pair.b.endpoint.counters()['bad-sk']).toBeGreaterThan(10);
  });

  //   host                                 peer
  //   │── fragments of request n ───────────▶│   all of them once more, as anybody can who has seen them
  it.each(sides)('of the past, as %s sent and received them: nothing is kept, nothing happens', (side) => {
    const pair = new Pair({ a: large(2_000, { fragmentSize: 576 }) });
    const host = pair[side];
    pair.up(host);
    pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, host.child.id));
    pair.run();
    const events = [pair.a.events.length, pair.b.events.length];
    const past = pair.sent.filter(({ data }) => decodeHeader(data).exchange !== IKE_SA_INIT);
    for (const { to, path, data } of past) to.endpoint.handleDatagram(pair.now, path, data.slice());
    expect([pair.a.events.length, pair.b.events.length]).toEqual(events);
    expectSame(pair, 1);
    expectClosed(pair);
  });
});

it.each([1, 575, 65_536, Number.NaN])('fragments of %d bytes are refused, with what is wanted', (fragmentSize) => {
  expect(() => new Pair({ a: connection({ fragmentSize }) })).toThrow(/576 to 65535 is required/);
});
