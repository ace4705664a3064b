/** Tunnels that are being removed: a call for one that is already on its way ends with that one. */
import { deferred } from '../base/deferred.ts';
import type { TunnelConfig } from '../engine/config.ts';
import type { ControlPlane } from '../engine/control-plane.ts';

/** How often it is asked whether the peers have answered before the sockets close, and the milliseconds between. */
const FAREWELL_CHECKS = 100;
const FAREWELL_PAUSE = 10;

export class Removals {
  /** By the name of the tunnel. BOUNDED: as the tunnels that are removed. */
  readonly #running = new Map<string, Promise<void>>();

  names(): Iterable<string> {
    return this.#running.keys();
  }

  /** What a removal comes to that is under way. */
  get(name: string): Promise<void> | undefined {
    return this.#running.get(name);
  }

  /** Removes a tunnel. It is under way before `remove` is called, which may cause others to ask for the same. */
  async run(name: string, remove: () => Promise<void>): Promise<void> {
    const { promise, resolve, reject } = deferred();
    this.#running.set(name, promise);
    remove().then(resolve, reject);
    try {
      await promise;
    } finally {
      if (this.#running.get(name) === promise) this.#running.delete(name);
    }
  }
}

/** Waits until no SA is being made or replaced, which another process could not go on with; for a slow peer one second. */
export async function settled({ ike }: Pick<ControlPlane, 'ike'>): Promise<void> {
  ike.settle();
  for (let check = 0; check < FAREWELL_CHECKS && !ike.isSettled; check++) {
    await new Promise((resolve) => setTimeout(resolve, FAREWELL_PAUSE));
  }
}

/** Waits until the peers of a tunnel have confirmed the deletions that are under way; for a dead peer one second. */
export async function farewell({ ike }: Pick<ControlPlane, 'ike'>, { connections }: TunnelConfig): Promise<void> {
  const leaving = (): number[] =>
    connections.flatMap(({ name }) => ike.status(name).flatMap(({ id, state }) => (state === 'deleting' ? [id] : [])));
  const waitedFor = new Set(leaving());
  for (let check = 0; check < FAREWELL_CHECKS && leaving().some((id) => waitedFor.has(id)); check++) {
    await new Promise((resolve) => setTimeout(resolve, FAREWELL_PAUSE));
  }
}
