/** Message IDs between endpoints: a window of one in each direction, whatever is repeated, lost or late (RFC 7296 §2.1–§2.3). */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { writeU32 } from '../../src/base/bytes.ts';
import { MessageWindow } from '../../src/ike/session/window.ts';
import { decodeHeader } from '../../src/ike/wire/message.ts';
import { expectClosed, expectNothing, expectSame, expectUnbroken } from '../support/ike-expect.ts';
import { type Datagram, type Host, Pair, Wire } from '../support/ike-pair.ts';
import { established, expectRekeyed, idsOf, rekeyIke } from '../support/ike-tunnel.ts';

const sides = ['a', 'b'] as const;

function rekeyChild(pair: Pair, host: Host): void {
  const { id } = host.child;
  pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, id));
}

const headerOf = ({ data }: Datagram): ReturnType<typeof decodeHeader> => decodeHeader(data);

afterEach(() => {
  vi.restoreAllMocks();
});

describe.each(sides)('messages of exchanges that %s begins', (side) => {
  //   host                                 peer
  //   │── request n ────────────────────────▶│
  //   │── request n ────────────────────────▶│   again
  //   │◀───────────────────────── response n │
  //   │◀───────────────────────── response n │   the same bytes, from the cache; ignored
  it('all twice: the same bytes come back, and nothing else happens', () => {
    const pair = new Pair();
    const host = pair[side];
    const peer = pair.peer(host);
    pair.copies = () => 2;
    pair.up(host);
    rekeyChild(pair, host);
    pair.run();
    expectSame(pair, 1);
    for (const each of [host, peer]) expect(each.of('child-up')).toHaveLength(2);
    const answers = pair.sent.filter((datagram) => datagram.from === peer).map(({ data }) => data.join());
    expect(answers).toHaveLength(8);
    expect(new Set(answers).size).toBe(4);
    expect(host.endpoint.counters()['unexpected-response']).toBe(12);
    expect(peer.endpoint.counters()['replayed-request']).toBe(4);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── request ───✕                       │   or
  //   │                     ✕────── response │
  //   │── request, retransmitted ───────────▶│   once, and answered from the cache where it was answered before
  //   │◀─────────────────────────── response │
  it.each([0, 1, 2, 3])('message %i of the set-up is lost once', (lost) => {
    const pair = new Pair();
    let count = 0;
    pair.filter = () => (count++ === lost ? 'drop' : 'deliver');
    pair.up(pair[side]);
    pair.run(1_500);
    expectSame(pair, 1);
    expect(pair[side].endpoint.counters().retransmissions).toBe(1);
    for (const each of [pair.a, pair.b]) expect([...each.of('ike-up'), ...each.of('child-up')]).toHaveLength(2);
    expectClosed(pair);
  });

  it.each([0, 1, 2, 3])('message %i of the rekeying of a CHILD SA is lost once', (lost) => {
    const pair = established();
    expectUnbroken(pair);
    let count = 0;
    pair.filter = () => (count++ === lost ? 'drop' : 'deliver');
    rekeyChild(pair, pair[side]);
    pair.run(1_500);
    expectSame(pair, 1);
    expect(pair[side].endpoint.counters().retransmissions).toBe(1);
    for (const each of [pair.a, pair.b]) {
      expect(each.of('child-up')).toHaveLength(2);
      expect(each.of('child-down')).toHaveLength(1);
    }
    expectClosed(pair);
  });

  it.each([0, 1, 2, 3])('message %i of the rekeying of the IKE SA is lost once', (lost) => {
    const pair = established();
    expectUnbroken(pair);
    const old = idsOf(pair);
    let count = 0;
    pair.filter = () => (count++ === lost ? 'drop' : 'deliver');
    rekeyIke(pair, pair[side]);
    pair.run(1_500);
    expect(pair[side].endpoint.counters().retransmissions).toBe(1);
    expectRekeyed(pair, old);
  });

  it('all of the past once more: nothing changes', () => {
    const pair = new Pair();
    pair.up(pair[side]);
    for (let i = 0; i < 3; i++) {
      rekeyChild(pair, i === 1 ? pair.peer(pair[side]) : pair[side]);
      pair.run();
    }
    rekeyIke(pair, pair[side]);
    pair.run();
    expectSame(pair, 1);
    const before = { a: pair.a.events.length, b: pair.b.events.length };
    for (const datagram of [...pair.sent]) pair.deliver(datagram);
    expect({ a: pair.a.events.length, b: pair.b.events.length }).toEqual(before);
    pair.run(60_000);
    expectSame(pair, 1);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │◀──────────────── response 2147483647 │   nothing was asked
  it('a response to nothing: it is counted, whatever its message ID', () => {
    const pair = established();
    const host = pair[side];
    rekeyChild(pair, host);
    pair.run();
    const response = pair.sent.findLast((datagram) => datagram.from !== host && headerOf(datagram).response)!;
    const before = { events: host.events.length, sent: pair.sent.length };
    const next = headerOf(response).messageId + 1;
    const ids = [0, next, 0x7fffffff, 0xffffffff];
    for (const id of ids) {
      const data = response.data.slice();
      writeU32(data, 20, id);
      pair.deliver({ ...response, data });
    }
    expect(host.endpoint.counters()['unexpected-response']).toBe(ids.length);
    expect({ events: host.events.length, sent: pair.sent.length }).toEqual(before);
    // Nor is it kept for a request with this message ID.
    rekeyChild(pair, host);
    pair.run();
    expectSame(pair, 1);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── request n ────────────────────────▶│   the next waits until this is answered
  //   │◀───────────────────────── response n │
  //   │── request n + 1 ────────────────────▶│
  it('are one after the other: the next request goes out when the last is answered', () => {
    const pair = established();
    const host = pair[side];
    const wire = new Wire(pair);
    const [{ id: ikeSaId }, { id: childId }] = [host.ikeSa, host.child];
    pair.act(host, (endpoint, now) => {
      endpoint.rekeyChild(now, childId);
      endpoint.rekeyIkeSa(now, ikeSaId);
      endpoint.rekeyChild(now, childId);
    });
    const ids = new Set<string>();
    while (wire.waiting(host) > 0) {
      // Sent again it is the same, byte for byte, and on its IKE SA there is no other.
      pair.run(1_200);
      const out = pair.held.filter(({ from }) => from === host);
      const ikeSas = new Set(out.map((datagram) => headerOf(datagram).initiatorSpi));
      const distinct = new Map(out.map((datagram) => [datagram.data.join(), datagram]));
      expect(distinct.size).toBe(ikeSas.size);
      for (const datagram of out) ids.add(`${headerOf(datagram).initiatorSpi} ${headerOf(datagram).messageId}`);
      pair.held.splice(0, pair.held.length, ...distinct.values());
      wire.pass(host);
      wire.pass(pair.peer(host));
    }
    // The rekeying of the child and of the IKE SA, each with its delete.
    expect(ids.size).toBe(4);
    expect(host.endpoint.counters().retransmissions).toBeGreaterThan(2);
    wire.settle();
    expectSame(pair, 1);
    for (const each of [pair.a, pair.b]) {
      expect(each.of('ike-up')).toHaveLength(2);
      expect(each.of('child-up')).toHaveLength(2);
    }
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── request 4294967295 ───────────────▶│
  //   │◀──────────────── response 4294967295 │   there is no message ID after it: the IKE SA is over (RFC 7296 §2.2)
  //   │── IKE_SA_INIT ──────────────────────▶│   of another
  it('use up the message IDs: the IKE SA ends, and none is used twice', () => {
    const LAST = 5;
    const next = Object.getOwnPropertyDescriptor(MessageWindow.prototype, 'nextRequest')!.get!;
    vi.spyOn(MessageWindow.prototype, 'nextRequest', 'get').mockImplementation(function (this: MessageWindow) {
      const id: number | undefined = next.call(this);
      return id === undefined || id > LAST ? undefined : id;
    });
    const pair = new Pair();
    const host = pair[side];
    const peer = pair.peer(host);
    pair.up(host);
    for (let i = 0; i < 2; i++) {
      rekeyChild(pair, host);
      pair.run();
    }
    expect(host.of('ike-down')).toMatchObject([{ reason: 'expired', detail: 'its message IDs are used up' }]);
    const requests = pair.sent.filter((datagram) => datagram.from === host && !headerOf(datagram).response);
    expect(requests.map((datagram) => headerOf(datagram).messageId)).toEqual([0, 1, 2, 3, 4, 5]);
    pair.up(host);
    expectSame(pair, 1);
    expect(peer.of('ike-down')).toHaveLength(1);
    pair.act(peer, (endpoint, now) => endpoint.closeConnection(now, 'net'));
    pair.run(61_000);
    expectNothing(pair);
  });
});

describe('messages out of place', () => {
  it('nothing authentic goes ahead of its turn: IKE_AUTH before IKE_SA_INIT, a child before IKE_AUTH', () => {
    const pair = new Pair();
    pair.up();
    pair.act(pair.a, (endpoint, now) => endpoint.rekeyChild(now, pair.a.child.id));
    pair.run();
    const other = new Pair({ seed: 5 });
    for (const datagram of pair.sent.filter(({ from }) => from === pair.a).slice(1)) {
      other.deliver({ ...datagram, from: other.a, to: other.b });
    }
    expect(other.b.endpoint.status()).toEqual([]);
    expect(other.b.endpoint.counters()['unknown-spi']).toBe(3);
    // The half-open SA takes nothing but IKE_AUTH.
    const init = pair.sent[0]!;
    other.deliver({ ...init, from: other.a, to: other.b });
    const spi = other.sent.at(-1)!.data.subarray(8, 16);
    const jumped = pair.sent.filter(({ from }) => from === pair.a)[2]!;
    const data = jumped.data.slice();
    data.set(spi, 8);
    data[23] = 1;
    other.deliver({ ...jumped, from: other.a, to: other.b, data });
    expect(other.b.endpoint.counters()['unexpected-exchange']).toBe(1);
  });
});
