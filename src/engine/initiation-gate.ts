/**
 * Bounds the IKE SAs that are begun at the same time, in a whole engine and to one peer: thousands of tunnels that start, or come
 * back after an outage, would otherwise all send their first message at once, and a peer, which computes a key exchange for
 * each, would drop most of them. What finds no place waits: peers take turns, and what waits for one peer keeps its order. A place is
 * held until the IKE SA is up or has failed, and for PLACE_TIME at most, so that peers that do not respond keep no other
 * waiting for long.
 */

export const MAX_INITIATING = 64;
/** To one address: other implementations refuse more than five half-open IKE SAs of one source. */
export const MAX_TO_PEER = 4;
/** Milliseconds. */
export const PLACE_TIME = 2_000;

interface Place {
  readonly peer: string;
  readonly until: number;
}

export class InitiationGate {
  /** By connection, in the order in which they are free again. BOUNDED: MAX_INITIATING. */
  readonly #places = new Map<string, Place>();
  /** Places by peer. BOUNDED: MAX_INITIATING. */
  readonly #taken = new Map<string, number>();
  /** Connections that wait, by peer, in the order of their turns. BOUNDED, both: by the connections. */
  readonly #queues = new Map<string, Set<string>>();
  readonly #peers = new Map<string, string>();

  /** Whether the connection has a place; without one it waits for it. @param peer its address */
  enter(now: number, connection: string, peer: string): boolean {
    if (this.#places.has(connection)) return true;
    this.#expire(now);
    if (this.#hasRoom(peer) && !this.#queues.has(peer)) {
      this.#take(now, connection, peer);
      return true;
    }
    const queue = this.#queues.get(peer) ?? new Set();
    this.#queues.set(peer, queue.add(connection));
    this.#peers.set(connection, peer);
    return false;
  }

  /** The next connection whose turn has come: it has a place now. */
  next(now: number): string | undefined {
    if (this.#queues.size === 0) return undefined;
    this.#expire(now);
    // At most MAX_INITIATING / MAX_TO_PEER of them have no room.
    for (const [peer, queue] of this.#queues) {
      if (this.#places.size >= MAX_INITIATING) return undefined;
      if (!this.#hasRoom(peer)) continue;
      const [connection] = queue;
      this.#unqueue(connection!);
      if (this.#queues.delete(peer)) this.#queues.set(peer, queue);
      this.#take(now, connection!, peer);
      return connection;
    }
    return undefined;
  }

  /** Its IKE SA is up or has failed, or it is not wanted any more. */
  leave(connection: string): void {
    this.#free(connection);
    this.#unqueue(connection);
  }

  isWaiting(connection: string): boolean {
    return this.#peers.has(connection);
  }

  /** When to ask for the next turn again, if nothing leaves before. */
  nextDeadline(): number | undefined {
    const [first] = this.#places.values();
    return this.#queues.size === 0 ? undefined : first?.until;
  }

  #hasRoom(peer: string): boolean {
    return this.#places.size < MAX_INITIATING && (this.#taken.get(peer) ?? 0) < MAX_TO_PEER;
  }

  #take(now: number, connection: string, peer: string): void {
    this.#places.set(connection, { peer, until: now + PLACE_TIME });
    this.#taken.set(peer, (this.#taken.get(peer) ?? 0) + 1);
  }

  #free(connection: string): void {
    const place = this.#places.get(connection);
    if (place === undefined) return;
    this.#places.delete(connection);
    const left = this.#taken.get(place.peer)! - 1;
    if (left > 0) this.#taken.set(place.peer, left);
    else this.#taken.delete(place.peer);
  }

  #unqueue(connection: string): void {
    const peer = this.#peers.get(connection);
    if (peer === undefined) return;
    this.#peers.delete(connection);
    const queue = this.#queues.get(peer)!;
    queue.delete(connection);
    if (queue.size === 0) this.#queues.delete(peer);
  }

  #expire(now: number): void {
    for (const [connection, { until }] of this.#places) {
      if (until > now) return;
      this.#free(connection);
    }
  }
}
