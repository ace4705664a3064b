/** What is made of OCSP answers, right ones and those that must not count (RFC 6960 §3.2, §4.2). */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { derElement } from '../../../src/base/asn1/der.ts';
import { fromHex, toHex } from '../../../src/base/bytes.ts';
import { utf8 } from '../../../src/base/text.ts';
import { parseCertificate } from '../../../src/pki/certificate.ts';
import { parseCrl } from '../../../src/pki/revocation/crl.ts';
import { type OcspQuestion, ocspRequest, readOcspResponse } from '../../../src/pki/revocation/ocsp.ts';
import { authority, DAY, ECDSA_SHA256, ecKey, extension, type Made, make, makeCrl, NOW, type Recipe } from '../make.ts';
import {
  byKey,
  byName,
  keyHash,
  makeOcsp,
  NO_CHECK,
  OCSP_SIGNING,
  type OcspRecipe,
  ocspOf,
  revokedFor,
  UNKNOWN,
} from '../make-ocsp.ts';

const OPENSSL = 'openssl';
const root = authority('O=Example, CN=Root');
const serial = Uint8Array.of(0x47, 0x11);
const gateway = make({ subject: 'O=Example, CN=gw1', issuer: root, serial });
const nonce = new Uint8Array(32).fill(7);
const echoed = derElement(0x04, nonce);
const question: OcspQuestion = {
  certificate: parseCertificate(gateway.der),
  issuer: parseCertificate(root.der),
  nonce,
};

const delegated = (recipe: Partial<Recipe> = {}): Made =>
  make({ subject: 'CN=Responder', issuer: root, eku: OCSP_SIGNING, keyUsage: [0x80], extra: [NO_CHECK], ...recipe });
/** An answer that a certificate of its own signed. */
const by = (responder: Made, more: Partial<OcspRecipe> = {}): Partial<OcspRecipe> => ({
  responder: byKey(responder),
  signingKey: responder.key,
  certificates: [responder],
  ...more,
});

async function read(answer: Uint8Array | Partial<OcspRecipe>, crls: readonly Uint8Array[] = []): Promise<string> {
  const der = answer instanceof Uint8Array ? answer : makeOcsp({ issuer: root, serial, ...answer });
  const conditions = { now: NOW, skew: 60_000, crls: crls.map(parseCrl) };
  const found = await readOcspResponse(der, question, conditions);
  return `${found.status} ${found.detail}`.trim();
}

describe('a question', () => {
  it('names the certificate by its issuer and serial number, and has a nonce of 32 bytes', () => {
    const hash = (bytes: Uint8Array): string => `0414${toHex(bytes)}`;
    const text = toHex(ocspRequest(question));
    expect(text).toContain(`300906052b0e03021a05000414`);
    expect(text).toContain(`${hash(keyHash(root))}02024711`);
    expect(text).toContain(`06092b060105050730010204220420${toHex(nonce)}`);
  });
});

describe('an answer counts', () => {
  it.each<[string, Partial<OcspRecipe>, string]>([
    ['of the issuer, by name', {}, 'good'],
    ['of the issuer, by key', { responder: byKey(root) }, 'good'],
    ['with our nonce', { nonce: echoed }, 'good'],
    ['beside others', { others: [Uint8Array.of(1), Uint8Array.of(2)] }, 'good'],
    ['that revokes', { status: revokedFor(1) }, 'revoked since 2026-05-31: its key was stolen'],
    [
      'that revokes without a reason',
      { status: derElement(0xa1, derElement(0x18, utf8('20260501120000Z'))) },
      'revoked since 2026-05-01: no reason given',
    ],
    [
      'that revokes, also when it is out of date',
      { status: revokedFor(0), nextUpdate: NOW - DAY },
      'revoked since 2026-05-31: no reason given',
    ],
    ['of one that does not know', { status: UNKNOWN }, 'unknown the responder does not know the certificate'],
    ['without an end, while it is fresh', { nextUpdate: null }, 'good'],
    ['of a clock that is a little ahead', { thisUpdate: NOW + 50_000 }, 'good'],
    ['of somebody whom the issuer certified for that', by(delegated()), 'good'],
    ['of the same, by name', by(delegated(), { responder: byName(delegated()) }), 'good'],
    ['of the same, whose certificate nobody said not to check', by(delegated({ extra: [] })), 'good'],
    ['with the hash algorithm without its null', { hashAlgorithm: fromHex('300706052b0e03021a') }, 'good'],
    [
      'with an extension that need not be understood',
      { singleExtensions: [extension('2b06', false, fromHex('0500'))] },
      'good',
    ],
  ])('%s', async (_, answer, expected) => {
    expect(await read(answer)).toBe(expected);
  });

  it.skipIf(spawnSync(OPENSSL, ['version']).status !== 0)('that openssl made', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sectunnel-ocsp-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const put = (name: string, bytes: string | Uint8Array): void => writeFileSync(join(folder, name), bytes);
    const pem = (der: Uint8Array): string =>
      `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`;
    const responder = delegated({ notBefore: Date.now() - DAY, notAfter: Date.now() + DAY });
    put('ca.pem', pem(root.der));
    put('responder.pem', pem(responder.der));
    put('responder.key', responder.key.export({ format: 'pem', type: 'pkcs8' }).toString());
    put('request.der', ocspRequest(question));
    const ask = async (line: string): Promise<string> => {
      put('index.txt', `${line}\n`);
      const args = [
        'ocsp',
        '-index',
        'index.txt',
        '-CA',
        'ca.pem',
        '-rsigner',
        'responder.pem',
        '-rkey',
        'responder.key',
      ];
      execFileSync(OPENSSL, [...args, '-reqin', 'request.der', '-respout', 'response.der', '-ndays', '1'], {
        cwd: folder,
        stdio: 'ignore',
      });
      const der = new Uint8Array(readFileSync(join(folder, 'response.der')));
      const found = await readOcspResponse(der, question, { now: Date.now(), skew: 60_000, crls: [] });
      return `${found.status} ${found.detail}`.trim();
    };
    expect(await ask('V\t300101000000Z\t\t4711\tunknown\t/CN=gw1')).toBe('good');
    expect(await ask('R\t300101000000Z\t260401120000Z,keyCompromise\t4711\tunknown\t/CN=gw1')).toBe(
      'revoked since 2026-04-01: its key was stolen',
    );
    expect(await ask('V\t300101000000Z\t\t4712\tunknown\t/CN=gw2')).toMatch(/^unknown/);
    // Not one to another question: it repeats the nonce.
    const der = new Uint8Array(readFileSync(join(folder, 'response.der')));
    const other = { ...question, nonce: new Uint8Array(32) };
    await expect(readOcspResponse(der, other, { now: Date.now(), skew: 60_000, crls: [] })).rejects.toThrow(/nonce/);
  });
});

describe('an answer says nothing', () => {
  const failure = (code: number): Uint8Array => derElement(0x30, derElement(0x0a, Uint8Array.of(code)));
  const middle = authority('CN=Middle', { issuer: root });
  const twin = authority('O=Example, CN=Root');
  it.each<[string, Uint8Array | Partial<OcspRecipe>, RegExp]>([
    ['but that it is to come later', failure(3), /the responder says to try again later \(tryLater\)/],
    ['but that it is not for us', failure(6), /unauthorized/],
    ['but something unknown', failure(77), /something unknown \(77\)/],
    ['without a status', derElement(0x30, fromHex('0a00')), /its status is not a number of one byte/],
    ['with a status of two bytes', derElement(0x30, fromHex('0a020000')), /its status is not a number of one byte/],
    ['that is nonsense', utf8('<html>'), /not a usable response/],
    ['that is empty', new Uint8Array(0), /not a usable response/],
    ['of success, with nothing in it', failure(0), /it is empty/],
    ['of another type', ocspOf('2b06', fromHex('3000')), /its type is not the basic one/],
    ['that is too long', new Uint8Array(65_537), /the limit is 65536/],
    ['to another question', { nonce: derElement(0x04, new Uint8Array(32)) }, /its nonce is not ours/],
    ['about another certificate', { serial: Uint8Array.of(0x47, 0x12) }, /about other certificates/],
    ['about a certificate of another issuer', { issuer: twin, signingKey: root.key }, /about other certificates/],
    [
      'with another hash algorithm, whose hashes would be the same',
      { hashAlgorithm: fromHex('300b0609608648016503040201') },
      /about other certificates/,
    ],
    ['that is out of date', { nextUpdate: NOW - DAY }, /expired on 2026-05-31T00:00:00.000Z/],
    ['that is of tomorrow', { thisUpdate: NOW + DAY }, /dated 2026-06-02T00:00:00.000Z, in the future/],
    ['that is old and without an end', { nextUpdate: null, thisUpdate: NOW - DAY }, /expired on/],
    ['that another key signed', { signingKey: ecKey() }, /response was not signed by 'O=Example, CN=Root'/],
    [
      'that is signed with SHA-1',
      { algorithm: { der: fromHex('300906072a8648ce3d0401'), hash: 'sha1' } },
      /signed with ecdsa-sha1/,
    ],
    ['with another algorithm than it says', { algorithm: { der: ECDSA_SHA256, hash: 'sha384' } }, /was not signed by/],
    [
      'of a critical extension',
      { responseExtensions: [extension('2b06', true, fromHex('0500'))] },
      /critical extension 2b06/,
    ],
    [
      'of a critical extension in it',
      { singleExtensions: [extension('2b06', true, fromHex('0500'))] },
      /critical extension 2b06/,
    ],
    [
      'without the certificate of who signed it',
      { ...by(delegated()), certificates: [] },
      /no certificate of its signer/,
    ],
    [
      'of somebody without OCSPSigning',
      by(delegated({ eku: ['2b06010505070301'] })),
      /extended key usage lacks OCSPSigning/,
    ],
    ['of the very certificate that was asked about', by(gateway), /extended key usage lacks OCSPSigning/],
    ['of an authority that may issue certificates alone', by(middle), /extended key usage lacks OCSPSigning/],
    [
      'of somebody whom another authority certified',
      by(delegated({ issuer: middle })),
      /certified by another authority/,
    ],
    [
      'of somebody whom another of that name certified',
      by(delegated({ issuer: twin })),
      /certified by another authority of that name/,
    ],
    ['of somebody whose certificate has expired', by(delegated({ notAfter: NOW - DAY })), /has expired/],
    [
      'of somebody whose key is for other things',
      by(delegated({ keyUsage: [0x20] })),
      /key usage lacks digitalSignature/,
    ],
    [
      'of somebody whose certificate is signed with SHA-1',
      by(delegated({ algorithm: { der: fromHex('300906072a8648ce3d0401'), hash: 'sha1' } })),
      /certificate is signed with ecdsa-sha1/,
    ],
    [
      'of somebody with a critical extension',
      by(delegated({ extra: [extension('2b06', true, fromHex('0500'))] })),
      /critical extension 1\.3\.6/,
    ],
    [
      'of somebody with another key than it says',
      { ...by(delegated()), signingKey: ecKey() },
      /was not signed by 'CN=Responder'/,
    ],
  ])('%s', async (_, answer, why) => {
    await expect(read(answer)).rejects.toThrow(why);
  });

  it('of a signer whose certificate was revoked, unless its status is not to be checked', async () => {
    const own = Uint8Array.of(0x66);
    const crl = makeCrl({ issuer: root, revoked: [own] });
    await expect(read(by(delegated({ serial: own, extra: [] })), [crl])).rejects.toThrow(
      "'CN=Responder' signed it, but its certificate was revoked",
    );
    expect(await read(by(delegated({ serial: own })), [crl])).toBe('good');
  });

  it('when any one byte of it was changed', async () => {
    const der = makeOcsp({ issuer: root, serial, nonce: echoed, ...by(delegated()) });
    for (let at = 0; at < der.length; at++) {
      const changed = der.slice();
      changed[at] = changed[at]! ^ 0x41;
      // What may differ is in the certificate alone, which is signed itself.
      await expect(read(changed).catch(String), String(at)).resolves.not.toBe('good');
    }
  });

  it('whatever the bytes are', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        await expect(read(bytes)).rejects.toThrow();
      }),
      { numRuns: 200 },
    );
  });
});
