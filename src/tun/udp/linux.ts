/**
 * UDP sockets by Linux's own calls: many datagrams in each, joined (UDP_GRO) and cut (UDP_SEGMENT) by the kernel where
 * it can, with the local address of each datagram (IP_PKTINFO), its DSCP and ECN (IP_TOS), and errors reported by ICMP
 * (IP_RECVERR). The kernel joins only datagrams with the same DSCP and ECN.
 *
 * Don't-fragment: `path-discovery.ts` for sockets that carry ESP; on sockets for IKE alone the kernel fragments what is
 * larger than its path.
 *
 * ICMP errors arrive in a queue beside the datagrams, and the next call on the socket fails with the first of them,
 * whichever datagram it was about. So the errors are read and counted, and the call is repeated; a socket with an error in
 * its queue is readable.
 */
import type { IpAddress, SocketAddress } from '../../base/address.ts';
import type { PacketBatch } from '../../base/batch.ts';
import type { PathReport } from '../../base/path-report.ts';
import { utf8 } from '../../base/text.ts';
import { takeDescriptor } from '../../sys/descriptors.ts';
import { SystemError } from '../../sys/errno.ts';
import { libc } from '../../sys/libc.ts';
import type { Watch } from '../../sys/poller.ts';
import { watchReadable } from '../../sys/poller.ts';
import { bindError } from './errors.ts';
import { partIkeFromEsp } from './ike-filter.ts';
import * as layout from './layout.ts';
import { PathDiscovery } from './path-discovery.ts';
import { UdpQueue } from './queue.ts';
import type {
  DatagramHandler,
  UdpBindOptions,
  UdpCounters,
  UdpDescriptor,
  UdpNetwork,
  UdpSendError,
  UdpSocket,
  UdpTarget,
} from './udp.ts';
import { isUnspecified } from './udp.ts';

/** How the UDP sockets of Linux work. */
export interface LinuxUdpOptions {
  /** False to do without, as on a kernel that has not got it. Default: what the kernel has. */
  readonly gro?: boolean;
  readonly gso?: boolean;
}

/**
 * UDP sockets that send and receive many datagrams a system call, with GSO and GRO where the kernel has them.
 * @throws Error saying what is missing
 */
export function linuxUdp(options: LinuxUdpOptions = {}): UdpNetwork {
  return {
    // An async function, so that errors reject.
    async bind(wanted: UdpBindOptions): Promise<UdpSocket> {
      let opened: readonly UdpDescriptor[] = [];
      try {
        const descriptors = openDescriptors(wanted, options);
        opened = descriptors;
        return new LinuxUdpSocket(...descriptors);
      } catch (error) {
        closeAll(opened);
        throw error instanceof SystemError ? bindError(wanted, error) : error;
      }
    },
  };
}

/** Whether system calls can be made here. */
export function hasLinuxUdp(): boolean {
  try {
    libc();
    return true;
  } catch {
    return false;
  }
}

const SOCK_DGRAM_NONBLOCK_CLOEXEC = 0o2004002;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_REUSEPORT = 15;
const SO_BINDTODEVICE = 25;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
/** The kernel doubles it, for its own structures. */
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;

/** Milliseconds without reading, after a socket failed and its error queue gave no reason. */
const PAUSE_AFTER_FAILURES_MS = 100;

type Descriptors = readonly [descriptor: UdpDescriptor, ...esp: UdpDescriptor[]];

/** One socket; with `espQueues`, where the kernel can, one for IKE and the others for ESP. */
function openDescriptors(wanted: UdpBindOptions, options: LinuxUdpOptions): Descriptors {
  const { espQueues = 0, ikeOnly = false } = wanted;
  // No GRO for IKE: joined datagrams are handed on all together, and each may cost a key exchange.
  if (ikeOnly) return [openDescriptor(wanted, { ...options, gro: false }, { carriesEsp: false })];
  const alone = openDescriptor(wanted, options);
  if (espQueues === 0) return [alone];
  // The exclusive bind shows that no other program has the port. Sockets can share it only if all set SO_REUSEPORT first.
  libc().close(alone.fd);
  const shared = { ...wanted, port: alone.local.port };
  const ike = openDescriptor(shared, { ...options, gro: false }, { sharePort: true, carriesEsp: false });
  const esp: UdpDescriptor[] = [];
  try {
    while (esp.length < espQueues) esp.push(openDescriptor(shared, options, { sharePort: true }));
    if (partIkeFromEsp(ike.fd, espQueues)) return [ike, ...esp];
  } catch (error) {
    closeAll([ike, ...esp]);
    throw error;
  }
  closeAll([ike, ...esp]);
  return [openDescriptor(shared, options)];
}

function closeAll(descriptors: readonly UdpDescriptor[]): void {
  for (const { fd } of descriptors) libc().close(fd);
}

function openDescriptor(
  wanted: UdpBindOptions,
  options: LinuxUdpOptions,
  { sharePort = false, carriesEsp = true }: { sharePort?: boolean; carriesEsp?: boolean } = {},
): UdpDescriptor {
  const { address } = wanted;
  const calls = libc();
  const domain = address.family === 4 ? layout.AF_INET : layout.AF_INET6;
  const fd = takeDescriptor(calls.socket(domain, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0), 'socket');
  try {
    const set = optionsOf(fd);
    if (address.family === 6) set(layout.SOL_IPV6, layout.IPV6_V6ONLY, 1);
    if (sharePort && !set(layout.SOL_SOCKET, SO_REUSEPORT, 1)) throw new SystemError('SO_REUSEPORT', calls.errno());
    const ecn = setUpSocket(fd, address);
    bindToVrf(fd, wanted.vrf);
    // Zero is the default: this only asks whether the kernel knows the option.
    const gso = options.gso !== false && set(layout.SOL_UDP, layout.UDP_SEGMENT, 0);
    const gro = options.gro !== false && set(layout.SOL_UDP, layout.UDP_GRO, 1);
    const name = new Uint8Array(layout.encodeSockaddr(wanted, 0).buffer);
    if (calls.bind(fd, name) < 0) throw new SystemError('bind', calls.errno());
    if (calls.getsockname(fd, name) < 0) throw new SystemError('getsockname', calls.errno());
    const port = layout.sockaddrPort(new DataView(name.buffer).getInt32(0, true));
    const ownDiscovery = carriesEsp && new PathDiscovery(fd, address.family).set('own');
    return { fd, local: { address, port, vrf: wanted.vrf }, gro, gso, ecn, ownDiscovery };
  } catch (error) {
    calls.close(fd);
    throw error;
  }
}

/**
 * Before it is bound to an address, which may be one of the VRF's alone.
 * @throws SystemError, as where there is no such link (ENODEV)
 */
export function bindToVrf(fd: number, vrf: string | undefined): void {
  if (vrf === undefined) return;
  const calls = libc();
  if (calls.setsockopt(fd, layout.SOL_SOCKET, SO_BINDTODEVICE, utf8(`${vrf}\0`)) < 0)
    throw new SystemError(`bind to the VRF ${vrf} (ip link show type vrf)`, calls.errno());
}

type SetOption = (level: number, option: number, value: number) => boolean;

function optionsOf(fd: number): SetOption {
  const calls = libc();
  return (level, option, value) =>
    calls.setsockopt(fd, level, option, new Uint8Array(Int32Array.of(value).buffer)) === 0;
}

/**
 * Makes a socket report errors, and local addresses unless it is bound to one, and enlarges its buffers.
 * Returns whether it reports the traffic class too.
 * @throws SystemError when it cannot report local addresses
 */
export function setUpSocket(fd: number, address: IpAddress): boolean {
  const set = optionsOf(fd);
  const four = address.family === 4;
  const level = four ? layout.SOL_IP : layout.SOL_IPV6;
  set(level, four ? layout.IP_RECVERR : layout.IPV6_RECVERR, 1);
  if (isUnspecified(address) && !set(level, four ? layout.IP_PKTINFO : layout.IPV6_RECVPKTINFO, 1)) {
    throw new SystemError('setsockopt IP_PKTINFO', libc().errno());
  }
  for (const [force, ask] of [
    [SO_RCVBUFFORCE, SO_RCVBUF],
    [SO_SNDBUFFORCE, SO_SNDBUF],
  ] as const) {
    // Beyond net.core.rmem_max and wmem_max this needs a privilege.
    if (!set(layout.SOL_SOCKET, force, SOCKET_BUFFER_BYTES)) set(layout.SOL_SOCKET, ask, SOCKET_BUFFER_BYTES);
  }
  return set(level, four ? layout.IP_RECVTOS : layout.IPV6_RECVTCLASS, 1);
}

export class LinuxUdpSocket implements UdpSocket {
  readonly local: SocketAddress;
  readonly counters: UdpCounters;
  readonly #descriptor: UdpDescriptor;
  /** The sockets for ESP, where IKE has a queue of its own. */
  readonly #esp: readonly UdpDescriptor[];
  readonly #end: UdpQueue;
  readonly #watch: Watch;
  #onDatagram: DatagramHandler | undefined;
  #onErrors: (() => void) | undefined;
  #pause: NodeJS.Timeout | undefined;
  #handedOver = false;
  #closed: Promise<void> | undefined;

  /** Takes over bound descriptors. */
  constructor(descriptor: UdpDescriptor, ...esp: UdpDescriptor[]) {
    this.#descriptor = descriptor;
    this.#esp = esp;
    this.#end = new UdpQueue(descriptor);
    this.local = descriptor.local;
    this.counters = this.#end.counters;
    this.#watch = watchReadable(descriptor.fd, (failed) => {
      if (failed && this.#end.takeErrors() > 0) this.#onErrors?.();
      this.#turn();
    });
    this.#watch.arm();
  }

  get features(): readonly string[] {
    return this.#esp.length === 0 ? this.#end.features : [...this.#end.features, 'ike-apart'];
  }

  onDatagram(handler: DatagramHandler): void {
    this.#onDatagram = handler;
  }

  onErrors(handler: () => void): void {
    this.#onErrors = handler;
  }

  onPathReport(handler: (report: PathReport) => void): void {
    this.#end.onPathReport = handler;
  }

  onRefusal(handler: (remote: SocketAddress, error: UdpSendError) => void): void {
    this.#end.onRefusal = handler;
  }

  send(data: Uint8Array, to: SocketAddress, from?: SocketAddress, trafficClass = 0): boolean {
    return this.#end.send(data, to, from, trafficClass);
  }

  sendBatch(batch: PacketBatch, first: number, end: number, target: UdpTarget): number {
    return this.#end.sendBatch(batch, first, end, target);
  }

  resolve(target: UdpTarget): UdpTarget {
    return this.#end.resolve(target);
  }

  scopeOf(address: IpAddress): number {
    return this.#end.scopeOf(address);
  }

  handOver(): readonly UdpDescriptor[] {
    if (this.#esp.length > 0) return this.#esp;
    this.#handedOver = true;
    return [this.#descriptor];
  }

  close(): Promise<void> {
    if (this.#closed !== undefined) return this.#closed;
    this.#onDatagram = undefined;
    clearTimeout(this.#pause);
    this.#end.release();
    this.#closed = this.#watch.close();
    closeAll([this.#descriptor, ...this.#esp]);
    return this.#closed;
  }

  /** Reads until nothing is left, or others must have their turn; then waits to be called again. */
  #turn(): void {
    if (this.#handedOver) return;
    const left = this.#end.receive((data, from, local, trafficClass) => {
      this.#onDatagram?.(data, from, local, trafficClass);
    });
    if (this.#closed !== undefined) return;
    switch (left) {
      case 'taken':
      case 'more':
        // Looking once more is faster than being woken by the kernel: under load more has arrived by then.
        setImmediate(() => this.#turn());
        return;
      case 'empty':
        this.#watch.arm();
        return;
      case 'failing':
        this.#pause = setTimeout(() => this.#watch.arm(), PAUSE_AFTER_FAILURES_MS);
    }
  }
}
