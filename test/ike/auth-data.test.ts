/** What a peer may send to authenticate itself, message by message (RFC 7427 §3, RFC 7296 §3.6–§3.8). */
import { describe, expect, it } from 'vitest';
import { concatBytes, fromHex } from '../../src/base/bytes.ts';
import { utf8 } from '../../src/base/text.ts';
import { CertEncoding, ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import { decodeMessage } from '../../src/ike/wire/message.ts';
import { decodePayloads, findNotify, findPayload, type Payload } from '../../src/ike/wire/payload.ts';
import { notifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { expectSame } from '../support/ike-expect.ts';
import { FakePeer } from '../support/ike-fake-peer.ts';
import { A, AUTHORITY, B, ED25519, FakePki, signing, turned } from '../support/ike-fake-pki.ts';
import { Pair } from '../support/ike-pair.ts';
import { sealing } from '../support/ike-tamper.ts';

const { IKE_AUTH, INFORMATIONAL } = ExchangeType;
const { AUTHENTICATION_FAILED, SIGNATURE_HASH_ALGORITHMS } = NotifyType;

/** A peer of the codec alone, which proves itself as a test says, to B who wants a signature. */
class Claimant {
  readonly peer: FakePeer = new FakePeer();
  readonly pki: FakePki = new FakePki(AUTHORITY, A);

  constructor(hashes: readonly number[] | undefined) {
    const { peer } = this;
    peer.host.endpoint.replaceConnection(turned(signing('signature', 'signature')));
    peer.host.pki = new FakePki(AUTHORITY, B);
    const data = Uint8Array.from((hashes ?? []).flatMap((hash) => [hash >>> 8, hash]));
    const notifies = hashes === undefined ? [] : [notifyPayload(SIGNATURE_HASH_ALGORITHMS, data)];
    peer.init((payloads) => [...payloads, ...notifies]);
  }

  /** What B answers to an AUTH payload and certificates. */
  prove(method: number, data: Uint8Array, certs?: readonly Payload[]): readonly Payload[] {
    const own = this.pki.certificates.map((bytes): Payload => cert(CertEncoding.X509_SIGNATURE, bytes));
    const rest = this.peer.authPayloads().filter(({ type }) => type !== 'auth');
    return this.peer.request(IKE_AUTH, [...rest, ...(certs ?? own), { type: 'auth', method, data }])!;
  }

  /** Why B refused. */
  refusal(method: number, data: Uint8Array, certs?: readonly Payload[]): string {
    expect(this.prove(method, data, certs)).toMatchObject([{ type: 'notify', notify: AUTHENTICATION_FAILED }]);
    const { host } = this.peer;
    expect(host.of('ike-up')).toEqual([]);
    const [failed] = host.of('failed');
    expect(failed!.reason).toBe('AUTHENTICATION_FAILED');
    return failed!.detail;
  }
}

const cert = (encoding: number, data: Uint8Array): Payload => ({ type: 'cert', encoding, data });
const digital = (algorithm: Uint8Array | string, signature: Uint8Array = new Uint8Array(64)): Uint8Array => {
  const der = typeof algorithm === 'string' ? fromHex(algorithm) : algorithm;
  return concatBytes(Uint8Array.of(der.length), der, signature);
};

describe('an AUTH payload', () => {
  const HASHES = [2, 3, 4, 5];

  it.each([
    ['RSA with SHA-1', '300d06092a864886f70d0101050500', /with SHA1, which was not offered/],
    ['ECDSA with SHA-1', '300906072a8648ce3d0401', /with SHA1, which was not offered/],
    ['DSA with SHA-1', '300906072a8648ce380403', /with SHA1, which was not offered/],
    ['PSS without parameters', '300b06092a864886f70d01010a', /algorithm that is not known/],
    ['PSS with the default hash, SHA-1', '300d06092a864886f70d01010a3000', /with SHA1, which was not offered/],
    ['RSA with MD5', '300d06092a864886f70d0101040500', /algorithm that is not known: 0x300d0609/],
    ['something that is no DER', '3103020100', /algorithm that is not known/],
    ['DER that ends too early', '300a06032b6570', /algorithm that is not known/],
    ['a length in a longer form than it needs', '30810506032b6570', /algorithm that is not known/],
    ['no algorithm', '', /without AlgorithmIdentifier/],
  ])('by %s is refused before any certificate is looked at', (_name, algorithm, detail) => {
    const claimant = new Claimant(HASHES);
    expect(claimant.refusal(14, digital(algorithm))).toMatch(detail);
    expect(claimant.peer.host.of('need-verification')).toEqual([]);
  });

  it.each([
    ['RSA PKCS#1 v1.5 with SHA-256', '300d06092a864886f70d01010b0500'],
    ['RSA PKCS#1 v1.5 with SHA-512', '300d06092a864886f70d01010d0500'],
    ['ECDSA with SHA-384', '300a06082a8648ce3d040303'],
    [
      'RSASSA-PSS with SHA-256',
      '304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120',
    ],
    ['Ed25519', '300506032b6570'],
    ['Ed448', '300506032b6571'],
  ])('by %s is for the verifier to judge', (_name, algorithm) => {
    const claimant = new Claimant(HASHES);
    claimant.prove(14, digital(algorithm));
    const [asked] = claimant.peer.host.of('need-verification');
    expect(asked!.auth).toMatchObject({
      authMethod: 14,
      algorithm: fromHex(algorithm),
      signature: new Uint8Array(64),
    });
  });

  it.each([
    ['is empty', new Uint8Array(0), /without AlgorithmIdentifier/],
    ['ends within the AlgorithmIdentifier', fromHex('0730050603'), /without AlgorithmIdentifier/],
    ['has no signature behind it', digital(ED25519, new Uint8Array(0)), /signature wrong: it is empty/],
  ])('that %s is refused', (_name, data, detail) => {
    expect(new Claimant(HASHES).refusal(14, data)).toMatch(detail);
  });

  it.each([
    [1, /RSA_SIGNATURE; DIGITAL_SIGNATURE was agreed on/],
    [2, /SHARED_KEY; DIGITAL_SIGNATURE was agreed on/],
    [3, /DSS_SIGNATURE; DIGITAL_SIGNATURE was agreed on/],
    [13, /NULL; DIGITAL_SIGNATURE was agreed on/],
    [99, /authentication method 99; DIGITAL_SIGNATURE was agreed on/],
  ])('of method %i is refused where digital signatures were agreed on', (method, detail) => {
    expect(new Claimant(HASHES).refusal(method, new Uint8Array(64))).toMatch(detail);
  });

  it('of the methods before RFC 7427 is verified for a peer that has no others, and of RFC 7427 is not', () => {
    for (const method of [1, 9, 10, 11]) {
      const claimant = new Claimant(undefined);
      claimant.prove(method, new Uint8Array(64).fill(1));
      const [asked] = claimant.peer.host.of('need-verification');
      expect(asked!.auth).toMatchObject({ authMethod: method, algorithm: undefined });
    }
    const detail = /method not allowed: DIGITAL_SIGNATURE without SIGNATURE_HASH_ALGORITHMS from both sides/;
    expect(new Claimant(undefined).refusal(14, digital(ED25519))).toMatch(detail);
    expect(new Claimant(undefined).refusal(3, new Uint8Array(40))).toMatch(/DSS_SIGNATURE; a signature is required/);
    expect(new Claimant(undefined).refusal(9, new Uint8Array(0))).toMatch(/signature wrong: it is empty/);
  });
});

describe('certificates', () => {
  const PROOF = digital(ED25519);

  it.each([
    [CertEncoding.HASH_AND_URL_X509, 'HASH_AND_URL_X509'],
    [CertEncoding.HASH_AND_URL_BUNDLE, 'HASH_AND_URL_BUNDLE'],
    [CertEncoding.PKCS7_X509, 'PKCS7_X509'],
    [CertEncoding.RAW_PUBLIC_KEY, 'RAW_PUBLIC_KEY'],
    [77, 'certificate encoding 77'],
  ])('of encoding %i alone are refused, and nothing is fetched', (encoding, name) => {
    const claimant = new Claimant([2, 5]);
    const url = concatBytes(new Uint8Array(20), utf8('http://192.0.2.66/a.crt'));
    const detail = claimant.refusal(14, PROOF, [cert(encoding, url)]);
    expect(detail).toContain(`no certificate: it came as ${name}, X509_SIGNATURE is required`);
    expect(claimant.peer.host.of('need-verification')).toEqual([]);
  });

  it('are never offered to be fetched, nor asked for as URLs: no message says HTTP_CERT_LOOKUP_SUPPORTED', () => {
    const inside: Payload[] = [];
    const seen: number[] = [];
    const crypto = sealing(({ content, skHeader, exchange }) => {
      seen.push(exchange);
      // Padding and its length are behind the payloads.
      const end = content.length - 1 - content[content.length - 1]!;
      inside.push(...decodePayloads(content, 0, end, skHeader[0]!).payloads);
    });
    const config = signing('signature', 'signature');
    const pair = new Pair({ a: config, b: turned(config), aOptions: { crypto }, bOptions: { crypto } });
    pair.a.pki = new FakePki(AUTHORITY, A);
    pair.b.pki = new FakePki(AUTHORITY, B);
    pair.up();
    expectSame(pair, 1);
    expect(seen).toEqual([IKE_AUTH, IKE_AUTH]);
    const plain = pair.sent.slice(0, 2).flatMap(({ data }) => decodeMessage(data).payloads);
    expect(findNotify(plain, SIGNATURE_HASH_ALGORITHMS)).toBeDefined();
    expect(findPayload(inside, 'cert')).toMatchObject({ encoding: CertEncoding.X509_SIGNATURE });
    expect(findNotify([...plain, ...inside], NotifyType.HTTP_CERT_LOOKUP_SUPPORTED)).toBeUndefined();
  });

  it('and CRLs are told apart, in their order; what else comes with them is passed over', () => {
    const claimant = new Claimant([2, 5]);
    const bytes = [1, 2, 3, 4, 5].map((value) => Uint8Array.of(value));
    claimant.prove(14, PROOF, [
      cert(CertEncoding.X509_SIGNATURE, bytes[0]!),
      cert(CertEncoding.CRL, bytes[1]!),
      cert(CertEncoding.HASH_AND_URL_X509, bytes[2]!),
      cert(CertEncoding.X509_SIGNATURE, bytes[3]!),
      cert(CertEncoding.CRL, bytes[4]!),
    ]);
    const [asked] = claimant.peer.host.of('need-verification');
    expect(asked!.auth).toMatchObject({ certificates: [bytes[0], bytes[3]], crls: [bytes[1], bytes[4]] });
  });

  it('more CRLs than ten are refused', () => {
    const crls = Array.from({ length: 11 }, () => cert(CertEncoding.CRL, new Uint8Array(3)));
    expect(new Claimant([5]).refusal(14, PROOF, crls)).toContain('11 CRLs; no more than 10 are looked at');
  });

  it('are asked for of a bounded number of authorities, and asked of us so', () => {
    const authorities = Array.from({ length: 400 }, (_, i) => new Uint8Array(20).fill(i & 0xff).fill(i >>> 8, 10));
    const config = signing('signature', 'signature');
    const b = turned(config);
    const pair = new Pair({ a: config, b: { ...b, remote: { ...b.remote, authorities } } });
    pair.a.pki = new FakePki(AUTHORITY, A);
    pair.b.pki = new FakePki(AUTHORITY, B);
    pair.up();
    expectSame(pair, 1);
    // IKE_SA_INIT is never fragmented, and any host gets a response: it names fewer.
    expect(pair.a.of('need-signature')[0]!.authorities).toEqual(authorities.slice(0, 16));
    expect(pair.sent[1]!.data.length).toBeLessThan(1_000);
    const other = new Pair({ a: { ...b, remote: { ...b.remote, authorities } }, b: config });
    other.a.pki = new FakePki(AUTHORITY, B);
    other.b.pki = new FakePki(AUTHORITY, A);
    other.up();
    expectSame(other, 1);
    expect(other.b.of('need-signature')[0]!.authorities).toEqual(authorities.slice(0, 256));
    const short = { ...b, remote: { ...b.remote, authorities: [new Uint8Array(19)] } };
    expect(() => pair.b.endpoint.replaceConnection(short)).toThrow("the hash of an authority's key has 20 bytes");
  });
});

describe('a peer with which there is no hash in common', () => {
  it.each([[[1]], [[]], [[1, 6, 65_535]]])('%j is told so: we cannot sign for it', (hashes) => {
    const claimant = new Claimant(hashes);
    const { pki, peer } = claimant;
    // It proves itself well.
    peer.host.pki = { sign: () => expect.fail(), verify: () => ({ ok: true }) };
    const detail = claimant.refusal(14, digital(ED25519, pki.sign({ octets: new Uint8Array(1) }).signature));
    expect(detail).toMatch(/the peer verifies signatures only with .*; one of SHA2_256, SHA2_384, SHA2_512, IDENTITY/);
  });
});

describe('a refusal', () => {
  it('is answered with AUTHENTICATION_FAILED alone: the reason is for the log', () => {
    const claimant = new Claimant([5]);
    const answer = claimant.prove(14, digital(ED25519));
    expect(answer).toMatchObject([{ type: 'notify', notify: AUTHENTICATION_FAILED, data: new Uint8Array(0) }]);
    expect(claimant.peer.request(INFORMATIONAL, [])).toBeUndefined();
  });
});
