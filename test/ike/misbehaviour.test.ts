/** Peers that are authentic and wrong: each is told, and nothing of ours is lost but what they broke themselves. */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import { espWireProposals, ikeWireProposals } from '../../src/ike/proposals/proposals.ts';
import { childSpiBytes } from '../../src/ike/session/child.ts';
import { ExchangeType, NotifyType, ProtocolId, TransformType } from '../../src/ike/wire/iana.ts';
import { findNotify, findPayload, type Payload } from '../../src/ike/wire/payload.ts';
import { notifyPayload, saNotifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { FakePeer } from '../support/ike-fake-peer.ts';
import { connection, mirrored } from '../support/ike-pair.ts';

const { CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL } = ExchangeType;
const CRITICAL: Payload = { type: 'unknown', payloadType: 200, critical: true, data: new Uint8Array(3) };
const HARMLESS: Payload = { type: 'unknown', payloadType: 201, critical: false, data: new Uint8Array(3) };

function established(options: ConstructorParameters<typeof FakePeer>[0] = {}): FakePeer {
  const peer = new FakePeer(options);
  peer.establish();
  expect(peer.host.children.size).toBe(1);
  return peer;
}

const notifies = (payloads: readonly Payload[] | undefined): number[] =>
  (payloads ?? []).flatMap((payload) => (payload.type === 'notify' ? [payload.notify] : []));

describe('IKE_SA_INIT', () => {
  it.each([
    ['no SA', (payloads: Payload[]) => payloads.slice(1), NotifyType.INVALID_SYNTAX],
    ['no KE', (payloads: Payload[]) => payloads.filter(({ type }) => type !== 'ke'), NotifyType.INVALID_SYNTAX],
    ['no nonce', (payloads: Payload[]) => payloads.slice(0, 2), NotifyType.INVALID_SYNTAX],
    [
      'an unknown critical payload',
      (payloads: Payload[]) => [...payloads, CRITICAL],
      NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD,
    ],
    [
      'a public value of zero',
      (payloads: Payload[]) => payloads.map((p) => (p.type === 'ke' ? { ...p, data: new Uint8Array(32) } : p)),
      NotifyType.INVALID_SYNTAX,
    ],
    [
      'a public value that is too short',
      (payloads: Payload[]) => payloads.map((p) => (p.type === 'ke' ? { ...p, data: new Uint8Array(31).fill(9) } : p)),
      NotifyType.INVALID_SYNTAX,
    ],
    [
      'no public value at all',
      (payloads: Payload[]) => payloads.map((p) => (p.type === 'ke' ? { ...p, data: new Uint8Array(0) } : p)),
      NotifyType.INVALID_SYNTAX,
    ],
    [
      'another group than the proposal',
      (payloads: Payload[]) => payloads.map((p) => (p.type === 'ke' ? { ...p, group: 19 } : p)),
      NotifyType.INVALID_KE_PAYLOAD,
    ],
  ] as const)('with %s is refused, and leaves nothing', (_what, change, notify) => {
    const peer = new FakePeer();
    expect(notifies(peer.init(change))).toEqual([notify]);
    expect(peer.host.endpoint.status()).toEqual([]);
    peer.wait(20_000);
    expect(peer.host.endpoint.nextTimeout()).toBeUndefined();
  });

  it.each([0, 2, 24, 1_024, 0xff00, 0xffff])('that offers group %i alone, none of ours, is refused', (id) => {
    const peer = new FakePeer();
    const answer = peer.init((payloads) =>
      payloads.map((p): Payload => {
        if (p.type === 'ke') return { ...p, group: id };
        if (p.type !== 'sa') return p;
        const proposals = p.proposals.map((proposal) => ({
          ...proposal,
          transforms: proposal.transforms.map((entry) => (entry.type === TransformType.DH ? { ...entry, id } : entry)),
        }));
        return { type: 'sa', proposals };
      }),
    );
    expect(notifies(answer)).toEqual([NotifyType.NO_PROPOSAL_CHOSEN]);
    expect(peer.host.endpoint.status()).toEqual([]);
  });

  it('with an unknown payload that is not critical is accepted', () => {
    const peer = new FakePeer();
    expect(
      findPayload(
        peer.init((payloads) => [...payloads, HARMLESS]),
        'sa',
      ),
    ).toBeDefined();
  });
});

describe('IKE_AUTH', () => {
  it.each([
    [
      'no AUTH',
      (payloads: Payload[]) => payloads.filter(({ type }) => type !== 'auth'),
      NotifyType.AUTHENTICATION_FAILED,
    ],
    ['no identity', (payloads: Payload[]) => payloads.slice(1), NotifyType.INVALID_SYNTAX],
    ['an SA and no selectors', (payloads: Payload[]) => payloads.slice(0, 3), NotifyType.INVALID_SYNTAX],
    [
      'an unknown critical payload',
      (payloads: Payload[]) => [...payloads, CRITICAL],
      NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD,
    ],
    [
      'a signature',
      (payloads: Payload[]) => payloads.map((p) => (p.type === 'auth' ? { ...p, method: 14 } : p)),
      NotifyType.AUTHENTICATION_FAILED,
    ],
    [
      'an empty AUTH',
      (payloads: Payload[]) => payloads.map((p) => (p.type === 'auth' ? { ...p, data: new Uint8Array(0) } : p)),
      NotifyType.AUTHENTICATION_FAILED,
    ],
  ] as const)('with %s is refused, and the SA is gone', (_what, change, notify) => {
    const peer = new FakePeer();
    peer.init();
    expect(notifies(peer.request(IKE_AUTH, change(peer.authPayloads())))).toEqual([notify]);
    expect(peer.host.of('failed')).toHaveLength(1);
    expect(peer.host.of('ike-up')).toEqual([]);
    // A second try on the same IKE SA is not heard.
    expect(peer.request(IKE_AUTH, peer.authPayloads())).toBeUndefined();
    peer.wait(20_000);
    expect(peer.host.endpoint.nextTimeout()).toBeUndefined();
  });

  it('without a child brings up the IKE SA, and the child may follow (RFC 6023)', () => {
    const peer = new FakePeer();
    peer.init();
    const answer = peer.request(IKE_AUTH, peer.authPayloads().slice(0, 2));
    expect(findPayload(answer!, 'auth')).toBeDefined();
    expect(findPayload(answer!, 'sa')).toBeUndefined();
    expect(peer.host.children.size).toBe(0);
    expect(findPayload(peer.request(CREATE_CHILD_SA, peer.childPayloads(0x2000))!, 'tsr')).toBeDefined();
    expect(peer.host.child.spiOut).toBe(0x2000);
  });

  it('with a reserved SPI, or selectors of types that are not known, keeps the IKE SA', () => {
    const peer = new FakePeer();
    peer.init();
    const [idi, auth] = peer.authPayloads();
    const answer = peer.request(IKE_AUTH, [idi!, auth!, ...peer.childPayloads(255, false)]);
    expect(findPayload(answer!, 'auth')).toBeDefined();
    expect(notifies(answer)).toHaveLength(1);
    expect(peer.host.ikeSas.size).toBe(1);
    expect(peer.host.children.size).toBe(0);
  });

  it('that is INFORMATIONAL or CREATE_CHILD_SA is ignored', () => {
    const peer = new FakePeer();
    peer.init();
    expect(peer.request(CREATE_CHILD_SA, peer.childPayloads(0x2000))).toBeUndefined();
    expect(peer.request(INFORMATIONAL, [])).toBeUndefined();
    expect(peer.host.endpoint.counters()['old-message-id'] + peer.host.endpoint.counters()['unexpected-exchange']).toBe(
      2,
    );
  });

  it.each([
    ['AUTHENTICATION_FAILED', notifyPayload(NotifyType.AUTHENTICATION_FAILED)],
    ['INVALID_SYNTAX', notifyPayload(NotifyType.INVALID_SYNTAX)],
    ['UNSUPPORTED_CRITICAL_PAYLOAD', notifyPayload(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, Uint8Array.of(200))],
  ])('is answered for a peer that has no use for the answer: %s ends it (RFC 7296 §2.21.2)', (what, notify) => {
    const peer = established();
    expect(peer.request(INFORMATIONAL, [notify])).toEqual([]);
    expect(peer.host.of('ike-down')).toMatchObject([{ reason: 'failed' }]);
    expect(peer.host.children.size).toBe(0);
    // Later it says nothing of IKE_AUTH.
    const other = established();
    other.request(INFORMATIONAL, []);
    expect(other.request(INFORMATIONAL, [notify])).toEqual([]);
    expect(other.host.ikeSas.size).toBe(what === 'AUTHENTICATION_FAILED' ? 0 : 1);
  });
});

describe('requests on an IKE SA that is up', () => {
  it.each(['sa', 'nonce', 'tsi', 'tsr'] as const)('a child without %s is bad syntax', (missing) => {
    const peer = established();
    const payloads = peer.childPayloads(0x2000).filter(({ type }) => type !== missing);
    expect(notifies(peer.request(CREATE_CHILD_SA, payloads))).toEqual([NotifyType.INVALID_SYNTAX]);
    expect(peer.host.endpoint.counters().bug).toBe(0);
  });

  it('a child without the key exchange that we want is asked for one, and the SA stays', () => {
    const peer = established();
    const config = mirrored(connection());
    const proposals = [parseEspProposalString('aes128gcm16-x25519-noesn')];
    peer.host.endpoint.replaceConnection({
      ...config,
      children: config.children.map((entry) => ({ ...entry, proposals })),
    });
    const offer = espWireProposals(proposals, 'create-child', childSpiBytes(0x2000));
    const payloads = peer
      .childPayloads(0x2000)
      .map((p): Payload => (p.type === 'sa' ? { type: 'sa', proposals: offer } : p));
    const answer = peer.request(CREATE_CHILD_SA, payloads);
    expect(findNotify(answer!, NotifyType.INVALID_KE_PAYLOAD)!.data).toEqual(Uint8Array.of(0, 31));
    expect(peer.host.children.size).toBe(1);
  });

  it('an IKE SA is not replaced without a key exchange', () => {
    const peer = established();
    const spi = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    const proposals = ikeWireProposals([parseIkeProposalString('aes128gcm16-prfsha256-x25519')], spi);
    const nonce: Payload = { type: 'nonce', data: new Uint8Array(32).fill(3) };
    expect(notifies(peer.request(CREATE_CHILD_SA, [{ type: 'sa', proposals }, nonce]))).toEqual([
      NotifyType.INVALID_SYNTAX,
    ]);
    expect(peer.host.of('ike-up')).toHaveLength(1);
  });

  it('an unknown critical payload is refused, and nothing else happens', () => {
    const peer = established();
    const answer = peer.request(INFORMATIONAL, [CRITICAL]);
    expect(notifies(answer)).toEqual([NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD]);
    expect(findNotify(answer!, NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD)!.data).toEqual(Uint8Array.of(200));
    expect(peer.request(INFORMATIONAL, [HARMLESS])).toEqual([]);
    expect(peer.host.children.size).toBe(1);
  });

  it('bad syntax ends it on both sides (RFC 7296 §2.21.3)', () => {
    const peer = established();
    const noNonce = peer.childPayloads(0x2000).filter(({ type }) => type !== 'nonce');
    expect(notifies(peer.request(CREATE_CHILD_SA, noNonce))).toEqual([NotifyType.INVALID_SYNTAX]);
    expect(peer.host.of('ike-down')).toMatchObject([{ reason: 'failed' }]);
    expect(peer.host.children.size).toBe(0);
  });

  it('a CHILD SA that does not exist is not rekeyed: CHILD_SA_NOT_FOUND, with its SPI', () => {
    const peer = established();
    for (const spi of [0x9999, 0]) {
      const rekey = saNotifyPayload(NotifyType.REKEY_SA, ProtocolId.ESP, childSpiBytes(spi));
      const answer = peer.request(CREATE_CHILD_SA, [rekey, ...peer.childPayloads(0x2000)]);
      expect(answer).toMatchObject([{ notify: NotifyType.CHILD_SA_NOT_FOUND, spi: childSpiBytes(spi) }]);
    }
    expect(peer.host.children.size).toBe(1);
  });

  it('deletes of SAs that do not exist are answered with nothing', () => {
    const peer = established();
    const spis = Array.from({ length: 1_000 }, (_, i) => childSpiBytes(i));
    expect(peer.request(INFORMATIONAL, [{ type: 'delete', protocol: ProtocolId.ESP, spis }])).toEqual([]);
    expect(
      peer.request(INFORMATIONAL, [{ type: 'delete', protocol: ProtocolId.AH, spis: [childSpiBytes(0x1000)] }]),
    ).toEqual([]);
    expect(peer.host.children.size).toBe(1);
  });

  it('ignores notifies that it did not ask for', () => {
    const peer = established();
    for (const notify of [NotifyType.SET_WINDOW_SIZE, NotifyType.COOKIE, NotifyType.MOBIKE_SUPPORTED, 12345, 50000]) {
      const data = notify === NotifyType.SET_WINDOW_SIZE ? Uint8Array.of(0, 0, 0, 9) : Uint8Array.of(1);
      expect(peer.request(INFORMATIONAL, [notifyPayload(notify, data)])).toEqual([]);
    }
    expect(peer.host.of('note').length).toBeGreaterThan(3);
    expect(peer.host.children.size).toBe(1);
  });

  it('a response that is sent as a request, and the reverse, are ignored', () => {
    const peer = established();
    const { endpoint } = peer.host;
    const header = { initiatorSpi: 0x1122334455667788n, responderSpi: peer.spi, exchange: INFORMATIONAL, messageId: 2 };
    peer.send(peer.seal({ ...header, initiator: true, response: true }, []));
    expect(endpoint.counters()['unexpected-response']).toBe(1);
    peer.send(peer.seal({ ...header, initiator: false, response: false }, []));
    expect(endpoint.counters()['unknown-spi']).toBe(1);
    expect(peer.host.children.size).toBe(1);
  });

  it('more children than there may be are refused: NO_ADDITIONAL_SAS', () => {
    const peer = established({ limits: { maxChildrenPerIkeSa: 2 } });
    expect(findPayload(peer.request(CREATE_CHILD_SA, peer.childPayloads(0x2000))!, 'sa')).toBeDefined();
    const answer = peer.request(CREATE_CHILD_SA, peer.childPayloads(0x3000));
    expect(notifies(answer)).toEqual([NotifyType.NO_ADDITIONAL_SAS]);
    expect(peer.host.children.size).toBe(2);
  });
});

describe('a peer that rekeys and never deletes', () => {
  it('gets no more than twice the children that there may be', () => {
    const peer = established({ limits: { maxChildrenPerIkeSa: 3 } });
    let spi = 0x1000;
    let refused: number[] = [];
    for (let i = 0; i < 20 && refused.length === 0; i++) {
      const rekey = saNotifyPayload(NotifyType.REKEY_SA, ProtocolId.ESP, childSpiBytes(spi));
      refused = notifies(peer.request(CREATE_CHILD_SA, [rekey, ...peer.childPayloads(++spi)]));
    }
    expect(refused).toEqual([NotifyType.TEMPORARY_FAILURE]);
    expect(peer.host.children.size).toBe(6);
  });
});

describe('answers to our requests', () => {
  function rekeying(): { peer: FakePeer; request: Uint8Array } {
    const peer = established();
    peer.host.endpoint.rekeyChild(peer.now, peer.host.child.id);
    const [request] = peer.drain();
    return { peer, request: request! };
  }

  it('CHILD_SA_NOT_FOUND: the peer lost it, and it is made anew', () => {
    const { peer, request } = rekeying();
    const old = peer.host.child.id;
    const lost = saNotifyPayload(NotifyType.CHILD_SA_NOT_FOUND, ProtocolId.ESP, childSpiBytes(peer.host.child.spiIn));
    const [create] = peer.answer(request, [lost]);
    expect(peer.host.of('child-down')).toMatchObject([{ childId: old, reason: 'deleted-by-peer' }]);
    const { payloads } = peer.open(create!);
    expect(findNotify(payloads, NotifyType.REKEY_SA)).toBeUndefined();
    expect(findPayload(payloads, 'tsi')).toBeDefined();
  });

  it('TEMPORARY_FAILURE for minutes: the IKE SA is closed', () => {
    const { peer, request } = rekeying();
    let waiting: Uint8Array | undefined = request;
    let tries = 0;
    while (waiting !== undefined && peer.host.ikeSas.size > 0) {
      tries++;
      peer.answer(waiting, [notifyPayload(NotifyType.TEMPORARY_FAILURE)]);
      waiting = peer.wait(4_500)[0];
    }
    expect(peer.host.of('ike-down')).toMatchObject([{ reason: 'failed' }]);
    expect(peer.host.of('ike-down')[0]!.detail).toContain('TEMPORARY_FAILURE');
    expect(tries).toBeGreaterThan(30);
    expect(tries).toBeLessThan(60);
  });

  it.each([
    ['without a group (libreswan, pfs=no): there is nothing to exchange, and the new SA is used', false],
    ['with its group: the new SA is not used', true],
  ])('a KE payload without data, and a proposal %s', (_what, wantsGroup) => {
    const peer = established();
    const config = mirrored(connection());
    const proposals = ['aes128gcm16-x25519-noesn', 'aes128gcm16-noesn'].map(parseEspProposalString);
    const children = config.children.map((entry) => ({ ...entry, proposals }));
    peer.host.endpoint.replaceConnection({ ...config, children });
    const old = peer.host.child.id;
    peer.host.endpoint.rekeyChild(peer.now, old);
    const [request] = peer.drain();
    const { payloads } = peer.open(request!);
    const ke = findPayload(payloads, 'ke')!;
    const chosen = findPayload(payloads, 'sa')!.proposals[wantsGroup ? 0 : 1]!;
    const answer = payloads.flatMap((payload): Payload[] => {
      if (payload.type === 'sa') return [{ type: 'sa', proposals: [{ ...chosen, spi: childSpiBytes(0x2000) }] }];
      if (payload.type === 'nonce') return [{ type: 'nonce', data: new Uint8Array(32).fill(7) }];
      if (payload.type === 'ke') return [{ ...ke, data: new Uint8Array(0) }];
      return payload.type === 'notify' ? [] : [payload];
    });
    peer.answer(request!, answer);
    const failures = peer.host.of('failed').map(({ detail }) => detail);
    expect(failures).toEqual(
      wantsGroup ? [expect.stringContaining('the KE payload of the response does not match the group')] : [],
    );
    const made = peer.host.of('child-up').slice(1);
    expect(made).toMatchObject(wantsGroup ? [] : [{ child: { replaces: old, spiOut: 0x2000, dhGroup: undefined } }]);
    expect(peer.host.endpoint.counters().bug).toBe(0);
  });

  it.each([
    ['selectors that were not offered', { type: 'tsr' as const, change: '10.99.0.0/16' }],
    ['a reserved SPI', { type: 'sa' as const, change: 17 }],
  ])('%s: the new SA is not used and is deleted', (_what, { type, change }) => {
    const { peer, request } = rekeying();
    const wanted = findPayload(peer.open(request).payloads, 'sa')!.proposals[0]!;
    const esn = wanted.transforms.findIndex((entry) => entry.type === 5);
    const transforms = wanted.transforms.filter((entry, i) => entry.type !== 5 || i === esn);
    const answer = peer.childPayloads(0x2000).map((payload): Payload => {
      if (payload.type === 'sa')
        return {
          type: 'sa',
          proposals: [{ ...wanted, spi: childSpiBytes(type === 'sa' ? Number(change) : 0x2000), transforms }],
        };
      // We are the initiator of this exchange: our side comes first.
      if (payload.type === 'tsi')
        return { ...payload, selectors: findPayload(peer.open(request).payloads, 'tsi')!.selectors };
      if (payload.type === 'tsr' && type === 'tsr')
        return { ...payload, selectors: [...findPayload(peer.open(request).payloads, 'tsi')!.selectors] };
      if (payload.type === 'tsr')
        return { ...payload, selectors: findPayload(peer.open(request).payloads, 'tsr')!.selectors };
      return payload;
    });
    const [deletion] = peer.answer(request, answer);
    expect(findPayload(peer.open(deletion!).payloads, 'delete')!.spis).toHaveLength(1);
    expect(peer.host.children.size).toBe(1);
    expect(peer.host.of('failed')).toHaveLength(1);
  });

  it('INVALID_SYNTAX ends the IKE SA', () => {
    const { peer, request } = rekeying();
    expect(peer.answer(request, [notifyPayload(NotifyType.INVALID_SYNTAX)])).toEqual([]);
    expect(peer.host.of('ike-down')).toHaveLength(1);
    expect(peer.host.endpoint.nextTimeout()).toBeUndefined();
  });

  it('an answer of nothing, and one with an unknown critical payload', () => {
    for (const payloads of [[], [CRITICAL]]) {
      const { peer, request } = rekeying();
      peer.answer(request, payloads);
      // What cannot be understood ends the IKE SA; there is no telling what the peer has.
      expect(peer.host.of('ike-down')).toHaveLength(1);
      expect(peer.host.endpoint.counters().bug).toBe(0);
    }
  });

  it.each([NotifyType.NO_ADDITIONAL_SAS, NotifyType.SINGLE_PAIR_REQUIRED, NotifyType.FAILED_CP_REQUIRED, 8191])(
    'error %i keeps the old SA, and says so',
    (notify) => {
      const { peer, request } = rekeying();
      peer.answer(request, [notifyPayload(notify)]);
      expect(peer.host.of('failed')).toHaveLength(1);
      expect(peer.host.children.size).toBe(1);
      expect(peer.host.endpoint.status()[0]!.children[0]!.state).toBe('installed');
    },
  );
});
