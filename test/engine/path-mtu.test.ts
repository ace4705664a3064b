import { describe, expect, it } from 'vitest';
import type { DeviceWrite } from '../../src/engine/options.ts';
import { Flow, readFlow } from '../../src/policy/flow.ts';
import { type EnginePair, enginePair, opposite, type Peer, packet, tunnel } from '../support/engine-net.ts';

/** Outer IPv4 and UDP, SPI and sequence number, IV, ICV; then the trailer, and what padding leaves of four. */
const overhead = (mtu: number): number => 20 + 8 + 8 + 8 + 16 + 2 + ((mtu - 60) % 4);

function datagram(length: number, { df = true, from = '10.1.0.1', to = '10.2.0.1' } = {}): Uint8Array {
  const bytes = packet(from, to, 'x'.repeat(length - 28));
  if (df) bytes[6] = 0x40;
  return bytes;
}

/** An IPv4 SYN with an MSS of 9000. */
function syn(from: string, to: string): Uint8Array {
  const bytes = packet(from, to, '.'.repeat(16));
  bytes[9] = 6;
  bytes.set([0x60, 0x02], 32);
  bytes.set([2, 4, 0x23, 0x28], 40);
  return bytes;
}

function answers(peer: Peer): DeviceWrite[] {
  const all: DeviceWrite[] = [];
  for (let answer = peer.engine.pollDeviceWrite(); answer !== undefined; answer = peer.engine.pollDeviceWrite())
    all.push(answer);
  return all;
}

/** The tunnel is up, and what brought it up has arrived. */
function upPair(change: Parameters<typeof tunnel>[0] = {}): EnginePair {
  const config = tunnel(change);
  const pair = enginePair({ a: config, b: opposite(config) });
  pair.net.send(pair.a, [datagram(1000)]);
  pair.net.run();
  return pair;
}

function mtuTold({ packet: bytes }: DeviceWrite): number {
  const flow = new Flow();
  expect(readFlow(bytes, 0, bytes.length, flow)).toBe(0);
  expect(flow.srcPort).toBe(0x304);
  return (bytes[26]! << 8) | bytes[27]!;
}

/** What arrives of the SYN's MSS. */
function mssThrough({ net, a, b }: EnginePair, from: Peer): number {
  const [source, destination] = from === a ? ['10.1.0.1', '10.2.0.1'] : ['10.2.0.1', '10.1.0.1'];
  let mss = 0;
  const to = from === a ? b : a;
  net.filter = (one) => {
    to.engine.receive(net.now, { local: one.path.remote, remote: one.path.local }, one.data.slice());
    to.engine.flush(net.now, (_, batch) => {
      mss = (batch.packet(0)[42]! << 8) | batch.packet(0)[43]!;
    });
    return false;
  };
  net.send(from, [syn(source!, destination!)]);
  net.filter = () => true;
  return mss;
}

describe('the MTU of a path', () => {
  it('is what DF packets must fit once they are sealed', () => {
    const pair = upPair();
    const { net, a, b } = pair;
    for (let mtu = 1300; mtu < 1308; mtu++) {
      a.engine.setPathMtu(a.child().path, mtu);
      const fits = mtu - overhead(mtu);
      net.sent.length = 0;
      net.send(a, [datagram(fits), datagram(fits + 1)]);
      expect(net.sent).toHaveLength(1);
      expect(net.sent[0]!.data.length + 28).toBeLessThanOrEqual(mtu);
      expect(answers(a).map(mtuTold)).toEqual([fits]);
    }
    net.run();
    expect(b.texts()).toHaveLength(9);
    expect(a.drops()).toEqual({ 'too-big': 8 });
  });

  it('does not affect packets that may be fragmented, nor the other end', () => {
    const { net, a, b } = upPair();
    a.engine.setPathMtu(a.child().path, 1300);
    net.send(a, [datagram(1400, { df: false })]);
    net.send(b, [datagram(1400, { from: '10.2.0.1', to: '10.1.0.1' })]);
    net.run();
    expect([b.texts().length, a.texts().length]).toEqual([2, 1]);
    expect([...answers(a), ...answers(b)]).toEqual([]);
  });

  it('may grow again', () => {
    const { net, a, b } = upPair();
    a.engine.setPathMtu(a.child().path, 1300);
    net.send(a, [datagram(1400)]);
    a.engine.setPathMtu(a.child().path, 1500);
    net.send(a, [datagram(1400)]);
    net.run();
    expect(answers(a)).toHaveLength(1);
    expect(b.texts()).toHaveLength(2);
  });

  it('is known to the SA that replaces one', () => {
    const { net, a } = upPair();
    const former = a.child().summary.spiOut;
    a.engine.setPathMtu(a.child().path, 1300);
    net.act(a, ({ ike }, now) => ike.rekeyChild(now, a.child().summary.id));
    net.run();
    expect(a.child().summary.spiOut).not.toBe(former);
    net.send(a, [datagram(1300)]);
    expect(answers(a)).toHaveLength(1);
  });

  it('is forgotten when the peer moves', () => {
    const { net, a, b } = upPair();
    b.engine.setPathMtu(b.child().path, 1300);
    const { path } = a.child();
    const moved = { ...path, local: { ...path.local, port: 40_000 } };
    net.filter = (one) => {
      if (one.from === a) one.path = moved;
      return true;
    };
    net.send(a, [datagram(100)]);
    net.run();
    expect(b.of('path-changed')).toHaveLength(1);
    net.send(b, [datagram(1400, { from: '10.2.0.1', to: '10.1.0.1' })]);
    expect(answers(b)).toEqual([]);
  });

  it('of others is another', () => {
    const { net, a } = upPair();
    const { path } = a.child();
    a.engine.setPathMtu({ ...path, remote: { ...path.remote, port: 1 } }, 1300);
    net.send(a, [datagram(1400)]);
    expect(answers(a)).toEqual([]);
  });

  it('holds for packets that waited for the SA', () => {
    const { net, a } = upPair();
    a.engine.setPathMtu(a.child().path, 1300);
    // The path is known from the SA that goes; what waits for the next one has to fit all the same.
    net.act(a, ({ ike }, now) => ike.rekeyChild(now, a.child().summary.id));
    net.send(a, [datagram(1300)]);
    net.run();
    expect(answers(a)).toHaveLength(1);
  });
});

describe('answers', () => {
  it('name their tunnel, and are limited in number', () => {
    const { net, a } = upPair();
    a.engine.setPathMtu(a.child().path, 1300);
    const flood = Array.from({ length: 200 }, () => datagram(1400));
    net.send(a, flood);
    expect(answers(a).map((answer) => answer.tunnel)).toEqual(Array.from({ length: 50 }, () => 't'));
    net.run(100);
    net.send(a, flood);
    expect(answers(a)).toHaveLength(10);
    expect(a.drops()).toEqual({ 'too-big': 400 });
  });
});

describe('the MSS of TCP', () => {
  it('is lowered to the device, both ways', () => {
    const pair = upPair({ mtu: 1400 });
    const mirror = enginePair({ a: tunnel({ mtu: 1400 }), b: opposite(tunnel(), { mtu: 9000 }) });
    mirror.net.send(mirror.a, [datagram(1000)]);
    mirror.net.run();
    expect([mssThrough(pair, pair.a), mssThrough(pair, pair.b)]).toEqual([1360, 1360]);
    expect([mssThrough(mirror, mirror.a), mssThrough(mirror, mirror.b)]).toEqual([1360, 1360]);
  });

  it('is lowered to the path MTU, when that is smaller', () => {
    const pair = upPair({ mtu: 1400 });
    pair.a.engine.setPathMtu(pair.a.child().path, 1300);
    const fits = 1300 - overhead(1300) - 40;
    expect([mssThrough(pair, pair.a), mssThrough(pair, pair.b)]).toEqual([fits, fits]);
  });

  it('is left alone when it is said so', () => {
    const pair = upPair({ mtu: 1400, clampMss: false });
    pair.a.engine.setPathMtu(pair.a.child().path, 1300);
    expect([mssThrough(pair, pair.a), mssThrough(pair, pair.b)]).toEqual([9000, 9000]);
  });
});
