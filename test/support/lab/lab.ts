/**
 * One laboratory a test file, or a benchmark: its namespaces, programs and temporary folder, and their removal in
 * reverse order whatever happened.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FOLDER_PREFIX } from './leftovers.ts';
import { Namespace } from './namespace.ts';

/** Lines of each log that are shown with a failure. */
const LOG_LINES = 60;

export class Lab {
  readonly folder: string = mkdtempSync(join(tmpdir(), `${FOLDER_PREFIX}${process.pid}-`));
  /** BOUNDED: by what its owner creates; emptied by `dispose`. */
  readonly #cleanups: (() => Promise<unknown>)[] = [];
  /** BOUNDED: by what its owner starts. */
  readonly #logs = new Map<string, () => string>();
  /** BOUNDED: by its owner's hosts. */
  readonly #inspections = new Map<string, () => Promise<string>>();
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

  /** `read` is called when something has failed. A log of the same name takes the place of the former. */
  log(name: string, read: () => string): void {
    this.#logs.set(name, read);
  }

  /** `inspect` is called when something has failed: how a host is then. */
  inspect(name: string, inspect: () => Promise<string>): void {
    this.#inspections.set(name, inspect);
  }

  async inspections(): Promise<string> {
    const texts = [...this.#inspections].map(async ([name, inspect]) => {
      const text = await inspect().catch((error: unknown) => `cannot be had: ${String(error)}`);
      return `----- ${name}\n${text.trimEnd()}\n`;
    });
    return (await Promise.all(texts)).join('');
  }

  /** What is logged from now on, the end of each log at least: to be called when something has failed. */
  logsSince(): () => string {
    const before = new Map([...this.#logs].map(([name, read]) => [name, read().length]));
    return () =>
      [...this.#logs]
        .map(([name, read]) => {
          const lines = read().slice(before.get(name)).trimEnd().split('\n').slice(-LOG_LINES);
          return `----- ${name}\n${lines.join('\n')}\n`;
        })
        .join('');
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
