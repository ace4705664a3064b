/** Message IDs, retransmission and the response cache (RFC 7296 §2.1–§2.3) alone, and what unknown senders cause. */
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { writeU32 } from '../../src/base/bytes.ts';
import { pooledRandom } from '../../src/ike/keys/random-pool.ts';
import { type Outgoing, single } from '../../src/ike/protect/outgoing.ts';
import { MAX_MESSAGE_ID, MessageWindow } from '../../src/ike/session/window.ts';
import { expectSame } from '../support/ike-expect.ts';
import { at, type Datagram, Pair } from '../support/ike-pair.ts';

const POLICY = { initial: 100, factor: 2, max: 300, tries: 3 };
/** A header with another body, and the length that fits. */
function withLength(header: Uint8Array, rest: Uint8Array): Uint8Array {
  const data = Uint8Array.from([...header, ...rest]);
  writeU32(data, 24, data.length);
  return data;
}

const again = (window: MessageWindow, now: number): unknown => {
  const message = window.retransmit(now);
  return typeof message === 'object' ? message.datagrams : message;
};

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

describe('MessageWindow', () => {
  it('sends again with growing waits, and gives up', () => {
    const window = new MessageWindow(POLICY);
    expect(window.idle).toBe(true);
    window.send(1_000, single(bytes(1)));
    expect(window.idle).toBe(false);
    expect(window.expectsResponse(0)).toBe(true);
    expect(window.expectsResponse(1)).toBe(false);
    expect(window.retransmit(1_099)).toBeUndefined();
    expect(again(window, 1_100)).toEqual([bytes(1)]);
    expect(window.due).toBe(1_300);
    expect(again(window, 1_300)).toEqual([bytes(1)]);
    expect(window.due).toBe(1_600);
    expect(again(window, 1_600)).toEqual([bytes(1)]);
    expect(window.due).toBe(1_900);
    expect(window.retransmit(1_900)).toBe('dead');
  });

  it('retries in smaller fragments after two attempts without a response, while there are smaller ones', () => {
    const smallest: Outgoing = { datagrams: [bytes(1), bytes(2), bytes(3)], smaller: () => undefined };
    const small: Outgoing = { datagrams: [bytes(1, 2), bytes(3)], smaller: () => smallest };
    const whole: Outgoing = { datagrams: [bytes(1, 2, 3)], smaller: () => small };
    const window = new MessageWindow({ ...POLICY, tries: 6 });
    window.send(0, whole);
    const sent = Array.from({ length: 6 }, () => (window.retransmit(window.due!) as Outgoing).datagrams.length);
    expect(sent).toEqual([1, 2, 2, 3, 3, 3]);
    window.accept(bytes(9));
    window.respond(whole);
    const answers = (times: number, inFragments: boolean): number[] =>
      Array.from({ length: times }, () => window.answerAgain({ inFragments })!.datagrams.length);
    expect(answers(4, false)).toEqual([1, 2, 2, 3]);
    window.accept(bytes(8));
    expect(window.answerAgain({ inFragments: false })).toBeUndefined();
    window.respond(whole);
    expect(answers(3, true)).toEqual([2, 3, 3]);
  });

  it('keeps the message ID when a request is made anew, and counts on after an answer', () => {
    const window = new MessageWindow(POLICY);
    window.send(0, single(bytes(1)));
    window.resend(50, single(bytes(2)));
    expect(window.expectsResponse(0)).toBe(true);
    expect(again(window, 150)).toEqual([bytes(2)]);
    window.finish();
    expect(window.due).toBeUndefined();
    expect(window.nextRequest).toBe(1);
  });

  it('has no message ID after the last', () => {
    const window = new MessageWindow(POLICY, MAX_MESSAGE_ID);
    expect(window.nextRequest).toBe(0xffffffff);
    window.send(0, single(bytes(1)));
    expect(window.nextRequest).toBeUndefined();
  });

  it('takes no request of the peer after the last message ID: 0 is an old one', () => {
    const window = new MessageWindow(POLICY, 0, MAX_MESSAGE_ID);
    expect(window.classify(MAX_MESSAGE_ID, bytes(1))).toBe('new');
    window.accept(bytes(1));
    expect(window.classify(0, bytes(2))).toBe('old');
    expect(window.classify(MAX_MESSAGE_ID, bytes(2))).not.toBe('new');
  });

  it('accepts the next request, repeats the response to the last, ignores the rest', () => {
    const window = new MessageWindow(POLICY, 0, 5);
    expect(window.classify(5, bytes(1))).toBe('new');
    expect(window.classify(4, bytes(1))).toBe('old');
    expect(window.classify(6, bytes(1))).toBe('ahead');
    const request = bytes(1, 2);
    window.accept(request);
    request[0] = 9;
    expect(window.classify(5, bytes(1, 2))).toBe('pending');
    window.respond(single(bytes(7)));
    expect(window.classify(5, bytes(1, 2))).toBe('answered');
    expect(window.lastResponse?.datagrams).toEqual([bytes(7)]);
    expect(window.classify(5, bytes(1, 3))).toBe('differs');
    expect(window.classify(6, bytes(1, 3))).toBe('new');
    window.accept(bytes(1, 3));
    expect(window.classify(5, bytes(1, 2))).toBe('old');
  });
});

describe('messages of unknown senders', () => {
  function stray(pair: Pair, change: (data: Uint8Array) => void, of = 0): void {
    const datagram: Datagram = pair.sent[of]!;
    const data = datagram.data.slice();
    change(data);
    pair.deliver({ ...datagram, path: { ...datagram.path, remote: at('198.51.100.1', 500) }, data });
  }

  it('cause INVALID_IKE_SPI, at a low rate', () => {
    const pair = new Pair();
    pair.up();
    const request = pair.sent.findIndex(({ data }) => data[18] === 35);
    const before = pair.sent.length;
    for (let i = 0; i < 40; i++) stray(pair, (data) => data.fill(i + 1, 0, 16), request);
    const answers = pair.sent.slice(before);
    expect(answers).toHaveLength(10);
    expect(answers[0]!.data.subarray(34, 36)).toEqual(bytes(0, 4));
    expect(pair.b.endpoint.counters()['rate-limited']).toBe(30);
    // Such an answer is not answered in turn.
    pair.deliver(answers[0]!);
    expect(pair.sent).toHaveLength(before + 10);
  });

  it('of a later version are answered with INVALID_MAJOR_VERSION', () => {
    const pair = new Pair();
    pair.up();
    const before = pair.sent.length;
    stray(pair, (data) => {
      data[17] = 0x30;
    });
    const [answer] = pair.sent.slice(before);
    expect(answer!.data[17]).toBe(0x20);
    expect(answer!.data.subarray(34, 36)).toEqual(bytes(0, 5));
    expect(pair.b.endpoint.counters()['major-version']).toBe(1);
    stray(pair, (data) => {
      data[17] = 0x10;
    });
    expect(pair.sent).toHaveLength(before + 1);
  });

  it('unprotected notifies to an SA that is up are hints, and end nothing', () => {
    const pair = new Pair();
    pair.up();
    const header = pair.sent.at(-1)!.data.slice(0, 28);
    const data = new Uint8Array(36);
    data.set(header);
    data.set([41, 0x20, 36, 0x20, 0, 0, 0, 2, 0, 0, 0, 36, 0, 0, 0, 8, 0, 0, 0, 4], 16);
    const path = { local: at('192.0.2.1', 4500), remote: at('192.0.2.2', 4500) };
    pair.act(pair.a, (endpoint, now) => endpoint.rekeyChild(now, pair.a.child.id));
    pair.deliver({ from: pair.b, to: pair.a, path, data });
    expect(pair.a.endpoint.counters()['unauthenticated-notify']).toBe(1);
    pair.run();
    expectSame(pair, 1);
  });

  it('any bytes at all are counted', () => {
    const pair = new Pair();
    pair.up();
    const path = { local: at('192.0.2.2', 4500), remote: at('192.0.2.1', 4500) };
    const before = pair.b.endpoint.counters();
    let sent = 0;
    const header = fc.constant(pair.sent.at(-2)!.data.slice(0, 28));
    const tail = fc.uint8Array({ maxLength: 200 });
    const anything = fc.oneof(
      tail,
      fc.tuple(header, tail).map(([head, rest]) => withLength(head, rest)),
    );
    fc.assert(
      fc.property(anything, (data) => {
        sent++;
        pair.b.endpoint.handleDatagram(pair.now, path, data);
        pair.drain(pair.b);
      }),
      { seed: 1, numRuns: 500 },
    );
    const after = pair.b.endpoint.counters();
    expect(after['datagrams-in'] - before['datagrams-in']).toBe(sent);
    expect(after.bug).toBe(0);
    pair.run(60_000);
    expectSame(pair, 1);
  });

  it('flipped, cut, stretched: every bit of every message is refused and counted, never a bug, never a change', () => {
    const pair = new Pair();
    pair.up();
    const messages = [...pair.sent];
    const events = pair.b.events.length;
    for (const datagram of messages) {
      for (let at = 0; at < datagram.data.length; at++) {
        const data = datagram.data.slice();
        data[at] = data[at]! ^ (1 << (at % 8));
        pair.deliver({ ...datagram, data });
        pair.deliver({ ...datagram, data: datagram.data.slice(0, at) });
      }
      pair.deliver({ ...datagram, data: Uint8Array.from([...datagram.data, 0]) });
    }
    for (const host of [pair.a, pair.b]) {
      expect(host.endpoint.counters().bug).toBe(0);
      expect(host.ikeSas.size).toBe(1);
      expect(host.children.size).toBe(1);
    }
    const changes = pair.b.events.slice(events).filter(({ type }) => type !== 'note' && type !== 'failed');
    expect(changes).toEqual([]);
    pair.run(60_000);
    expectSame(pair, 1);
  });
});

describe('pooledRandom', () => {
  it('hands out every byte of the source once, in order, and leaves none behind', () => {
    let next = 0;
    const blocks: Uint8Array[] = [];
    const random = pooledRandom((length) => {
      const block = Uint8Array.from({ length }, () => next++ & 0xff);
      blocks.push(block);
      return block;
    });
    expect(random(4)).toEqual(bytes(0, 1, 2, 3));
    expect(random(2)).toEqual(bytes(4, 5));
    expect(blocks).toHaveLength(1);
    expect(blocks[0]!.subarray(0, 7)).toEqual(bytes(0, 0, 0, 0, 0, 0, 6));
    expect(random(100)).toHaveLength(100);
    expect(blocks).toHaveLength(2);
    for (let i = 0; i < 40; i++) expect(random(64)).toHaveLength(64);
    expect(blocks.length).toBeGreaterThan(2);
  });

  it('takes a source of Node’s Buffers, whose slices are views', () => {
    const random = pooledRandom(randomBytes);
    const [first, second] = [random(32), random(32)];
    expect(first).not.toEqual(new Uint8Array(32));
    expect(first).not.toEqual(second);
  });
});
