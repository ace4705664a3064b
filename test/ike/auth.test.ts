import { createHash, createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { parseAddress, type SocketAddress } from '../../src/base/address.ts';
import { concatBytes, fromHex, toHex } from '../../src/base/bytes.ts';
import { identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { prfByName } from '../../src/crypto/algorithms.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { CookieJar } from '../../src/ike/half-open/cookie.ts';
import { pskAuth, type SignedParts, signedOctets, verifyPskAuth } from '../../src/ike/keys/auth.ts';
import { NotifyType } from '../../src/ike/wire/iana.ts';
import { detectNat, natDetectionHash, natDetectionNotifies } from '../../src/ike/wire/nat.ts';
import { notifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { counting } from './arbitraries.ts';

const at = (address: string, port: number): SocketAddress => ({ address: parseAddress(address)!, port });

describe('shared-key AUTH (RFC 7296 §2.15)', () => {
  const algorithm = prfByName('prfsha256')!;
  const parts: SignedParts = {
    initMessage: counting(100),
    peerNonce: new Uint8Array(32).fill(7),
    skP: new Uint8Array(32).fill(8),
    identity: identityFromText('fqdn', 'moon.example'),
  };
  const secret = utf8('correct horse');
  const hmac = (key: Uint8Array, data: Uint8Array): Uint8Array =>
    new Uint8Array(createHmac('sha256', key).update(data).digest());

  it('is what the formula says, computed by hand', () => {
    const idBody = concatBytes(fromHex('02000000'), utf8('moon.example'));
    const octets = concatBytes(parts.initMessage, parts.peerNonce, hmac(parts.skP, idBody));
    expect(toHex(signedOctets(nodeProvider, algorithm, parts))).toBe(toHex(octets));
    const expected = hmac(hmac(secret, utf8('Key Pad for IKEv2')), octets);
    expect(toHex(pskAuth(nodeProvider, algorithm, secret, parts))).toBe(toHex(expected));
  });

  it('holds only for the same secret, message, nonce, key and identity', () => {
    const value = pskAuth(nodeProvider, algorithm, secret, parts);
    const verify = (changed: Partial<SignedParts>, with_ = secret, received = value): boolean =>
      verifyPskAuth(nodeProvider, algorithm, with_, { ...parts, ...changed }, received);
    expect(verify({})).toBe(true);
    expect(verify({}, utf8('correct horsf'))).toBe(false);
    expect(verify({ initMessage: counting(99) })).toBe(false);
    expect(verify({ peerNonce: new Uint8Array(32).fill(6) })).toBe(false);
    expect(verify({ skP: new Uint8Array(32).fill(9) })).toBe(false);
    expect(verify({ identity: identityFromText('fqdn', 'sun.example') })).toBe(false);
    expect(verify({ identity: identityFromText('keyid', 'moon.example') })).toBe(false);
    expect(verify({}, secret, value.slice(0, 31))).toBe(false);
    expect(verify({}, secret, new Uint8Array(0))).toBe(false);
    expect(verify({}, secret, new Uint8Array(32))).toBe(false);
  });

  it('never holds for an empty secret', () => {
    const nothing = new Uint8Array(0);
    const value = pskAuth(nodeProvider, algorithm, nothing, parts);
    expect(verifyPskAuth(nodeProvider, algorithm, nothing, parts, value)).toBe(false);
  });
});

describe('NAT detection (RFC 7296 §2.23)', () => {
  const spis = { initiatorSpi: 0x0102030405060708n, responderSpi: 0n };
  const here = at('192.0.2.1', 500);
  const there = at('198.51.100.7', 500);

  it('hashes SPIs, address and port in network order', () => {
    const hash = (hex: string): string => createHash('sha1').update(fromHex(hex)).digest('hex');
    expect(toHex(natDetectionHash(nodeProvider, spis, here))).toBe(
      hash('01020304050607080000000000000000c000020101f4'),
    );
    expect(toHex(natDetectionHash(nodeProvider, spis, at('2001:db8::1', 4500)))).toBe(
      hash('01020304050607080000000000000000' + '20010db8000000000000000000000001' + '1194'),
    );
  });

  it('finds no NAT, one here, one there, or both', () => {
    const sent = natDetectionNotifies(nodeProvider, spis, here, there, undefined);
    const seen = (local: SocketAddress, remote: SocketAddress): unknown =>
      detectNat(nodeProvider, spis, local, remote, sent);
    expect(seen(there, here)).toEqual({ supported: true, localBehindNat: false, remoteBehindNat: false });
    const natted = at('203.0.113.5', 61_000);
    expect(seen(there, natted)).toEqual({ supported: true, localBehindNat: false, remoteBehindNat: true });
    expect(seen(at('10.0.0.2', 500), here)).toEqual({ supported: true, localBehindNat: true, remoteBehindNat: false });
    expect(seen(at('10.0.0.2', 500), natted)).toEqual({ supported: true, localBehindNat: true, remoteBehindNat: true });
    expect(seen(there, { ...here, port: 501 })).toMatchObject({ remoteBehindNat: true });
  });

  it('forces encapsulation when asked', () => {
    const sent = natDetectionNotifies(nodeProvider, spis, here, there, (length) => new Uint8Array(length).fill(3));
    expect(detectNat(nodeProvider, spis, there, here, sent)).toMatchObject({
      localBehindNat: false,
      remoteBehindNat: true,
    });
  });

  it('takes one fitting source of several, needs both kinds, survives hashes of any length', () => {
    const sent = natDetectionNotifies(nodeProvider, spis, here, there, undefined);
    const stray = notifyPayload(NotifyType.NAT_DETECTION_SOURCE_IP, new Uint8Array(3));
    expect(detectNat(nodeProvider, spis, there, here, [stray, ...sent])).toMatchObject({ remoteBehindNat: false });
    expect(detectNat(nodeProvider, spis, there, here, sent.slice(0, 1))).toMatchObject({ supported: false });
    expect(detectNat(nodeProvider, spis, there, here, [])).toMatchObject({ supported: false });
  });
});

describe('cookies (RFC 7296 §2.6)', () => {
  const subject = { nonce: counting(32), remote: at('198.51.100.7', 500), initiatorSpi: 5n };
  const makeJar = (): CookieJar => new CookieJar(nodeProvider, new Uint8Array(32).fill(1));

  it('hold for what they were made for, and for nothing else', () => {
    const jar = makeJar();
    const cookie = jar.make(subject);
    expect(cookie.length).toBeLessThanOrEqual(64);
    expect(jar.verify(subject, cookie)).toBe(true);
    expect(jar.verify({ ...subject, nonce: counting(31) }, cookie)).toBe(false);
    expect(jar.verify({ ...subject, remote: at('198.51.100.8', 500) }, cookie)).toBe(false);
    expect(jar.verify({ ...subject, remote: at('198.51.100.7', 501) }, cookie)).toBe(false);
    expect(jar.verify({ ...subject, initiatorSpi: 6n }, cookie)).toBe(false);
    for (let byte = 0; byte < cookie.length; byte++) {
      const damaged = cookie.slice();
      damaged[byte] = damaged[byte]! ^ 1;
      expect(jar.verify(subject, damaged)).toBe(false);
    }
    expect(jar.verify(subject, new Uint8Array(0))).toBe(false);
    expect(jar.verify(subject, cookie.slice(0, -1))).toBe(false);
  });

  it('outlive one change of the secret, not two', () => {
    const jar = makeJar();
    const old = jar.make(subject);
    jar.rotate(new Uint8Array(32).fill(2));
    expect(jar.verify(subject, old)).toBe(true);
    expect(toHex(jar.make(subject))).not.toBe(toHex(old));
    expect(jar.verify(subject, jar.make(subject))).toBe(true);
    jar.rotate(new Uint8Array(32).fill(3));
    expect(jar.verify(subject, old)).toBe(false);
  });

  it('go round all version numbers', () => {
    const jar = makeJar();
    for (let i = 0; i < 600; i++) {
      const old = jar.make(subject);
      jar.rotate(new Uint8Array(32).fill(i));
      expect(jar.verify(subject, old)).toBe(true);
    }
  });

  it('made with a wiped secret are of no use to a fresh jar', () => {
    const jar = makeJar();
    const cookie = jar.make(subject);
    jar.wipe();
    expect(jar.verify(subject, cookie)).toBe(false);
  });
});
