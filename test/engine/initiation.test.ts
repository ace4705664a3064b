/** An engine does not begin thousands of IKE SAs at the same time: a few to each peer, some dozens altogether; the others wait. */
import { describe, expect, it } from 'vitest';
import { parseAddress } from '../../src/base/address.ts';
import { identityFromText } from '../../src/base/identity.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import { MAX_INITIATING, MAX_TO_PEER, PLACE_TIME } from '../../src/engine/initiation-gate.ts';
import { type Datagram, Net, opposite, type Peer, packet, protect, tunnel } from '../support/engine-net.ts';
import { child, connection, net as prefix } from '../support/ike-pair.ts';

const NUMBER = 160;

interface Words extends Partial<TunnelConfig> {
  readonly peer?: string;
}

function branch(at: number, { peer = '192.0.2.2', ...change }: Words = {}): TunnelConfig {
  const selectors = { local: [prefix('10.1.0.0/16')], remote: [prefix(`10.2.${at}.0/24`)] };
  const base = connection();
  const own = connection({
    name: `net${at}`,
    local: { ...base.local, id: identityFromText('fqdn', `a${at}`) },
    remote: { ...base.remote, address: parseAddress(peer), id: identityFromText('fqdn', `b${at}`) },
    children: [child('c', { selectors })],
  });
  return tunnel({ name: `t${at}`, connections: [own], policy: [protect({ selectors })], start: 'initiate', ...change });
}

const all = Array.from({ length: NUMBER }, (_, at) => at);

function begin(net: Net, peer: Peer, words: (at: number) => Words = () => ({})): void {
  for (const at of all) net.add(peer, branch(at, words(at)));
}

const elsewhere = (at: number): Words => ({ peer: `198.51.100.${at}` });

/** In the header of a message on port 500 (RFC 7296 §3.1). */
const EXCHANGE = 18;
const IKE_SA_INIT = 34;
/** The SPI that the initiator chose. */
const spi = ({ data }: Datagram): bigint => new DataView(data.buffer, data.byteOffset).getBigUint64(0);

const begun = (net: Net): number => new Set(net.sent.map(spi)).size;

describe('initiations', () => {
  it('to peers that do not respond begin so many at a time, and each gets its turn', () => {
    const net = new Net();
    const a = net.peer('a', '192.0.2.1', { retransmit: { tries: 8 } });
    net.filter = () => false;
    begin(net, a, elsewhere);
    expect(begun(net)).toBe(MAX_INITIATING);
    net.run(PLACE_TIME - 1);
    expect(begun(net)).toBe(MAX_INITIATING);
    net.run(1);
    expect(begun(net)).toBe(2 * MAX_INITIATING);
    net.run(2 * PLACE_TIME);
    expect(begun(net)).toBe(NUMBER);
    expect(all.every((at) => !a.engine.awaitsTurn(a.tunnel(`t${at}`)))).toBe(true);
  });

  it('to peers that respond follow each other as fast as they come up', () => {
    const net = new Net();
    const [a, b] = [net.peer('a', '192.0.2.1'), net.peer('b', '192.0.2.2')];
    for (const at of all) net.add(b, opposite(branch(at)));
    let most = 0;
    net.filter = ({ from, data }) => {
      if (from !== a || data[EXCHANGE] !== IKE_SA_INIT) return true;
      most = Math.max(most, a.engine.ike.status().filter(({ state }) => state !== 'established').length);
      return true;
    };
    begin(net, a);
    net.run(4_000);
    expect(a.of('child-up')).toHaveLength(NUMBER);
    expect(most).toBe(MAX_TO_PEER);
    // None was lost for want of room at the peer.
    expect(a.engine.ike.counters().retransmissions).toBe(0);
    // In the order in which they were asked for, as far as the network keeps it.
    expect(a.of('child-up').map((event) => event.tunnel)).toEqual(all.map((at) => `t${at}`));
  });

  it('to one peer that does not respond keep no others waiting', () => {
    const net = new Net();
    const a = net.peer('a', '192.0.2.1');
    net.filter = () => false;
    begin(net, a, (at) => (at < 120 ? { peer: '198.51.100.1' } : elsewhere(at)));
    expect(begun(net)).toBe(MAX_TO_PEER + 40);
    net.run(PLACE_TIME);
    expect(begun(net)).toBe(2 * MAX_TO_PEER + 40);
  });

  it('for packets wait likewise, and the packets with them', () => {
    const net = new Net();
    const [a, b] = [net.peer('a', '192.0.2.1'), net.peer('b', '192.0.2.2')];
    for (const at of all) net.add(b, opposite(branch(at)));
    begin(net, a, () => ({ start: 'trap' }));
    for (const at of all) net.send(a, [packet('10.1.0.1', `10.2.${at}.1`, `to ${at}`)], `t${at}`);
    expect(begun(net)).toBe(MAX_TO_PEER);
    expect(a.engine.awaitsTurn(a.tunnel('t159'))).toBe(true);
    net.run(6_000);
    expect(all.map((at) => b.texts(`t${at}`))).toEqual(all.map((at) => [`to ${at}`]));
  });

  it('of a tunnel that is stopped meanwhile are forgotten, and their places are free', () => {
    const net = new Net();
    const a = net.peer('a', '192.0.2.1');
    net.filter = () => false;
    begin(net, a, elsewhere);
    for (const at of all.slice(0, 150)) net.act(a, (engine, now) => engine.down(now, `t${at}`));
    // Those that wait have a turn when something happens.
    net.run(1);
    net.sent.length = 0;
    net.run(PLACE_TIME);
    for (const at of all.slice(150)) expect(a.engine.ike.status(`net${at}`)).toHaveLength(1);
    expect(a.engine.awaitsTurn(a.tunnel('t0'))).toBe(false);
  });

  it('are planned again at times that differ from tunnel to tunnel', () => {
    const net = new Net();
    const a = net.peer('a', '192.0.2.1', { retransmit: { initial: 100, factor: 1, max: 100, tries: 1 } });
    net.filter = () => false;
    const retry = { initial: 40_000, max: 40_000 };
    for (const at of all.slice(0, 40)) net.add(a, branch(at, { retry, ...elsewhere(at) }));
    net.run(1_000);
    const waits = all.slice(0, 40).map((at) => a.tunnel(`t${at}`).retry.at! - net.now);
    expect(new Set(waits).size).toBe(40);
    expect(Math.min(...waits)).toBeGreaterThan(28_000);
    expect(Math.max(...waits)).toBeLessThanOrEqual(40_000);
    expect(Math.max(...waits) - Math.min(...waits)).toBeGreaterThan(5_000);
  });
});
