/** Floods: what an unauthenticated host can make us compute, keep, send and report is bounded (RFC 7296 §2.6, §2.21.4). */
import { describe, expect, it } from 'vitest';
import { WakeQueue } from '../../src/base/wake-queue.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import type { CryptoProvider } from '../../src/crypto/types.ts';
import { IkeEndpoint } from '../../src/ike/endpoint.ts';
import type { IkeEvent, Path } from '../../src/ike/events.ts';
import { ikeWireProposals } from '../../src/ike/proposals/proposals.ts';
import { ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import { decodeMessage, encodePlain } from '../../src/ike/wire/message.ts';
import { findNotify, findPayload, type Payload } from '../../src/ike/wire/payload.ts';
import { notifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { FakePeer } from '../support/ike-fake-peer.ts';
import { at, connection, mirrored, Pair, Random } from '../support/ike-pair.ts';

const OFFER = parseIkeProposalString('aes128gcm16-prfsha256-x25519');
const GROUP = OFFER.dh[0]!;
const VALID = nodeProvider.dhKeyPair(GROUP, new Random(8).bytes).publicValue;

/** A responder for any identity, whose key exchanges are counted. */
class Target {
  keyExchanges = 0;
  bytesIn = 0;
  bytesOut = 0;
  now = 1_000;
  readonly endpoint: IkeEndpoint;
  readonly events: IkeEvent[] = [];

  constructor() {
    const crypto: CryptoProvider = {
      ...nodeProvider,
      dhKeyPair: (group, random) => {
        this.keyExchanges++;
        return nodeProvider.dhKeyPair(group, random);
      },
    };
    this.endpoint = new IkeEndpoint({ crypto, random: new Random(7).bytes });
    const config = mirrored(connection());
    this.endpoint.addConnection({ ...config, remote: { ...config.remote, address: undefined } });
  }

  /** Returns the answers. */
  receive(path: Path, data: Uint8Array): Uint8Array[] {
    this.bytesIn += data.length;
    this.endpoint.handleDatagram(this.now, path, data);
    for (let event = this.endpoint.pollEvent(); event !== undefined; event = this.endpoint.pollEvent()) {
      this.events.push(event);
    }
    const out: Uint8Array[] = [];
    for (let next = this.endpoint.pollTransmit(); next !== undefined; next = this.endpoint.pollTransmit()) {
      out.push(next.data);
      this.bytesOut += next.data.length;
    }
    return out;
  }

  wait(duration: number): void {
    this.now += duration;
    this.endpoint.handleTimeout(this.now);
  }
}

function from(address: string): Path {
  return { local: at('192.0.2.2', 500), remote: at(address, 500) };
}

/** One of many addresses. */
function spoofed(n: number): Path {
  return from(`10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`);
}

function init(n: number, change: (payloads: Payload[]) => Payload[] = (payloads) => payloads): Uint8Array {
  const header = { initiatorSpi: BigInt(n + 1), responderSpi: 0n, exchange: ExchangeType.IKE_SA_INIT, messageId: 0 };
  const payloads = change([
    { type: 'sa', proposals: ikeWireProposals([OFFER]) },
    { type: 'ke', group: GROUP.id, data: VALID },
    { type: 'nonce', data: new Uint8Array(16).fill(n) },
  ]);
  return encodePlain({ ...header, initiator: true, response: false }, payloads);
}

const zeroKey = (payloads: Payload[]): Payload[] =>
  payloads.map((p) => (p.type === 'ke' ? { ...p, data: new Uint8Array(32) } : p));

/** Sends it again with the cookie that is demanded. */
function withCookie(target: Target, path: Path, n: number, change = (payloads: Payload[]) => payloads): Uint8Array[] {
  const answers = target.receive(path, init(n, change));
  const cookie = answers[0] && findNotify(decodeMessage(answers[0]).payloads, NotifyType.COOKIE);
  if (cookie === undefined) return answers;
  return target.receive(
    path,
    init(n, (payloads) => [cookie, ...change(payloads)]),
  );
}

const THRESHOLD = 32;
/** Places of one address, and of one that a connection names; and those that it may take again, at once. */
const SHARE = 64;
const NAMED_SHARE = 16;
const DISPLACEMENTS = 8;

describe('IKE_SA_INIT from addresses that are not the sender’s', () => {
  it.each([
    ['good ones', (payloads: Payload[]) => payloads],
    ['with a public value that is not valid', zeroKey],
  ])('%s: so many key exchanges, and then cookies alone, which are shorter than the requests', (_what, change) => {
    const target = new Target();
    for (let n = 0; n < 5_000; n++) target.receive(spoofed(n), init(n, change));
    expect(target.keyExchanges).toBe(THRESHOLD);
    expect(target.endpoint.counters()['cookie-demanded']).toBe(5_000 - THRESHOLD);
    expect(target.bytesOut).toBeLessThan(target.bytesIn);
    expect(target.endpoint.status().length).toBeLessThanOrEqual(THRESHOLD);
    // Who receives at his address is served all the while.
    const [answer] = withCookie(target, from('198.51.100.1'), 9_999);
    expect(findPayload(decodeMessage(answer!).payloads, 'sa')).toBeDefined();
    target.wait(31_000);
    expect(target.endpoint.nextTimeout()).toBeUndefined();
  });

  it('one request for ever gets no more than its answer for ever, not twice as long', () => {
    const target = new Target();
    for (let i = 0; i < 500; i++) target.receive(from('198.51.100.1'), init(1));
    expect(target.keyExchanges).toBe(1);
    expect(target.bytesOut).toBeLessThan(2 * target.bytesIn);
    target.bytesOut = 0;
    for (let i = 0; i < 1_000; i++) target.wait(100);
    // Nothing is sent of our own accord to who did not prove his address.
    expect(target.bytesOut).toBe(0);
  });

  it('refusals of all kinds cause few responses and fewer log lines', () => {
    const target = new Target();
    const unknown = parseIkeProposalString('aes256gcm16-prfsha512-ecp521');
    const other = (payloads: Payload[]): Payload[] =>
      payloads.map((p) => (p.type === 'sa' ? { type: 'sa', proposals: ikeWireProposals([unknown]) } : p));
    for (let n = 0; n < 5_000; n++) target.receive(spoofed(n), init(n, other));
    expect(target.events.length).toBeLessThanOrEqual(20);
    expect(target.endpoint.counters()['rate-limited']).toBeGreaterThan(4_500);
    expect(target.bytesOut).toBeLessThan(target.bytesIn);
    expect(target.keyExchanges).toBe(0);
    expect(target.endpoint.nextTimeout()).toBeUndefined();
  });

  it('of 64 KiB are not looked at', () => {
    const target = new Target();
    const filler: Payload = { type: 'vendor', data: new Uint8Array(60_000) };
    expect(
      target.receive(
        from('198.51.100.1'),
        init(1, (payloads) => [...payloads, filler]),
      ),
    ).toEqual([]);
    expect(target.endpoint.counters()['malformed-too-many']).toBe(1);
    expect(target.keyExchanges).toBe(0);
  });
});

describe('a sender that receives at its address', () => {
  it.each([
    ['an IPv4 address', (n: number) => ({ ...from('198.51.100.1'), remote: at('198.51.100.1', 1_000 + n) })],
    ['the addresses of an IPv6 network', (n: number) => from(`2001:db8::${(n + 1).toString(16)}`)],
  ])('has a share of the half-open SAs, and leaves the others to others: %s', (_what, path) => {
    const target = new Target();
    for (let n = 0; n < 600; n++) withCookie(target, path(n), n);
    expect(target.keyExchanges).toBe(SHARE + DISPLACEMENTS);
    expect(target.endpoint.status()).toHaveLength(SHARE);
    expect(target.endpoint.counters()['half-open-full']).toBeGreaterThan(500);
    const [answer] = withCookie(target, from('203.0.113.9'), 9_999);
    expect(findPayload(decodeMessage(answer!).payloads, 'sa')).toBeDefined();
  });

  it('gains nothing by failing: neither with public values that are not valid, nor with AUTH', () => {
    const target = new Target();
    for (let n = 0; n < 600; n++) withCookie(target, from('198.51.100.1'), n, zeroKey);
    expect(target.keyExchanges).toBe(SHARE + DISPLACEMENTS);

    const peers = new FakePeer();
    peers.host.secret = 'another';
    let refused = 0;
    for (let n = 0; n < 200; n++) {
      const peer = new FakePeer({ host: peers.host, initiatorSpi: BigInt(n + 1) });
      const cookie = findNotify(peer.init(), NotifyType.COOKIE);
      if (cookie !== undefined) peer.init((payloads) => [cookie, ...payloads]);
      if (peer.spi === 0n) continue;
      refused++;
      peer.request(ExchangeType.IKE_AUTH, peer.authPayloads());
    }
    expect(refused).toBe(NAMED_SHARE + DISPLACEMENTS);
    expect(peers.host.endpoint.counters()['authentication-failed']).toBe(NAMED_SHARE + DISPLACEMENTS);
    // They are forgotten after a while.
    peers.wait(20_000);
    const later = new FakePeer({ host: peers.host, initiatorSpi: 0x9999n });
    expect(findPayload(later.init(), 'sa')).toBeDefined();
  });
});

describe('cookies', () => {
  it('of no length, of too many bytes, or two of them are bad syntax', () => {
    for (const data of [[0], [65], [8, 8]]) {
      const target = new Target();
      const cookies = data.map((length) => notifyPayload(NotifyType.COOKIE, new Uint8Array(length)));
      const [answer] = target.receive(
        from('198.51.100.1'),
        init(1, (payloads) => [...cookies, ...payloads]),
      );
      expect(findNotify(decodeMessage(answer!).payloads, NotifyType.INVALID_SYNTAX)).toBeDefined();
      expect(target.keyExchanges).toBe(0);
    }
  });

  it('hold for two minutes at most, and only for the request that they were demanded of', () => {
    const target = new Target();
    for (let n = 0; n < THRESHOLD; n++) target.receive(spoofed(n), init(n));
    const path = from('198.51.100.1');
    const cookie = findNotify(decodeMessage(target.receive(path, init(1_000))[0]!).payloads, NotifyType.COOKIE)!;
    const renew = (): void => {
      for (let n = 0; n < THRESHOLD; n++) target.receive(spoofed(target.now + n), init(target.now + n));
    };
    const taken = (n: number, path: Path): boolean => {
      const [answer] = target.receive(
        path,
        init(n, (payloads) => [cookie, ...payloads]),
      );
      return findPayload(decodeMessage(answer!).payloads, 'sa') !== undefined;
    };
    expect(taken(1_001, path)).toBe(false);
    expect(taken(1_000, from('198.51.100.2'))).toBe(false);
    expect(taken(1_000, path)).toBe(true);
    for (let i = 0; i < 2; i++) {
      target.wait(61_000);
      renew();
      target.receive(spoofed(5), init(5_000));
    }
    expect(taken(1_000, path)).toBe(false);
  });
});

describe('a host that forges answers', () => {
  it('has our request sent again for a few cookies, and no more', () => {
    const pair = new Pair();
    pair.filter = () => 'drop';
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    const { path, data } = pair.sent[0]!;
    const { header } = decodeMessage(data);
    for (let n = 0; n < 50; n++) {
      const cookie = notifyPayload(NotifyType.COOKIE, new Uint8Array(16).fill(n));
      const answer = encodePlain({ ...header, initiator: false, response: true }, [cookie]);
      const back = { local: path.remote, remote: path.local };
      pair.deliver({ from: pair.b, to: pair.a, path: back, data: answer });
    }
    expect(pair.sent).toHaveLength(6);
    pair.run(10_000);
    expect(pair.a.of('failed')).toMatchObject([{ reason: 'peer-misbehaved' }]);
    expect(pair.a.endpoint.status()).toEqual([]);
  });
});

describe('an authenticated peer', () => {
  it('and replaces its IKE SA again and again, but never deletes, is told to wait', () => {
    const pair = new Pair();
    pair.up();
    // Its deletes are lost.
    pair.filter = ({ from: sender, data }) => (sender === pair.a && data[18] === 37 ? 'drop' : 'deliver');
    for (let i = 0; i < 12; i++) {
      pair.act(pair.a, (endpoint, now) => endpoint.rekeyIkeSa(now, pair.a.ikeSa.id));
      pair.run(200);
    }
    const states = pair.b.endpoint.status().map(({ state }) => state);
    expect(states.filter((state) => state === 'rekeyed')).toHaveLength(4);
    expect(pair.b.child.config.name).toBe('c');
    pair.filter = () => 'deliver';
    pair.run(200_000);
    expect(pair.b.endpoint.status()).toHaveLength(1);
  });

  it('and opens one IKE SA after the other, at once, has the latest few', () => {
    const first = new FakePeer();
    first.establish();
    for (let n = 0; n < 60; n++) {
      const peer = new FakePeer({ host: first.host, initiatorSpi: BigInt(n + 1) });
      peer.now = 1_000 + n;
      peer.establish();
    }
    expect(first.host.endpoint.status()).toHaveLength(16);
    expect(first.host.ikeSas.size).toBe(16);
    first.wait(200_000);
    expect(first.host.endpoint.status()).toHaveLength(1);
  });

  it('and deletes all that can be named in 64 KiB loses its own, at once', () => {
    const peer = new FakePeer();
    peer.establish();
    const spis = Array.from({ length: 16_000 }, (_, i) => Uint8Array.of(0, 0, (i + 0x1000) >>> 8, (i + 0x1000) & 255));
    const answer = peer.request(ExchangeType.INFORMATIONAL, [{ type: 'delete', protocol: 3, spis }]);
    expect(findPayload(answer!, 'delete')!.spis).toHaveLength(1);
    expect(peer.host.children.size).toBe(0);
    expect(peer.host.ikeSas.size).toBe(1);
  });
});

describe('WakeQueue', () => {
  it('is what a table that is searched would be', () => {
    const random = new Random(3);
    const queue = new WakeQueue<number>();
    const table = new Map<number, number>();
    const earliest = (): number | undefined => (table.size === 0 ? undefined : Math.min(...table.values()));
    for (let step = 0; step < 20_000; step++) {
      const item = random.below(60);
      const time = random.below(5) === 0 ? undefined : random.below(1_000);
      queue.set(item, time);
      if (time === undefined) table.delete(item);
      else table.set(item, time);
      expect(queue.next()).toBe(earliest());
      if (random.below(50) > 0) continue;
      const now = random.below(300);
      const due = [...table].filter(([, at]) => at <= now);
      const times = queue.takeDue(now).map((taken) => table.get(taken)!);
      expect(times).toEqual(due.map(([, at]) => at).sort((a, b) => a - b));
      for (const [taken] of due) table.delete(taken);
    }
  });
});
