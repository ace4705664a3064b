/**
 * Half-open places under floods whose senders receive at their addresses, so that they can show cookies: a peer that a
 * connection names gets in at once, and a peer from anywhere as soon as it asks from a network that has few places.
 */
import { describe, expect, it } from 'vitest';
import { formatAddress, type IpAddress, parseAddress } from '../../src/base/address.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import { IkeEndpoint } from '../../src/ike/endpoint.ts';
import type { Path } from '../../src/ike/events.ts';
import { ikeWireProposals } from '../../src/ike/proposals/proposals.ts';
import { ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import { decodeMessage, encodePlain } from '../../src/ike/wire/message.ts';
import { findNotify, findPayload, type Payload } from '../../src/ike/wire/payload.ts';
import { at, connection, mirrored, Random } from '../support/ike-pair.ts';

const OFFER = parseIkeProposalString('aes128gcm16-prfsha256-x25519');
const GROUP = OFFER.dh[0]!;
const VALID = nodeProvider.dhKeyPair(GROUP, new Random(8).bytes).publicValue;
const PLACES = 512;
const TTL = 30_000;
const NAMED = '192.0.2.1';
const ROAD_WARRIOR = '203.0.113.9';
const LOCAL = { 4: at('192.0.2.2', 500), 6: at('2001:db8:ffff::1', 500) } as const;

/** A responder with one connection that names its peer, and one for peers from anywhere. */
class Responder {
  now = 1_000;
  readonly endpoint: IkeEndpoint;
  /** Half-open SAs that were opened. */
  opened = 0;

  constructor(seed = 7) {
    this.endpoint = new IkeEndpoint({ crypto: nodeProvider, random: new Random(seed).bytes });
    const named = mirrored(connection());
    const base = { ...named, local: { ...named.local, address: undefined } };
    this.endpoint.addConnections([base, { ...base, name: 'any', remote: { ...named.remote, address: undefined } }]);
  }

  receive(path: Path, data: Uint8Array): Uint8Array[] {
    this.endpoint.handleDatagram(this.now, path, data);
    while (this.endpoint.pollEvent() !== undefined);
    const out: Uint8Array[] = [];
    for (let next = this.endpoint.pollTransmit(); next !== undefined; next = this.endpoint.pollTransmit()) {
      out.push(next.data);
    }
    return out;
  }

  /** IKE_SA_INIT, once more with the cookie when one is demanded: whether it was answered with a responder's SPI. */
  ask(remote: string, spi: number): bigint | undefined {
    const path = { local: LOCAL[remote.includes(':') ? 6 : 4], remote: at(remote, 500) };
    let [answer] = this.receive(path, init(spi));
    const cookie = answer && findNotify(decodeMessage(answer).payloads, NotifyType.COOKIE);
    if (cookie !== undefined) [answer] = this.receive(path, init(spi, cookie));
    if (answer === undefined) return undefined;
    const { header, payloads } = decodeMessage(answer);
    if (findPayload(payloads, 'sa') === undefined) return undefined;
    this.opened++;
    return header.responderSpi;
  }

  has(spiResponder: bigint): boolean {
    return this.endpoint.status().some((sa) => sa.spiResponder === spiResponder);
  }

  wait(duration: number): void {
    this.now += duration;
    this.endpoint.handleTimeout(this.now);
  }
}

function init(spi: number, cookie?: Payload, publicValue = VALID): Uint8Array {
  const header = { initiatorSpi: BigInt(spi), responderSpi: 0n, exchange: ExchangeType.IKE_SA_INIT, messageId: 0 };
  return encodePlain({ ...header, initiator: true, response: false }, [
    ...(cookie === undefined ? [] : [cookie]),
    { type: 'sa', proposals: ikeWireProposals([OFFER]) },
    { type: 'ke', group: GROUP.id, data: publicValue },
    { type: 'nonce', data: new Uint8Array(16).fill(spi) },
  ]);
}

function plus(base: string, n: number, step = 1n): string {
  const { family, value }: IpAddress = parseAddress(base)!;
  return formatAddress({ family, value: value + BigInt(n) * step });
}

/** Senders of a flood, by number. Each sends again and again. */
const FLOODS: readonly (readonly [what: string, senders: number, address: (n: number) => string])[] = [
  ['one address', 1, () => '198.51.100.1'],
  ['32 addresses, each of a network of its own', 32, (n) => plus('10.0.0.1', n, 256n)],
  ['10,000 addresses of one IPv4 /16', 10_000, (n) => plus('10.7.0.1', n)],
  ['all addresses of 40 IPv4 /24', 10_000, (n) => plus('10.0.0.0', n)],
  ['one IPv6 /64', 10_000, (n) => plus('2001:db8::', n)],
  ['10,000 /64 of one IPv6 /48', 10_000, (n) => plus('2001:db8::1', n, 1n << 64n)],
  ['300 IPv4 /24', 300, (n) => plus('10.0.0.1', n, 256n)],
];

describe.each(FLOODS)('a flood with cookies from %s', (_what, senders, address) => {
  let sent = 0;

  /** So many requests, at a thousand a second. */
  function flood(responder: Responder, requests: number): void {
    for (let n = 0; n < requests; n++, sent++) {
      responder.ask(address(sent % senders), 1_000 + sent);
      if (n % 100 === 99) responder.wait(100);
    }
  }

  it('keeps out neither a configured peer nor one from anywhere, and costs a bounded number of key exchanges', () => {
    const responder = new Responder();
    flood(responder, 2_000);
    expect(responder.endpoint.status().length).toBeLessThanOrEqual(PLACES);
    // 512 to fill the table, and for each of two seconds 32 fair displacements and 4 others, with their bursts.
    expect(responder.opened).toBeLessThanOrEqual(PLACES + 32 + 8 + 2 * (32 + 4));
    // Nothing is left that the flood could take in this moment.
    flood(responder, 50);
    for (const peer of [NAMED, ROAD_WARRIOR]) {
      const spi = responder.ask(peer, 1);
      expect(spi, peer).toBeDefined();
      // It has its place still when its IKE_AUTH comes, however long that takes.
      flood(responder, 1_500);
      expect(responder.has(spi!), peer).toBe(true);
    }
  });
});

describe('a flood with cookies from more networks than there are places', () => {
  it('does not keep out a configured peer', () => {
    const responder = new Responder();
    for (let n = 0; n < 5_000; n++) responder.ask(plus('10.0.0.1', n, 256n), 10 + n);
    const spi = responder.ask(NAMED, 1);
    expect(spi).toBeDefined();
    for (let n = 0; n < 5_000; n++) {
      if (n % 100 === 0) responder.wait(50);
      responder.ask(plus('10.100.0.1', n, 256n), 10_000 + n);
    }
    expect(responder.has(spi!)).toBe(true);
    expect(responder.endpoint.status()).toHaveLength(PLACES);
  });

  it('lets a peer from anywhere in when a displacement is free, which is four times a second', () => {
    const responder = new Responder();
    for (let n = 0; n < 5_000; n++) responder.ask(plus('10.0.0.1', n, 256n), 10 + n);
    expect(responder.ask(ROAD_WARRIOR, 1)).toBeUndefined();
    expect(responder.endpoint.counters()['half-open-full']).toBeGreaterThan(4_000);
    responder.wait(250);
    expect(responder.ask(ROAD_WARRIOR, 1)).toBeDefined();
  });
});

describe('a sender that forges the address of a configured peer', () => {
  it('fills four places, and the peer itself shows a cookie', () => {
    const responder = new Responder();
    const path = { local: LOCAL[4], remote: at(NAMED, 500) };
    for (let n = 0; n < 1_000; n++) responder.receive(path, init(10 + n));
    expect(responder.endpoint.status()).toHaveLength(4);
    expect(responder.endpoint.counters()).toMatchObject({ 'cookie-demanded': 996, 'half-open-full': 0 });
    expect(responder.ask(NAMED, 1)).toBeDefined();
  });
});

describe('a sender that receives at the address of a configured peer', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('has its places alone, of which the peer gets one in turn (seed %i)', (seed) => {
    const responder = new Responder(seed);
    for (let n = 0; n < 1_000; n++) responder.ask(NAMED, 10 + n);
    expect(responder.endpoint.status()).toHaveLength(16);
    expect(responder.ask(NAMED, 1)).toBeUndefined();
    expect(responder.ask(ROAD_WARRIOR, 1)).toBeDefined();
    responder.wait(250);
    const spi = responder.ask(NAMED, 2);
    expect(spi).toBeDefined();
    // The older half gives way: the next eight of the flood do not touch it.
    for (let n = 0; n < 8; n++) {
      responder.wait(250);
      responder.ask(NAMED, 5_000 + n);
    }
    expect(responder.has(spi!)).toBe(true);
  });
});

describe('a request without a cookie', () => {
  it('is always asked for one before it is refused for lack of room', () => {
    const responder = new Responder();
    for (let n = 0; n < 5_000; n++) responder.ask(plus('10.0.0.1', n, 256n), 10 + n);
    const before = responder.endpoint.counters();
    for (const remote of [NAMED, ROAD_WARRIOR, '10.0.0.1']) {
      const [answer] = responder.receive({ local: LOCAL[4], remote: at(remote, 500) }, init(77_777));
      expect(findNotify(decodeMessage(answer!).payloads, NotifyType.COOKIE)).toBeDefined();
    }
    expect(responder.endpoint.counters()['half-open-full']).toBe(before['half-open-full']);
  });

  it('is asked for one when its source has four places, though the others have few', () => {
    const responder = new Responder();
    for (let n = 0; n < 4; n++) responder.ask('198.51.100.1', 10 + n);
    expect(responder.endpoint.counters()['cookie-demanded']).toBe(0);
    responder.ask('198.51.100.1', 20);
    responder.ask('198.51.100.2', 20);
    expect(responder.endpoint.counters()['cookie-demanded']).toBe(1);
  });
});

describe('a set-up that failed', () => {
  it('gives way before one that goes on', () => {
    const responder = new Responder();
    const going = [1, 2].map((spi) => responder.ask(NAMED, spi)!);
    // Two with public values that are not valid; then all sixteen places are taken.
    for (let n = 0; n < 2; n++)
      responder.receive({ local: LOCAL[4], remote: at(NAMED, 500) }, init(5_000 + n, undefined, new Uint8Array(32)));
    for (let n = 0; n < 12; n++) going.push(responder.ask(NAMED, 100 + n)!);
    for (let n = 0; n < 2; n++) going.push(responder.ask(NAMED, 200 + n)!);
    expect(responder.endpoint.counters()['half-open-displaced']).toBe(2);
    expect(going.every((spi) => responder.has(spi))).toBe(true);
  });

  it('holds a place for fifteen seconds, a half-open one for thirty, and then none is left', () => {
    const responder = new Responder();
    for (let n = 0; n < 2_000; n++) responder.ask(plus('10.0.0.1', n, 256n), 10 + n);
    responder.wait(TTL + 1);
    expect(responder.endpoint.status()).toEqual([]);
    expect(responder.endpoint.nextTimeout()).toBeUndefined();
  });
});
