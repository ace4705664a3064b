/**
 * The interface of the UDP sockets that carry IKE and UDP-encapsulated ESP (RFC 3948), and of those for ESP straight
 * over IP, and what its implementations share: `linux.ts` (system calls that take many datagrams), `node.ts` (Node's dgram, wherever
 * Node runs) and `memory.ts` (sockets joined in one process).
 *
 * Local addresses. A socket is bound to one local address and port, and every datagram of it leaves from there. IKE
 * needs to know the local address (NAT detection hashes it, RFC 7296 §2.23), and a peer expects answers from the
 * address that it wrote to. A socket that is bound to the unspecified address tells it for each datagram, and sends
 * from the one that it is told. Only dgram can do neither: there the operating system picks the source of each
 * datagram by its route, and the answer of `UdpBindOptions.sourceFor` (a route look-up) is reported as the local
 * address. On a host with several addresses in one network, bind one such socket to each address instead.
 */
import type { IpAddress, SocketAddress } from '../../base/address.ts';
import type { PacketBatch } from '../../base/batch.ts';
import type { PathReport } from '../../base/path-report.ts';

/** Why a datagram was not sent. Named after the system's error where there is one. */
export type UdpSendError =
  /** Nobody listens there (ICMP port unreachable). */
  | 'ECONNREFUSED'
  /** The host there does not speak ESP straight over IP (ICMP protocol unreachable). */
  | 'ENOPROTOOPT'
  | 'EHOSTUNREACH'
  | 'ENETUNREACH'
  /** Larger than a datagram, or than the path takes. */
  | 'EMSGSIZE'
  | 'ENOBUFS'
  /** Refused by a firewall or policy rule. */
  | 'EPERM'
  /** Refused by a route that prohibits, or a security module. */
  | 'EACCES'
  /** The local address is gone. */
  | 'EADDRNOTAVAIL'
  /** Too many datagrams wait for the system to take them. */
  | 'queue-full'
  /** The destination is of the other family than the socket. */
  | 'wrong-family'
  | 'closed'
  | 'other';

/** Counted since the socket was bound. Live: the same object shows later values. */
export interface UdpCounters {
  receivedDatagrams: number;
  receivedBytes: number;
  sentDatagrams: number;
  sentBytes: number;
  /** Errors that the system reported without a datagram of ours to pin them on. */
  receiveErrors: number;
  readonly sendErrors: Record<UdpSendError, number>;
}

/**
 * Takes a datagram that came in. `data` is valid during the call only; it may be overwritten in place (ESP opens it
 * there); what is kept longer must be copied. `from` and `local` are immutable and may be kept. `trafficClass` is the byte
 * of its IP header with DSCP and ECN, 0 where the socket cannot tell.
 */
export type DatagramHandler = (
  data: Uint8Array,
  from: SocketAddress,
  local: SocketAddress,
  trafficClass: number,
) => void;

/** Where the datagrams of a batch go. */
export interface UdpTarget {
  readonly to: SocketAddress;
  /** As for `send`. */
  readonly from?: SocketAddress | undefined;
}

/** A UDP socket, or one for ESP straight over IP, as a host works with it. */
export interface UdpSocket {
  /** As bound, with the real port when 0 was asked for. */
  readonly local: SocketAddress;
  readonly counters: Readonly<UdpCounters>;
  /** How datagrams get to the system, in its own words, such as `gro` and `gso`; may change as the system refuses. */
  readonly features: readonly string[];

  /** The later of two handlers replaces the earlier. */
  onDatagram(handler: DatagramHandler): void;

  /**
   * Sends one datagram; `data` may be reused as soon as it returns. Never throws and never waits: false when it was
   * dropped at once. An error that the system tells later is counted only.
   *
   * @param from the local address to send from, for a socket that is bound to the unspecified address
   * @param trafficClass DSCP and ECN of its IP header; 0 when left out
   */
  send(data: Uint8Array, to: SocketAddress, from?: SocketAddress, trafficClass?: number): boolean;

  /**
   * Sends the packets in slots `first` to `end - 1` of a batch, in their order, as `send` would each of them with its
   * `trafficClass`; empty slots are passed over. Returns how many were not dropped at once.
   */
  sendBatch(batch: PacketBatch, first: number, end: number, target: UdpTarget): number;

  /**
   * The same target with what the system needs to know of it, worked out once for all batches that go there. Missing where
   * there is nothing to work out.
   */
  resolve?(target: UdpTarget): UdpTarget;

  /** The zone of a link-local address that datagrams came from, which goes with the object; 0 for others. */
  scopeOf?(address: IpAddress): number;

  /** Calls `handler` when the system told errors of datagrams that were sent. Missing where it never does so later. */
  onErrors?(handler: () => void): void;

  /**
   * Calls `handler` when the system refuses datagrams, or ICMP, which anyone can forge, tells that one did not arrive: for
   * each of `send`, and once a batch for what would befall the next ones too (`outlastsDatagram`). Missing where that is not known of single ones.
   */
  onRefusal?(handler: (remote: SocketAddress, error: UdpSendError) => void): void;

  /** Calls `handler` with what ICMP says of datagrams that were too large. Missing where that cannot be had. */
  onPathReport?(handler: (report: PathReport) => void): void;

  /**
   * Lets other threads read what comes, by the descriptors, in place of the handler; of a socket that has IKE apart only
   * the rest. The socket goes on sending; whoever has a descriptor must let go of it before `close`. Missing where there
   * is no such thing.
   */
  handOver?(): readonly UdpDescriptor[];

  /** After it nothing is sent and the handler is not called again. */
  close(): Promise<void>;
}

/** A socket of the operating system's own. Plain data, good in all threads of the process. */
export interface UdpDescriptor {
  readonly fd: number;
  readonly local: SocketAddress;
  /** What the kernel does: joins datagrams that come, cuts those that go, tells the traffic class. */
  readonly gro: boolean;
  readonly gso: boolean;
  readonly ecn: boolean;
  /** The sender knows the MTU of its paths, see `path-discovery.ts`; else the kernel sees to it. */
  readonly ownDiscovery: boolean;
}

/** `sendBatch` for sockets that take one datagram at a time. */
export function sendEach(
  socket: UdpSocket,
  batch: PacketBatch,
  first: number,
  end: number,
  { to, from }: UdpTarget,
): number {
  let sent = 0;
  for (let slot = first; slot < end; slot++) {
    if (batch.length[slot]! > 0 && socket.send(batch.packet(slot), to, from, batch.trafficClass[slot]!)) sent++;
  }
  return sent;
}

/** What a socket is bound to, and what it is for. */
export interface UdpBindOptions {
  /** The unspecified address (`0.0.0.0`, `::`) for all of its family. An IPv6 socket never takes IPv4. */
  readonly address: IpAddress;
  /** 0 for any free one. */
  readonly port: number;
  /** For sockets bound to the unspecified address that cannot tell by themselves: the local address from which datagrams to `remote` leave. */
  readonly sourceFor?: (remote: IpAddress) => IpAddress | undefined;
  /**
   * IKE and ESP come to the port, and IKE is to have a queue of its own: the handler then gets IKE alone, once the rest
   * was handed over. ESP has so many queues, and comes to that of the number which its SPI leaves when it is divided by
   * them. Heeded where the system can do it. Left out, or 0: one queue for all.
   */
  readonly espQueues?: number;
  /** No ESP comes to the port: a socket that need not be quick with many datagrams, but with others' turns. */
  readonly ikeOnly?: boolean;
}

/** Where sockets come from. */
export interface UdpNetwork {
  /** @throws Error saying what to do, when the address or port cannot be had */
  bind(options: UdpBindOptions): Promise<UdpSocket>;
  /**
   * A socket for ESP straight over IP, as protocol 50, of all local addresses of a family: its datagrams are ESP packets,
   * its end points have no port (`NO_PORT`). Missing where there is no such thing.
   * @throws Error saying what to do, when it cannot be had
   */
  rawEsp?(family: IpAddress['family']): Promise<UdpSocket>;
}

export function newUdpCounters(): UdpCounters {
  return {
    receivedDatagrams: 0,
    receivedBytes: 0,
    sentDatagrams: 0,
    sentBytes: 0,
    receiveErrors: 0,
    sendErrors: {
      ECONNREFUSED: 0,
      ENOPROTOOPT: 0,
      EHOSTUNREACH: 0,
      ENETUNREACH: 0,
      EMSGSIZE: 0,
      ENOBUFS: 0,
      EPERM: 0,
      EACCES: 0,
      EADDRNOTAVAIL: 0,
      'queue-full': 0,
      'wrong-family': 0,
      closed: 0,
      other: 0,
    },
  };
}

/** The largest UDP payload: 65,535 less the UDP header and, inside IPv4, the IP header. */
export function maxDatagram(family: IpAddress['family']): number {
  return family === 4 ? 65_507 : 65_527;
}

export function isUnspecified(address: IpAddress): boolean {
  return address.value === 0n;
}
