/**
 * A Linux TUN device: whole IP packets, one for each read and write, on a non-blocking descriptor that belongs to
 * the network namespace in which it was opened. The interface lives as long as the descriptor.
 *
 * Kernel interface: linux/if_tun.h, linux/if.h; Documentation/networking/tuntap.rst.
 */
import type { PacketBatch } from '../base/batch.ts';
import { displayText, utf8 } from '../base/text.ts';
import type { DeviceCounters, DeviceDropReason, PacketDevice } from './device.ts';
import { newDeviceCounters } from './device.ts';
import { addressOf, ERRNO, libc, SystemError } from './libc.ts';
import type { Watch } from './poller.ts';
import { watchReadable } from './poller.ts';
import { checkInterfaceName, createError, IFNAMSIZ, openError, TUN_PATH } from './tun-errors.ts';

export interface LinuxTunOptions {
  /** At most 15 bytes; `%d` in it stands for the first free number. Default `sec%d`. */
  readonly name?: string;
  /** 68 to 65535; the kernel starts with 1500. */
  readonly mtu?: number;
}

/**
 * Creates the interface, still down and without addresses (`LinuxHostNetwork` sees to them).
 *
 * @throws Error that says what is missing and how to get it, or which name is taken
 */
export function openLinuxTun(options: LinuxTunOptions = {}): LinuxTun {
  const wanted = options.name ?? 'sec%d';
  checkInterfaceName(wanted);
  const calls = libc();
  const fd = calls.open(TUN_PATH, O_RDWR_NONBLOCK_CLOEXEC);
  if (fd < 0) throw openError(calls.errno());
  try {
    const request = interfaceRequest(wanted);
    new DataView(request.buffer).setUint16(IFREQ_VALUE, IFF_TUN | IFF_NO_PI, true);
    if (calls.ioctl(fd, TUNSETIFF, request) < 0) throw createError(wanted, calls.errno());
    const name = requestName(request);
    if (options.mtu !== undefined) setInterfaceMtu(name, options.mtu);
    return new LinuxTun(fd, name);
  } catch (error) {
    calls.close(fd);
    throw error;
  }
}

const O_RDWR_NONBLOCK_CLOEXEC = 0o2004002;
const TUNSETIFF = 0x400454ca;
const TUNGETIFF = 0x800454d2;
const SIOCGIFMTU = 0x8921;
const SIOCSIFMTU = 0x8922;
const SIOCGIFINDEX = 0x8933;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
/** struct ifreq: char name[16] and a union of 24 bytes. */
const IFREQ_SIZE = 40;
const IFREQ_VALUE = IFNAMSIZ;

/** So many packets are read in one turn at most; then other sockets and timers have theirs. */
const PACKETS_PER_TURN = 256;

export class LinuxTun implements PacketDevice {
  readonly name: string;
  /** The number by which routes and rules name the interface. */
  readonly index: number;
  readonly counters: DeviceCounters = newDeviceCounters();
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #addresses = new WeakMap<Uint8Array, number>();
  #mtu: number;
  #onReadable: (() => void) | undefined;
  #onClosed: ((reason: Error | undefined) => void) | undefined;
  /** Packets that this turn may still read; unlimited outside of a turn. */
  #budget = Number.POSITIVE_INFINITY;
  #drained = true;
  #ended: Promise<void> | undefined;

  /** Takes over a descriptor that is attached to the interface `name`. */
  constructor(fd: number, name: string) {
    this.name = name;
    this.index = interfaceIoctl(name, SIOCGIFINDEX);
    this.#mtu = interfaceIoctl(name, SIOCGIFMTU);
    this.#fd = fd;
    this.#watch = watchReadable(fd, (failed) => {
      if (failed) this.#checkAttached();
      this.#turn();
    });
  }

  get mtu(): number {
    return this.#mtu;
  }

  /** @throws SystemError when the kernel refuses the value */
  setMtu(mtu: number): void {
    setInterfaceMtu(this.name, mtu);
    this.#mtu = mtu;
  }

  read(batch: PacketBatch): number {
    if (this.#ended !== undefined) return 0;
    const { read, errno } = libc();
    const base = this.#address(batch.buffer);
    const room = batch.slotRoom;
    const before = batch.count;
    while (batch.count < batch.capacity && this.#budget > 0) {
      const slot = batch.count;
      const at = batch.slotStart(slot);
      const length = read(this.#fd, base + at, room);
      if (length <= 0) {
        this.#readFailed(length === 0 ? ERRNO.EAGAIN : errno());
        break;
      }
      this.#budget--;
      // The kernel cuts off silently what does not fit.
      if (length === room) {
        this.counters.dropped['too-large']++;
        continue;
      }
      batch.offset[slot] = at;
      batch.length[slot] = length;
      batch.tag[slot] = 0;
      batch.count++;
      this.counters.readBytes += length;
    }
    this.counters.readPackets += batch.count - before;
    return batch.count - before;
  }

  write(batch: PacketBatch): number {
    const { write, errno } = libc();
    const base = this.#address(batch.buffer);
    let written = 0;
    for (let slot = 0; slot < batch.count; slot++) {
      const length = batch.length[slot]!;
      if (length === 0) continue;
      if (this.#ended !== undefined) {
        this.counters.dropped.closed++;
      } else if (write(this.#fd, base + batch.offset[slot]!, length) === length) {
        written++;
        this.counters.writtenBytes += length;
      } else {
        this.#writeFailed(errno());
      }
    }
    this.counters.writtenPackets += written;
    return written;
  }

  onReadable(handler: () => void): void {
    const first = this.#onReadable === undefined;
    this.#onReadable = handler;
    if (first && this.#ended === undefined) this.#watch.arm();
  }

  onClosed(handler: (reason: Error | undefined) => void): void {
    this.#onClosed = handler;
  }

  close(): Promise<void> {
    return this.#end(undefined);
  }

  #turn(): void {
    if (this.#ended !== undefined || this.#onReadable === undefined) return;
    this.#budget = PACKETS_PER_TURN;
    this.#drained = false;
    this.#onReadable();
    this.#budget = Number.POSITIVE_INFINITY;
    // `close()` may have been called by the handler, and a device taken away noticed by its reads.
    if (this.#drained) this.#watch.arm();
    else setImmediate(() => this.#turn());
  }

  #readFailed(errno: number): void {
    if (errno === ERRNO.EINTR) return;
    this.#drained = true;
    if (errno === ERRNO.EAGAIN) return;
    this.counters.dropped['io-error']++;
    this.#checkAttached();
  }

  #writeFailed(errno: number): void {
    const reason = writeDropReason(errno);
    this.counters.dropped[reason]++;
    if (reason === 'closed') this.#checkAttached();
  }

  /** Ends the device when its interface is gone; the descriptor then fails every call with EBADFD. */
  #checkAttached(): void {
    const calls = libc();
    if (this.#ended !== undefined || calls.ioctl(this.#fd, TUNGETIFF, new Uint8Array(IFREQ_SIZE)) >= 0) return;
    const detail = 'The interface was deleted or moved away by another program; the tunnel needs it again';
    void this.#end(new SystemError(`TUN device ${this.name}`, calls.errno(), detail));
  }

  #end(reason: Error | undefined): Promise<void> {
    if (this.#ended !== undefined) return this.#ended;
    this.#ended = this.#watch.close();
    libc().close(this.#fd);
    this.#onClosed?.(reason);
    return this.#ended;
  }

  #address(buffer: Uint8Array): number {
    let address = this.#addresses.get(buffer);
    if (address === undefined) {
      address = addressOf(buffer);
      this.#addresses.set(buffer, address);
    }
    return address;
  }
}

function writeDropReason(errno: number): DeviceDropReason {
  switch (errno) {
    case ERRNO.EIO:
      return 'interface-down';
    case ERRNO.EINVAL:
      return 'not-ip';
    case ERRNO.EAGAIN:
    case ERRNO.ENOBUFS:
      return 'queue-full';
    case ERRNO.EMSGSIZE:
      return 'too-large';
    case ERRNO.EBADFD:
    case ERRNO.EBADF:
    case ERRNO.ENODEV:
      return 'closed';
    default:
      return 'io-error';
  }
}

function setInterfaceMtu(name: string, mtu: number): void {
  interfaceIoctl(name, SIOCSIFMTU, mtu);
}

/** Gets or sets a number of an interface; any socket will do. */
function interfaceIoctl(name: string, request: number, value = 0): number {
  const calls = libc();
  const socket = calls.socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
  if (socket < 0) throw new SystemError('socket', calls.errno());
  const argument = interfaceRequest(name);
  const view = new DataView(argument.buffer);
  view.setInt32(IFREQ_VALUE, value, true);
  const result = calls.ioctl(socket, request, argument);
  const errno = result < 0 ? calls.errno() : 0;
  calls.close(socket);
  if (result < 0) {
    throw new SystemError(request === SIOCSIFMTU ? `set the MTU of ${name} to ${value}` : `query ${name}`, errno);
  }
  return view.getInt32(IFREQ_VALUE, true);
}

function interfaceRequest(name: string): Uint8Array<ArrayBuffer> {
  const request = new Uint8Array(IFREQ_SIZE);
  request.set(utf8(name));
  return request;
}

function requestName(request: Uint8Array): string {
  const end = request.indexOf(0);
  return displayText(request.subarray(0, end < 0 ? IFREQ_VALUE : Math.min(end, IFREQ_VALUE)));
}
