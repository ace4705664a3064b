/**
 * Complete set-ups a second: IKE_SA_INIT and IKE_AUTH with a pre-shared key and the first CHILD SA, both endpoints in
 * one process on one core, X25519 and AES-GCM, `node` provider: each figure is the work of an initiator and of a
 * responder together, with no network between them.
 *
 * Each set-up is taken down again before the next one, outside of the time that is measured; `handshake/psk/whole`
 * has the delete exchange in it. `handshake-signed.ts` measures the same with certificates.
 */
import { parseAddress } from '../src/base/address.ts';
import { identityFromText } from '../src/base/identity.ts';
import { utf8 } from '../src/base/text.ts';
import { nodeProvider } from '../src/crypto/node/provider.ts';
import { parseEspProposalString, parseIkeProposalString } from '../src/crypto/proposal-text.ts';
import type { ConnectionConfig } from '../src/ike/config.ts';
import { IkeEndpoint } from '../src/ike/endpoint.ts';
import { anySelector } from '../src/policy/selector.ts';
import { signedHandshakes } from './handshake-signed.ts';
import type { BenchRow } from './row.ts';
import { median } from './stats.ts';

const ROUNDS = 5;
const ROUND_MS = 1_000;
const WARM_UP = 1_000;
const SECRET = utf8('a secret of some length');

/** The medians of rounds of a second each. */
export async function handshakeBench(): Promise<BenchRow[]> {
  const { webcrypto } = await import('node:crypto');
  const random = (length: number): Uint8Array => webcrypto.getRandomValues(new Uint8Array(length));
  const [a, b] = [0, 1].map(() => new IkeEndpoint({ crypto: nodeProvider, random })) as [IkeEndpoint, IkeEndpoint];
  a.addConnection(connection('a', 'b'));
  b.addConnection(connection('b', 'a'));
  let count = 0;
  while (count < WARM_UP) setUp(a, b, count++);
  const bare: number[] = [];
  const whole: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const first = count;
    const start = performance.now();
    let spent = 0;
    while (performance.now() - start < ROUND_MS) spent += setUp(a, b, count++);
    bare.push(((count - first) * 1_000) / spent);
    whole.push(((count - first) * 1_000) / (performance.now() - start));
  }
  return [
    { name: 'handshake/psk', value: median(bare), unit: '1/s', rounds: bare },
    { name: 'handshake/psk/whole', value: median(whole), unit: '1/s', rounds: whole },
    ...(await signedHandshakes(connection)),
  ];
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

/**
 * Brings one up, checks that it is, and takes it down again. Each has a minute of the endpoints' time for itself.
 * @returns milliseconds from the call that begins it until both sides have it
 */
function setUp(a: IkeEndpoint, b: IkeEndpoint, round: number): number {
  const now = round * 60_000;
  for (const endpoint of [a, b]) endpoint.handleTimeout(now);
  const start = performance.now();
  a.initiate(now, 'bench');
  exchange(a, b, now);
  const spent = performance.now() - start;
  for (const endpoint of [a, b]) if (endpoint.status()[0]?.children.length !== 1) throw new Error('the set-up failed');
  a.closeConnection(now, 'bench');
  exchange(a, b, now);
  return spent;
}

function exchange(a: IkeEndpoint, b: IkeEndpoint, now: number): void {
  while (drain(a, b, now) || drain(b, a, now));
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
