/** Revocation that is asked for over the network: what is fetched, when, how often, and what follows when it cannot be had. */
import { describe, expect, it } from 'vitest';
import { derElement } from '../../../src/base/asn1/der.ts';
import { fromHex } from '../../../src/base/bytes.ts';
import { identityFromText } from '../../../src/base/identity.ts';
import { utf8 } from '../../../src/base/text.ts';
import { parseCertificate } from '../../../src/pki/certificate.ts';
import { type FetchRequest, OnlineRevocation } from '../../../src/pki/revocation/online.ts';
import { Remembered } from '../../../src/pki/revocation/remembered.ts';
import { keySigner } from '../../../src/pki/signer.ts';
import type { PeerAuth } from '../../../src/pki/types.ts';
import { pathVerifier, type VerifierOptions } from '../../../src/pki/verifier.ts';
import { authority, DAY, dns, ecKey, extension, type Made, make, makeCrl, NOW, type Recipe, uri } from '../make.ts';
import { lists, makeOcsp, responders, revokedFor, UNKNOWN } from '../make-ocsp.ts';

const LIST = 'http://pki.example/root.crl';
const OCSP = 'http://ocsp.example/';
const root = authority('O=Example, CN=Root');
const serial = Uint8Array.of(0x47, 0x11);
const gateway = (recipe: Partial<Recipe> = {}): Made =>
  make({ subject: 'O=Example, CN=gw1', issuer: root, serial, san: [dns('gw1.example')], ...recipe });
const withList = gateway({ extra: [lists(LIST)] });
const withOcsp = gateway({ extra: [responders(OCSP)] });
const withBoth = gateway({ extra: [lists(LIST), responders(OCSP)] });
const octets = utf8('what both sides sign');

type Answer = Uint8Array | Error | ((request: FetchRequest) => Promise<Uint8Array>);

/** The network, the time, and a verifier that asks. */
class World {
  readonly asked: string[] = [];
  readonly failures: string[] = [];
  readonly pages: Map<string, Answer> = new Map();
  now: number = NOW;
  readonly #online = new OnlineRevocation({
    fetch: async (request) => {
      this.asked.push(request.url);
      const answer = this.pages.get(request.url) ?? new Error('it answers with 404; 200 is required');
      if (answer instanceof Error) throw answer;
      return answer instanceof Uint8Array ? answer : await answer(request);
    },
    onFailure: (text) => void this.failures.push(text),
  });

  constructor(pages: Readonly<Record<string, Answer>> = {}) {
    for (const [url, answer] of Object.entries(pages)) this.pages.set(url, answer);
  }

  /** `ok`, or reason and detail. */
  async judge(made: Made, more: Partial<VerifierOptions> = {}, auth: Partial<PeerAuth> = {}): Promise<string> {
    const signer = keySigner(made.key);
    const [method] = signer.methods;
    const verifier = pathVerifier({
      anchors: [parseCertificate(root.der)],
      crlPolicy: 'strict',
      online: { through: this.#online, ocsp: true, lists: true },
      ...more,
    });
    const verdict = await verifier.verify({
      certificates: [made.der],
      crls: [],
      id: identityFromText('fqdn', 'gw1.example'),
      authMethod: method!.authMethod,
      algorithm: method!.algorithm,
      signature: await signer.sign(method!, octets),
      octets,
      now: this.now,
      ...auth,
    });
    return verdict.ok ? 'ok' : `${verdict.reason}: ${verdict.detail}`;
  }

  /** What strict says and, with the same answers, ifpresent. */
  async both(made: Made): Promise<[string, string]> {
    return [await this.judge(made), await this.judge(made, { crlPolicy: 'ifpresent' })];
  }
}

const ocsp = (more: object = {}): Uint8Array => makeOcsp({ issuer: root, serial, ...more });
const crl = (more: object = {}): Uint8Array => makeCrl({ issuer: root, ...more });

describe('a list that is fetched', () => {
  it('accepts or refuses', async () => {
    expect(await new World({ [LIST]: crl() }).judge(withList)).toBe('ok');
    const gone = new World({ [LIST]: crl({ revoked: [serial] }) });
    const refusal = "revoked: 'O=Example, CN=gw1' was revoked since 2026-05-31: no reason given";
    expect(await gone.both(withList)).toEqual([refusal, refusal]);
    expect(gone.asked).toEqual([LIST]);
    expect(gone.failures).toEqual([]);
  });

  it('may be PEM, as it is made by hand', async () => {
    const text = `-----BEGIN X509 CRL-----\n${Buffer.from(crl()).toString('base64')}\n-----END X509 CRL-----\n`;
    expect(await new World({ [LIST]: utf8(text) }).judge(withList)).toBe('ok');
  });

  it('is kept until the next one is to come, and a day at most', async () => {
    const world = new World({ [LIST]: crl({ nextUpdate: NOW + 3 * DAY }) });
    for (const later of [0, 1, DAY - 2]) {
      world.now = NOW + later;
      expect(await world.judge(withList)).toBe('ok');
    }
    expect(world.asked).toHaveLength(1);
    world.now = NOW + DAY;
    world.pages.set(LIST, crl({ nextUpdate: NOW + 3 * DAY, revoked: [serial] }));
    expect(await world.judge(withList)).toMatch(/^revoked/);
    expect(world.asked).toHaveLength(2);
    const short = new World({ [LIST]: crl({ nextUpdate: NOW + DAY / 2 }) });
    await short.judge(withList);
    short.now = NOW + DAY / 2;
    await short.judge(withList);
    expect(short.asked).toHaveLength(2);
  });

  it('stays in use while it is valid when the next cannot be fetched; then strict refuses every peer', async () => {
    const world = new World({ [LIST]: crl({ nextUpdate: NOW + 2 * DAY }) });
    expect(await world.judge(withList)).toBe('ok');
    world.pages.set(LIST, new Error('connect ECONNREFUSED'));
    world.now = NOW + DAY;
    expect(await world.judge(withList)).toBe('ok');
    expect(world.failures).toEqual([`${LIST}: connect ECONNREFUSED`]);
    world.now = NOW + 2 * DAY + 3_600_000;
    expect(await world.both(withList)).toEqual([
      "revocation-unknown: whether 'O=Example, CN=gw1' was revoked is not known: it names no OCSP responder with an http: address; " +
        `${LIST}: connect ECONNREFUSED; there is no revocation list of its issuer (policy='strict')`,
      'ok',
    ]);
  });

  it.each<[string, Answer, RegExp]>([
    ['cannot be had', new Error('there was no whole answer within 5 s'), /within 5 s/],
    ['is none', utf8('<html>'), /not a usable revocation list/],
    ['is of another authority', makeCrl({ issuer: authority('CN=Other') }), /is from 'CN=Other', not from/],
    ['is of another key', crl({ signingKey: ecKey() }), /its signature is wrong/],
    ['is out of date', crl({ nextUpdate: NOW - DAY }), /expired on/],
    ['is of tomorrow', crl({ thisUpdate: NOW + DAY }), /in the future/],
    ['is a delta', crl({ extensions: [extension('551d1b', true, fromHex('020101'))] }), /a delta list/],
    ['is indirect', crl({ extensions: [extension('551d1c', true, fromHex('30038401ff'))] }), /an indirect list/],
    [
      'is for others',
      crl({ extensions: [extension('551d1c', true, fromHex('30038201ff'))] }),
      /for other certificates/,
    ],
  ])('that %s says nothing, and strict refuses for that', async (_, page, why) => {
    const world = new World({ [LIST]: page });
    const [strict, ifpresent] = await world.both(withList);
    expect(strict).toMatch(/^revocation-unknown/);
    expect(strict).toMatch(why);
    expect(ifpresent).toBe('ok');
    expect(world.asked).toEqual([LIST]);
  });

  it('that failed is not repeated for half a minute', async () => {
    const world = new World();
    for (const later of [0, 1, 29_999]) {
      world.now = NOW + later;
      expect(await world.judge(withList)).toMatch(/^revocation-unknown: .*answers with 404/);
    }
    expect(world.asked).toHaveLength(1);
    expect(world.failures).toHaveLength(1);
    world.pages.set(LIST, crl());
    world.now = NOW + 30_000;
    expect(await world.judge(withList)).toBe('ok');
    // Nor does a clock that is set back make the failure last.
    const other = new World();
    await other.judge(withList);
    other.pages.set(LIST, crl());
    other.now = NOW - 3_600_000;
    expect(await other.judge(withList)).toBe('ok');
  });

  it('is looked for in two places at most, and none that is not http', async () => {
    const [a, b, c] = ['a', 'b', 'c'].map((name) => `http://${name}.example/x.crl`);
    const made = gateway({
      extra: [lists('ldap://l.example/cn=x', 'https://s.example/', 'file:///etc/x', a!, b!, c!)],
    });
    const world = new World({ [b!]: crl() });
    expect(await world.judge(made)).toBe('ok');
    expect(world.asked).toEqual([a, b]);
    const last = new World({ [c!]: crl() });
    expect(await last.judge(made)).toMatch(/^revocation-unknown/);
    const other = new World();
    expect(await other.judge(gateway({ extra: [lists('https://s.example/x.crl')] }))).toMatch(
      /it names no list with an http: address; other addresses are not used/,
    );
    expect(await other.judge(gateway({ extra: [lists(`http://${'x'.repeat(1_020)}/`)] }))).toMatch(/names no list/);
    expect(other.asked).toEqual([]);
  });

  it('of one place may be of two authorities, and none speaks for the other', async () => {
    const twin = authority('O=Example, CN=Root');
    const world = new World({ [LIST]: crl() });
    const anchors = [parseCertificate(twin.der)];
    expect(await world.judge(withList)).toBe('ok');
    expect(await world.judge(gateway({ issuer: twin, extra: [lists(LIST)] }), { anchors })).toMatch(
      /^revocation-unknown: .*its signature is wrong/,
    );
    expect(world.asked).toHaveLength(2);
  });

  it('is asked for where the certificate says that it is, and where it says nothing nothing is', async () => {
    const point = extension('551d1c', true, derElement(0x30, derElement(0xa0, derElement(0xa0, uri(LIST)))));
    expect(await new World({ [LIST]: crl({ extensions: [point] }) }).judge(withList)).toBe('ok');
    const nothing = new World();
    expect(await nothing.both(gateway())).toEqual([
      expect.stringMatching(/names no OCSP responder.*names no list/),
      'ok',
    ]);
    const senseless = gateway({
      extra: ['551d1f', '2b06010505070101'].map((oid) => extension(oid, false, utf8('nonsense'))),
    });
    expect(await nothing.judge(senseless)).toMatch(/names no OCSP responder.*names no list/);
    expect(nothing.asked).toEqual([]);
  });
});

describe('an OCSP responder', () => {
  it('is asked with POST, and accepts or refuses', async () => {
    const requests: FetchRequest[] = [];
    const world = new World({
      [OCSP]: (request) => {
        requests.push(request);
        return Promise.resolve(ocsp());
      },
    });
    expect(await world.judge(withOcsp)).toBe('ok');
    expect(requests).toMatchObject([
      { accept: 'application/ocsp-response', maxBytes: 65_536, body: { type: 'application/ocsp-request' } },
    ]);
    const gone = new World({ [OCSP]: ocsp({ status: revokedFor(1) }) });
    const refusal = "revoked: 'O=Example, CN=gw1' was revoked since 2026-05-31: its key was stolen";
    expect(await gone.both(withOcsp)).toEqual([refusal, refusal]);
  });

  it.each<[string, Answer, RegExp]>([
    ['cannot be reached', new Error('connect ECONNREFUSED'), /ocsp.example\/: connect ECONNREFUSED/],
    ['does not know the certificate', ocsp({ status: UNKNOWN }), /responder does not know the certificate/],
    ['is not believed', ocsp({ signingKey: ecKey() }), /response was not signed by/],
    ['gives an old answer', ocsp({ nextUpdate: NOW - DAY }), /expired on/],
  ])('that %s leaves it to the list, and without one strict refuses', async (_, page, why) => {
    const [strict, ifpresent] = await new World({ [OCSP]: page }).both(withOcsp);
    expect(strict).toMatch(/^revocation-unknown/);
    expect(strict).toMatch(why);
    expect(ifpresent).toBe('ok');
    expect(await new World({ [OCSP]: page, [LIST]: crl() }).judge(withBoth)).toBe('ok');
    expect(await new World({ [OCSP]: page, [LIST]: crl({ revoked: [serial] }) }).judge(withBoth)).toMatch(/^revoked/);
  });

  it('that knows saves the list; its answer is kept while it holds, for that certificate alone', async () => {
    const world = new World({ [OCSP]: ocsp({ nextUpdate: NOW + DAY }) });
    expect(await world.judge(withBoth)).toBe('ok');
    world.now = NOW + DAY - 1;
    expect(await world.judge(withBoth)).toBe('ok');
    expect(world.asked).toEqual([OCSP]);
    const other = gateway({ serial: Uint8Array.of(0x47, 0x12), extra: [responders(OCSP)] });
    expect(await world.judge(other)).toMatch(/^revocation-unknown: .*about other certificates/);
    expect(world.asked).toEqual([OCSP, OCSP]);
    // One that may be another at any time is kept for a minute.
    const fresh = new World({ [OCSP]: ocsp({ nextUpdate: null }) });
    for (const later of [0, 59_999, 60_000]) {
      fresh.now = NOW + later;
      expect(await fresh.judge(withOcsp)).toBe('ok');
    }
    expect(fresh.asked).toHaveLength(2);
  });

  it('is asked although the peer sent a list along that does not have it: that may be an old one', async () => {
    const before = { crls: [crl()] };
    const world = new World({ [OCSP]: ocsp({ status: revokedFor(0) }) });
    expect(await world.judge(withOcsp, {}, before)).toMatch(/^revoked/);
    // And where nobody can be asked the list is what is known.
    expect(await new World().judge(withOcsp, {}, before)).toBe('ok');
  });
});

describe('nothing is fetched', () => {
  const pages = { [OCSP]: ocsp(), [LIST]: crl() };
  it.each<[string, Partial<VerifierOptions>, Partial<PeerAuth>, RegExp]>([
    ['for a path that is not trusted', { anchors: [parseCertificate(authority('CN=Other').der)] }, {}, /^untrusted/],
    [
      'for an identity that the certificate does not prove',
      {},
      { id: identityFromText('fqdn', 'gw2.example') },
      /^identity-mismatch/,
    ],
    ['for a name that is not let in', { allowedDns: ['CN=other'] }, {}, /^not-allowed/],
    ['for who does not have the key of the certificate', {}, { signature: new Uint8Array(64) }, /^bad-signature/],
    [
      'for who does not have the key, and no list of his own is read',
      { online: undefined },
      { signature: new Uint8Array(64), crls: [crl({ revoked: [serial] })] },
      /^bad-signature/,
    ],
    ['for who is revoked by a list at hand', {}, { crls: [crl({ revoked: [serial] })] }, /^revoked/],
    ['where the document does not want it', { online: undefined }, {}, /^revocation-unknown/],
  ])('%s', async (_, options, auth, why) => {
    const world = new World(pages);
    expect(await world.judge(withBoth, options, auth)).toMatch(why);
    expect(world.asked).toEqual([]);
  });

  it('but what the document wants', async () => {
    const world = new World(pages);
    const through = new OnlineRevocation({
      fetch: ({ url }) => {
        world.asked.push(url);
        return Promise.resolve(url === OCSP ? ocsp() : crl());
      },
    });
    expect(await world.judge(withBoth, { online: { through, ocsp: false, lists: true } })).toBe('ok');
    expect(world.asked).toEqual([LIST]);
    expect(await world.judge(withBoth, { online: { through, ocsp: true, lists: false } })).toBe('ok');
    expect(world.asked).toEqual([LIST, OCSP]);
  });
});

describe('the certificates of a path', () => {
  const MIDDLE = 'http://pki.example/middle.crl';
  const own = Uint8Array.of(0x22);
  const middle = authority('CN=Middle', { issuer: root, serial: own, extra: [lists(LIST)] });
  const end = gateway({ issuer: middle, extra: [lists(MIDDLE)] });
  const chain = { certificates: [end.der, middle.der] };

  it('are all looked at, at the same time', async () => {
    let answer: (() => void)[] = [];
    const later = (der: Uint8Array) => () => new Promise<Uint8Array>((resolve) => answer.push(() => resolve(der)));
    const world = new World({ [LIST]: later(crl()), [MIDDLE]: later(makeCrl({ issuer: middle })) });
    const verdict = world.judge(end, {}, chain);
    await expect.poll(() => world.asked).toEqual([MIDDLE, LIST]);
    for (const give of answer) give();
    expect(await verdict).toBe('ok');
    answer = [];
  });

  it('are refused for the one that was revoked', async () => {
    const world = new World({ [LIST]: crl({ revoked: [own] }) });
    expect(await world.judge(end, {}, chain)).toMatch(/^revoked: 'CN=Middle' was revoked/);
    const ending = new World({ [LIST]: crl() });
    expect(await ending.judge(end, {}, chain)).toMatch(/^revocation-unknown: whether 'O=Example, CN=gw1'/);
  });
});

it('a peer that waits for a fetch does not delay others, and many wait for one fetch', async () => {
  let give: (() => void) | undefined;
  const world = new World({ [OCSP]: () => new Promise((resolve) => (give = () => resolve(ocsp()))), [LIST]: crl() });
  const waiting = Array.from({ length: 50 }, () => world.judge(withOcsp));
  await expect.poll(() => give).toBeDefined();
  expect(await world.judge(withList)).toBe('ok');
  expect(world.asked).toEqual([OCSP, LIST]);
  give!();
  expect(await Promise.all(waiting)).toEqual(Array(50).fill('ok'));
  expect(world.asked).toEqual([OCSP, LIST]);
});

describe('what is remembered', () => {
  const lasting = (value: string, bytes: number) => () =>
    Promise.resolve({ value, bytes, freshUntil: NOW + DAY, usableUntil: NOW + DAY });
  const never = (): Promise<never> => Promise.reject(new Error('not remembered'));

  it('is bounded in number and size: what was used least is forgotten', async () => {
    const few = new Remembered<string>(3, 1_000);
    for (const key of ['a', 'b', 'c']) await few.get(key, NOW, lasting(key, 1));
    await few.get('a', NOW, never);
    await few.get('d', NOW, lasting('d', 1));
    expect(await few.get('a', NOW, never)).toBe('a');
    await expect(few.get('b', NOW, never)).rejects.toThrow('not remembered');
    const small = new Remembered<string>(100, 1_000);
    await small.get('a', NOW, lasting('a', 600));
    await small.get('b', NOW, lasting('b', 600));
    await expect(small.get('a', NOW, never)).rejects.toThrow('not remembered');
    expect(await small.get('b', NOW, never)).toBe('b');
    // The same anew is not counted twice.
    const anew = (now: number) => () =>
      Promise.resolve({ value: 'b', bytes: 600, freshUntil: now + 1, usableUntil: now + DAY });
    for (let now = NOW + DAY; now < NOW + DAY + 10; now++) await small.get('b', now, anew(now));
    await small.get('c', NOW, lasting('c', 400));
    expect(await small.get('b', NOW + DAY + 9, never)).toBe('b');
  });

  it('is fetched for a bounded number at once', async () => {
    const busy = new Remembered<string>(10, 1_000);
    const forever = (): Promise<never> => new Promise(() => undefined);
    for (let at = 0; at < 256; at++) void busy.get(String(at), NOW, forever);
    await expect(busy.get('more', NOW, lasting('more', 1))).rejects.toThrow('too much is being fetched already');
  });
});
