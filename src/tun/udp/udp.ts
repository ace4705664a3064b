/**
 * The interface of the sockets that carry IKE and ESP, in UDP (RFC 3948) or straight over IP, and what its implementations
 * share: `linux.ts` (system calls that take many datagrams), `node.ts` (Node's dgram, wherever Node runs) and `memory.ts`
 * (sockets joined in one process).
 *
 * Local addresses. A socket is bound to one local address and port, and every datagram of it leaves from there. IKE
 * needs to know the local address (NAT detection hashes it, RFC 7296 §2.23), and a peer expects answers from the
 * address that it wrote to. A socket bound to the unspecified address reports the local address of each datagram, and
 * sends from the address that the caller names. Only dgram can do neither: there the operating system chooses the source
 * of each datagram by its route, and `UdpBindOptions.sourceFor` (a route look-up) is reported as the local address. On a host with several addresses in one network, bind one such socket to each address instead.
 */
import type { IpAddress, SocketAddress } from '../../base/address.ts';
import type { PacketBatch } from '../../base/batch.ts';
import type { PathReport } from '../../base/path-report.ts';

/** Why a datagram was not sent. Named after the system's error where there is one. */
export type UdpSendError =
  /** No program listens there (ICMP port unreachable). */
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
   * dropped at once. An error that the system reports later is only counted.
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

  /** Calls `handler` when the system reported errors of datagrams sent earlier. Missing where it never does. */
  onErrors?(handler: () => void): void;

  /**
   * Calls `handler` when the system refuses a datagram, or ICMP, which anyone can forge, reports that one did not arrive:
   * for each datagram of `send`, and once a batch for errors that the next ones would meet too (`outlastsDatagram`). Missing
   * where that is not known of single datagrams.
   */
  onRefusal?(handler: (remote: SocketAddress, error: UdpSendError) => void): void;

  /** Calls `handler` with ICMP reports of datagrams that were too large. Missing where the system gives none. */
  onPathReport?(handler: (report: PathReport) => void): void;

  /**
   * Lets other threads read from the descriptors in place of the handler; of a socket with a queue for IKE, all but IKE.
   * The socket goes on sending. Threads must have stopped using a descriptor before `close`. Missing where there are no
   * descriptors.
   */
  handOver?(): readonly UdpDescriptor[];

  /** After it nothing is sent and the handler is not called again. */
  close(): Promise<void>;
}

/** A socket of the operating system's own. Plain data, good in all threads of the process. */
export interface UdpDescriptor {
  readonly fd: number;
  readonly local: SocketAddress;
  /** What the kernel does: joins incoming datagrams, cuts outgoing ones, reports the traffic class. */
  readonly gro: boolean;
  readonly gso: boolean;
  readonly ecn: boolean;
  /** Whether the sender does path MTU discovery (`path-discovery.ts`), not the kernel. */
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
  /** The VRF that it is bound to, which must be there: it takes what comes by a link of that, and sends there. */
  readonly vrf?: string | undefined;
  /** The local address from which datagrams to `remote` leave, for unspecified sockets that cannot tell it themselves. */
  readonly sourceFor?: (remote: IpAddress) => IpAddress | undefined;
  /**
   * The number of queues for ESP beside one for IKE, on a port for both: once these are handed over, the handler gets IKE
   * alone. An ESP packet goes to queue SPI mod `espQueues`. Without effect where the system cannot do it. Default 0: one
   * queue for all.
   */
  readonly espQueues?: number;
  /** No ESP comes to the port: the socket need not be quick with many datagrams, but must leave turns to others. */
  readonly ikeOnly?: boolean;
}

/** Where sockets come from. */
export interface UdpNetwork {
  /** @throws Error saying what to do, when the address or port is not available */
  bind(options: UdpBindOptions): Promise<UdpSocket>;
  /**
   * A socket for ESP straight over IP, as protocol 50, of all local addresses of a family: its datagrams are ESP packets,
   * its end points have no port (`NO_PORT`). Missing where the system has none.
   * @throws Error saying what to do, when it is not available
   */
  rawEsp?(family: IpAddress['family'], vrf?: string): Promise<UdpSocket>;
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
