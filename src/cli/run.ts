/** Takes a command line apart, runs its verb against a daemon and turns what happens into an exit code. */
import { parseArgs } from 'node:util';
import { SectunnelError } from '../base/error.ts';
import { nearest } from '../base/similar.ts';
import { messageOf } from '../base/text.ts';
import { DaemonClient, DaemonUnreachableError } from '../control/client.ts';
import { defaultRunDir } from '../daemon/store/folders.ts';
import { version } from '../daemon/version.ts';
import { ExitCode } from './exit-code.ts';
import { DEFAULT_TIMEOUT, generalHelp, verbHelp } from './help.ts';
import { type Arguments, type Terminal, UsageError, type VerbSpec } from './verb.ts';
import { verbs } from './verbs.ts';

/** Seconds. */
const MAX_TIMEOUT = 86_400;

/** @returns the exit code */
export async function run(argv: readonly string[], terminal: Terminal): Promise<number> {
  try {
    return await dispatch(argv, terminal);
  } catch (error) {
    const { code, message } = describe(error);
    terminal.err(`error: ${message}\n`);
    if (error instanceof UsageError) terminal.err(`see 'sectunnel ${[...error.verb, '--help'].join(' ')}'\n`);
    return code;
  }
}

async function dispatch(argv: readonly string[], terminal: Terminal): Promise<number> {
  const { runDir, patience, rest } = globalOptions(argv);
  const verb = rest[0];
  if (verb === undefined || verb === '--help' || verb === '-h' || verb === 'help') {
    const asked = verb === 'help' ? rest[1] : undefined;
    terminal.out(asked === undefined ? generalHelp() : verbHelp(asked, lookUp(asked)));
    return verb === undefined ? ExitCode.Usage : ExitCode.Ok;
  }
  if (verb === '--version') {
    terminal.out(`${version()}\n`);
    return ExitCode.Ok;
  }
  const spec = lookUp(verb);
  const args = verbArguments(verb, spec, rest.slice(1));
  if (args.options.help === true) {
    terminal.out(verbHelp(verb, spec));
    return ExitCode.Ok;
  }
  if ('runLocally' in spec) {
    return (await spec.runLocally(args, terminal, runDir)) ?? ExitCode.Ok;
  }
  const client = new DaemonClient(runDir, { patience });
  try {
    return (await spec.run(client, args, terminal)) ?? ExitCode.Ok;
  } finally {
    client.close();
  }
}

interface GlobalOptions {
  readonly runDir: string;
  /** Milliseconds for an answer. */
  readonly patience: number;
  /** From the verb on: all that follows belongs to the verb. */
  readonly rest: readonly string[];
}

const GLOBAL_OPTION = /^--(run-dir|timeout)(?:=(.*))?$/s;

function globalOptions(argv: readonly string[]): GlobalOptions {
  // BOUNDED: by the options.
  const given = new Map<string, string>();
  let at = 0;
  for (; at < argv.length; at++) {
    const [, option, attached] = GLOBAL_OPTION.exec(argv[at]!) ?? [];
    if (option === undefined) break;
    const value = attached ?? argv[++at];
    if (value === undefined) throw new UsageError(`--${option} wants ${option === 'timeout' ? 'seconds' : 'a folder'}`);
    given.set(option, value);
  }
  const runDir = given.get('run-dir') ?? process.env.SECTUNNEL_RUN_DIR ?? defaultRunDir();
  return { runDir, patience: patienceOf(given.get('timeout')), rest: argv.slice(at) };
}

function patienceOf(timeout: string | undefined): number {
  const seconds = timeout === undefined ? DEFAULT_TIMEOUT : Number(timeout);
  if (seconds >= 0.1 && seconds <= MAX_TIMEOUT) return seconds * 1000;
  throw new UsageError(`--timeout ${timeout}: expected 0.1 to ${MAX_TIMEOUT} seconds`);
}

/** What other programs call our verbs. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  up: 'start',
  down: 'destroy',
  stop: 'destroy',
  terminate: 'destroy',
  ls: 'list',
  ps: 'list',
  show: 'status',
  add: 'define',
  rm: 'undefine',
  remove: 'undefine',
  delete: 'undefine',
  enable: 'autostart',
  log: 'event',
  logs: 'event',
  monitor: 'event',
  test: 'check',
};

function lookUp(verb: string): VerbSpec {
  const spec = verbs.get(verb);
  if (spec !== undefined) return spec;
  const known = [...verbs.keys()];
  const meant = Object.hasOwn(ELSEWHERE, verb) ? ELSEWHERE[verb] : nearest(verb, known);
  const hint = meant === undefined ? `expected one of: ${known.join(', ')}` : `did you mean '${meant}'?`;
  throw new UsageError(`unknown verb '${verb}'; ${hint}`);
}

function verbArguments(verb: string, spec: VerbSpec, words: readonly string[]): Arguments {
  let parsed: ReturnType<typeof parseArgs>;
  try {
    const help = { type: 'boolean', short: 'h' } as const;
    const args = words.map((word) => withValue(word, spec));
    parsed = parseArgs({ args, options: { ...spec.options, help }, allowPositionals: true, strict: true });
  } catch (error) {
    throw new UsageError(`${verb}: ${optionProblem(error, spec)}`, verb);
  }
  const [min, max] = spec.positionals;
  const count = parsed.positionals.length;
  const options = parsed.values as Arguments['options'];
  if (options.help !== true && (count < min || count > max)) {
    const wanted = spec.usage === '' ? 'no arguments' : spec.usage;
    throw new UsageError(
      `${verb} takes ${wanted}, not ${count === 0 ? 'nothing' : `'${parsed.positionals.join(' ')}'`}`,
      verb,
    );
  }
  return { positionals: parsed.positionals, options };
}

/** `--wait` as `--wait=30`, where the value may be left out. */
function withValue(word: string, { optionalValues = {} }: VerbSpec): string {
  const option = word.startsWith('--') ? word.slice(2) : '';
  return Object.hasOwn(optionalValues, option) ? `${word}=${optionalValues[option]!.value}` : word;
}

/** Node's own words for an unknown option are about positional arguments. */
function optionProblem(error: unknown, spec: VerbSpec): string {
  if (!(error instanceof Error)) return String(error);
  const unknown = /^Unknown option '([^']+)'/.exec(error.message);
  if (unknown === null) return error.message;
  const options = Object.keys(spec.options).map((option) => `--${option}`);
  return `unknown option '${unknown[1]}'; expected ${options.length === 0 ? 'none' : `one of ${options.join(', ')}`}`;
}

function describe(error: unknown): { code: number; message: string } {
  if (error instanceof UsageError) return { code: ExitCode.Usage, message: error.message };
  if (error instanceof DaemonUnreachableError) return { code: ExitCode.Unreachable, message: error.message };
  if (error instanceof SectunnelError) return { code: ExitCode.Refused, message: error.message };
  return { code: ExitCode.Refused, message: messageOf(error) };
}
