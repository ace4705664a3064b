/**
 * Whether a set-up in fragments (RFC 7383) completes when one datagram in ten is lost, whatever the seed: two endpoints
 * with the retransmission that is their default, over a simulated network with a virtual clock.
 */
import { decodeMessage } from '../src/ike/wire/message.ts';
import { lossySetUp } from '../test/support/ike-fragmented.ts';
import type { Pair } from '../test/support/ike-pair.ts';
import type { BenchOptions, BenchReport, BenchRow } from './row.ts';

const LOSS = 0.1;
/** Fragments that IKE_AUTH has at least, in each direction: one P-256 certificate, an RSA chain, an unusually long chain. */
const SIZES = [3, 8, 30] as const;
const QUICK_SEEDS = 20;

/** For each size so many seeds; a set-up that does not complete is a failure. */
export async function fragmentsBench({ seeds, quick }: BenchOptions): Promise<BenchReport> {
  const wanted = quick ? QUICK_SEEDS : seeds;
  const [rows, failures, lines]: [BenchRow[], string[], string[]] = [[], [], []];
  for (const least of SIZES) {
    let [complete, fragments] = [0, 0];
    for (let seed = 1; seed <= wanted; seed++) {
      const pair = lossySetUp(seed, least, LOSS);
      fragments = Math.max(fragments, mostFragments(pair));
      if (isComplete(pair)) complete++;
      else failures.push(`seed ${seed}, ${least} fragments: the set-up did not complete`);
    }
    rows.push({ name: `fragments/${least}/complete`, value: complete, unit: `of ${wanted}` });
    lines.push(
      `IKE_AUTH in ${fragments} fragments, ${LOSS * 100} % of all datagrams lost: ${complete} of ${wanted} complete`,
    );
  }
  return { rows, failures, text: lines.join('\n') };
}

/** Both have one IKE SA with one CHILD SA, the same. */
function isComplete({ a, b }: Pair): boolean {
  const [mine, theirs] = [a, b].map(({ endpoint }) => endpoint.status().filter(({ state }) => state === 'established'));
  const [left, right] = [mine?.[0]?.children[0], theirs?.[0]?.children[0]];
  return mine?.length === 1 && theirs?.length === 1 && left !== undefined && left.spiIn === right?.spiOut;
}

function mostFragments({ sent }: Pair): number {
  return Math.max(...sent.map(({ data }) => decodeMessage(data).protectedPart?.fragment?.total ?? 1));
}
