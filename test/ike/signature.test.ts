/** Signatures in IKE_AUTH (RFC 7427, RFC 7296 §2.15): both roles, mixed with pre-shared keys, and every way down. */
import { describe, expect, it } from 'vitest';
import { fromHex } from '../../src/base/bytes.ts';
import { type Identity, identityFromText } from '../../src/base/identity.ts';
import type { AuthMethod, ConnectionConfig } from '../../src/ike/config.ts';
import { AuthMethodId, ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import { decodeMessage, encodePlain } from '../../src/ike/wire/message.ts';
import { findNotify, findPayload, type Payload } from '../../src/ike/wire/payload.ts';
import { expectNothing, expectSame } from '../support/ike-expect.ts';
import {
  A,
  AUTHORITY,
  Authority,
  B,
  ED25519,
  expectRefused,
  FakePki,
  pairOf,
  pkiOf,
  questions,
  signing,
  turned,
} from '../support/ike-fake-pki.ts';
import { child, connection, type Datagram, type Host, net, Pair } from '../support/ike-pair.ts';

const STRANGER = new Authority();
const { IKE_SA_INIT } = ExchangeType;
const { SIGNATURE_HASH_ALGORITHMS } = NotifyType;

describe('a set-up', () => {
  it.each([
    ['signature', 'signature', ['need-signature', 'need-verification'], ['need-verification', 'need-signature']],
    ['signature', 'psk', ['need-signature', 'need-secret'], ['need-verification', 'need-secret']],
    ['psk', 'signature', ['need-secret', 'need-verification'], ['need-secret', 'need-signature']],
    ['psk', 'psk', ['need-secret'], ['need-secret']],
  ] as const)('with %s here and %s there, from either side', (a, b, asked, answered) => {
    const pair = pairOf(a, b);
    pair.up();
    expectSame(pair, 1);
    expect(questions(pair.a)).toEqual(asked);
    expect(questions(pair.b)).toEqual(answered);
    const other = pairOf(b, a);
    other.up(other.b);
    expectSame(other, 1);
    expect(questions(other.b)).toEqual(asked);
  });

  it('asks for a signature and a verification, with everything that the peer sent', () => {
    const pair = pairOf('signature', 'signature');
    pair.up();
    const accepted = { authMethods: [14], hashes: [2, 3, 4, 5] };
    const [ours] = pair.a.of('need-signature');
    expect(ours).toMatchObject({ connection: 'net', localId: A, remoteId: B, accepted, authorities: [AUTHORITY.hash] });
    expect(pair.b.of('need-signature')).toMatchObject([
      { localId: B, remoteId: A, accepted, authorities: [AUTHORITY.hash] },
    ]);
    const [theirs] = pair.b.of('need-verification');
    expect(theirs).toMatchObject({
      connection: 'net',
      localId: B,
      auth: { certificates: pkiOf(pair.a).certificates, crls: [], id: A, authMethod: 14, algorithm: ED25519 },
    });
    expect(theirs!.auth.octets).toEqual(ours!.octets);
    // RFC 7296 §2.15: our own first message, as it went over the wire, comes first.
    const [init] = pair.sent;
    expect(ours!.octets.subarray(0, init!.data.length)).toEqual(init!.data);
  });

  it('sends hash algorithms and trusted authorities only where one side signs', () => {
    const said = (a: AuthMethod, b: AuthMethod): unknown[] => {
      const pair = pairOf(a, b);
      pair.up();
      return pair.sent.slice(0, 2).map(({ data }) => {
        const { payloads } = decodeMessage(data);
        return [findNotify(payloads, SIGNATURE_HASH_ALGORITHMS)?.data, findPayload(payloads, 'certreq')?.authorities];
      });
    };
    const hashes = fromHex('0002000300040005');
    const nothing = [undefined, undefined];
    expect(said('psk', 'psk')).toEqual([nothing, nothing]);
    expect(said('signature', 'psk')).toEqual([
      [hashes, undefined],
      [hashes, AUTHORITY.hash],
    ]);
    expect(said('psk', 'signature')).toEqual([
      [hashes, undefined],
      [hashes, undefined],
    ]);
  });

  it('with the largest chain that is looked at, ten certificates of 64 KiB in all: in fragments', () => {
    const pair = pairOf('signature', 'signature');
    const pki = pkiOf(pair.a);
    const sizes = [20_480, 20_480, ...new Array<number>(7).fill(3_000)];
    const left = 65_536 - 2 * 20_480 - 6 * 3_000 - pki.certificates[0]!.length;
    sizes[8] = left;
    const rest = sizes.map((size, i) => new Uint8Array(size).fill(i));
    pki.certificates = [...pki.certificates, ...rest];
    pair.up();
    pair.run(1_000);
    expectSame(pair, 1);
    expect(pair.b.of('need-verification')[0]!.auth.certificates).toEqual(pki.certificates);
  });

  it('is followed by rekeying, which asks the owner nothing', () => {
    const pair = pairOf('signature', 'signature');
    pair.up();
    const asked = questions(pair.a).length;
    pair.act(pair.a, (endpoint, now) => endpoint.rekeyIkeSa(now, pair.a.ikeSa.id));
    pair.run();
    expectSame(pair, 1);
    expect(questions(pair.a)).toHaveLength(asked);
  });
});

describe('a peer', () => {
  const REFUSED: readonly [string, RegExp, (pki: FakePki) => unknown][] = [
    ['without a certificate', /no certificate: none was sent/, (pki) => Object.assign(pki, { certificates: [] })],
    [
      'with a certificate of another authority',
      /not trusted: issued by somebody else/,
      (pki) => Object.assign(pki, { certificates: [STRANGER.issue(pki.keys.publicKey, A)] }),
    ],
    [
      'with a certificate for somebody else',
      /identity mismatch: the certificate is for another/,
      (pki) =>
        Object.assign(pki, { certificates: [AUTHORITY.issue(pki.keys.publicKey, identityFromText('fqdn', 'c'))] }),
    ],
    [
      'with the certificate of the one it claims to be, and another key',
      /bad signature/,
      (pki) => Object.assign(pki, { certificates: new FakePki(AUTHORITY, A).certificates }),
    ],
    [
      'that signed other octets',
      /bad signature: of other octets/,
      (pki) => {
        const sign = pki.sign.bind(pki);
        pki.sign = ({ octets }) => sign({ octets: octets.slice(1) });
      },
    ],
    [
      'whose signature is of the identity without what was said before',
      /bad signature/,
      (pki) => {
        const sign = pki.sign.bind(pki);
        pki.sign = ({ octets }) => sign({ octets: octets.slice(-32) });
      },
    ],
    [
      'that sent no signature at all',
      /signature wrong: it is empty/,
      (pki) => {
        const sign = pki.sign.bind(pki);
        pki.sign = (question) => ({ ...sign(question), signature: new Uint8Array(0) });
      },
    ],
    [
      'with eleven certificates',
      /11 certificates; no more than 10 are looked at/,
      (pki) => Object.assign(pki, { certificates: new Array(11).fill(pki.certificates[0]) }),
    ],
    [
      'with a certificate larger than 20 KiB',
      /a certificate of 20481 bytes; no more than 20480 are looked at/,
      (pki) => Object.assign(pki, { certificates: [new Uint8Array(20_481)] }),
    ],
    [
      'with certificates of more than 64 KiB in all',
      /certificates of 65537 bytes; no more than 65536 are looked at/,
      (pki) =>
        Object.assign(pki, { certificates: [20_000, 20_000, 20_000, 5_537].map((size) => new Uint8Array(size)) }),
    ],
  ];

  it.each(REFUSED)(
    '%s is refused as initiator: the responder says why, and asks for nothing of its own',
    (_, detail, spoil) => {
      const pair = pairOf('signature', 'signature');
      spoil(pkiOf(pair.a));
      pair.up();
      expect(pair.b.of('need-signature')).toEqual([]);
      expect(pair.a.of('failed')).toMatchObject([{ reason: 'AUTHENTICATION_FAILED' }]);
      expectRefused(pair, pair.b, detail);
    },
  );

  it.each(REFUSED)('%s is refused as responder: it is told, and its IKE SA goes', (_, detail, spoil) => {
    const config = signing('signature', 'signature');
    const pair = new Pair({ a: turned(config), b: config });
    pair.a.pki = new FakePki(AUTHORITY, B);
    pair.b.pki = new FakePki(AUTHORITY, A);
    spoil(pkiOf(pair.b));
    pair.up();
    expect(pair.a.of('ike-up')).toEqual([]);
    expect(pair.a.of('child-up')).toEqual([]);
    expect(pair.a.of('failed')).toMatchObject([
      { reason: 'AUTHENTICATION_FAILED', detail: expect.stringMatching(detail) },
    ]);
    expect(pair.b.of('ike-down')).toMatchObject([{ reason: 'failed' }]);
    pair.run(200_000);
    expectNothing(pair);
  });

  it('that signs where a pre-shared key is wanted, or has one where it is to sign, is refused', () => {
    const meet = (theirs: AuthMethod, wanted: AuthMethod): Pair => {
      const pair = new Pair({ a: signing(theirs, 'signature'), b: turned(signing(wanted, 'signature')) });
      pair.a.pki = new FakePki(AUTHORITY, A);
      pair.b.pki = new FakePki(AUTHORITY, B);
      pair.up();
      return pair;
    };
    const signed = meet('signature', 'psk');
    expectRefused(signed, signed.b, /method not allowed: it authenticates with \w+; a pre-shared key is required/);
    const shared = meet('psk', 'signature');
    expectRefused(shared, shared.b, /method not allowed: SHARED_KEY; DIGITAL_SIGNATURE was agreed on/);
  });

  it('that answers with a key where it is to sign, or signs where a key is wanted, is refused', () => {
    const meet = (wanted: AuthMethod, theirs: AuthMethod): Pair => {
      const pair = new Pair({ a: signing('signature', wanted), b: turned(signing('signature', theirs)) });
      pair.a.pki = new FakePki(AUTHORITY, A);
      pair.b.pki = new FakePki(AUTHORITY, B);
      pair.up();
      expect(pair.a.of('ike-up')).toEqual([]);
      pair.run(200_000);
      expectNothing(pair);
      return pair;
    };
    const detail = (text: string): unknown[] => [
      { reason: 'AUTHENTICATION_FAILED', detail: expect.stringContaining(text) },
    ];
    expect(meet('signature', 'psk').a.of('failed')).toMatchObject(detail('method not allowed: SHARED_KEY'));
    const signed = meet('psk', 'signature').a.of('failed');
    expect(signed).toMatchObject(
      detail('method not allowed: it authenticates with DIGITAL_SIGNATURE; a pre-shared key'),
    );
  });

  it('that authenticates another identity than the required one is refused, whatever its certificate says', () => {
    const c = identityFromText('fqdn', 'c');
    const { remote } = signing('signature', 'signature');
    const config = signing('signature', 'signature', { remote: { ...remote, id: undefined } });
    const pair = new Pair({ a: signing('signature', 'signature'), b: turned(config) });
    pair.b.endpoint.replaceConnection({ ...turned(config), local: { ...turned(config).local, id: c } });
    pair.a.pki = new FakePki(AUTHORITY, A);
    pair.b.pki = new FakePki(AUTHORITY, c);
    pair.up();
    expectRefused(pair, pair.b, /asks for fqdn b/);
  });
});

describe('what a man in the middle changes of IKE_SA_INIT', () => {
  const change = (pair: Pair, of: Host, edit: (payloads: readonly Payload[]) => readonly Payload[]): void => {
    pair.filter = (datagram: Datagram) => {
      const { header, payloads } = decodeMessage(datagram.data);
      if (datagram.from === of && header.exchange === IKE_SA_INIT) datagram.data = encodePlain(header, edit(payloads));
      return 'deliver';
    };
  };
  const withoutHashes = (payloads: readonly Payload[]): readonly Payload[] =>
    payloads.filter((payload) => payload.type !== 'notify' || payload.notify !== SIGNATURE_HASH_ALGORITHMS);

  it('shows in what the initiator signed: no way down to the old methods', () => {
    const pair = pairOf('signature', 'signature');
    change(pair, pair.a, withoutHashes);
    // Both are made to believe that the other has the old methods alone, and use one that ours would take.
    for (const host of [pair.a, pair.b]) {
      const sign = pkiOf(host).sign.bind(host.pki);
      pkiOf(host).sign = (question) => ({ ...sign(question), authMethod: AuthMethodId.ECDSA_SHA256_P256 });
      pkiOf(host).verify = ({ auth }) =>
        FakePki.prototype.verify.call(host.pki, { auth: { ...auth, algorithm: ED25519 } } as never);
    }
    pair.up();
    expect(pair.a.of('need-signature')).toMatchObject([{ accepted: { authMethods: [1, 9, 10, 11], hashes: [] } }]);
    expectRefused(pair, pair.b, /bad signature: of other octets/);
  });

  it('shows in what the responder signed', () => {
    const pair = pairOf('psk', 'signature');
    change(pair, pair.b, (payloads) => [...payloads, { type: 'certreq', encoding: 4, authorities: STRANGER.hash }]);
    pair.up();
    expect(pair.a.of('failed')).toMatchObject([{ detail: expect.stringContaining('bad signature') }]);
    expect(pair.a.of('ike-up')).toEqual([]);
    pair.run(200_000);
    expectNothing(pair);
  });
});

describe('tunnels between the same addresses', () => {
  const C = identityFromText('fqdn', 'c');

  /** B knows A by its certificate, C by another, and anybody with the pre-shared key as a guest. */
  function meet(id: Identity, auth: AuthMethod, pki: FakePki): Pair {
    const config = signing(auth, 'signature');
    const { local, remote } = turned(signing('signature', 'signature'));
    const forPeer = (name: string, at: number, change: Partial<ConnectionConfig['remote']>): ConnectionConfig =>
      connection({
        name,
        local,
        remote: { ...remote, ...change },
        children: [child(name, { selectors: { local: [net(`10.2.${at}.0/24`)], remote: [net(`10.1.${at}.0/24`)] } })],
      });
    const selectors = { local: [net('10.1.0.0/16')], remote: [net('10.2.0.0/16')] };
    const a = connection({ ...config, local: { ...config.local, id }, children: [child('c', { selectors })] });
    const b = [
      forPeer('guest', 3, { id: undefined, auth: 'psk' }),
      forPeer('for-a', 1, { id: A }),
      forPeer('for-c', 2, { id: C }),
    ];
    const pair = new Pair({ a, b });
    pair.a.pki = pki;
    pair.b.pki = new FakePki(AUTHORITY, B);
    pair.up();
    return pair;
  }

  it.each([
    ['for-a', A, 'signature'],
    ['for-c', C, 'signature'],
    ['guest', identityFromText('fqdn', 'd'), 'psk'],
  ] as const)('are told apart by who proves to be whom: %s', (name, id, auth) => {
    const pair = meet(id, auth, new FakePki(AUTHORITY, id));
    expect(pair.b.child.connection).toBe(name);
    expect(pair.b.child.config.name).toBe(name);
    expect(pair.b.events.filter((event) => 'requestId' in event && event.connection !== name)).toEqual([]);
  });

  it('give nothing to a peer with the identity of one and the certificate of the other', () => {
    const pair = meet(C, 'signature', new FakePki(AUTHORITY, A));
    expect(pair.b.of('need-verification')).toMatchObject([{ connection: 'for-c', auth: { id: C } }]);
    expectRefused(pair, pair.b, /identity mismatch/);
    expect(pair.b.of('failed')).toMatchObject([{ connection: 'for-c' }]);
  });
});

describe('what an attempt that is refused leaves alone', () => {
  it('an IKE SA that is up, though the newcomer says INITIAL_CONTACT', () => {
    const pair = pairOf('signature', 'signature');
    pair.up();
    const up = pair.b.ikeSa.id;
    pkiOf(pair.a).certificates = [STRANGER.issue(pkiOf(pair.a).keys.publicKey, A)];
    pair.a.restart(signing('signature', 'signature'));
    pair.up();
    expect(pair.b.of('failed')).toMatchObject([{ detail: expect.stringContaining('not trusted') }]);
    expect(pair.b.ikeSa.id).toBe(up);
    expect(pair.b.children.size).toBe(1);
  });
});
