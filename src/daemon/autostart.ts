/**
 * Starts tunnels that are to run without anybody asking, and tries again when they cannot: at boot an address or a name
 * may not be there yet.
 */
import type { Logger } from '../base/log.ts';

/** Milliseconds: the first wait, doubled up to the longest. */
const FIRST_WAIT = 2_000;
const LONGEST_WAIT = 60_000;

export class Autostart {
  readonly #start: (name: string) => Promise<unknown>;
  readonly #log: Logger;
  // BOUNDED: the tunnels that are defined.
  readonly #waiting = new Map<string, NodeJS.Timeout>();

  /** @param start starts a tunnel, does nothing for one that runs or is gone, and throws when it cannot start */
  constructor(start: (name: string) => Promise<unknown>, log: Logger) {
    this.#start = start;
    this.#log = log;
  }

  async begin(name: string, wait: number = FIRST_WAIT): Promise<void> {
    try {
      await this.#start(name);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#log.error({ tunnel: name, retryIn: wait / 1000 }, `not started, another try in ${wait / 1000} s: ${why}`);
      const again = (): void => {
        this.#waiting.delete(name);
        void this.begin(name, Math.min(2 * wait, LONGEST_WAIT));
      };
      this.#waiting.set(name, setTimeout(again, wait));
    }
  }

  /** The tunnel was started, stopped or changed by hand: it is no longer tried. False when it was not. */
  cancel(name: string): boolean {
    clearTimeout(this.#waiting.get(name));
    return this.#waiting.delete(name);
  }

  close(): void {
    for (const name of [...this.#waiting.keys()]) this.cancel(name);
  }
}
