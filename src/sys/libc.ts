/**
 * The C library's calls that Node has no way to make: their prototypes, and nothing of what callers do with them.
 *
 * On the 2-core machine of the project's benchmarks a call costs about 0.25 µs on top of the system call, with buffers
 * passed as addresses (numbers); passing the buffer itself adds 0.1 µs, and an asynchronous call takes 20 to 50 µs until
 * its callback runs, so the hot path uses synchronous calls on addresses.
 *
 * Structures are laid out by the callers for 64-bit little-endian Linux: x64, arm64, riscv64.
 */
import type { KoffiFunc } from 'koffi';
import { koffi, openLibrary } from './ffi.ts';

/** Called with the result of the call, and the errno when it is negative. */
type WaitCallback = (result: number, errno: number) => void;

/** Negative results mean failure; `errno()` must be asked before anything else is called. */
export interface Libc {
  errno(): number;
  /** `EPERM`; `undefined` for a number that has no name. */
  errnoName(errno: number): string | undefined;
  /** The system's own words for an errno. */
  errorText(errno: number): string;
  open(path: string, flags: number): number;
  close(fd: number): number;
  /** The same in a thread of libuv's pool, for what the kernel takes long to close. */
  closeInThread(fd: number, done: () => void): void;
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
  /** The same without flags in a thread of libuv's pool, for what the kernel takes long to do; `data` must stay as it is until the callback. */
  sendInThread(fd: number, data: Uint8Array, done: WaitCallback): void;
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
  /** The same, blocking this thread; `events` is the address of `maxEvents` structures epoll_event. -1 ms: for ever. */
  epollWaitNow(epoll: number, events: number, maxEvents: number, timeoutMs: number): number;
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

let bound: Libc | undefined;

/** The calls of the C library. @throws NativeUnavailableError where there is no Linux or no koffi */
export function libc(): Libc {
  bound ??= bindCalls();
  return bound;
}

function bindCalls(): Libc {
  const ffi = koffi();
  // Of two names for one number the first is the usual one: EAGAIN, not EWOULDBLOCK.
  const names = new Map(
    Object.entries(ffi.os.errno)
      .reverse()
      .map(([name, errno]) => [errno, name]),
  );
  const { func: bind } = openLibrary(null);
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
  const send = bind<KoffiFunc<(fd: number, data: Uint8Array, length: number, flags: number) => number>>(
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
  const close = bind<KoffiFunc<(fd: number) => number>>('int close(int fd)');
  const epollWait = bind<KoffiFunc<(epoll: number, events: Uint8Array, count: number, timeout: number) => number>>(
    'int epoll_wait(int epoll, void *events, int count, int timeout)',
  );
  return {
    errno: () => ffi.errno(),
    errnoName: (errno) => names.get(errno),
    errorText: bind('const char *strerror(int errno)'),
    open: bind('int open(const char *path, int flags)'),
    close,
    closeInThread: (fd, done) => close.async(fd, () => done()),
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
    sendInThread: (fd, data, done) => {
      send.async(fd, data, data.length, 0, (error: unknown, result: number) => {
        done(error === null || error === undefined ? result : -1, result < 0 ? ffi.errno() : 0);
      });
    },
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
    epollWaitNow: bind('int epoll_wait(int epoll, uintptr_t events, int count, int timeout)'),
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
