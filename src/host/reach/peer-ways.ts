/**
 * The ways from this host to the peers: by which link and router packets of a local address leave. When addresses, links or
 * routes change they are looked up again, so that a way that is gone or another one is not found out by the peer's silence
 * alone, which takes minutes:
 *
 * - the local address is gone, none was prescribed, and another one has a way: the IKE SA is begun anew from there;
 * - there is another way than before, or one again: the peer is asked whether it is there (RFC 7296 §2.4), and an attempt
 *   that waits for its time is made at once;
 * - there is none: that is told, and shown until there is one.
 *
 * Only a change of the way counts, so routes that come and go and lead elsewhere cause nothing but look-ups.
 */
import { setImmediate } from 'node:timers/promises';
import { formatAddress, type IpAddress } from '../../base/address.ts';

/** From where to where packets of a tunnel itself go. */
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
  /** The system could not be asked: nothing is known. */
  readonly refused: (error: unknown) => void;
}

/** What is told together is looked at together. Milliseconds. */
const GATHER = 20;
/** The least pause between two looks in milliseconds, and as a multiple of how long the last one took. */
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

  /** From now on the way is known: changes count from here. */
  note(target: WayTarget): void {
    this.#compare(target);
  }

  forget(tunnel: string): void {
    for (const [key, { target }] of this.#known) if (target.tunnel === tunnel) this.#known.delete(key);
  }

  /** Addresses, links or routes of this host are other than before. */
  changed(): void {
    if (this.#closed || this.#timer !== undefined) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    const pause = Math.max(GATHER, this.#notBefore - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#look();
    }, pause).unref();
  }

  /** For what a tunnel has no way, a sentence each. */
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

  async #look(): Promise<void> {
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
    const text = `packets to the peer ${formatAddress(target.remote)} leave ${way} now`;
    if (before.way === undefined) report({ tunnel, level: 'info', text, event: 'restored' });
    else report({ tunnel, level: 'info', text: `${text}, and left ${before.way}`, event: undefined });
    this.#tryAgain(target);
  }

  /** Whether the IKE SA is begun anew from another address. */
  #moveAway({ key, local, remote, ikeSa, movable }: WayTarget): boolean {
    if (ikeSa === undefined || local === undefined || !movable) return false;
    const source = this.#options.sourceFor(remote);
    if (source === undefined || source.value === local.value) return false;
    this.#known.delete(key);
    const detail = `nothing can be sent from ${formatAddress(local)} any more; it is begun anew from ${formatAddress(source)}`;
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
  return `this host has no way to the peer ${formatAddress(remote)}${from}; see: ip route get ${formatAddress(remote)}${from}`;
}
