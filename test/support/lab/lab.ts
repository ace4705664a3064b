/**
 * One laboratory a test file: its namespaces, programs and temporary folder, and their removal in reverse order
 * whatever happened. What its programs logged is shown with a test that failed.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFailed } from 'vitest';
import { FOLDER_PREFIX } from './leftovers.ts';
import { Namespace } from './namespace.ts';

/** Lines of each log that are shown with a failure. */
const LOG_LINES = 60;

export class Lab {
  readonly folder: string = mkdtempSync(join(tmpdir(), `${FOLDER_PREFIX}${process.pid}-`));
  /** BOUNDED: by what the test creates; emptied by `dispose`. */
  readonly #cleanups: (() => Promise<unknown>)[] = [];
  /** BOUNDED: by what the test starts. */
  readonly #logs = new Map<string, () => string>();
  readonly #removeFolder = (): void => rmSync(this.folder, { recursive: true, force: true });

  constructor() {
    process.once('exit', this.#removeFolder);
  }

  async namespace(label: string): Promise<Namespace> {
    const namespace = await Namespace.create(label);
    this.defer(() => namespace.delete());
    return namespace;
  }

  /** Runs when the lab ends, the last one first. */
  defer(cleanup: () => Promise<unknown>): void {
    this.#cleanups.push(cleanup);
  }

  /** `read` is called when a test has failed. A log of the same name takes the place of the former. */
  log(name: string, read: () => string): void {
    this.#logs.set(name, read);
  }

  /** To be called in a test: if it fails, what was logged since goes to standard error, the end of it at least. */
  showLogsOnFailure(): void {
    const before = new Map([...this.#logs].map(([name, read]) => [name, read().length]));
    onTestFailed(() => {
      for (const [name, read] of this.#logs) {
        const lines = read().slice(before.get(name)).trimEnd().split('\n').slice(-LOG_LINES);
        process.stderr.write(`----- ${name}\n${lines.join('\n')}\n`);
      }
    });
  }

  /** Ends everything; what fails does not keep the rest from being removed, and is thrown at the end. */
  async dispose(): Promise<void> {
    const failures: unknown[] = [];
    for (const cleanup of this.#cleanups.splice(0).reverse()) {
      await cleanup().catch((error: unknown) => failures.push(error));
    }
    this.#removeFolder();
    process.off('exit', this.#removeFolder);
    if (failures.length > 0) throw new AggregateError(failures, 'the lab could not be removed');
  }
}
