/**
 * For `handshake.ts`: set-ups where both sides have certificates, each issued by the authority that the other trusts, with
 * the signer and the verifier that the daemon has. Signatures of RFC 7427; IKE_AUTH in fragments where it is too long. As
 * with peers that come again, the certificates were seen before: they are neither read nor their signatures computed
 * anew, but all else of their path is looked at each time.
 */
import { generateKeyPairSync, type KeyObject, webcrypto } from 'node:crypto';
import { fromHex } from '../src/base/bytes.ts';
import { nodeProvider } from '../src/crypto/node/provider.ts';
import type { ConnectionConfig } from '../src/ike/config.ts';
import { IkeEndpoint } from '../src/ike/endpoint.ts';
import { parseCertificate } from '../src/pki/certificate.ts';
import { keySigner } from '../src/pki/signer.ts';
import type { Credentials, Verifier } from '../src/pki/types.ts';
import { pathVerifier } from '../src/pki/verifier.ts';
import { authority, dns, ECDSA_SHA256, ecKey, make, NOW } from '../test/pki/make.ts';
import type { Pair } from './handshake-run.ts';

interface Kind {
  readonly name: string;
  readonly newKey: () => KeyObject;
  readonly algorithm: { readonly der: Uint8Array; readonly hash: string };
}

const KINDS: readonly Kind[] = [
  { name: 'ecdsa-p256', newKey: ecKey, algorithm: { der: ECDSA_SHA256, hash: 'sha256' } },
  {
    name: 'rsa-2048',
    newKey: () => generateKeyPairSync('rsa', { modulusLength: 2_048 }).privateKey,
    algorithm: { der: fromHex('300d06092a864886f70d01010b0500'), hash: 'sha256' },
  },
];

class Side {
  readonly endpoint: IkeEndpoint = new IkeEndpoint({
    crypto: nodeProvider,
    random: (length) => webcrypto.getRandomValues(new Uint8Array(length)),
  });
  readonly #credentials: Credentials;
  readonly #verifier: Verifier;

  constructor(config: ConnectionConfig, credentials: Credentials, verifier: Verifier) {
    const { local, remote } = config;
    this.#credentials = credentials;
    this.#verifier = verifier;
    this.endpoint.addConnection({
      ...config,
      local: { ...local, auth: 'signature' },
      remote: { ...remote, auth: 'signature', authorities: verifier.authorities },
    });
  }

  /** Answers what is asked; returns whether anything was. */
  async answer(now: number): Promise<boolean> {
    const { endpoint } = this;
    let asked = false;
    for (let event = endpoint.pollEvent(); event !== undefined; event = endpoint.pollEvent()) {
      if (event.type === 'need-signature') {
        const { accepted, octets, requestId } = event;
        const { signer, certificates } = this.#credentials;
        const method = signer.methods.find(({ hash }) => hash !== undefined && accepted.hashes.includes(hash))!;
        const signature = await signer.sign(method, octets);
        endpoint.answerSignature(now, requestId, { ok: true, ...method, signature, certificates });
      } else if (event.type === 'need-verification') {
        endpoint.answerVerification(now, event.requestId, await this.#verifier.verify({ ...event.auth, now: NOW }));
      } else if (event.type === 'failed') throw new Error(event.detail);
      asked = true;
    }
    return asked;
  }
}

/** @param configFor the connection of a side, to which only the certificates are added */
export function signedPairs(configFor: (us: 'a' | 'b', them: 'a' | 'b') => ConnectionConfig): Pair[] {
  return KINDS.map((kind) => signedPair(kind, configFor('a', 'b'), configFor('b', 'a')));
}

function signedPair({ name, newKey, algorithm }: Kind, ours: ConnectionConfig, theirs: ConnectionConfig): Pair {
  const root = authority('CN=root', { key: newKey(), algorithm });
  const side = (config: ConnectionConfig, host: string): Side => {
    const { der, key } = make({ subject: `CN=${host}`, issuer: root, key: newKey(), algorithm, san: [dns(host)] });
    const verifier = pathVerifier({ anchors: [parseCertificate(root.der)] });
    return new Side(config, { certificates: [der], signer: keySigner(key) }, verifier);
  };
  const [a, b] = [side(ours, 'a.example'), side(theirs, 'b.example')];
  return {
    name: `handshake/${name}`,
    ends: [a.endpoint, b.endpoint],
    exchange: async (now) => await exchange(a, b, now),
  };
}

async function exchange(a: Side, b: Side, now: number): Promise<void> {
  for (;;) {
    const asked = [await a.answer(now), await b.answer(now)].includes(true);
    if (!carry(a, b, now) && !carry(b, a, now) && !asked) return;
  }
}

function carry(from: Side, to: Side, now: number): boolean {
  const out = from.endpoint.pollTransmit();
  if (out === undefined) return false;
  to.endpoint.handleDatagram(now, { local: out.path.remote, remote: out.path.local }, out.data);
  return true;
}
