/** Tunnels that are being removed: a call for one that is already on its way ends with that one. */
import { deferred } from '../base/deferred.ts';
import type { ControlPlane } from '../engine/control-plane.ts';

/** How often it is asked whether the peers confirmed a deletion before the sockets close, and the milliseconds between. */
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

/** Waits until the peers of these connections have confirmed that their SAs are deleted; for a dead peer one second. */
export async function farewell({ ike }: Pick<ControlPlane, 'ike'>, connections: ReadonlySet<string>): Promise<void> {
  const leaving = (): boolean => [...connections].some((connection) => ike.status(connection).length > 0);
  for (let check = 0; check < FAREWELL_CHECKS && leaving(); check++) {
    await new Promise((resolve) => setTimeout(resolve, FAREWELL_PAUSE));
  }
}
