/** Inner addresses have one owner, as long as it has an SA for them. */
import { describe, expect, it } from 'vitest';
import type { SelectorPair } from '../../src/policy/selector.ts';
import { sel } from '../policy/helpers.ts';
import { at } from '../support/ike-pair.ts';
import { Road } from '../support/road.ts';

const sides = (local: string, remote: string): SelectorPair => ({ local: [sel(local)], remote: [sel(remote)] });
const open = { name: 'road', remote: '10.0.0.0/8' };

describe('inner addresses that a peer owns', () => {
  it('are refused to another peer, with both names in the message, and the traffic of the owner goes on', () => {
    const road = new Road(open);
    road.call('b', '192.0.2.2', '10.2.0.0/24');
    expect(road.reaches('10.2.0.1')).toEqual(['b']);
    const x = road.call('x', '192.0.2.3', '10.2.0.1', { change: { start: 'trap' } });
    road.net.act(x, (engine, now) => engine.ike.initiate(now, 'net'));
    road.net.run();
    expect(road.refusals()).toEqual([
      expect.stringMatching(
        /^TS_UNACCEPTABLE: 10\.2\.0\.1 has belonged to b \(192\.0\.2\.2:4500, connection road\) for \d s; x at 192\.0\.2\.3:4500 asked for 10\.2\.0\.1$/,
      ),
    ]);
    expect(x.of('failed').map(({ reason }) => reason)).toEqual(['TS_UNACCEPTABLE']);
    expect(road.reaches('10.2.0.1')).toEqual(['b']);
    expect(road.owners()).toEqual(['b 10.2.0.0/24']);
  });

  it('are cut out of the range of another peer, and each peer gets its own packets', () => {
    const road = new Road(open);
    road.call('b', '192.0.2.2', '10.2.0.0/24');
    road.call('c', '192.0.2.3', '10.2.3.4');
    const x = road.call('x', '192.0.2.4', '10.2.0.0/16');
    expect(road.owners()).toEqual(['b 10.2.0.0/24', 'c 10.2.3.4', 'x 10.2.1.0-10.2.3.3, 10.2.3.5-10.2.255.255']);
    expect(['10.2.0.1', '10.2.1.1', '10.2.3.4', '10.2.3.5'].map((to) => road.reaches(to))).toEqual([
      ['b'],
      ['x'],
      ['c'],
      ['x'],
    ]);
    expect(road.notes()).toEqual([
      expect.stringMatching(/^the request of the peer was narrowed: .* belonged to b .* belonged to c .*; x at/),
    ]);
    expect(x.of('failed')).toEqual([]);
    expect(road.refusals()).toEqual([]);
  });

  it('do not include other ports of the same address', () => {
    const road = new Road({ name: 'road', remote: '10.0.0.0/8 udp' });
    road.call('b', '192.0.2.2', '10.2.0.1 udp 2000');
    road.call('c', '192.0.2.3', '10.2.0.1 udp 2001');
    expect([2000, 2001].map((port) => road.reaches('10.2.0.1', 'road', port))).toEqual([['b'], ['c']]);
    const x = road.call('x', '192.0.2.4', '10.2.0.1 udp 1990-2000');
    expect(x.of('failed').map(({ reason }) => reason)).toContain('TS_UNACCEPTABLE');
    expect(road.reaches('10.2.0.1')).toEqual(['b']);
  });

  it('stay its own through rekeying of CHILD and IKE SAs by either side', () => {
    const road = new Road(open);
    const b = road.call('b', '192.0.2.2', '10.2.0.0/24');
    const x = road.call('x', '192.0.2.3', '10.2.0.1');
    for (const [side, name] of [
      [b, 't'],
      [road.hub, 'road'],
    ] as const) {
      const sa = side.child(name);
      road.net.act(side, (engine, now) => engine.ike.rekeyChild(now, sa.summary.id));
      road.net.run(8_000);
      road.net.act(side, (engine, now) => engine.ike.rekeyIkeSa(now, side.child(name).ikeSaId));
      road.net.run(8_000);
      expect(side.child(name).summary.id).not.toBe(sa.summary.id);
      expect(road.owners()).toEqual(['b 10.2.0.0/24']);
      expect(road.reaches('10.2.0.1')).toEqual(['b']);
    }
    expect(x.tunnel().children.size).toBe(0);
  });

  it.each([
    [
      'closes its tunnel',
      (road: Road, peer: Road['hub']) => road.net.act(peer, (engine, now) => engine.down(now, 't')),
      70_000,
    ],
    ['vanishes', (road: Road, peer: Road['hub']) => road.vanish(peer), 200_000],
  ])('become free when the owner %s', (_how, end, wait) => {
    const road = new Road(open);
    const b = road.call('b', '192.0.2.2', '10.2.0.0/24');
    road.call('x', '192.0.2.3', '10.2.0.1');
    end(road, b);
    road.net.run(wait);
    expect(road.owners()).toEqual(['x 10.2.0.1']);
    expect(road.reaches('10.2.0.1')).toEqual(['x']);
    // Nothing is received any more on what its owner had.
    expect(road.hub.engine.planes.receiving.size).toBe(1);
  });

  it('become free when the owner is dead and another peer asks for them, without DPD', () => {
    const road = new Road({ ...open, dpd: 0 });
    road.vanish(road.call('b', '192.0.2.2', '10.2.0.0/24'));
    road.net.run(600_000);
    expect(road.owners()).toEqual(['b 10.2.0.0/24']);
    road.call('x', '192.0.2.3', '10.2.0.1');
    road.net.run(200_000);
    expect(road.owners()).toEqual(['x 10.2.0.1']);
  });

  it('become free when the owner closes one of several SAs, which then receives nothing', () => {
    const road = new Road(open);
    const b = road.call('b', '192.0.2.2', ['10.2.0.1', '10.2.0.2'], { change: { start: 'trap' } });
    road.net.act(b, (engine, now) => engine.ike.initiate(now, 'net'));
    road.net.run(1_000);
    expect(road.owners()).toEqual(['b 10.2.0.1', 'b 10.2.0.2']);
    const [first] = b.tunnel().children.keys();
    road.net.act(b, (engine, now) => engine.ike.closeChild(now, first!));
    road.net.run(100);
    expect(road.hub.engine.planes.receiving.size).toBe(1);
    road.call('x', '192.0.2.3', '10.2.0.0/30');
    expect(road.owners()).toEqual(['b 10.2.0.2', 'x 10.2.0.0/31, 10.2.0.3']);
  });

  it('pass to a new IKE SA of the same certificate, from any address', () => {
    const road = new Road({ ...open, auth: 'signature' });
    const before = road.call('b', '192.0.2.2', '10.2.0.0/24', { auth: 'signature' });
    road.vanish(before);
    road.call('b', '192.0.2.9', '10.2.0.0/25', { auth: 'signature' });
    expect(road.owners()).toEqual(['b 10.2.0.0/25']);
    expect(road.reaches('10.2.0.1')).toEqual(['b']);
    expect(road.refusals()).toEqual([]);
  });

  it.each(['signature', 'psk'] as const)(
    'pass to a new IKE SA of the same peer before the old one is deleted: %s',
    (auth) => {
      const road = new Road({ ...open, auth });
      const again = { auth, change: { name: 'again', start: 'respond' } } as const;
      const b = road.call('b', '192.0.2.2', '10.2.0.0/24', { auth, change: { start: 'trap' } });
      road.net.act(b, (engine, now) => engine.ike.initiate(now, 'net'));
      road.net.run();
      const former = road.hub.child('road').ikeSaId;
      road.tunnelOf(b, '10.2.0.0/24', { connection: 'again', ...again });
      road.net.act(b, (engine, now) => engine.ike.initiate(now, 'again'));
      road.net.run(300);
      // Both, for a moment: the peer knows the old one, and so says no INITIAL_CONTACT.
      expect(road.owners()).toEqual(['b 10.2.0.0/24', 'b 10.2.0.0/24']);
      road.net.run(5_000);
      expect(road.owners()).toEqual(['b 10.2.0.0/24']);
      expect(road.hub.child('road').ikeSaId).not.toBe(former);
      expect(road.refusals()).toEqual([]);
      expect(b.tunnel('again').children.size).toBe(1);
      // What the new one carries already is not made once more.
      expect(road.hub.of('child-up')).toHaveLength(2);
    },
  );

  it('are refused in the answer to our own offer', () => {
    const road = new Road(open);
    road.call('b', '192.0.2.2', '10.2.0.0/24');
    // x gets addresses of its own, and is then asked for all that the tunnel is for: it answers those of b.
    const x = road.call('x', '192.0.2.3', '10.9.0.1');
    x.engine.ike.replaceConnection({
      ...x.tunnel().config.connections[0]!,
      children: [{ ...x.tunnel().config.connections[0]!.children[0]!, selectors: sides('10.2.0.1', '10.1.0.0/24') }],
    });
    const offer = { child: 'road', remote: at('192.0.2.3', 4500), local: at('192.0.2.1', 4500) };
    road.net.act(road.hub, (engine, now) => engine.ike.initiate(now, 'road', offer));
    road.net.run(8_000);
    expect(road.refusals()).toEqual([
      expect.stringMatching(/^TS_UNACCEPTABLE: the peer chose addresses of another peer: 10\.2\.0\.1 has belo/),
      // x wants what it had for a moment, and asks for it itself.
      expect.stringMatching(
        /^TS_UNACCEPTABLE: 10\.2\.0\.1 has belonged to b .* x at 192\.0\.2\.3:4500 asked for 10\.2\.0\.1$/,
      ),
    ]);
    expect(road.owners()).toEqual(['b 10.2.0.0/24', 'x 10.9.0.1']);
    expect(road.reaches('10.2.0.1')).toEqual(['b']);
    expect(x.engine.planes.receiving.size).toBe(1);
  });

  it('are not offered when we rekey the SA of another peer', () => {
    const road = new Road(open);
    const x = road.call('x', '192.0.2.3', '10.9.0.1');
    x.engine.ike.replaceConnection({
      ...x.tunnel().config.connections[0]!,
      children: [{ ...x.tunnel().config.connections[0]!.children[0]!, selectors: sides('10.0.0.0/8', '10.1.0.0/24') }],
    });
    road.net.act(road.hub, (engine, now) => engine.ike.rekeyChild(now, road.hub.child('road').summary.id));
    road.net.run(8_000);
    expect(road.owners()).toEqual(['x 10.9.0.1']);
    expect(road.hub.of('child-up')).toHaveLength(2);
  });
});
