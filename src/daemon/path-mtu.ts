/**
 * The MTU of paths: what a device gets when its tunnel starts, and what the engine is told as the system learns more.
 * The kernel learns from ICMP, and forgets after a while (RFC 1191 §6.3, RFC 8201 §5.2); its routes are asked when an SA
 * comes up, when a datagram was too large, and now and then while there is traffic.
 */
import { formatSocketAddress, type IpFamily } from '../base/address.ts';
import { espRoom, MIN_MTU, UNKNOWN_PATH_MTU } from '../base/mtu.ts';
import type { EspProposal } from '../crypto/proposal.ts';
import type { Engine } from '../engine/engine.ts';
import { maxPayload } from '../esp/packet.ts';
import type { Path } from '../ike/events.ts';

/** Of a device, without counting what ESP adds: larger frames than jumbo ones are those of loopback interfaces. */
const MAX_PATH_MTU = 9000;
/** Segments of a full packet then start at whole words, whatever the padding would have allowed. */
const STEP = 4;

/** Milliseconds after which a path is asked for again, and the least between two questions. */
const REFRESH = 10_000;
const PAUSE = 100;

export interface DeviceNeeds {
  /** `undefined` when it is not known. */
  readonly pathMtu: number | undefined;
  readonly outer: IpFamily;
  /** Whether ESP may go in UDP. */
  readonly encapsulated: boolean;
  /** What may be agreed on: the largest overhead counts. */
  readonly proposals: readonly EspProposal[];
  /** Whether the device carries IPv6. */
  readonly ipv6: boolean;
}

/** The largest packets that fit the path, however they are sealed. */
export function deviceMtu({ pathMtu = UNKNOWN_PATH_MTU, outer, encapsulated, proposals, ipv6 }: DeviceNeeds): number {
  const room = espRoom(Math.min(pathMtu, MAX_PATH_MTU), outer, encapsulated);
  const most = proposals.flatMap(({ encryption, integrity }) =>
    encryption.flatMap((cipher) =>
      (cipher.aead ? [cipher] : integrity).map(({ icvLength }) => maxPayload(room, { ...cipher, icvLength })),
    ),
  );
  const fits = Math.min(room, ...most);
  return Math.max(fits - (fits % STEP), MIN_MTU[ipv6 ? 6 : 4]);
}

export interface PathMtusOptions {
  readonly engine: Engine;
  readonly mtuFor: (path: Path) => number | undefined;
  /** How many datagrams were too large so far. */
  readonly tooLarge: () => number;
}

/** Keeps an engine told of the MTU of its tunnels' paths. */
export class PathMtus {
  readonly #options: PathMtusOptions;
  /** By tunnel. BOUNDED: the owner's tunnels. */
  readonly #asked = new Map<string, { readonly at: number; readonly tooLarge: number }>();

  constructor(options: PathMtusOptions) {
    this.#options = options;
  }

  /** To be called before packets of the tunnel are sent: asks when it is time to. */
  check(now: number, tunnel: string): void {
    const asked = this.#asked.get(tunnel);
    if (asked !== undefined) {
      const pause = asked.tooLarge === this.#options.tooLarge() ? REFRESH : PAUSE;
      if (now - asked.at < pause) return;
    }
    this.refresh(now, tunnel);
  }

  /** Asks at once: the tunnel has a new path. */
  refresh(now: number, tunnel: string): void {
    const { engine, mtuFor, tooLarge } = this.#options;
    this.#asked.set(tunnel, { at: now, tooLarge: tooLarge() });
    const asked = new Set<string>();
    for (const { path } of engine.tunnel(tunnel)?.children.values() ?? []) {
      // Many SAs may have the same.
      const ends = `${formatSocketAddress(path.local)} ${formatSocketAddress(path.remote)}`;
      if (asked.has(ends)) continue;
      asked.add(ends);
      const mtu = mtuFor(path);
      if (mtu !== undefined) engine.setPathMtu(path, mtu);
    }
  }

  forget(tunnel: string): void {
    this.#asked.delete(tunnel);
  }
}
