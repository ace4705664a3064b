/** `npm run bench -- [NAME …] [OPTION …]`: runs benchmarks, prints tables, writes the figures for programs. */
import { writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { codecBench } from './codec.ts';
import { floodBench } from './flood.ts';
import { fragmentsBench } from './fragments.ts';
import { handshakeBench } from './handshake.ts';
import { offloadBench } from './offload.ts';
import { policyBench } from './policy.ts';
import { profileBench } from './profile.ts';
import { type Bench, type BenchOptions, type BenchReport, type BenchRow, UsageError } from './row.ts';
import { scaleBench } from './scale.ts';
import { sealBench } from './seal.ts';
import { soakBench } from './soak.ts';
import { barCharts } from './svg.ts';
import { columns, round } from './text.ts';
import { tunnelBench } from './tunnel.ts';
import { DEFAULT_SHAPE } from './tunnels/shape.ts';
import { tunnelsBench } from './tunnels.ts';

/** Within one process, without root: what runs when nothing is named. */
const small: Readonly<Record<string, Bench>> = {
  handshake: rowsOnly(handshakeBench),
  codec: rowsOnly(codecBench),
  seal: rowsOnly(sealBench),
  offload: rowsOnly(offloadBench),
  policy: rowsOnly(policyBench),
};

/** Within one machine, without root, but long. */
const long: Readonly<Record<string, Bench>> = { scale: scaleBench, fragments: fragmentsBench };

/** With whole daemons in network namespaces, as root. */
const large: Readonly<Record<string, Bench>> = {
  tunnel: tunnelBench,
  profile: profileBench,
  soak: soakBench,
  flood: floodBench,
  tunnels: tunnelsBench,
};

const benches: Readonly<Record<string, Bench>> = { ...small, ...long, ...large };

const DEFAULT_ROUNDS = 5;
const DEFAULT_MINUTES = 10;
const DEFAULT_SEEDS = 1_000;
const DEFAULT_COUNT = 2_000;

/** The process takes all it started with it when it exits, but not when a signal ends it as signals do. */
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

const help = `npm run bench -- [NAME …] [OPTION …]

Names    ${Object.keys(small).join(', ')} (all of these when none is named);
         ${Object.keys(long).join(', ')} (take longer);
         ${Object.keys(large).join(', ')} (as root, in network namespaces)

Options
  --json FILE     write the figures for programs
  --svg FILE      write a plot (of: tunnel)
  --rounds N      rounds that medians are taken of (scale, tunnel, tunnels; default ${DEFAULT_ROUNDS})
  --minutes N     how long the load is kept up (soak; default ${DEFAULT_MINUTES})
  --seeds N       courses that chance takes (fragments; default ${DEFAULT_SEEDS})
  --count N       tunnels (tunnels; default ${DEFAULT_COUNT})
  --shape SHAPE   what they join: hub or pairs (tunnels; default ${DEFAULT_SHAPE})
  --shared        one device for all tunnels of a gateway of ours (tunnels)
  --quick         one short round: whether everything works, not for figures (scale, fragments, tunnel, tunnels, profile, soak, flood)
  --only SYSTEM   measure this one alone; may be repeated (tunnel, tunnels)
`;

function rowsOnly(bench: () => Promise<BenchRow[]>): Bench {
  return async () => ({ rows: await bench() });
}

function table(rows: readonly BenchRow[]): string {
  return columns(
    rows.map(({ name, value, unit }) => [name, round(value), unit]),
    [0, 2],
  );
}

interface Arguments extends BenchOptions {
  readonly names: readonly string[];
  readonly json: string | undefined;
  readonly svg: string | undefined;
}

/** @throws UsageError that says what is wrong with the command line */
function readArguments(argv: readonly string[]): Arguments | 'help' {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const { values, positionals } = parseArgs({
    args: [...argv],
    options: {
      ...{
        json: text,
        svg: text,
        rounds: text,
        minutes: text,
        seeds: text,
        count: text,
        shape: text,
        only: { ...text, multiple: true },
      },
      ...{ shared: flag, quick: flag, help: flag },
    },
    allowPositionals: true,
  });
  if (values.help === true) return 'help';
  const unknown = positionals.filter((name) => !Object.hasOwn(benches, name));
  if (unknown.length > 0) {
    throw new UsageError(`unknown benchmark ${unknown.join(', ')}; expected: ${Object.keys(benches).join(', ')}`);
  }
  return {
    names: positionals.length === 0 ? Object.keys(small) : positionals,
    rounds: wholeNumber('rounds', values.rounds, DEFAULT_ROUNDS),
    minutes: wholeNumber('minutes', values.minutes, DEFAULT_MINUTES),
    seeds: wholeNumber('seeds', values.seeds, DEFAULT_SEEDS),
    count: wholeNumber('count', values.count, DEFAULT_COUNT),
    shape: values.shape ?? DEFAULT_SHAPE,
    shared: values.shared ?? false,
    quick: values.quick ?? false,
    only: values.only ?? [],
    json: values.json,
    svg: values.svg,
  };
}

function wholeNumber(name: string, text: string | undefined, preset: number): number {
  const value = Number(text ?? preset);
  if (Number.isInteger(value) && value >= 1) return value;
  throw new UsageError(`--${name} ${text}: a whole number was wanted`);
}

function print(report: BenchReport): void {
  process.stdout.write(`${report.text ?? table(report.rows)}\n\n`);
  const conditions = Object.entries(report.conditions ?? {});
  if (conditions.length > 0) process.stdout.write(`${columns(conditions, [0, 1])}\n\n`);
  for (const failure of report.failures ?? []) process.stdout.write(`not measured: ${failure}\n`);
}

async function runAll(chosen: Arguments): Promise<number> {
  const machine = `${cpus().length} x ${cpus()[0]?.model ?? 'unknown processor'}, Linux ${release()}, Node ${process.version}`;
  const date = new Date().toISOString().slice(0, 10);
  process.stdout.write(`${machine}\n\n`);
  const reports: BenchReport[] = [];
  for (const name of chosen.names) {
    const report = await benches[name]!(chosen);
    print(report);
    reports.push(report);
  }
  const conditions = Object.assign({}, ...reports.map((report) => report.conditions ?? {}));
  const rows = reports.flatMap((report) => report.rows);
  const failures = reports.flatMap((report) => report.failures ?? []);
  if (chosen.json !== undefined) {
    writeFileSync(chosen.json, `${JSON.stringify({ machine, date, conditions, failures, rows }, null, 2)}\n`);
  }
  if (chosen.svg !== undefined) {
    const panels = reports.flatMap((report) => report.panels ?? []);
    writeFileSync(chosen.svg, barCharts(panels, `${machine}, ${date}`));
  }
  return failures.length === 0 ? 0 : 1;
}

async function main(argv: readonly string[]): Promise<number> {
  for (const [name, code] of Object.entries(SIGNALS)) process.once(name, () => process.exit(code));
  try {
    const chosen = readArguments(argv);
    if (chosen !== 'help') return await runAll(chosen);
    process.stdout.write(help);
    return 0;
  } catch (error) {
    // What node:util refuses is a TypeError with a code.
    if (!(error instanceof UsageError) && !(error instanceof TypeError && 'code' in error)) throw error;
    process.stderr.write(`${error.message}\n\n${help}`);
    return 2;
  }
}

process.exitCode = await main(process.argv.slice(2));
