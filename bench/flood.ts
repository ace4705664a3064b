/**
 * A gateway of ours under floods of senders that have not authenticated (`test/interop/preauth-flood.ts`): what its
 * tunnels, its control socket and its memory are like meanwhile. As root, in network namespaces.
 */
import { FLOODS, type FloodFigures, FloodRig, RATE, shortcomings } from '../test/interop/preauth-flood.ts';
import { Lab } from '../test/support/lab/lab.ts';
import type { BenchOptions, BenchReport, BenchRow } from './row.ts';
import { columns } from './text.ts';

/** Seconds of each flood, and for which the memory is watched when it has ended. */
const SECONDS = { quick: 2, full: 20 } as const;
const AFTER = { quick: 1, full: 20 } as const;

export async function floodBench({ quick }: BenchOptions): Promise<BenchReport> {
  const lab = new Lab();
  const size = quick ? 'quick' : 'full';
  try {
    const rig = await FloodRig.build(lab);
    const all: FloodFigures[] = [];
    for (const kind of FLOODS) all.push(await rig.run(kind, SECONDS[size], AFTER[size]));
    return {
      rows: all.flatMap(rowsOf),
      failures: all.flatMap((figures) => shortcomings(figures).map((text) => `${figures.kind}: ${text}`)),
      text: `${RATE} packets a second, ${SECONDS[size]} s of each\n\n${table(all)}`,
    };
  } finally {
    await lab.dispose();
  }
}

function rowsOf({ kind, command99, pings, quiet, memory, cpu }: FloodFigures): BenchRow[] {
  const row = (name: string, value: number, unit: string): BenchRow => ({ name: `flood/${kind}/${name}`, value, unit });
  return [
    row('command', command99, 'ms'),
    row('lost', (100 * pings.lost) / pings.sent, '%'),
    row('quiet', quiet, 's'),
    row('memory', memory.most, 'MiB'),
    row('cpu', cpu, 's/s'),
  ];
}

function table(all: readonly FloodFigures[]): string {
  const title = ['flood', 'status, 99 % and most', 'lost', 'rekeys', 'oldest child, IKE', 'quiet', 'memory', 'CPU'];
  const lines = all.map((figures) => {
    const { kind, command99, commandMost, pings, childRekeys, ikeRekeys, memory } = figures;
    return [
      kind,
      `${command99.toFixed(0)} ms, ${commandMost.toFixed(0)} ms`,
      `${pings.lost} of ${pings.sent}`,
      `${childRekeys} + ${ikeRekeys}`,
      `${figures.oldestChild.toFixed(2)} s, ${figures.oldestIke.toFixed(2)} s`,
      `${figures.quiet.toFixed(2)} s`,
      `${memory.before}, ${memory.most}, ${memory.after} MiB`,
      figures.cpu.toFixed(2),
    ];
  });
  return columns([title, ...lines], [0]);
}
