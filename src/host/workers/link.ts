/**
 * The main thread's side of one worker: commands by message and eventfd, each with its number; answers; and what becomes
 * of a worker that ends or does not answer. It is started again, with a pause that grows, and told everything anew.
 */
import { readFileSync } from 'node:fs';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { WORKER_OPTIONS } from '../../base/worker-options.ts';
import { explained, takeDescriptor } from '../../sys/descriptors.ts';
import { libc } from '../../sys/libc.ts';
import { addressOf } from '../../sys/native-memory.ts';
import {
  CONTROL_BYTES,
  Control,
  type WorkerCommand,
  type WorkerOutput,
  type WorkerReport,
  type WorkerRole,
  type WorkerSetup,
} from './messages.ts';

const EFD_NONBLOCK_CLOEXEC = 0o2004000;

/** Milliseconds. */
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 10_000;
/** One that lived so long starts with the first pause again. */
const PROVEN = 60_000;
/** How often it is looked whether the worker answers, and how long it may take: on a busy machine, to start. */
const LOOK_EVERY = 1_000;
const PATIENCE = 10_000;
const ALIVE_EVERY = 10_000;
/** Of the clock that /proc tells times in (sysconf _SC_CLK_TCK), on all of Linux. */
const TICKS_PER_SECOND = 100;
/** Packets cost a worker no objects: it needs no room for many young ones, which V8 would not give back. */
const RESOURCES = { maxYoungGenerationSizeMb: 2 } as const;

export interface LinkOptions {
  readonly setup: Pick<WorkerSetup, 'role' | 'crypto' | 'inboundDrops' | 'fragmentSeed' | 'clockOffset'>;
  /** All that a worker must be told to be where the last one was. */
  readonly restore: () => Iterable<WorkerCommand>;
  readonly onReports: (reports: readonly WorkerReport[]) => void;
  /** Commands were carried out, or nobody is there who could. */
  readonly onProgress: () => void;
  readonly onCrash: (reason: string, pause: number) => void;
}

/** What `status` tells of a worker. */
export interface WorkerStatus {
  readonly role: WorkerRole;
  readonly running: boolean;
  readonly restarts: number;
  /** Seconds of processor time that the running one has used. */
  readonly cpu: number;
}

/** Of all hosts. BOUNDED: by their pairs. */
const links = new Set<WorkerLink>();

/** Node waits for its threads on its way out, and would wait for ever for one that is blocked in a system call. */
function stopAll(): void {
  for (const link of links) link.post({ type: 'stop' });
}

/** A worker as its host sees it. */
export type Link = Pick<WorkerLink, 'ready' | 'issued' | 'hasApplied' | 'control' | 'status' | 'post' | 'stop'>;

export class WorkerLink {
  readonly control: Int32Array = new Int32Array(new SharedArrayBuffer(CONTROL_BYTES));
  readonly #options: LinkOptions;
  readonly #wake: number;
  readonly #one = new Uint8Array(new BigUint64Array([1n]).buffer);
  #worker: Worker | undefined;
  #port: MessagePort | undefined;
  #issued = 0;
  #applied = 0;
  /** Commands of the workers that were here before: what still waits for one of those waits for nothing. */
  #former = 0;
  #answered = false;
  /** One has answered since this link was made. */
  #proven = false;
  #restarts = 0;
  #pause = FIRST_PAUSE;
  #startedAt = 0;
  /** When it last answered, or had nothing to answer. */
  #heardAt = 0;
  #askedAt = 0;
  #restart: NodeJS.Timeout | undefined;
  #watch: NodeJS.Timeout | undefined;
  #error: Error | undefined;
  #stopping = false;
  #ended: Promise<void> = Promise.resolve();
  /** Resolved when the first worker answers; rejected when it cannot start, and another when it is tried again. */
  #ready: PromiseWithResolvers = withResolvers();

  /** @throws SystemError */
  constructor(options: LinkOptions) {
    this.#options = options;
    this.#wake = takeDescriptor(libc().eventfd(EFD_NONBLOCK_CLOEXEC), 'eventfd');
    if (links.size === 0) process.on('exit', stopAll);
    links.add(this);
    this.#start();
  }

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** The number of the last command. */
  get issued(): number {
    return this.#former + this.#issued;
  }

  /** Whether command number `ticket` was carried out. Nobody waits for a worker that is not there. */
  hasApplied(ticket: number): boolean {
    return this.#worker === undefined || this.#former + this.#applied >= ticket;
  }

  get status(): WorkerStatus {
    const running = this.#worker !== undefined;
    const cpu = running ? threadCpu(this.control[Control.thread]!) : 0;
    return { role: this.#options.setup.role, running, restarts: this.#restarts, cpu };
  }

  post(command: WorkerCommand): void {
    if (this.#port === undefined) return;
    if (this.#issued === this.#applied) this.#heardAt = performance.now();
    this.#issued++;
    this.#port.postMessage(command);
    Atomics.store(this.control, Control.issued, this.#issued | 0);
    this.#wakeUp();
  }

  /** Ends the worker for good. */
  async stop(): Promise<void> {
    if (this.#stopping) return this.#ended;
    this.#stopping = true;
    clearTimeout(this.#restart);
    this.post({ type: 'stop' });
    await this.#ended;
    links.delete(this);
    if (links.size === 0) process.off('exit', stopAll);
    libc().close(this.#wake);
  }

  #start(): void {
    const { port1, port2 } = new MessageChannel();
    this.control.fill(0);
    this.#former += this.#issued;
    this.#issued = 0;
    this.#applied = 0;
    this.#answered = false;
    this.#error = undefined;
    this.#startedAt = performance.now();
    this.#heardAt = this.#startedAt;
    this.#askedAt = this.#startedAt;
    const workerData: WorkerSetup = { ...this.#options.setup, port: port2, wake: this.#wake, control: this.control };
    const options = { ...WORKER_OPTIONS, workerData, transferList: [port2], resourceLimits: RESOURCES };
    let worker: Worker;
    try {
      worker = new Worker(new URL('./worker.js', import.meta.url), options);
    } catch (error) {
      // There is no thread for it. Reported later, like the end of a running worker: the caller is not ready for it yet.
      port1.close();
      setImmediate(() => this.#gone(explained(error)));
      return;
    }
    this.#worker = worker;
    this.#port = port1;
    port1.on('message', (output: WorkerOutput) => this.#heard(port1, output));
    worker.on('error', (error) => {
      this.#error ??= error;
    });
    this.#ended = new Promise((resolve) => {
      worker.on('exit', (code) => {
        port1.close();
        this.#exited(code);
        resolve();
      });
    });
    this.#watch = setInterval(() => this.#look(), LOOK_EVERY);
    this.post({ type: 'alive' });
    for (const command of this.#options.restore()) this.post(command);
  }

  #heard(port: MessagePort, { applied, reports }: WorkerOutput): void {
    if (port !== this.#port) return;
    this.#heardAt = performance.now();
    this.#applied = applied;
    if (!this.#answered) {
      this.#answered = true;
      this.#proven = true;
      this.#ready.resolve();
    }
    if (reports.length > 0) this.#options.onReports(reports);
    this.#options.onProgress();
  }

  #exited(code: number): void {
    clearInterval(this.#watch);
    this.#worker = undefined;
    this.#port = undefined;
    this.#gone(this.#error === undefined ? `it ended with code ${code}` : explained(this.#error));
  }

  /** There is no worker; another is tried after a pause. */
  #gone(reason: string): void {
    if (this.#stopping) return;
    if (!this.#proven) this.#ready.reject(new Error(`the ${this.#options.setup.role} worker cannot start: ${reason}`));
    if (performance.now() - this.#startedAt >= PROVEN) this.#pause = FIRST_PAUSE;
    this.#options.onCrash(reason, this.#pause);
    this.#restart = setTimeout(() => {
      this.#restarts++;
      if (!this.#proven) this.#ready = withResolvers();
      this.#start();
    }, this.#pause);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
    this.#options.onProgress();
  }

  /** Ends a worker that does not answer. */
  #look(): void {
    const now = performance.now();
    if (this.#issued !== this.#applied) {
      if (now - this.#heardAt < PATIENCE) return;
      this.#error ??= new Error(`it did not answer for ${PATIENCE / 1_000} seconds`);
      void this.#worker?.terminate();
      // It may be blocked in a system call, which nothing else ends.
      this.#wakeUp();
    } else if (now - this.#askedAt >= ALIVE_EVERY) {
      this.#askedAt = now;
      this.post({ type: 'alive' });
    }
  }

  #wakeUp(): void {
    libc().write(this.#wake, addressOf(this.#one), this.#one.length);
  }
}

interface PromiseWithResolvers {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

function withResolvers(): PromiseWithResolvers {
  let resolve: (() => void) | undefined;
  let reject: ((error: Error) => void) | undefined;
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  // Nobody may be waiting.
  promise.catch(() => undefined);
  return { promise, resolve: () => resolve?.(), reject: (error) => reject?.(error) };
}

/** Seconds that a thread has used, of user and system; 0 when it is gone. */
function threadCpu(thread: number): number {
  try {
    const text = readFileSync(`/proc/self/task/${thread}/stat`, 'utf8');
    // Behind the name, which may hold anything: fields 14 and 15 of proc(5).
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  } catch {
    return 0;
  }
}
