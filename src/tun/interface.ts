/**
 * Makes and asks TUN interfaces: the descriptor that an interface hangs on, what of segmentation and checksums its
 * kernel leaves to the program, its MTU and number.
 *
 * Kernel interface: linux/if_tun.h, linux/if.h; Documentation/networking/tuntap.rst.
 */
import { displayText, utf8 } from '../base/text.ts';
import { takeDescriptor } from '../sys/descriptors.ts';
import { ERRNO, SystemError } from '../sys/errno.ts';
import { libc } from '../sys/libc.ts';
import { createError, IFNAMSIZ, openError, TUN_PATH } from './errors.ts';
import type { OffloadKinds } from './offload/shared.ts';

export interface TunInterface {
  /** One for each queue. */
  readonly fds: readonly number[];
  readonly name: string;
  readonly offload: OffloadKinds;
}

/**
 * Creates an interface that hangs on a new descriptor, with the most of `offload` that the kernel has.
 *
 * @param wanted its name, or a pattern
 * @param queues among which the kernel divides the flows
 * @throws Error that says what is missing and how to get it, or which name is taken
 */
export function createTun(wanted: string, offload: OffloadKinds, queues = 1): TunInterface {
  const flags = queues > 1 ? IFF_MULTI_QUEUE : 0;
  if (offload !== 'none') {
    const created = attach(wanted, IFF_VNET_HDR | flags);
    const given = 'fd' in created ? setOffload(created.fd, offload) : undefined;
    if ('fd' in created && given !== undefined) return withQueues(created, IFF_VNET_HDR | flags, queues, given);
    if ('fd' in created) libc().close(created.fd);
    // What a kernel that knows no virtio header says, and others of a name that is taken: once more, then.
    else if (created.errno !== ERRNO.EINVAL) throw createError(wanted, created.errno, queues);
  }
  const created = attach(wanted, flags);
  if ('fd' in created) return withQueues(created, flags, queues, 'none');
  throw createError(wanted, created.errno, queues);
}

/** Attaches the other queues. What passes joined is a matter of the whole device. */
function withQueues(first: Attached, flags: number, queues: number, offload: OffloadKinds): TunInterface {
  const { name } = first;
  const fds = [first.fd];
  try {
    while (fds.length < queues) {
      const next = attach(name, flags);
      if (!('fd' in next)) throw createError(name, next.errno, queues);
      fds.push(next.fd);
    }
  } catch (error) {
    for (const fd of fds) libc().close(fd);
    throw error;
  }
  return { fds, name, offload };
}

interface Attached {
  readonly fd: number;
  readonly name: string;
}

const O_RDWR_NONBLOCK_CLOEXEC = 0o2004002;
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNGETIFF = 0x800454d2;
const SIOCGIFMTU = 0x8921;
const SIOCSIFMTU = 0x8922;
const SIOCGIFINDEX = 0x8933;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_VNET_HDR = 0x4000;
/** TUN_F_CSUM, TUN_F_TSO4 and TUN_F_TSO6; with TUN_F_USO4 and TUN_F_USO6. */
const TCP_OFFLOADS = 0x07;
const ALL_OFFLOADS = 0x67;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
/** struct ifreq: char name[16] and a union of 24 bytes. */
const IFREQ_SIZE = 40;
const IFREQ_VALUE = IFNAMSIZ;

function attach(wanted: string, flags: number): Attached | { errno: number } {
  const calls = libc();
  const opened = calls.open(TUN_PATH, O_RDWR_NONBLOCK_CLOEXEC);
  if (opened < 0) throw openError(calls.errno());
  const fd = takeDescriptor(opened, `open ${TUN_PATH}`);
  const request = interfaceRequest(wanted);
  new DataView(request.buffer).setUint16(IFREQ_VALUE, IFF_TUN | IFF_NO_PI | flags, true);
  if (calls.ioctl(fd, TUNSETIFF, request) >= 0) return { fd, name: requestName(request) };
  const errno = calls.errno();
  calls.close(fd);
  return { errno };
}

function setOffload(fd: number, wanted: OffloadKinds): OffloadKinds | undefined {
  const { ioctlValue } = libc();
  if (wanted === 'all' && ioctlValue(fd, TUNSETOFFLOAD, ALL_OFFLOADS) >= 0) return 'all';
  return ioctlValue(fd, TUNSETOFFLOAD, TCP_OFFLOADS) >= 0 ? 'tcp' : undefined;
}

/** The errno when the interface of a descriptor is gone; every call on it then fails with EBADFD. */
export function detachedError(fd: number): number | undefined {
  const calls = libc();
  return calls.ioctl(fd, TUNGETIFF, new Uint8Array(IFREQ_SIZE)) >= 0 ? undefined : calls.errno();
}

export function interfaceIndex(name: string): number {
  return interfaceIoctl(name, SIOCGIFINDEX);
}

export function interfaceMtu(name: string): number {
  return interfaceIoctl(name, SIOCGIFMTU);
}

/** @throws SystemError when the kernel refuses the value */
export function setInterfaceMtu(name: string, mtu: number): void {
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
