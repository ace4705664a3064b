/**
 * Complete set-ups a second: IKE_SA_INIT and IKE_AUTH with the first CHILD SA, both endpoints in one process on one
 * core, X25519 and AES-GCM, `node` provider: each figure is the work of an initiator and of a responder together, with
 * no network between them. By a pre-shared key here, by certificates in `handshake-signed.ts`.
 *
 * The kinds take turns, so that what else the machine does falls on all of them. Each set-up is taken down again before
 * the next one, outside of the time that is measured. `/cpu` has the processor time of all threads of the process in the
 * place of the clock, which others on the machine do not change as much; `/whole` has the delete exchange in it.
 */
import { webcrypto } from 'node:crypto';
import { parseAddress } from '../src/base/address.ts';
import { identityFromText } from '../src/base/identity.ts';
import { utf8 } from '../src/base/text.ts';
import { nodeProvider } from '../src/crypto/node/provider.ts';
import { parseEspProposalString, parseIkeProposalString } from '../src/crypto/proposal-text.ts';
import type { ConnectionConfig } from '../src/ike/config.ts';
import { IkeEndpoint } from '../src/ike/endpoint.ts';
import { anySelector } from '../src/policy/selector.ts';
import { type Pair, Run } from './handshake-run.ts';
import { signedPairs } from './handshake-signed.ts';
import type { BenchRow } from './row.ts';

const ROUNDS = 5;
const ROUND_MS = 1_000;
const WARM_UP_MS = 500;
const SECRET = utf8('a secret of some length');

/** The medians of rounds of a second each. */
export async function handshakeBench(): Promise<BenchRow[]> {
  const runs = [pskPair(), ...signedPairs(connection)].map((pair) => new Run(pair));
  for (const run of runs) await run.measure(WARM_UP_MS);
  for (let round = 0; round < ROUNDS; round++) {
    for (const run of runs) run.keep(await run.measure(ROUND_MS));
  }
  return runs.flatMap((run) => run.rows());
}

function pskPair(): Pair {
  const random = (length: number): Uint8Array => webcrypto.getRandomValues(new Uint8Array(length));
  const [a, b] = [new IkeEndpoint({ crypto: nodeProvider, random }), new IkeEndpoint({ crypto: nodeProvider, random })];
  a.addConnection(connection('a', 'b'));
  b.addConnection(connection('b', 'a'));
  const exchange = (now: number): void => {
    while (drain(a, b, now) || drain(b, a, now));
  };
  return { name: 'handshake/psk', ends: [a, b], exchange };
}

function connection(us: 'a' | 'b', them: 'a' | 'b'): ConnectionConfig {
  const side = (name: 'a' | 'b') => ({
    address: parseAddress(name === 'a' ? '192.0.2.1' : '192.0.2.2')!,
    port: 500,
    natPort: 4500,
    id: identityFromText('fqdn', `${name}.example`),
    auth: 'psk' as const,
  });
  return {
    name: 'bench',
    local: side(us),
    remote: side(them),
    proposals: [parseIkeProposalString('aes256gcm16-prfsha256-x25519')],
    lifetime: { soft: 14_400_000, hard: 16_000_000, jitter: 60_000 },
    dpd: { interval: 30_000 },
    nat: { mode: 'auto', keepalive: 20_000 },
    children: [
      {
        name: 'net',
        mode: 'tunnel',
        proposals: [parseEspProposalString('aes256gcm16')],
        selectors: { local: [anySelector(4)], remote: [anySelector(4)] },
        lifetime: { soft: 3_600_000, hard: 4_000_000, jitter: 60_000 },
      },
    ],
  };
}

function drain(from: IkeEndpoint, to: IkeEndpoint, now: number): boolean {
  for (let event = from.pollEvent(); event !== undefined; event = from.pollEvent()) {
    if (event.type === 'need-secret') from.answerSecret(now, event.requestId, SECRET);
  }
  const out = from.pollTransmit();
  if (out === undefined) return false;
  to.handleDatagram(now, { local: out.path.remote, remote: out.path.local }, out.data);
  return true;
}
