/**
 * Complete set-ups a second where both sides have certificates, each issued by the authority that the other trusts:
 * signatures of RFC 7427, paths validated anew each time, IKE_AUTH in fragments where it is too long.
 *
 * Signatures are made and verified on other threads, so a set-up waits more than it computes; what is measured is the
 * processor time of all threads, which is what a busy host has to give.
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
import type { BenchRow } from './row.ts';
import { median } from './stats.ts';

const ROUNDS = 5;
const ROUND_MS = 1_000;
const WARM_UP = 100;

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
        endpoint.answerVerification(now, event.requestId, await this.#verifier.verify({ ...event.proof, now: NOW }));
      } else if (event.type === 'failed') throw new Error(event.detail);
      asked = true;
    }
    return asked;
  }
}

/** @param configFor the connection of a side, to which only the certificates are added */
export async function signedHandshakes(
  configFor: (us: 'a' | 'b', them: 'a' | 'b') => ConnectionConfig,
): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const kind of KINDS) rows.push(await measure(kind, configFor('a', 'b'), configFor('b', 'a')));
  return rows;
}

async function measure({ name, newKey, algorithm }: Kind, a: ConnectionConfig, b: ConnectionConfig): Promise<BenchRow> {
  const root = authority('CN=root', { key: newKey(), algorithm });
  const verifier = pathVerifier({ anchors: [parseCertificate(root.der)] });
  const side = (config: ConnectionConfig, host: string): Side => {
    const { der, key } = make({ subject: `CN=${host}`, issuer: root, key: newKey(), algorithm, san: [dns(host)] });
    return new Side(config, { certificates: [der], signer: keySigner(key) }, verifier);
  };
  const sides = [side(a, 'a.example'), side(b, 'b.example')] as const;
  let count = 0;
  while (count < WARM_UP) await setUp(sides, count++);
  const rounds: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const first = count;
    const start = performance.now();
    let spent = 0;
    while (performance.now() - start < ROUND_MS) spent += await setUp(sides, count++);
    rounds.push(((count - first) * 1_000) / spent);
  }
  return { name: `handshake/${name}`, value: median(rounds), unit: '1/s', rounds };
}

/** Brings one up and takes it down again. @returns milliseconds of processor time until both sides have it */
async function setUp([a, b]: readonly [Side, Side], round: number): Promise<number> {
  const now = round * 60_000;
  for (const { endpoint } of [a, b]) endpoint.handleTimeout(now);
  const before = process.cpuUsage();
  a.endpoint.initiate(now, 'bench');
  await exchange(a, b, now);
  const { user, system } = process.cpuUsage(before);
  for (const { endpoint } of [a, b]) {
    if (endpoint.status()[0]?.children.length !== 1) throw new Error('the set-up failed');
  }
  a.endpoint.closeConnection(now, 'bench');
  await exchange(a, b, now);
  return (user + system) / 1_000;
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
