/** `npm run sim -- …`: explores seeds, or replays one with a chart of what happened. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { drawScenario, type Scenario } from './scenario.ts';
import { shrink } from './shrink.ts';
import { type SimResult, simulate } from './world.ts';

const CORPUS = 'test/sim/corpus';
const DEFAULT_SEEDS = 1_000;
const HOUR = 3_600_000;
/** Failures after which exploring ends. */
const MAX_FAILURES = 10;
/** Milliseconds between two lines of progress; on a terminal the line is rewritten. */
const PROGRESS = process.stderr.isTTY ? 200 : 10_000;

const help = `npm run sim -- [OPTION …]             explores seeds
npm run sim -- SEED|FILE [OPTION …]   runs one, and shows what happened

Options
  --seeds N   how many (default ${DEFAULT_SEEDS.toLocaleString('en')})
  --from N    the first (default 1)
  --hours N   virtual hours in which things happen (default: a minute)
  --help

What fails is made smaller and written to ${CORPUS}, whose files run in each test run. The exit code is 0 when all that
must hold held, else 1; 2 for a wrong command line.
`;

class UsageError extends Error {}

function numberIn(text: string, name: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new UsageError(`${name} takes a number, not '${text}'`);
  return Number(text);
}

function main(args: readonly string[]): number {
  const { values, positionals } = parse(args);
  if (values.help === true) {
    process.stdout.write(help);
    return 0;
  }
  if (positionals.length > 1) throw new UsageError(`one seed or file, not ${positionals.length}`);
  const [what] = positionals;
  const length = values.hours === undefined ? undefined : numberIn(values.hours, '--hours') * HOUR;
  if (what !== undefined) return replay(what, length);
  const [from, seeds] = [
    numberIn(values.from ?? '1', '--from'),
    numberIn(values.seeds ?? `${DEFAULT_SEEDS}`, '--seeds'),
  ];
  return explore({ from, seeds, length });
}

function parse(args: readonly string[]): {
  values: {
    seeds?: string | undefined;
    from?: string | undefined;
    hours?: string | undefined;
    help?: boolean | undefined;
  };
  positionals: string[];
} {
  try {
    const text = { type: 'string' } as const;
    const options = { seeds: text, from: text, hours: text, help: { type: 'boolean' } } as const;
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : 'unknown');
  }
}

function replay(what: string, length: number | undefined): number {
  const scenario = /^\d+$/.test(what) ? drawScenario(Number(what), length) : readScenario(what);
  const { setups, lossless } = scenario;
  process.stdout.write(
    `${lossless ? 'no packet may be lost; ' : ''}${setups.map((one) => JSON.stringify(one)).join('\n')}\n`,
  );
  const result = simulate(scenario, { chart: true });
  process.stdout.write(`${result.lines.join('\n')}\n${verdict(result)}\n`);
  return result.failure === undefined ? 0 : 1;
}

function readScenario(file: string): Scenario {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Scenario;
  } catch (error) {
    throw new UsageError(`${file} is no scenario: ${error instanceof Error ? error.message : 'unknown'}`);
  }
}

function verdict({ failure, ...counts }: SimResult): string {
  const { datagrams, packets, arrived, childSas, virtualMs } = counts;
  const numbers = `${datagrams} datagrams, ${arrived} of ${packets} packets, ${childSas} CHILD SAs, ${Math.round(virtualMs / 1_000)} s`;
  return `${failure === undefined ? 'all held' : `FAILED: ${failure}`} (${numbers})`;
}

interface Exploration {
  readonly from: number;
  readonly seeds: number;
  /** Of each, in virtual milliseconds. */
  readonly length: number | undefined;
}

function explore({ from, seeds, length }: Exploration): number {
  const total = { datagrams: 0, packets: 0, arrived: 0, childSas: 0, virtualMs: 0 };
  let [failures, told] = [0, performance.now()];
  for (let seed = from; seed < from + seeds && failures < MAX_FAILURES; seed++) {
    const scenario = drawScenario(seed, length);
    const result = simulate(scenario);
    for (const name of Object.keys(total) as (keyof typeof total)[]) total[name] += result[name];
    if (result.failure !== undefined) {
      failures++;
      report(scenario, result, length);
    }
    if (performance.now() - told > PROGRESS) {
      told = performance.now();
      const line = `${seed - from + 1} of ${seeds} seeds, ${failures} failed, ${total.packets} packets`;
      process.stderr.write(process.stderr.isTTY ? `\r${line}` : `${line}\n`);
    }
  }
  if (process.stderr.isTTY) process.stderr.write('\n');
  const hours = Math.round(total.virtualMs / 3_600_000);
  process.stdout.write(
    `${seeds} seeds, ${failures} failed: ${total.datagrams} datagrams, ${total.arrived} of ${total.packets} packets arrived, ` +
      `${total.childSas} CHILD SAs, ${hours} hours\n`,
  );
  return failures === 0 ? 0 : 1;
}

function report(scenario: Scenario, result: SimResult, length: number | undefined): void {
  const { seed } = scenario;
  const hours = length === undefined ? '' : ` --hours ${length / HOUR}`;
  const small = shrink(scenario);
  mkdirSync(CORPUS, { recursive: true });
  const file = join(CORPUS, `seed-${seed}.json`);
  writeFileSync(file, `${JSON.stringify(small, undefined, 1)}\n`);
  process.stdout.write(`seed ${seed}: ${verdict(result)}\n  replay it:     npm run sim -- ${seed}${hours}\n`);
  process.stdout.write(
    `  made smaller:  npm run sim -- ${file}   (${small.actions.length} actions: ${simulate(small).failure})\n`,
  );
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`error: ${error.message}; see npm run sim -- --help\n`);
  process.exitCode = 2;
}
