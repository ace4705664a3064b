/**
 * `npm run bench -- soak` (as root): two daemons of ours under full load for minutes, with a CHILD rekey every 20
 * seconds. Memory, file descriptors and threads of both are looked at every ten seconds; they must not grow.
 */
import { readdirSync } from 'node:fs';
import { Lab } from '../test/support/lab/lab.ts';
import { missing } from '../test/support/lab/needs.ts';
import type { Ours } from '../test/support/lab/ours.ts';
import { type Background, waitFor } from '../test/support/lab/process.ts';
import type { Side } from '../test/support/lab/tunnel.ts';
import type { BenchOptions, BenchReport, BenchRow } from './row.ts';
import { type Point, slope } from './stats.ts';
import { columns, round } from './text.ts';
import { OWN_NEEDS, type RunningOurs, startOurs } from './tunnel/systems.ts';
import { listens, residentMemory, threadCount } from './tunnel/usage.ts';

const SIDES = ['left', 'right'] as const;
const INTERVAL = 10_000;
const QUICK_MINUTES = 1;
/** Seconds: a rekey by whichever end comes first, and nearly never the hard limit. */
const LIFETIME = { soft: 20, hard: 60 };
/** Datagrams of 64 bytes beside TCP, in bits a second: some ten thousand a second. */
const UDP_RATE = 5_000_000;
const PORTS = { tcp: 5201, udp: 5202 } as const;
/** What comes before may grow: code is compiled, buffers and heaps find their size. */
const SETTLING = 1 / 3;
/** Growth over the time after that, in proportion to the mean, that is called flat: garbage comes and goes. */
const FLAT = 0.05;
const MAX_MEMORY = 250;

interface Sample {
  /** Minutes since the load began. */
  readonly at: number;
  /** MiB. */
  readonly resident: number;
  readonly descriptors: number;
  readonly threads: number;
}

interface End {
  readonly side: Side;
  readonly pid: number;
  readonly samples: Sample[];
}

export async function soakBench({ minutes, quick }: BenchOptions): Promise<BenchReport> {
  const obstacles = missing(OWN_NEEDS);
  if (obstacles.length > 0) return { rows: [], failures: obstacles };
  const duration = quick ? QUICK_MINUTES : minutes;
  const lab = new Lab();
  try {
    const running = await startOurs(lab, () => ({}), { espLifetime: LIFETIME });
    const ends = SIDES.map((side, i): End => ({ side, pid: running.processes[i]!, samples: [] }));
    const load = await startLoad(lab, running, duration);
    const rekeys = await watch(running, ends, duration);
    const carried = await load();
    return report(ends, rekeys, carried, await dropsOf(running), duration);
  } finally {
    await lab.dispose();
  }
}

interface Carried {
  /** Payload a second, Mbit/s, both ways together. */
  readonly tcp: number;
  readonly udpLoss: number;
}

/** TCP both ways and small datagrams, for the whole time. The returned function waits for their end. */
async function startLoad(lab: Lab, { line }: RunningOurs, minutes: number): Promise<() => Promise<Carried>> {
  const { left, right, source, destination } = line;
  const server = async (port: number): Promise<void> => {
    const iperf = right.spawn('iperf3', ['iperf3', '-s', '-p', String(port), '-B', destination]);
    lab.defer(() => iperf.stop('SIGKILL'));
    await waitFor('the iperf3 server', () => (listens(iperf.pid, port) ? true : undefined));
  };
  const client = (port: number, options: readonly string[]): Background => {
    const ends = ['-c', destination, '-B', source, '-p', String(port), '-t', String(minutes * 60), '-i', '60'];
    const iperf = left.spawn('iperf3', ['iperf3', '-J', ...ends, ...options]);
    lab.defer(() => iperf.stop('SIGKILL'));
    return iperf;
  };
  for (const port of Object.values(PORTS)) await server(port);
  const tcp = client(PORTS.tcp, ['--bidir']);
  const udp = client(PORTS.udp, ['-u', '-l', '64', '-b', String(UDP_RATE)]);
  return async () => {
    const [both, small] = [await resultOf(tcp), await resultOf(udp)];
    const ways = [both.end.sum_received, both.end.sum_received_bidir_reverse!];
    return {
      tcp: ways.reduce((sum, { bits_per_second }) => sum + bits_per_second / 1e6, 0),
      udpLoss: small.end.sum!.lost_percent,
    };
  };
}

interface IperfResult {
  readonly error?: string;
  readonly end: {
    readonly sum_received: { readonly bits_per_second: number };
    readonly sum_received_bidir_reverse?: { readonly bits_per_second: number };
    readonly sum?: { readonly lost_percent: number };
  };
}

async function resultOf(client: Background): Promise<IperfResult> {
  await waitFor('iperf3 to end', () => (client.alive ? undefined : true), 60_000, 200);
  const text = client.output;
  const result = JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1)) as IperfResult;
  if (result.error !== undefined) throw new Error(`iperf3: ${result.error}`);
  return result;
}

/** Takes the samples. Returns how many CHILD SAs took the place of others. */
async function watch(running: RunningOurs, ends: readonly End[], minutes: number): Promise<number> {
  const start = performance.now();
  const until = start + minutes * 60_000;
  let rekeys = -1;
  let last = '';
  for (let next = start; next < until; next += INTERVAL) {
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, next - performance.now())));
    for (const { pid, samples } of ends) samples.push(sampleOf(pid, (performance.now() - start) / 60_000));
    // Twice in each life of an SA: none is missed.
    const spis = await newestSpi(running.ends.left);
    if (spis !== last) rekeys++;
    last = spis;
    process.stderr.write(`${progress(ends)}, ${rekeys} rekeys\n`);
  }
  return rekeys;
}

async function newestSpi(ours: Ours): Promise<string> {
  const { ikeSas } = (await ours.status()).tunnels[0]!;
  const children = ikeSas.flatMap((sa) => sa.children);
  return children.sort((a, b) => b.id - a.id)[0]?.spiIn ?? '';
}

function progress(ends: readonly End[]): string {
  const of = ({ side, samples }: End): string => {
    const { resident, descriptors, threads } = samples.at(-1)!;
    return `${side} ${round(resident)} MiB, ${descriptors} descriptors, ${threads} threads`;
  };
  return `${ends[0]!.samples.at(-1)!.at.toFixed(1)} min: ${ends.map(of).join('; ')}`;
}

function sampleOf(pid: number, at: number): Sample {
  return {
    at,
    resident: residentMemory(pid),
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    threads: threadCount(pid),
  };
}

async function dropsOf({ ends }: RunningOurs): Promise<Record<string, string>> {
  const texts = SIDES.map(async (side) => {
    const { drops } = (await ends[side].status()).tunnels[0]!;
    const reasons = Object.entries(drops).map(([reason, count]) => `${reason} ${count}`);
    return [`soak drops ${side}`, reasons.length === 0 ? 'none' : reasons.join(', ')];
  });
  return Object.fromEntries(await Promise.all(texts)) as Record<string, string>;
}

function report(
  ends: readonly End[],
  rekeys: number,
  carried: Carried,
  conditions: Record<string, string>,
  minutes: number,
): BenchReport {
  const judged = ends.map(judge);
  const rows: BenchRow[] = [
    { name: 'soak/duration', value: minutes, unit: 'min' },
    { name: 'soak/tcp-both', value: carried.tcp, unit: 'Mbit/s' },
    { name: 'soak/udp-64-lost', value: carried.udpLoss, unit: '%' },
    { name: 'soak/rekeys', value: rekeys, unit: '' },
    ...judged.flatMap(({ side, most, perMinute, samples }) => [
      { name: `soak/memory/${side}`, value: most, unit: 'MiB', rounds: samples.map(({ resident }) => resident) },
      { name: `soak/memory-slope/${side}`, value: perMinute, unit: 'MiB/min' },
      { name: `soak/descriptors/${side}`, value: Math.max(...samples.map((each) => each.descriptors)), unit: '' },
      { name: `soak/threads/${side}`, value: Math.max(...samples.map((each) => each.threads)), unit: '' },
    ]),
  ];
  const failures = judged.flatMap(({ side, faults }) => faults.map((fault) => `${side}: ${fault}`));
  const figures = columns(
    rows.map(({ name, value, unit }) => [name, round(value), unit]),
    [0, 2],
  );
  const verdicts = judged.map(({ side, faults }) => `${side}: ${faults.length === 0 ? 'flat' : faults.join('; ')}`);
  return { rows, conditions, text: `${figures}\n\n${verdicts.join('\n')}`, failures };
}

interface Judged extends End {
  readonly most: number;
  /** MiB a minute, after the time of settling. */
  readonly perMinute: number;
  readonly faults: readonly string[];
}

function judge(end: End): Judged {
  const { samples } = end;
  const settled = samples.slice(Math.floor(samples.length * SETTLING));
  const points = settled.map(({ at, resident }): Point => [at, resident]);
  const perMinute = slope(points);
  const mean = points.reduce((sum, [, resident]) => sum + resident, 0) / points.length;
  const growth = perMinute * (points.at(-1)![0] - points[0]![0]);
  const most = Math.max(...samples.map(({ resident }) => resident));
  const [first, last] = [settled[0]!, settled.at(-1)!];
  const faults: string[] = [];
  if (growth > mean * FLAT) faults.push(`memory grows by ${round(perMinute)} MiB a minute`);
  if (most >= MAX_MEMORY) faults.push(`${round(most)} MiB, less than ${MAX_MEMORY} were wanted`);
  if (last.descriptors > first.descriptors) faults.push(`${last.descriptors} descriptors, ${first.descriptors} before`);
  if (last.threads > first.threads) faults.push(`${last.threads} threads, ${first.threads} before`);
  return { ...end, most, perMinute, faults };
}
