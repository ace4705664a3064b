/** A peer that says that it takes no padding for traffic flow confidentiality (RFC 7296 §1.3.1, §3.10.1). */
import { describe, expect, it } from 'vitest';
import { ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import { findNotify, findPayload, type Payload } from '../../src/ike/wire/payload.ts';
import { notifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { FakePeer } from '../support/ike-fake-peer.ts';

const REFUSAL = notifyPayload(NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED);
const { CREATE_CHILD_SA, IKE_AUTH } = ExchangeType;

function answered(...extra: readonly Payload[]): { readonly peer: FakePeer; readonly answer: readonly Payload[] } {
  const peer = new FakePeer();
  peer.init();
  return { peer, answer: peer.request(IKE_AUTH, [...peer.authPayloads(), ...extra])! };
}

const lastUp = (peer: FakePeer): boolean => peer.host.of('child-up').at(-1)!.child.takesPadding;

describe('a peer that accepts no padding', () => {
  it('is remembered with the child, and told nothing of the kind by us', () => {
    expect(lastUp(answered().peer)).toBe(true);
    const { peer, answer } = answered(REFUSAL);
    expect(lastUp(peer)).toBe(false);
    expect(findNotify(answer, NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED)).toBeUndefined();
    expect(peer.host.of('note').filter(({ text }) => text.includes('TFC'))).toEqual([]);
  });

  it('may say so for one child, and not for the next', () => {
    const { peer } = answered(REFUSAL);
    const more = (spi: number, ...extra: readonly Payload[]): boolean => {
      expect(
        findPayload(peer.request(CREATE_CHILD_SA, [...peer.childPayloads(spi), ...extra]) ?? [], 'sa'),
      ).toBeDefined();
      return lastUp(peer);
    };
    expect(more(0x2000)).toBe(true);
    expect(more(0x3000, REFUSAL)).toBe(false);
  });

  it.each([true, false])('may say so in an answer: %s', (says) => {
    const { peer } = answered();
    const [request] = peer.drain();
    expect(request).toBeUndefined();
    peer.host.endpoint.childSoftExpired(peer.now, peer.host.child.spiIn);
    const [create] = peer.drain();
    expect(findNotify(peer.open(create!).payloads, NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED)).toBeUndefined();
    const payloads = peer.childPayloads(0x4000).map((payload): Payload => {
      // Seen from the endpoint, which asks this time.
      if (payload.type === 'tsi') return { ...payload, type: 'tsr' };
      return payload.type === 'tsr' ? { ...payload, type: 'tsi' } : payload;
    });
    peer.answer(create!, [...payloads, ...(says ? [REFUSAL] : [])]);
    expect(peer.host.of('child-up')).toHaveLength(2);
    expect(lastUp(peer)).toBe(!says);
  });
});
