/** What networks and clocks do to an engine that carries traffic: packets out of order and again, time that jumps. */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import { type Datagram, type EnginePair, enginePair, packet, tunnel } from '../support/engine-net.ts';
import { child, connection } from '../support/ike-pair.ts';

const HOUR = 3_600_000;
const up = packet('10.1.0.1', '10.2.0.1', 'up');

/** Without ESN, or with. */
const windowOf = (replayWindow: number, esn: string): TunnelConfig =>
  tunnel({
    replayWindow,
    connections: [
      connection({ children: [child('c', { proposals: [parseEspProposalString(`aes128gcm16-${esn}`)] })] }),
    ],
  });

function established(config?: TunnelConfig): EnginePair {
  const pair = enginePair(config === undefined ? {} : { a: config });
  pair.net.send(pair.a, [up]);
  pair.net.run();
  return pair;
}

/** ESP of `a` with the texts 0, 1, 2, …, none of which has arrived yet. */
function underWay({ net, a }: EnginePair, count: number): Datagram[] {
  const caught: Datagram[] = [];
  net.filter = (datagram) => caught.push(datagram) === 0;
  for (let i = 0; i < count; i++) net.send(a, [packet('10.1.0.1', '10.2.0.1', `${i}`)]);
  net.filter = () => true;
  return caught;
}

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => `${from + i}`);

describe('packets out of order', () => {
  it.each([64, 1_024])('are all accepted within a window of %i', (replayWindow) => {
    const pair = established(tunnel({ replayWindow }));
    const { net, b } = pair;
    const caught = underWay(pair, replayWindow);
    // The newest first: all others are as late as they may be.
    net.deliver(b, [...caught].reverse());
    expect(b.texts().slice(1)).toEqual(numbers(0, replayWindow).reverse());
    expect(b.engine.inboundDrops()).toEqual({});
    const shuffled = underWay(pair, replayWindow)
      .map((datagram) => ({ datagram, order: net.random.next() }))
      .sort((x, y) => x.order - y.order)
      .map(({ datagram }) => datagram);
    net.deliver(b, shuffled);
    expect(new Set(b.texts().slice(1 + replayWindow))).toEqual(new Set(numbers(0, replayWindow)));
    expect(b.engine.inboundDrops()).toEqual({});
  });

  it.each([
    [64, 'noesn', 'too-old'],
    [1_024, 'noesn', 'too-old'],
    // What is behind the window is taken for what comes after the next 2^32 (RFC 4303 appendix A2.2), and is not authentic.
    [1_024, 'esn', 'bad-icv'],
  ])('are counted beyond a window of %i with %s, each of them', (replayWindow, esn, reason) => {
    const pair = established(windowOf(replayWindow, esn));
    const { net, b } = pair;
    const late = 50;
    const caught = underWay(pair, replayWindow + late);
    net.deliver(b, [...caught].reverse());
    expect(b.texts().slice(1)).toEqual(numbers(late, replayWindow + late).reverse());
    expect(b.engine.inboundDrops()).toEqual({ [reason]: late });
    expect(b.drops()).toEqual({ [reason]: late });
  });
});

describe('a flood of what was received before', () => {
  it('is counted, not reported, and does not disturb IKE', () => {
    const pair = established();
    const { net, a, b } = pair;
    const caught = underWay(pair, 64);
    net.deliver(b, caught);
    const { spiIn } = b.child().summary;
    const [events, wakeUps] = [b.events.length, b.wakeUps];
    net.sent.length = 0;
    for (let i = 0; i < 300; i++) net.deliver(b, caught);
    expect(b.engine.inboundDrops()).toEqual({ replay: 300 * 64 });
    expect([b.events.length, b.wakeUps, net.sent.length]).toEqual([events, wakeUps, 0]);
    // In the middle of it a CHILD SA is replaced.
    net.act(a, ({ ike }, now) => ike.rekeyChild(now, a.child().summary.id));
    for (let i = 0; i < 100; i++) {
      net.run(1);
      net.deliver(b, caught);
    }
    expect(b.child().summary.spiIn).not.toBe(spiIn);
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'after')]);
    net.run();
    expect(b.texts().at(-1)).toBe('after');
    expect(b.engine.inboundDrops()).toEqual({ replay: 400 * 64 });
    // They are the tunnel's, also when it is gone; what comes then belongs to none.
    expect(b.engine.strayDrops()).toEqual({});
    net.act(b, (engine, now) => engine.removeTunnel(now, 't'));
    expect(b.engine.strayDrops()).toEqual({});
    net.deliver(b, caught);
    expect(b.engine.strayDrops()).toEqual({ 'unknown-spi': 64 });
  });
});

describe('a clock that jumps, as after a suspension', () => {
  const config = (start: TunnelConfig['start']): TunnelConfig =>
    tunnel({
      start,
      connections: [
        connection({
          dpd: { interval: 30_000 },
          lifetime: { soft: 4 * HOUR, hard: 5 * HOUR, jitter: 0 },
          children: [child('c', { lifetime: { soft: HOUR, hard: 1.5 * HOUR, jitter: 0 } })],
        }),
      ],
    });

  it.each([
    ['beyond the CHILD SA', 2 * HOUR],
    ['beyond the IKE SA', 48 * HOUR],
    ['by a year', 365 * 24 * HOUR],
  ])('%s, ends what is too old, and what is wanted comes back', (_, jump) => {
    const pair = established(config('initiate'));
    const { net, a, b } = pair;
    const old = a.halves();
    const [woken, sent] = [a.wakeUps + b.wakeUps, net.sent.length];
    net.now += jump;
    net.run(120_000);
    expect([old.inbound.usable, old.outbound.usable]).toEqual([false, false]);
    expect(a.of('child-down')[0]?.reason).toBe(jump > 5 * HOUR ? 'ike-down' : 'expired');
    // Not once for each deadline that was missed: liveness, rekeyings, keepalives.
    expect(a.wakeUps + b.wakeUps - woken).toBeLessThan(60);
    expect(net.sent.length - sent).toBeLessThan(60);
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'after')]);
    net.run();
    expect(b.texts()).toEqual(['up', 'after']);
    expect(a.child().summary.spiIn).not.toBe(old.inbound.spi);
  });

  it('encrypts nothing with an SA that is too old, although no timer has fired yet', () => {
    const { net, a, b } = established(config('trap'));
    const old = a.halves();
    net.now += 2 * HOUR;
    const before = old.outbound.lastSequence;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'after')]);
    expect(old.outbound.lastSequence).toBe(before);
    net.run(5_000);
    expect(b.texts()).toEqual(['up', 'after']);
    expect(a.child().summary.spiIn).not.toBe(old.inbound.spi);
  });

  it('decrypts nothing with an SA that is too old, although no timer has fired yet', () => {
    const pair = established(config('trap'));
    const { net, b } = pair;
    const caught = underWay(pair, 3);
    net.now += 2 * HOUR;
    net.deliver(b, caught);
    expect(b.texts()).toEqual(['up']);
    expect(b.engine.inboundDrops()).toEqual({ 'lifetime-expired': 3 });
  });
});
