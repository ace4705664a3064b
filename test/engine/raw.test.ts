/** ESP straight over IP, as protocol 50 (RFC 4303 §2, RFC 7296 §2.23): paths without ports. */
import { describe, expect, it } from 'vitest';
import { formatSocketAddress, NO_PORT, parseAddress } from '../../src/base/address.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import { type EnginePair, enginePair, opposite, packet, tunnel } from '../support/engine-net.ts';
import { connection } from '../support/ike-pair.ts';

const NAT = (mode: ConnectionConfig['nat']['mode']): ReturnType<typeof tunnel> =>
  tunnel({ connections: [connection({ nat: { mode, keepalive: 0 } })] });

function upPair(a: ConnectionConfig['nat']['mode'], b = a): EnginePair {
  const pair = enginePair({ a: NAT(a), b: opposite(NAT(b)), options: { rawEsp: true } });
  pair.net.send(pair.a, [packet('10.1.0.1', '10.2.0.1', 'there')]);
  pair.net.run();
  pair.net.send(pair.b, [packet('10.2.0.1', '10.1.0.1', 'and back')]);
  pair.net.run();
  return pair;
}

/** `4500>4500`, `raw` for what has no ports. */
const lines = ({ net }: EnginePair): string[] => [
  ...new Set(
    net.sent.map(({ path: { local, remote } }) => (local.port === NO_PORT ? 'raw' : `${local.port}>${remote.port}`)),
  ),
];

describe('ESP straight over IP', () => {
  it.each([
    ['auto', 'auto'],
    ['off', 'off'],
    ['off', 'auto'],
    ['auto', 'off'],
  ] as const)('is what is left without a NAT, between %s and %s', (a, b) => {
    const pair = upPair(a, b);
    expect(pair.b.texts()).toEqual(['there']);
    expect(pair.a.texts()).toEqual(['and back']);
    expect(lines(pair)).toEqual(['500>500', 'raw']);
    for (const peer of [pair.a, pair.b]) {
      expect(peer.child().summary.encapsulated).toBe(false);
      expect(peer.child().path.remote.port).toBe(NO_PORT);
    }
  });

  it('is not used when a NAT is pretended', () => {
    const pair = upPair('force', 'auto');
    expect(pair.b.texts()).toEqual(['there']);
    expect(lines(pair)).toEqual(['500>500', '4500>4500']);
  });

  it('stays on its path through a rekeying, of the child and of the IKE SA', () => {
    const pair = upPair('auto');
    const before = pair.a.child().summary;
    pair.net.act(pair.a, (engine, now) => engine.ike.rekeyChild(now, before.id));
    pair.net.run(10_000);
    const ikeSa = pair.a.engine.ike.status().find(({ state }) => state === 'established')!;
    pair.net.act(pair.a, (engine, now) => engine.ike.rekeyIkeSa(now, ikeSa.id));
    pair.net.run(10_000);
    expect(pair.a.child().summary.id).not.toBe(before.id);
    pair.net.send(pair.a, [packet('10.1.0.1', '10.2.0.1', 'again')]);
    pair.net.run();
    expect(pair.b.texts()).toEqual(['there', 'again']);
    expect(lines(pair)).toEqual(['500>500', 'raw']);
  });

  it('is received in UDP too, and from elsewhere, and follows neither', () => {
    const pair = upPair('auto');
    const { net, a, b } = pair;
    const before = b.child().path;
    net.filter = (datagram) => {
      if (datagram.path.local.port !== NO_PORT) return true;
      const elsewhere = { address: parseAddress('198.51.100.9')!, port: datagram.data[7]! % 2 === 0 ? 4500 : NO_PORT };
      const local = { ...datagram.path.remote, port: elsewhere.port };
      // RFC 7296 §2.23: what is in UDP must be taken even when there is no NAT.
      net.deliver(b, [{ path: { local: elsewhere, remote: local }, data: datagram.data }]);
      return false;
    };
    net.send(
      a,
      ['one', 'two', 'three'].map((text) => packet('10.1.0.1', '10.2.0.1', text)),
    );
    expect(b.texts()).toEqual(['there', 'one', 'two', 'three']);
    expect(b.child().path).toEqual(before);
    expect(b.of('path-changed')).toEqual([]);
    expect(formatSocketAddress(b.child().path.remote)).toBe('192.0.2.1:0');
  });

  it('of an SA that goes in UDP is received, and known as long as the peer sends it', () => {
    const { net, a, b } = upPair('force');
    const before = b.child().path;
    const send = (text: string): void => {
      // Once a second a plane reports that packets came.
      net.run(2_000);
      net.send(a, [packet('10.1.0.1', '10.2.0.1', text)]);
      net.run();
    };
    net.filter = ({ path: { local, remote }, data }) => {
      const path = { local: { ...local, port: NO_PORT }, remote: { ...remote, port: NO_PORT } };
      net.deliver(b, [{ path, data }]);
      return false;
    };
    expect(b.child().receivesBare).toBe(false);
    send('bare');
    expect([b.child().receivesBare, b.child().path]).toEqual([true, before]);
    net.filter = () => true;
    send('in UDP');
    expect(b.child().receivesBare).toBe(false);
    expect(b.texts()).toEqual(['there', 'bare', 'in UDP']);
  });

  it('has eight bytes more room than in UDP', () => {
    const room = (mode: 'auto' | 'force'): number => {
      const { a } = upPair(mode);
      a.engine.setPathMtu(a.child().path, 1500);
      return a.engine.planes.sending.sa(a.child().summary.id)!.mtu;
    };
    expect(room('auto') - room('force')).toBe(8);
  });

  it('counts packets that belong to no SA, and sends no reply', () => {
    const { net, a } = upPair('auto');
    const sent = net.sent.length;
    const path = { local: { address: parseAddress('198.51.100.9')!, port: NO_PORT }, remote: a.child().path.local };
    // Too short, an SPI of nobody, what would be IKE or a keepalive in UDP.
    const strange = [Uint8Array.of(255), new Uint8Array(7), new Uint8Array(40).fill(9), new Uint8Array(28)];
    net.deliver(
      a,
      strange.map((data) => ({ path, data })),
    );
    expect(a.engine.inboundDrops()).toEqual({ 'too-short': 2, 'unknown-spi': 2 });
    expect(a.engine.counters).toMatchObject({ keepalives: 0, empty: 0 });
    expect(net.sent.length).toBe(sent);
  });

  it('cannot be required of an owner that cannot send it', () => {
    expect(() => enginePair({ a: NAT('off') })).toThrow(
      'without NAT traversal ESP is sent directly over IP, which is not possible here',
    );
  });
});
