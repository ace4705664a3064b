/** IKE_SA_INIT and IKE_AUTH between two endpoints: the plain way, retried, and refused in every way. */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import { NotifyType } from '../../src/ike/wire/iana.ts';
import { expectNothing, expectSame } from '../support/ike-expect.ts';
import { child, connection, type Host, mirrored, net, Pair, Wire } from '../support/ike-pair.ts';

const ike = (...texts: string[]): ConnectionConfig['proposals'] => texts.map(parseIkeProposalString);

/** All attempts and their timers over. */
function rest(pair: Pair): void {
  pair.run(200_000);
}

describe('set-up', () => {
  it('brings up an IKE SA and a CHILD SA in two exchanges', () => {
    const pair = new Pair();
    pair.up();
    expect(pair.sent).toHaveLength(4);
    expectSame(pair, 1);
    for (const host of [pair.a, pair.b]) {
      expect(host.of('ike-up')).toHaveLength(1);
      expect(host.of('child-up').map((event) => event.sendNow)).toEqual([true]);
      expect(host.of('failed')).toEqual([]);
    }
    expect(pair.a.of('ike-up')[0]!.ikeSa.suite).toBe('aes128gcm16-prfsha256-x25519');
    expect(pair.a.child.dhGroup).toBeUndefined();
  });

  it('is the same whichever side begins', () => {
    const pair = new Pair();
    pair.up(pair.b);
    expectSame(pair, 1);
    expect(pair.b.ikeSa.initiator).toBe(true);
    expect(pair.a.ikeSa.initiator).toBe(false);
  });

  it('brings up all children of a connection, and only the one asked for', () => {
    const children = ['c', 'd', 'e'].map((name, i) =>
      child(name, { selectors: { local: [net(`10.1.${i}.0/24`)], remote: [net(`10.2.${i}.0/24`)] } }),
    );
    const all = new Pair({ a: connection({ children }) });
    all.up();
    expectSame(all, 3);
    const one = new Pair({ a: connection({ children }) });
    one.act(one.a, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'd' }));
    one.run();
    expect(one.b.child.config.name).toBe('d');
    one.act(one.b, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'c' }));
    one.run();
    expectSame(one, 2);
    expect(one.a.of('ike-up')).toHaveLength(1);
  });

  it('does nothing when all is up', () => {
    const pair = new Pair();
    pair.up();
    pair.up();
    expect(pair.sent).toHaveLength(4);
  });

  it.each([
    'aes256-sha256-modp2048',
    'aes128-sha512-ecp256',
    'chacha20poly1305-prfsha384-curve25519',
    'aes256ctr-sha384-ecp384',
    'aes128ccm16-prfsha1-modp3072',
  ])('negotiates %s', (text) => {
    const esp = text.replace(/-prf\w+/, '').replace('-sha512', '-sha512');
    const config = connection({
      proposals: ike(text),
      children: [child('c', { proposals: [parseEspProposalString(esp)] })],
    });
    const pair = new Pair({ a: config });
    pair.up();
    expectSame(pair, 1);
  });

  it('narrows selectors to what both sides allow', () => {
    const a = connection({
      children: [child('c', { selectors: { local: [net('10.1.0.0/16')], remote: [net('0.0.0.0/0')] } })],
    });
    const b = mirrored(
      connection({
        children: [child('c', { selectors: { local: [net('10.1.2.0/24')], remote: [net('10.2.0.0/24')] } })],
      }),
    );
    const pair = new Pair({ a, b });
    pair.up();
    expectSame(pair, 1);
    expect(pair.a.child.selectors).toEqual({ local: [net('10.1.2.0/24')], remote: [net('10.2.0.0/24')] });
    expect(pair.b.child.selectors).toEqual({ local: [net('10.2.0.0/24')], remote: [net('10.1.2.0/24')] });
  });
});

describe('answers that any host could have sent', () => {
  /** Answers A's first request with a refusal from a host on the path. */
  function forge(pair: Pair, notify: number, change: (data: Uint8Array) => void = () => undefined): void {
    const request = pair.held.find((held) => held.from === pair.a)!;
    const data = request.data.slice(0, 28 + 8);
    data.fill(0, 8, 16);
    data.set([41, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 36, 0, 0, 0, 8, 0, 0, notify >> 8, notify & 0xff], 16);
    change(data);
    pair.deliver({ from: pair.b, to: pair.a, path: { local: request.path.remote, remote: request.path.local }, data });
  }

  it.each([NotifyType.NO_PROPOSAL_CHOSEN, NotifyType.AUTHENTICATION_FAILED, NotifyType.INVALID_SYNTAX])(
    'a forged refusal %i does not end the attempt',
    (notify) => {
      const pair = new Pair();
      const wire = new Wire(pair);
      pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
      forge(pair, notify);
      expect(pair.a.endpoint.counters()['unauthenticated-notify']).toBe(1);
      expect(pair.a.of('failed')).toEqual([]);
      wire.settle();
      expectSame(pair, 1);
    },
  );

  it('only a response to IKE_SA_INIT counts, with its message ID', () => {
    const pair = new Pair();
    const wire = new Wire(pair);
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    for (const [at, value] of [
      [18, 35],
      [19, 0x00],
      [23, 1],
    ] as const) {
      forge(pair, NotifyType.NO_PROPOSAL_CHOSEN, (data) => {
        data[at] = value;
      });
    }
    expect(pair.a.endpoint.counters()['unexpected-response']).toBe(3);
    expect(pair.a.endpoint.counters()['unauthenticated-notify']).toBe(0);
    wire.settle();
    expectSame(pair, 1);
  });

  it('a refusal that nothing follows ends it after a while, with its reason', () => {
    const pair = new Pair();
    new Wire(pair);
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    forge(pair, NotifyType.NO_PROPOSAL_CHOSEN);
    const began = pair.now;
    while (pair.a.of('failed').length === 0) pair.run(100);
    expect(pair.now - began).toBeLessThan(4_000);
    expect(pair.a.of('failed')[0]).toMatchObject({ reason: 'NO_PROPOSAL_CHOSEN' });
    expectNothing(pair);
  });

  it('a group that was not offered, or was tried, is not used', () => {
    const pair = new Pair();
    const wire = new Wire(pair);
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    forge(pair, NotifyType.INVALID_KE_PAYLOAD);
    expect(wire.waiting(pair.a)).toBe(1);
    wire.settle();
    expectSame(pair, 1);
  });
});

describe('secrets that take their time', () => {
  function pending(host: Host): number {
    return host.of('need-secret').at(-1)!.requestId;
  }

  it('holds up the one negotiation, and answers it once', () => {
    const pair = new Pair();
    pair.b.holdSecrets = true;
    pair.up();
    pair.run(5_000);
    expect(pair.b.ikeSas.size).toBe(0);
    expect(pair.b.of('need-secret')).toHaveLength(1);
    expect(pair.b.endpoint.counters()['replayed-request']).toBeGreaterThan(0);
    pair.act(pair.b, (endpoint, now) => endpoint.answerSecret(now, pending(pair.b), new Uint8Array([1])));
    pair.b.secret = undefined;
    expect(pair.b.of('failed')[0]).toMatchObject({ reason: 'AUTHENTICATION_FAILED' });
    rest(pair);
    expectNothing(pair);
  });

  it('continues when the answer comes', () => {
    const pair = new Pair();
    pair.b.holdSecrets = true;
    pair.up();
    pair.run(2_500);
    const secret = new TextEncoder().encode('a secret');
    pair.act(pair.b, (endpoint, now) => endpoint.answerSecret(now, pending(pair.b), secret));
    // A second answer belongs to no request.
    pair.act(pair.b, (endpoint, now) => endpoint.answerSecret(now, pending(pair.b), secret));
    pair.run();
    expectSame(pair, 1);
  });

  it.each(['a', 'b'] as const)('are waited for by %s for a bounded time', (side) => {
    const pair = new Pair();
    pair[side].holdSecrets = true;
    pair.up();
    rest(pair);
    expectNothing(pair);
    expect(pair.a.of('failed')).toHaveLength(1);
  });
});

describe('configuration', () => {
  it('refuses what it cannot work with, and says what', () => {
    const pair = new Pair();
    const { endpoint } = pair.a;
    expect(() => endpoint.addConnection(connection())).toThrow('connection net exists already');
    expect(() => endpoint.addConnection(connection({ name: 'x', proposals: [] }))).toThrow('no IKE proposal');
    expect(() => endpoint.addConnection(connection({ name: 'x', children: [child('c'), child('c')] }))).toThrow(
      'two children c',
    );
    const pfp = { localAddress: false, remoteAddress: false, protocol: false, localPort: false, remotePort: true };
    expect(() => endpoint.addConnection(connection({ name: 'x', children: [child('c', { pfp })] }))).toThrow(
      'takes ports from packets',
    );
    expect(() => endpoint.initiate(0, 'nowhere')).toThrow('no connection nowhere');
    expect(() => endpoint.initiate(0, 'net', { child: 'z' })).toThrow('no child z');
    endpoint.addConnection(connection({ name: 'any', remote: { ...connection().remote, address: undefined } }));
    expect(() => endpoint.initiate(0, 'any')).toThrow('no remote address');
    expect(endpoint.status()).toEqual([]);
  });

  it('accepts several connections, all or none', () => {
    const { endpoint } = new Pair().a;
    const [one, two] = [connection({ name: 'one' }), connection({ name: 'two' })];
    expect(() => endpoint.addConnections([one, { ...two, proposals: [] }])).toThrow('no IKE proposal');
    expect(() => endpoint.addConnections([one, one])).toThrow('connection one exists already');
    endpoint.addConnections([one, two]);
    expect(() => endpoint.addConnection(two)).toThrow('connection two exists already');
  });

  it('prefers the connection that names the peer, of several for its address', () => {
    const anybody = mirrored(connection({ name: 'anybody' }));
    const b = [{ ...anybody, remote: { ...anybody.remote, id: undefined } }, mirrored(connection())];
    const pair = new Pair({ b });
    pair.up();
    expect(pair.b.ikeSa.connection).toBe('net');
    expect(pair.b.child.connection).toBe('net');
  });
});
