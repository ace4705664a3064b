/** Calls that wait for tunnels to be up. */
import { type Deferred, deferred } from '../base/deferred.ts';

type Wait = Omit<Deferred, 'promise'>;

export class UpWaits {
  // BOUNDED: by the calls of the program.
  readonly #waiting = new Map<string, Set<Wait>>();

  /**
   * @param givenUp called when the last call that waited for the tunnel was aborted
   * @throws what `signal` is aborted with, and what `end` is given
   */
  wait(tunnel: string, signal: AbortSignal | undefined, givenUp: () => void): Promise<void> {
    const { promise, ...wait } = deferred();
    const waits = this.#waiting.get(tunnel) ?? new Set();
    this.#waiting.set(tunnel, waits.add(wait));
    const abort = (): void => {
      if (!waits.delete(wait)) return;
      wait.reject(signal?.reason);
      if (waits.size > 0) return;
      this.#waiting.delete(tunnel);
      givenUp();
    };
    signal?.addEventListener('abort', abort, { once: true });
    return promise.finally(() => signal?.removeEventListener('abort', abort));
  }

  isWaitedFor(tunnel: string): boolean {
    return this.#waiting.has(tunnel);
  }

  /** It is up. */
  came(tunnel: string): void {
    for (const { resolve } of this.#take(tunnel)) resolve();
  }

  /** It will not be. */
  end(tunnel: string, reason: Error): void {
    for (const { reject } of this.#take(tunnel)) reject(reason);
  }

  #take(tunnel: string): Wait[] {
    const waits = this.#waiting.get(tunnel);
    this.#waiting.delete(tunnel);
    const taken = [...(waits ?? [])];
    waits?.clear();
    return taken;
  }
}
