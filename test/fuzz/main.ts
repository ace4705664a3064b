/** `npm run fuzz -- TARGET …`: searches for inputs that break something, or runs one. */

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { BROKE, CORPUS, corpusOf } from './corpus.ts';
import { Coverage } from './coverage.ts';
import { execute } from './execute.ts';
import { type Finding, Fuzzer } from './fuzzer.ts';
import { shrink } from './shrink.ts';
import type { Target } from './target.ts';
import { TARGETS } from './targets.ts';
import { Watchdog } from './watchdog.ts';

const FOUND = 'fuzz-findings';
/** Bytes of code that an input of the corpus reaches and those before it do not. */
const MIN_GAIN = 30;
/** Milliseconds between two lines of progress; on a terminal the line is rewritten. */
const PROGRESS = process.stderr.isTTY ? 500 : 10_000;

const help = `npm run fuzz -- TARGET [OPTION …]   searches
npm run fuzz -- TARGET FILE …       runs inputs from files

Targets: ${TARGETS.map(({ name }) => name).join(', ')}

Options
  --minutes N   how long (default 1)
  --seed S      another seed, another way (default 1)
  --keep        renews ${CORPUS}/TARGET with inputs that reach code of their own
  --help

What breaks something is made smaller and written to ${FOUND}/. The exit code is 0 when all held, else 1; 2 for a wrong
command line.
`;

class UsageError extends Error {}

async function main(args: readonly string[]): Promise<number> {
  const { values, positionals } = parse(args);
  if (values.help === true) {
    process.stdout.write(help);
    return 0;
  }
  const [name, ...files] = positionals;
  const target = TARGETS.find((one) => one.name === name);
  if (target === undefined) throw new UsageError(name === undefined ? 'no target' : `no target '${name}'`);
  if (files.length > 0) return await replay(target, files);
  const [minutes, seed] = [numberIn(values.minutes ?? '1', '--minutes'), numberIn(values.seed ?? '1', '--seed')];
  return await search(target, { minutes, seed, keep: values.keep === true });
}

function parse(args: readonly string[]): {
  values: {
    minutes?: string | undefined;
    seed?: string | undefined;
    keep?: boolean | undefined;
    help?: boolean | undefined;
  };
  positionals: string[];
} {
  try {
    const [text, flag] = [{ type: 'string' }, { type: 'boolean' }] as const;
    const options = { minutes: text, seed: text, keep: flag, help: flag };
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : 'unknown');
  }
}

function numberIn(text: string, name: string): number {
  if (!/^\d{1,9}(\.\d{1,3})?$/.test(text)) throw new UsageError(`${name} takes a number, not '${text}'`);
  return Number(text);
}

async function replay(target: Target, files: readonly string[]): Promise<number> {
  let failed = 0;
  for (const file of files) {
    const problem = await execute(target, new Uint8Array(readFileSync(file)));
    if (problem !== undefined) failed++;
    process.stdout.write(`${file}: ${problem ?? 'all held'}\n`);
  }
  return failed === 0 ? 0 : 1;
}

interface Search {
  readonly minutes: number;
  readonly seed: number;
  readonly keep: boolean;
}

async function search(target: Target, { minutes, seed, keep }: Search): Promise<number> {
  const coverage = new Coverage(/\/src\//);
  coverage.start();
  const watchdog = new Watchdog(join(FOUND, target.name));
  const watched: Target = {
    ...target,
    run(input) {
      watchdog.note(input);
      return target.run(input);
    },
  };
  const fuzzer = new Fuzzer(watched, seed, coverage);
  await fuzzer.begin([...target.seeds(), ...corpusOf(target).values()]);
  const [from, cpu] = [performance.now(), process.cpuUsage()];
  const line = (): string => {
    const spent = process.cpuUsage(cpu);
    const rate = Math.round(fuzzer.executions / ((spent.user + spent.system) / 1e6));
    const { functions, covered, share } = coverage.summary();
    return (
      `${target.name}: ${fuzzer.executions} executions, ${rate} a second of processor time, ${fuzzer.inputs.length} inputs, ` +
      `${functions} functions, ${Math.round(covered / 1024)} KiB of code (${Math.round(100 * share)} %), ${fuzzer.findings.size} findings`
    );
  };
  let [told, known] = [from, 0];
  while (performance.now() - from < minutes * 60_000) {
    await fuzzer.batch();
    const fresh = [...fuzzer.findings].slice(known);
    known = fuzzer.findings.size;
    for (const [kind, finding] of fresh) await report(target, kind, finding);
    if (performance.now() - told < PROGRESS) continue;
    told = performance.now();
    process.stderr.write(process.stderr.isTTY ? `\r${line()}` : `${line()}\n`);
  }
  watchdog.end();
  coverage.stop();
  if (keep) await renew(target, fuzzer.fresh);
  process.stdout.write(`${process.stderr.isTTY ? '\n' : ''}${line()}\n`);
  return fuzzer.findings.size === 0 ? 0 : 1;
}

/** Of the corpus and what was found, the smallest inputs that reach code of their own stay, and all that once broke something. */
async function renew(target: Target, fresh: readonly Uint8Array[]): Promise<void> {
  const coverage = new Coverage(/\/src\//);
  coverage.start();
  for (const input of target.seeds()) await execute(target, input);
  coverage.take();
  const folder = join(CORPUS, target.name);
  const searched = [...corpusOf(target)].filter(([file]) => !file.startsWith(BROKE));
  for (const [file] of searched) rmSync(join(folder, file));
  const inputs = [...searched.map(([, input]) => input), ...fresh].sort((a, b) => a.length - b.length);
  for (const input of inputs) {
    await execute(target, input);
    if (coverage.take() >= MIN_GAIN) save(folder, input);
  }
  coverage.stop();
}

function save(folder: string, input: Uint8Array): string {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, createHash('sha256').update(input).digest('hex').slice(0, 12));
  writeFileSync(file, input);
  return file;
}

async function report(target: Target, kind: string, { input, problem }: Finding): Promise<void> {
  const file = save(join(FOUND, target.name), await shrink(target, input, kind));
  process.stdout.write(`\nFOUND: ${problem}\n  run it again:  npm run fuzz -- ${target.name} ${file}\n`);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`error: ${error.message}; see npm run fuzz -- --help\n`);
  process.exitCode = 2;
}
