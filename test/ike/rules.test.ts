import { describe, expect, it } from 'vitest';
import { ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import type { Payload } from '../../src/ike/wire/payload.ts';
import { notifyPayload, saNotifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { checkRules, isUnprotectedHint } from '../../src/ike/wire/rules.ts';
import { counting, samplePayloads } from './arbitraries.ts';

const { IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL } = ExchangeType;

function sample(type: Payload['type']): Payload {
  return samplePayloads.find((payload) => payload.type === type)!;
}
const proposals = (protocol: number): Payload => ({
  type: 'sa',
  proposals: [{ number: 1, protocol, spi: counting(4), transforms: [] }],
});
const ikeSa = proposals(1);
const espSa = proposals(3);
const p: Readonly<Record<string, Payload>> = {
  ike: ikeSa,
  esp: espSa,
  ke: sample('ke'),
  nonce: sample('nonce'),
  idi: sample('idi'),
  idr: sample('idr'),
  auth: sample('auth'),
  tsi: sample('tsi'),
  tsr: sample('tsr'),
  eap: sample('eap'),
  del: sample('delete'),
  vendor: sample('vendor'),
  unknown: sample('unknown'),
};
const pick = (names: string): Payload[] => names.split(' ').map((name) => p[name]!);

interface Message {
  readonly name: string;
  readonly exchange: number;
  readonly response: boolean;
  readonly payloads: Payload[];
}

const good: Message[] = [
  { name: 'INIT request', exchange: IKE_SA_INIT, response: false, payloads: pick('ike ke nonce') },
  { name: 'INIT response', exchange: IKE_SA_INIT, response: true, payloads: pick('ike ke nonce') },
  { name: 'AUTH request', exchange: IKE_AUTH, response: false, payloads: pick('idi auth esp tsi tsr') },
  { name: 'AUTH response', exchange: IKE_AUTH, response: true, payloads: pick('idr auth esp tsi tsr') },
  { name: 'child request', exchange: CREATE_CHILD_SA, response: false, payloads: pick('esp nonce tsi tsr') },
  { name: 'child response', exchange: CREATE_CHILD_SA, response: true, payloads: pick('esp nonce tsi tsr') },
  { name: 'rekey request', exchange: CREATE_CHILD_SA, response: false, payloads: pick('ike nonce ke') },
  { name: 'rekey response', exchange: CREATE_CHILD_SA, response: true, payloads: pick('ike nonce ke') },
];

type Verdict = ReturnType<typeof checkRules>;

const verdict = (exchange: number, response: boolean, payloads: Payload[]): Verdict =>
  checkRules({ exchange, response, encrypted: exchange !== IKE_SA_INIT }, payloads);

const check = ({ exchange, response }: Message, payloads: Payload[]): Verdict => verdict(exchange, response, payloads);

describe('every message with what it must have', () => {
  for (const message of good) {
    it(`${message.name}: passes, also turned round, with unknown payloads, vendor ids and notifies`, () => {
      expect(check(message, message.payloads)).toBeUndefined();
      const more = [notifyPayload(40_000), ...pick('unknown vendor vendor'), notifyPayload(40_000)];
      expect(check(message, [...more, ...message.payloads].reverse())).toBeUndefined();
    });

    it(`${message.name}: is refused without any one of them, and with any twice`, () => {
      for (const payload of message.payloads) {
        const without = message.payloads.filter((entry) => entry !== payload);
        const notify = payload === p.auth ? NotifyType.AUTHENTICATION_FAILED : NotifyType.INVALID_SYNTAX;
        expect(check(message, without), `without ${payload.type}`).toMatchObject({ notify });
        expect(check(message, [...message.payloads, payload]), `two ${payload.type}`).toMatchObject({
          notify: NotifyType.INVALID_SYNTAX,
        });
      }
    });

    it(`${message.name}: is refused with EAP, with DELETE, and when protected wrongly`, () => {
      expect(check(message, [...message.payloads, p.eap!])?.detail).toContain('eap payload out of place');
      expect(check(message, [...message.payloads, p.del!])?.detail).toContain('delete payload out of place');
      const wrong = checkRules({ ...message, encrypted: message.exchange === IKE_SA_INIT }, message.payloads);
      expect(wrong).toMatchObject({ notify: undefined });
    });
  }
});

describe('variants', () => {
  it('refusals in responses', () => {
    const refused = [notifyPayload(NotifyType.NO_PROPOSAL_CHOSEN)];
    for (const exchange of [IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA]) {
      expect(verdict(exchange, true, refused)).toBeUndefined();
      expect(verdict(exchange, false, refused)).toBeDefined();
    }
    expect(verdict(IKE_SA_INIT, true, [notifyPayload(NotifyType.COOKIE, counting(20))])).toBeUndefined();
    expect(verdict(IKE_SA_INIT, true, [notifyPayload(NotifyType.NAT_DETECTION_SOURCE_IP)])).toBeDefined();
  });

  it('IKE_AUTH with a child that failed, and without a child', () => {
    const failed = [...pick('idr auth'), notifyPayload(NotifyType.TS_UNACCEPTABLE)];
    expect(verdict(IKE_AUTH, true, failed)).toBeUndefined();
    expect(verdict(IKE_AUTH, false, pick('idi auth'))).toBeUndefined();
    expect(verdict(IKE_AUTH, false, pick('idi auth esp'))?.detail).toContain('no tsi and tsr payload');
  });

  it('IKE_AUTH response without AUTH is only a refusal, never a success', () => {
    expect(verdict(IKE_AUTH, true, pick('idr esp tsi tsr'))).toBeDefined();
    expect(verdict(IKE_AUTH, true, pick('idr'))).toBeDefined();
    const both = [...pick('idr esp tsi tsr'), notifyPayload(NotifyType.AUTHENTICATION_FAILED)];
    expect(verdict(IKE_AUTH, true, both)).toBeDefined();
  });

  it('a child with its own key exchange; the IKE SA never without', () => {
    expect(verdict(CREATE_CHILD_SA, false, pick('esp nonce ke tsi tsr'))).toBeUndefined();
    expect(verdict(CREATE_CHILD_SA, false, pick('ike nonce'))?.detail).toContain('no ke payload');
    expect(verdict(CREATE_CHILD_SA, false, pick('ike nonce ke tsi tsr'))?.detail).toContain('out of place');
  });

  it('INFORMATIONAL: empty, with deletes and notifies, with nothing else', () => {
    for (const response of [false, true]) {
      expect(verdict(INFORMATIONAL, response, [])).toBeUndefined();
      expect(verdict(INFORMATIONAL, response, [...pick('del del vendor'), notifyPayload(40_000)])).toBeUndefined();
      expect(verdict(INFORMATIONAL, response, pick('auth'))).toMatchObject({
        notify: NotifyType.INVALID_SYNTAX,
      });
      expect(verdict(INFORMATIONAL, response, pick('esp'))).toBeDefined();
    }
  });

  it('unknown exchanges', () => {
    expect(verdict(99, false, [])).toEqual({
      notify: NotifyType.INVALID_SYNTAX,
      detail: 'exchange 99 request is not supported',
    });
  });
});

describe('notifies', () => {
  const child = (...notifies: Payload[]): string | undefined =>
    verdict(CREATE_CHILD_SA, false, [...notifies, ...pick('esp nonce tsi tsr')])?.detail;

  it('REKEY_SA: one, with the SPI of a child', () => {
    const rekey = saNotifyPayload(NotifyType.REKEY_SA, 3, counting(4));
    expect(child(rekey)).toBeUndefined();
    expect(child(rekey, rekey)).toContain('2 REKEY_SA notifies');
    expect(child({ ...rekey, spi: new Uint8Array(0) })).toContain('without the SPI');
    expect(child({ ...rekey, protocol: 1 })).toContain('without the SPI');
    expect(child({ ...rekey, protocol: 77 })).toContain('without the SPI');
  });

  it('COOKIE of 1 to 64 bytes, INVALID_KE_PAYLOAD with a group', () => {
    const init = (notify: number, length: number): ReturnType<typeof checkRules> =>
      verdict(IKE_SA_INIT, true, [notifyPayload(notify, new Uint8Array(length))]);
    expect(init(NotifyType.COOKIE, 0)).toBeDefined();
    expect(init(NotifyType.COOKIE, 64)).toBeUndefined();
    expect(init(NotifyType.COOKIE, 65)).toBeDefined();
    expect(init(NotifyType.INVALID_KE_PAYLOAD, 2)).toBeUndefined();
    expect(init(NotifyType.INVALID_KE_PAYLOAD, 1)).toBeDefined();
    expect(init(NotifyType.INVALID_KE_PAYLOAD, 0)).toBeDefined();
  });

  it('outside of SK: error reports alone are hints', () => {
    expect(isUnprotectedHint([notifyPayload(NotifyType.INVALID_IKE_SPI)])).toBe(true);
    expect(isUnprotectedHint([notifyPayload(NotifyType.INVALID_SPI, counting(4))])).toBe(true);
    expect(isUnprotectedHint([])).toBe(false);
    expect(isUnprotectedHint([notifyPayload(NotifyType.AUTHENTICATION_FAILED)])).toBe(false);
    expect(isUnprotectedHint([notifyPayload(NotifyType.INVALID_SYNTAX), p.del!])).toBe(false);
  });
});
