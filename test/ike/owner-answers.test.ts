/** Signatures and verdicts are the owner's to give: late, twice, wrong, or never. */
import { describe, expect, it } from 'vitest';
import { utf8 } from '../../src/base/text.ts';
import type { IkeEvent } from '../../src/ike/events.ts';
import { expectNothing, expectSame } from '../support/ike-expect.ts';
import { A, AUTHORITY, B, expectRefused, FakePki, pairOf } from '../support/ike-fake-pki.ts';
import type { Host, Pair } from '../support/ike-pair.ts';

describe('the owner', () => {
  type Asked = Extract<IkeEvent, { readonly requestId: number }>;
  /** The last question, which has no answer yet. */
  const asked = (host: Host): Asked => host.events.findLast((event): event is Asked => 'requestId' in event)!;

  /** Both keep their questions for the test. */
  function slow(): Pair {
    const pair = pairOf('signature', 'signature');
    pair.a.pki = undefined;
    pair.b.pki = undefined;
    return pair;
  }
  const A_PKI = new FakePki(AUTHORITY, A);
  const B_PKI = new FakePki(AUTHORITY, B);

  /** Answers what a host asked last. */
  function answer(pair: Pair, host: Host): void {
    const pki = host === pair.a ? A_PKI : B_PKI;
    const question = asked(host);
    pair.act(host, (endpoint, now) => {
      if (question.type === 'need-signature') endpoint.answerSignature(now, question.requestId, pki.sign(question));
      if (question.type === 'need-verification') {
        endpoint.answerVerification(now, question.requestId, pki.verify(question));
      }
    });
    pair.run(500);
  }

  it('may take its time: meanwhile the peer gets nothing, and others are served', () => {
    const pair = slow();
    pair.up();
    for (const [host, type] of [
      [pair.a, 'need-signature'],
      [pair.b, 'need-verification'],
      [pair.b, 'need-signature'],
    ] as const) {
      pair.run(5_000);
      expect(asked(host).type).toBe(type);
      expect([...pair.a.of('ike-up'), ...pair.b.of('ike-up'), ...pair.b.of('child-up')]).toEqual([]);
      answer(pair, host);
    }
    // The responder has done all that it has to; the initiator has not judged it yet.
    expect(pair.b.of('child-up')).toHaveLength(1);
    pair.act(pair.b, (endpoint, now) => endpoint.rekeyChild(now, pair.b.child.id));
    pair.run(5_000);
    expect([...pair.a.of('ike-up'), ...pair.a.of('child-up')]).toEqual([]);
    expect(pair.a.endpoint.counters()['unexpected-exchange']).toBeGreaterThan(0);
    answer(pair, pair.a);
    // What the responder asked for meanwhile is served now.
    pair.run(20_000);
    expectSame(pair, 1);
  });

  it.each([
    [0, 'a', 'no-signature', /the signature did not arrive in time/],
    [1, 'b', 'no-verdict', /the verdict on its certificate did not arrive in time/],
    [2, 'b', 'no-signature', /the signature of ours did not arrive in time/],
    [3, 'a', 'no-verdict', /the verdict on its certificate did not arrive in time/],
  ] as const)(
    'who says nothing at question %i ends the attempt after half a minute',
    (answered, who, reason, detail) => {
      const pair = slow();
      pair.up();
      const order = [pair.a, pair.b, pair.b, pair.a];
      for (const host of order.slice(0, answered)) answer(pair, host);
      pair.run(28_000);
      expect(pair[who].of('failed')).toEqual([]);
      pair.run(3_000);
      expect(pair[who].of('failed')).toMatchObject([{ reason, detail: expect.stringMatching(detail) }]);
      expect(pair.a.of('ike-up')).toEqual([]);
      pair.run(200_000);
      expectNothing(pair);
    },
  );

  it('that cannot sign ends the attempt, and is notified', () => {
    const detail = 'the key is not readable';
    const pair = pairOf('signature', 'signature');
    pair.a.pki = { sign: () => ({ ok: false, detail }), verify: () => ({ ok: true }) };
    pair.up();
    expectRefused(pair, pair.a, /we cannot sign: the key is not readable/, 'no-signature');
    const other = pairOf('signature', 'signature');
    other.b.pki = { sign: () => ({ ok: false, detail }), verify: () => ({ ok: true }) };
    other.up();
    expectRefused(other, other.b, /we cannot sign: the key is not readable/, 'no-signature');
  });

  it.each([
    ['by a method that the peer does not take', { authMethod: 9, algorithm: undefined }],
    ['without the algorithm', { algorithm: undefined }],
    ['with an algorithm of 256 bytes', { algorithm: new Uint8Array(256) }],
  ])('who signs %s is told so', (_name, change) => {
    const pair = pairOf('signature', 'signature');
    pair.a.pki = { sign: (question) => ({ ...A_PKI.sign(question), ...change }), verify: () => ({ ok: true }) };
    pair.up();
    expectRefused(pair, pair.a, /which the peer does not take/, 'no-signature');
  });

  it('has no effect with an answer given twice, to another question, of another kind, or too late', () => {
    const pair = slow();
    pair.up();
    const { requestId } = asked(pair.a);
    pair.act(pair.a, (endpoint, now) => {
      endpoint.answerSecret(now, requestId, utf8('a secret'));
      endpoint.answerVerification(now, requestId, { ok: true });
      endpoint.answerSignature(now, requestId + 1_000, { ok: false, detail: '' });
    });
    answer(pair, pair.a);
    expect(asked(pair.b).type).toBe('need-verification');
    const first = asked(pair.b).requestId;
    pair.act(pair.b, (endpoint, now) => endpoint.answerSecret(now, first, utf8('a secret')));
    pair.act(pair.b, (endpoint, now) => endpoint.answerSignature(now, first, { ok: false, detail: '' }));
    answer(pair, pair.b);
    // The verdict again, and another one.
    pair.act(pair.b, (endpoint, now) => endpoint.answerVerification(now, first, { ok: true }));
    pair.act(pair.b, (endpoint, now) => endpoint.answerVerification(now, first, { ok: false, reason: '', detail: '' }));
    pair.act(pair.a, (endpoint, now) => endpoint.answerSignature(now, requestId, { ok: false, detail: '' }));
    answer(pair, pair.b);
    answer(pair, pair.a);
    expectSame(pair, 1);
    expect([...pair.a.of('failed'), ...pair.b.of('failed')]).toEqual([]);
  });

  it.each([0, 1, 2, 3])(
    'who closes the connection at question %i has nothing left, and its answer changes nothing',
    (at) => {
      const pair = slow();
      pair.up();
      const order = [pair.a, pair.b, pair.b, pair.a];
      for (const host of order.slice(0, at)) answer(pair, host);
      const host = order[at]!;
      pair.act(host, (endpoint, now) => endpoint.closeConnection(now, 'net'));
      answer(pair, host);
      pair.run(200_000);
      expect(pair.a.of('ike-up')).toEqual([]);
      expectNothing(pair);
    },
  );
});
