/** The state of an engine, with which the engine of another process goes on. */
import { describe, expect, it } from 'vitest';
import { DecodeError } from '../../src/base/bytes.ts';
import { identityFromText } from '../../src/base/identity.ts';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import { decodeState } from '../../src/engine/state/record.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import type { RestoreRefusal } from '../../src/ike/state/restore.ts';
import { type EnginePair, enginePair, type Peer, packet, tunnel } from '../support/engine-net.ts';
import { at, child, connection, net as range } from '../support/ike-pair.ts';

/** A tunnel that is up, with a packet each way. */
function upPair(a: TunnelConfig = tunnel(), options = { resumable: true }): EnginePair {
  const pair = enginePair({ a, options });
  pair.net.send(pair.a, [packet('10.1.0.1', '10.2.0.1', 'first')]);
  pair.net.run();
  pair.net.send(pair.b, [packet('10.2.0.1', '10.1.0.1', 'back')]);
  pair.net.run();
  return pair;
}

interface HandOver {
  readonly absence?: number;
  /** That of the next process, if it is another one. */
  readonly config?: TunnelConfig;
}

/** The process of a host ends, and after its absence another goes on. Returns what that refused. */
function handOver(
  { net }: EnginePair,
  peer: Peer,
  { absence = 100, config = peer.tunnel().config }: HandOver = {},
): RestoreRefusal[] {
  const saved = peer.engine.saveState(net.now);
  peer.isAsleep = true;
  net.run(absence);
  peer.restart();
  peer.isAsleep = false;
  peer.engine.addTunnel(config);
  const refused = peer.engine.resumeState(net.now, decodeState(saved));
  net.act(peer, (engine, now) => engine.up(now, config.name));
  return refused;
}

/** All that status shows of SAs, but ids, which are those of a process. */
function shown(peer: Peer): unknown {
  return peer.engine.ike
    .status()
    .map(({ id: _, children, ...sa }) => ({ ...sa, children: children.map(({ id: _id, ...one }) => one) }));
}

/** A packet each way, which arrives. */
function expectTraffic({ net, a, b }: EnginePair, text: string): void {
  net.send(a, [packet('10.1.0.1', '10.2.0.1', text)]);
  net.send(b, [packet('10.2.0.1', '10.1.0.1', text)]);
  net.run();
  expect(b.texts().at(-1)).toBe(text);
  expect(a.texts().at(-1)).toBe(text);
}

describe.each(['a', 'b'] as const)('another process of %s', (name) => {
  it('goes on with the same SAs, numbers and counters', () => {
    const pair = upPair();
    const peer = pair[name];
    const before = shown(peer);
    const { inbound, outbound } = peer.halves();
    const numbers = [outbound.lastSequence, inbound.replay.highest];
    const counters = [outbound, inbound].map(({ usage }) => [...usage.counters]);
    expect(handOver(pair, peer)).toEqual([]);
    expect(shown(peer)).toEqual(before);
    const now = peer.halves();
    expect([now.outbound.lastSequence, now.inbound.replay.highest]).toEqual(numbers);
    expect([now.outbound, now.inbound].map(({ usage }) => [...usage.counters])).toEqual(counters);
    pair.net.sent.length = 0;
    expectTraffic(pair, 'again');
    // Nothing was negotiated.
    expect(pair.net.sent).toHaveLength(2);
  });

  it('does not receive again what was received before', () => {
    const pair = upPair();
    const { net } = pair;
    const [peer, other] = name === 'a' ? [pair.a, pair.b] : [pair.b, pair.a];
    const old = net.sent.filter(({ from, data }) => from === other && data[0] !== 0).map((one) => ({ ...one }));
    handOver(pair, peer);
    const before = [...peer.texts()];
    net.deliver(peer, old);
    expect(peer.texts()).toEqual(before);
    expect(Object.keys(peer.drops()).every((reason) => reason === 'replay' || reason === 'tooOld')).toBe(true);
    expect(peer.drops()).not.toEqual({});
    expectTraffic(pair, 'new');
  });

  it.each(['a', 'b'] as const)('has its SAs rekeyed by %s', (by) => {
    const pair = upPair();
    const { net } = pair;
    handOver(pair, pair[name]);
    const { spiIn } = pair[name].child().summary;
    net.act(pair[by], ({ ike }, now) => ike.rekeyChild(now, pair[by].child().summary.id));
    net.run();
    expect(pair[name].child().summary.spiIn).not.toBe(spiIn);
    expectTraffic(pair, 'on a new CHILD SA');
    net.act(pair[by], ({ ike }, now) => ike.rekeyIkeSa(now, ike.status()[0]!.id));
    net.run();
    for (const peer of [pair.a, pair.b]) expect(peer.engine.ike.status()).toHaveLength(1);
    expect(pair.a.engine.ike.status()[0]!.spiInitiator).toBe(pair.b.engine.ike.status()[0]!.spiInitiator);
    handOver(pair, pair[name]);
    expectTraffic(pair, 'on a new IKE SA');
  });

  it('ends SAs when they were to end', () => {
    const lifetime = { soft: 0, hard: 20_000, jitter: 0 };
    const pair = upPair(tunnel({ connections: [connection({ children: [child('c', { lifetime })] })] }));
    const { net } = pair;
    const peer = pair[name];
    const [{ expiresAt } = { expiresAt: undefined }] = peer.engine.ike.status()[0]!.children;
    handOver(pair, peer, { absence: 10_000 });
    net.runUntil(expiresAt! - 1);
    expect(peer.engine.ike.status()[0]!.children).toHaveLength(1);
    net.run(100);
    expect(peer.engine.ike.status()[0]!.children).toEqual([]);
  });

  it('answers the last request of the peer as before, and repeats its own with the same bytes', () => {
    const pair = upPair();
    const { net, a, b } = pair;
    const [peer, other] = name === 'a' ? [a, b] : [b, a];
    // What the peer sends gets through; responses, and what this end asks, do not.
    net.filter = ({ from }) => from === other;
    net.sent.length = 0;
    net.act(other, ({ ike }, now) => ike.checkIkeSa(now, ike.status()[0]!.id));
    net.act(peer, ({ ike }, now) => ike.checkIkeSa(now, ike.status()[0]!.id));
    net.run(100);
    const [asked, answer] = [
      net.sent.filter(({ from }) => from === other),
      net.sent.filter(({ from }) => from === peer),
    ];
    const [own, response] = answer.map(({ data }) => [...data]);
    handOver(pair, peer);
    net.sent.length = 0;
    net.deliver(peer, [asked[0]!]);
    net.run(100);
    const bytes = net.sent.filter(({ from }) => from === peer).map(({ data }) => [...data]);
    expect(bytes).toContainEqual(own);
    expect(bytes).toContainEqual(response);
    net.filter = () => true;
    net.run(30_000);
    for (const one of [a, b]) {
      expect(one.engine.ike.status().map(({ state, request }) => [state, request])).toEqual([
        ['established', undefined],
      ]);
    }
    expectTraffic(pair, 'all is well');
  });
});

describe('an engine that is to end', () => {
  it.each(['a', 'b'] as const)('lets %s end what it has begun: what was made is kept', (by) => {
    const pair = upPair();
    const { net, a } = pair;
    const { id, spiIn } = pair[by].child().summary;
    net.act(pair[by], ({ ike }, now) => ike.rekeyIkeSa(now, ike.status()[0]!.id));
    net.act(pair[by], ({ ike }, now) => ike.rekeyChild(now, id));
    net.run(15);
    // Its own request is out, or the peer's DELETE is still to come.
    expect(a.engine.ike.isSettled).toBe(false);
    net.act(a, ({ ike }) => ike.settle());
    net.run(100);
    expect(a.engine.ike.isSettled).toBe(true);
    const { spiInitiator } = a.engine.ike.status()[0]!;
    expect(handOver(pair, a)).toEqual([]);
    expect(a.engine.ike.status()).toMatchObject([{ spiInitiator, children: [{}] }]);
    expect(a.of('ike-up').at(-1)!.ikeSa.spiInitiator).toBe(pair.b.of('ike-up').at(-1)!.ikeSa.spiInitiator);
    expectTraffic(pair, 'on');
    // The rekeying of the CHILD SA was put off, and the next process, or the peer, begins it again.
    net.run(10_000);
    expect(pair[by].child().summary.spiIn).not.toBe(spiIn);
    expectTraffic(pair, 'and on');
  });

  it('begins nothing new, and has peers wait', () => {
    const pair = upPair();
    const { net, a, b } = pair;
    net.act(a, ({ ike }) => ike.settle());
    net.sent.length = 0;
    net.act(a, ({ ike }, now) => ike.rekeyChild(now, a.child().summary.id));
    net.act(a, ({ ike }, now) => ike.rekeyIkeSa(now, ike.status()[0]!.id));
    expect(net.sent).toEqual([]);
    const before = b.child().summary.spiIn;
    net.act(b, ({ ike }, now) => ike.rekeyChild(now, b.child().summary.id));
    net.run(1_000);
    expect(b.child().summary.spiIn).toBe(before);
    expect(a.engine.ike.isSettled).toBe(true);
    expectTraffic(pair, 'meanwhile');
    handOver(pair, a);
    net.run(10_000);
    for (const peer of [a, b]) expect(peer.engine.ike.status()).toHaveLength(1);
    expect(b.child().summary.spiIn).not.toBe(before);
    expectTraffic(pair, 'afterwards');
  });
});

it('a peer that has given up meanwhile is found out at once, though its SA has no liveness checks', () => {
  const pair = upPair();
  const { net, a, b } = pair;
  const { config } = b.tunnel();
  b.restart();
  net.add(b, config);
  handOver(pair, a, { absence: 60_000 });
  expect(a.engine.ike.status()).toHaveLength(1);
  net.run(15_000);
  expect(a.of('ike-down').at(-1)).toMatchObject({ reason: 'peer-dead' });
  net.send(a, [packet('10.1.0.1', '10.2.0.1', 'anew')]);
  net.run();
  expectTraffic(pair, 'on new SAs');
});

describe('what is not kept', () => {
  it('is an IKE SA on which an SA is being made: the tunnel begins anew', () => {
    const pair = upPair();
    const { net, a } = pair;
    net.filter = ({ from }) => from === a;
    net.act(a, ({ ike }, now) => ike.rekeyIkeSa(now, ike.status()[0]!.id));
    net.run(100);
    expect(a.engine.ike.save(net.now)).toEqual([]);
    handOver(pair, a);
    expect(a.engine.ike.status()).toEqual([]);
    net.filter = () => true;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'anew')]);
    net.run();
    // INITIAL_CONTACT: the peer has forgotten the old ones (RFC 7296 §2.4).
    for (const peer of [a, pair.b]) expect(peer.engine.ike.status()).toHaveLength(1);
    expectTraffic(pair, 'on other SAs');
  });

  it('are keys, where the engine is not to keep them: CHILD SAs are deleted and made anew', () => {
    const pair = upPair(tunnel(), { resumable: false });
    const refused = handOver(pair, pair.a);
    expect(refused).toEqual([{ connection: 'net', child: 'c', detail: 'the record has no keys of it' }]);
    pair.net.run();
    expect(pair.b.engine.ike.status()[0]!.children).toEqual([]);
    pair.net.send(pair.a, [packet('10.1.0.1', '10.2.0.1', 'anew')]);
    pair.net.run();
    expectTraffic(pair, 'again');
  });

  it('are keys of a CHILD SA that is gone', () => {
    const { net, a } = upPair();
    const { keys } = a.child();
    expect(keys!.keysIn.encryption.every((byte) => byte === 0)).toBe(false);
    net.act(a, (engine, now) => engine.down(now, 't'));
    net.run();
    for (const { encryption } of [keys!.keysIn, keys!.keysOut]) expect([...encryption]).toEqual(Array(20).fill(0));
  });
});

describe('an SA that does not fit the configuration any more', () => {
  const changed = (change: Partial<ConnectionConfig>): TunnelConfig => tunnel({ connections: [connection(change)] });
  const { local, remote } = connection();

  it.each<[detail: RegExp, TunnelConfig]>([
    [/local identity/, changed({ local: { ...local, id: identityFromText('fqdn', 'other') } })],
    [/peer's identity/, changed({ remote: { ...remote, id: identityFromText('fqdn', 'other') } })],
    [/authenticate in another way/, changed({ remote: { ...remote, auth: 'signature' } })],
    [/algorithms/, changed({ proposals: [parseIkeProposalString('aes256gcm16-prfsha256-x25519')] })],
    [/local address/, changed({ local: { ...local, address: at('192.0.2.7', 0).address } })],
    [/VRF/, changed({ local: { ...local, vrf: 'red' } })],
    [/not configured any more/, changed({ name: 'another' })],
  ])('is refused: %s', (detail, config) => {
    const pair = upPair();
    const refused = handOver(pair, pair.a, { config });
    expect(refused).toEqual([{ connection: 'net', detail: expect.stringMatching(detail) }]);
    expect(pair.a.engine.ike.status()).toEqual([]);
  });

  it.each<[detail: RegExp, Parameters<typeof child>[1]]>([
    [/mode/, { mode: 'transport', selectors: { local: [range('192.0.2.1')], remote: [range('192.0.2.2')] } }],
    [/algorithms/, { proposals: [parseEspProposalString('aes256gcm16')] }],
    [/algorithms/, { proposals: [parseEspProposalString('aes128gcm16-noesn')] }],
    [/selectors/, { selectors: { local: [range('10.1.0.0/25')], remote: [range('10.2.0.0/24')] } }],
  ])('is refused as a CHILD SA, and deleted: %s', (detail, change) => {
    const pair = upPair();
    const config = tunnel({ connections: [connection({ children: [child('c', change)] })] });
    const refused = handOver(pair, pair.a, { config });
    expect(refused).toEqual([{ connection: 'net', child: 'c', detail: expect.stringMatching(detail) }]);
    pair.net.run();
    expect(pair.b.engine.ike.status()[0]!.children).toEqual([]);
  });

  it('is not taken twice', () => {
    const { net, a } = upPair();
    const saved = a.engine.saveState(net.now);
    expect(a.engine.resumeState(net.now, decodeState(saved))).toEqual([
      { connection: 'net', detail: 'there is an IKE SA with its SPI' },
    ]);
  });
});

it('a record that is cut short, or has more, is refused', () => {
  const { net, a } = upPair();
  const saved = a.engine.saveState(net.now);
  a.restart();
  a.engine.addTunnel(tunnel());
  for (let length = 0; length < saved.length; length += 7) {
    expect(() => decodeState(saved.subarray(0, length))).toThrow(DecodeError);
  }
  expect(() => decodeState(Uint8Array.of(...saved, 0, 0))).toThrow(DecodeError);
  expect(a.engine.resumeState(net.now, decodeState(saved))).toEqual([]);
});
