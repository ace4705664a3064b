/**
 * Certificates, revocation lists and OCSP responses. The first byte says which; a response to OCSP is signed anew by the issuer,
 * so that what is behind the signature is reached.
 */

import { sign } from 'node:crypto';
import { derChildren, derContents, derElement } from '../../../src/base/asn1/der.ts';
import { formatDn } from '../../../src/base/asn1/dn-text.ts';
import { concatBytes, fromHex } from '../../../src/base/bytes.ts';
import { utf8 } from '../../../src/base/text.ts';
import { authorityHash, describeCertificate, parseCertificate } from '../../../src/pki/certificate.ts';
import { describeIdentity, provenIdentities, provesIdentity } from '../../../src/pki/identity.ts';
import { MalformedCertificateError } from '../../../src/pki/malformed.ts';
import { type PathOptions, validatePath } from '../../../src/pki/path.ts';
import { pemBlocks } from '../../../src/pki/pem.ts';
import { crlProblem, parseCrl, revocationStatus, staleness } from '../../../src/pki/revocation/crl.ts';
import { listUrls, responderUrls } from '../../../src/pki/revocation/locations.ts';
import { type OcspQuestion, readOcspResponse } from '../../../src/pki/revocation/ocsp.ts';
import { dns, email, extension, ip, makeCrl, NOW, uri } from '../../pki/make.ts';
import { lists, makeOcsp, ocspOf, responders, revokedFor } from '../../pki/make-ocsp.ts';
import { certified, ED25519, ROOT } from '../keys.ts';
import { holds, type Target, unlessRefused } from '../target.ts';

const SEQUENCE = 0x30;

const LEAF = certified('O=Example, CN=gw1', 2, {
  keyUsage: [0x80],
  eku: ['2b06010505070311'],
  san: [dns('gw1.example'), email('a@example.org'), ip('c0000201'), uri('http://a.example/')],
  extra: [responders('http://ocsp.example/'), lists('http://pki.example/1.crl')],
});
const NONCE = new Uint8Array(32).fill(7);
const ISSUER = parseCertificate(ROOT.der);
const QUESTION: OcspQuestion = { certificate: parseCertificate(LEAF.der), issuer: ISSUER, nonce: NONCE };

const PATH: PathOptions = {
  anchors: [ISSUER],
  intermediates: [],
  crls: [],
  crlPolicy: 'ifpresent',
  now: NOW,
  clockSkew: 60_000,
  allowSha1: false,
  extendedKeyUsage: 'ike',
};

const KINDS: readonly ((der: Uint8Array) => void | Promise<void>)[] = [
  certificate,
  (tbs) => certificate(signed(tbs)),
  list,
  (tbs) => list(signed(tbs)),
  ocsp,
  (tbs) => ocsp(ocspOf('2b0601050507300101', signed(tbs))),
  pem,
];

async function run(input: Uint8Array): Promise<void> {
  await KINDS[(input[0] ?? 0) % KINDS.length]!(input.subarray(1));
}

/** As the authority would have signed it. */
function signed(tbs: Uint8Array): Uint8Array {
  const signature = sign(undefined, tbs, ROOT.key);
  return derElement(SEQUENCE, tbs, ED25519.der, derElement(0x03, Uint8Array.of(0), signature));
}

/** Readers promise an error for people; what V8 says of a mistake of ours is none. */
function isForPeople(error: unknown): boolean {
  if (!(error instanceof Error) || error.message === '') return false;
  const { message, cause } = error;
  const isMistake = /Cannot (read|destructure|convert)|undefined|is not (a function|iterable)|call stack|Invalid array/;
  return !isMistake.test(message) && !(cause instanceof TypeError) && !(error instanceof TypeError);
}

function isMalformed(error: unknown): boolean {
  return error instanceof MalformedCertificateError && isForPeople(error);
}

async function certificate(der: Uint8Array): Promise<void> {
  const read = unlessRefused(() => parseCertificate(der), isMalformed);
  if (read === undefined) return;
  describeCertificate(read);
  authorityHash(read);
  formatDn(read.subject);
  listUrls(read);
  responderUrls(read);
  for (const allowCommonName of [false, true]) {
    for (const id of provenIdentities(read, { allowCommonName })) {
      describeIdentity(id);
      holds(provesIdentity(read, id, { allowCommonName }), `${describeIdentity(id)} is proven and not proven`);
    }
  }
  const result = await validatePath(read, PATH);
  if (!result.ok) return;
  const { notBefore, notAfter, extensions } = read;
  holds(
    notBefore <= NOW + PATH.clockSkew && notAfter >= NOW - PATH.clockSkew,
    'a path of a certificate out of its time',
  );
  holds(extensions.unknownCritical.length === 0, 'a path of a certificate with an unknown critical extension');
}

async function list(der: Uint8Array): Promise<void> {
  const crl = unlessRefused(() => parseCrl(der), isForPeople);
  if (crl === undefined) return;
  staleness(crl, NOW, 60_000);
  await crlProblem(crl, ISSUER);
  const { status } = await revocationStatus(QUESTION.certificate, ISSUER, [crl], NOW, 60_000);
  holds(status !== 'good' || !crl.revoked.has(QUESTION.certificate.serial), 'a certificate in the list is good');
}

async function ocsp(der: Uint8Array): Promise<void> {
  try {
    await readOcspResponse(der, QUESTION, { now: NOW, skew: 60_000, crls: [] });
  } catch (error) {
    if (!isForPeople(error)) throw error;
  }
}

function pem(bytes: Uint8Array): void {
  for (const block of pemBlocks(bytes)) {
    holds(block.pem.length <= bytes.length, 'a block is longer than its file');
    block.der();
  }
}

/** The part that is signed. */
function tbsOf(der: Uint8Array): Uint8Array {
  return derChildren(der, SEQUENCE)[0]!;
}

function seeds(): Uint8Array[] {
  const crls = [
    makeCrl({ issuer: ROOT, algorithm: ED25519 }),
    makeCrl({
      issuer: ROOT,
      algorithm: ED25519,
      revoked: [Uint8Array.of(2), Uint8Array.of(9, 9)],
      entryExtensions: [extension('551d15', false, fromHex('0a0101'))],
      extensions: [extension('551d14', false, fromHex('020105')), extension('551d1c', true, fromHex('30038101ff'))],
    }),
  ];
  const recipe = { issuer: ROOT, serial: Uint8Array.of(2), algorithm: ED25519 };
  const responses = [
    makeOcsp(recipe),
    makeOcsp({ ...recipe, nonce: derElement(0x04, NONCE), others: [Uint8Array.of(7)] }),
    makeOcsp({ ...recipe, status: revokedFor(1), nextUpdate: null }),
  ];
  const kinds: readonly (readonly Uint8Array[])[] = [
    [LEAF.der, ROOT.der],
    [tbsOf(LEAF.der), tbsOf(ROOT.der)],
    crls,
    crls.map(tbsOf),
    responses,
    responses.map(
      (der) =>
        derChildren(derContents(derChildren(derContents(derChildren(der, SEQUENCE)[1]!), SEQUENCE)[1]!), SEQUENCE)[0]!,
    ),
    [utf8(`text\n-----BEGIN A B-----\nMAMC\nAQE=\n-----END A B-----\n`)],
  ];
  return kinds.flatMap((inputs, kind) => inputs.map((der) => concatBytes(Uint8Array.of(kind), der)));
}

export const pki: Target = { name: 'pki', shape: 'der', maxLength: 8_192, tokens: [], seeds, run };
