/**
 * UDP sockets by Linux's own calls: many datagrams in each, joined (UDP_GRO) and cut (UDP_SEGMENT) by the kernel where
 * it can, the local address of each datagram known (IP_PKTINFO), its DSCP and ECN (IP_TOS), and the errors that ICMP
 * tells (IP_RECVERR). The kernel joins only datagrams whose DSCP and ECN are the same.
 *
 * Don't-fragment: as in `udp-node.ts`, the kernel learns the path MTU, and fragments what is larger.
 *
 * Errors of ICMP arrive in a queue beside the datagrams, and the next call on the socket fails with the first of them,
 * whoever that call is for. So they are read off and counted, and the call is made again; a socket that has one is
 * readable until it was read off.
 */
import type { SocketAddress } from '../base/address.ts';
import type { PacketBatch } from '../base/batch.ts';
import { ERRNO, libc, SystemError } from './libc.ts';
import type { Watch } from './poller.ts';
import { watchReadable } from './poller.ts';
import * as layout from './socket-layout.ts';
import type { DatagramHandler, UdpBindOptions, UdpCounters, UdpNetwork, UdpSendError, UdpSocket } from './udp.ts';
import { isUnspecified, maxDatagram, newUdpCounters } from './udp.ts';
import { bindError, sendErrorOf } from './udp-errors.ts';
import { DatagramReader } from './udp-linux-read.ts';
import { DatagramWriter, Segmentation, type Sending } from './udp-linux-write.ts';

export interface LinuxUdpOptions {
  /** False to do without, as on a kernel that has not got it. Default: what the kernel has. */
  readonly gro?: boolean;
  readonly gso?: boolean;
}

export function linuxUdp(options: LinuxUdpOptions = {}): UdpNetwork {
  return {
    // An async function, so that what it throws rejects.
    async bind(wanted: UdpBindOptions): Promise<UdpSocket> {
      try {
        return openSocket(wanted, options);
      } catch (error) {
        throw error instanceof SystemError ? bindError(wanted, error) : error;
      }
    },
  };
}

/** Whether this is a Linux whose structures are known, and koffi is there. */
export function hasLinuxUdp(): boolean {
  if (process.platform !== 'linux' || !KNOWN_PROCESSORS.includes(process.arch)) return false;
  try {
    libc();
    return true;
  } catch {
    return false;
  }
}

const KNOWN_PROCESSORS: readonly string[] = ['x64', 'arm64', 'riscv64'];

const SOCK_DGRAM_NONBLOCK_CLOEXEC = 0o2004002;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
/** Of which the kernel gives twice as much, for its own structures. */
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;

/** Messages that are read at once; with UDP_GRO each may hold 64 datagrams. More only wander out of the caches. */
const MESSAGES_PER_READ = 8;
const MAX_MESSAGE_BYTES = 65_536;
/** Datagrams and errors after which other sockets and timers have their turn. */
const DATAGRAMS_PER_TURN = 512;
/** Errors that are read off at once, of whose datagrams a few bytes will do; and how often in a row. */
const ERRORS_PER_READ = 8;
const QUOTED_BYTES = 64;
const ERROR_READS = 8;
/** A socket that fails so often in one turn, for no reason that could be read off, is left alone for a while. */
const MAX_FAILURES_PER_TURN = 16;
const PAUSE_AFTER_FAILURES_MS = 100;

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

interface Offloads {
  readonly gro: boolean;
  readonly gso: boolean;
  /** The traffic class is told. */
  readonly ecn: boolean;
}

function openSocket(wanted: UdpBindOptions, options: LinuxUdpOptions): LinuxUdpSocket {
  const { address } = wanted;
  const calls = libc();
  const fd = calls.socket(address.family === 4 ? layout.AF_INET : layout.AF_INET6, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0);
  if (fd < 0) throw new SystemError('socket', calls.errno());
  try {
    const set = (level: number, option: number, value: number): boolean =>
      calls.setsockopt(fd, level, option, new Uint8Array(Int32Array.of(value).buffer)) === 0;
    if (address.family === 6) set(layout.SOL_IPV6, layout.IPV6_V6ONLY, 1);
    if (address.family === 4) set(layout.SOL_IP, layout.IP_RECVERR, 1);
    else set(layout.SOL_IPV6, layout.IPV6_RECVERR, 1);
    if (isUnspecified(address)) {
      const told =
        address.family === 4
          ? set(layout.SOL_IP, layout.IP_PKTINFO, 1)
          : set(layout.SOL_IPV6, layout.IPV6_RECVPKTINFO, 1);
      if (!told) throw new SystemError('setsockopt IP_PKTINFO', calls.errno());
    }
    for (const [force, ask] of [
      [SO_RCVBUFFORCE, SO_RCVBUF],
      [SO_SNDBUFFORCE, SO_SNDBUF],
    ] as const) {
      // Beyond net.core.rmem_max and wmem_max it takes a privilege.
      if (!set(layout.SOL_SOCKET, force, SOCKET_BUFFER_BYTES)) set(layout.SOL_SOCKET, ask, SOCKET_BUFFER_BYTES);
    }
    // Zero is what it starts with: the question is whether the kernel knows the option.
    const gso = options.gso !== false && set(layout.SOL_UDP, layout.UDP_SEGMENT, 0);
    const gro = options.gro !== false && set(layout.SOL_UDP, layout.UDP_GRO, 1);
    const ecn =
      address.family === 4 ? set(layout.SOL_IP, layout.IP_RECVTOS, 1) : set(layout.SOL_IPV6, layout.IPV6_RECVTCLASS, 1);
    const name = new Uint8Array(layout.encodeSockaddr(wanted, 0).buffer);
    if (calls.bind(fd, name) < 0) throw new SystemError('bind', calls.errno());
    if (calls.getsockname(fd, name) < 0) throw new SystemError('getsockname', calls.errno());
    const port = layout.sockaddrPort(new DataView(name.buffer).getInt32(0, true));
    return new LinuxUdpSocket(fd, { address, port }, { gro, gso, ecn });
  } catch (error) {
    calls.close(fd);
    throw error;
  }
}

class LinuxUdpSocket implements UdpSocket {
  readonly local: SocketAddress;
  readonly counters: UdpCounters = newUdpCounters();
  readonly #fd: number;
  readonly #gro: boolean;
  readonly #ecn: boolean;
  readonly #watch: Watch;
  readonly #shared: Shared = sharedMemory();
  readonly #addresses: layout.AddressTable;
  readonly #segmentation: Segmentation;
  /** What was sent to and from, as the kernel takes it. */
  readonly #names = new WeakMap<SocketAddress, Int32Array>();
  readonly #sources = new WeakMap<SocketAddress, Int32Array>();
  /** Of the last datagrams: the next ones go the same way as a rule. */
  readonly #sending: { -readonly [Key in keyof Sending]: Sending[Key] };
  #lastTo: SocketAddress | undefined;
  #lastFrom: SocketAddress | undefined;
  #onDatagram: DatagramHandler | undefined;
  #pause: NodeJS.Timeout | undefined;
  #closed: Promise<void> | undefined;

  /** Takes over a bound descriptor. */
  constructor(fd: number, local: SocketAddress, { gro, gso, ecn }: Offloads) {
    this.local = local;
    this.#fd = fd;
    this.#gro = gro;
    this.#ecn = ecn;
    this.#segmentation = new Segmentation(gso);
    this.#sending = {
      fd,
      counters: this.counters,
      segmentation: this.#segmentation,
      name: new Int32Array(0),
      source: undefined,
      readErrors: () => this.#takeErrors(),
    };
    this.#addresses = new layout.AddressTable(local.address.family);
    this.#watch = watchReadable(fd, (failed) => {
      if (failed) this.#takeErrors();
      this.#turn();
    });
    this.#watch.arm();
  }

  get features(): readonly string[] {
    const receiving = this.#gro ? 'gro' : 'recvmmsg';
    const sending = this.#segmentation.works ? 'gso' : 'sendmmsg';
    return [receiving, sending, this.#ecn ? 'ecn' : 'no-ecn'];
  }

  onDatagram(handler: DatagramHandler): void {
    this.#onDatagram = handler;
  }

  send(data: Uint8Array, to: SocketAddress, from?: SocketAddress, trafficClass = 0): boolean {
    const refused = data.length > maxDatagram(to.address.family) ? 'EMSGSIZE' : this.#refusal(to);
    if (refused !== undefined) {
      this.counters.sendErrors[refused]++;
      return false;
    }
    return this.#shared.writer.send(this.#sendingTo(to, from), data, trafficClass);
  }

  sendBatch(batch: PacketBatch, first: number, end: number, to: SocketAddress, from?: SocketAddress): number {
    const refused = this.#refusal(to);
    if (refused === undefined) return this.#shared.writer.sendBatch(this.#sendingTo(to, from), batch, first, end);
    for (let slot = first; slot < end; slot++) if (batch.length[slot]! > 0) this.counters.sendErrors[refused]++;
    return 0;
  }

  close(): Promise<void> {
    if (this.#closed !== undefined) return this.#closed;
    this.#onDatagram = undefined;
    clearTimeout(this.#pause);
    this.#closed = this.#watch.close();
    libc().close(this.#fd);
    return this.#closed;
  }

  #refusal(to: SocketAddress): UdpSendError | undefined {
    if (this.#closed !== undefined) return 'closed';
    if (to.address.family !== this.local.address.family) return 'wrong-family';
    // Nobody can be answered at port 0, which a forged datagram may come from.
    return to.port === 0 ? 'other' : undefined;
  }

  #sendingTo(to: SocketAddress, from: SocketAddress | undefined): Sending {
    if (to === this.#lastTo && from === this.#lastFrom) return this.#sending;
    let name = this.#names.get(to);
    if (name === undefined) {
      name = layout.encodeSockaddr(to, this.#addresses.scopeOf(to.address));
      this.#names.set(to, name);
    }
    const source = from === undefined ? undefined : this.#sourceOf(from);
    this.#lastTo = to;
    this.#lastFrom = from;
    this.#sending.name = name;
    this.#sending.source = source;
    return this.#sending;
  }

  #sourceOf(from: SocketAddress): Int32Array | undefined {
    const { address } = this.local;
    if (!isUnspecified(address) || isUnspecified(from.address) || from.address.family !== address.family)
      return undefined;
    let source = this.#sources.get(from);
    if (source === undefined) {
      source = layout.encodePktinfo(from.address);
      this.#sources.set(from, source);
    }
    return source;
  }

  /** Reads until nothing is left, or others must have their turn; then waits to be called again. */
  #turn(): void {
    let taken = 0;
    let failures = 0;
    while (this.#closed === undefined && taken < DATAGRAMS_PER_TURN) {
      const count = this.#shared.reader.read(this.#fd, 0);
      if (count > 0) {
        taken += this.#deliver(count);
        continue;
      }
      const errno = count === 0 ? ERRNO.EAGAIN : libc().errno();
      if (errno === ERRNO.EAGAIN) break;
      // Having told an error that is in the queue too, the kernel goes on.
      const errors = errno === ERRNO.EINTR ? 1 : this.#takeErrors();
      taken += errors;
      if (errors > 0) continue;
      this.counters.receiveErrors++;
      if (++failures === MAX_FAILURES_PER_TURN) {
        this.#pause = setTimeout(() => this.#watch.arm(), PAUSE_AFTER_FAILURES_MS);
        return;
      }
    }
    if (this.#closed !== undefined) return;
    // To be woken by the kernel takes longer than to look once more: under load there is more by then.
    if (taken > 0) setImmediate(() => this.#turn());
    else this.#watch.arm();
  }

  /** Hands on what was read; how many datagrams it was. */
  #deliver(count: number): number {
    const { reader } = this.#shared;
    const { counters } = this;
    let datagrams = 0;
    for (let message = 0; message < count; message++) {
      if (!reader.inspect(message)) {
        counters.receiveErrors++;
        continue;
      }
      const from = this.#fromOf(reader.nameAt(message));
      const local =
        reader.localAt === 0 ? this.local : this.#addresses.find(reader.words, reader.localAt, this.local.port, 0);
      const { trafficClass } = reader;
      const end = reader.start + reader.length;
      let at = reader.start;
      do {
        const length = Math.min(reader.segment, end - at);
        datagrams++;
        counters.receivedDatagrams++;
        counters.receivedBytes += length;
        this.#onDatagram?.(reader.view(at, length), from, local, trafficClass);
        // By the handler; others may use the reader's memory now.
        if (this.#closed !== undefined) return datagrams;
        at += length;
      } while (at < end);
    }
    return datagrams;
  }

  #fromOf(name: number): SocketAddress {
    const { words } = this.#shared.reader;
    const { family } = this.local.address;
    const port = layout.sockaddrPort(words[name]!);
    const scope = family === 6 ? words[name + layout.SOCKADDR_SCOPE]! : 0;
    return this.#addresses.find(words, name + layout.SOCKADDR_ADDRESS[family], port, scope);
  }

  /** Reads errors that ICMP told off the socket and counts them; how many there were. */
  #takeErrors(): number {
    const { errorReader } = this.#shared;
    let taken = 0;
    for (let round = 0; round < ERROR_READS && this.#closed === undefined; round++) {
      const count = errorReader.read(this.#fd, layout.MSG_ERRQUEUE);
      for (let message = 0; message < count; message++) {
        // What is quoted of the datagram is cut off, which does not matter.
        errorReader.inspect(message);
        // Those of this host's own were told to the sender already.
        if (errorReader.icmpError === 0) continue;
        this.counters.sendErrors[sendErrorOf(errorReader.icmpError)]++;
        taken++;
      }
      if (count < ERRORS_PER_READ) break;
    }
    return taken;
  }
}
