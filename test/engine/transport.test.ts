/** Transport mode from IKE to packets: between hosts, through a NAT, through rekeyings. */
import { describe, expect, it } from 'vitest';
import { type IpAddress, parseAddress } from '../../src/base/address.ts';
import { sumBytes } from '../../src/base/checksum.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import { makeSelector, type TrafficSelector } from '../../src/policy/selector.ts';
import { Net, opposite, type Peer, packet, protect, tunnel } from '../support/engine-net.ts';
import { child, connection } from '../support/ike-pair.ts';

const ip = (text: string): IpAddress => parseAddress(text)!;
const host = (text: string): TrafficSelector[] => [makeSelector({ start: ip(text), end: ip(text) })];

/** What the host at `local` is configured with. */
function between(local: string, remote: string): TunnelConfig {
  const selectors = { local: host(local), remote: host(remote) };
  const base: ConnectionConfig = connection();
  return tunnel({
    connections: [
      {
        ...base,
        local: { ...base.local, address: ip(local) },
        remote: { ...base.remote, address: ip(remote) },
        children: [child('c', { mode: 'transport', selectors })],
      },
    ],
    policy: [protect({ selectors })],
  });
}

/** A UDP packet with a checksum, as the system of its sender makes it. */
function summed(source: string, destination: string, text: string): Uint8Array {
  const bytes = packet(source, destination, text);
  const length = bytes.length - 20;
  const sum = ~sumBytes(bytes, 20, length, sumBytes(bytes, 12, 8, length + 17)) & 0xffff;
  bytes.set([sum >>> 8, sum], 26);
  return bytes;
}

/** All ones: the checksums of the IP header and of UDP are right. */
function sums(bytes: Uint8Array): number[] {
  return [
    sumBytes(bytes, 0, 20),
    sumBytes(bytes, 20, bytes.length - 20, sumBytes(bytes, 12, 8, bytes.length - 20 + 17)),
  ];
}

/** Keeps whole packets in place of their texts. */
function collect(peer: Peer, into: Uint8Array[]): void {
  const flush = peer.engine.flush.bind(peer.engine);
  peer.engine.flush = (now, deliver) =>
    flush(now, (name, batch) => {
      for (let slot = 0; slot < batch.count; slot++)
        if (batch.length[slot] !== 0) into.push(batch.packet(slot).slice());
      deliver(name, batch);
    });
}

describe('a tunnel in transport mode', () => {
  it('holds the first packet for its SA, carries it without its header, and counts what it carried', () => {
    const net = new Net();
    const [a, b] = [net.peer('a', '192.0.2.1', { rawEsp: true }), net.peer('b', '192.0.2.2', { rawEsp: true })];
    net.add(b, opposite(between('192.0.2.1', '192.0.2.2')));
    net.add(a, between('192.0.2.1', '192.0.2.2'));
    net.send(a, [packet('192.0.2.1', '192.0.2.2', 'one')]);
    net.run();
    const esp = net.sent.at(-1)!;
    net.act(a, (engine, now) => engine.ike.rekeyChild(now, a.child().summary.id));
    net.run(10_000);
    net.send(a, [packet('192.0.2.1', '192.0.2.2', 'two')]);
    net.send(b, [packet('192.0.2.2', '192.0.2.1', 'back')]);
    net.run();
    expect([b.texts(), a.texts()]).toEqual([['one', 'two'], ['back']]);
    // SPI and number, IV, UDP header and three bytes, trailer, ICV.
    expect(esp.data.length).toBe(8 + 8 + ((8 + 3 + 2 + 3) & -4) + 16);
    expect([a.child().sent.counters[1], b.child().received.counters[1]]).toEqual([11, 11]);
  });

  it('drops what it cannot carry whole, and what is for others', () => {
    const net = new Net();
    const [a, b] = [net.peer('a', '192.0.2.1'), net.peer('b', '192.0.2.2')];
    net.add(b, opposite(between('192.0.2.1', '192.0.2.2')));
    net.add(a, between('192.0.2.1', '192.0.2.2'));
    net.send(a, [packet('192.0.2.1', '192.0.2.2', 'up')]);
    net.run();
    const fragment = packet('192.0.2.1', '192.0.2.2', 'x'.repeat(40));
    fragment.set([0x20, 0], 6);
    net.send(a, [fragment, packet('192.0.2.1', '192.0.2.3', 'elsewhere')]);
    net.run();
    expect(a.drops()).toEqual({ 'fragment-in-transport-mode': 1, 'no-policy': 1 });
    expect(b.texts()).toEqual(['up']);
  });

  it('never reports a packet that is too big, and lowers the MSS to the path MTU', () => {
    const net = new Net();
    const [a, b] = [net.peer('a', '192.0.2.1'), net.peer('b', '192.0.2.2')];
    net.add(b, opposite(between('192.0.2.1', '192.0.2.2')));
    net.add(a, { ...between('192.0.2.1', '192.0.2.2'), mtu: 65_280 });
    net.send(a, [packet('192.0.2.1', '192.0.2.2', 'up')]);
    net.run();
    const sa = a.engine.planes.sending.sa(a.child().summary.id)!;
    // Unknown paths are Ethernet: without outer IP, UDP, ESP and padding, and with the header that is not carried.
    expect(sa.clampMtu).toBe(((1500 - 20 - 8 - 8 - 8 - 16) & -4) - 2 + 20);
    a.engine.setPathMtu(a.child().path, 1400);
    expect(sa.clampMtu).toBe(((1400 - 60) & -4) - 2 + 20);
    const large = packet('192.0.2.1', '192.0.2.2', 'x'.repeat(1_900));
    large[6] = 0x40;
    net.send(a, [large]);
    net.run();
    expect(b.texts().at(-1)?.length).toBe(1_900);
    expect(a.engine.pollDeviceWrite()).toBeUndefined();
  });

  it('reads right through a NAT: each side sees its own addresses, and checksums that fit them', () => {
    const [inside, outside, open] = ['10.0.0.1', '198.51.100.1', '203.0.113.2'];
    const net = new Net();
    const [a, b] = [net.peer('a', inside), net.peer('b', open)];
    const mine = between(inside, open);
    const seen = between(open, outside);
    const [ids] = opposite(mine).connections;
    net.add(b, {
      ...opposite(mine),
      connections: [
        { ...ids!, remote: { ...ids!.remote, address: ip(outside) }, children: seen.connections[0]!.children },
      ],
      policy: seen.policy,
    });
    net.add(a, mine);
    net.filter = (datagram) => {
      const { local, remote } = datagram.path;
      datagram.path =
        datagram.from === a
          ? { local: { address: ip(outside), port: local.port + 1000 }, remote }
          : { local, remote: { address: ip(inside), port: remote.port - 1000 } };
      return true;
    };
    const [atA, atB]: Uint8Array[][] = [[], []];
    collect(a, atA!);
    collect(b, atB!);
    net.send(a, [summed(inside, open, 'out')]);
    net.run();
    net.send(b, [summed(open, outside, 'and back')]);
    net.run();
    expect([b.texts(), a.texts()]).toEqual([['out'], ['and back']]);
    for (const bytes of [atA![0]!, atB![0]!]) expect(sums(bytes)).toEqual([0xffff, 0xffff]);
    expect([...atB![0]!.subarray(12, 20)]).toEqual([198, 51, 100, 1, 203, 0, 113, 2]);
    expect([...atA![0]!.subarray(12, 20)]).toEqual([203, 0, 113, 2, 10, 0, 0, 1]);
  });
});
