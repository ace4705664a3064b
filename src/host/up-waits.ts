/** Calls that wait for tunnels to be up. */
import { type Deferred, deferred } from '../base/deferred.ts';
import { SectunnelError } from '../base/error.ts';
import type { ControlPlane } from '../engine/control-plane.ts';
import { noSuchTunnel } from './operations.ts';
import { isUp } from './status-view.ts';

type Wait = Omit<Deferred, 'promise'>;

export interface UpMeans {
  readonly engine: ControlPlane;
  readonly now: () => number;
  /** To be called after every call of the engine. */
  readonly drain: () => void;
}

export class UpWaits {
  readonly #means: UpMeans;
  // BOUNDED: by the calls of the program.
  readonly #waiting = new Map<string, Set<Wait>>();

  constructor(means: UpMeans) {
    this.#means = means;
  }

  /** As `TunnelHost.up`. */
  async up(name: string, signal: AbortSignal | undefined): Promise<void> {
    const { engine, now, drain } = this.#means;
    signal?.throwIfAborted();
    const tunnel = engine.tunnel(name);
    if (tunnel === undefined) throw noSuchTunnel(name);
    if (isUp(tunnel)) return;
    const givenUp = (): void => {
      if (engine.tunnel(name) !== tunnel) return;
      engine.up(now(), name);
      drain();
    };
    const isFirst = !this.#waiting.has(name);
    const up = this.#wait(name, signal, givenUp);
    if (isFirst) engine.bringUp(now(), name);
    drain();
    await up;
  }

  /** @param givenUp called when the last call that waited for the tunnel was aborted */
  #wait(tunnel: string, signal: AbortSignal | undefined, givenUp: () => void): Promise<void> {
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

  /** A child of the tunnel is up, perhaps the last one that was missing. */
  childUp(name: string): void {
    const tunnel = this.#means.engine.tunnel(name);
    if (tunnel === undefined || !isUp(tunnel)) return;
    for (const { resolve } of this.#take(name)) resolve();
  }

  removed(name: string): void {
    const reason = new SectunnelError('invalid-state', `tunnel '${name}' was removed before it was up`);
    for (const { reject } of this.#take(name)) reject(reason);
  }

  #take(tunnel: string): Wait[] {
    const waits = this.#waiting.get(tunnel);
    this.#waiting.delete(tunnel);
    const taken = [...(waits ?? [])];
    waits?.clear();
    return taken;
  }
}
