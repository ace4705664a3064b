import { describe, expect, it } from 'vitest';
import { ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import { enginePair, opposite, packet, protect, tunnel } from '../support/engine-net.ts';
import { child, connection, net as range } from '../support/ike-pair.ts';
import { type Sealed, sealing } from '../support/ike-tamper.ts';

const numbered = (count: number, from = 0): Uint8Array[] =>
  Array.from({ length: count }, (_, i) => packet('10.1.0.1', '10.2.0.1', `p${from + i}`));
const texts = (count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => `p${from + i}`);
/** IKE_SA_INIT requests that were sent. */
const attempts = (pair: ReturnType<typeof enginePair>): number =>
  new Set(
    pair.net.sent
      .filter(({ from, data, path }) => from === pair.a && path.local.port === 500 && data[18] === 34)
      .map(({ data }) => data.subarray(0, 8).join()),
  ).size;

describe('a trap', () => {
  it('is silent until a packet comes, and then loses none, keeps their order and negotiates once', () => {
    const pair = enginePair();
    const { net, a, b } = pair;
    net.run(60_000);
    expect(net.sent).toEqual([]);
    net.send(a, numbered(3));
    net.run(5);
    net.send(a, numbered(3, 3));
    net.run(20);
    net.send(a, numbered(3, 6));
    expect(a.tunnel().held).toBe(9);
    expect(a.drops()).toEqual({});
    net.run();
    net.send(a, numbered(3, 9));
    net.run();
    expect(b.texts()).toEqual(texts(12));
    expect(attempts(pair)).toBe(1);
    expect(a.of('child-up')).toHaveLength(1);
    expect([a.drops(), b.drops()]).toEqual([{}, {}]);
  });

  it('answers a call with the packets that it holds, after the message that lets the caller open them', () => {
    const config = tunnel();
    const { net, a, b } = enginePair({ a: config, b: opposite(config, { start: 'trap' }) });
    // What b sends is lost until a has called.
    net.filter = ({ from }) => from === a;
    net.send(b, [packet('10.2.0.1', '10.1.0.1', 'held')]);
    net.run(10);
    net.filter = () => true;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'first')]);
    net.run(3_000);
    expect(a.texts()).toEqual(['held']);
    expect(b.texts()).toEqual(['first']);
    expect(a.engine.inboundDrops()).toEqual({});
    expect([...a.tunnel().children]).toHaveLength(1);
  });

  it('holds no more packets and bytes than it may, and counts the others', () => {
    const { net, a, b } = enginePair({ a: tunnel({ hold: { packets: 5, bytes: 1_000, time: 10_000 } }) });
    net.send(a, numbered(8));
    expect(a.tunnel().held).toBe(5);
    expect(a.drops()).toEqual({ 'no-sa': 3 });
    net.run();
    expect(b.texts()).toEqual(texts(5));
    expect(a.drops()).toEqual({ 'no-sa': 3 });

    const large = enginePair({ a: tunnel({ hold: { packets: 5, bytes: 1_000, time: 10_000 } }) });
    large.net.send(large.a, [
      packet('10.1.0.1', '10.2.0.1', 'x'.repeat(900)),
      packet('10.1.0.1', '10.2.0.1', 'y'.repeat(900)),
      packet('10.1.0.1', '10.2.0.1', 'z'),
    ]);
    large.net.run();
    expect(large.b.texts().map((text) => text[0])).toEqual(['x', 'z']);
  });

  it('lets packets go that waited too long, counts them and has nothing more to do', () => {
    const { net, a } = enginePair({ a: tunnel({ hold: { packets: 64, bytes: 10_000, time: 2_000 } }) });
    net.filter = () => false;
    net.send(a, numbered(4));
    net.run(1_999);
    expect(a.tunnel().held).toBe(4);
    net.run(1);
    expect(a.tunnel().held).toBe(0);
    expect(a.drops()).toEqual({ 'no-sa': 4 });
    net.run(3_600_000);
    expect(a.of('failed').map(({ reason }) => reason)).toEqual(['timeout']);
    expect(a.engine.nextTimeout()).toBeUndefined();
  });

  it('tries again after a failure only when packets wait, and not for each packet', () => {
    const pair = enginePair({
      a: tunnel({ hold: { packets: 200, bytes: 100_000, time: 60_000 } }),
      options: { retransmit: { initial: 100, factor: 1, max: 100, tries: 2 } },
    });
    const { net, a, b } = pair;
    net.filter = () => false;
    for (let i = 0; i < 100; i++) {
      net.send(a, numbered(1, i));
      net.run(100);
    }
    // Ten seconds: 0.3 s an attempt, and waits of 1, 2 and 4 s.
    expect(attempts(pair)).toBe(4);
    net.filter = () => true;
    net.run(60_000);
    expect(b.texts()).toEqual(texts(100));
    expect(a.tunnel().retry.at).toBeUndefined();
  });

  it('asks for the SA of a packet also when others have taken all room to wait', () => {
    const selectors = { local: [range('10.1.1.0/24')], remote: [range('10.2.1.0/24')] };
    const config = tunnel({
      connections: [connection({ children: [child('c'), child('d', { selectors })] })],
      policy: [protect(), protect({ name: 'other', child: 'd', selectors })],
      hold: { packets: 3, bytes: 10_000, time: 60_000 },
    });
    const other = opposite(config);
    // The peer does not want c.
    const b = { ...other, connections: other.connections.map((c) => ({ ...c, children: c.children.slice(1) })) };
    const { net, a } = enginePair({ a: config, b: { ...b, policy: b.policy.slice(1) } });
    net.send(a, numbered(50));
    net.send(a, [packet('10.1.1.1', '10.2.1.1', 'd')]);
    expect(a.tunnel().held).toBe(3);
    net.run(5_000);
    expect(a.child().summary.name).toBe('d');
  });

  it('is not delayed by failed attempts of strangers', () => {
    const pair = enginePair({ b: opposite(tunnel(), { start: 'initiate' }) });
    const { net, a, b } = pair;
    b.secret = 'another secret';
    net.run(30_000);
    expect(a.of('failed').length).toBeGreaterThan(0);
    expect(a.tunnel().retry.at).toBeUndefined();
    b.secret = 'a secret';
    const before = net.now;
    net.send(a, numbered(1));
    net.run();
    expect(b.texts()).toEqual(['p0']);
    expect(net.now - before).toBe(500);
  });

  it('serves each child by packets of its own', () => {
    const selectors = { local: [range('10.1.1.0/24')], remote: [range('10.2.1.0/24')] };
    const config = tunnel({
      connections: [connection({ children: [child('c'), child('d', { selectors })] })],
      policy: [protect(), protect({ name: 'other', child: 'd', selectors })],
    });
    const { net, a, b } = enginePair({ a: config });
    net.send(a, [packet('10.1.1.1', '10.2.1.1', 'd')]);
    net.run();
    expect(a.child().summary.name).toBe('d');
    expect(
      a
        .tunnel()
        .missing()
        .map((plan) => plan.child.name),
    ).toEqual(['c']);
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'c'), packet('10.1.1.1', '10.2.1.1', 'd')]);
    net.run();
    expect(b.texts().sort()).toEqual(['c', 'd', 'd']);
    expect(a.of('ike-up')).toHaveLength(1);
  });
});

describe('respond', () => {
  it('never calls, holds nothing, and carries what it may once it was called', () => {
    const config = tunnel({ start: 'respond', dpdAction: 'clear' });
    const { net, a, b } = enginePair({ a: config, b: opposite(config, { start: 'trap' }) });
    net.send(a, numbered(3));
    net.run(60_000);
    expect(net.sent).toEqual([]);
    expect(a.drops()).toEqual({ 'no-sa': 3 });
    expect(a.tunnel().held).toBe(0);
    net.send(b, [packet('10.2.0.1', '10.1.0.1', 'call')]);
    net.run();
    net.send(a, numbered(1, 7));
    net.run();
    expect(a.texts()).toEqual(['call']);
    expect(b.texts()).toEqual(['p7']);
  });
});

describe('initiate', () => {
  it('tries for ever, with waits that grow up to a bound, and starts over after a success', () => {
    const pair = enginePair({
      a: tunnel({ start: 'initiate', retry: { initial: 1_000, max: 8_000 } }),
      options: { retransmit: { initial: 100, factor: 1, max: 100, tries: 1 } },
    });
    const { net, a } = pair;
    const waits: number[] = [];
    net.filter = () => false;
    const failed = (): number => a.of('failed').length;
    while (waits.length < 6) {
      const before = failed();
      while (failed() === before) net.run(10);
      waits.push(a.tunnel().retry.at! - net.now);
    }
    for (const [at, wait] of [1_000, 2_000, 4_000, 8_000, 8_000, 8_000].entries()) {
      expect(waits[at]).toBeLessThanOrEqual(wait);
      // Found out up to 10 ms later.
      expect(waits[at]).toBeGreaterThan(0.75 * wait - 20);
    }
    // The same wait differs from attempt to attempt.
    expect(waits[3]).not.toBe(waits[4]);
    net.run(8 * 3_600_000);
    expect(failed()).toBeGreaterThan(3_400);
    net.filter = () => true;
    net.run(10_000);
    expect(a.child().summary.name).toBe('c');
    expect(a.tunnel().retry.at).toBeUndefined();
    // A loss finds the first wait again.
    net.act(pair.b, (engine, now) => engine.down(now, 't'));
    net.run(20);
    expect(a.tunnel().retry.at! - net.now).toBeLessThanOrEqual(1_000);
  });

  it('comes back when the peer deletes the IKE SA, or the CHILD SA alone', () => {
    const { net, a, b } = enginePair({ a: tunnel({ start: 'initiate' }) });
    net.run();
    const first = a.child().summary;
    net.act(b, ({ ike }, now) => ike.closeChild(now, b.child().summary.id));
    net.run(100);
    expect(a.tunnel().children.size).toBe(0);
    net.run(2_000);
    const second = a.child().summary;
    expect(second.spiIn).not.toBe(first.spiIn);
    expect(a.of('ike-up')).toHaveLength(1);
    net.act(b, (engine, now) => engine.down(now, 't'));
    net.run(2_000);
    expect(a.child().summary.spiIn).not.toBe(second.spiIn);
    expect(a.of('ike-up')).toHaveLength(2);
    expect(a.of('ike-down').map(({ reason }) => reason)).toEqual(['deleted-by-peer']);
  });

  it('reports that there is no route, and retries', () => {
    const { address: _, ...local } = connection().local;
    let source: ReturnType<typeof connection>['local']['address'];
    const { net, a } = enginePair({
      a: tunnel({ start: 'initiate', connections: [connection({ local })] }),
      b: opposite(tunnel()),
      options: { localAddressFor: () => source },
    });
    net.run(5_000);
    expect(a.of('failed').map(({ reason }) => reason)).toEqual(['no-route', 'no-route', 'no-route']);
    source = connection().local.address;
    net.run(10_000);
    expect(a.child().path.local.address).toEqual(source);
  });

  it('reports that there is no room for an IKE SA, and retries', () => {
    const { net, a } = enginePair({ a: tunnel({ start: 'initiate' }), options: { limits: { maxIkeSas: 0 } } });
    net.run(5_000);
    expect(a.of('failed').map(({ reason }) => reason)).toEqual(['not-possible', 'not-possible', 'not-possible']);
    expect(a.tunnel().retry.at).toBeGreaterThan(net.now);
  });

  it('stays down when it is told to, and comes up again when told', () => {
    const { net, a, b } = enginePair({ a: tunnel({ start: 'initiate' }) });
    net.run();
    net.act(a, (engine, now) => engine.down(now, 't'));
    net.run(2 * 3_600_000);
    expect([a.tunnel().children.size, b.tunnel().children.size]).toEqual([0, 0]);
    expect(a.engine.nextTimeout()).toBeUndefined();
    net.act(a, (engine, now) => engine.up(now, 't'));
    net.run();
    expect(a.child().summary.name).toBe('c');
  });
});

describe('a dead peer', () => {
  const dead = (start: 'initiate' | 'trap' | 'respond', dpdAction: 'clear' | 'trap' | 'restart') => {
    const config = tunnel({
      start,
      dpdAction,
      connections: [connection({ dpd: { interval: 10_000 } })],
    });
    const pair = enginePair({
      a: config,
      // The end that calls when a does not.
      b: opposite(config, { start: 'trap' }),
      options: { retransmit: { initial: 100, factor: 1, max: 100, tries: 2 } },
    });
    const { net, a, b } = pair;
    if (start === 'respond') net.send(b, [packet('10.2.0.1', '10.1.0.1', 'call')]);
    else net.send(a, numbered(1));
    net.run();
    expect(a.child().summary.name).toBe('c');
    net.filter = () => false;
    net.run(11_000);
    expect(a.of('ike-down').map(({ reason }) => reason)).toEqual(['peer-dead']);
    expect(a.tunnel().children.size).toBe(0);
    net.run(60_000);
    net.filter = () => true;
    net.sent.length = 0;
    return pair;
  };
  const calls = (pair: ReturnType<typeof enginePair>): boolean => {
    pair.net.run(60_000);
    return pair.a.tunnel().children.size > 0;
  };

  it.each(['initiate', 'trap', 'respond'] as const)('restart: %s calls until it answers', (start) => {
    const pair = dead(start, 'restart');
    expect(calls(pair)).toBe(true);
  });

  it.each(['initiate', 'trap', 'respond'] as const)('trap: %s calls when a packet comes', (start) => {
    const pair = dead(start, 'trap');
    expect(calls(pair)).toBe(false);
    expect(pair.net.sent).toEqual([]);
    pair.net.send(pair.a, numbered(1, 5));
    expect(calls(pair)).toBe(true);
    expect(pair.b.texts().at(-1)).toBe('p5');
  });

  it.each(['initiate', 'respond'] as const)('clear: %s waits for the peer', (start) => {
    const pair = dead(start, 'clear');
    pair.net.send(pair.a, numbered(1));
    expect(calls(pair)).toBe(false);
    expect(pair.a.drops()).toEqual({ 'no-sa': 1 });
    pair.net.send(pair.b, [packet('10.2.0.1', '10.1.0.1', 'back')]);
    pair.net.run(120_000);
    expect(pair.a.texts().at(-1)).toBe('back');
  });

  it('clear: an initiating tunnel that the peer brought back is pursued again', () => {
    const pair = dead('initiate', 'clear');
    pair.net.send(pair.b, [packet('10.2.0.1', '10.1.0.1', 'back')]);
    pair.net.run(120_000);
    pair.net.act(pair.b, (engine, now) => engine.down(now, 't'));
    pair.net.run(5_000);
    expect(pair.a.tunnel().children.size).toBe(1);
  });

  it('clear: a trap stays a trap', () => {
    const pair = dead('trap', 'clear');
    expect(calls(pair)).toBe(false);
    pair.net.send(pair.a, numbered(1));
    expect(calls(pair)).toBe(true);
  });
});

describe('a secret', () => {
  const ask = (pair: ReturnType<typeof enginePair>) => pair.a.of('need-secret').at(-1)!;

  it('may come late', () => {
    const pair = enginePair();
    const { net, a, b } = pair;
    a.holdSecrets = true;
    net.send(a, numbered(2));
    net.run(5_000);
    const { requestId, localId, remoteId } = ask(pair);
    expect([localId, remoteId].map((id) => String.fromCharCode(...id!.data))).toEqual(['a', 'b']);
    net.act(a, (engine, now) =>
      engine.answerSecret(
        now,
        requestId,
        Uint8Array.from('a secret', (c) => c.charCodeAt(0)),
      ),
    );
    net.run();
    expect(b.texts()).toEqual(texts(2));
    // A second answer belongs to no request.
    net.act(a, (engine, now) => engine.answerSecret(now, requestId, undefined));
    expect(a.child().summary.name).toBe('c');
  });

  it('that never comes ends the attempt, and so does one that there is not', () => {
    const pair = enginePair({ a: tunnel({ start: 'initiate' }) });
    const { net, a } = pair;
    a.holdSecrets = true;
    const { requestId } = ((): { requestId: number } => {
      net.run();
      return ask(pair);
    })();
    net.run(120_000);
    expect(a.of('failed')[0]).toMatchObject({ tunnel: 't', reason: 'no-secret' });
    net.act(a, (engine, now) => engine.answerSecret(now, requestId, Uint8Array.of(1)));
    const before = a.of('failed').length;
    a.holdSecrets = false;
    a.secret = undefined;
    net.run(120_000);
    expect(a.of('failed').length).toBeGreaterThan(before);
    expect(a.tunnel().children.size).toBe(0);
    a.secret = 'a secret';
    net.run(120_000);
    expect(a.tunnel().children.size).toBe(1);
  });

  it('that is not the peer’s ends in a refusal on both sides', () => {
    const { net, a, b } = enginePair({ a: tunnel({ start: 'initiate' }) });
    a.secret = 'another secret';
    net.run(2_000);
    expect(a.of('failed')[0]!.reason).toBe('AUTHENTICATION_FAILED');
    expect(b.of('failed')[0]!.reason).toBe('AUTHENTICATION_FAILED');
    expect(b.tunnel().retry.at).toBeUndefined();
  });
});

describe('a peer that finds IKE_AUTH malformed (RFC 7296 §2.21.2)', () => {
  const [NOTIFY, VENDOR_ID, IDR] = [41, 43, 36];

  /** Its answers of IKE_AUTH with these first payloads are INVALID_SYNTAX, with a Vendor ID that takes the rest. */
  function refusing(most: number): ReturnType<typeof sealing> {
    let refused = 0;
    return sealing(({ exchange, response, content, skHeader }: Sealed) => {
      if (exchange !== ExchangeType.IKE_AUTH || !response || skHeader[0] !== IDR || refused++ >= most) return;
      const rest = content.length - 8 - 1;
      skHeader[0] = NOTIFY;
      content.fill(0);
      content.set([VENDOR_ID, 0, 0, 8, 0, 0, NotifyType.INVALID_SYNTAX >>> 8, NotifyType.INVALID_SYNTAX & 0xff]);
      content.set([0, 0, rest >>> 8, rest & 0xff], 8);
    });
  }

  it.each(['initiate', 'trap'] as const)('is asked again at once, without a child, with start %s', (start) => {
    const { net, a, b } = enginePair({ a: tunnel({ start }), options: { crypto: refusing(1) } });
    net.send(a, numbered(1));
    net.run(900);
    expect(a.of('failed')).toMatchObject([{ reason: 'INVALID_SYNTAX', detail: expect.stringContaining('at once') }]);
    expect(b.texts()).toEqual(texts(1));
    expect(a.drops()).toEqual({});
    expect([...a.tunnel().children]).toHaveLength(1);
  });

  it('is left alone for longer and longer when it says so of an exchange without a child, too', () => {
    const pair = enginePair({ a: tunnel({ start: 'initiate' }), options: { crypto: refusing(1_000) } });
    pair.net.run(700);
    expect(attempts(pair)).toBe(2);
    pair.net.run(60_000);
    expect(attempts(pair)).toBeGreaterThan(4);
    expect(attempts(pair)).toBeLessThan(10);
  });
});
