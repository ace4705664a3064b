/**
 * ESP that comes directly over IP (protocol 50) for SAs whose ESP goes in UDP. A host whose tunnels all encapsulate has no
 * socket for it, so one is open while packets of such SAs are missing. Where the system lets us have none, nothing is seen.
 */
import type { IpAddress, IpFamily } from '../../base/address.ts';
import { readU32 } from '../../base/bytes.ts';
import type { UdpNetwork, UdpSocket } from '../../tun/udp/udp.ts';

/** Packets that are looked at between two calls of `watch`: any host can send more. */
const MAX_PACKETS = 1_000;

/** What an ESP packet must have to be one that is missing. */
export interface MissingEsp {
  readonly spiIn: number;
  readonly path: { readonly remote: { readonly address: IpAddress } };
}

export class BareEsp<Missing extends MissingEsp> {
  readonly #open: UdpNetwork['rawEsp'];
  readonly #found: (missing: Missing) => void;
  /** `undefined` while it opens, or where it cannot be opened. BOUNDED: two families. */
  readonly #sockets = new Map<IpFamily, UdpSocket | undefined>();
  /** By SPI. BOUNDED: by the caller's. */
  #missing = new Map<number, Missing>();
  #left = 0;
  #closed = false;

  constructor(open: UdpNetwork['rawEsp'], found: (missing: Missing) => void) {
    this.#open = open;
    this.#found = found;
  }

  /** Looks for packets of these SAs from now on, and no others. */
  watch(missing: readonly Missing[]): void {
    this.#missing = new Map(missing.map((one) => [one.spiIn, one]));
    this.#left = MAX_PACKETS;
    const wanted = new Set(missing.map(({ path }) => path.remote.address.family));
    for (const family of this.#sockets.keys()) if (!wanted.has(family)) this.#release(family);
    for (const family of wanted) if (!this.#sockets.has(family)) this.#listen(family);
  }

  close(): void {
    this.#closed = true;
    this.watch([]);
  }

  #listen(family: IpFamily): void {
    if (this.#open === undefined || this.#closed) return;
    this.#sockets.set(family, undefined);
    this.#open(family).then(
      (socket) => {
        // Meanwhile it may be wanted no more, or a second one was opened.
        if (!this.#sockets.has(family) || this.#sockets.get(family) !== undefined) return void socket.close();
        this.#sockets.set(family, socket);
        socket.onDatagram((data, { address }) => this.#came(family, data, address));
      },
      // Not told: it was to explain something that is reported anyway. Asked again when packets are missing anew.
      () => undefined,
    );
  }

  #release(family: IpFamily): void {
    void this.#sockets.get(family)?.close();
    this.#sockets.delete(family);
  }

  #came(family: IpFamily, data: Uint8Array, from: IpAddress): void {
    const found = data.length < 4 ? undefined : this.#missing.get(readU32(data, 0));
    if (found !== undefined && found.path.remote.address.value === from.value) {
      this.#missing.delete(found.spiIn);
      this.#found(found);
    }
    if (--this.#left <= 0) this.#release(family);
  }
}
