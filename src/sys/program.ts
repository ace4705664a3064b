/**
 * Runs a program to its end, with input and output. The only place that starts programs.
 */

import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { SectunnelError } from '../base/error.ts';
import { explained } from './descriptors.ts';

/** Characters of output that are kept: enough for the counters of ten thousand parts of a fence. */
export const MAX_OUTPUT: number = 16 << 20;
const MAX_ERRORS = 4096;

export interface ProgramOptions {
  readonly input?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Milliseconds after which the program is killed. */
  readonly timeout: number;
  /** Starts the program: in another network namespace than the thread's. */
  readonly start?: (<T>(work: () => T) => T) | undefined;
}

export interface ProgramResult {
  /** The exit code, or the signal that ended it. */
  readonly end: number | string;
  readonly output: string;
  readonly errors: string;
}

/** Folders of programs for root on Debian and others, searched after the daemon's own path. */
const SYSTEM_PATH = '/usr/sbin:/sbin:/usr/local/sbin';

/** For programs of the system: they are found, and speak English. */
export function systemEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? ''}:${SYSTEM_PATH}` };
}

/** The program is not installed, or not in the path. */
export class MissingProgramError extends SectunnelError {
  override readonly name = 'MissingProgramError';

  constructor(message: string) {
    super('system', message);
  }
}

/**
 * @throws MissingProgramError; SectunnelError when it cannot be started, with what has run out: each start takes eight
 * descriptors for a moment, and a process
 */
export function runProgram(
  program: string,
  words: readonly string[],
  { input = '', env, timeout, start = (work) => work() }: ProgramOptions,
): Promise<ProgramResult> {
  return new Promise((resolve, reject) => {
    const refuse = (error: unknown): void => reject(startError(program, error));
    const options: SpawnOptions = { env, timeout, killSignal: 'SIGKILL', stdio: 'pipe' };
    let child: ChildProcess;
    try {
      child = start(() => spawn(program, words, options));
    } catch (error) {
      refuse(error);
      return;
    }
    // Node reports most failures by an event; the child may have no pipes then.
    child.on('error', refuse);
    let [output, errors] = ['', ''];
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (output.length < MAX_OUTPUT) output += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (errors.length < MAX_ERRORS) errors += text;
    });
    // A program that ends before it has read all says why itself.
    child.stdin?.on('error', () => undefined).end(input);
    child.on('close', (code, signal) => resolve({ end: code ?? signal ?? 'unknown', output, errors }));
  });
}

function startError(program: string, error: unknown): Error {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
    return new MissingProgramError(`the program ${program} is missing`);
  }
  return new SectunnelError('system', `the program ${program} cannot be started: ${explained(error)}`, error);
}
