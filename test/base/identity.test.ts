import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { derElement } from '../../src/base/asn1/der.ts';
import { canonicalDn, sameDn } from '../../src/base/asn1/dn.ts';
import { dnFromText, formatDn } from '../../src/base/asn1/dn-text.ts';
import { fromHex, toHex } from '../../src/base/bytes.ts';
import { formatIdentity, IdType, identityFromText, sameIdentity } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';

const hex = (type: Parameters<typeof identityFromText>[0], text: string): string =>
  toHex(identityFromText(type, text).data);

describe('identities from text', () => {
  it('accepts what is right', () => {
    expect(identityFromText('address', '192.0.2.1')).toEqual({ type: 1, data: fromHex('c0000201') });
    expect(identityFromText('address', '2001:db8::1')).toMatchObject({ type: 5 });
    expect(hex('address', '::1')).toBe(`${'0'.repeat(31)}1`);
    expect(identityFromText('fqdn', 'moon.example')).toEqual({ type: 2, data: utf8('moon.example') });
    expect(identityFromText('fqdn', 'B')).toEqual({ type: 2, data: utf8('B') });
    expect(identityFromText('email', 'a.b+c@moon.example')).toEqual({ type: 3, data: utf8('a.b+c@moon.example') });
    expect(identityFromText('keyid', 'Schlüssel 1')).toEqual({ type: 11, data: utf8('Schlüssel 1') });
    expect(identityFromText('dn', 'CN=moon').type).toBe(IdType.DerAsn1Dn);
  });

  it('refuses what is wrong, and says what', () => {
    const bad = (type: Parameters<typeof identityFromText>[0], text: string): void =>
      expect(() => identityFromText(type, text), `${type} ${text}`).toThrow(RangeError);
    for (const text of ['', '192.0.2', '192.0.2.1/24', 'moon']) bad('address', text);
    for (const text of ['', 'moon.', '.moon', 'a..b', 'a b', 'mönch.example', 'a@b', 'x'.repeat(256), 'a\nb'])
      bad('fqdn', text);
    for (const text of ['', 'moon', '@moon', 'a@', 'a@b@c', 'a b@c', 'ä@c', 'a@b.']) bad('email', text);
    bad('keyid', '');
    expect(() => identityFromText('fqdn', 'moon.')).toThrow("'moon.' is not a domain name without a dot at its end");
  });
});

describe('distinguished names', () => {
  it('encode as DER, in the order written (X.690, RFC 5280 §4.1.2.4)', () => {
    const country = '310b3009060355040613024348';
    const organisation = '310d300b060355040a13044d6f6f6e';
    const name = '311530130603550403130c6d6f6f6e2e6578616d706c65';
    expect(toHex(dnFromText('C=CH, O=Moon, CN=moon.example'))).toBe(`3033${country}${organisation}${name}`);
  });

  it('choose the string type that holds the text', () => {
    expect(toHex(dnFromText('CN=Mönch'))).toBe('3011310f300d06035504030c064dc3b66e6368');
    expect(toHex(dnFromText('CN=a_b'))).toBe('300e310c300a06035504030c03615f62');
    expect(toHex(dnFromText('emailAddress=a@b'))).toBe('301431123010' + '06092a864886f70d010901' + '1603' + '614062');
    expect(toHex(dnFromText('DC=x'))).toBe('30133111300f' + '060a0992268993f22c640119' + '1601' + '78');
  });

  it('know names in any case, and by their other names', () => {
    expect(toHex(dnFromText('cn=x, e=a@b, s=y'))).toBe(toHex(dnFromText('CN=x,emailAddress=a@b,ST=y')));
  });

  it('read escapes and keep blanks that are escaped', () => {
    expect(formatDn(dnFromText('O=Moon\\, Inc., CN=a\\+b\\\\c'))).toBe('O=Moon\\, Inc., CN=a\\+b\\\\c');
    expect(toHex(dnFromText('CN=  x\\   '))).toBe(toHex(dnFromText('CN=x\\ ')));
    expect(toHex(dnFromText('CN=x\\ '))).toBe('300d310b3009060355040313027820');
  });

  it('refuse what is wrong, and say what', () => {
    const message = (text: string): string => {
      try {
        dnFromText(text);
      } catch (error) {
        if (error instanceof RangeError) return error.message;
        throw error;
      }
      return 'accepted';
    };
    expect(message('')).toContain('NAME=VALUE is required');
    expect(message('CN=a,,O=b')).toContain('NAME=VALUE is required');
    expect(message('CN=a,')).toContain('NAME=VALUE is required');
    expect(message('XY=a')).toContain("'XY'");
    expect(message('CN=')).toContain('CN in a distinguished name is empty');
    expect(message('CN=a+b')).toContain("'b' in a distinguished name: NAME=VALUE is required");
    expect(message('2.5.4=')).toContain('2.5.4 in a distinguished name is empty');
    expect(message('3.1.2=a')).toContain('an object identifier such as 2.5.4.97');
    expect(message('CN=#')).toContain('DER in hexadecimal');
    expect(message('CN=#0c02')).toContain('DER in hexadecimal');
    expect(message('CN=\\ff')).toContain('UTF-8 without control characters');
    expect(message('CN=a\\0ab')).toContain('UTF-8 without control characters');
    expect(message('CN=a\\xb')).toContain("'\\x' in CN");
    expect(message('CN="a"')).toContain("write it as '\\\"'");
    expect(message('CN=a\\')).toContain("'\\' in CN");
    expect(message('C=CHE')).toContain('two letters');
    expect(message('C=Ü1')).toContain('letters and digits');
    expect(message('DC=ü')).toContain('ASCII');
    expect(message(`CN=${'x'.repeat(70_000)}`)).toContain('too long');
  });

  it('read names that real certificates have, by name and by object identifier (RFC 4514 §3)', () => {
    for (const [text, same] of [
      ['unstructuredName=r1.example.org, CN=r1', '1.2.840.113549.1.9.2=r1.example.org, OID.2.5.4.3=r1'],
      ['O=Example, organizationIdentifier=VATDE-123456789', '2.5.4.10=Example, 2.5.4.97=VATDE-123456789'],
      ['C=DE, postalCode=10115, CN=gw', '2.5.4.6=DE, 2.5.4.17=10115, 2.5.4.3=gw'],
      ['CN=Ex\\C3\\A4mple\\2C Inc.', 'CN=Exämple\\, Inc.'],
      ['CN=\\#1', '2.5.4.3=\\231'],
      ['CN=#0c0161', '2.5.4.3=#0C0161'],
      ['CN=\u00a0', 'CN=\\C2\\A0'],
    ] as const) {
      expect(toHex(dnFromText(text)), text).toBe(toHex(dnFromText(same)));
    }
    expect(formatDn(dnFromText('2.5.4.97=VATDE-1'))).toBe('organizationIdentifier=VATDE-1');
    expect(formatDn(dnFromText('1.3.6.1.4.1.99999.7=x'))).toBe('1.3.6.1.4.1.99999.7=x');
  });

  it('read several attributes of one RDN, whatever their order (X.690 §11.6)', () => {
    const text = 'O=Example, CN=gw+serialNumber=42';
    expect(formatDn(dnFromText(text))).toBe(text);
    expect(toHex(dnFromText('O=Example, serialNumber=42 + CN=gw'))).toBe(toHex(dnFromText(text)));
  });

  it('are read back as the names that they were printed of', () => {
    const tag = fc.constantFrom(0x0c, 0x13, 0x14, 0x16, 0x1e, 0x1c, 0x04);
    const value = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 12 }).map(utf8),
      fc.string({ maxLength: 12 }).map(utf8),
      fc.uint8Array({ maxLength: 12 }),
    );
    const oid = fc.constantFrom('550403', '550406', '2a864886f70d010901', '550461', '2b06010401868d1f07', '8837');
    const single = fc
      .tuple(oid, tag, value)
      .map(([type, string, bytes]) => derElement(0x30, derElement(0x06, fromHex(type)), derElement(string, bytes)));
    const set = fc.array(single, { minLength: 1, maxLength: 3 }).map((members) => derElement(0x31, ...members));
    fc.assert(
      fc.property(fc.array(set, { minLength: 1, maxLength: 4 }), (sets) => {
        const name = derElement(0x30, ...sets);
        const text = formatDn(name);
        expect(text).toBeDefined();
        expect(sameDn(dnFromText(text!), name), text).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });

  it('encode long values', () => {
    for (const length of [127, 128, 255, 256, 1000]) {
      const text = `CN=${'x'.repeat(length)}`;
      expect(formatDn(dnFromText(text))).toBe(text);
    }
  });

  it('format as text, values of other types in hex, broken ones not at all', () => {
    expect(formatDn(fromHex('3000'))).toBe('');
    expect(formatDn(fromHex('300e310c300a06035504031e0300610a'))).toBe('CN=#1e0300610a');
    expect(formatDn(fromHex('300c310a300806032a03041301' + '61'))).toBe('1.2.3.4=a');
    expect(formatDn(fromHex('300e310c300a06035504030c03610a62'))).toBe('CN=#0c03610a62');
    const good = dnFromText('C=CH, O=Moon, CN=moon.example');
    for (let length = 0; length < good.length; length++) expect(formatDn(good.slice(0, length))).toBeUndefined();
    expect(formatDn(fromHex('300000'))).toBeUndefined();
    expect(formatDn(fromHex('30023100'))).toBeUndefined();
    expect(formatDn(fromHex('3080'))).toBeUndefined();
    expect(formatDn(fromHex('308100'))).toBeUndefined();
    expect(formatDn(fromHex('30848000000000'))).toBeUndefined();
  });
});

describe('display', () => {
  it('is text where it is text, hex where not, and of bounded length', () => {
    expect(formatIdentity(identityFromText('address', '2001:DB8::1'))).toBe('2001:db8::1');
    expect(formatIdentity(identityFromText('fqdn', 'moon.example'))).toBe('moon.example');
    expect(formatIdentity(identityFromText('dn', 'C=CH,CN=moon'))).toBe('C=CH, CN=moon');
    expect(formatIdentity(identityFromText('keyid', 'key1'))).toBe('keyid:key1');
    expect(formatIdentity({ type: 11, data: fromHex('00ff') })).toBe('keyid:0x00ff');
    expect(formatIdentity({ type: 77, data: fromHex('00ff') })).toBe('id-type-77:0x00ff');
    expect(formatIdentity({ type: 9, data: fromHex('00ff') })).toBe('id-type-9:0x00ff');
    expect(formatIdentity({ type: 1, data: fromHex('00ff') })).toBe('id-type-1:0x00ff');
    expect(formatIdentity({ type: 2, data: utf8('a\nb\u001b[31m') })).toBe('a?b?[31m');
    for (const type of [1, 2, 3, 5, 9, 10, 11, 77]) {
      expect(formatIdentity({ type, data: new Uint8Array(60_000).fill(0x41) }).length).toBeLessThan(600);
    }
    expect(formatIdentity({ type: 9, data: dnFromText(`CN=${'x'.repeat(4000)}`) }).length).toBeLessThan(300);
  });
});

describe('limits', () => {
  const name = (attributes: number, length: number): Uint8Array =>
    derElement(
      0x30,
      ...Array.from({ length: attributes }, () =>
        derElement(0x31, derElement(0x30, fromHex('0603550403'), derElement(0x0c, new Uint8Array(length).fill(0x61)))),
      ),
    );

  it('refuse what no name has: more than 64 attributes, more than 4,096 bytes', () => {
    expect(canonicalDn(name(64, 20))).toHaveLength(64);
    expect(canonicalDn(name(65, 20))).toBeUndefined();
    expect(canonicalDn(name(1, 4_000))).toHaveLength(1);
    expect(canonicalDn(name(1, 4_096))).toBeUndefined();
    // All attributes in one set.
    const one = (count: number): Uint8Array => {
      const attribute = derElement(0x30, fromHex('0603550403'), fromHex('0c0161'));
      return derElement(0x30, derElement(0x31, ...new Array<Uint8Array>(count).fill(attribute)));
    };
    expect(canonicalDn(one(64))).toHaveLength(1);
    expect(canonicalDn(one(65))).toBeUndefined();
    expect(() => dnFromText(`CN=${'x'.repeat(4_096)}`)).toThrow('4096 bytes at most');
    expect(() => dnFromText(new Array(65).fill('CN=x').join(','))).toThrow('64 at most');
  });

  it('leave what cannot be read equal to the same bytes only', () => {
    const large = { type: 9, data: name(100, 20) };
    expect(sameIdentity(large, { type: 9, data: name(100, 20) })).toBe(true);
    expect(sameIdentity(large, { type: 9, data: name(101, 20) })).toBe(false);
  });
});

describe('comparison', () => {
  it('takes names for equal whatever string type they are written in, and no others', () => {
    const name = (tag: number, value: Uint8Array): Uint8Array =>
      derElement(0x30, derElement(0x31, derElement(0x30, fromHex('0603550403'), derElement(tag, value))));
    const bmp = Uint8Array.of(0, 0x67, 0, 0x57);
    expect(sameDn(name(0x0c, utf8('gW')), name(0x13, utf8('GW')))).toBe(true);
    expect(sameDn(name(0x0c, utf8('gw')), name(0x1e, bmp))).toBe(true);
    expect(sameDn(name(0x0c, utf8('ü')), name(0x14, Uint8Array.of(0xfc)))).toBe(true);
    expect(sameDn(name(0x0c, utf8(' g\u00ad  w ')), name(0x0c, utf8('g w')))).toBe(true);
    // What cannot be shown is not what it is shown as, and numbers are not texts.
    expect(sameDn(name(0x0c, utf8('g\0')), name(0x0c, utf8('g?')))).toBe(false);
    expect(sameDn(name(0x0c, Uint8Array.of(0xff)), name(0x0c, utf8('\ufffd')))).toBe(false);
    expect(sameDn(name(0x04, utf8('gw')), name(0x0c, utf8('gw')))).toBe(false);
    expect(sameDn(utf8('no name'), utf8('No name'))).toBe(false);
    expect(sameDn(utf8('no name'), utf8('no name'))).toBe(true);
  });

  it('goes by type and bytes, names by letters whatever their case', () => {
    const same = (a: string, b: string, type: 'fqdn' | 'email' | 'keyid' | 'dn' = 'fqdn'): boolean =>
      sameIdentity(identityFromText(type, a), identityFromText(type, b));
    expect(same('Moon.Example', 'moon.example')).toBe(true);
    expect(same('moon.example', 'moon.exampl')).toBe(false);
    expect(same('moon.example', 'sun0.example')).toBe(false);
    expect(same('A@B', 'a@b', 'email')).toBe(true);
    expect(same('Key', 'key', 'keyid')).toBe(false);
    expect(same('CN=a', 'cn=a', 'dn')).toBe(true);
    expect(same('CN=a, O=b', 'O=b, CN=a', 'dn')).toBe(false);
    expect(sameIdentity(identityFromText('fqdn', 'moon'), identityFromText('keyid', 'moon'))).toBe(false);
    expect(same('C=CH, O=Example  Org,CN=gw1', 'C=ch,O=example org, CN=GW1', 'dn')).toBe(true);
    expect(same('C=CH,CN=gw1', 'CN=gw1,C=CH', 'dn')).toBe(false);
    // '[' and '{' differ by the same bit as 'A' and 'a' do.
    expect(sameIdentity({ type: 2, data: utf8('a[') }, { type: 2, data: utf8('a{') })).toBe(false);
  });
});
