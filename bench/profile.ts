/**
 * `npm run bench -- profile` (as root): where the time of our two daemons goes while one TCP stream runs through them,
 * by V8's sampling profiler, without worker threads. What the kernel and libraries do is counted with the function that called them.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Lab } from '../test/support/lab/lab.ts';
import { missing } from '../test/support/lab/needs.ts';
import type { BenchOptions, BenchReport, BenchRow } from './row.ts';
import { columns, round } from './text.ts';
import { Load } from './tunnel/load.ts';
import { OWN_NEEDS, startOurs } from './tunnel/systems.ts';

const PRELOAD = fileURLToPath(new URL('./cpu-profile.js', import.meta.url));
const WARM_UP = 1;
const SECONDS = 8;
const QUICK_SECONDS = 2;
/** Functions that are shown of each end. */
const SHOWN = 15;
const ROLES = { left: 'sending', right: 'receiving' } as const;

/** What is used of a .cpuprofile: a tree of calls, and which node was at the top in each sample. */
interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  /** Microseconds of the monotonic clock. */
  readonly startTime: number;
  readonly samples: readonly number[];
  /** Microseconds since the sample before. */
  readonly timeDeltas: readonly number[];
}

export async function profileBench({ quick }: BenchOptions): Promise<BenchReport> {
  const obstacles = missing(OWN_NEEDS);
  if (obstacles.length > 0) return { rows: [], failures: obstacles };
  const lab = new Lab();
  try {
    const folder = (side: 'left' | 'right'): string => join(lab.folder, `profile-${side}`);
    for (const side of ['left', 'right'] as const) mkdirSync(folder(side));
    const daemons = await startOurs(lab, (side) => ({
      nodeArguments: ['--import', PRELOAD],
      env: { PROFILE_FOLDER: folder(side) },
      // Without workers: one thread's profile then shows both directions and what they share.
      arguments: ['--workers', '0'],
    }));
    const load = await Load.start(daemons.line);
    await load.tcp('one', WARM_UP);
    const from = now();
    const { megabits } = await load.tcp('one', quick ? QUICK_SECONDS : SECONDS);
    const until = now();
    await load.stop();
    // A profile is written when the process ends in good order.
    await daemons.stop();
    const parts = (['left', 'right'] as const).flatMap((side) =>
      readProfiles(folder(side)).map((profile, thread) => selfTimes(profile, `${ROLES[side]}-${thread}`, from, until)),
    );
    return {
      rows: [{ name: 'profile/tcp-1', value: megabits, unit: 'Mbit/s' }, ...parts.flat()],
      text: [`${round(megabits)} Mbit/s`, ...parts.map(selfTimeTable)].join('\n\n'),
    };
  } finally {
    await lab.dispose();
  }
}

/** Microseconds of the clock that the profiles tell. */
function now(): number {
  return Number(process.hrtime.bigint() / 1_000n);
}

/** One for each thread, the main one first. */
function readProfiles(folder: string): CpuProfile[] {
  const threadOf = (name: string): number => Number(/\.(\d+)\.\d+\.cpuprofile$/.exec(name)?.[1] ?? 0);
  return readdirSync(folder)
    .sort((a, b) => threadOf(a) - threadOf(b))
    .map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as CpuProfile);
}

/** Shares of the time between two moments in which the thread had something to do, the greatest first. */
function selfTimes(profile: CpuProfile, role: string, from: number, until: number): BenchRow[] {
  const names = new Map(profile.nodes.map(({ id, callFrame }) => [id, placeOf(callFrame)]));
  const times = new Map<string, number>();
  let at = profile.startTime;
  for (const [index, id] of profile.samples.entries()) {
    const time = profile.timeDeltas[index] ?? 0;
    at += time;
    if (at < from || at > until) continue;
    const name = names.get(id) ?? '(unknown)';
    times.set(name, (times.get(name) ?? 0) + time);
  }
  times.delete('(idle)');
  const busy = [...times.values()].reduce((sum, time) => sum + time, 0);
  return [...times]
    .sort(([, a], [, b]) => b - a)
    .slice(0, SHOWN)
    .map(([name, time]) => ({ name: `profile/${role}/${name}`, value: (100 * time) / busy, unit: '%' }));
}

function placeOf({ functionName, url, lineNumber }: CpuProfile['nodes'][number]['callFrame']): string {
  const name = functionName === '' ? '(anonymous)' : functionName;
  if (url === '') return name;
  const file = url.startsWith('file:') ? basename(fileURLToPath(url)) : url;
  return `${name} ${file}:${lineNumber + 1}`;
}

function selfTimeTable(rows: readonly BenchRow[]): string {
  return columns(
    rows.map(({ name, value, unit }) => [`${value.toFixed(1)} ${unit}`, name]),
    [1],
  );
}
