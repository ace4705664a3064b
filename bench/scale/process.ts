/**
 * A process of its own for each number of SAs: what V8 has learned with one SA must not serve ten thousand, nor the
 * other way round, and each has its memory for itself.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { chooseCrypto } from '../../src/host/crypto.ts';
import { ScaleEngines, type Spread } from './engines.ts';

export interface Installed {
  readonly crypto: string;
  /** Milliseconds to compile the policies and check the connections of both ends, and to negotiate the SAs. */
  readonly configured: number;
  readonly negotiated: number;
  /** MiB that are resident then, of both ends. */
  readonly resident: number;
}

/** What the process is asked; it answers each with one message. */
type Request =
  | { readonly type: 'install'; readonly count: number }
  | { readonly type: 'carry'; readonly spread: Spread; readonly length: number; readonly batches: number };

type Answer = { readonly value: Installed | number } | { readonly error: string };

export class ScaleProcess {
  readonly #child: ChildProcess;

  constructor() {
    this.#child = fork(new URL(import.meta.url), [ROLE], { stdio: 'inherit' });
  }

  install(count: number): Promise<Installed> {
    return this.#ask({ type: 'install', count }) as Promise<Installed>;
  }

  /** Nanoseconds a packet. */
  carry(spread: Spread, length: number, batches: number): Promise<number> {
    return this.#ask({ type: 'carry', spread, length, batches }) as Promise<number>;
  }

  stop(): void {
    this.#child.kill('SIGKILL');
  }

  #ask(request: Request): Promise<Installed | number> {
    return new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error('the measuring process ended'));
      this.#child.once('exit', ended);
      this.#child.once('message', (answer: Answer) => {
        this.#child.off('exit', ended);
        if ('error' in answer) reject(new Error(answer.error));
        else resolve(answer.value);
      });
      this.#child.send(request);
    });
  }
}

const ROLE = '--carry-packets';

/** The other end: in the process that was started. */
function serve(): void {
  let engines: ScaleEngines | undefined;
  const answer = (request: Request): Installed | number => {
    if (request.type === 'carry') return engines!.carry(request.spread, request.length, request.batches);
    const provider = chooseCrypto('auto');
    const start = performance.now();
    engines = new ScaleEngines(request.count, provider);
    const configured = performance.now();
    engines.install();
    const negotiated = performance.now() - configured;
    collectGarbage();
    const resident = process.memoryUsage.rss() / 2 ** 20;
    return { crypto: provider.name, configured: configured - start, negotiated, resident };
  };
  process.on('message', (request: Request) => {
    try {
      process.send?.({ value: answer(request) } satisfies Answer);
    } catch (error) {
      process.send?.({ error: String(error) } satisfies Answer);
    }
  });
  process.once('disconnect', () => process.exit());
}

function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

if (process.argv.includes(ROLE)) serve();
