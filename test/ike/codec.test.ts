import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DecodeError, fromHex, toHex } from '../../src/base/bytes.ts';
import { decodeHeader, decodeMessage, encodePlain } from '../../src/ike/wire/message.ts';
import type { Payload } from '../../src/ike/wire/payload.ts';
import { idPayloadBody } from '../../src/ike/wire/payloads/id.ts';
import { headerArbitrary, payloadArbitrary, samplePayloads, someHeader } from './arbitraries.ts';

/** What decoding gives, or the DecodeError; anything else thrown fails the test. */
function tryDecode(bytes: Uint8Array): Payload[] | DecodeError {
  try {
    return [...decodeMessage(bytes).payloads];
  } catch (error) {
    if (error instanceof DecodeError) return error;
    throw error;
  }
}

describe('round trip', () => {
  for (const payload of samplePayloads) {
    it(payload.type, () => {
      const message = decodeMessage(encodePlain(someHeader, [payload]));
      expect(message).toEqual({ header: someHeader, payloads: [payload], protectedPart: undefined });
    });
  }

  it('keeps all payloads of a message in their order', () => {
    const { payloads } = decodeMessage(encodePlain(someHeader, samplePayloads));
    expect(payloads).toEqual(samplePayloads);
  });

  it('carries a message without payloads', () => {
    const bytes = encodePlain(someHeader, []);
    expect(bytes).toHaveLength(28);
    expect(decodeMessage(bytes).payloads).toEqual([]);
  });

  it('holds for arbitrary messages', () => {
    fc.assert(
      fc.property(headerArbitrary, fc.array(payloadArbitrary, { maxLength: 10 }), (header, payloads) => {
        const bytes = encodePlain(header, payloads);
        const message = decodeMessage(bytes);
        expect(message.header).toEqual(header);
        expect(message.payloads).toEqual(payloads);
        expect(toHex(encodePlain(message.header, message.payloads))).toBe(toHex(bytes));
      }),
      { seed: 7296, numRuns: 400 },
    );
  });
});

describe('bytes on the wire', () => {
  const wire = (payload: Payload): string => toHex(encodePlain(someHeader, [payload]).subarray(28));

  it('header: RFC 7296 §3.1', () => {
    const header = { ...someHeader, responderSpi: 9n, exchange: 36, response: true, messageId: 0x01020304 };
    expect(toHex(encodePlain(header, []))).toBe(
      '01020304050607080000000000000009' + '00202428' + '01020304' + '0000001c',
    );
    expect(toHex(encodePlain({ ...header, initiator: false, response: false }, [])).slice(36, 40)).toBe('2400');
  });

  it('SA: RFC 7296 §3.3', () => {
    const first = '0200002401010003' + '0300000c01000014800e0100' + '0300000802000006' + '000000080400001f';
    const second = '000000280203040301020304' + '0300000c0100000c800e0080' + '030000080300000c' + '0000000805000000';
    expect(wire(samplePayloads[0]!)).toBe(`00000050${first}${second}`);
  });

  it('KE: RFC 7296 §3.4', () => {
    expect(wire({ type: 'ke', group: 31, data: fromHex('aabb') })).toBe('0000000a' + '001f0000' + 'aabb');
  });

  it('ID: RFC 7296 §3.5', () => {
    const identity = { type: 2, data: fromHex('61622e63') };
    expect(wire({ type: 'idi', identity })).toBe('0000000c' + '02000000' + '61622e63');
    expect(toHex(idPayloadBody(identity))).toBe('02000000' + '61622e63');
  });

  it('CERT, CERTREQ, AUTH: RFC 7296 §3.6 to §3.8', () => {
    expect(wire({ type: 'cert', encoding: 4, data: fromHex('3000') })).toBe('00000007' + '043000');
    expect(wire({ type: 'certreq', encoding: 12, authorities: new Uint8Array(20) })).toBe(
      `000000190c${'00'.repeat(20)}`,
    );
    expect(wire({ type: 'auth', method: 2, data: fromHex('ff') })).toBe('00000009' + '02000000' + 'ff');
  });

  it('notify: RFC 7296 §3.10', () => {
    const rekey = {
      type: 'notify',
      protocol: 3,
      spi: fromHex('c0ffee01'),
      notify: 16393,
      data: new Uint8Array(0),
    } as const;
    expect(wire(rekey)).toBe('0000000c' + '03044009' + 'c0ffee01');
    expect(wire({ ...rekey, protocol: 0, spi: new Uint8Array(0), notify: 17, data: fromHex('001f') })).toBe(
      '0000000a' + '00000011' + '001f',
    );
  });

  it('delete: RFC 7296 §3.11', () => {
    expect(wire({ type: 'delete', protocol: 1, spis: [] })).toBe('00000008' + '01000000');
    expect(wire({ type: 'delete', protocol: 3, spis: [fromHex('00000100'), fromHex('00000101')] })).toBe(
      '00000010' + '03040002' + '00000100' + '00000101',
    );
  });

  it('TS: RFC 7296 §3.13', () => {
    expect(wire(samplePayloads[11]!)).toBe(
      `0000002802000000${'07110010' + '13881388' + '0a010000' + '0a0100ff'}${'07060010' + 'ffff0000' + '00000000' + 'ffffffff'}`,
    );
    expect(wire(samplePayloads[12]!)).toBe(`000000300100000008000028${'0000ffff'}${'0'.repeat(31)}1${'f'.repeat(32)}`);
  });

  it('configuration: RFC 7296 §3.15', () => {
    expect(wire({ type: 'cp', configType: 2, attributes: [{ type: 1, data: fromHex('0a000001') }] })).toBe(
      '00000010' + '02000000' + '00010004' + '0a000001',
    );
  });

  it('EAP: RFC 7296 §3.16', () => {
    expect(wire({ type: 'eap', code: 1, identifier: 9, data: fromHex('01') })).toBe('00000009' + '01090005' + '01');
  });
});

describe('bytes that came in', () => {
  it('ignores reserved fields and flags, and the critical bit of payloads that it knows', () => {
    const bytes = encodePlain(someHeader, samplePayloads);
    bytes[19] = 0x08 | 0xc7; // all flags that have no meaning
    for (let at = 28, type = 0; type >= 0 && at < bytes.length; at += (bytes[at + 2]! << 8) | bytes[at + 3]!) {
      const isUnknown = at === bytes.length - 10;
      bytes[at + 1] = isUnknown ? 0x7f : 0xff;
    }
    expect(decodeMessage(bytes)).toEqual({ header: someHeader, payloads: samplePayloads, protectedPart: undefined });
  });

  it('accepts a higher minor version (RFC 7296 §2.5)', () => {
    const bytes = encodePlain(someHeader, []);
    bytes[17] = 0x2f;
    expect(decodeHeader(bytes)).toEqual(someHeader);
  });

  it('passes over traffic selectors of an unknown type and counts them (RFC 7296 §2.9)', () => {
    const known = samplePayloads[11] as Extract<Payload, { type: 'tsi' | 'tsr' }>;
    const bytes = encodePlain(someHeader, [known]);
    bytes[36] = 9; // TS_FC_ADDR_RANGE
    expect(decodeMessage(bytes).payloads).toEqual([{ ...known, selectors: known.selectors.slice(1), unknown: 1 }]);
  });

  it('marks transforms with unknown attributes, short and long', () => {
    const transforms = (attributes: string): string => {
      const length = (8 + attributes.length / 2).toString(16).padStart(2, '0');
      const proposal = (16 + attributes.length / 2).toString(16).padStart(2, '0');
      const payload = (20 + attributes.length / 2).toString(16).padStart(2, '0');
      return `000000${payload}000000${proposal}01010001000000${length}0100000c${attributes}`;
    };
    const first = (attributes: string): unknown => {
      const body = fromHex(transforms(attributes));
      const bytes = new Uint8Array([...encodePlain(someHeader, []), ...body]);
      bytes[16] = 33;
      bytes[27] = bytes.length;
      const sa = decodeMessage(bytes).payloads[0];
      return sa?.type === 'sa' ? sa.proposals[0]?.transforms[0] : undefined;
    };
    const aes = { type: 1, id: 12 };
    expect(first('800e0100')).toEqual({ ...aes, keyBits: 256, unknownAttributes: false });
    expect(first('')).toEqual({ ...aes, keyBits: undefined, unknownAttributes: false });
    expect(first('800e0100800f0001')).toEqual({ ...aes, keyBits: 256, unknownAttributes: true });
    expect(first('000e000201000000'.slice(0, 12))).toEqual({ ...aes, keyBits: undefined, unknownAttributes: true });
    expect(first('800e0080800e0100')).toMatchObject({ unknownAttributes: true });
  });

  it('refuses every truncation with DecodeError', () => {
    const bytes = encodePlain(someHeader, samplePayloads);
    for (let length = 0; length < bytes.length; length++) {
      expect(tryDecode(bytes.slice(0, length)), `${length} bytes`).toBeInstanceOf(DecodeError);
      // Also with a length field that says the same, so that the payloads themselves are cut.
      if (length < 28) continue;
      const cut = bytes.slice(0, length);
      cut[26] = length >>> 8;
      cut[27] = length & 0xff;
      expect(tryDecode(cut), `${length} bytes`).toBeInstanceOf(DecodeError);
    }
  });

  it('never throws anything but DecodeError for a message with one byte changed', () => {
    const bytes = encodePlain(someHeader, samplePayloads);
    let refused = 0;
    for (let at = 0; at < bytes.length; at++) {
      const original = bytes[at]!;
      for (const value of [0, 1, 3, 4, 0x7f, 0x80, 0xff, original ^ 1, original ^ 0x10]) {
        bytes[at] = value;
        if (tryDecode(bytes) instanceof DecodeError) refused++;
      }
      bytes[at] = original;
    }
    expect(refused).toBeGreaterThan(500);
  });

  it('never throws anything but DecodeError for random bytes behind a header', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(255), (body, first) => {
        const bytes = new Uint8Array([...encodePlain(someHeader, []), ...body]);
        bytes[16] = first;
        bytes[27] = bytes.length;
        tryDecode(bytes);
      }),
      { seed: 1, numRuns: 3000 },
    );
  });
});
