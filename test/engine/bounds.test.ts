import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { HoldQueue } from '../../src/engine/hold.ts';
import { Refusals } from '../../src/engine/refusals.ts';
import { enginePair, Net, opposite, packet, protect, tunnel } from '../support/engine-net.ts';
import { child, connection } from '../support/ike-pair.ts';
import { Road } from '../support/road.ts';

const first = packet('10.1.0.1', '10.2.0.1', 'first');

describe('a tunnel that is added', () => {
  const refused = (change: Parameters<typeof tunnel>[0], message: string): void => {
    const { net, a } = enginePair();
    expect(() => a.engine.addTunnel(tunnel(change))).toThrow(message);
    // Nothing of it is left.
    const good = tunnel({ name: 'other', connections: [connection({ name: 'x' })] });
    expect(a.engine.tunnel(change?.name ?? 'new')).toBe(change?.name === 't' ? a.tunnel() : undefined);
    net.add(a, good);
    net.send(a, [first]);
    net.run();
    expect(a.child().summary.name).toBe('c');
  };
  const fresh = { name: 'new' };

  it('needs a name of its own', () => refused({ name: 't', connections: [connection({ name: 'x' })] }, 'named t'));

  it('needs names of their own for its connections', () => {
    const other = connection({ children: [child('d')] });
    refused({ ...fresh, connections: [connection({ name: 'x' }), other] }, 'connection net exists already');
    refused(
      {
        ...fresh,
        connections: [connection({ name: 'x' }), connection({ name: 'x', children: [child('d')] })],
      },
      'connection x exists already',
    );
  });

  it('needs names of their own for its children', () =>
    refused({ ...fresh, connections: [connection({ name: 'x' }), connection({ name: 'y' })] }, 'two children named c'));

  it('needs children for its policy', () =>
    refused({ ...fresh, connections: [connection({ name: 'x' })], policy: [protect({ child: 'd' })] }, 'no child'));

  it('needs connections that IKE can work with', () =>
    refused({ ...fresh, connections: [connection({ name: 'x', proposals: [] })] }, 'no IKE proposal'));

  it('needs a replay window that there is', () => {
    for (const replayWindow of [0, 63, 65_537, 100.5]) {
      refused({ ...fresh, connections: [connection({ name: 'x' })], replayWindow }, 'replay window');
    }
  });
});

describe('a tunnel that is removed', () => {
  it('while it is negotiated leaves nothing behind, nor the packets that it held', () => {
    for (const wait of [0, 5, 15, 25, 35]) {
      const { net, a, b } = enginePair();
      net.send(a, [first]);
      net.run(wait);
      net.act(a, (engine, now) => engine.removeTunnel(now, 't'));
      net.run(120_000);
      expect(a.engine.tunnel('t')).toBeUndefined();
      expect(a.engine.ike.status()).toEqual([]);
      expect(a.engine.nextTimeout()).toBeUndefined();
      expect(b.texts()).toEqual([]);
    }
  });

  it('while its secret is asked for has no use for the answer', () => {
    const { net, a } = enginePair();
    a.holdSecrets = true;
    net.send(a, [first]);
    net.run();
    const { requestId } = a.of('need-secret')[0]!;
    net.act(a, (engine, now) => engine.removeTunnel(now, 't'));
    net.act(a, (engine, now) => engine.answerSecret(now, requestId, Uint8Array.of(1)));
    net.run(60_000);
    expect(a.engine.nextTimeout()).toBeUndefined();
  });

  it('takes its SAs with it, those that were replaced included', () => {
    const { net, a } = enginePair();
    net.send(a, [first]);
    net.run();
    const { id } = a.child().summary;
    const old = a.halves();
    net.act(a, ({ ike }, now) => ike.rekeyChild(now, id));
    net.run();
    const current = a.halves();
    expect([old.inbound.usable, current.inbound.usable]).toEqual([true, true]);
    net.act(a, (engine, now) => engine.removeTunnel(now, 't'));
    expect([old, current].flatMap((sa) => [sa.inbound.usable, sa.outbound.usable])).toEqual(new Array(4).fill(false));
    net.run();
    expect(a.engine.ike.status().filter(({ state }) => state !== 'closed')).toEqual([]);
    expect(() => a.engine.removeTunnel(net.now, 't')).toThrow('no tunnel named t');
  });
});

describe('an SA for which there is no room', () => {
  const named = (i: number): string => `c${i}`;

  it('is given up, reported, and retried', () => {
    const road = new Road({ name: 'road', remote: '10.2.0.0/16' });
    const full = Array.from({ length: 2 }, (_, n) => {
      const own = Array.from({ length: 256 }, (_unused, i) => `10.2.${n}.${i}`);
      return road.call(`s${n}`, `192.0.2.${10 + n}`, own);
    });
    road.net.run(20_000);
    expect(road.hub.tunnel('road').children.size).toBe(512);
    const late = road.call('late', '192.0.2.20', '10.2.2.1');
    // It is tried again after a second, or up to a quarter earlier.
    expect([...new Set(road.notes())]).toEqual([
      expect.stringContaining('CHILD SA road is closed: its traffic has the most SAs'),
    ]);
    expect([road.hub.of('child-up').length, road.hub.of('child-down').length]).toEqual([512, 0]);
    expect([road.hub.engine.planes.receiving.size, late.engine.planes.receiving.size]).toEqual([512, 0]);
    road.net.act(full[0]!, (engine, now) => engine.down(now, 't'));
    road.net.run(120_000);
    expect(road.hub.tunnel('road').children.size).toBe(257);
    expect(late.child().summary.name).toBe(named(0));
    expect(road.hub.engine.planes.sending.size).toBe(257);
  });

  it('is one of too many for the same packets', () => {
    const road = new Road({ name: 'road', remote: '10.2.0.0/16' });
    const greedy = road.call('greedy', '192.0.2.10', new Array(17).fill('10.2.0.0/24'));
    expect(road.owners()).toEqual(new Array(16).fill('greedy 10.2.0.0/24'));
    expect(road.notes()).toEqual([expect.stringContaining('CHILD SA road is closed: its traffic has the most SAs')]);
    const up = greedy
      .tunnel()
      .missing()
      .map(({ child: { name } }) => name);
    expect(up).toEqual([named(16)]);
  });
});

describe('time', () => {
  it('wakes an idle engine only for liveness, keepalives and rekeyings', () => {
    const config = tunnel({
      connections: [
        connection({
          dpd: { interval: 30_000 },
          lifetime: { soft: 7_200_000, hard: 8_000_000, jitter: 0 },
          children: [child('c', { lifetime: { soft: 3_600_000, hard: 4_000_000, jitter: 0 } })],
        }),
      ],
    });
    const { net, a, b } = enginePair({ a: config });
    net.send(a, [first]);
    net.run();
    net.sent.length = 0;
    net.runUntil(net.now + 10 * 3_600_000);
    // 1,200 intervals of 30 s: each end looks, and looks again when the answer that it got is as old as that.
    expect(a.wakeUps + b.wakeUps).toBeLessThan(4 * 1_200 + 200);
    expect(a.wakeUps + b.wakeUps).toBeGreaterThan(1_100);
    expect(a.of('child-up')).toHaveLength(11);
    expect(net.sent.length).toBeLessThan(4 * 1_200 + 200);
  });

  it('does not pass for an engine that has nothing to do', () => {
    const { net, a, b } = enginePair();
    net.run(24 * 3_600_000);
    expect([a.wakeUps, b.wakeUps]).toEqual([0, 0]);
    expect(a.engine.nextTimeout()).toBeUndefined();
  });

  it('may be asked for and handed in at any moment', () => {
    const { net, a } = enginePair({ a: tunnel({ start: 'initiate' }) });
    net.filter = () => false;
    for (let i = 0; i < 5_000; i++) {
      net.now += net.random.below(100);
      a.engine.handleTimeout(net.now);
      expect(a.engine.nextTimeout()).toBeGreaterThan(net.now);
      net.drain(a);
      expect(a.engine.nextTimeout()).toBeGreaterThan(net.now);
    }
    expect(a.of('failed').length).toBeGreaterThan(0);
  });
});

describe('ten thousand rekeyings', () => {
  it('leave no trace', () => {
    const { net, a, b } = enginePair();
    net.delay = () => 0;
    net.send(a, [first]);
    net.run();
    const rekey = (count: number): void => {
      for (let i = 0; i < count; i++) {
        const { id } = a.child().summary;
        net.act(a, ({ ike }, now) => ike.rekeyChild(now, id));
        net.run(50);
        if (a.child().summary.id === id) throw new Error('it was not replaced');
        for (const peer of [a, b]) peer.events.length = 0;
        net.sent.length = 0;
      }
      net.run(20_000);
    };
    rekey(50);
    const before = [size(a.engine), size(b.engine)];
    rekey(10_000);
    expect([size(a.engine), size(b.engine)]).toEqual(before);
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'last')]);
    net.run();
    expect(b.texts()).toEqual(['first', 'last']);
    expect(a.tunnel().children.size).toBe(1);
    expect(a.halves().outbound.pathIndex).toBeLessThan(3);
  }, 240_000);
});

/** What an engine shows of its size. */
function size(engine: ReturnType<typeof enginePair>['a']['engine']): unknown {
  const named = engine.tunnel('t')!;
  return {
    children: named.children.size,
    planes: [engine.planes.sending.size, engine.planes.receiving.size],
    held: named.held,
    ike: engine.ike.status().map((sa) => sa.children.length),
    inbound: engine.planes.receiving.size,
  };
}

describe('the hold queue', () => {
  const limits = { packets: 4, bytes: 100_000, time: 10 };

  it('releases those that are required, in their order', () => {
    const queue = new HoldQueue(limits);
    for (const n of [1, 2, 3, 4]) expect(queue.add(n, Uint8Array.of(n), n % 2, 0)).toBe(true);
    expect(queue.add(5, Uint8Array.of(5), 0, 0)).toBe(false);
    expect(queue.take(({ entry }) => entry === 1).map(({ data }) => data[0])).toEqual([1, 3]);
    expect([queue.length, queue.next()]).toEqual([2, 12]);
    expect(queue.expired(12).map(({ data }) => data[0])).toEqual([2]);
    expect(queue.expired(13)).toEqual([]);
  });

  it('lets one that comes back wait no longer than it was to', () => {
    const queue = new HoldQueue(limits);
    for (const n of [1, 2]) queue.add(n, new Uint8Array(40_000).fill(n), 0, 0);
    const [first] = queue.take(({ data }) => data[0] === 1);
    expect(queue.hasRoom(40_001)).toBe(true);
    queue.putBack(first!);
    expect(queue.hasRoom(40_001)).toBe(false);
    expect([...queue.packets()].map(({ data }) => data[0])).toEqual([1, 2]);
    expect(queue.next()).toBe(11);
  });
});

describe('refusals', () => {
  it('hold for their time, each for its own, and the oldest of too many is forgotten', () => {
    const refusals = new Refusals();
    for (let key = 0; key <= 1_024; key++) refusals.add('c', key, 100);
    refusals.add('d', 7, 200);
    expect([0, 1, 1_024].map((key) => refusals.holds(99, 'c', key))).toEqual([false, true, true]);
    expect([refusals.holds(100, 'c', 1), refusals.holds(100, 'd', 7), refusals.holds(100, 'd', 8)]).toEqual([
      false,
      true,
      false,
    ]);
    refusals.clear();
    expect(refusals.holds(0, 'd', 7)).toBe(false);
  });
});

describe('packets of 64 KiB', () => {
  it('wait and travel like any other', () => {
    const net = new Net();
    const a = net.peer('a', '192.0.2.1');
    const b = net.peer('b', '192.0.2.2');
    net.add(b, opposite(tunnel()));
    net.add(a, tunnel());
    const text = 'x'.repeat(60_000);
    const batch = new PacketBatch(1, 65_535);
    batch.push(packet('10.1.0.1', '10.2.0.1', text));
    net.act(a, (engine, now) => engine.send(now, 't', batch));
    net.run();
    expect(b.texts()).toEqual([text]);
  });
});
