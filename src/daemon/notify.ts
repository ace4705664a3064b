/**
 * What a service manager is told, by sd_notify(3)'s protocol: that the daemon is ready, that it still runs (the watchdog),
 * that it ends. Datagrams to a Unix socket, which Node has no way to send.
 */
import { MAX_SOCKET_PATH } from '../control/socket-path.ts';
import { ERRNO, SystemError } from '../sys/errno.ts';
import { libc } from '../sys/libc.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC_NONBLOCK = 0x8_0802;
const MSG_DONTWAIT_NOSIGNAL = 0x4040;
/** sockaddr_un: the family, then the path. */
const PATH_OFFSET = 2;

/** Of the environment: where to, and how often. */
const SOCKET = 'NOTIFY_SOCKET';
const WATCHDOG_TIME = 'WATCHDOG_USEC';
const WATCHDOG_PROCESS = 'WATCHDOG_PID';

type Environment = Record<string, string | undefined>;

export class ServiceManager {
  readonly #fd: number;
  readonly #path: string;
  readonly #watchdog: number | undefined;
  readonly #onError: (error: Error) => void;
  #timer: NodeJS.Timeout | undefined;

  private constructor(path: string, watchdog: number | undefined, onError: (error: Error) => void) {
    const calls = libc();
    this.#path = path;
    this.#watchdog = watchdog;
    this.#onError = onError;
    this.#fd = calls.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC_NONBLOCK, 0);
    if (this.#fd < 0) throw new SystemError('socket(AF_UNIX)', calls.errno());
    if (calls.connect(this.#fd, unixAddress(path)) < 0) {
      const error = new SystemError(`connect(${path})`, calls.errno());
      calls.close(this.#fd);
      throw error;
    }
  }

  /**
   * The one that started this process, as the environment tells; `undefined` when none wants to hear. What it says is
   * taken out of the environment: it is not for programs that this one starts.
   * @param onError told when something could not be told to the manager
   */
  static fromEnvironment(environment: Environment, onError: (error: Error) => void): ServiceManager | undefined {
    const path = environment[SOCKET];
    const watchdog = watchdogInterval(environment);
    for (const name of [SOCKET, WATCHDOG_TIME, WATCHDOG_PROCESS]) delete environment[name];
    if (path === undefined || path === '') return undefined;
    try {
      return new ServiceManager(path, watchdog, onError);
    } catch (error) {
      if (error instanceof Error) onError(error);
      return undefined;
    }
  }

  /** From now on the watchdog is fed, twice in the time that it allows: by the event loop, so that it tells when that hangs. */
  ready(): void {
    this.#send('READY=1');
    if (this.#watchdog === undefined) return;
    this.#timer = setInterval(() => this.#send('WATCHDOG=1'), this.#watchdog / 2);
    this.#timer.unref();
  }

  stopping(): void {
    this.#send('STOPPING=1');
  }

  close(): void {
    clearInterval(this.#timer);
    libc().close(this.#fd);
  }

  #send(state: string): void {
    const calls = libc();
    if (calls.send(this.#fd, Buffer.from(state), MSG_DONTWAIT_NOSIGNAL) >= 0) return;
    const errno = calls.errno();
    // The manager has not read what it was told before: the next one will do.
    if (errno !== ERRNO.EAGAIN)
      this.#onError(new SystemError(`send(${this.#path})`, errno, `It was not told ${state}`));
  }
}

/** Milliseconds; `undefined` when the service manager does not watch this process. */
function watchdogInterval(environment: Environment): number | undefined {
  const process_ = environment[WATCHDOG_PROCESS];
  if (process_ !== undefined && process_ !== String(process.pid)) return undefined;
  const microseconds = Number(environment[WATCHDOG_TIME]);
  return microseconds > 0 ? microseconds / 1000 : undefined;
}

/** A path, or `@` and a name in the abstract namespace (unix(7)). */
function unixAddress(path: string): Uint8Array {
  const name = Buffer.from(path);
  const [first] = name;
  if (first !== 0x2f && first !== 0x40)
    throw new Error(`${SOCKET}=${path}: expected a path from / on, or @ and a name`);
  if (name.length > MAX_SOCKET_PATH) {
    throw new Error(`${SOCKET}=${path}: at most ${MAX_SOCKET_PATH} bytes fit into an address`);
  }
  const address = new Uint8Array(PATH_OFFSET + name.length);
  address[0] = AF_UNIX;
  address.set(name, PATH_OFFSET);
  if (first === 0x40) address[PATH_OFFSET] = 0;
  return address;
}
