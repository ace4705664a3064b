/** Where sealed packets leave: a socket and a target, resolved once for each path and kept under the tag of its packets. */
import type { SocketAddress } from '../base/address.ts';
import type { PacketBatch } from '../base/batch.ts';
import { forEachRun } from '../engine/tags.ts';
import type { Path } from '../ike/events.ts';
import type { UdpSocket, UdpTarget } from '../tun/udp/udp.ts';

type OutletSocket = Pick<UdpSocket, 'sendBatch' | 'resolve'>;

interface Outlet {
  readonly path: Path;
  readonly socket: OutletSocket;
  readonly target: UdpTarget;
}

export interface OutletsOptions {
  /** Where packets with a tag go; another object when that changes. `undefined` when their SA is gone. */
  readonly pathOf: (tag: number) => Path | undefined;
  /** The socket that is bound to a local end point, or to its port on all addresses. */
  readonly socketOf: (local: SocketAddress) => OutletSocket | undefined;
  /** Packets had no socket to leave from: it was closed before them. */
  readonly onHomeless?: (packets: number) => void;
}

export class Outlets {
  readonly #options: OutletsOptions;
  /** By tag. BOUNDED: by the tags, which are used again. */
  #byTag: (Outlet | undefined)[] = [];

  constructor(options: OutletsOptions) {
    this.#options = options;
  }

  /** Sends each packet of a batch where its tag says; empty slots are passed over. */
  send(batch: PacketBatch): void {
    forEachRun(batch, (tag, first, end) => {
      const path = this.#options.pathOf(tag);
      if (path === undefined) return;
      const known = this.#byTag[tag];
      const outlet = known?.path === path ? known : this.#resolve(tag, path);
      if (outlet === undefined) this.#countHomeless(batch, first, end);
      else outlet.socket.sendBatch(batch, first, end, outlet.target);
    });
  }

  /** Sockets were opened or closed: every path is resolved anew. */
  forget(): void {
    this.#byTag = [];
  }

  #resolve(tag: number, path: Path): Outlet | undefined {
    const socket = this.#options.socketOf(path.local);
    if (socket === undefined) return undefined;
    const target = { to: path.remote, from: path.local };
    const outlet = { path, socket, target: socket.resolve?.(target) ?? target };
    this.#byTag[tag] = outlet;
    return outlet;
  }

  #countHomeless(batch: PacketBatch, first: number, end: number): void {
    let packets = 0;
    for (let slot = first; slot < end; slot++) if (batch.length[slot]! > 0) packets++;
    this.#options.onHomeless?.(packets);
  }
}
