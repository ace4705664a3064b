/** A sender's sockets, found by the local address that packets leave from. */
import type { SocketAddress } from '../../base/address.ts';
import { isUnspecified } from '../../tun/udp/udp.ts';

interface Entry<Socket> {
  readonly socket: Socket;
  readonly counters: Float64Array;
}

export class LocalSockets<Socket extends { readonly local: SocketAddress }> {
  // BOUNDED: the sockets of the host.
  readonly #entries = new Map<number, Entry<Socket>>();

  add(key: number, socket: Socket, counters: Float64Array): void {
    this.#entries.set(key, { socket, counters });
  }

  remove(key: number): Socket | undefined {
    const entry = this.#entries.get(key);
    this.#entries.delete(key);
    return entry?.socket;
  }

  /** The socket that is bound to `local`, or to its port on all addresses. */
  find(local: SocketAddress): Socket | undefined {
    let socket: Socket | undefined;
    for (const entry of this.#entries.values()) {
      const bound = entry.socket.local;
      if (bound.port !== local.port || bound.vrf !== local.vrf) continue;
      if (bound.address.family !== local.address.family) continue;
      if (bound.address.value === local.address.value || isUnspecified(bound.address)) socket = entry.socket;
    }
    return socket;
  }

  [Symbol.iterator](): IterableIterator<Entry<Socket>> {
    return this.#entries.values();
  }
}
