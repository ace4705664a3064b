/**
 * The MTU of paths: a device's when its tunnel starts, and updates for the engine. Routes and
 * interfaces are asked when an SA comes up, when a datagram was too large, and now and then while there is traffic. What
 * routers report of narrower links, and the engine believes, is kept for a while (RFC 1191 §6.3, RFC 8201 §5.2); then the
 * next large packet tries whether the path has become wider.
 */
import { formatSocketAddress } from '../base/address.ts';
import { messageOf } from '../base/text.ts';
import type { ControlPlane } from '../engine/control-plane.ts';
import type { BelievedReport } from '../engine/path-reports.ts';
import { SaCounter } from '../esp/usage.ts';
import type { Path } from '../ike/events.ts';

/** Milliseconds after which a path is asked for again, and the least between two questions. */
const REFRESH = 10_000;
const PAUSE = 100;
/** Milliseconds: the path of an SA that sent nothing for this long is not asked for. */
const RECENTLY = 2 * REFRESH;
/** Milliseconds for which a report is kept (RFC 1191 §6.3). */
const KEEP_REPORT = 600_000;

export interface PathMtusOptions {
  readonly engine: ControlPlane;
  readonly mtuFor: (path: Path) => number | undefined;
  /** How many datagrams were too large so far. */
  readonly tooLarge: () => number;
}

/** Keeps an engine informed of the MTU of its tunnels' paths. */
export class PathMtus {
  readonly #options: PathMtusOptions;
  /** When a check is due again, unless a datagram was too large. */
  #checkAt = Number.NEGATIVE_INFINITY;
  #checkSoonAt = Number.NEGATIVE_INFINITY;
  #tooLarge = 0;

  /** What routers reported, by path. BOUNDED: by the paths of SAs; of each for `KEEP_REPORT`. */
  readonly #reported = new Map<string, { readonly mtu: number; readonly until: number }>();

  constructor(options: PathMtusOptions) {
    this.#options = options;
  }

  /** To be called when packets are about to be sent: when it is time to, asks for the paths that packets went by. */
  check(now: number, tunnels: () => Iterable<string>): void {
    const tooLarge = this.#options.tooLarge();
    const isSoon = tooLarge !== this.#tooLarge && now >= this.#checkSoonAt;
    if (now < this.#checkAt && !isSoon) return;
    this.#tooLarge = tooLarge;
    this.#checkAt = now + REFRESH;
    this.#checkSoonAt = now + PAUSE;
    const asked = new Set<string>();
    for (const name of tunnels()) {
      for (const { path, sent } of this.#options.engine.tunnel(name)?.children.values() ?? []) {
        if (sent.counters[SaCounter.lastUsed]! > now - RECENTLY) this.#ask(now, path, asked);
      }
    }
  }

  /** Asks at once: the tunnel has a new path. */
  refresh(now: number, tunnel: string): void {
    const asked = new Set<string>();
    for (const { path } of this.#options.engine.tunnel(tunnel)?.children.values() ?? []) this.#ask(now, path, asked);
  }

  /** @param asked paths that were asked for: many SAs may have the same */
  #ask(now: number, path: Path, asked: Set<string>): void {
    const { engine, mtuFor } = this.#options;
    const ends = endsOf(path);
    if (asked.has(ends)) return;
    asked.add(ends);
    const mtu = mtuFor(path);
    const reported = this.#reportedOf(now, ends);
    if (mtu !== undefined) engine.setPathMtu(path, Math.min(mtu, reported ?? mtu));
  }

  /** A path takes no more than a router reported. */
  learn(now: number, { path, mtu }: BelievedReport): void {
    for (const ends of [...this.#reported.keys()]) this.#reportedOf(now, ends);
    this.#reported.set(endsOf(path), { mtu, until: now + KEEP_REPORT });
    this.#options.engine.setPathMtu(path, mtu);
  }

  /** Forgets what is too old. */
  #reportedOf(now: number, ends: string): number | undefined {
    const found = this.#reported.get(ends);
    if (found === undefined || now < found.until) return found?.mtu;
    this.#reported.delete(ends);
    return undefined;
  }
}

function endsOf({ local, remote }: Path): string {
  return `${formatSocketAddress(local)} ${formatSocketAddress(remote)}`;
}

/**
 * Asks the system about a route. When it cannot answer, the answer is not known: it is asked again later.
 * @param refused is given why, in words
 */
export function orUnknown<Words extends unknown[], T>(
  ask: ((...words: Words) => T | undefined) | undefined,
  refused: (text: string) => void,
): (...words: Words) => T | undefined {
  return (...words) => {
    try {
      return ask?.(...words);
    } catch (error) {
      refused(`the system could not be asked for a route: ${messageOf(error)}`);
      return undefined;
    }
  };
}
