/** ESP that comes before the answer that makes its SA (RFC 7296 §2.8). */
import { describe, expect, it } from 'vitest';
import { EarlyPackets } from '../../src/engine/early.ts';
import type { Path } from '../../src/ike/events.ts';
import { type EnginePair, enginePair, packet, tunnel } from '../support/engine-net.ts';
import { at } from '../support/ike-pair.ts';

const PATH: Path = { local: at('192.0.2.1', 4500), remote: at('192.0.2.2', 4500) };
const isIke = (data: Uint8Array): boolean => data.subarray(0, 4).every((byte) => byte === 0);

/** Our rekeying is answered, and the answer takes `delay` ms longer than what the peer sends then. */
function rekeyed(delay: number, count: number): EnginePair {
  const test = enginePair({ a: tunnel({ start: 'initiate' }) });
  const { net, a, b } = test;
  net.run();
  net.filter = (datagram) => {
    if (datagram.from !== b || !isIke(datagram.data)) return true;
    setLate(datagram);
    return false;
  };
  const setLate = (datagram: Parameters<typeof net.fly>[0]): void => {
    const before = net.delay;
    net.delay = () => delay;
    net.fly(datagram);
    net.delay = before;
  };
  net.act(a, (engine, now) => {
    engine.ike.rekeyChild(now, a.child().summary.id);
    engine.handleTimeout(now);
  });
  net.run(15);
  // The peer has the new SA, and may send on it.
  const successor = Math.max(...b.tunnel().children.keys());
  net.act(b, (engine) => engine.planes.commandSender({ type: 'activate', id: successor, afterIke: false }));
  for (let i = 0; i < count; i++) net.send(b, [packet('10.2.0.1', '10.1.0.1', `early ${i}`)]);
  return test;
}

describe('ESP before the answer', () => {
  it('waits for it, and is delivered in order', () => {
    const { net, a } = rekeyed(200, 5);
    net.run(100);
    expect(a.texts()).toEqual([]);
    expect(a.engine.inboundDrops()).toEqual({});
    net.run(500);
    expect(a.texts()).toEqual([0, 1, 2, 3, 4].map((i) => `early ${i}`));
    expect(a.engine.inboundDrops()).toEqual({});
  });

  it('is bounded, and what is too much is counted at once', () => {
    const { net, a } = rekeyed(200, 70);
    net.run(500);
    expect(a.texts()).toHaveLength(64);
    expect(a.engine.inboundDrops()).toEqual({ 'unknown-spi': 6 });
  });

  it('is given up when the answer does not come', () => {
    const { net, a } = rekeyed(1e6, 3);
    net.run(9_000);
    expect(a.engine.inboundDrops()).toEqual({});
    net.run(2_000);
    expect(a.engine.inboundDrops()).toEqual({ 'unknown-spi': 3 });
    expect(a.texts()).toEqual([]);
  });

  it('with an SPI that was not offered waits for nothing', () => {
    const { net, a } = enginePair();
    net.deliver(a, [{ path: { local: PATH.remote, remote: PATH.local }, data: new Uint8Array(40).fill(7) }]);
    expect(a.engine.inboundDrops()).toEqual({ 'unknown-spi': 1 });
  });
});

describe('packets that are early', () => {
  const data = new Uint8Array(40_000);

  it('are bounded in bytes, all together, and copied', () => {
    const early = new EarlyPackets();
    early.expect(0x8000_0001, 100);
    early.expect(2, 100);
    const held = Array.from({ length: 30 }, (_, i) => early.hold(i % 2 === 0 ? 0x8000_0001 : 2, data, PATH, 0));
    expect(held.filter(Boolean)).toHaveLength(26);
    expect(early.take(0x8000_0001)).toHaveLength(13);
    expect(early.hold(2, data, PATH, 0)).toBe(true);
    expect(early.take(2)[0]!.data).not.toBe(data);
    expect(early.hold(2, data, PATH, 0)).toBe(false);
  });

  it('are bounded in bytes where an SPI is offered again, too', () => {
    const early = new EarlyPackets();
    const held: boolean[] = [];
    for (let spi = 1; spi <= 30; spi++) {
      early.expect(spi, 100);
      held.push(early.hold(spi, data, PATH, 0));
      early.expect(spi, 200);
    }
    expect(held.filter(Boolean)).toHaveLength(26);
    expect(early.take(1)).toHaveLength(1);
    expect(early.take(1)).toEqual([]);
  });

  it('are of so many SPIs at the most, of which the oldest goes first', () => {
    const early = new EarlyPackets();
    for (let spi = 1; spi <= 1_025; spi++) early.expect(spi, spi);
    expect([1, 2, 1_025].map((spi) => early.hold(spi, data, PATH, 0))).toEqual([false, true, true]);
    expect(early.next()).toBe(2);
    expect(early.expire(1_024)).toBe(1);
    expect(early.next()).toBe(1_025);
    expect(early.expire(1_025)).toBe(1);
    expect(early.next()).toBe(Number.POSITIVE_INFINITY);
  });
});
