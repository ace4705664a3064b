/** IKE_SA_INIT asked for again: with another group, with a cookie, with both (RFC 7296 §1.2, §2.6, §2.6.1). */
import { describe, expect, it } from 'vitest';
import { parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import type { IkeEndpointOptions } from '../../src/ike/options.ts';
import { NotifyType } from '../../src/ike/wire/iana.ts';
import { decodeHeader, decodeMessage } from '../../src/ike/wire/message.ts';
import { findNotify, findPayload } from '../../src/ike/wire/payload.ts';
import { expectClosed, expectNothing, expectSame } from '../support/ike-expect.ts';
import { at, connection, type Datagram, type Host, mirrored, Pair, Wire } from '../support/ike-pair.ts';

const of = (text: string): ConnectionConfig => connection({ proposals: [parseIkeProposalString(text)] });
const FITS = of('aes128gcm16-prfsha256-x25519');
/** The responder, which has `FITS`, does not accept the first group. */
const WRONG_GROUP = of('aes128gcm16-prfsha256-ecp256-x25519');

function isInit({ data }: Datagram): boolean {
  return decodeHeader(data).exchange === 34;
}

/** The requests for an IKE SA: the group of each, and whether it shows a cookie. */
function requests(pair: Pair, from: Host): string[] {
  return pair.sent
    .filter((datagram) => datagram.from === from && isInit(datagram))
    .map(({ data }) => {
      const { payloads } = decodeMessage(data);
      const cookie = findNotify(payloads, NotifyType.COOKIE) === undefined ? '' : ' cookie';
      return `${findPayload(payloads, 'ke')!.group}${cookie}`;
    });
}

describe.each(['a', 'b'] as const)('IKE_SA_INIT of %s', (side) => {
  function pairOf(
    mine: ConnectionConfig,
    limits: IkeEndpointOptions['limits'] = {},
  ): { pair: Pair; host: Host; peer: Host } {
    const options = { bOptions: { limits }, aOptions: { limits } };
    const pair = new Pair(
      side === 'a' ? { a: mine, b: mirrored(FITS), ...options } : { a: FITS, b: mirrored(mine), ...options },
    );
    return { pair, host: pair[side], peer: pair.peer(pair[side]) };
  }

  function expectUp(pair: Pair): void {
    expectSame(pair, 1);
    for (const each of [pair.a, pair.b]) {
      expect([...each.of('ike-up'), ...each.of('child-up')]).toHaveLength(2);
      expect(each.of('failed')).toEqual([]);
    }
    expectClosed(pair);
  }

  //   host                                 peer
  //   │── SA, KE ecp256, Ni ────────────────▶│
  //   │◀──────── INVALID_KE_PAYLOAD(x25519) ─│
  //   │── SA, KE x25519, Ni ────────────────▶│
  it('uses the group that the peer asks for', () => {
    const { pair, host } = pairOf(WRONG_GROUP);
    pair.up(host);
    expect(requests(pair, host)).toEqual(['19', '31']);
    expectUp(pair);
  });

  //   host                                 peer
  //   │── SA, KE, Ni ───────────────────────▶│
  //   │◀───────────────────── COOKIE(value) ─│   the peer keeps nothing
  //   │── COOKIE(value), SA, KE, Ni ────────▶│
  it('shows the cookie that the peer demands under load', () => {
    const { pair, host, peer } = pairOf(FITS, { cookieThreshold: 0 });
    pair.up(host);
    expect(requests(pair, host)).toEqual(['31', '31 cookie']);
    expect(peer.endpoint.counters()).toMatchObject({ 'cookie-demanded': 1, 'cookie-bad': 0 });
    expectUp(pair);
  });

  //   host                                 peer
  //   │── SA, KE ecp256, Ni ────────────────▶│
  //   │◀───────────────────── COOKIE(value) ─│
  //   │── COOKIE(value), SA, KE ecp256, Ni ─▶│
  //   │◀──────── INVALID_KE_PAYLOAD(x25519) ─│
  //   │── COOKIE(value), SA, KE x25519, Ni ─▶│   the cookie is shown again (RFC 7296 §2.6.1)
  it('shows a cookie, then uses another group', () => {
    const { pair, host, peer } = pairOf(WRONG_GROUP, { cookieThreshold: 0 });
    pair.up(host);
    expect(requests(pair, host)).toEqual(['19', '19 cookie', '31 cookie']);
    expect(peer.endpoint.counters()).toMatchObject({ 'cookie-demanded': 1, 'cookie-bad': 0 });
    expectUp(pair);
  });

  //   host                                 peer                   another
  //   │── SA, KE ecp256, Ni ────────────────▶│
  //   │◀──────── INVALID_KE_PAYLOAD(x25519) ─│
  //   │                                      │◀──── SA, KE, Ni ────│   now there is load
  //   │── SA, KE x25519, Ni ────────────────▶│
  //   │◀───────────────────── COOKIE(value) ─│
  //   │── COOKIE(value), SA, KE x25519, Ni ─▶│
  it('uses another group, then shows a cookie', () => {
    const { pair, host, peer } = pairOf(WRONG_GROUP, { cookieThreshold: 1 });
    const wire = new Wire(pair);
    pair.act(host, (endpoint, now) => endpoint.initiate(now, 'net'));
    wire.pass(host, peer);
    const other = new Pair({ seed: 9 });
    other.act(other[side], (endpoint, now) => endpoint.initiate(now, 'net'));
    const asked = other.sent[0]!;
    pair.deliver({ ...asked, to: peer, path: { ...asked.path, remote: { ...asked.path.remote, port: 501 } } });
    wire.take(peer);
    wire.settle();
    expect(requests(pair, host)).toEqual(['19', '31', '31 cookie']);
    expect(peer.endpoint.counters()['cookie-demanded']).toBe(1);
    // The half-open SA of the other is forgotten.
    pair.run(31_000);
    expectUp(pair);
  });
});

describe('a responder under load', () => {
  it('refuses a cookie that is not its own', () => {
    const pair = new Pair({ bOptions: { limits: { cookieThreshold: 0 } } });
    const wire = new Wire(pair);
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    wire.pass(pair.a, pair.b);
    const request = wire.take(pair.a);
    const moved = { ...request, path: { ...request.path, remote: at('192.0.2.77', 500) } };
    pair.b.endpoint.removeConnection(pair.now, 'net');
    pair.deliver(moved);
    expect(pair.b.endpoint.counters()['cookie-bad']).toBe(1);
    expect(pair.b.endpoint.status()).toEqual([]);
  });

  it('keeps a bounded number of half-open SAs, of which older ones give way, and forgets them', () => {
    const pair = new Pair({ bOptions: { limits: { cookieThreshold: 1_000, maxHalfOpen: 4, halfOpenTimeout: 5_000 } } });
    for (let seed = 10; seed < 15; seed++) {
      const other = new Pair({ seed });
      other.act(other.a, (endpoint, now) => endpoint.initiate(now, 'net'));
      pair.filter = () => 'drop';
      pair.deliver({ ...other.sent[0]!, to: pair.b });
    }
    // Connections that name the address may have three quarters of the places.
    expect(pair.b.endpoint.status()).toHaveLength(3);
    expect(pair.b.endpoint.counters()['half-open-displaced']).toBe(2);
    pair.run(6_000);
    expectNothing(pair);
    expect(pair.b.endpoint.counters()['half-open-expired']).toBe(3);
  });
});
