/** Ends an execution that never ends: a thread that still runs writes down its input, and ends the process. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, Worker, workerData } from 'node:worker_threads';

/** Milliseconds of real time without another execution. */
const PATIENCE = 60_000;
const MAX_INPUT = 65_536;

interface Shared {
  /** How many executions began, and the length of the input. */
  readonly numbers: Int32Array;
  readonly input: Uint8Array;
  readonly folder: string;
}

/** The process runs at most one execution at a time. */
export class Watchdog {
  readonly #shared: Shared;
  readonly #worker: Worker;

  /** @param folder where the input is written */
  constructor(folder: string) {
    this.#shared = {
      numbers: new Int32Array(new SharedArrayBuffer(8)),
      input: new Uint8Array(new SharedArrayBuffer(MAX_INPUT)),
      folder,
    };
    this.#worker = new Worker(new URL(import.meta.url), { workerData: this.#shared });
    this.#worker.unref();
  }

  /** An execution of the input begins. */
  note(input: Uint8Array): void {
    const { numbers, input: copy } = this.#shared;
    copy.set(input.subarray(0, MAX_INPUT));
    numbers[1] = input.length;
    Atomics.add(numbers, 0, 1);
  }

  end(): void {
    void this.#worker.terminate();
  }
}

function watch({ numbers, input, folder }: Shared): void {
  let before = -1;
  setInterval(() => {
    const now = Atomics.load(numbers, 0);
    if (now !== before) {
      before = now;
      return;
    }
    mkdirSync(folder, { recursive: true });
    const file = join(folder, 'endless');
    writeFileSync(file, input.slice(0, numbers[1]));
    process.stderr.write(`\nFOUND: no end within ${PATIENCE / 1_000} s; the input is in ${file}\n`);
    process.kill(process.pid, 'SIGKILL');
  }, PATIENCE);
}

if (!isMainThread) watch(workerData as Shared);
