/**
 * Programs that the lab starts: short ones with a time limit, long ones with captured output. Everything is ended
 * by its own process group, also when the test run is: through an exit handler, and through PDEATHSIG when it is
 * killed outright.
 */
import { type ChildProcess, spawn } from 'node:child_process';

export interface RunOptions {
  /** Milliseconds until the program is killed and `run` throws. */
  readonly timeout?: number;
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** `false`: a non-zero exit code is an answer, not an error. */
  readonly check?: boolean;
}

export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Milliseconds that a program may take to start, or to end, which takes a second on a machine that has its processors to
 * itself. What a protocol may take is another matter.
 */
export const STARTING = 40_000;
/** Output that is kept of one program, in characters; the end of it counts. */
const MAX_OUTPUT = 1_000_000;

/** BOUNDED: by what one test file starts; each leaves when it exits. */
const running = new Set<ChildProcess>();

process.on('exit', () => {
  for (const child of running) killGroup(child, 'SIGKILL');
});

/** Each child leads a group of its own, so that what it forked ends with it. */
function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // The whole group is gone already.
  }
}

function start(argv: readonly string[], env: Readonly<Record<string, string>> | undefined): ChildProcess {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...argv], {
    detached: true,
    stdio: 'pipe',
    env: { ...process.env, ...env },
  });
  running.add(child);
  child.once('exit', () => running.delete(child));
  child.once('error', () => running.delete(child));
  return child;
}

class Tail {
  text = '';

  add(chunk: Buffer): void {
    this.text = (this.text + chunk.toString()).slice(-MAX_OUTPUT);
  }
}

/** Runs a program to its end. Throws with its output when it fails or takes too long. */
export function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { timeout = STARTING, input, env, check = true } = options;
  return new Promise((resolve, reject) => {
    const child = start(argv, env);
    const stdout = new Tail();
    const stderr = new Tail();
    child.stdout?.on('data', (chunk: Buffer) => stdout.add(chunk));
    child.stderr?.on('data', (chunk: Buffer) => stderr.add(chunk));
    child.stdin?.on('error', () => {}); // It may exit without reading its input.
    child.stdin?.end(input ?? '');
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      killGroup(child, 'SIGKILL');
    }, timeout);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(new Error(`cannot start ${argv.join(' ')}: ${error.message}`));
    });
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      const result = { code: code ?? 128, stdout: stdout.text, stderr: stderr.text };
      if (code === 0 || (!check && !late)) resolve(result);
      else {
        const why = late ? `took longer than ${timeout} ms` : `exited with ${signal ?? code}`;
        reject(new Error(`${argv.join(' ')}: ${why}\n${result.stdout}${result.stderr}`));
      }
    });
  });
}

/** A program that runs until it is stopped. */
export class Background {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #output = new Tail();
  readonly #exited: Promise<void>;

  constructor(name: string, argv: readonly string[], env?: Readonly<Record<string, string>>) {
    this.name = name;
    this.#child = start(argv, env);
    this.#child.stdin?.on('error', () => {});
    this.#child.stdout?.on('data', (chunk: Buffer) => this.#output.add(chunk));
    this.#child.stderr?.on('data', (chunk: Buffer) => this.#output.add(chunk));
    this.#exited = new Promise((resolve) => {
      this.#child.once('close', (code, signal) => {
        this.#output.add(Buffer.from(`[${name} ended: ${signal ?? `exit code ${code}`}]\n`));
        resolve();
      });
      this.#child.once('error', (error) => {
        this.#output.add(Buffer.from(`cannot start ${argv.join(' ')}: ${error.message}\n`));
        resolve();
      });
    });
  }

  /** Standard output and standard error, as they came. */
  get output(): string {
    return this.#output.text;
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`${this.name} did not start: ${this.output}`);
    return this.#child.pid;
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null && this.#child.pid !== undefined;
  }

  get exitCode(): number | null {
    return this.#child.exitCode;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Asks it to end, and after `grace` milliseconds makes it. Returns the exit code, `null` when it was killed. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', grace = 5_000): Promise<number | null> {
    if (this.alive) this.signal(signal);
    const timer = setTimeout(() => killGroup(this.#child, 'SIGKILL'), grace);
    await this.#exited;
    clearTimeout(timer);
    killGroup(this.#child, 'SIGKILL');
    return this.#child.exitCode;
  }
}

/** Asks again until the answer is not `undefined`; throws naming `what` after `timeout` milliseconds. */
export async function waitFor<T>(
  what: string,
  ask: () => Promise<T | undefined> | T | undefined,
  timeout = 10_000,
  pause = 50,
): Promise<T> {
  const end = performance.now() + timeout;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > end) throw new Error(`waited ${timeout} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
