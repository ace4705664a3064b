/**
 * The routes from this host to the peers: by which link and router packets from a local address leave. When addresses,
 * links or routes change, they are looked up again, because the peer's silence shows a lost or changed route only after minutes:
 *
 * - the local address is gone, none was configured, and another one has a route: a new IKE SA is negotiated from there;
 * - the route changed, or exists again: the peer is asked whether it is alive (RFC 7296 §2.4), and a planned attempt is made
 *   at once;
 * - there is no route: this is reported, and shown until there is one.
 *
 * Only a change of the route itself matters; changes of other routes cost a look-up.
 */
import { setImmediate } from 'node:timers/promises';
import { formatAddress, type IpAddress } from '../../base/address.ts';
import { ByTunnel } from './by-tunnel.ts';

/** The ends of a tunnel's outer packets. */
export interface PeerRouteTarget {
  /** Of this IKE SA, or of this connection while it has none. */
  readonly key: string;
  readonly tunnel: string;
  /** `undefined`: the one that the system chooses. */
  readonly local: IpAddress | undefined;
  readonly remote: IpAddress;
  /** The VRF of IKE and ESP. */
  readonly vrf?: string | undefined;
  readonly ikeSa: number | undefined;
  /** Whether another local address may take its place, and the peer can be called from there. */
  readonly movable: boolean;
}

/** A change in how a tunnel's peer is reached, in words for a log. */
export interface PeerRouteReport {
  readonly tunnel: string;
  readonly level: 'info' | 'warn';
  readonly text: string;
  readonly event: 'degraded' | 'restored' | 'nothing-received' | 'received' | undefined;
}

export interface PeerRoutesOptions {
  readonly targets: () => readonly PeerRouteTarget[];
  /** By which link and router, in words; `undefined` when there is no route, or the local address is gone. @throws Error */
  readonly routeToPeer: (remote: IpAddress, local: IpAddress | undefined, vrf?: string) => string | undefined;
  /** The local address from which packets to `remote` would leave. */
  readonly sourceFor: (remote: IpAddress) => IpAddress | undefined;
  readonly probe: (ikeSa: number) => void;
  readonly restart: (ikeSa: number, detail: string) => void;
  readonly retry: (tunnel: string) => void;
  readonly report: (report: PeerRouteReport) => void;
  /** The system could not be asked for a route. */
  readonly refused: (error: unknown) => void;
}

/** Changes within this many milliseconds are handled together. */
const GATHER = 20;
/** The least pause between two checks in milliseconds, and as a multiple of how long the last one took. */
const PAUSE = 250;
const PAUSE_FACTOR = 20;
/** Look-ups before the event loop has its turn. */
const PER_TURN = 50;

interface Known {
  readonly target: PeerRouteTarget;
  readonly route: string | undefined;
}

export class PeerRoutes {
  readonly #options: PeerRoutesOptions;
  /** BOUNDED: by the IKE SAs and connections. */
  readonly #known = new ByTunnel<string, Known>(({ target }) => target.tunnel);
  #timer: NodeJS.Timeout | undefined;
  #running = false;
  #again = false;
  #notBefore = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(options: PeerRoutesOptions) {
    this.#options = options;
  }

  /** Looks up a route, with which later look-ups are compared. */
  note(target: PeerRouteTarget): void {
    this.#compare(target);
  }

  forget(tunnel: string): void {
    this.#known.forget(tunnel);
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

  /** Peers of a tunnel without a route, a sentence each. */
  degraded(tunnel: string): string[] {
    const texts = this.#known
      .of(tunnel)
      .flatMap(({ target, route }) => (route === undefined ? [noRouteText(target)] : []));
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

  #compare(target: PeerRouteTarget): void {
    const { report, refused } = this.#options;
    let route: string | undefined;
    try {
      route = this.#options.routeToPeer(target.remote, target.local, target.vrf);
    } catch (error) {
      refused(error);
      return;
    }
    const known = this.#known.get(target.key);
    const before = known !== undefined && sameEnds(known.target, target) ? known : undefined;
    this.#known.set(target.key, { target, route });
    const { tunnel } = target;
    if (route === undefined) {
      if (this.#moveAway(target)) return;
      if (before === undefined || before.route !== undefined)
        report({ tunnel, level: 'warn', text: noRouteText(target), event: 'degraded' });
      return;
    }
    if (before === undefined || before.route === route) return;
    const text = `packets to the peer ${formatAddress(target.remote)} now leave ${route}`;
    if (before.route === undefined) report({ tunnel, level: 'info', text, event: 'restored' });
    else report({ tunnel, level: 'info', text: `${text} (before: ${before.route})`, event: undefined });
    this.#tryAgain(target);
  }

  /** Has a new IKE SA negotiated from another local address. Returns whether there is one. */
  #moveAway({ key, local, remote, ikeSa, movable }: PeerRouteTarget): boolean {
    if (ikeSa === undefined || local === undefined || !movable) return false;
    const source = this.#options.sourceFor(remote);
    if (source === undefined || source.value === local.value) return false;
    this.#known.delete(key);
    const detail = `the local address ${formatAddress(local)} is gone; a new IKE SA is negotiated from ${formatAddress(source)}`;
    this.#options.restart(ikeSa, detail);
    return true;
  }

  #tryAgain({ tunnel, ikeSa }: PeerRouteTarget): void {
    if (ikeSa === undefined) this.#options.retry(tunnel);
    else this.#options.probe(ikeSa);
  }
}

function sameEnds(a: PeerRouteTarget, b: PeerRouteTarget): boolean {
  return a.local?.value === b.local?.value && a.remote.value === b.remote.value && a.vrf === b.vrf;
}

function noRouteText({ local, remote }: PeerRouteTarget): string {
  const from = local === undefined ? '' : ` from ${formatAddress(local)}`;
  return `this host has no route to the peer ${formatAddress(remote)}${from}; see: ip route get ${formatAddress(remote)}${from}`;
}
