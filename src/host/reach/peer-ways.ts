/**
 * The ways (routes) from this host to the peers: by which link and router packets from a local address leave. When addresses,
 * links or routes change, they are looked up again, because the peer's silence shows a lost or changed way only after minutes:
 *
 * - the local address is gone, none was configured, and another one has a way: a new IKE SA is negotiated from there;
 * - the way changed, or exists again: the peer is asked whether it is alive (RFC 7296 §2.4), and a planned attempt is made
 *   at once;
 * - there is no way: this is reported, and shown until there is one.
 *
 * Only a change of the way itself matters; changes of other routes cost a look-up.
 */
import { setImmediate } from 'node:timers/promises';
import { formatAddress, type IpAddress } from '../../base/address.ts';

/** The ends of a tunnel's outer packets. */
export interface WayTarget {
  /** Of this IKE SA, or of this connection while it has none. */
  readonly key: string;
  readonly tunnel: string;
  /** `undefined`: the one that the system chooses. */
  readonly local: IpAddress | undefined;
  readonly remote: IpAddress;
  readonly ikeSa: number | undefined;
  /** Whether another local address may take its place, and the peer can be called from there. */
  readonly movable: boolean;
}

/** A change in how a tunnel's peer is reached, in words for a log. */
export interface WayReport {
  readonly tunnel: string;
  readonly level: 'info' | 'warn';
  readonly text: string;
  readonly event: 'degraded' | 'restored' | undefined;
}

export interface PeerWaysOptions {
  readonly targets: () => readonly WayTarget[];
  /** By which link and router, in words; `undefined` when there is no way, or the local address is gone. @throws Error */
  readonly wayTo: (remote: IpAddress, local: IpAddress | undefined) => string | undefined;
  /** The local address from which packets to `remote` would leave. */
  readonly sourceFor: (remote: IpAddress) => IpAddress | undefined;
  readonly probe: (ikeSa: number) => void;
  readonly restart: (ikeSa: number, detail: string) => void;
  readonly retry: (tunnel: string) => void;
  readonly report: (report: WayReport) => void;
  /** The system could not be asked for a route. */
  readonly refused: (error: unknown) => void;
}

/** Changes within so many milliseconds are handled together. */
const GATHER = 20;
/** The least pause between two checks in milliseconds, and as a multiple of how long the last one took. */
const PAUSE = 250;
const PAUSE_FACTOR = 20;
/** Look-ups before the event loop has its turn. */
const PER_TURN = 50;

interface Known {
  readonly target: WayTarget;
  readonly way: string | undefined;
}

export class PeerWays {
  readonly #options: PeerWaysOptions;
  /** BOUNDED: by the IKE SAs and connections. */
  #known = new Map<string, Known>();
  #timer: NodeJS.Timeout | undefined;
  #running = false;
  #again = false;
  #notBefore = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(options: PeerWaysOptions) {
    this.#options = options;
  }

  /** Looks up a way, with which later look-ups are compared. */
  note(target: WayTarget): void {
    this.#compare(target);
  }

  forget(tunnel: string): void {
    for (const [key, { target }] of this.#known) if (target.tunnel === tunnel) this.#known.delete(key);
  }

  /** Addresses, links or routes of this host changed. */
  changed(): void {
    if (this.#closed || this.#timer !== undefined) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    const pause = Math.max(GATHER, this.#notBefore - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#check();
    }, pause).unref();
  }

  /** Peers of a tunnel without a way, a sentence each. */
  degraded(tunnel: string): string[] {
    const texts = [...this.#known.values()].flatMap(({ target, way }) =>
      target.tunnel === tunnel && way === undefined ? [noWayText(target)] : [],
    );
    return [...new Set(texts)];
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  async #check(): Promise<void> {
    this.#running = true;
    const began = performance.now();
    const targets = this.#options.targets();
    for (const [at, target] of targets.entries()) {
      if (at > 0 && at % PER_TURN === 0) await setImmediate();
      if (this.#closed) return;
      this.#compare(target);
    }
    const left = new Set(targets.map(({ key }) => key));
    const now = new Set(this.#options.targets().map(({ key }) => key));
    for (const key of this.#known.keys()) if (!left.has(key) && !now.has(key)) this.#known.delete(key);
    const took = performance.now() - began;
    this.#notBefore = performance.now() + Math.max(PAUSE, took * PAUSE_FACTOR);
    this.#running = false;
    if (this.#again) {
      this.#again = false;
      this.changed();
    }
  }

  #compare(target: WayTarget): void {
    const { report, refused } = this.#options;
    let way: string | undefined;
    try {
      way = this.#options.wayTo(target.remote, target.local);
    } catch (error) {
      refused(error);
      return;
    }
    const known = this.#known.get(target.key);
    const before = known !== undefined && sameEnds(known.target, target) ? known : undefined;
    this.#known.set(target.key, { target, way });
    const { tunnel } = target;
    if (way === undefined) {
      if (this.#moveAway(target)) return;
      if (before === undefined || before.way !== undefined)
        report({ tunnel, level: 'warn', text: noWayText(target), event: 'degraded' });
      return;
    }
    if (before === undefined || before.way === way) return;
    const text = `packets to the peer ${formatAddress(target.remote)} now leave ${way}`;
    if (before.way === undefined) report({ tunnel, level: 'info', text, event: 'restored' });
    else report({ tunnel, level: 'info', text: `${text} (before: ${before.way})`, event: undefined });
    this.#tryAgain(target);
  }

  /** Has a new IKE SA negotiated from another local address. Returns whether there is one. */
  #moveAway({ key, local, remote, ikeSa, movable }: WayTarget): boolean {
    if (ikeSa === undefined || local === undefined || !movable) return false;
    const source = this.#options.sourceFor(remote);
    if (source === undefined || source.value === local.value) return false;
    this.#known.delete(key);
    const detail = `the local address ${formatAddress(local)} is gone; a new IKE SA is negotiated from ${formatAddress(source)}`;
    this.#options.restart(ikeSa, detail);
    return true;
  }

  #tryAgain({ tunnel, ikeSa }: WayTarget): void {
    if (ikeSa === undefined) this.#options.retry(tunnel);
    else this.#options.probe(ikeSa);
  }
}

function sameEnds(a: WayTarget, b: WayTarget): boolean {
  return a.local?.value === b.local?.value && a.remote.value === b.remote.value;
}

function noWayText({ local, remote }: WayTarget): string {
  const from = local === undefined ? '' : ` from ${formatAddress(local)}`;
  return `this host has no route to the peer ${formatAddress(remote)}${from}; see: ip route get ${formatAddress(remote)}${from}`;
}
