/** What the other side refuses or asks for, in the words in which it is told. */
import { describe, expect, it } from 'vitest';
import type { IkeEvent } from '../../src/ike/events.ts';
import { ConfigAttribute, ConfigType, ExchangeType, NotifyType, PayloadType } from '../../src/ike/wire/iana.ts';
import type { Payload } from '../../src/ike/wire/payload.ts';
import { notifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { FakePeer } from '../support/ike-fake-peer.ts';
import { Pair } from '../support/ike-pair.ts';
import { type Sealed, sealing } from '../support/ike-tamper.ts';

/** An answer to IKE_AUTH that is a notify alone, and so without AUTH. */
function refusing(notify: number): (sealed: Sealed) => void {
  return ({ exchange, response, content, skHeader }) => {
    if (exchange !== ExchangeType.IKE_AUTH || !response) return;
    skHeader[0] = PayloadType.NOTIFY;
    content.fill(0);
    content.set([0, 0, 0, 8, 0, 0, notify >>> 8, notify & 0xff]);
    content[content.length - 1] = content.length - 9;
  };
}

function refused(notify: number): Extract<IkeEvent, { type: 'failed' }> {
  const pair = new Pair({ bOptions: { crypto: sealing(refusing(notify)) } });
  pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
  pair.run(1_000);
  expect(pair.a.endpoint.status()).toEqual([]);
  return pair.a.of('failed')[0]!;
}

describe('a refusal of IKE_AUTH', () => {
  it('for its CHILD SA, without AUTH, speaks of ESP and not of addresses', () => {
    const failed = refused(NotifyType.NO_PROPOSAL_CHOSEN);
    expect(failed).toMatchObject({ reason: 'NO_PROPOSAL_CHOSEN', child: 'c', initiator: true });
    expect(failed.detail).toMatch(
      /offered for child c: .*\nwhich may mean: it accepts our IKE proposals, but none of these ESP/,
    );
    expect(failed.detail).not.toMatch(/no connection/);
  });

  it('for what we prove ourselves with names the key first', () => {
    const failed = refused(NotifyType.AUTHENTICATION_FAILED);
    expect(failed).toMatchObject({ reason: 'AUTHENTICATION_FAILED', child: undefined });
    expect(failed.detail).toMatch(/which may mean: the keys differ, or the peer expects another identity of us/);
  });

  it('for a virtual address that was not asked for says that there are none', () => {
    expect(refused(NotifyType.FAILED_CP_REQUIRED).detail).toMatch(/virtual address.*not supported/);
  });
});

describe('what a peer asks for and cannot have is named', () => {
  const declined = (peer: FakePeer): string[] => peer.host.of('declined').map(({ capability }) => capability);
  const establish = (init: Payload[], auth: Payload[]): FakePeer => {
    const peer = new FakePeer();
    peer.init((payloads) => [...payloads, ...init]);
    peer.request(ExchangeType.IKE_AUTH, [...peer.authPayloads(), ...auth]);
    return peer;
  };

  it.each([
    [
      'a virtual address',
      [],
      [
        {
          type: 'cp',
          configType: ConfigType.REQUEST,
          attributes: [{ type: ConfigAttribute.INTERNAL_IP4_ADDRESS, data: new Uint8Array(0) }],
        },
      ],
    ],
    ['compression', [], [notifyPayload(NotifyType.IPCOMP_SUPPORTED, Uint8Array.of(0, 1, 2))]],
    ['transport mode', [], [notifyPayload(NotifyType.USE_TRANSPORT_MODE)]],
    ['a post-quantum pre-shared key', [notifyPayload(NotifyType.USE_PPK)], []],
  ] as const satisfies readonly (readonly [string, readonly Payload[], readonly Payload[]])[])(
    '%s',
    (name, init, auth) => {
      const peer = establish([...init], [...auth]);
      expect(declined(peer)).toEqual([expect.stringMatching(new RegExp(`^${name}.*(not supported|does not have)`))]);
      expect(peer.host.of('child-up')).toHaveLength(1);
    },
  );

  it('only once it is authenticated', () => {
    const peer = new FakePeer();
    peer.init((payloads) => [...payloads, notifyPayload(NotifyType.USE_PPK)]);
    peer.request(ExchangeType.IKE_AUTH, peer.authPayloads('another secret'));
    expect(declined(peer)).toEqual([]);
  });

  it('EAP, which it asks for by leaving AUTH out', () => {
    const peer = new FakePeer();
    peer.init();
    const answer = peer.request(
      ExchangeType.IKE_AUTH,
      peer.authPayloads().filter(({ type }) => type !== 'auth'),
    );
    expect(answer).toMatchObject([{ notify: NotifyType.AUTHENTICATION_FAILED }]);
    expect(peer.host.of('failed')).toMatchObject([
      {
        connection: 'net',
        reason: 'AUTHENTICATION_FAILED',
        detail: expect.stringMatching(/EAP.*not supported: let it use/),
      },
    ]);
  });

  it('ML-KEM beside a group, which all proposals have', () => {
    const peer = new FakePeer();
    const additional = { type: 6, id: 36, unknownAttributes: false };
    const answer = peer.init((payloads) =>
      payloads.map((payload) =>
        payload.type === 'sa'
          ? {
              ...payload,
              proposals: payload.proposals.map((each) => ({ ...each, transforms: [...each.transforms, additional] })),
            }
          : payload,
      ),
    );
    expect(answer).toMatchObject([{ notify: NotifyType.NO_PROPOSAL_CHOSEN }]);
    expect(peer.host.of('failed')).toMatchObject([
      { detail: expect.stringMatching(/additional key exchange 1 \(mlkem768\): peer offers it, here not supported/) },
    ]);
  });
});
