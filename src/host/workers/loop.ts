/**
 * The loop of a worker of either role: applies commands in their order and acknowledges them, waits for all descriptors at
 * once (epoll), and serves deadlines. A turn costs what is ready, however many tunnels there are. Node's event loop does not
 * run in a worker.
 */
import { receiveMessageOnPort } from 'node:worker_threads';
import { bootNow } from '../../sys/boot-clock.ts';
import { Epoll } from '../../sys/epoll.ts';
import { libc } from '../../sys/libc.ts';
import { addressOf } from '../../sys/native-memory.ts';
import { Control, type WorkerCommand, type WorkerOutput, type WorkerReport, type WorkerSetup } from './messages.ts';

/** The token of the main thread's eventfd; those of sources follow. */
const WAKE_UP = 0;
/** While there is traffic, the next deadline is computed at most once in this many milliseconds. */
const COMPUTE_DEADLINE_EVERY = 10;

/** A packet that comes after a pause of this many milliseconds is passed on alone, before the worker does anything else. */
export const QUIET = 1;

/** When nothing follows such a packet for this many milliseconds, the worker does the deferred rest of the turn. */
const REST_AFTER = 2;

/** A descriptor that the loop waits for, and what serves it. */
export interface Source {
  readonly fd: number;
  /** Reads what waits. Returns true when there may be more; false to have epoll tell when there is. */
  readonly serve: () => boolean;
  /** Called when epoll reports an error or a hang-up. */
  readonly failed: () => void;
}

/** A flag, not membership in a set: a set whose entries come and go with every packet is rebuilt and collected as garbage. */
interface Watched {
  readonly source: Source;
  ready: boolean;
  watched: boolean;
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
  readonly #epoll = new Epoll();
  /** Sources that may have something to read. BOUNDED: by the sources. */
  readonly #ready: Watched[] = [];
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
    this.#epoll.add(setup.wake, WAKE_UP, 'readable');
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
    this.#epoll.add(source.fd, key + 1, 'readable');
    const watched = { source, ready: false, watched: true };
    this.#sources.set(key, watched);
    // What came before is reported too, but only by the next wait.
    this.#setReady(watched);
  }

  unwatch(key: number): void {
    const watched = this.#sources.get(key);
    if (watched === undefined) return;
    this.#sources.delete(key);
    this.#epoll.remove(watched.source.fd);
    watched.watched = false;
  }

  #setReady(watched: Watched): void {
    if (watched.ready) return;
    watched.ready = true;
    this.#ready.push(watched);
  }

  run(): void {
    this.#applyCommands();
    while (!this.#stopped) this.#turn();
    this.#sendReports();
    this.#epoll.close();
  }

  /**
   * Everything that a turn does before a packet adds to the packet's latency. So does what it does behind a lone packet, when
   * the packet's receiver waits for this processor: the rest is deferred then.
   */
  #turn(): void {
    // While one source has more, the others must be asked; a single source need not be.
    const asked = this.#sources.size > 1 || this.#ready.length === 0;
    if (asked) this.#wait();
    if (!asked || this.#woken) this.#applyCommands();
    this.#serve();
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

  /** Serves each source that is ready, and keeps those that may have more. */
  #serve(): void {
    const ready = this.#ready;
    let kept = 0;
    // Sources may come and go meanwhile.
    for (let i = 0; i < ready.length; i++) {
      const each = ready[i]!;
      if (each.watched && each.source.serve() && each.watched) ready[kept++] = each;
      else each.ready = false;
    }
    ready.length = kept;
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

  #wait(): void {
    this.#woken = false;
    const epoll = this.#epoll;
    const timeout = this.#ready.length > 0 ? 0 : this.#restWaits ? REST_AFTER : this.#timeout();
    const count = epoll.wait(timeout);
    for (let event = 0; event < count; event++) {
      const token = epoll.token(event);
      if (token === WAKE_UP) {
        this.#woken = true;
        libc().read(this.#setup.wake, addressOf(this.#wakeWord), 8);
        continue;
      }
      const watched = this.#sources.get(token - 1);
      if (watched === undefined) continue;
      // Reading also clears an error of a socket.
      if (epoll.failed(event)) watched.source.failed();
      if (watched.watched) this.#setReady(watched);
    }
  }

  /** Milliseconds until the next deadline, rounded up; -1 when there is none. */
  #timeout(): number {
    this.#deadline = this.#hooks.nextDeadline();
    if (this.#deadline === Number.POSITIVE_INFINITY) return -1;
    return Math.min(Math.max(0, Math.ceil(this.#deadline - this.now())), 0x7fff_ffff);
  }
}
