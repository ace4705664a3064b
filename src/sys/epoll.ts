/**
 * epoll(7): which of many file descriptors can be read. A wait costs what is ready, not what is watched. Each descriptor is
 * known by a number of its owner's choice, its token.
 */
import { takeDescriptor } from './descriptors.ts';
import { ERRNO, SystemError } from './errno.ts';
import { libc } from './libc.ts';
import { addressOf } from './native-memory.ts';

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLLIN = 0x1;
/** EPOLLERR and EPOLLHUP, which are always reported. */
const EPOLL_FAILED = 0x18;
const EPOLLONESHOT = 0x4000_0000;

/** struct epoll_event { uint32_t events; uint64_t data }: packed on x86-64 only. In words of 32 bits. */
const TOKEN_AT = process.arch === 'x64' ? 1 : 2;
const EVENT_WORDS = TOKEN_AT + 2;
/** Events that one wait reports at most; the others come with the next. */
const EVENTS_PER_WAIT = 64;

const MORE_WATCHES = 'Raise fs.epoll.max_user_watches';

/** `readable`: reported as long as there is something to read. `once`: when that comes, and then not until it is set again. */
export type Interest = 'readable' | 'once' | 'failures';

const EVENTS: Readonly<Record<Interest, number>> = {
  readable: EPOLLIN,
  once: EPOLLIN | EPOLLONESHOT,
  failures: EPOLLONESHOT,
};

export class Epoll {
  readonly #epoll: number;
  readonly #events = new Int32Array(EVENT_WORDS * EVENTS_PER_WAIT);
  readonly #eventBytes = new Uint8Array(this.#events.buffer);
  readonly #eventsAt = addressOf(this.#eventBytes);
  readonly #change = new Int32Array(EVENT_WORDS);
  readonly #changeBytes = new Uint8Array(this.#change.buffer);

  /** @throws SystemError */
  constructor() {
    this.#epoll = takeDescriptor(libc().epollCreate(EPOLL_CLOEXEC), 'epoll_create1');
  }

  /** @param token of 31 bits. @throws SystemError */
  add(fd: number, token: number, interest: Interest): void {
    this.#control(EPOLL_CTL_ADD, fd, token, EVENTS[interest]);
  }

  /** @throws SystemError */
  set(fd: number, token: number, interest: Interest): void {
    this.#control(EPOLL_CTL_MOD, fd, token, EVENTS[interest]);
  }

  /** @throws SystemError */
  remove(fd: number): void {
    this.#control(EPOLL_CTL_DEL, fd, 0, 0);
  }

  /**
   * Blocks until something is ready, or for so many milliseconds; -1 for ever.
   * @returns how many events `token` and `failed` tell of. @throws SystemError
   */
  wait(timeout: number): number {
    const count = libc().epollWaitNow(this.#epoll, this.#eventsAt, EVENTS_PER_WAIT, timeout);
    return count < 0 ? interrupted(libc().errno()) : count;
  }

  /** Waits in a thread of libuv's pool, for ever; `done` gets what `wait` returns. */
  waitAside(done: (count: number) => void): void {
    libc().epollWait(this.#epoll, this.#eventBytes, EVENTS_PER_WAIT, (count, errno) => {
      done(count < 0 ? interrupted(errno) : count);
    });
  }

  /** Of an event of the last wait. */
  token(event: number): number {
    return this.#events[event * EVENT_WORDS + TOKEN_AT]!;
  }

  /** Whether the descriptor of an event has an error, or nothing is at its other end any more. */
  failed(event: number): boolean {
    return (this.#events[event * EVENT_WORDS]! & EPOLL_FAILED) !== 0;
  }

  close(): void {
    libc().close(this.#epoll);
  }

  #control(operation: number, fd: number, token: number, events: number): void {
    this.#change[0] = events;
    this.#change[TOKEN_AT] = token;
    const calls = libc();
    if (calls.epollControl(this.#epoll, operation, fd, this.#changeBytes) >= 0) return;
    const errno = calls.errno();
    throw new SystemError('epoll_ctl', errno, errno === ERRNO.ENOSPC ? MORE_WATCHES : undefined);
  }
}

/** A signal ended the wait, which is no event. @throws SystemError for all else */
function interrupted(errno: number): 0 {
  if (errno !== ERRNO.EINTR) throw new SystemError('epoll_wait', errno);
  return 0;
}
