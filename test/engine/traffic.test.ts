import { describe, expect, it } from 'vitest';
import type { TunnelConfig } from '../../src/engine/config.ts';
import type { ChildLifetime } from '../../src/ike/config.ts';
import { type EnginePair, enginePair, Net, opposite, packet, protect, tunnel } from '../support/engine-net.ts';
import { at, child, connection, net as range } from '../support/ike-pair.ts';

function living(lifetime: Partial<ChildLifetime>, ike: Partial<ReturnType<typeof connection>> = {}): TunnelConfig {
  const whole = { soft: 3_600_000, hard: 4_000_000, jitter: 0, ...lifetime };
  return tunnel({ connections: [connection({ ...ike, children: [child('c', { lifetime: whole })] })] });
}

/** Both ends send a packet every `gap` ms for `duration` ms, and whatever was sent has arrived in the end. */
function converse({ net, a, b }: EnginePair, duration: number, gap: number): number {
  const until = net.now + duration;
  const marker = `${net.now}`;
  let count = 0;
  for (; net.now < until; count++) {
    net.send(a, [packet('10.1.0.1', '10.2.0.1', `${marker}>${count}`)]);
    net.send(b, [packet('10.2.0.1', '10.1.0.1', `${marker}<${count}`)]);
    net.run(gap);
  }
  net.run(1_000);
  const arrived = (texts: readonly string[], direction: string): string[] =>
    texts.filter((text) => text.startsWith(marker + direction)).sort();
  const sent = (direction: string): string[] =>
    Array.from({ length: count }, (_, i) => `${marker}${direction}${i}`).sort();
  expect(arrived(b.texts(), '>')).toEqual(sent('>'));
  expect(arrived(a.texts(), '<')).toEqual(sent('<'));
  return count;
}

/** Nothing of SAs that were replaced is left, once what was under way has had its time. */
function expectTidy({ net, a, b }: EnginePair): void {
  net.run(20_000);
  for (const peer of [a, b]) {
    expect(peer.halves().outbound.usable).toBe(true);
    expect(peer.engine.planes.sending.size).toBe(1);
    expect(inboundSpis(peer)).toEqual([peer.child().summary.spiIn]);
    expect(peer.drops()).toEqual({});
    expect(peer.engine.inboundDrops()).toEqual({});
    expect(peer.engine.ike.counters().bug).toBe(0);
  }
}

function inboundSpis(peer: EnginePair['a']): number[] {
  return peer.engine.ike.status().flatMap((sa) => sa.children.map((entry) => entry.spiIn));
}

const rekeys = ({ a }: EnginePair): number =>
  a.of('child-up').filter(({ child: { replaces } }) => replaces !== undefined).length;

describe('a rekeying loses no packet', () => {
  it.each([
    ['after packets', { packets: 64n }],
    ['after bytes', { bytes: 4_096n }],
    ['after time', { soft: 2_000, hard: 60_000 }],
  ])('%s, with delays and reordering', (_, lifetime) => {
    for (let seed = 1; seed <= 5; seed++) {
      const pair = enginePair({ seed, a: living(lifetime) });
      const { net, a } = pair;
      net.send(a, [packet('10.1.0.1', '10.2.0.1', 'up')]);
      net.run();
      net.delay = () => 1 + net.random.below(60);
      converse(pair, 12_000, 20);
      expect(rekeys(pair)).toBeGreaterThan(3);
      expectTidy(pair);
    }
  });

  it('of an IKE SA, whose children go on as they are', () => {
    const pair = enginePair({ a: living({}, { lifetime: { soft: 3_000, hard: 60_000, jitter: 0 } }) });
    const { net, a, b } = pair;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'up')]);
    net.run();
    const { id, spiIn } = a.child().summary;
    net.delay = () => 1 + net.random.below(60);
    converse(pair, 12_000, 50);
    expect(a.of('ike-up').filter(({ replaces }) => replaces !== undefined).length).toBeGreaterThan(2);
    expect(a.child().summary).toMatchObject({ id, spiIn });
    expect(a.of('child-up')).toHaveLength(1);
    // The child follows its IKE SA: it can be rekeyed under it, and goes with it.
    const ikeSa = a.engine.ike.status().find(({ state }) => state === 'established')!;
    expect(a.child().ikeSaId).toBe(ikeSa.id);
    net.act(a, ({ ike }, now) => ike.rekeyChild(now, id));
    net.run();
    expect(a.child().summary.spiIn).not.toBe(spiIn);
    net.act(b, (engine, now) => engine.down(now, 't'));
    net.run(100);
    expect([...a.tunnel().children]).toEqual([]);
  });

  it('and the SA that was replaced is received on only a while, and its keys are wiped', () => {
    const pair = enginePair();
    const { net, a, b } = pair;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'up')]);
    net.run();
    const { id } = a.child().summary;
    const [old, peers] = [a.halves(), b.halves()];
    // A packet that is under way during the whole rekeying, and one that is under way for too long.
    const slow: (typeof net.sent)[number][] = [];
    net.filter = (datagram) => !(datagram.from === a && datagram.data.length > 0 && slow.push(datagram));
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'slow')]);
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'too slow')]);
    net.filter = () => true;
    net.act(a, ({ ike }, now) => ike.rekeyChild(now, id));
    net.run();
    expect(old.outbound.usable).toBe(false);
    expect(peers.outbound.usable).toBe(false);
    expect([old.inbound.usable, peers.inbound.usable]).toEqual([true, true]);
    net.deliver(b, [slow[0]!]);
    net.deliver(b, [slow[0]!]);
    expect(b.texts()).toEqual(['up', 'slow']);
    expect(b.engine.inboundDrops()).toEqual({ replay: 1 });
    net.run(5_000);
    expect([old.inbound.usable, peers.inbound.usable]).toEqual([false, false]);
    net.deliver(b, [slow[1]!]);
    expect(b.engine.inboundDrops()).toEqual({ replay: 1, 'unknown-spi': 1 });
    // What was dropped on it stays counted.
    expect(b.drops()).toEqual({ replay: 1 });
  });
});

describe('hard limits', () => {
  it('of time end an SA without the peer’s help, and a trap asks for another', () => {
    const pair = enginePair({ a: living({ soft: 0, hard: 30_000 }) });
    const { net, a, b } = pair;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'one')]);
    net.run();
    const first = a.halves();
    net.filter = () => false;
    net.run(30_000);
    expect(first.inbound.usable || first.outbound.usable).toBe(false);
    expect([a.tunnel().children.size, b.tunnel().children.size]).toEqual([0, 0]);
    expect(a.of('child-down').map(({ reason }) => reason)).toEqual(['expired']);
    net.filter = () => true;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'two')]);
    net.run(60_000);
    expect(b.texts()).toEqual(['one', 'two']);
  });

  it('of 0 are none', () => {
    const pair = enginePair({ a: living({ soft: 0, hard: 0 }) });
    const { net, a } = pair;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'up')]);
    net.run(100 * 24 * 3_600_000);
    converse(pair, 100, 50);
    expect(a.of('child-up')).toHaveLength(1);
  });

  it('of packets hold when the peer does not let us rekey', () => {
    const pair = enginePair({ a: living({ packets: 20n }) });
    const { net, a, b } = pair;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'up')]);
    net.run();
    // IKE is lost, ESP is not.
    net.filter = ({ data }) => data[0] !== 0 || data[3] !== 0;
    for (let i = 0; i < 40; i++) net.send(a, [packet('10.1.0.1', '10.2.0.1', `${i}`)]);
    net.run(100);
    expect(b.texts()).toHaveLength(20);
    expect(a.of('child-down').map(({ reason }) => reason)).toEqual(['expired']);
  });
});

describe('several tunnels', () => {
  /** Peer number `n` behind 10.2.n.0/24 at 192.0.2.(10 + n). */
  const star = (count: number) => {
    const net = new Net(7);
    const hub = net.peer('hub', '192.0.2.1');
    const spokes = Array.from({ length: count }, (_, n) => {
      const selectors = { local: [range('10.1.0.0/24')], remote: [range(`10.2.${n}.0/24`)] };
      const base = connection();
      const config = tunnel({
        name: `t${n}`,
        connections: [
          connection({
            name: `n${n}`,
            remote: { ...base.remote, address: at(`192.0.2.${10 + n}`, 0).address },
            children: [child('c', { selectors })],
          }),
        ],
        policy: [protect({ selectors })],
      });
      const spoke = net.peer(`s${n}`, `192.0.2.${10 + n}`);
      net.add(spoke, opposite(config, { name: 't' }));
      net.add(hub, config);
      return spoke;
    });
    return { net, hub, spokes };
  };

  it('deliver each packet to its own device, also when they come in one batch', () => {
    const { net, hub, spokes } = star(3);
    for (const n of [0, 1, 2]) net.send(hub, [packet('10.1.0.1', `10.2.${n}.1`, `to ${n}`)], `t${n}`);
    net.run();
    expect(spokes.map((spoke) => spoke.texts())).toEqual([['to 0'], ['to 1'], ['to 2']]);
    const mixed: (typeof net.sent)[number][] = [];
    net.filter = (datagram) => mixed.push(datagram) === 0;
    for (const i of [0, 1, 2, 3]) {
      for (const [n, spoke] of spokes.entries()) {
        net.send(spoke, [packet(`10.2.${n}.1`, '10.1.0.1', `${n}.${i}`)]);
      }
    }
    net.deliver(hub, mixed);
    for (const n of [0, 1, 2]) expect(hub.texts(`t${n}`)).toEqual([0, 1, 2, 3].map((i) => `${n}.${i}`));
    // A batch without a single good packet is nobody's.
    net.deliver(hub, mixed);
    for (const n of [0, 1, 2]) expect(hub.texts(`t${n}`)).toHaveLength(4);
    expect(hub.engine.inboundDrops()).toEqual({ replay: 12 });
    expect(hub.drops('t1')).toEqual({ replay: 4 });
  });

  it('may not speak for each other', () => {
    const { net, hub, spokes } = star(2);
    for (const n of [0, 1]) net.send(hub, [packet('10.1.0.1', `10.2.${n}.1`, 'up')], `t${n}`);
    net.run();
    // The policy of spoke 1 does not let it through: spoke 0's SA would carry it, were it to say 10.2.1.1.
    net.send(spokes[1]!, [packet('10.2.0.1', '10.1.0.1', 'forged')]);
    net.run();
    expect(spokes[1]!.drops()).toEqual({ 'no-policy': 1 });
    expect(hub.texts('t0')).toEqual([]);
  });

  it('come and go without touching the others', () => {
    const { net, hub, spokes } = star(3);
    for (const n of [0, 1, 2]) net.send(hub, [packet('10.1.0.1', `10.2.${n}.1`, 'up')], `t${n}`);
    net.run();
    const { config } = hub.tunnel('t1');
    net.act(hub, (engine, now) => engine.removeTunnel(now, 't1'));
    net.run();
    expect(spokes[1]!.of('ike-down').map(({ reason }) => reason)).toEqual(['deleted-by-peer']);
    expect(hub.engine.tunnel('t1')).toBeUndefined();
    expect(() => net.send(hub, [], 't1')).toThrow('there is no tunnel named t1');
    net.send(hub, [packet('10.1.0.1', '10.2.2.1', 'still')], 't2');
    net.run();
    expect(spokes[2]!.texts()).toEqual(['up', 'still']);
    net.add(hub, config);
    net.send(hub, [packet('10.1.0.1', '10.2.1.1', 'again')], 't1');
    net.run();
    expect(spokes[1]!.texts()).toEqual(['up', 'again']);
    net.send(spokes[1]!, [packet('10.2.1.1', '10.1.0.1', 'back')]);
    net.run();
    expect(hub.texts('t1')).toEqual(['back']);
  });
});

describe('the policy', () => {
  it('sends nothing in the clear that a narrower SA does not carry', () => {
    const config = tunnel();
    const narrow = { local: [range('10.2.0.0/25')], remote: [range('10.1.0.0/24')] };
    const other = opposite(config);
    const b = {
      ...other,
      connections: other.connections.map((c) => ({ ...c, children: [child('c', { selectors: narrow })] })),
    };
    const pair = enginePair({ a: config, b });
    const { net, a } = pair;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'inside'), packet('10.1.0.1', '10.2.0.200', 'outside')]);
    net.run();
    expect(a.child().summary).toMatchObject({ selectors: { remote: [range('10.2.0.0/25')] } });
    expect(pair.b.texts()).toEqual(['inside']);
    const before = net.sent.length;
    net.send(a, [packet('10.1.0.1', '10.2.0.200', 'outside')]);
    net.run(20_000);
    expect(net.sent.slice(before)).toEqual([]);
    expect(a.drops()).toEqual({ 'narrowed-by-peer': 2 });
    expect(a.tunnel().held).toBe(0);
    expect(net.sent.some(({ data }) => new TextDecoder('latin1').decode(data).includes('outside'))).toBe(false);
  });

  it('lets no packet bypass, and takes `use` for `require`, as a device has no way round the tunnel', () => {
    const config = tunnel({
      policy: [
        protect({ level: 'use' }),
        protect({
          name: 'clear',
          action: 'bypass',
          priority: 10,
          child: undefined,
          selectors: { local: [range('10.1.0.9')], remote: [range('10.2.0.9')] },
        }),
        protect({
          name: 'never',
          action: 'discard',
          priority: 10,
          child: undefined,
          selectors: { local: [range('10.1.0.8')], remote: [range('10.2.0.8')] },
        }),
      ],
    });
    const { net, a, b } = enginePair({ a: config });
    net.send(a, [
      packet('10.1.0.9', '10.2.0.9', 'bypass'),
      packet('10.1.0.8', '10.2.0.8', 'discard'),
      packet('10.1.0.1', '10.2.0.1', 'use'),
      packet('10.3.0.1', '10.2.0.1', 'nothing'),
    ]);
    expect(a.tunnel().held).toBe(1);
    expect(a.drops()).toEqual({ 'no-policy': 1, 'discarded-by-policy': 1 });
    expect(a.tunnel().bypassed).toBe(1);
    net.run();
    expect(b.texts()).toEqual(['use']);
    expect(a.drops()).toEqual({ 'no-policy': 1, 'discarded-by-policy': 1 });
  });
});

describe('the way of a peer', () => {
  const elsewhere = at('198.51.100.7', 31_000);

  /** `a` is behind a NAT that gives it the address `elsewhere` from `moved` on. */
  const natted = () => {
    // Where a NAT will put the peer cannot be configured.
    const other = opposite(tunnel());
    const roaming = other.connections.map((c) => ({ ...c, remote: { ...c.remote, address: undefined } }));
    const pair = enginePair({ b: { ...other, connections: roaming } });
    const nat = { outside: at('198.51.100.7', 30_000), moved: false };
    const { net, a, b } = pair;
    const inside = (port: number) => at('192.0.2.1', port);
    net.filter = (datagram) => {
      const { path } = datagram;
      if (datagram.from === a) {
        const outside = nat.moved ? elsewhere : nat.outside;
        // Ports 500 and 4500 of the inside are two ports outside.
        const local = { ...outside, port: outside.port + (path.local.port === 500 ? 1 : 0) };
        datagram.path = { local, remote: path.remote };
      } else {
        const { port } = path.remote;
        datagram.path = { local: path.local, remote: inside(port === 30_001 || port === 31_001 ? 500 : 4500) };
        return (nat.moved ? [31_000, 31_001] : [30_000, 30_001]).includes(port);
      }
      return true;
    };
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'up')]);
    net.run();
    expect(b.child().path.remote).toEqual(nat.outside);
    return { ...pair, nat };
  };

  it('follows a NAT that gives it another port, by the newest authentic packet', () => {
    const { net, a, b, nat } = natted();
    nat.moved = true;
    net.send(b, [packet('10.2.0.1', '10.1.0.1', 'lost')]);
    net.run();
    expect(a.texts()).toEqual([]);
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'here')]);
    net.run();
    expect(b.of('path-changed').map(({ path }) => path.remote)).toEqual([elsewhere]);
    expect(b.child().path.remote).toEqual(elsewhere);
    net.send(b, [packet('10.2.0.1', '10.1.0.1', 'found')]);
    net.run();
    expect(a.texts()).toEqual(['found']);
    expect(b.engine.ike.status()[0]!.path.remote).toEqual(elsewhere);
  });

  it('is not changed by replays, forgeries, or packets that were overtaken', () => {
    const { net, a, b, nat } = natted();
    const seen: (typeof net.sent)[number][] = [];
    const { filter } = net;
    net.filter = (datagram) => seen.push(datagram) === 0;
    for (const text of ['old', 'new']) net.send(a, [packet('10.1.0.1', '10.2.0.1', text)]);
    net.filter = filter;
    const [old, newest] = seen.map(({ data }) => data);
    const home = { local: nat.outside, remote: at('192.0.2.2', 4500) };
    const path = { local: elsewhere, remote: at('192.0.2.2', 4500) };
    net.deliver(b, [{ path: home, data: newest! }]);
    const forged = newest!.slice();
    forged[7]! += 5;
    const anybody = newest!.slice();
    anybody[0]! ^= 1;
    net.deliver(b, [
      { path, data: newest! },
      { path, data: forged },
      { path, data: anybody },
      { path, data: old! },
    ]);
    expect(b.texts()).toEqual(['up', 'new', 'old']);
    expect(b.engine.inboundDrops()).toEqual({ replay: 1, 'bad-icv': 1, 'unknown-spi': 1 });
    expect(b.of('path-changed')).toEqual([]);
    expect(b.child().path.remote).toEqual(nat.outside);
  });
});
