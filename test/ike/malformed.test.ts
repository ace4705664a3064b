/** Messages that broke other implementations: each is refused with a code that says why. */
import { describe, expect, it } from 'vitest';
import { concatBytes, DecodeError, fromHex } from '../../src/base/bytes.ts';
import { NotifyType, PayloadType } from '../../src/ike/wire/iana.ts';
import { decodeHeader, decodeMessage, encodePlain } from '../../src/ike/wire/message.ts';
import { decodePayloads, MAX_PAYLOADS, RefusedMessageError } from '../../src/ike/wire/payload.ts';
import { someHeader } from './arbitraries.ts';

/** A message with the given first payload type and the bytes behind its header. */
function message(firstPayload: number, hex: string): Uint8Array {
  const bytes = concatBytes(encodePlain(someHeader, []), fromHex(hex));
  bytes[16] = firstPayload;
  bytes[26] = bytes.length >>> 8;
  bytes[27] = bytes.length & 0xff;
  return bytes;
}

/** One payload, its generic header made to fit. */
function payload(type: number, body: string): Uint8Array {
  const length = (4 + body.length / 2).toString(16).padStart(4, '0');
  return message(type, `0000${length}${body}`);
}

function refusal(bytes: Uint8Array): DecodeError {
  try {
    decodeMessage(bytes);
  } catch (error) {
    if (error instanceof DecodeError) return error;
    throw error;
  }
  throw new Error('was accepted');
}

const codeOf = (bytes: Uint8Array): string => refusal(bytes).code;

describe('header', () => {
  it('of 0 to 27 bytes', () => {
    const whole = encodePlain(someHeader, []);
    for (let length = 0; length < 28; length++) expect(codeOf(whole.slice(0, length))).toBe('truncated');
  });

  it('that is a non-ESP marker alone', () => {
    expect(codeOf(new Uint8Array(4))).toBe('truncated');
  });

  it('whose length is not that of the datagram', () => {
    const bytes = encodePlain(someHeader, []);
    for (const length of [0, 27, 29, 0xff]) {
      bytes[27] = length;
      expect(codeOf(bytes)).toBe('bad-length');
    }
    bytes[27] = 28;
    expect(decodeMessage(bytes).payloads).toEqual([]);
    expect(codeOf(concatBytes(bytes, Uint8Array.of(0)))).toBe('bad-length');
  });

  it('with an initiator SPI of zero', () => {
    expect(codeOf(encodePlain({ ...someHeader, initiatorSpi: 0n }, []))).toBe('bad-value');
  });

  it('of IKEv1, which is not answered', () => {
    const bytes = encodePlain(someHeader, []);
    bytes[17] = 0x10;
    expect(codeOf(bytes)).toBe('bad-version');
    expect(refusal(bytes)).not.toBeInstanceOf(RefusedMessageError);
  });

  it('of major version 3, which is answered with INVALID_MAJOR_VERSION', () => {
    const bytes = encodePlain(someHeader, []);
    bytes[17] = 0x30;
    expect(() => decodeHeader(bytes)).toThrow(RefusedMessageError);
    expect(refusal(bytes)).toMatchObject({ code: 'bad-version', notify: NotifyType.INVALID_MAJOR_VERSION });
  });
});

describe('chain of payloads', () => {
  it('with a payload length of 0, 1 or 3', () => {
    for (const length of ['00', '01', '03'])
      expect(codeOf(message(PayloadType.VENDOR, `000000${length}`))).toBe('bad-length');
  });

  it('with a payload length past the end', () => {
    expect(codeOf(message(PayloadType.VENDOR, '00000005'))).toBe('truncated');
    expect(codeOf(message(PayloadType.VENDOR, '0000ffff01'))).toBe('truncated');
  });

  it('that continues after its last payload, or has bytes and no payload', () => {
    expect(codeOf(message(PayloadType.VENDOR, '0000000400'))).toBe('trailing-bytes');
    expect(codeOf(message(PayloadType.NONE, '00000004'))).toBe('trailing-bytes');
  });

  it('that promises a payload which is not there', () => {
    expect(codeOf(message(PayloadType.VENDOR, '2b000004'))).toBe('truncated');
  });

  it('of empty payloads without end', () => {
    const chain = (count: number): Uint8Array => message(PayloadType.VENDOR, `${'2b000004'.repeat(count - 1)}00000004`);
    expect(decodeMessage(chain(MAX_PAYLOADS)).payloads).toHaveLength(MAX_PAYLOADS);
    expect(codeOf(chain(MAX_PAYLOADS + 1))).toBe('too-many');
    expect(codeOf(chain(16_000))).toBe('too-many');
  });

  it('of unknown payloads that name each other for ever', () => {
    expect(codeOf(message(200, 'c9000004c8000004'.repeat(1_000)))).toBe('too-many');
  });

  it('of IKEv1 payloads in IKEv2: passed over, as nothing that we know', () => {
    const { payloads } = decodeMessage(message(1, '0500000800000001' + '00000004'));
    expect(payloads.map((entry) => entry.type === 'unknown' && entry.payloadType)).toEqual([1, 5]);
  });

  it('with an unknown payload that is critical', () => {
    const error = refusal(message(PayloadType.VENDOR, 'c8000004' + '00800005ff'));
    expect(error).toBeInstanceOf(RefusedMessageError);
    expect(error).toMatchObject({ notify: NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, notifyData: Uint8Array.of(200) });
    expect(error.offset).toBe(32);
  });
});

describe('SK', () => {
  it('that is not last', () => {
    expect(codeOf(message(PayloadType.SK, '2b000008aabbccdd' + '00000004'))).toBe('trailing-bytes');
  });

  it('inside SK', () => {
    const inner = fromHex('00000008aabbccdd');
    for (const type of [PayloadType.SK, PayloadType.SKF]) {
      expect(() => decodePayloads(inner, 0, inner.length, type)).toThrow(
        expect.objectContaining({ code: 'bad-order' }),
      );
    }
  });

  it('is found behind other payloads, with the bytes that it covers', () => {
    const found = decodeMessage(message(PayloadType.VENDOR, '2e000004' + '2900000caabbccddeeff0011'));
    expect(found.payloads).toHaveLength(1);
    expect(found.protectedPart).toEqual({ kind: 'sk', firstPayload: 41, ivAt: 36, end: 44, fragment: undefined });
  });

  it('fragment with number 0 or above the total (RFC 7383 §2.5)', () => {
    const fragment = (numbers: string): Uint8Array => payload(PayloadType.SKF, `${numbers}aabb`);
    expect(codeOf(fragment('00000001'))).toBe('bad-value');
    expect(codeOf(fragment('00030002'))).toBe('bad-value');
    expect(codeOf(payload(PayloadType.SKF, '000100'))).toBe('truncated');
    expect(decodeMessage(fragment('0002ffff')).protectedPart?.fragment).toEqual({ number: 2, total: 0xffff });
  });
});

describe('SA payload', () => {
  const sa = (body: string): Uint8Array => payload(PayloadType.SA, body);

  it('without a proposal', () => expect(codeOf(sa(''))).toBe('truncated'));

  it('with a proposal too short, too long, or with a wrong Last Substruc', () => {
    expect(codeOf(sa('0000000701010000'))).toBe('bad-length');
    expect(codeOf(sa('0000000901010000'))).toBe('truncated');
    expect(codeOf(sa('0100000801010000'))).toBe('bad-value');
  });

  it('that promises a proposal which is not there, or has one more than it says', () => {
    expect(codeOf(sa('0200000801010000'))).toBe('truncated');
    expect(codeOf(sa('0000000801010000' + '0000000802010000'))).toBe('trailing-bytes');
  });

  it('with fewer or more transforms than it counts', () => {
    expect(codeOf(sa('0000000801010001'))).toBe('truncated');
    expect(codeOf(sa('0000001001010000' + '0000000801000014'))).toBe('trailing-bytes');
    expect(codeOf(sa('0000001001010002' + '0300000801000014'))).toBe('truncated');
    expect(codeOf(sa('0000001001010002' + '0000000801000014'))).toBe('bad-value');
    expect(codeOf(sa('0000001001010001' + '0300000801000014'))).toBe('bad-value');
  });

  it('with a transform too short, or an attribute past its end', () => {
    expect(codeOf(sa('0000001001010001' + '0000000701000014'))).toBe('bad-length');
    expect(codeOf(sa('0000001201010001' + '0000000a01000014800e'))).toBe('truncated');
    expect(codeOf(sa('0000001401010001' + '0000000c01000014000e0001'))).toBe('truncated');
    const second = '0000000801000014';
    expect(codeOf(sa(`0000001c01010002${'0300000c01000014000e0004'}${second}`))).toBe('bad-length');
    expect(codeOf(sa(`0000001a01010002${'0300000a01000014800e'}${second}`))).toBe('bad-length');
  });

  it('with an SPI past its end', () => expect(codeOf(sa('000000080103ff00'))).toBe('truncated'));
});

describe('other payloads', () => {
  it('KE that is missing more than its data, which is for the key exchange to miss', () => {
    expect(decodeMessage(payload(PayloadType.KE, '001f0000')).payloads).toEqual([
      { type: 'ke', group: 31, data: new Uint8Array(0) },
    ]);
    expect(codeOf(payload(PayloadType.KE, '001f'))).toBe('truncated');
    expect(codeOf(payload(PayloadType.KE, ''))).toBe('truncated');
  });

  it('nonces of less than 16 or more than 256 bytes', () => {
    expect(codeOf(payload(PayloadType.NONCE, ''))).toBe('bad-length');
    expect(codeOf(payload(PayloadType.NONCE, '00'.repeat(15)))).toBe('bad-length');
    expect(codeOf(payload(PayloadType.NONCE, '00'.repeat(257)))).toBe('bad-length');
  });

  it('identities whose address has the wrong length', () => {
    expect(codeOf(payload(PayloadType.IDi, '010000000a0000'))).toBe('bad-length');
    expect(codeOf(payload(PayloadType.IDr, `05000000${'00'.repeat(15)}`))).toBe('bad-length');
    expect(codeOf(payload(PayloadType.IDr, '0500'))).toBe('truncated');
  });

  it('notify with an SPI past its end; one with an unknown protocol is kept as it is', () => {
    expect(codeOf(payload(PayloadType.NOTIFY, '03044009c0ffee'))).toBe('truncated');
    const { payloads } = decodeMessage(payload(PayloadType.NOTIFY, 'ff000007'));
    expect(payloads).toMatchObject([{ type: 'notify', protocol: 255, notify: 7 }]);
  });

  it('delete with a count that its bytes do not hold', () => {
    expect(codeOf(payload(PayloadType.DELETE, '0304ffff00000100'))).toBe('bad-length');
    expect(codeOf(payload(PayloadType.DELETE, '0300ffff'))).toBe('bad-length');
    expect(codeOf(payload(PayloadType.DELETE, '0100ffff'))).toBe('bad-length');
    expect(codeOf(payload(PayloadType.DELETE, '63001000'))).toBe('bad-length');
    expect(codeOf(payload(PayloadType.DELETE, '0308000100000000000000ff'))).toBe('bad-length');
    expect(codeOf(payload(PayloadType.DELETE, '0304000000000100'))).toBe('bad-length');
  });

  it('traffic selectors: none, of a wrong length, start behind end, ports of any protocol', () => {
    const ts = (body: string): string => codeOf(payload(PayloadType.TSi, body));
    expect(ts('00000000')).toBe('bad-value');
    expect(ts('01000000')).toBe('truncated');
    expect(ts('01000000' + '07110003')).toBe('bad-length');
    expect(ts('01000000' + '0711000f' + '0000ffff' + '0a0000000a0000')).toBe('truncated');
    expect(ts('01000000' + '07110011' + '0000ffff' + '0a0000000a0000ff00')).toBe('trailing-bytes');
    expect(ts('01000000' + '08110010' + '0000ffff' + '0a0000000a0000ff')).toBe('truncated');
    expect(ts('01000000' + '07110010' + '0000ffff' + '0a0000010a000000')).toBe('bad-value');
    expect(ts('01000000' + '07110010' + '00020001' + '0a0000000a0000ff')).toBe('bad-value');
    expect(ts('01000000' + '07000010' + '00010001' + '0a0000000a0000ff')).toBe('bad-value');
    expect(ts('01000000' + '07110010' + '0000ffff' + '0a0000000a0000ff' + '00')).toBe('trailing-bytes');
    expect(ts('ff000000' + '07110010' + '0000ffff' + '0a0000000a0000ff')).toBe('truncated');
  });

  it('configuration attributes shorter than their type', () => {
    const cp = (attribute: string): string => codeOf(payload(PayloadType.CP, `01000000${attribute}`));
    expect(cp('000100030a0000')).toBe('bad-length');
    expect(cp(`00080010${'00'.repeat(16)}`)).toBe('bad-length');
    expect(cp('000d0004' + '0a000000')).toBe('bad-length');
    expect(cp('000e0003' + '000100')).toBe('bad-length');
    expect(cp('000100080a00')).toBe('truncated');
    expect(cp('0001')).toBe('truncated');
  });

  it('EAP of a length below 4, not that of the payload, or of a wrong code', () => {
    const eap = (body: string): string => codeOf(payload(PayloadType.EAP, body));
    expect(eap('0101')).toBe('truncated');
    expect(eap('01010003')).toBe('bad-length');
    expect(eap('0101ffff01')).toBe('bad-length');
    expect(eap('0101000401')).toBe('bad-length');
    expect(eap('01010004')).toBe('bad-length');
    expect(eap('0301000501')).toBe('bad-length');
    expect(eap('05010004')).toBe('bad-value');
  });

  it('certificate requests that are no list of hashes', () => {
    expect(codeOf(payload(PayloadType.CERTREQ, `04${'00'.repeat(19)}`))).toBe('bad-length');
    expect(codeOf(payload(PayloadType.CERT, ''))).toBe('truncated');
  });

  it('AUTH without its fixed part', () => expect(codeOf(payload(PayloadType.AUTH, '020000'))).toBe('truncated'));
});
