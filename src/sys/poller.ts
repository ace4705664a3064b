/**
 * Readiness of file descriptors that Node's own loop cannot watch: one epoll for all of them, waited on in one thread
 * of libuv's pool, whatever their number. Without traffic it uses no CPU; with nothing to watch there is no thread.
 *
 * Each descriptor is watched in one-shot mode: after a report it stays silent until `arm()`, so that one that is not read
 * does not wake the thread over and over.
 */
import { takeDescriptor } from './descriptors.ts';
import { Epoll } from './epoll.ts';
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

const EFD_NONBLOCK_CLOEXEC = 0o2004000;
const WAKE_UP = 0;

let shared: Poller | undefined;

class Poller {
  readonly #epoll = new Epoll();
  readonly #wakeUp: number;
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
    let wakeUp = -1;
    try {
      wakeUp = takeDescriptor(libc().eventfd(EFD_NONBLOCK_CLOEXEC), 'eventfd');
      this.#epoll.add(wakeUp, WAKE_UP, 'readable');
    } catch (error) {
      if (wakeUp >= 0) libc().close(wakeUp);
      this.#epoll.close();
      throw error;
    }
    this.#wakeUp = wakeUp;
    process.on('exit', this.#atExit);
  }

  watch(fd: number, onReady: (failed: boolean) => void): Watch {
    const token = ++this.#lastToken;
    try {
      this.#epoll.add(fd, token, 'failures');
    } catch (error) {
      if (this.#watches.size === 0 && !this.#waiting) this.#stop();
      throw error;
    }
    this.#watches.set(token, onReady);
    this.#wait();
    return {
      arm: () => {
        if (this.#watches.has(token)) this.#epoll.set(fd, token, 'once');
      },
      close: () => this.#unwatch(token, fd),
    };
  }

  #unwatch(token: number, fd: number): Promise<void> {
    if (this.#watches.delete(token)) this.#epoll.remove(fd);
    if (this.#watches.size > 0 || !this.#waiting) return Promise.resolve();
    this.#wake();
    return new Promise((resolve) => this.#onStopped.push(resolve));
  }

  #wait(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    this.#epoll.waitAside((count) => {
      this.#waiting = false;
      const ready = this.#takeEvents(count);
      if (this.#watches.size === 0) this.#stop();
      else this.#wait();
      for (const report of ready) report();
    });
  }

  #takeEvents(count: number): (() => void)[] {
    const ready: (() => void)[] = [];
    for (let event = 0; event < count; event++) {
      const token = this.#epoll.token(event);
      const failed = this.#epoll.failed(event);
      if (token === WAKE_UP) this.#drainWakeUp();
      // Looked up when it is called: an earlier one of the same round may have closed it.
      else ready.push(() => this.#watches.get(token)?.(failed));
    }
    return ready;
  }

  #stop(): void {
    process.off('exit', this.#atExit);
    libc().close(this.#wakeUp);
    this.#epoll.close();
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
}
