/**
 * `npm run bench -- scale`: what a packet costs when there are many SAs and policies, in proportion to one. See
 * scale/engines.ts for what is carried, scale/process.ts for where.
 */
import type { BenchOptions, BenchReport, BenchRow } from './row.ts';
import type { Spread } from './scale/engines.ts';
import { type Installed, ScaleProcess } from './scale/process.ts';
import { median } from './stats.ts';
import { columns, round } from './text.ts';

const COUNTS = [1, 100, 10_000] as const;
const QUICK_COUNTS = [1, 100] as const;
const SPREADS = ['one', 'runs', 'even'] as const;
const SIZES = [92, 1_400] as const;
const BATCHES = 1_500;
const MIN_ROUNDS = 5;

const TITLES: Readonly<Record<Spread, string>> = {
  one: 'all packets on one SA',
  runs: 'spread evenly, in runs of 46',
  even: 'spread evenly, one by one',
};

interface Measured extends Installed {
  readonly count: number;
  /** By spread and size: of each round, nanoseconds a packet. */
  readonly rounds: ReadonlyMap<string, number[]>;
}

export async function scaleBench({ rounds, quick }: BenchOptions): Promise<BenchReport> {
  const counts = quick ? QUICK_COUNTS : COUNTS;
  const processes = counts.map(() => new ScaleProcess());
  try {
    const measured: Measured[] = [];
    for (const [i, count] of counts.entries()) {
      const installed = await processes[i]!.install(count);
      measured.push({ ...installed, count, rounds: new Map(cases().map(({ key }) => [key, []])) });
    }
    // The first round only warms up.
    const all = quick ? 1 : Math.max(rounds, MIN_ROUNDS);
    for (let turn = 0; turn <= all; turn++) {
      for (const { spread, size, key } of cases()) {
        for (const [i, each] of measured.entries()) {
          const value = await processes[i]!.carry(spread, size, BATCHES);
          if (turn > 0) each.rounds.get(key)!.push(value);
        }
      }
    }
    return {
      rows: scaleRows(measured),
      text: scaleTable(measured),
      conditions: { 'scale crypto': measured[0]!.crypto },
    };
  } finally {
    for (const each of processes) each.stop();
  }
}

function cases(): { readonly spread: Spread; readonly size: number; readonly key: string }[] {
  return SPREADS.flatMap((spread) => SIZES.map((size) => ({ spread, size, key: `${spread}/${size}` })));
}

/** `scale/even/92/10000` in ns a packet, and `scale/even/92/ratio-10000` to what one SA costs. */
function scaleRows(measured: readonly Measured[]): BenchRow[] {
  return [
    ...cases().flatMap(({ key }) =>
      measured.flatMap(({ count, rounds }) => {
        const values = rounds.get(key)!;
        const row = { name: `scale/${key}/${count}`, value: median(values), unit: 'ns', rounds: values };
        if (count === 1) return [row];
        return [row, { name: `scale/${key}/ratio-${count}`, value: ratio(measured, count, key), unit: 'x' }];
      }),
    ),
    ...measured.flatMap(({ count, configured, negotiated, resident }) => [
      { name: `scale/configure/${count}`, value: configured, unit: 'ms' },
      { name: `scale/negotiate/${count}`, value: negotiated, unit: 'ms' },
      { name: `scale/memory/${count}`, value: resident, unit: 'MiB' },
    ]),
  ];
}

function ratio(measured: readonly Measured[], count: number, key: string): number {
  const figure = (wanted: number): number => median(measured.find((each) => each.count === wanted)!.rounds.get(key)!);
  return figure(count) / figure(1);
}

function scaleTable(measured: readonly Measured[]): string {
  const counts = measured.map(({ count }) => count.toLocaleString('en-US'));
  const head = [
    '',
    '',
    '',
    ...counts,
    ...measured.slice(1).map(({ count }) => `${count.toLocaleString('en-US')} to 1`),
  ];
  const packets = cases().map(({ spread, size, key }) => [
    TITLES[spread],
    `${size} bytes`,
    'ns',
    ...measured.map(({ rounds }) => round(median(rounds.get(key)!))),
    ...measured.slice(1).map(({ count }) => `${round(ratio(measured, count, key))}x`),
  ]);
  const whole = (title: string, unit: string, of: (each: Measured) => number): string[] => [
    title,
    '',
    unit,
    ...measured.map((each) => round(of(each))),
  ];
  return columns(
    [
      head,
      ...packets,
      whole('policies compiled, connections checked', 'ms', ({ configured }) => configured),
      whole('SAs negotiated, one after another', 'ms', ({ negotiated }) => negotiated),
      whole('resident memory', 'MiB', ({ resident }) => resident),
    ],
    [0, 2],
  );
}
