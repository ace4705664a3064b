/** An identity holds in the connection that it was proven for, and as far as its credential goes. */
import { describe, expect, it } from 'vitest';
import { formatAddress } from '../../src/base/address.ts';
import { opposite, tunnel } from '../support/engine-net.ts';
import { at, connection } from '../support/ike-pair.ts';
import { HUB_ID, Road } from '../support/road.ts';

const SITE = { name: 'gw', remote: '10.2.0.0/24', peer: 'b' };
const OPEN = { name: 'road', remote: '10.3.0.0/16' };
const TRAP = { start: 'trap' } as const;

/** What an address translator between a peer and the hub makes of its messages: they come from elsewhere. */
function translate(road: Road, peer: Road['hub'], outside: () => string): void {
  const { filter } = road.net;
  road.net.filter = (datagram) => {
    const { local, remote } = datagram.path;
    if (datagram.from === peer) datagram.path = { local: at(outside(), local.port), remote };
    const isBack = datagram.from === road.hub && formatAddress(remote.address) === outside();
    if (isBack) datagram.path = { local, remote: at(peer.address, remote.port) };
    return filter(datagram);
  };
}

/** Brings up the tunnel of a peer by itself: nothing is tried again. */
function dial(road: Road, peer: Road['hub'], connection = 'net'): void {
  road.net.act(peer, (engine, now) => engine.ike.initiate(now, connection));
  road.net.run(2_000);
}

const reasons = (road: Road, tunnel: string): string[] =>
  road.hub.events.flatMap((event) => (event.type === 'ike-down' && event.tunnel === tunnel ? [event.reason] : []));

describe('a holder of a shared key that sends INITIAL_CONTACT', () => {
  it.each(['b', 'hub', 'w', 'nobody'])('ends no IKE SA of another peer when it claims the identity %s', (says) => {
    const road = new Road(SITE, OPEN);
    road.call('b', '192.0.2.2', '10.2.0.0/24', { secret: 'key of gw' });
    road.call('w', '192.0.2.3', '10.3.0.1');
    for (let i = 0; i < 5; i++) {
      const x = road.call('x', '192.0.2.66', `10.3.66.${i}`, { id: says, change: TRAP });
      dial(road, x);
      expect(x.of('ike-up')).toHaveLength(1);
      expect([road.reaches('10.2.0.1', 'gw'), road.reaches('10.3.0.1')]).toEqual([['b'], ['w']]);
      road.vanish(x);
    }
    expect(reasons(road, 'gw')).toEqual([]);
    expect(road.owners('gw')).toEqual(['b 10.2.0.0/24']);
    expect(road.owners()).toContain('w 10.3.0.1');
    // Its own former one, from its own address and port, it does end.
    expect(reasons(road, 'road')).toEqual(new Array(4).fill('peer-restarted'));
  });

  it('cannot authenticate as the peer of another tunnel', () => {
    const road = new Road(SITE, OPEN);
    const x = road.call('x', '192.0.2.66', '10.2.0.0/24', { id: 'b', change: TRAP });
    dial(road, x);
    expect(road.hub.of('need-secret')).toMatchObject([{ tunnel: 'gw', connection: 'gw' }]);
    expect(road.hub.of('failed')).toMatchObject([{ tunnel: 'gw', reason: 'AUTHENTICATION_FAILED' }]);
    expect(x.of('ike-up')).toEqual([]);
  });

  it('does not keep us from sending INITIAL_CONTACT to the peer whose identity it claims', () => {
    const road = new Road(OPEN);
    const { local, ...rest } = connection({ name: 'site' });
    const config = tunnel({ name: 'site', connections: [{ ...rest, local: { ...local, id: HUB_ID } }] });
    const b = road.net.peer('b', '192.0.2.2');
    road.net.add(b, opposite(config));
    const former = road.net.peer('former hub', '192.0.2.1');
    road.net.add(former, config);
    dial(road, former, 'site');
    road.vanish(former);
    dial(road, road.call('x', '192.0.2.66', '10.3.66.1', { id: 'b', change: TRAP }));
    road.hub.secrets.set('site', b.secret!);
    road.net.add(road.hub, config);
    dial(road, road.hub, 'site');
    expect(b.of('ike-down')).toMatchObject([{ reason: 'peer-restarted' }]);
    expect(b.tunnel('site').children.size).toBe(1);
  });
});

describe('a holder of a shared key that claims the identity of another peer', () => {
  it('gets none of its addresses while that peer answers', () => {
    const road = new Road(OPEN);
    const w = road.call('w', '192.0.2.3', '10.3.0.1');
    const x = road.call('x', '192.0.2.66', '10.3.0.1', { id: 'w' });
    road.net.run(60_000);
    expect(road.owners()).toEqual(['w 10.3.0.1']);
    expect(road.reaches('10.3.0.1')).toEqual(['w']);
    expect(w.of('ike-down')).toEqual([]);
    expect(new Set(x.of('failed').map(({ reason }) => reason))).toEqual(
      new Set(['TEMPORARY_FAILURE', 'TS_UNACCEPTABLE']),
    );
    expect(road.refusals()[0]).toMatch(/^TEMPORARY_FAILURE: .* the owner is being probed$/);
  });

  it('gets its addresses within seconds after that peer vanished, as after a crash', () => {
    const road = new Road(OPEN);
    road.vanish(road.call('w', '192.0.2.3', '10.3.0.1'));
    const back = road.call('w', '192.0.2.9', '10.3.0.1');
    road.net.run(9_000);
    expect(road.reaches('10.3.0.1')).toEqual(['w']);
    expect(road.owners()).toEqual(['w 10.3.0.1']);
    expect(reasons(road, 'road')).toEqual(['peer-dead']);
    expect(back.tunnel().children.size).toBe(1);
  });

  it('gets all that it asks for after that peer vanished, not only what was free', () => {
    const road = new Road(OPEN);
    road.vanish(road.call('w', '192.0.2.3', '10.3.0.0/25'));
    road.call('w', '192.0.2.9', '10.3.0.0/24');
    road.net.run(9_000);
    expect(road.owners()).toEqual(['w 10.3.0.0/24']);
  });

  it('gets its addresses at once from the same address and port', () => {
    const road = new Road(OPEN);
    road.vanish(road.call('w', '192.0.2.3', '10.3.0.1'));
    road.call('w', '192.0.2.3', '10.3.0.1');
    expect(road.reaches('10.3.0.1')).toEqual(['w']);
    expect(reasons(road, 'road')).toEqual(['peer-restarted']);
    expect(road.refusals()).toEqual([]);
  });

  it('gains nothing by a forged source address of IKE_AUTH', () => {
    const road = new Road(OPEN);
    const w = road.call('w', '192.0.2.3', '10.3.0.1');
    const x = road.call('x', '192.0.2.66', '10.3.0.1', { id: 'w', change: TRAP });
    // From IKE_AUTH on all that x writes bears the address of w.
    road.net.filter = (datagram) => {
      const { local, remote } = datagram.path;
      if (datagram.from === x && local.port === 4500) datagram.path = { local: at('192.0.2.3', 4500), remote };
      return true;
    };
    dial(road, x);
    road.net.run(3_000);
    expect(road.reaches('10.3.0.1')).toEqual(['w']);
    expect(w.of('ike-down')).toEqual([]);
    expect(reasons(road, 'road')).not.toContain('redundant');
  });

  it('gains nothing by the address that the other peer had before it moved', () => {
    const road = new Road(OPEN);
    let [outsideOfW, outsideOfX] = ['192.0.2.77', '192.0.2.78'];
    const w = road.net.peer('w', '192.0.2.3');
    translate(road, w, () => outsideOfW);
    road.tunnelOf(w, '10.3.0.1', {});
    road.net.run(1_000);
    outsideOfW = '192.0.2.88';
    road.net.act(w, (engine, now) => engine.ike.rekeyIkeSa(now, w.child().ikeSaId));
    road.net.run(8_000);
    expect(road.hub.of('path-changed')).toHaveLength(1);
    const x = road.net.peer('x', '192.0.2.66');
    outsideOfX = '192.0.2.77';
    translate(road, x, () => outsideOfX);
    road.tunnelOf(x, '10.3.0.1', { id: 'w' });
    road.net.run(20_000);
    expect(road.reaches('10.3.0.1')).toEqual(['w']);
    expect(reasons(road, 'road')).toEqual(['rekeyed']);
  });

  it('gains nothing by moving to the address of the other peer', () => {
    const road = new Road(OPEN);
    const w = road.call('w', '192.0.2.3', '10.3.0.1');
    const x = road.call('x', '192.0.2.66', '10.3.66.1', { id: 'w', change: TRAP });
    translate(road, x, () => '192.0.2.77');
    dial(road, x);
    // Now it writes the address of w into its messages, to which no answer comes back.
    road.net.filter = (datagram) => {
      if (datagram.from === x) datagram.path = { ...datagram.path, local: at('192.0.2.3', 4500) };
      return true;
    };
    const { ikeSaId } = x.child();
    road.net.act(x, (engine, now) => engine.ike.rekeyIkeSa(now, ikeSaId));
    road.net.run(5_000);
    expect(road.hub.of('path-changed')).toHaveLength(1);
    // Now that the two seem to be at one place: w replaces its own IKE SA.
    road.net.act(w, (engine, now) => engine.ike.rekeyIkeSa(now, w.child().ikeSaId));
    road.net.run(9_000);
    expect(road.reaches('10.3.0.1')).toEqual(['w']);
    expect(reasons(road, 'road').filter((reason) => reason !== 'rekeyed')).toEqual([]);
  });

  it('does not keep that peer from rekeying its IKE SA', () => {
    const road = new Road(OPEN);
    const w = road.call('w', '192.0.2.3', '10.3.0.1');
    for (let i = 0; i < 20; i++) {
      const x = road.call('x', `192.0.2.${100 + i}`, `10.3.66.${i}`, { id: 'w', change: TRAP });
      dial(road, x);
    }
    expect(road.owners()).toHaveLength(21);
    const before = w.child().ikeSaId;
    road.net.act(w, (engine, now) => engine.ike.rekeyIkeSa(now, before));
    road.net.run(5_000);
    expect(w.child().ikeSaId).not.toBe(before);
    expect(road.reaches('10.3.0.1')).toEqual(['w']);
  });
});

describe('a proven identity', () => {
  it.each(['signature', 'psk'] as const)('of one tunnel acts on no IKE SA of another tunnel: %s', (auth) => {
    const other = { name: 'other', remote: '10.4.0.0/24', peer: 'b' };
    const road = new Road({ ...SITE, auth }, { ...other, auth });
    road.call('b', '192.0.2.2', '10.2.0.0/24', { auth, secret: 'key of gw' });
    const x = road.call('x', '192.0.2.66', '10.4.0.0/24', { auth, id: 'b', secret: 'key of other' });
    expect(x.tunnel().children.size).toBe(1);
    expect(reasons(road, 'gw')).toEqual([]);
    expect(road.reaches('10.2.0.1', 'gw')).toEqual(['b']);
  });

  it('acts on nothing that another kind of credential proved', () => {
    const road = new Road(SITE);
    road.call('b', '192.0.2.2', '10.2.0.0/25', { secret: 'key of gw' });
    const [config] = road.hub.tunnel('gw').config.connections;
    const { local, remote } = config!;
    const signed = { local: { ...local, auth: 'signature' }, remote: { ...remote, auth: 'signature' } } as const;
    road.hub.engine.ike.replaceConnection({ ...config!, ...signed });
    road.call('x', '192.0.2.66', '10.2.0.128/25', { auth: 'signature', id: 'b' });
    expect(reasons(road, 'gw')).toEqual([]);
    expect(road.owners('gw')).toEqual(['b 10.2.0.0/25', 'b 10.2.0.128/25']);
  });
});

describe('between tunnels', () => {
  it.each([
    ['which is up', true],
    ['which is not up', false],
  ])('a peer of a wildcard tunnel gets nothing that a more specific tunnel names, %s', (_how, up) => {
    const road = new Road(SITE, { name: 'road', remote: '10.0.0.0/8' });
    if (up) road.call('b', '192.0.2.2', '10.2.0.0/24', { secret: 'key of gw' });
    const x = road.call('x', '192.0.2.66', '10.2.0.1', { change: TRAP });
    dial(road, x);
    expect(x.of('failed')).toMatchObject([{ reason: 'TS_UNACCEPTABLE' }]);
    expect(road.refusals()).toEqual([expect.stringContaining('10.2.0.1 is reserved for connection gw')]);
    road.call('y', '192.0.2.67', '10.2.0.0/16');
    expect(road.owners()).toEqual(['y 10.2.1.0-10.2.255.255']);
    if (!up) road.call('b', '192.0.2.2', '10.2.0.0/24', { secret: 'key of gw' });
    expect(road.reaches('10.2.0.1', 'gw')).toEqual(['b']);
  });

  it.each(['hub', 'peer'])(
    'a peer of a wildcard tunnel loses what a new tunnel names at its rekeying: by the %s',
    (by) => {
      const road = new Road({ name: 'road', remote: '10.0.0.0/8' });
      const x = road.call('x', '192.0.2.66', '10.2.0.0/16');
      road.serve(SITE);
      road.call('b', '192.0.2.2', '10.2.0.0/24', { secret: 'key of gw' });
      expect([road.owners(), road.owners('gw')]).toEqual([['x 10.2.0.0/16'], ['b 10.2.0.0/24']]);
      const [side, name] = by === 'hub' ? [road.hub, 'road'] : [x, 't'];
      road.net.act(side, (engine, now) => engine.ike.rekeyChild(now, side.child(name).summary.id));
      road.net.run(8_000);
      expect([road.owners(), road.owners('gw')]).toEqual([['x 10.2.1.0-10.2.255.255'], ['b 10.2.0.0/24']]);
      expect(road.refusals()).toEqual([]);
    },
  );

  it('a peer of a wildcard tunnel gets what a more specific tunnel named when that one is removed', () => {
    const road = new Road(SITE, { name: 'road', remote: '10.0.0.0/8' });
    road.call('x', '192.0.2.66', '10.2.0.1');
    expect(road.owners()).toEqual([]);
    road.net.act(road.hub, (engine, now) => engine.removeTunnel(now, 'gw'));
    road.net.run(70_000);
    expect(road.owners()).toEqual(['x 10.2.0.1']);
  });

  it('a rule of the same tunnel reserves nothing', () => {
    const road = new Road({ name: 'road', remote: ['10.2.0.0/16', '10.2.3.0/24'] });
    road.call('x', '192.0.2.66', '10.2.0.0/20');
    expect(road.owners()).toEqual(['x 10.2.0.0/20']);
  });

  it('a tunnel for everything leaves room for tunnels within it, in any order', () => {
    for (const order of [
      ['hq', 'road'],
      ['road', 'hq'],
    ]) {
      const road = new Road({ name: 'hq', remote: '0.0.0.0/0', peer: 'q' }, OPEN);
      for (const name of order) {
        if (name === 'hq') road.call('q', '192.0.2.2', '0.0.0.0/0', { secret: 'key of hq' });
        else road.call('w', '192.0.2.3', '10.3.0.1');
      }
      expect([road.owners('hq'), road.owners()]).toEqual([['q 0.0.0.0/0'], ['w 10.3.0.1']]);
      expect(road.refusals()).toEqual([]);
    }
  });

  it('of two tunnels for the same addresses the second gets them when the first is down', () => {
    const road = new Road(SITE, { ...SITE, name: 'spare', peer: 'c' });
    const b = road.call('b', '192.0.2.2', '10.2.0.0/24', { secret: 'key of gw' });
    road.call('c', '192.0.2.3', '10.2.0.0/24', { secret: 'key of spare' });
    expect([road.owners('gw'), road.owners('spare')]).toEqual([['b 10.2.0.0/24'], []]);
    road.net.act(b, (engine, now) => engine.down(now, 't'));
    road.net.run(70_000);
    expect([road.owners('gw'), road.owners('spare')]).toEqual([[], ['c 10.2.0.0/24']]);
  });

  it('two tunnels may have the same remote addresses for different local ones', () => {
    const road = new Road(
      { ...SITE, local: '10.1.0.0/25' },
      { ...SITE, name: 'other', peer: 'c', local: '10.1.0.128/25' },
    );
    road.call('b', '192.0.2.2', '10.2.0.0/24', { secret: 'key of gw' });
    road.call('c', '192.0.2.3', '10.2.0.0/24', { secret: 'key of other' });
    expect([road.owners('gw'), road.owners('other')]).toEqual([['b 10.2.0.0/24'], ['c 10.2.0.0/24']]);
  });
});
