/**
 * UDP sockets by Node's dgram.
 *
 * Don't-fragment: dgram has no say in it. Linux's default (IP_MTU_DISCOVER = WANT, unless net.ipv4.ip_no_pmtu_disc is
 * set) sends with DF as long as a datagram fits the path MTU that it knows, learns a smaller one from ICMP, and then
 * fragments on its own; IPv6 likewise. So an outer packet that is too large costs the first one or two and is
 * fragmented from then on; the inner MTU is what keeps that from happening.
 *
 * Errors: Linux reports to an unconnected socket only what its own stack finds (no route, too large, firewall), not the
 * ICMP errors of other hosts: an ECONNREFUSED of the far end is rarely seen.
 *
 * DSCP and ECN: dgram can neither set nor report them, so datagrams leave with zero, and seem to arrive with zero. Routers
 * then drop where they would mark congestion, as for a sender without ECN (RFC 6040 §4.1, compatibility mode). But marks on
 * what a peer sends that does ECN are lost here: another reason to use `linux.ts` where it runs.
 */
import { Buffer } from 'node:buffer';
import dgram from 'node:dgram';
import type { IpAddress, SocketAddress } from '../../base/address.ts';
import { formatAddress, parseAddress } from '../../base/address.ts';
import type { PacketBatch } from '../../base/batch.ts';
import { SectunnelError } from '../../base/error.ts';
import { bindError, errorCode, sendErrorNamed } from './errors.ts';
import type {
  DatagramHandler,
  UdpBindOptions,
  UdpCounters,
  UdpNetwork,
  UdpSendError,
  UdpSocket,
  UdpTarget,
} from './udp.ts';
import { isUnspecified, maxDatagram, newUdpCounters, sendEach } from './udp.ts';

/** UDP sockets of Node's own (`node:dgram`), wherever Node runs. ESP straight over IP is not available with it. */
export const nodeUdp: UdpNetwork = {
  async bind(options: UdpBindOptions): Promise<UdpSocket> {
    const { address, port, vrf } = options;
    if (vrf !== undefined) {
      const why = 'sockets of Node itself cannot be bound to one, and system calls cannot be made here';
      throw new SectunnelError('unsupported', `<sa vrf='${vrf}'>: ${why}`);
    }
    const socket = dgram.createSocket({
      type: address.family === 4 ? 'udp4' : 'udp6',
      ...(address.family === 6 && { ipv6Only: true }),
      // Addresses are numeric; answering at once lets `send` reach the kernel before it returns.
      lookup: (hostname, _options, done) => done(null, hostname, address.family),
    });
    await new Promise<void>((resolve, reject) => {
      socket.once('error', (error) => reject(bindError(options, error)));
      socket.bind({ address: formatAddress(address), port, exclusive: true }, resolve);
    });
    socket.removeAllListeners('error');
    enlargeBuffers(socket);
    return new NodeUdpSocket(socket, options);
  },
};

/** The size that is asked for; Linux gives no more than net.core.rmem_max and wmem_max. */
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;
/** Datagrams that wait in the process when the system takes no more. */
const MAX_QUEUED = 64;
/**
 * More slots than datagrams can be on the way to the kernel (the one being sent and `MAX_QUEUED`), so that a slot is
 * free by the time its turn comes again.
 */
const SEND_SLOTS = 2 * MAX_QUEUED;
const SEND_SLOT_BYTES = 2048;
/** Peers whose parsed addresses are remembered. */
const MAX_REMEMBERED = 1024;
/** Milliseconds for which the result of a route look-up is used. */
const SOURCE_LIFETIME_MS = 10_000;

interface Peer {
  readonly from: SocketAddress;
  local: SocketAddress;
  /** When `local` is to be looked up again, in milliseconds of `performance.now()`. */
  refreshAt: number;
}

class NodeUdpSocket implements UdpSocket {
  readonly local: SocketAddress;
  readonly counters: UdpCounters = newUdpCounters();
  readonly features: readonly string[] = ['dgram', 'no-ecn'];
  readonly #socket: dgram.Socket;
  readonly #sourceFor: UdpBindOptions['sourceFor'];
  readonly #slots: Buffer[] = [];
  #nextSlot = 0;
  // BOUNDED: `MAX_REMEMBERED`; emptied when full.
  readonly #peers = new Map<string, Peer>();
  /** The text of addresses that were sent to; of a link-local peer with its zone, as it was received. */
  readonly #texts = new WeakMap<IpAddress, string>();
  #lastText = '';
  #lastPort = 0;
  #lastPeer: Peer | undefined;
  #onDatagram: DatagramHandler | undefined;
  #closed: Promise<void> | undefined;

  constructor(socket: dgram.Socket, options: UdpBindOptions) {
    this.local = { address: options.address, port: socket.address().port };
    this.#socket = socket;
    this.#sourceFor = isUnspecified(options.address) ? options.sourceFor : undefined;
    socket.on('message', (data, info) => this.#receive(data, info));
    socket.on('error', () => {
      this.counters.receiveErrors++;
    });
  }

  onDatagram(handler: DatagramHandler): void {
    this.#onDatagram = handler;
  }

  send(data: Uint8Array, to: SocketAddress): boolean {
    const refused = this.#refusal(data, to);
    if (refused !== undefined) {
      this.counters.sendErrors[refused]++;
      return false;
    }
    let text = this.#texts.get(to.address);
    if (text === undefined) {
      text = formatAddress(to.address);
      this.#texts.set(to.address, text);
    }
    this.#socket.send(this.#copy(data), 0, data.length, to.port, text, this.#sent);
    return true;
  }

  sendBatch(batch: PacketBatch, first: number, end: number, target: UdpTarget): number {
    return sendEach(this, batch, first, end, target);
  }

  close(): Promise<void> {
    this.#onDatagram = undefined;
    this.#closed ??= new Promise((resolve) => this.#socket.close(() => resolve()));
    return this.#closed;
  }

  readonly #sent = (error: Error | null, bytes: number): void => {
    if (error === null) {
      this.counters.sentDatagrams++;
      this.counters.sentBytes += bytes;
    } else {
      this.counters.sendErrors[sendErrorNamed(errorCode(error))]++;
    }
  };

  #refusal(data: Uint8Array, to: SocketAddress): UdpSendError | undefined {
    if (this.#closed !== undefined) return 'closed';
    if (to.address.family !== this.local.address.family) return 'wrong-family';
    if (data.length > maxDatagram(to.address.family)) return 'EMSGSIZE';
    // A forged datagram may come from port 0, which cannot be answered.
    if (to.port === 0) return 'other';
    return this.#socket.getSendQueueCount() >= MAX_QUEUED ? 'queue-full' : undefined;
  }

  /** dgram may hold on to what it is given until the system takes it; the caller's buffer is free at once. */
  #copy(data: Uint8Array): Buffer {
    if (data.length > SEND_SLOT_BYTES) return Buffer.from(data);
    const at = this.#nextSlot;
    this.#nextSlot = (at + 1) % SEND_SLOTS;
    this.#slots[at] ??= Buffer.allocUnsafeSlow(SEND_SLOT_BYTES);
    const slot = this.#slots[at];
    slot.set(data);
    return slot;
  }

  #receive(data: Buffer, info: dgram.RemoteInfo): void {
    this.counters.receivedDatagrams++;
    this.counters.receivedBytes += data.length;
    if (this.#onDatagram === undefined) return;
    const peer = this.#peer(info.address, info.port);
    // Not the Buffer itself: its `slice` does not copy, which is what a receiver of a Uint8Array takes for granted.
    this.#onDatagram(new Uint8Array(data.buffer, data.byteOffset, data.length), peer.from, peer.local, 0);
  }

  #peer(text: string, port: number): Peer {
    let peer = this.#lastPeer;
    if (peer === undefined || this.#lastText !== text || this.#lastPort !== port) {
      const key = `${text} ${port}`;
      peer = this.#peers.get(key);
      if (peer === undefined) {
        peer = this.#newPeer(text, port);
        if (this.#peers.size >= MAX_REMEMBERED) this.#peers.clear();
        this.#peers.set(key, peer);
      }
      this.#lastText = text;
      this.#lastPort = port;
      this.#lastPeer = peer;
    }
    if (this.#sourceFor !== undefined && performance.now() >= peer.refreshAt) {
      const source = this.#sourceFor(peer.from.address);
      peer.local = source === undefined ? this.local : { address: source, port: this.local.port };
      peer.refreshAt = performance.now() + SOURCE_LIFETIME_MS;
    }
    return peer;
  }

  #newPeer(text: string, port: number): Peer {
    const address = parseAddress(text.split('%', 1)[0]!) ?? { family: this.local.address.family, value: 0n };
    this.#texts.set(address, text);
    return { from: { address, port }, local: this.local, refreshAt: 0 };
  }
}

function enlargeBuffers(socket: dgram.Socket): void {
  try {
    socket.setRecvBufferSize(SOCKET_BUFFER_BYTES);
    socket.setSendBufferSize(SOCKET_BUFFER_BYTES);
  } catch {
    // Some systems refuse instead of giving less: then their own size has to do.
  }
}
