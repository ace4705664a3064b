/**
 * What the certificates of an unknown peer cost, beside those of an honest one: in one run, in turn, by their
 * medians. Nothing is remembered from one judgement to the next.
 */
import { describe, expect, it } from 'vitest';
import { derElement } from '../../src/base/asn1/der.ts';
import { fromHex } from '../../src/base/bytes.ts';
import { parseCertificate } from '../../src/pki/certificate.ts';
import type { PeerAuth } from '../../src/pki/types.ts';
import { pathVerifier } from '../../src/pki/verifier.ts';
import { right, root } from './judge.ts';
import { authority, directory, dns, ecKey, extension, type Made, make, type Recipe } from './make.ts';

const ROUNDS = 41;
/** "Parsing cost of a hostile IKE_AUTH at most three times that of an honest one". */
const MOST = 3;

const anchors = [parseCertificate(root.der)];
const times = <T>(count: number, one: (at: number) => T): T[] => Array.from({ length: count }, (_, at) => one(at));

/** An honest gateway: its own certificate, and an authority between it and the root. */
const middle = authority('C=CH, O=Example, CN=Middle', { issuer: root, pathLength: 0 });
const honest = make({
  subject: 'C=CH, O=Example, OU=Network, CN=gw1.example',
  issuer: middle,
  san: [dns('gw1.example'), dns('vpn.example')],
  keyUsage: [0x80],
  eku: ['2b06010505070311'],
});
const honestAuth = await right(honest, { certificates: [honest.der, middle.der] });

/** Signed by itself, with a signature in AUTH that is right: all of it is read. */
async function hostile(recipe: Partial<Recipe>, ...sent: Uint8Array[]): Promise<PeerAuth> {
  const made = make({ subject: 'CN=x', ...recipe });
  return await right(made, { certificates: [made.der, ...sent] });
}

const rdns = (count: number): Uint8Array =>
  derElement(
    0x30,
    ...times(count, () => derElement(0x31, derElement(0x30, fromHex('0603550403'), fromHex('0c0561202061c4')))),
  );
const unknown = times(32, (at) => extension(`2a03${(at + 1).toString(16).padStart(2, '0')}`, false, fromHex('0500')));
/** Claims to be of our root, and was signed by nobody. */
const forged = (at: number): Uint8Array =>
  authority('CN=x', { issuer: root, signingKey: ecKey(), san: times(20, (n) => dns(`${at}-${n}.example`)) }).der;

const nulls = derElement(0x30, ...times(4_000, () => fromHex('0500')));
/** What is in an octet string is DER as well: a parser that follows it builds thousands of objects. */
const nested = (): Made =>
  make({ subject: 'CN=x', extra: [extension('551d13', true, derElement(0x30, derElement(0x04, nulls)))] });
const manyIssuers = (): Made =>
  make({
    subject: 'CN=x',
    extra: [extension('551d23', false, derElement(0x30, derElement(0xa1, ...times(100, () => dns('a')))))],
  });

async function wrongAuths(): Promise<readonly (readonly [string, PeerAuth])[]> {
  return [
    ['128 names', await hostile({ san: times(128, () => dns('a')) })],
    ['100 directory names', await hostile({ san: times(100, () => directory('CN=a')) })],
    ['as many names as there is room for', await hostile({ san: times(128, (at) => dns(`${'x'.repeat(130)}${at}`)) })],
    ['256 name constraints', await hostile({ permitted: times(256, () => dns('a')) })],
    ['64 attributes in both names', await hostile({ subjectName: rdns(64), issuerName: rdns(64) })],
    ['32 extensions', await hostile({ extra: unknown })],
    ['DER within the octet strings of its extensions', await hostile({}, ...times(3, () => nested().der))],
    ['authority key identifiers of 100 names', await hostile({}, ...times(9, () => manyIssuers().der))],
    ['ten certificates that say they are of our authority', await hostile({}, ...times(9, forged))],
    ['6,000 names, of which it has no more than it may', await hostile({ san: times(6_000, () => dns('a')) })],
    ['a signature that is wrong', { ...honestAuth, signature: new Uint8Array(70) }],
    ['nonsense behind its own', await hostile({}, ...times(9, () => new Uint8Array(5_000).fill(0x30)))],
    // Which hash is meant the method does not say: three are tried.
    [
      'the longest RSA key that is taken',
      {
        ...(await hostile({ publicKeyInfo: slowKey })),
        authMethod: 1,
        algorithm: undefined,
        signature: new Uint8Array(1_024).fill(1),
      },
    ],
  ];
}

/** An RSA key that takes long to compute with. */
const slowKey = derElement(
  0x30,
  fromHex('300d06092a864886f70d0101010500'),
  derElement(
    0x03,
    Uint8Array.of(0),
    derElement(
      0x30,
      derElement(0x02, Uint8Array.of(0), new Uint8Array(1_024).fill(0xd5)),
      derElement(0x02, fromHex('010001')),
    ),
  ),
);

/** Microseconds of processor time, of all threads: others on the machine do not count. */
async function cost(auth: PeerAuth): Promise<number> {
  const begun = process.cpuUsage();
  await pathVerifier({ anchors }).verify(auth);
  const { user, system } = process.cpuUsage(begun);
  return user + system;
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

describe('certificates of an unknown peer', () => {
  it('cost at most three times those of an honest one', async () => {
    const given = await wrongAuths();
    const spent = new Map<string, number[]>([
      ['honest', []],
      ...given.map(([name]) => [name, []] as [string, number[]]),
    ]);
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, auth] of [['honest', honestAuth] as const, ...given]) spent.get(name)!.push(await cost(auth));
    }
    const of = (name: string): number => median(spent.get(name)!);
    const ratios = given.map(([name]) => [name, Number((of(name) / of('honest')).toFixed(1))] as const);
    expect(ratios.filter(([, ratio]) => ratio > MOST)).toEqual([]);
  });

  it('are refused for the expected reason, so that the intended work was measured', async () => {
    const reasons = await Promise.all(
      (await wrongAuths()).map(async ([, auth]) => {
        const verdict = await pathVerifier({ anchors }).verify(auth);
        return verdict.ok ? 'ok' : verdict.reason;
      }),
    );
    expect(reasons).toEqual([
      ...new Array(6).fill('untrusted'),
      'malformed-certificate',
      'untrusted',
      'bad-certificate-signature',
      'malformed-certificate',
      'bad-signature',
      'malformed-certificate',
      'bad-signature',
    ]);
  });
});
