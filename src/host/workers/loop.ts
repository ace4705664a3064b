/**
 * The loop of a worker of either role: applies commands in their order and acknowledges them, waits for all descriptors in
 * one blocking poll, and serves deadlines. Node's event loop does not run in a worker.
 */
import { receiveMessageOnPort } from 'node:worker_threads';
import { bootNow } from '../../sys/boot-clock.ts';
import { ERRNO, SystemError } from '../../sys/errno.ts';
import { libc } from '../../sys/libc.ts';
import { addressOf } from '../../sys/native-memory.ts';
import { Control, type WorkerCommand, type WorkerOutput, type WorkerReport, type WorkerSetup } from './messages.ts';

/** struct pollfd: int fd, short events, short revents. */
const POLLFD_WORDS = 2;
const POLLIN = 0x1;
/** POLLERR, POLLHUP and POLLNVAL. */
const POLL_FAILED = 0x38;
/** While there is traffic, the next deadline is computed at most once in so many milliseconds. */
const COMPUTE_DEADLINE_EVERY = 10;

/** A packet that comes after a pause of so many milliseconds is passed on alone, before the worker does anything else. */
export const QUIET = 1;

/** When nothing follows such a packet for so many milliseconds, the worker does the deferred rest of the turn. */
const REST_AFTER = 2;

/** A descriptor that the loop waits for, and what serves it. */
export interface Source {
  readonly fd: number;
  /** Reads what waits. Returns true when there may be more; false to have poll tell when there is. */
  readonly serve: () => boolean;
  /** Called when poll reports an error or a hang-up. */
  readonly failed: () => void;
}

/** A flag, not membership in a set: a set whose entries come and go with every packet is rebuilt and collected as garbage. */
interface Watched {
  readonly source: Source;
  ready: boolean;
}

export interface LoopHooks {
  readonly apply: (command: WorkerCommand) => void;
  /** Milliseconds of the host's clock; `Infinity` for never. */
  readonly nextDeadline: () => number;
  readonly expire: (now: number) => void;
  /** Called after each turn, to write counters and make reports. */
  readonly afterTurn: () => void;
}

export class WorkerLoop {
  readonly #setup: WorkerSetup;
  readonly #hooks: LoopHooks;
  // BOUNDED: the tunnels of the host, or its sockets.
  readonly #sources = new Map<number, Watched>();
  /** The sources in the order of `#descriptors`. */
  #polled: Watched[] = [];
  #descriptors = new Int32Array(0);
  #descriptorsAt = 0;
  #changed = true;
  // BOUNDED: emptied after each turn, which reads a bounded number of packets.
  #reports: WorkerReport[] = [];
  readonly #wakeWord = new Uint8Array(8);
  /** This turn passed on a single packet. */
  #alone = false;
  /** The rest of the last turn is still to be done. */
  #restWaits = false;
  /** The main thread has given a command. */
  #woken = false;
  #applied = 0;
  #acknowledged = 0;
  #stopped = false;
  #deadline = Number.POSITIVE_INFINITY;
  #computedAt = 0;

  constructor(setup: WorkerSetup, hooks: LoopHooks) {
    this.#setup = setup;
    this.#hooks = hooks;
  }

  /** The host's clock. */
  now(): number {
    return bootNow() + this.#setup.clockOffset;
  }

  /** Sends a report to the main thread after the turn. */
  report(report: WorkerReport): void {
    this.#reports.push(report);
  }

  /** Waits for a source from now on. @param key of two sources with the same one, the later replaces the earlier */
  watch(key: number, source: Source): void {
    this.unwatch(key);
    // Data may have come before poll knew of it.
    this.#sources.set(key, { source, ready: true });
    this.#changed = true;
  }

  unwatch(key: number): void {
    const watched = this.#sources.get(key);
    if (watched === undefined) return;
    this.#sources.delete(key);
    watched.ready = false;
    this.#changed = true;
  }

  run(): void {
    this.#applyCommands();
    while (!this.#stopped) this.#turn();
    this.#sendReports();
  }

  /**
   * Everything that a turn does before a packet adds to the packet's latency. So does what it does behind a lone packet, when
   * the packet's receiver waits for this processor: the rest is deferred then.
   */
  #turn(): void {
    // While one source has more, the others must be polled; a single source need not be.
    const asked = this.#sources.size > 1 || !this.#someReady();
    if (asked) this.#poll();
    if (!asked || this.#woken) this.#applyCommands();
    if (this.#changed) this.#gatherDescriptors();
    const polled = this.#polled;
    for (let i = 0; i < polled.length; i++) {
      const watched = polled[i]!;
      if (watched.ready && !watched.source.serve()) watched.ready = false;
    }
    const waits = this.#alone && !this.#restWaits && !this.#hasReports();
    this.#alone = false;
    this.#restWaits = waits;
    if (waits) return;
    this.#serveDeadlines();
    this.#hooks.afterTurn();
    this.#sendReports();
  }

  /** Defers the rest of this turn: it has passed on a lone packet. */
  deferRest(): void {
    this.#alone = true;
  }

  #someReady(): boolean {
    for (const { ready } of this.#polled) if (ready) return true;
    return false;
  }

  #applyCommands(): void {
    const { control, port } = this.#setup;
    while (this.#applied !== Atomics.load(control, Control.issued)) {
      const received = receiveMessageOnPort(port) as { readonly message: WorkerCommand } | undefined;
      if (received === undefined) return;
      const { message } = received;
      if (message.type === 'stop') this.#stopped = true;
      else this.#hooks.apply(message);
      this.#applied = (this.#applied + 1) | 0;
    }
  }

  #serveDeadlines(): void {
    const now = this.now();
    if (now - this.#computedAt >= COMPUTE_DEADLINE_EVERY) {
      this.#computedAt = now;
      this.#deadline = this.#hooks.nextDeadline();
    }
    if (now < this.#deadline) return;
    this.#hooks.expire(now);
    this.#deadline = this.#hooks.nextDeadline();
  }

  #hasReports(): boolean {
    return this.#reports.length > 0 || this.#acknowledged !== this.#applied;
  }

  #sendReports(): void {
    if (!this.#hasReports()) return;
    this.#acknowledged = this.#applied;
    const output: WorkerOutput = { applied: this.#applied, reports: this.#reports };
    this.#setup.port.postMessage(output);
    this.#reports = [];
  }

  #poll(): void {
    if (this.#changed) this.#gatherDescriptors();
    this.#woken = false;
    const timeout = this.#someReady() ? 0 : this.#restWaits ? REST_AFTER : this.#timeout();
    const count = libc().poll(this.#descriptorsAt, this.#polled.length + 1, timeout);
    if (count < 0) {
      const errno = libc().errno();
      if (errno !== ERRNO.EINTR) throw new SystemError('poll', errno);
      return;
    }
    if (count === 0) return;
    const words = this.#descriptors;
    this.#woken = words[1]! >>> 16 !== 0;
    if (this.#woken) libc().read(this.#setup.wake, addressOf(this.#wakeWord), 8);
    for (let i = 0; i < this.#polled.length; i++) {
      const events = words[(i + 1) * POLLFD_WORDS + 1]! >>> 16;
      if (events === 0) continue;
      const watched = this.#polled[i]!;
      if ((events & POLL_FAILED) !== 0) watched.source.failed();
      // Reading also clears an error of a socket. If sources changed meanwhile, the next poll tells again.
      if (!this.#changed) watched.ready = true;
    }
  }

  /** Milliseconds until the next deadline, rounded up; -1 when there is none. */
  #timeout(): number {
    this.#deadline = this.#hooks.nextDeadline();
    if (this.#deadline === Number.POSITIVE_INFINITY) return -1;
    return Math.min(Math.max(0, Math.ceil(this.#deadline - this.now())), 0x7fff_ffff);
  }

  #gatherDescriptors(): void {
    this.#changed = false;
    this.#polled = [...this.#sources.values()];
    this.#descriptors = new Int32Array((this.#polled.length + 1) * POLLFD_WORDS);
    this.#descriptorsAt = addressOf(new Uint8Array(this.#descriptors.buffer));
    for (const [i, fd] of [this.#setup.wake, ...this.#polled.map(({ source }) => source.fd)].entries()) {
      this.#descriptors[i * POLLFD_WORDS] = fd;
      this.#descriptors[i * POLLFD_WORDS + 1] = POLLIN;
    }
  }
}
