/**
 * What a peer that has proved nothing can have the responder spend with one message, beside a whole honest set-up: in one
 * run, in processor time, the least of several, as a busy machine only adds to it. What the bound is to catch cost eighty times as much.
 */
import { describe, expect, it } from 'vitest';
import { derElement } from '../../src/base/asn1/der.ts';
import { DecodeError, fromHex } from '../../src/base/bytes.ts';
import { type Identity, identityFromText } from '../../src/base/identity.ts';
import { ExchangeType } from '../../src/ike/wire/iana.ts';
import { decodePayloads, type Payload } from '../../src/ike/wire/payload.ts';
import type { WireProposal } from '../../src/ike/wire/payloads/sa.ts';
import { checkRules } from '../../src/ike/wire/rules.ts';
import { FakePeer } from '../support/ike-fake-peer.ts';
import { child, connection, mirrored, net } from '../support/ike-pair.ts';

const ROUNDS = 15;
const MOST = 12;

/** Microseconds of processor time. */
function spentBy(act: () => void): number {
  const begun = process.cpuUsage();
  act();
  const { user, system } = process.cpuUsage(begun);
  return user + system;
}
const times = <T>(count: number, one: (at: number) => T): T[] => Array.from({ length: count }, (_, at) => one(at));

/** A peer whose responder's time is measured. */
class Measured extends FakePeer {
  spent = 0;

  constructor() {
    super();
    const { endpoint } = this.host;
    const handle = endpoint.handleDatagram.bind(endpoint);
    endpoint.handleDatagram = (...given) => {
      this.spent += spentBy(() => handle(...given));
    };
  }
}

/** What the responder spends on what a peer does, after it was made ready. */
function cost(prepare: (peer: Measured) => void, act: (peer: Measured) => void): number {
  const spent = times(ROUNDS, () => {
    const peer = new Measured();
    prepare(peer);
    peer.spent = 0;
    act(peer);
    return peer.spent;
  });
  return Math.min(...spent);
}

/** Twice, as code that runs for the first time is slow. */
function honest(prepare: (peer: Measured) => void = () => undefined): number {
  const setUp = (peer: Measured): void => {
    peer.init();
    peer.request(ExchangeType.IKE_AUTH, peer.authPayloads());
  };
  cost(prepare, setUp);
  return cost(prepare, setUp);
}

const transforms = (count: number): WireProposal['transforms'] =>
  times(count, (at) => ({ type: 1 + (at % 4), id: [999, 5, 999, 31][at % 4]!, unknownAttributes: false }));
const proposals = (count: number, each: number): WireProposal[] =>
  times(count, (at) => ({ number: at + 1, protocol: 1, spi: new Uint8Array(0), transforms: transforms(each) }));
const notify = (type: number, length: number): Payload => ({
  type: 'notify',
  protocol: 0,
  spi: new Uint8Array(0),
  notify: type,
  data: new Uint8Array(length),
});

describe('one IKE_SA_INIT of 8 KiB', () => {
  const reference = honest();

  it.each<[string, (payloads: Payload[]) => Payload[]]>([
    ['with 250 proposals', ([, ...rest]) => [{ type: 'sa', proposals: proposals(250, 2) }, ...rest]],
    ['with 765 transforms', ([, ...rest]) => [{ type: 'sa', proposals: proposals(3, 255) }, ...rest]],
    ['with 120 hashes of addresses', (payloads) => [...payloads, ...times(120, () => notify(16_388, 20))]],
    ['with 3,500 hash algorithms', (payloads) => [...payloads, notify(16_431, 7_000)]],
    [
      'with 120 vendors',
      (payloads) => [...payloads, ...times(120, (): Payload => ({ type: 'vendor', data: new Uint8Array(50) }))],
    ],
  ])('%s costs no more than a few set-ups', (_, change) => {
    expect(
      cost(
        () => undefined,
        (peer) => void peer.init(change),
      ) / reference,
    ).toBeLessThan(MOST);
  });
});

/** A chain of payloads of one type. */
function chain(count: number, type: number, body: Uint8Array): { bytes: Uint8Array; first: number } {
  const bytes = new Uint8Array(count * (4 + body.length));
  for (let at = 0; at < count; at++) {
    const length = 4 + body.length;
    bytes.set([at + 1 < count ? type : 0, 0, length >>> 8, length & 255], at * length);
    bytes.set(body, at * length + 4);
  }
  return { bytes, first: type };
}

const repeated = (head: readonly number[], count: number, part: readonly number[]): Uint8Array =>
  Uint8Array.from([...head, ...times(count, () => part).flat()]);
const selector = [7, 0, 0, 16, 0, 0, 255, 255, 10, 0, 0, 0, 10, 0, 0, 255];
const wide = [8, 0, 0, 40, 0, 0, 255, 255, ...new Array<number>(16).fill(1), ...new Array<number>(16).fill(2)];

describe('one IKE_AUTH of 256 KiB', () => {
  const reference = honest();

  it.each([
    ['16,000 selectors', chain(63, 44, repeated([255, 0, 0, 0], 255, selector))],
    ['6,000 selectors of IPv6', chain(25, 45, repeated([255, 0, 0, 0], 255, wide))],
    ['64,000 configuration attributes', chain(4, 47, repeated([1, 0, 0, 0], 16_000, [0x70, 0, 0, 0]))],
    ['64,000 SPIs', chain(4, 42, repeated([3, 4, 16_000 >>> 8, 16_000 & 255], 16_000, [1, 2, 3, 4]))],
    [
      '16,000 attributes of a transform',
      chain(4, 33, repeated([0, 0, 0xfa, 0x10, 1, 1, 0, 1, 0, 0, 0xfa, 8, 1, 0, 0, 20], 16_000, [0x80, 14, 0, 128])),
    ],
    ['128 notifies', chain(128, 41, new Uint8Array(2_000))],
    ['256 KiB of authorities', chain(4, 38, repeated([4], 3_276, new Array<number>(20).fill(1)))],
  ])('with %s costs no more than a few set-ups to be taken apart', (_, { bytes, first }) => {
    const kind = { exchange: ExchangeType.IKE_AUTH, response: false, encrypted: true };
    const read = (): void => {
      try {
        checkRules(kind, decodePayloads(bytes, 0, bytes.length, first).payloads);
      } catch (error) {
        expect(error).toBeInstanceOf(DecodeError);
      }
    };
    expect(Math.min(...times(ROUNDS, () => spentBy(read))) / reference).toBeLessThan(MOST);
  });
});

describe('one IKE_AUTH to a gateway with 1,000 connections for peers from anywhere', () => {
  const attribute = derElement(
    0x31,
    derElement(0x30, fromHex('0603550403'), derElement(0x0c, new Uint8Array(30).fill(0x61))),
  );
  const name = (attributes: number): Identity => ({
    type: 9,
    data: derElement(0x30, ...new Array<Uint8Array>(attributes).fill(attribute)),
  });
  const configs = times(1_000, (at) => ({
    ...mirrored(connection({ children: [child('c')] })),
    name: `c${at}`,
    remote: { ...connection().local, address: undefined, id: identityFromText('dn', `C=CH, O=Example, CN=peer${at}`) },
  }));
  const anybody = configs.map((config) => ({ ...config, remote: { ...config.remote, id: undefined } }));
  const serve =
    (list: readonly (typeof anybody | typeof configs)[number][]) =>
    (peer: Measured): void => {
      for (const config of list) peer.host.endpoint.addConnection(config);
      peer.init();
    };
  const ask =
    (identity: Identity, selectors: number) =>
    (peer: Measured): void => {
      const rest = peer.authPayloads().filter(({ type }) => !['idi', 'tsi', 'tsr'].includes(type));
      const list = times(selectors, (at) => net(`172.16.${at}.0/24`));
      const ts = (['tsi', 'tsr'] as const).map((type): Payload => ({ type, selectors: list, unknown: 0 }));
      peer.request(ExchangeType.IKE_AUTH, [{ type: 'idi', identity }, ...rest, ...ts]);
    };

  it.each<[string, Identity]>([
    ['a name of 60 attributes', name(60)],
    ['a name of 1,000 attributes', name(1_000)],
    [
      'a name of one attribute of 60,000 bytes',
      {
        type: 9,
        data: derElement(
          0x30,
          derElement(
            0x31,
            derElement(0x30, fromHex('0603550403'), derElement(0x0c, new Uint8Array(60_000).fill(0x41))),
          ),
        ),
      },
    ],
  ])('costs with %s what it costs where there is one connection', (_, identity) => {
    // Its bytes are decrypted and read once. Beside each connection that was eighty times as much.
    const once = cost(serve(configs.slice(0, 1)), ask(identity, 1));
    expect(cost(serve(configs), ask(identity, 1)) / once).toBeLessThan(6);
  });

  it('costs with selectors that fit none of them less than ten milliseconds', () => {
    cost(serve(anybody), ask(identityFromText('fqdn', 'x'), 255));
    expect(cost(serve(anybody), ask(identityFromText('fqdn', 'x'), 255))).toBeLessThan(10_000);
  });
});
