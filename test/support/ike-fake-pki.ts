/** Authorities, certificates and signatures that are just enough for IKE_AUTH: Ed25519 without X.509. */
import { createHash, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';
import { expect } from 'vitest';
import { concatBytes, equalBytes, fromHex } from '../../src/base/bytes.ts';
import { type Identity, identityFromText, sameIdentity } from '../../src/base/identity.ts';
import type { AuthMethod, ConnectionConfig } from '../../src/ike/config.ts';
import type { SignatureAnswer, VerificationAnswer } from '../../src/ike/events.ts';
import { AuthMethodId } from '../../src/ike/wire/iana.ts';
import { expectNothing } from './ike-expect.ts';
import { connection, type Host, mirrored, Pair, type Pki } from './ike-pair.ts';

export const ED25519: Uint8Array = fromHex('300506032b6570');

interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

const raw = (key: KeyObject): Uint8Array => new Uint8Array(key.export({ type: 'spki', format: 'der' }));
const KEY = 44;
const SIGNATURE = 64;

export class Authority {
  readonly #keys: KeyPair = generateKeyPairSync('ed25519');
  /** What stands in CERTREQ. */
  readonly hash: Uint8Array = new Uint8Array(createHash('sha1').update(raw(this.#keys.publicKey)).digest());

  /** The public key of `subject`, its identity, and our signature of both. */
  issue(subject: KeyObject, { type, data }: Identity): Uint8Array {
    const body = concatBytes(raw(subject), Uint8Array.of(type), data);
    return concatBytes(new Uint8Array(sign(null, body, this.#keys.privateKey)), body);
  }

  issued(certificate: Uint8Array): boolean {
    const body = certificate.subarray(SIGNATURE);
    return verify(null, body, this.#keys.publicKey, certificate.subarray(0, SIGNATURE));
  }
}

/** A host with a certificate of an authority, which believes those who have one of `trusts`. */
export class FakePki implements Pki {
  readonly keys: KeyPair = generateKeyPairSync('ed25519');
  certificates: readonly Uint8Array[];
  readonly #trusts: Authority;

  constructor(authority: Authority, id: Identity, trusts: Authority = authority) {
    this.certificates = [authority.issue(this.keys.publicKey, id)];
    this.#trusts = trusts;
  }

  sign({ octets }: { readonly octets: Uint8Array }): Extract<SignatureAnswer, { readonly ok: true }> {
    return {
      ok: true,
      authMethod: AuthMethodId.DIGITAL_SIGNATURE,
      algorithm: ED25519,
      signature: new Uint8Array(sign(null, octets, this.keys.privateKey)),
      certificates: this.certificates,
    };
  }

  verify({ auth }: Parameters<Pki['verify']>[0]): VerificationAnswer {
    const [certificate] = auth.certificates;
    const refuse = (reason: string, detail: string): VerificationAnswer => ({ ok: false, reason, detail });
    if (certificate === undefined) return refuse('no-certificate', 'none was sent');
    if (!this.#trusts.issued(certificate)) return refuse('not-trusted', 'issued by somebody else');
    const body = certificate.subarray(SIGNATURE);
    const named = { type: body[KEY]!, data: body.subarray(KEY + 1) };
    if (!sameIdentity(named, auth.id)) return refuse('identity-mismatch', 'the certificate is for another');
    if (auth.algorithm === undefined || !equalBytes(auth.algorithm, ED25519))
      return refuse('method-refused', 'Ed25519');
    const key = { key: Buffer.from(body.subarray(0, KEY)), type: 'spki', format: 'der' } as const;
    return verify(null, auth.octets, key, auth.signature) ? { ok: true } : refuse('bad-signature', 'of other octets');
  }
}

export const A: Identity = identityFromText('fqdn', 'a');
export const B: Identity = identityFromText('fqdn', 'b');
export const AUTHORITY: Authority = new Authority();

/** A and B, who trust one authority, and prove who they are as is said here. */
export function signing(a: AuthMethod, b: AuthMethod, change: Partial<ConnectionConfig> = {}): ConnectionConfig {
  const { local, remote } = connection();
  const authorities = [AUTHORITY.hash];
  return connection({
    local: { ...local, id: A, auth: a },
    remote: { ...remote, id: B, auth: b, authorities },
    ...change,
  });
}

/** The same as B has it, which trusts the same authority. */
export function turned(config: ConnectionConfig): ConnectionConfig {
  const other = mirrored(config);
  return { ...other, remote: { ...other.remote, authorities: [AUTHORITY.hash] } };
}

/** Two that have certificates. */
export function pairOf(a: AuthMethod, b: AuthMethod): Pair {
  const config = signing(a, b);
  const pair = new Pair({ a: config, b: turned(config) });
  pair.a.pki = new FakePki(AUTHORITY, A);
  pair.b.pki = new FakePki(AUTHORITY, B);
  return pair;
}

export const pkiOf = (host: Host): FakePki => host.pki as FakePki;

/** Nothing came up, and both know why. */
export function expectRefused(pair: Pair, who: Host, detail: RegExp, reason = 'AUTHENTICATION_FAILED'): void {
  for (const host of [pair.a, pair.b]) {
    expect(host.of('ike-up')).toEqual([]);
    expect(host.of('child-up')).toEqual([]);
  }
  expect(who.of('failed')).toMatchObject([{ reason, detail: expect.stringMatching(detail) }]);
  pair.run(200_000);
  expectNothing(pair);
}

export const questions = (host: Host): string[] =>
  host.events.map(({ type }) => type).filter((type) => type.startsWith('need'));
