/**
 * Which request of the control socket is carried out next. Connections take turns: each has one request in the queue at most,
 * and goes to its end with the next one; every second turn is for connections that have not had one yet, so that a command
 * does not wait for all those who ask without end. What takes long waits in its lane, where so many may run at the same time, and keeps
 * requests of other lanes from nothing.
 */

/** What a verb waits for. */
export type Lane =
  /** Nothing: the reply comes from memory. */
  | 'memory'
  /** The kernel: what stands there of routes and fences. */
  | 'host'
  /** Other programs and hosts: libvirt, servers of revocation lists, a client that hands a secret over. */
  | 'outside'
  /** Changes before it: of the same tunnel, or of all. */
  | 'change'
  /** The same, of libvirt's networks: libvirt waits for the reply. */
  | 'network';

/** Requests of a lane that run at the same time. */
const LANE_LIMIT: Readonly<Record<Lane, number>> = {
  memory: Number.POSITIVE_INFINITY,
  host: 32,
  outside: 8,
  change: 8,
  network: 8,
};

export interface Work {
  readonly lane: Lane;
  /** Does not reject. */
  run(): Promise<void>;
}

/** A connection with a request. */
export interface Requester {
  /** It has a complete request, and got no reply yet. */
  readonly isNew: boolean;
  /** Takes the request, once. */
  take(): Work;
}

interface LaneState {
  running: number;
  // BOUNDED: one entry for each connection.
  readonly waiting: Map<Requester, Work>;
}

export class RequestQueue {
  // BOUNDED: one entry for each connection.
  readonly #turns = { first: new Set<Requester>(), further: new Set<Requester>() };
  #last: 'first' | 'further' = 'further';
  // BOUNDED: by the lanes.
  readonly #lanes = new Map<Lane, LaneState>();
  #next: NodeJS.Immediate | undefined;

  /** A request has come, of one that has none in the queue or at work. */
  enter(requester: Requester): void {
    this.#turns[requester.isNew ? 'first' : 'further'].add(requester);
    this.#next ??= setImmediate(() => this.#serve());
  }

  /** It has gone; a request that runs already goes on. */
  leave(requester: Requester): void {
    for (const turns of Object.values(this.#turns)) turns.delete(requester);
    for (const { waiting } of this.#lanes.values()) waiting.delete(requester);
  }

  /** One request, then the event loop goes round once: IKE, timers and new connections never wait for two. */
  #serve(): void {
    this.#next = undefined;
    const { first, further } = this.#turns;
    const isFirst = first.size > 0 && (further.size === 0 || this.#last === 'further');
    const turns = isFirst ? first : further;
    const [requester] = turns;
    if (requester === undefined) return;
    this.#last = isFirst ? 'first' : 'further';
    turns.delete(requester);
    this.#place(requester, requester.take());
    if (first.size + further.size > 0) this.#next ??= setImmediate(() => this.#serve());
  }

  #place(requester: Requester, work: Work): void {
    const lane = this.#lane(work.lane);
    if (lane.running >= LANE_LIMIT[work.lane]) lane.waiting.set(requester, work);
    else this.#run(lane, work);
  }

  #run(lane: LaneState, work: Work): void {
    lane.running++;
    void work.run().finally(() => {
      lane.running--;
      for (const [requester, next] of lane.waiting) {
        lane.waiting.delete(requester);
        this.#run(lane, next);
        break;
      }
    });
  }

  #lane(name: Lane): LaneState {
    let lane = this.#lanes.get(name);
    if (lane === undefined) {
      lane = { running: 0, waiting: new Map() };
      this.#lanes.set(name, lane);
    }
    return lane;
  }
}
