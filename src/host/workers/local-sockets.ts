/** A worker's sockets by the local address that packets leave from. */
import type { SocketAddress } from '../../base/address.ts';
import { isUnspecified } from '../../tun/udp/udp.ts';

interface Entry<Socket> {
  readonly socket: Socket;
  readonly counters: Float64Array;
}

export class LocalSockets<Socket extends { readonly local: SocketAddress }> {
  // BOUNDED: the sockets of the host.
  readonly #entries = new Map<number, Entry<Socket>>();
  /** What was found before: addresses of a path are the same objects as long as the path is. */
  #found = new WeakMap<SocketAddress, Socket>();
  #lastLocal: SocketAddress | undefined;
  #lastSocket: Socket | undefined;

  add(key: number, socket: Socket, counters: Float64Array): void {
    this.#entries.set(key, { socket, counters });
    this.#forget();
  }

  remove(key: number): Socket | undefined {
    const entry = this.#entries.get(key);
    this.#entries.delete(key);
    this.#forget();
    return entry?.socket;
  }

  /** The socket that is bound to `local`, or to its port on all addresses. */
  find(local: SocketAddress): Socket | undefined {
    if (local === this.#lastLocal) return this.#lastSocket;
    const socket = this.#found.get(local) ?? this.#search(local);
    if (socket !== undefined) this.#found.set(local, socket);
    this.#lastLocal = local;
    this.#lastSocket = socket;
    return socket;
  }

  #search(local: SocketAddress): Socket | undefined {
    let socket: Socket | undefined;
    for (const entry of this.#entries.values()) {
      const bound = entry.socket.local;
      if (bound.port !== local.port || bound.address.family !== local.address.family) continue;
      if (bound.address.value === local.address.value || isUnspecified(bound.address)) socket = entry.socket;
    }
    return socket;
  }

  #forget(): void {
    this.#found = new WeakMap();
    this.#lastLocal = undefined;
  }

  [Symbol.iterator](): IterableIterator<Entry<Socket>> {
    return this.#entries.values();
  }
}
