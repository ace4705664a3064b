/** Several CHILD SAs of one child of the configuration, each for a part of it, as policy-based peers make them (RFC 7296 §2.9). */
import { expect, it } from 'vitest';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import { espWireProposals } from '../../src/ike/proposals/proposals.ts';
import { childSpiBytes } from '../../src/ike/session/child.ts';
import { ExchangeType, NotifyType, ProtocolId } from '../../src/ike/wire/iana.ts';
import { decodeHeader } from '../../src/ike/wire/message.ts';
import { findNotify, findPayload, type Payload } from '../../src/ike/wire/payload.ts';
import { notifyPayload, saNotifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { formatSelectors, type SelectorPair } from '../../src/policy/selector.ts';
import { sel } from '../policy/helpers.ts';
import { expectClosed, expectSame } from '../support/ike-expect.ts';
import { FakePeer } from '../support/ike-fake-peer.ts';
import { child, connection, Host, mirrored, net, Pair, Random, Wire } from '../support/ike-pair.ts';
import { sealing } from '../support/ike-tamper.ts';

const LAN = child('lan', {
  selectors: { local: [net('10.1.0.0/24'), net('10.2.0.0/24')], remote: [net('10.9.0.0/24')] },
});

/** A peer of an endpoint that has these children, mirrored; no CHILD SA is up. */
function peerOf(children = [LAN]): FakePeer {
  const host = new Host('b', { crypto: nodeProvider, random: new Random(5).bytes });
  host.endpoint.addConnection(mirrored(connection({ children })));
  const peer = new FakePeer({ host });
  peer.init();
  peer.request(
    ExchangeType.IKE_AUTH,
    peer.authPayloads().filter(({ type }) => type !== 'sa' && type !== 'tsi' && type !== 'tsr'),
  );
  return peer;
}

function offer(peer: FakePeer, spi: number, parts: string[]): Payload[] {
  const proposals = espWireProposals([parseEspProposalString('aes128gcm16-noesn')], 'create-child', childSpiBytes(spi));
  return [
    { type: 'sa', proposals },
    { type: 'nonce', data: peer.random.bytes(32) },
    { type: 'tsi', selectors: parts.map(net), unknown: 0 },
    { type: 'tsr', selectors: [net('10.9.0.0/24')], unknown: 0 },
  ];
}

const rekey = (spi: number): Payload => saNotifyPayload(NotifyType.REKEY_SA, ProtocolId.ESP, childSpiBytes(spi));
const deletion = (spi: number): Payload => ({ type: 'delete', protocol: ProtocolId.ESP, spis: [childSpiBytes(spi)] });

it('the successor of one of them is sent on when the peer deletes the old one, whatever the other does', () => {
  const peer = peerOf();
  peer.request(ExchangeType.CREATE_CHILD_SA, offer(peer, 0x1000, ['10.1.0.0/24']));
  peer.request(ExchangeType.CREATE_CHILD_SA, offer(peer, 0x2000, ['10.2.0.0/24']));
  peer.request(ExchangeType.CREATE_CHILD_SA, [rekey(0x1000), ...offer(peer, 0x3000, ['10.1.0.0/24'])]);
  peer.request(ExchangeType.INFORMATIONAL, [deletion(0x1000)]);
  const [first, , successor] = peer.host.of('child-up').map((event) => event.child.id);
  expect(peer.host.of('child-send').map(({ childId }) => childId)).toEqual([successor]);
  expect(peer.host.of('child-down')).toMatchObject([{ childId: first, reason: 'rekeyed', replaced: true }]);
  // One that nothing replaces is told of as such.
  peer.request(ExchangeType.INFORMATIONAL, [deletion(0x2000)]);
  expect(peer.host.of('child-down')[1]).toMatchObject({ reason: 'deleted-by-peer', replaced: false });
});

it('two that an SA for both is replaced by are both sent on', () => {
  const peer = peerOf();
  peer.request(ExchangeType.CREATE_CHILD_SA, offer(peer, 0x1000, ['10.1.0.0/24', '10.2.0.0/24']));
  peer.request(ExchangeType.CREATE_CHILD_SA, [rekey(0x1000), ...offer(peer, 0x2000, ['10.1.0.0/24'])]);
  peer.request(ExchangeType.CREATE_CHILD_SA, offer(peer, 0x3000, ['10.2.0.0/24']));
  peer.request(ExchangeType.INFORMATIONAL, [deletion(0x1000)]);
  const [, part] = peer.host.of('child-up').map((event) => event.child.id);
  expect(peer.host.of('child-up').map(({ sendNow }) => sendNow)).toEqual([true, false, true]);
  expect(peer.host.of('child-send').map(({ childId }) => childId)).toEqual([part]);
});

it('the peer gets ADDITIONAL_TS_POSSIBLE where another child covers what this one leaves out', () => {
  const parts = ['10.1.0.0/24', '10.2.0.0/24'].map((range) =>
    child(range, { selectors: { local: [net(range)], remote: [net('10.9.0.0/24')] } }),
  );
  const peer = peerOf(parts);
  const more = (answer: readonly Payload[] | undefined): boolean =>
    findNotify(answer!, NotifyType.ADDITIONAL_TS_POSSIBLE) !== undefined;
  const all = ['10.1.0.0/24', '10.2.0.0/24'];
  expect(more(peer.request(ExchangeType.CREATE_CHILD_SA, offer(peer, 0x1000, all)))).toBe(true);
  expect(more(peer.request(ExchangeType.CREATE_CHILD_SA, offer(peer, 0x2000, all.slice(1))))).toBe(false);
  expect(more(peer.request(ExchangeType.CREATE_CHILD_SA, offer(peer, 0x3000, [...all, '10.7.0.0/24'])))).toBe(true);
});

/** The selectors of a request of the endpoint's, as text. */
function asked(peer: FakePeer, request: Uint8Array): string {
  const { payloads } = peer.open(request);
  const shown = (['tsi', 'tsr'] as const).map((type) => formatSelectors(findPayload(payloads, type)!.selectors));
  return shown.join(' === ');
}

function call(peer: FakePeer, trigger: SelectorPair | undefined): Uint8Array {
  peer.host.endpoint.initiate(peer.now, 'net', { child: 'lan', trigger });
  const [request] = peer.drain();
  expect(decodeHeader(request!).exchange).toBe(ExchangeType.CREATE_CHILD_SA);
  return request!;
}

const TRIGGER: SelectorPair = { local: [sel('10.9.0.7 udp 1')], remote: [sel('10.2.0.7 udp 2')] };

it('the packet that calls for an SA comes first on both sides', () => {
  const peer = peerOf();
  expect(asked(peer, call(peer, TRIGGER))).toBe(
    '10.9.0.7 udp 1, 10.9.0.0/24 === 10.2.0.7 udp 2, 10.1.0.0/24, 10.2.0.0/24',
  );
});

it('a peer that wants a single pair of addresses is asked for those of the packet', () => {
  const peer = peerOf();
  const [again] = peer.answer(call(peer, TRIGGER), [notifyPayload(NotifyType.SINGLE_PAIR_REQUIRED)]);
  expect(asked(peer, again!)).toBe('10.9.0.7 udp 1, 10.9.0.7 === 10.2.0.7 udp 2, 10.2.0.7');
  expect(peer.host.of('failed')).toEqual([]);
  // One that wants none for that either is not asked for ever.
  expect(peer.answer(again!, [notifyPayload(NotifyType.SINGLE_PAIR_REQUIRED)])).toEqual([]);
  expect(peer.host.of('failed')).toMatchObject([{ reason: 'SINGLE_PAIR_REQUIRED', child: 'lan' }]);
});

//   host                                 peer
//   │── SA, TSi 10.1.0.7, 10.1.0.0/24, … ─▶│   for the packet from 10.1.0.7 to 10.2.0.7
//   │◀─────────────── SINGLE_PAIR_REQUIRED │
//   │── SA, TSi 10.1.0.7, TSr 10.2.0.7 ───▶│   these alone (RFC 7296 §2.9)
it.each(['a', 'b'] as const)('SINGLE_PAIR_REQUIRED, answered to %s: the SA for the one pair comes up', (side) => {
  let refuses = true;
  // The peer refuses the selectors, but gives another reason.
  const crypto = sealing(({ exchange, response, content }) => {
    if (refuses && exchange === ExchangeType.CREATE_CHILD_SA && response) content[7] = NotifyType.SINGLE_PAIR_REQUIRED;
  });
  const childless = connection({ children: [] });
  const pair = new Pair({ a: childless, ...(side === 'a' ? { bOptions: { crypto } } : { aOptions: { crypto } }) });
  pair.up();
  const host = pair[side];
  const peer = pair.peer(host);
  const other = { local: [net('10.8.0.0/24')], remote: [net('10.9.0.0/24')] };
  const configure = (each: Host, config: ReturnType<typeof connection>): void =>
    each.endpoint.replaceConnection(each === pair.a ? config : mirrored(config));
  configure(host, connection());
  configure(peer, connection({ children: [child('c', { selectors: other })] }));
  const wire = new Wire(pair);
  const [near, far] = [sel('10.1.0.7 udp 1'), sel('10.2.0.7 udp 2')];
  const trigger = side === 'a' ? { local: [near], remote: [far] } : { local: [far], remote: [near] };
  pair.act(host, (endpoint, now) => endpoint.initiate(now, 'net', { child: 'c', trigger }));
  wire.pass(host, peer);
  refuses = false;
  configure(peer, connection());
  wire.settle();
  expectSame(pair, 1);
  const pairs = [pair.a, pair.b].map(({ child: { selectors } }) =>
    [selectors.local, selectors.remote].map((part) => formatSelectors(part)).join(' === '),
  );
  expect(pairs).toEqual(['10.1.0.7 === 10.2.0.7', '10.2.0.7 === 10.1.0.7']);
  expect(host.of('failed')).toEqual([]);
  expectClosed(pair);
});
