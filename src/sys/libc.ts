/**
 * The C library's calls that Node has no way to make, by koffi: the only file that knows of FFI.
 *
 * Loaded at first use, so that a program which embeds sectunnel with memory devices needs neither Linux nor koffi's
 * binary. On the 2-core machine of the project's benchmarks a call costs about 0.25 µs on top of the system call,
 * with buffers passed as addresses (numbers); passing the buffer itself adds 0.1 µs and an asynchronous call takes
 * 20 to 50 µs until its callback runs, so the hot path uses synchronous calls on addresses.
 *
 * Structures are laid out by the callers for 64-bit little-endian Linux: x64, arm64, riscv64.
 */
import { createRequire } from 'node:module';
import { messageOf } from '../base/text.ts';
import { shortageNamed, shortageText } from './shortage.ts';

type Koffi = typeof import('koffi');

/** Called with the result of the call, and the errno when it is negative. */
type WaitCallback = (result: number, errno: number) => void;

/** Negative results mean failure; `errno()` must be asked before anything else is called. */
export interface Libc {
  errno(): number;
  /** The system's own words for an errno. */
  errorText(errno: number): string;
  open(path: string, flags: number): number;
  close(fd: number): number;
  ioctl(fd: number, request: number, argument: Uint8Array): number;
  /** For requests that take their argument by value. */
  ioctlValue(fd: number, request: number, value: number): number;
  /** `address` is that of memory which outlives the call (see `addressOf`). */
  read(fd: number, address: number, length: number): number;
  write(fd: number, address: number, length: number): number;
  socket(domain: number, type: number, protocol: number): number;
  setsockopt(fd: number, level: number, option: number, value: Uint8Array): number;
  /** Fills `value`, which has the size of the option. */
  getsockopt(fd: number, level: number, option: number, value: Uint8Array): number;
  bind(fd: number, address: Uint8Array): number;
  connect(fd: number, address: Uint8Array): number;
  send(fd: number, data: Uint8Array, flags: number): number;
  recv(fd: number, data: Uint8Array, flags: number): number;
  /** Writes the address that a socket is bound to into `address`. */
  getsockname(fd: number, address: Uint8Array): number;
  /** `messages` is the address of `count` structures mmsghdr. The result is the number of datagrams. */
  recvmmsg(fd: number, messages: number, count: number, flags: number): number;
  sendmmsg(fd: number, messages: number, count: number, flags: number): number;
  /** `descriptors` is the address of `count` structures pollfd. */
  poll(descriptors: number, count: number, timeoutMs: number): number;
  epollCreate(flags: number): number;
  epollControl(epoll: number, operation: number, fd: number, event: Uint8Array): number;
  /** Waits in a thread of libuv's pool, for ever; `events` must stay alive until the callback. */
  epollWait(epoll: number, events: Uint8Array, maxEvents: number, done: WaitCallback): void;
  eventfd(flags: number): number;
  /** `time` is the address of a struct timespec. */
  clockGettime(clock: number, time: number): number;
  timerfdCreate(clock: number, flags: number): number;
  /** `setting` is a struct itimerspec. */
  timerfdSettime(fd: number, flags: number, setting: Uint8Array): number;
  flock(fd: number, operation: number): number;
  /** Moves the calling thread into the namespace of a descriptor. */
  setns(fd: number, type: number): number;
  /** The system's number of the calling thread. */
  gettid(): number;
  /** prctl(2) with one argument. */
  prctl(option: number, argument: number): number;
  /** `limit` is a structure rlimit. */
  setrlimit(resource: number, limit: Uint8Array): number;
  /** Writes struct rlimit, the soft and the hard limit of 64 bits each, into `limits`. */
  getrlimit(resource: number, limits: Uint8Array): number;
}

// BOUNDED: by the buffers that are alive.
const addresses = new WeakMap<Uint8Array, number>();
/** What was asked for last, and before: on the packet path one of both is asked for next. */
let lastBuffer: Uint8Array | undefined;
let lastAddress = 0;
let formerBuffer: Uint8Array | undefined;
let formerAddress = 0;

/** Where a buffer's memory is. Valid for the buffer's life: keep a reference to it as long as the address is used. */
export function addressOf(buffer: Uint8Array): number {
  if (buffer === lastBuffer) return lastAddress;
  let address = buffer === formerBuffer ? formerAddress : addresses.get(buffer);
  if (address === undefined) {
    address = Number(koffi().address(buffer));
    addresses.set(buffer, address);
  }
  formerBuffer = lastBuffer;
  formerAddress = lastAddress;
  lastBuffer = buffer;
  lastAddress = address;
  return address;
}

/** A system call failed. `code` is the errno's name (`EPERM`). The message of a shortage says what to raise. */
export class SystemError extends Error {
  override readonly name = 'SystemError';
  /** What was attempted: the call, and on what. */
  readonly call: string;
  readonly errno: number;
  readonly code: string;

  constructor(call: string, errno: number, detail?: string) {
    const code = errnoName(errno);
    const text = errno === 0 ? 'failed' : libc().errorText(errno);
    const shortage = shortageNamed(code);
    const more = detail ?? (shortage && shortageText(shortage, descriptorLimit));
    super(`${call}: ${text} (${code})${more === undefined ? '' : `. ${more}`}`);
    this.call = call;
    this.errno = errno;
    this.code = code;
  }
}

const RLIMIT_NOFILE = 7;

/**
 * So many descriptors may this process have: its soft limit, which Node raises to the hard one when it starts. `undefined`
 * where system calls cannot be made.
 */
export function descriptorLimit(): number | undefined {
  let calls: Libc;
  try {
    calls = libc();
  } catch {
    return undefined;
  }
  const limits = new Uint8Array(16);
  if (calls.getrlimit(RLIMIT_NOFILE, limits) < 0) throw new Error('bug: getrlimit takes no other arguments');
  return Number(new DataView(limits.buffer).getBigUint64(0, true));
}

/** The calls of the C library. @throws Error saying what is missing, where there is no Linux or no koffi */
export function libc(): Libc {
  bound ??= bindCalls(koffi());
  return bound;
}

/** Errno by name; Linux's numbers, which differ between processors only for names that are not used here. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  EINVAL: 22,
  EMFILE: 24,
  ENOSPC: 28,
  EMSGSIZE: 90,
  EBADFD: 77,
  ENOPROTOOPT: 92,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRNOTAVAIL: 99,
  ENETUNREACH: 101,
  ENOBUFS: 105,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
} as const;

let loaded: Koffi | undefined;
let bound: Libc | undefined;

function koffi(): Koffi {
  if (loaded !== undefined) return loaded;
  if (process.platform !== 'linux') {
    throw new Error(
      `TUN devices and routes need Linux, this is ${process.platform}: use a memory device, or run sectunnel on Linux`,
    );
  }
  try {
    loaded = createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    throw new Error(
      `the package koffi, through which system calls are made, cannot be loaded on ${process.platform}-${process.arch}: ` +
        `${messageOf(error)}. Install sectunnel's optional dependencies ` +
        '(npm install without --omit=optional) on this machine',
    );
  }
  return loaded;
}

function errnoName(errno: number): string {
  for (const [name, value] of Object.entries(koffi().os.errno)) if (value === errno) return name;
  return `errno ${errno}`;
}

function bindCalls(ffi: Koffi): Libc {
  const library = ffi.load(null);
  const bind = <Call>(prototype: string): Call => library.func(prototype) as Call;
  // `ioctl` and `open` are variadic in C; on the ABIs named above integer arguments are passed the same way.
  const setsockopt = bind<(fd: number, level: number, option: number, value: Uint8Array, length: number) => number>(
    'int setsockopt(int fd, int level, int option, const void *value, uint32_t length)',
  );
  const getsockopt = bind<(fd: number, level: number, option: number, value: Uint8Array, length: Uint8Array) => number>(
    'int getsockopt(int fd, int level, int option, void *value, void *length)',
  );
  const bindSocket = bind<(fd: number, address: Uint8Array, length: number) => number>(
    'int bind(int fd, const void *address, uint32_t length)',
  );
  const connect = bind<(fd: number, address: Uint8Array, length: number) => number>(
    'int connect(int fd, const void *address, uint32_t length)',
  );
  const send = bind<(fd: number, data: Uint8Array, length: number, flags: number) => number>(
    'int64_t send(int fd, const void *data, size_t length, int flags)',
  );
  const recv = bind<(fd: number, data: Uint8Array, length: number, flags: number) => number>(
    'int64_t recv(int fd, void *data, size_t length, int flags)',
  );
  const getsockname = bind<(fd: number, address: Uint8Array, length: Uint8Array) => number>(
    'int getsockname(int fd, void *address, void *length)',
  );
  const recvmmsg = bind<(fd: number, messages: number, count: number, flags: number, timeout: number) => number>(
    'int recvmmsg(int fd, uintptr_t messages, unsigned int count, int flags, uintptr_t timeout)',
  );
  const eventfd = bind<(initial: number, flags: number) => number>('int eventfd(unsigned int initial, int flags)');
  const timerfdSettime = bind<(fd: number, flags: number, setting: Uint8Array, before: number) => number>(
    'int timerfd_settime(int fd, int flags, const void *setting, uintptr_t before)',
  );
  const prctl = bind<(option: number, a: number, b: number, c: number, d: number) => number>(
    'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
  );
  const epollWait = library.func('int epoll_wait(int epoll, void *events, int count, int timeout)');
  return {
    errno: () => ffi.errno(),
    errorText: bind('const char *strerror(int errno)'),
    open: bind('int open(const char *path, int flags)'),
    close: bind('int close(int fd)'),
    ioctl: bind('int ioctl(int fd, unsigned long request, void *argument)'),
    ioctlValue: bind('int ioctl(int fd, unsigned long request, unsigned long value)'),
    read: bind('int64_t read(int fd, uintptr_t address, size_t length)'),
    write: bind('int64_t write(int fd, uintptr_t address, size_t length)'),
    socket: bind('int socket(int domain, int type, int protocol)'),
    setsockopt: (fd, level, option, value) => setsockopt(fd, level, option, value, value.length),
    getsockopt: (fd, level, option, value) =>
      getsockopt(fd, level, option, value, Uint8Array.of(value.length, 0, 0, 0)),
    bind: (fd, address) => bindSocket(fd, address, address.length),
    connect: (fd, address) => connect(fd, address, address.length),
    send: (fd, data, flags) => send(fd, data, data.length, flags),
    recv: (fd, data, flags) => recv(fd, data, data.length, flags),
    getsockname: (fd, address) => getsockname(fd, address, Uint8Array.of(address.length, 0, 0, 0)),
    recvmmsg: (fd, messages, count, flags) => recvmmsg(fd, messages, count, flags, 0),
    sendmmsg: bind('int sendmmsg(int fd, uintptr_t messages, unsigned int count, int flags)'),
    poll: bind('int poll(uintptr_t descriptors, uint64_t count, int timeout)'),
    epollCreate: bind('int epoll_create1(int flags)'),
    epollControl: bind('int epoll_ctl(int epoll, int operation, int fd, void *event)'),
    epollWait: (epoll, events, maxEvents, done) => {
      epollWait.async(epoll, events, maxEvents, -1, (error: unknown, result: number) => {
        done(error === null || error === undefined ? result : -1, result < 0 ? ffi.errno() : 0);
      });
    },
    eventfd: (flags) => eventfd(0, flags),
    clockGettime: bind('int clock_gettime(int clock, uintptr_t time)'),
    timerfdCreate: bind('int timerfd_create(int clock, int flags)'),
    timerfdSettime: (fd, flags, setting) => timerfdSettime(fd, flags, setting, 0),
    flock: bind('int flock(int fd, int operation)'),
    setns: bind('int setns(int fd, int type)'),
    gettid: bind('int gettid()'),
    prctl: (option, argument) => prctl(option, argument, 0, 0, 0),
    setrlimit: bind('int setrlimit(int resource, const void *limit)'),
    getrlimit: bind('int getrlimit(int resource, void *limits)'),
  };
}
