/**
 * Readiness of file descriptors that Node's own loop cannot watch: one epoll for all of them, waited on in one thread
 * of libuv's pool, whatever their number. Without traffic it uses no CPU; with nothing to watch there is no thread.
 *
 * Each descriptor is watched in one-shot mode: after a report it stays silent until `arm()`, so that one that is not read
 * does not wake the thread over and over.
 */
import { takeDescriptor } from './descriptors.ts';
import { ERRNO, SystemError } from './errno.ts';
import { libc } from './libc.ts';
import { addressOf } from './native-memory.ts';

/** A descriptor under watch. Silent until `arm()`, and again after each report. */
export interface Watch {
  arm(): void;
  /** Ends the watch; the descriptor may be closed at once. Resolves when the thread, if this was the last, is gone. */
  close(): Promise<void>;
}

/** Calls `onReady`, each time after `arm()`, when `fd` can be read or has an error; it must not throw. */
export function watchReadable(fd: number, onReady: (failed: boolean) => void): Watch {
  shared ??= new Poller();
  return shared.watch(fd, onReady);
}

const EPOLL_CLOEXEC = 0o2000000;
const EFD_NONBLOCK_CLOEXEC = 0o2004000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLLIN = 0x1;
const EPOLLERR = 0x8;
const EPOLLHUP = 0x10;
const EPOLLONESHOT = 0x4000_0000;

/** struct epoll_event { uint32_t events; uint64_t data }: packed on x86-64 only. */
const DATA_AT = process.arch === 'x64' ? 4 : 8;
const EVENT_SIZE = DATA_AT + 8;
const EVENTS_PER_WAIT = 64;
const WAKE_UP = 0;

let shared: Poller | undefined;

class Poller {
  readonly #epoll: number;
  readonly #wakeUp: number;
  readonly #events = new Uint8Array(EVENT_SIZE * EVENTS_PER_WAIT);
  readonly #view = new DataView(this.#events.buffer);
  /** The 64-bit number that an eventfd takes and gives. */
  readonly #counter = new BigUint64Array(1);
  readonly #counterBytes = new Uint8Array(this.#counter.buffer);
  // BOUNDED: one for each open device and socket.
  readonly #watches = new Map<number, (failed: boolean) => void>();
  readonly #onStopped: (() => void)[] = [];
  /** Node joins the pool's threads on its way out, and would wait for ever for ours. */
  readonly #atExit = (): void => this.#wake();
  #lastToken = WAKE_UP;
  #waiting = false;

  constructor() {
    const calls = libc();
    this.#epoll = takeDescriptor(calls.epollCreate(EPOLL_CLOEXEC), 'epoll_create1');
    let wakeUp = -1;
    try {
      wakeUp = takeDescriptor(calls.eventfd(EFD_NONBLOCK_CLOEXEC), 'eventfd');
      this.#control(EPOLL_CTL_ADD, wakeUp, EPOLLIN, WAKE_UP);
    } catch (error) {
      if (wakeUp >= 0) calls.close(wakeUp);
      calls.close(this.#epoll);
      throw error;
    }
    this.#wakeUp = wakeUp;
    process.on('exit', this.#atExit);
  }

  watch(fd: number, onReady: (failed: boolean) => void): Watch {
    const token = ++this.#lastToken;
    try {
      this.#control(EPOLL_CTL_ADD, fd, EPOLLONESHOT, token);
    } catch (error) {
      if (this.#watches.size === 0 && !this.#waiting) this.#stop();
      throw error;
    }
    this.#watches.set(token, onReady);
    this.#wait();
    return {
      arm: () => {
        if (this.#watches.has(token)) this.#control(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT, token);
      },
      close: () => this.#unwatch(token, fd),
    };
  }

  #unwatch(token: number, fd: number): Promise<void> {
    if (this.#watches.delete(token)) this.#control(EPOLL_CTL_DEL, fd, 0, token);
    if (this.#watches.size > 0 || !this.#waiting) return Promise.resolve();
    this.#wake();
    return new Promise((resolve) => this.#onStopped.push(resolve));
  }

  #wait(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    libc().epollWait(this.#epoll, this.#events, EVENTS_PER_WAIT, (count, errno) => {
      this.#waiting = false;
      if (count < 0 && errno !== ERRNO.EINTR) throw new SystemError('epoll_wait', errno);
      const ready = this.#takeEvents(count);
      if (this.#watches.size === 0) this.#stop();
      else this.#wait();
      for (const report of ready) report();
    });
  }

  #takeEvents(count: number): (() => void)[] {
    const ready: (() => void)[] = [];
    for (let i = 0; i < count; i++) {
      const events = this.#view.getUint32(i * EVENT_SIZE, true);
      const token = Number(this.#view.getBigUint64(i * EVENT_SIZE + DATA_AT, true));
      if (token === WAKE_UP) this.#drainWakeUp();
      // Looked up when it is called: an earlier one of the same round may have closed it.
      else ready.push(() => this.#watches.get(token)?.((events & (EPOLLERR | EPOLLHUP)) !== 0));
    }
    return ready;
  }

  #stop(): void {
    process.off('exit', this.#atExit);
    libc().close(this.#wakeUp);
    libc().close(this.#epoll);
    if (shared === this) shared = undefined;
    for (const resolve of this.#onStopped.splice(0)) resolve();
  }

  #wake(): void {
    this.#counter[0] = 1n;
    libc().write(this.#wakeUp, addressOf(this.#counterBytes), 8);
  }

  #drainWakeUp(): void {
    libc().read(this.#wakeUp, addressOf(this.#counterBytes), 8);
  }

  #control(operation: number, fd: number, events: number, token: number): void {
    const event = new Uint8Array(EVENT_SIZE);
    const view = new DataView(event.buffer);
    view.setUint32(0, events, true);
    view.setBigUint64(DATA_AT, BigInt(token), true);
    const calls = libc();
    if (calls.epollControl(this.#epoll, operation, fd, event) >= 0) return;
    const errno = calls.errno();
    const advice = errno === ERRNO.ENOSPC ? 'Raise fs.epoll.max_user_watches' : undefined;
    throw new SystemError('epoll_ctl', errno, advice);
  }
}
