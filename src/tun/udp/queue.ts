/**
 * One thread's end of a socket for UDP, or for ESP straight over IP: sends and receives by a descriptor that it neither opens
 * nor closes, and never waits. Several threads may each have an end of the same socket.
 */
// The global of that name is looked up anew each time.
import { performance } from 'node:perf_hooks';
import { type IpAddress, NO_PORT, type SocketAddress } from '../../base/address.ts';
import type { PacketBatch } from '../../base/batch.ts';
import type { PathReport } from '../../base/path-report.ts';
import { ERRNO } from '../../sys/errno.ts';
import { libc } from '../../sys/libc.ts';
import { outlastsDatagram, sendErrorOf } from './errors.ts';
import * as layout from './layout.ts';
import { DatagramReader } from './linux-read.ts';
import { DatagramWriter, Segmentation, type Sending } from './linux-write.ts';
import { PathDiscovery } from './path-discovery.ts';
import type { DatagramHandler, UdpCounters, UdpDescriptor, UdpSendError, UdpTarget } from './udp.ts';
import { isUnspecified, maxDatagram, newUdpCounters } from './udp.ts';

/** Messages that are read at once, where each may hold 64 datagrams (UDP_GRO). More would not fit the caches. */
const MESSAGES_PER_READ = 8;
/** The same of single datagrams, for who opens them where they are: what is read at once is joined for the device. */
const SINGLE_MESSAGES_PER_READ = 64;
const MAX_MESSAGE_BYTES = 65_536;
/** Bytes that `readerInto` needs. */
export const READER_BYTES: number = DatagramReader.bytesFor(SINGLE_MESSAGES_PER_READ, MAX_MESSAGE_BYTES);
/**
 * Datagrams and errors, and milliseconds, after which other sockets, timers and the control socket have their turn: the sender
 * decides how much an IKE datagram costs, up to a key exchange.
 */
const DATAGRAMS_PER_TURN = 512;
const MILLISECONDS_PER_TURN = 4;
/** Errors that are read at once, with the first bytes of their datagrams; and how often in a row. */
const ERRORS_PER_READ = 8;
const QUOTED_BYTES = 64;
const ERROR_READS = 8;
/** Failures in one turn without an error in the queue, after which the socket pauses. */
const MAX_FAILURES_PER_TURN = 16;

/** Memory of the calls, used by one socket at a time: what is read is handed on before anything else is read. */
interface Shared {
  readonly reader: DatagramReader;
  /** Apart, because errors are read off while datagrams are handed on: by a handler that sends. */
  readonly errorReader: DatagramReader;
  readonly writer: DatagramWriter;
}

let shared: Shared | undefined;

function sharedMemory(): Shared {
  const calls = libc();
  shared ??= {
    reader: new DatagramReader(calls, MESSAGES_PER_READ, MAX_MESSAGE_BYTES),
    errorReader: new DatagramReader(calls, ERRORS_PER_READ, QUOTED_BYTES),
    writer: new DatagramWriter(calls),
  };
  return shared;
}

/** What reads to memory of the caller's, `READER_BYTES` long, for the queues of a thread that are read one at a time. */
export function readerInto(memory: Uint8Array): DatagramReader {
  return new DatagramReader(libc(), SINGLE_MESSAGES_PER_READ, MAX_MESSAGE_BYTES, memory);
}

/**
 * How a turn of reading ended: `empty`, nothing was there; `taken`, all was read; `more`, others must have their turn;
 * `failing`, the socket fails and gives no reason.
 */
export type Turn = 'empty' | 'taken' | 'more' | 'failing';

/** A target as the kernel takes it: the names of both ends, and the socket to send by. */
class ResolvedTarget implements UdpTarget, Sending {
  readonly end: UdpQueue;
  readonly to: SocketAddress;
  readonly from: SocketAddress | undefined;
  /** Why nothing can be sent there. */
  readonly refused: UdpSendError | undefined;
  readonly fd: number;
  readonly counters: UdpCounters;
  readonly segmentation: Segmentation;
  readonly name: Int32Array;
  readonly source: Int32Array | undefined;
  readonly readErrors: () => number;

  constructor(end: UdpQueue, { to, from }: UdpTarget, refused: UdpSendError | undefined, sending: Sending) {
    this.end = end;
    this.to = to;
    this.from = from;
    this.refused = refused;
    this.fd = sending.fd;
    this.counters = sending.counters;
    this.segmentation = sending.segmentation;
    this.name = sending.name;
    this.source = sending.source;
    this.readErrors = sending.readErrors;
  }
}

export class UdpQueue {
  readonly local: SocketAddress;
  readonly counters: UdpCounters = newUdpCounters();
  readonly #fd: number;
  readonly #gro: boolean;
  readonly #ecn: boolean;
  /** There are no ports, and what is received of IPv4 begins with the IP header (raw(7)). */
  readonly #raw: boolean;
  readonly #shared: Shared = sharedMemory();
  readonly #reader: DatagramReader;
  /** Asked for in the next call. */
  #messages = MESSAGES_PER_READ;
  readonly #addresses: layout.AddressTable;
  /** This host's own. */
  readonly #locals: layout.AddressTable;
  readonly #segmentation: Segmentation;
  readonly #readErrors = (): number => this.takeErrors();
  #released = false;
  /** Takes what routers report about datagrams that were too large. */
  onPathReport: (report: PathReport) => void = () => undefined;
  /** Takes why datagrams were refused, at once or later by ICMP: each one of `send`, and the last of each batch. */
  onRefusal: (remote: SocketAddress, error: UdpSendError) => void = () => undefined;
  readonly #discovery: PathDiscovery | undefined;

  /** @param reader of `readerInto`; when left out, what is received lies in memory that all of the thread share */
  constructor({ fd, local, gro, gso, ecn, ownDiscovery }: UdpDescriptor, reader?: DatagramReader) {
    this.#reader = reader ?? this.#shared.reader;
    this.local = local;
    this.#fd = fd;
    this.#discovery = ownDiscovery ? new PathDiscovery(fd, local.address.family) : undefined;
    this.#gro = gro;
    this.#ecn = ecn;
    this.#raw = local.port === NO_PORT;
    this.#segmentation = new Segmentation({ available: gso });
    this.#addresses = new layout.AddressTable(local.address.family);
    this.#locals = new layout.AddressTable(local.address.family, local.vrf);
  }

  get features(): readonly string[] {
    const receiving = this.#gro ? 'gro' : 'recvmmsg';
    const sending = this.#segmentation.works ? 'gso' : 'sendmmsg';
    return [...(this.#raw ? ['esp'] : []), receiving, sending, this.#ecn ? 'ecn' : 'no-ecn'];
  }

  send(data: Uint8Array, to: SocketAddress, from?: SocketAddress, trafficClass = 0): boolean {
    const target = this.#resolved({ to, from });
    const refused = data.length > maxDatagram(to.address.family) ? 'EMSGSIZE' : this.#refusal(target);
    if (refused !== undefined) {
      this.counters.sendErrors[refused]++;
      return false;
    }
    const { writer } = this.#shared;
    // IKE may be larger than its path takes, and has no SA that would adjust its size: the kernel fragments it.
    this.#discovery?.set('kernel');
    const sent = writer.send(target, data, trafficClass);
    this.#discovery?.set('own');
    if (!sent) this.onRefusal(to, writer.refusal ?? 'other');
    return sent;
  }

  /** A target with the names that the kernel takes. */
  resolve(target: UdpTarget): UdpTarget {
    return this.#resolved(target);
  }

  sendBatch(batch: PacketBatch, first: number, end: number, to: UdpTarget): number {
    const target = to instanceof ResolvedTarget && to.end === this ? to : this.#resolved(to);
    const refused = this.#refusal(target);
    if (refused === undefined) {
      const { writer } = this.#shared;
      writer.refusal = undefined;
      const sent = this.#sendRuns(batch, first, end, target);
      if (writer.refusal !== undefined && outlastsDatagram(writer.refusal)) this.onRefusal(target.to, writer.refusal);
      return sent;
    }
    for (let slot = first; slot < end; slot++) if (batch.length[slot]! > 0) this.counters.sendErrors[refused]++;
    return 0;
  }

  /** Sends packets that fit their path apart from those that the kernel is to fragment, each in their order. */
  #sendRuns(batch: PacketBatch, first: number, end: number, sending: Sending): number {
    const { writer } = this.#shared;
    const { fragmentable } = batch;
    if (this.#discovery === undefined) return writer.sendBatch(sending, batch, first, end);
    let sent = 0;
    for (let at = first; at < end; ) {
      let next = at + 1;
      while (next < end && fragmentable[next] === fragmentable[at]) next++;
      if (fragmentable[at] === 0) sent += writer.sendBatch(sending, batch, at, next);
      else {
        this.#discovery.set('kernel');
        sent += writer.sendBatch(sending, batch, at, next);
        this.#discovery.set('own');
      }
      at = next;
    }
    return sent;
  }

  /** The zone of a link-local address that datagrams came from; 0 for others. */
  scopeOf(address: IpAddress): number {
    return this.#addresses.scopeOf(address);
  }

  /** What the socket's end in another thread knows of an address. */
  learnScope(address: IpAddress, scope: number): void {
    this.#addresses.learnScope(address, scope);
  }

  /** The descriptor is not used after it. */
  release(): void {
    this.#released = true;
  }

  /**
   * Hands on what waits, until nothing is left or other sockets must have their turn.
   * @param afterRead called after each call of the system; until then what was handed on may be used where it lies
   */
  receive(handler: DatagramHandler, afterRead: () => void = () => undefined): Turn {
    let taken = 0;
    let failures = 0;
    const end = performance.now() + MILLISECONDS_PER_TURN;
    while (!this.#released && taken < DATAGRAMS_PER_TURN && (taken === 0 || performance.now() < end)) {
      const asked = this.#messages;
      const count = this.#reader.read(this.#fd, 0, asked);
      if (count > 0) {
        const datagrams = this.#deliver(count, handler);
        afterRead();
        taken += datagrams;
        this.#messages = datagrams > count ? MESSAGES_PER_READ : this.#reader.capacity;
        if (count < asked) return 'taken';
        continue;
      }
      const errno = count === 0 ? ERRNO.EAGAIN : libc().errno();
      if (errno === ERRNO.EAGAIN) return taken > 0 ? 'taken' : 'empty';
      // The call failed with an error that is in the queue too: the next one goes on.
      const errors = errno === ERRNO.EINTR ? 1 : this.takeErrors();
      taken += errors;
      if (errors > 0) continue;
      this.counters.receiveErrors++;
      if (++failures === MAX_FAILURES_PER_TURN) return 'failing';
    }
    return 'more';
  }

  #refusal({ refused }: ResolvedTarget): UdpSendError | undefined {
    return this.#released ? 'closed' : refused;
  }

  #resolved({ to, from }: UdpTarget): ResolvedTarget {
    const name = layout.encodeSockaddr(to, this.#addresses.scopeOf(to.address));
    return new ResolvedTarget(this, { to, from }, this.#mismatch(to), {
      fd: this.#fd,
      counters: this.counters,
      segmentation: this.#segmentation,
      name,
      source: from === undefined ? undefined : this.#sourceOf(from),
      readErrors: this.#readErrors,
    });
  }

  /** Why nothing can be sent there, whatever the system says. */
  #mismatch(to: SocketAddress): UdpSendError | undefined {
    if (to.address.family !== this.local.address.family) return 'wrong-family';
    // A forged datagram may come from port 0, which cannot be answered.
    return (to.port === NO_PORT) === this.#raw ? undefined : 'other';
  }

  #sourceOf(from: SocketAddress): Int32Array | undefined {
    const { address } = this.local;
    if (!isUnspecified(address) || isUnspecified(from.address) || from.address.family !== address.family)
      return undefined;
    return layout.encodePktinfo(from.address);
  }

  /** Hands on what was read. Returns the number of datagrams. */
  #deliver(count: number, handler: DatagramHandler): number {
    const reader = this.#reader;
    const { counters } = this;
    let datagrams = 0;
    for (let message = 0; message < count; message++) {
      if (!reader.inspect(message)) {
        counters.receiveErrors++;
        continue;
      }
      const from = this.#addressAt(reader, reader.nameAt(message));
      const local =
        reader.localAt === 0 ? this.local : this.#locals.find(reader.words, reader.localAt, this.local.port, 0);
      const { trafficClass } = reader;
      const end = reader.start + reader.length;
      let at = reader.start + (this.#raw && this.local.address.family === 4 ? reader.ipHeaderLength() : 0);
      do {
        const length = Math.min(reader.segment, end - at);
        datagrams++;
        counters.receivedDatagrams++;
        counters.receivedBytes += length;
        handler(reader.view(at, length), from, local, trafficClass);
        // The handler released it; other sockets may use the reader's memory now.
        if (this.#released) return datagrams;
        at += length;
      } while (at < end);
    }
    return datagrams;
  }

  #addressAt({ words }: DatagramReader, name: number): SocketAddress {
    const { family } = this.local.address;
    const port = layout.sockaddrPort(words[name]!);
    const scope = family === 6 ? words[name + layout.SOCKADDR_SCOPE]! : 0;
    return this.#addresses.find(words, name + layout.SOCKADDR_ADDRESS[family], port, scope);
  }

  #report(message: number): void {
    const { errorReader } = this.#shared;
    this.onPathReport({
      remote: this.#addressAt(errorReader, errorReader.nameAt(message)),
      mtu: errorReader.icmpInfo,
      quote: errorReader.view(errorReader.start, errorReader.length).slice(),
    });
  }

  /** Reads the errors that ICMP reported from the error queue and counts them. Returns how many there were. */
  takeErrors(): number {
    const { errorReader } = this.#shared;
    let taken = 0;
    for (let round = 0; round < ERROR_READS && !this.#released; round++) {
      const count = errorReader.read(this.#fd, layout.MSG_ERRQUEUE);
      for (let message = 0; message < count; message++) {
        // The quoted datagram is cut off, which does not matter.
        errorReader.inspect(message);
        // The call that sent the datagram returned errors of this host already.
        if (errorReader.icmpError === 0) continue;
        const error = sendErrorOf(errorReader.icmpError);
        this.counters.sendErrors[error]++;
        if (error === 'EMSGSIZE') this.#report(message);
        else this.onRefusal(this.#addressAt(errorReader, errorReader.nameAt(message)), error);
        taken++;
      }
      if (count < ERRORS_PER_READ) break;
    }
    return taken;
  }
}
