/** Asks a daemon something small all the time, and notes how long it took at worst. */
import type { DaemonClient } from '../../src/control/client.ts';

const INTERVAL = 20;

export class Prober {
  readonly #client: DaemonClient;
  #worst = 0;
  #timer: NodeJS.Timeout | undefined;
  #paused = false;

  constructor(client: DaemonClient) {
    this.#client = client;
    this.#next();
  }

  pause(): void {
    this.#paused = true;
    clearTimeout(this.#timer);
  }

  /** @returns milliseconds */
  end(): number {
    this.pause();
    this.#client.close();
    return this.#worst;
  }

  #next(): void {
    this.#timer = setTimeout(() => void this.#ask(), INTERVAL);
  }

  async #ask(): Promise<void> {
    const began = performance.now();
    await this.#client.call('secret-list', {});
    this.#worst = Math.max(this.#worst, performance.now() - began);
    if (!this.#paused) this.#next();
  }
}
