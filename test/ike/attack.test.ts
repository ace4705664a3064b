/** Ways around authentication: by state, by reflection, by another's identity. Each is refused, and harms no other else. */
import { describe, expect, it } from 'vitest';
import { identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import { ikeWireProposals } from '../../src/ike/proposals/proposals.ts';
import { childSpiBytes } from '../../src/ike/session/child.ts';
import { ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import { findNotify, findPayload, type Payload } from '../../src/ike/wire/payload.ts';
import { expectSame } from '../support/ike-expect.ts';
import { FakePeer } from '../support/ike-fake-peer.ts';
import { connection, type Datagram, mirrored, net, Pair, Random, Wire } from '../support/ike-pair.ts';
import { sealing } from '../support/ike-tamper.ts';

const { CREATE_CHILD_SA, IKE_AUTH, IKE_SA_INIT, INFORMATIONAL } = ExchangeType;

/** Any identity is taken that knows the secret. */
function anybody(): ReturnType<typeof connection> {
  const config = connection();
  return { ...config, remote: { ...config.remote, id: undefined } };
}

/** As if the peer had sent it. */
function reflected({ from, path, data }: Datagram): Datagram {
  return { from, to: from, path: { local: path.remote, remote: path.local }, data };
}

describe('our own messages sent back to us', () => {
  it('never make us both ends of an IKE SA, though the pre-shared key would fit', () => {
    const everything = [net('0.0.0.0/0')];
    const config = anybody();
    const children = config.children.map((entry) => ({
      ...entry,
      selectors: { local: everything, remote: everything },
    }));
    const pair = new Pair({ a: { ...config, children } });
    pair.filter = (datagram) => {
      pair.held.push(reflected(datagram));
      return 'drop';
    };
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    for (let i = 0; i < 20; i++) pair.release();
    expect(pair.a.endpoint.counters().reflected).toBeGreaterThan(0);
    expect(pair.a.endpoint.status()).toMatchObject([{ state: 'init-sent' }]);
    expect(pair.a.of('ike-up')).toEqual([]);
    expect(pair.a.of('need-secret')).toEqual([]);
  });

  it('change nothing on an IKE SA that is up', () => {
    const pair = new Pair();
    pair.up();
    pair.act(pair.a, (endpoint, now) => endpoint.rekeyChild(now, pair.a.child.id));
    pair.run();
    const before = pair.a.events.length + pair.b.events.length;
    for (const datagram of [...pair.sent]) pair.deliver(reflected(datagram));
    expect(pair.a.events.length + pair.b.events.length).toBe(before);
    pair.run(60_000);
    expectSame(pair, 1);
  });
});

describe('a second IKE_SA_INIT with the same SPI', () => {
  const other = (payloads: Payload[]): Payload[] =>
    payloads.map((p) => (p.type === 'nonce' ? { ...p, data: new Uint8Array(32).fill(7) } : p));

  it('is ignored while the first is half-open, which continues', () => {
    const peer = new FakePeer();
    peer.init();
    const rival = new FakePeer({ host: peer.host });
    expect(rival.init(other)).toEqual([]);
    expect(peer.host.endpoint.counters()['init-ignored']).toBe(1);
    expect(findPayload(peer.request(IKE_AUTH, peer.authPayloads())!, 'auth')).toBeDefined();
    expect(peer.host.endpoint.status()).toHaveLength(1);
  });

  it('opens another IKE SA beside one that is up, which stays as it is', () => {
    const peer = new FakePeer();
    peer.establish();
    const rival = new FakePeer({ host: peer.host });
    rival.init(other);
    expect(rival.spi).not.toBe(peer.spi);
    expect(peer.request(INFORMATIONAL, [])).toEqual([]);
    expect(peer.host.children.size).toBe(1);
  });

  it('sent to the SPI of an SA that is up is ignored', () => {
    const peer = new FakePeer();
    peer.establish();
    const header = { initiatorSpi: peer.initiatorSpi, responderSpi: peer.spi, exchange: IKE_SA_INIT, messageId: 2 };
    expect(peer.send(peer.seal({ ...header, initiator: true, response: false }, []))).toEqual([]);
    expect(peer.host.endpoint.counters()['unexpected-exchange']).toBe(1);
    expect(peer.host.children.size).toBe(1);
  });
});

describe('IKE_AUTH on an IKE SA that is up', () => {
  it('is ignored: no peer changes its identity on an IKE SA that is up', () => {
    const peer = new FakePeer();
    peer.establish();
    expect(peer.request(IKE_AUTH, peer.authPayloads())).toBeUndefined();
    expect(peer.host.endpoint.counters()['unexpected-exchange']).toBe(1);
    expect(peer.host.of('need-secret')).toHaveLength(1);
  });
});

describe('an answer to IKE_AUTH', () => {
  function answeredWith(change: (content: Uint8Array) => void): Pair {
    const pair = new Pair({
      bOptions: {
        crypto: sealing(({ exchange, response, content }) => exchange === IKE_AUTH && response && change(content)),
      },
    });
    pair.up();
    return pair;
  }

  it('without AUTH fails, whatever else it contains', () => {
    // IDr comes first and names what follows: AUTH becomes a payload of unknown type.
    const pair = answeredWith((content) => content.set([200]));
    expect(pair.a.of('ike-up')).toEqual([]);
    expect(pair.a.of('failed')).toMatchObject([{ reason: 'peer-misbehaved' }]);
  });

  it('with one bit of AUTH wrong is refused, and the peer is told', () => {
    const pair = answeredWith((content) => {
      const auth = (content[2]! << 8) | content[3]!;
      content[auth + 8]! ^= 1;
    });
    expect(pair.a.of('failed')).toMatchObject([{ reason: 'AUTHENTICATION_FAILED' }]);
    expect(pair.a.of('ike-up')).toEqual([]);
    pair.run(20_000);
    expect(pair.b.ikeSas.size).toBe(0);
  });
});

describe('a pre-shared key', () => {
  it('proves the identity that it belongs to, and no other', () => {
    const config = mirrored(connection());
    const ofC = { ...config, name: 'for-c', remote: { ...config.remote, id: identityFromText('fqdn', 'c') } };
    const peer = new FakePeer();
    peer.host.endpoint.addConnection(ofC);
    peer.host.holdSecrets = true;
    peer.init();
    // The peer knows the secret of `a` and says that it is `c`.
    const claim = peer.authPayloads().map((p) => (p.type === 'idi' ? { ...p, identity: ofC.remote.id } : p));
    peer.request(IKE_AUTH, claim);
    const [asked] = peer.host.of('need-secret');
    expect(asked).toMatchObject({ connection: 'for-c', remoteId: ofC.remote.id });
    peer.host.endpoint.answerSecret(peer.now, asked!.requestId, utf8('the secret of c'));
    const [answer] = peer.drain();
    expect(findNotify(peer.open(answer!).payloads, NotifyType.AUTHENTICATION_FAILED)).toBeDefined();
    expect(peer.host.of('ike-up')).toEqual([]);
  });

  it('that is the same for both does not help: AUTH covers the identity', () => {
    const peer = new FakePeer();
    const config = mirrored(connection());
    peer.host.endpoint.addConnection({
      ...config,
      name: 'for-c',
      remote: { ...config.remote, id: identityFromText('fqdn', 'c') },
    });
    peer.init();
    const c = identityFromText('fqdn', 'c');
    const claim = peer.authPayloads().map((p) => (p.type === 'idi' ? { ...p, identity: c } : p));
    expect(findNotify(peer.request(IKE_AUTH, claim)!, NotifyType.AUTHENTICATION_FAILED)).toBeDefined();
  });

  it('that is empty authenticates no peer', () => {
    const peer = new FakePeer();
    peer.host.secret = '';
    peer.init();
    expect(findNotify(peer.request(IKE_AUTH, peer.authPayloads(''))!, NotifyType.AUTHENTICATION_FAILED)).toBeDefined();
    expect(peer.host.of('ike-up')).toEqual([]);
  });
});

describe('names of peers', () => {
  it('bring no line of their own into a log', () => {
    const peer = new FakePeer();
    peer.init();
    const name = 'x\n2026-01-01 INFO established\u001b[2J\u2028y\u202e\u0000';
    const identity = { type: 2, data: utf8(name) };
    const claim = peer.authPayloads().map((p) => (p.type === 'idi' ? { ...p, identity } : p));
    peer.request(IKE_AUTH, claim);
    const [failed] = peer.host.of('failed');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect(failed!.detail).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/);
  });
});

describe('a public value that gives a shared secret of zero', () => {
  const group = parseIkeProposalString('aes128gcm16-prfsha256-x25519').dh[0]!;

  it('in the rekeying of an IKE SA ends it on both sides: INVALID_SYNTAX is fatal to the peer', () => {
    const peer = new FakePeer();
    peer.establish();
    const spi = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    const answer = peer.request(CREATE_CHILD_SA, [
      { type: 'sa', proposals: ikeWireProposals([parseIkeProposalString('aes128gcm16-prfsha256-x25519')], spi) },
      { type: 'nonce', data: new Uint8Array(32).fill(3) },
      { type: 'ke', group: group.id, data: new Uint8Array(32) },
    ]);
    expect(findNotify(answer!, NotifyType.INVALID_SYNTAX)).toBeDefined();
    expect(peer.host.of('ike-down')).toMatchObject([{ reason: 'failed' }]);
    expect(peer.host.of('ike-up')).toHaveLength(1);
    expect(peer.host.children.size).toBe(0);
  });
});

describe('SPIs', () => {
  it('offered, and meanwhile used by another CHILD SA, are not used twice', () => {
    // Every byte of a block is the same: two SPIs from the same block are equal.
    const source = new Random(9);
    let block = 0;
    const random = (length: number): Uint8Array =>
      length === 1_024 ? new Uint8Array(length).fill(++block) : source.bytes(length);
    const children = ['c', 'd'].map((name, i) => ({
      ...connection().children[0]!,
      name,
      selectors: { local: [net(`10.1.${i}.0/24`)], remote: [net(`10.2.${i}.0/24`)] },
    }));
    const pair = new Pair({ a: connection({ children }), aOptions: { random } });
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'c' }));
    pair.run();
    const wire = new Wire(pair);
    const old = pair.a.child;
    pair.act(pair.a, (endpoint, now) => endpoint.rekeyChild(now, old.id));
    pair.act(pair.b, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'd' }));
    wire.pass(pair.b, pair.a);
    const created = [...pair.a.children.values()].find(({ config }) => config.name === 'd')!;
    wire.settle();
    expect(pair.a.children.get(created.id)).toBe(created);
    expect(new Set([...pair.a.children.values()].map(({ spiIn }) => spiIn)).size).toBe(pair.a.children.size);
    const up = pair.a.of('child-up').map(({ child }) => child.spiIn);
    expect(new Set(up).size).toBe(up.length);
    expect(pair.a.of('failed')).toMatchObject([{ reason: 'TEMPORARY_FAILURE', child: 'c' }]);
    expect(pair.a.children.has(old.id)).toBe(true);
    expect(pair.a.endpoint.counters().bug).toBe(0);
  });

  it('of an IKE SA go with its flags: a message with ours in the place of the peer’s is a stranger’s', () => {
    const peer = new FakePeer();
    peer.establish();
    const header = { initiatorSpi: peer.spi, responderSpi: peer.initiatorSpi, exchange: INFORMATIONAL, messageId: 2 };
    for (const initiator of [true, false]) {
      peer.send(peer.seal({ ...header, initiator, response: false }, [{ type: 'delete', protocol: 1, spis: [] }]));
    }
    expect(peer.host.ikeSas.size).toBe(1);
  });

  it('a CHILD SA is deleted by the IKE SA that it belongs to alone', () => {
    const victim = new FakePeer();
    victim.establish();
    const config = mirrored(connection());
    const id = identityFromText('fqdn', 'a');
    victim.host.endpoint.addConnection({ ...config, name: 'second', remote: { ...config.remote, id } });
    const rival = new FakePeer({ host: victim.host, initiatorSpi: 77n });
    rival.init();
    rival.request(IKE_AUTH, rival.authPayloads().slice(0, 2));
    const { spiOut } = victim.host.child;
    const deletion: Payload = { type: 'delete', protocol: 3, spis: [childSpiBytes(spiOut)] };
    expect(rival.request(INFORMATIONAL, [deletion])).toEqual([]);
    expect(victim.host.children.size).toBe(1);
  });
});
