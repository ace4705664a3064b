/** Where signatures are made and checked, and what of a certificate that was seen before is not computed again. */
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { parseCertificate } from '../../src/pki/certificate.ts';
import { schemeOfMethod } from '../../src/pki/methods.ts';
import type { SignatureScheme } from '../../src/pki/scheme.ts';
import { isSignedBy, makeSignature, verifySignature } from '../../src/pki/signature.ts';
import { keySigner } from '../../src/pki/signer.ts';
import type { PeerAuth, Verifier } from '../../src/pki/types.ts';
import { pathVerifier } from '../../src/pki/verifier.ts';
import { authority, DAY, dns, ecKey, make, makeCrl, NOW } from './make.ts';

/** Whether a promise settles before anything else that waits in the event loop has its turn. */
async function isOnTheSpot(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const watched = promise.then(() => {
    settled = true;
  });
  for (let turns = 0; turns < 20; turns++) await Promise.resolve();
  const found = settled;
  await watched;
  return found;
}

const rsa = (modulusLength: number, publicExponent = 65_537): KeyObject =>
  generateKeyPairSync('rsa', { modulusLength, publicExponent }).privateKey;

describe('signatures', () => {
  it.each<[string, KeyObject, { sign: boolean; verify: boolean }]>([
    ['P-256', ecKey(), { sign: true, verify: true }],
    ['Ed25519', generateKeyPairSync('ed25519').privateKey, { sign: true, verify: true }],
    ['RSA 2048', rsa(2_048), { sign: true, verify: true }],
    ['RSA 3072', rsa(3_072), { sign: false, verify: true }],
    ['RSA 2048 with a long exponent', rsa(2_048, 0x1_0000_0f), { sign: false, verify: false }],
    ['P-384', ecKey('P-384'), { sign: false, verify: false }],
    ['P-521', ecKey('P-521'), { sign: false, verify: false }],
    ['Ed448', generateKeyPairSync('ed448').privateKey, { sign: true, verify: true }],
  ])('with %s are computed where the way to another thread costs least: %#', async (_, key, onTheSpot) => {
    const scheme = schemeOfMethod(keySigner(key).methods[0]!) as SignatureScheme;
    const publicKey = createPublicKey(key);
    const data = utf8('what is signed');
    const signing = makeSignature(scheme, key, data);
    expect(await isOnTheSpot(signing)).toBe(onTheSpot.sign);
    const verifying = verifySignature(scheme, publicKey, data, await signing);
    expect(await isOnTheSpot(verifying)).toBe(onTheSpot.verify);
    expect(await verifying).toBe(true);
    expect(await verifySignature(scheme, publicKey, utf8('something else'), await signing)).toBe(false);
    expect(await verifySignature(scheme, publicKey, data, (await signing).subarray(1))).toBe(false);
  });

  it('of much data go to another thread, whatever the key', async () => {
    const key = ecKey();
    const scheme: SignatureScheme = { kind: 'ecdsa', hash: 'sha256', fixed: false };
    const data = new Uint8Array(64 * 1024);
    const signing = makeSignature(scheme, key, data);
    expect(await isOnTheSpot(signing)).toBe(false);
    const verifying = verifySignature(scheme, createPublicKey(key), data, await signing);
    expect(await isOnTheSpot(verifying)).toBe(false);
    expect(await verifying).toBe(true);
  });

  it('that a key cannot make are reported like those of another thread', async () => {
    await expect(
      makeSignature({ kind: 'ecdsa', hash: 'sha256', fixed: false }, createPublicKey(ecKey()), utf8('x')),
    ).rejects.toThrow();
  });
});

describe('a certificate that was seen before', () => {
  const root = authority('CN=root');
  const serial = Uint8Array.of(0x42);
  const peer = make({ subject: 'CN=gw1', issuer: root, serial, san: [dns('gw1.example')], notAfter: NOW + 10 * DAY });
  const signer = keySigner(peer.key);
  const method = signer.methods[0]!;
  const octets = utf8('what both sides sign');

  async function auth(more: Partial<PeerAuth> = {}): Promise<PeerAuth> {
    const { authMethod, algorithm } = method;
    const [id, signature] = [identityFromText('fqdn', 'gw1.example'), await signer.sign(method, octets)];
    return { certificates: [peer.der], crls: [], id, authMethod, algorithm, signature, octets, now: NOW, ...more };
  }

  /** One that has believed the peer. */
  async function acquainted(): Promise<Verifier> {
    const verifier = pathVerifier({ anchors: [parseCertificate(root.der)] });
    expect(await verifier.verify(await auth())).toMatchObject({ ok: true, subject: 'CN=gw1' });
    return verifier;
  }

  it.each<[string, Partial<PeerAuth>, string]>([
    ['it expires', { now: NOW + 11 * DAY }, 'expired'],
    ['the clock goes back', { now: NOW - 40 * DAY }, 'not-yet-valid'],
    ['it is revoked', { crls: [makeCrl({ issuer: root, revoked: [serial] })] }, 'revoked'],
    ['it is shown for another', { id: identityFromText('fqdn', 'gw2.example') }, 'identity-mismatch'],
    ['another signs with it', { signature: new Uint8Array(70) }, 'bad-signature'],
    ['it signs something else', { octets: utf8('something else') }, 'bad-signature'],
  ])('is refused when %s', async (_, change, reason) => {
    const verifier = await acquainted();
    expect(await verifier.verify(await auth(change))).toMatchObject({ ok: false, reason });
    expect(await verifier.verify(await auth())).toMatchObject({ ok: true });
  });

  it('is refused when the list that spoke for it is out of date', async () => {
    const crls = [makeCrl({ issuer: root, nextUpdate: NOW + DAY })];
    const strict = pathVerifier({ anchors: [parseCertificate(root.der)], crlPolicy: 'strict' });
    expect(await strict.verify(await auth({ crls }))).toMatchObject({ ok: true });
    const later = await strict.verify(await auth({ crls, now: NOW + 2 * DAY }));
    expect(later).toMatchObject({ ok: false, reason: 'revocation-unknown' });
  });

  it('is known by the key of its issuer, not by its name', async () => {
    const certificate = parseCertificate(peer.der);
    const other = parseCertificate(authority('CN=root').der);
    const scheme: SignatureScheme = { kind: 'ecdsa', hash: 'sha256', fixed: false };
    expect(await isSignedBy(certificate, parseCertificate(root.der), scheme)).toBe(true);
    expect(await isSignedBy(certificate, other, scheme)).toBe(false);
    expect(await isSignedBy(certificate, parseCertificate(root.der), scheme)).toBe(true);
  });

  it('is refused when a bit of the signature differs', async () => {
    const verifier = await acquainted();
    const forged = Uint8Array.from(peer.der);
    forged[forged.length - 1]! ^= 1;
    const verdict = await verifier.verify(await auth({ certificates: [forged] }));
    expect(verdict).toMatchObject({ ok: false, reason: 'bad-certificate-signature' });
  });
});
