/** Signatures and verdicts pass through the engine, with the tunnel that they are for. */
import { describe, expect, it } from 'vitest';
import type { EngineEvent } from '../../src/engine/events.ts';
import { enginePair, opposite, type Peer, packet, tunnel } from '../support/engine-net.ts';
import { A, AUTHORITY, B, FakePki, signing, turned } from '../support/ike-fake-pki.ts';

type Question = Extract<EngineEvent, { readonly type: 'need-signature' | 'need-verification' }>;

/** Two whose packets call for an SA that wants signatures of both. */
function meet(): ReturnType<typeof enginePair> {
  const config = tunnel({ connections: [signing('signature', 'signature')] });
  const b = opposite(config, { connections: [turned(signing('signature', 'signature'))] });
  const pair = enginePair({ a: config, b });
  pair.net.send(pair.a, [packet('10.1.0.1', '10.2.0.1', 'first')]);
  pair.net.run();
  return pair;
}

const asked = (peer: Peer): Question => peer.events.findLast((event): event is Question => 'requestId' in event)!;

describe('an engine', () => {
  const aPki = new FakePki(AUTHORITY, A);
  const bPki = new FakePki(AUTHORITY, B);

  function answer({ net, a }: ReturnType<typeof enginePair>, peer: Peer): void {
    const pki = peer === a ? aPki : bPki;
    const question = asked(peer);
    net.act(peer, (engine, now) => {
      if (question.type === 'need-signature') engine.answerSignature(now, question.requestId, pki.sign(question));
      else engine.answerVerification(now, question.requestId, pki.verify(question));
    });
    net.run();
  }

  it('asks for signatures and verdicts, and carries packets when all were given', () => {
    const pair = meet();
    const { a, b } = pair;
    const types = [a, b, b, a].map((peer) => {
      const { type, tunnel: name } = asked(peer);
      expect(b.texts()).toEqual([]);
      answer(pair, peer);
      return `${name} ${type}`;
    });
    expect(types).toEqual(['t need-signature', 't need-verification', 't need-signature', 't need-verification']);
    expect(b.texts()).toEqual(['first']);
  });

  it('reports a peer that was not authenticated, and lets nothing pass', () => {
    const pair = meet();
    const { net, a, b } = pair;
    answer(pair, a);
    const { requestId } = asked(b);
    const verdict = { ok: false, reason: 'revoked', detail: 'on 1 May' } as const;
    net.act(b, (engine, now) => engine.answerVerification(now, requestId, verdict));
    net.run();
    expect(b.of('failed')).toMatchObject([
      { tunnel: 't', reason: 'AUTHENTICATION_FAILED', detail: expect.stringContaining('revoked: on 1 May') },
    ]);
    expect(a.of('failed')).toMatchObject([{ reason: 'AUTHENTICATION_FAILED' }]);
    expect([b.texts(), b.engine.planes.receiving.size]).toEqual([[], 0]);
  });
});
