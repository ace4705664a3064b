/**
 * `npm run bench -- tunnels` (as root): a gateway with thousands of tunnels to another, beside one with a single tunnel.
 * Figures that compare are medians of rounds in turn on both.
 */
import { Lab } from '../test/support/lab/lab.ts';
import { missing } from '../test/support/lab/needs.ts';
import type { BenchOptions, BenchReport, BenchRow } from './row.ts';
import { median } from './stats.ts';
import { Load } from './tunnel/load.ts';
import { OWN_NEEDS } from './tunnel/systems.ts';
import { type Gateways, startGateways } from './tunnels/gateway.ts';
import { bringUp, type Figures, type SideFigures, stopAll } from './tunnels/run.ts';

const QUICK = { count: 20, rounds: 1, seconds: 1, packets: 2_000 };
const SECONDS = 3;
/** Echo requests of a flood through a gateway. */
const PACKETS = 20_000;
const FLOOD_TIMEOUT = 60_000;

export async function tunnelsBench({ count, rounds, quick }: BenchOptions): Promise<BenchReport> {
  const obstacles = missing(OWN_NEEDS);
  if (obstacles.length > 0) return { rows: [], failures: obstacles };
  const size = quick ? QUICK : { count, rounds, seconds: SECONDS, packets: PACKETS };
  const lab = new Lab();
  try {
    const [one, many] = [await startGateways(lab, 1), await startGateways(lab, size.count)];
    await bringUp(one);
    const figures = await bringUp(many);
    const compared = await compare(one, many, size);
    const stop = { left: await stopAll(many.left), right: await stopAll(many.right) };
    const name = (what: string): string => `tunnels/${size.count}/${what}`;
    return {
      rows: [...rowsOf(name, figures, stop), ...compared.map((row) => ({ ...row, name: name(row.name) }))],
      failures: figures.refused,
    };
  } finally {
    await lab.dispose();
  }
}

const UNITS: Readonly<Record<keyof SideFigures, string>> = {
  define: 's',
  start: 's',
  latency: 'ms',
  memory: 'KiB a tunnel',
  cpu: 's',
  idle: '%',
};

function rowsOf(
  name: (what: string) => string,
  figures: Figures,
  stop: Readonly<Record<'left' | 'right', number>>,
): BenchRow[] {
  const sides = (['left', 'right'] as const).flatMap((side) => [
    ...Object.entries(UNITS).map(([what, unit]) => ({
      name: name(`${what}/${side}`),
      value: figures[side][what as keyof SideFigures],
      unit,
    })),
    { name: name(`stop/${side}`), value: stop[side], unit: 's' },
  ]);
  return [{ name: name('up'), value: figures.up, unit: 's' }, ...sides];
}

interface Sizes {
  readonly count: number;
  readonly rounds: number;
  readonly seconds: number;
  readonly packets: number;
}

/** One tunnel of many against one alone, in turn. */
async function compare(one: Gateways, many: Gateways, { count, rounds, seconds, packets }: Sizes): Promise<BenchRow[]> {
  const loads = [await Load.start(await one.line(0)), await Load.start(await many.line(Math.floor(count / 2)))];
  const tcp: number[][] = [[], []];
  const ping: number[][] = [[], []];
  const flood: number[][] = [[], []];
  try {
    for (let round = 0; round < rounds; round++) {
      for (const at of [0, 1]) {
        tcp[at]!.push((await loads[at]!.tcp('one', seconds)).megabits);
        ping[at]!.push(median((await loads[at]!.ping(100)).times));
        flood[at]!.push(await forwarded([one, many][at]!, packets));
      }
    }
  } finally {
    for (const load of loads) await load.stop();
  }
  const ratio = (what: string, [alone, amongMany]: number[][]): BenchRow => {
    const ratios = amongMany!.map((value, at) => value / alone![at]!);
    return { name: what, value: median(ratios), unit: 'x', rounds: ratios };
  };
  return [
    { name: 'tcp/one', value: median(tcp[0]!), unit: 'Mbit/s', rounds: tcp[0]! },
    ratio('tcp/ratio', tcp),
    { name: 'ping/one', value: median(ping[0]!), unit: 'ms', rounds: ping[0]! },
    ratio('ping/ratio', ping),
    { name: 'unconcerned/one', value: median(flood[0]!), unit: 'us', rounds: flood[0]! },
    ratio('unconcerned/ratio', flood),
  ];
}

/** @returns microseconds that an echo and its reply take through the gateway, one after another */
async function forwarded({ unconcerned: { from, to } }: Gateways, packets: number): Promise<number> {
  const argv = ['ping', '-n', '-q', '-f', '-c', String(packets), to];
  const { stdout } = await from.exec(argv, { timeout: FLOOD_TIMEOUT });
  const [, least] = / = [\d.]+\/([\d.]+)\//.exec(stdout) ?? [];
  if (least === undefined) throw new Error(`ping printed no times: ${stdout}`);
  return Number(least) * 1_000;
}
