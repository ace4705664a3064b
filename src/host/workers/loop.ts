/**
 * What both kinds of workers have in common: commands that are carried out in their order and answered, descriptors that
 * are waited for in one blocking call, deadlines. A worker has no event loop of its own: it polls.
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
/** Deadlines are asked for so often at the most while there is traffic, in milliseconds. */
const LOOK_AT_DEADLINES = 10;

/** When no packet came for so long, in milliseconds, the next one is alone: it is passed on before anything else is done. */
export const QUIET = 1;

/** When nothing comes for so long after it, in milliseconds, the rest of its turn is done. */
const REST_AFTER = 2;

/** Something that is waited for. */
export interface Source {
  readonly fd: number;
  /** Takes what waits; false when it is to be waited for, as nothing was left, or not known to be. */
  readonly serve: () => boolean;
  /** It has an error, or was hung up. */
  readonly failed: () => void;
}

/** Readiness is told by a flag: a set that all come to and leave again is a table that grows old with all its likes. */
interface Watched {
  readonly source: Source;
  ready: boolean;
}

export interface LoopHooks {
  readonly obey: (command: WorkerCommand) => void;
  /** Milliseconds of the host's clock; `Infinity` for never. */
  readonly nextDeadline: () => number;
  readonly expire: (now: number) => void;
  /** After each turn: what is to be told, counters. */
  readonly afterTurn: () => void;
}

export class WorkerLoop {
  readonly #setup: WorkerSetup;
  readonly #hooks: LoopHooks;
  // BOUNDED: the tunnels of the host, or its sockets.
  readonly #sources = new Map<number, Watched>();
  /** The same, as they were when descriptors were gathered. */
  #polled: Watched[] = [];
  #descriptors = new Int32Array(0);
  #descriptorsAt = 0;
  #changed = true;
  // BOUNDED: emptied after each turn, which reads a bounded number of packets.
  #reports: WorkerReport[] = [];
  readonly #wakeWord = new Uint8Array(8);
  /** A packet came alone and was passed on in this turn. */
  #alone = false;
  /** The rest of the last turn has not been done yet. */
  #restWaits = false;
  /** By the main thread, which has given a command. */
  #woken = false;
  #applied = 0;
  #told = 0;
  #stopped = false;
  #deadline = Number.POSITIVE_INFINITY;
  #lookedAt = 0;

  constructor(setup: WorkerSetup, hooks: LoopHooks) {
    this.#setup = setup;
    this.#hooks = hooks;
  }

  /** The host's clock. */
  now(): number {
    return bootNow() + this.#setup.clockOffset;
  }

  /** To be told to the main thread after the turn. */
  report(report: WorkerReport): void {
    this.#reports.push(report);
  }

  /** @param key the later of two sources takes the place of the earlier */
  watch(key: number, source: Source): void {
    this.unwatch(key);
    // It may have something since before it was watched.
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
    this.#obey();
    while (!this.#stopped) this.#turn();
    this.#tell();
  }

  /**
   * What comes before a packet is served, all of it, is part of how long the packet takes; and what comes behind one that
   * was alone, if whoever gets it waits for this processor.
   */
  #turn(): void {
    // While one has more, others must not be left out; one alone need not ask.
    const asked = this.#sources.size > 1 || !this.#someReady();
    if (asked) this.#poll();
    if (!asked || this.#woken) this.#obey();
    if (this.#changed) this.#gatherDescriptors();
    const polled = this.#polled;
    for (let i = 0; i < polled.length; i++) {
      const watched = polled[i]!;
      if (watched.ready && !watched.source.serve()) watched.ready = false;
    }
    const waits = this.#alone && !this.#restWaits && !this.#hasToTell();
    this.#alone = false;
    this.#restWaits = waits;
    if (waits) return;
    this.#lookAtTime();
    this.#hooks.afterTurn();
    this.#tell();
  }

  /** The turn has passed a packet on that came alone: what else is to be done can wait. */
  deferRest(): void {
    this.#alone = true;
  }

  #someReady(): boolean {
    for (const { ready } of this.#polled) if (ready) return true;
    return false;
  }

  #obey(): void {
    const { control, port } = this.#setup;
    while (this.#applied !== Atomics.load(control, Control.issued)) {
      const received = receiveMessageOnPort(port) as { readonly message: WorkerCommand } | undefined;
      if (received === undefined) return;
      const { message } = received;
      if (message.type === 'stop') this.#stopped = true;
      else this.#hooks.obey(message);
      this.#applied = (this.#applied + 1) | 0;
    }
  }

  #lookAtTime(): void {
    const now = this.now();
    if (now - this.#lookedAt >= LOOK_AT_DEADLINES) {
      this.#lookedAt = now;
      this.#deadline = this.#hooks.nextDeadline();
    }
    if (now < this.#deadline) return;
    this.#hooks.expire(now);
    this.#deadline = this.#hooks.nextDeadline();
  }

  #hasToTell(): boolean {
    return this.#reports.length > 0 || this.#told !== this.#applied;
  }

  #tell(): void {
    if (!this.#hasToTell()) return;
    this.#told = this.#applied;
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
      // To read is also what takes an error off a socket. What came or went since is asked for again.
      if (!this.#changed) watched.ready = true;
    }
  }

  /** Milliseconds, rounded up; -1 for ever. */
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
