/**
 * The main thread's handle of one worker: sends it numbered commands by message and eventfd, takes its reports, and starts
 * a new one when it ends or does not answer, after a pause that grows. The new one gets all commands that still hold.
 */
import { readFileSync } from 'node:fs';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { type Deferred, deferred } from '../../base/deferred.ts';
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
/** A worker that ran for so long resets the pause. */
const PROVEN = 60_000;
/** How often the worker's answers are checked, and how long one may take: starting on a busy machine takes seconds. */
const LOOK_EVERY = 1_000;
const PATIENCE = 10_000;
const ALIVE_EVERY = 10_000;
/** Of the clock in which /proc counts processor time (sysconf _SC_CLK_TCK): the same on all Linux systems. */
const TICKS_PER_SECOND = 100;
/** Packets allocate no objects in a worker. A large young generation would be wasted: V8 does not return it. */
const RESOURCES = { maxYoungGenerationSizeMb: 2 } as const;

export interface HandleOptions {
  readonly setup: Pick<WorkerSetup, 'role' | 'crypto' | 'inboundDrops' | 'fragmentSeed' | 'clockOffset'>;
  /** The commands that bring a new worker to the state of the one before it. */
  readonly restore: () => Iterable<WorkerCommand>;
  readonly onReports: (reports: readonly WorkerReport[]) => void;
  /** The worker has applied commands, or there is no worker. */
  readonly onProgress: () => void;
  readonly onCrash: (reason: string, pause: number) => void;
}

/** A worker as `status` shows it. */
export interface WorkerStatus {
  readonly role: WorkerRole;
  readonly running: boolean;
  readonly restarts: number;
  /** Seconds of processor time that the running one has used. */
  readonly cpu: number;
}

/** The workers of all hosts. BOUNDED: by their pairs. */
const handles = new Set<WorkerHandle>();

/** At its end Node waits for all threads, for ever if one is blocked in a system call. */
function stopAll(): void {
  for (const handle of handles) handle.post({ type: 'stop' });
}

/** A worker as its host sees it. */
export type Handle = Pick<WorkerHandle, 'ready' | 'issued' | 'hasApplied' | 'control' | 'status' | 'post' | 'stop'>;

export class WorkerHandle {
  readonly control: Int32Array = new Int32Array(new SharedArrayBuffer(CONTROL_BYTES));
  readonly #options: HandleOptions;
  readonly #wake: number;
  readonly #one = new Uint8Array(new BigUint64Array([1n]).buffer);
  #worker: Worker | undefined;
  #port: MessagePort | undefined;
  #issued = 0;
  #applied = 0;
  /** Commands that earlier workers were given: they count as applied, as no worker has their effects. */
  #former = 0;
  #answered = false;
  /** The worker will be woken when the work that is under way is done. */
  #isWaking = false;
  /** Some worker has answered since this handle was made. */
  #proven = false;
  #restarts = 0;
  #pause = FIRST_PAUSE;
  #startedAt = 0;
  /** When the worker last answered, or had nothing to answer. */
  #heardAt = 0;
  #askedAt = 0;
  #restart: NodeJS.Timeout | undefined;
  #watch: NodeJS.Timeout | undefined;
  #error: Error | undefined;
  #stopping = false;
  #ended: Promise<void> = Promise.resolve();
  /** Resolved when the first worker answers; rejected when it cannot start, and another when it is tried again. */
  #ready: Deferred = newReady();

  /** @throws SystemError */
  constructor(options: HandleOptions) {
    this.#options = options;
    this.#wake = takeDescriptor(libc().eventfd(EFD_NONBLOCK_CLOEXEC), 'eventfd');
    if (handles.size === 0) process.on('exit', stopAll);
    handles.add(this);
    this.#start();
  }

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** The number of the last command. */
  get issued(): number {
    return this.#former + this.#issued;
  }

  /** Whether the worker has applied command number `ticket`; true when there is no worker to wait for. */
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
    // At the end of the process nothing comes later.
    if (command.type === 'stop') this.#wakeUp();
    else this.#wakeUpSoon();
  }

  /** Ends the worker; no other replaces it. */
  async stop(): Promise<void> {
    if (this.#stopping) return this.#ended;
    this.#stopping = true;
    clearTimeout(this.#restart);
    this.post({ type: 'stop' });
    await this.#ended;
    handles.delete(this);
    if (handles.size === 0) process.off('exit', stopAll);
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
      worker = new Worker(new URL('./packet-worker.js', import.meta.url), options);
    } catch (error) {
      // No thread can be started. Reported later, like the end of a running worker: the caller is not ready for it yet.
      port1.close();
      setImmediate(() => this.#gone(explained(error)));
      return;
    }
    this.#worker = worker;
    this.#port = port1;
    port1.on('message', (output: WorkerOutput) => this.#onOutput(port1, output));
    worker.on('error', (error) => {
      this.#error ??= error;
    });
    this.#ended = new Promise((resolve) => {
      worker.on('exit', (code) => {
        port1.close();
        this.#onExit(code);
        resolve();
      });
    });
    this.#watch = setInterval(() => this.#checkAlive(), LOOK_EVERY);
    this.post({ type: 'alive' });
    for (const command of this.#options.restore()) this.post(command);
  }

  #onOutput(port: MessagePort, { applied, reports }: WorkerOutput): void {
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

  #onExit(code: number): void {
    clearInterval(this.#watch);
    this.#worker = undefined;
    this.#port = undefined;
    this.#gone(this.#error === undefined ? `it ended with code ${code}` : explained(this.#error));
  }

  /** The worker is gone; another starts after a pause. */
  #gone(reason: string): void {
    if (this.#stopping) return;
    if (!this.#proven) this.#ready.reject(new Error(`the ${this.#options.setup.role} worker cannot start: ${reason}`));
    if (performance.now() - this.#startedAt >= PROVEN) this.#pause = FIRST_PAUSE;
    this.#options.onCrash(reason, this.#pause);
    this.#restart = setTimeout(() => {
      this.#restarts++;
      if (!this.#proven) this.#ready = newReady();
      this.#start();
    }, this.#pause);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
    this.#options.onProgress();
  }

  /** Ends a worker that does not answer. */
  #checkAlive(): void {
    const now = performance.now();
    if (this.#issued !== this.#applied) {
      if (now - this.#heardAt < PATIENCE) return;
      this.#error ??= new Error(`it did not answer for ${PATIENCE / 1_000} seconds`);
      void this.#worker?.terminate();
      // It may be blocked in poll, which only this ends.
      this.#wakeUp();
    } else if (now - this.#askedAt >= ALIVE_EVERY) {
      this.#askedAt = now;
      this.post({ type: 'alive' });
    }
  }

  /** Once for all commands of this stretch of work: each waking costs two system calls, an answer, and turns of both threads. */
  #wakeUpSoon(): void {
    if (this.#isWaking) return;
    this.#isWaking = true;
    queueMicrotask(() => {
      this.#isWaking = false;
      if (this.#port !== undefined) this.#wakeUp();
    });
  }

  #wakeUp(): void {
    libc().write(this.#wake, addressOf(this.#one), this.#one.length);
  }
}

/** A promise that may be rejected while nothing awaits it. */
function newReady(): Deferred {
  const ready = deferred();
  ready.promise.catch(() => undefined);
  return ready;
}

/** Seconds that a thread has used, of user and system; 0 when it is gone. */
function threadCpu(thread: number): number {
  try {
    const text = readFileSync(`/proc/self/task/${thread}/stat`, 'utf8');
    // Fields 14 and 15 of proc(5), counted from behind the name, which may hold any characters.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  } catch {
    return 0;
  }
}
