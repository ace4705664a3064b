/**
 * The control socket of the daemon: accepts connections, hands their requests to a dispatcher in a fair order, and keeps what
 * all of them hold within bounds. Only the socket's owner may connect (mode 0600), and who connected is asked of the
 * kernel as well.
 */
import { chmodSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { SectunnelError } from '../../base/error.ts';
import type { Logger } from '../../base/log.ts';
import { messageOf } from '../../base/text.ts';
import { removeOffers } from '../../control/hand-over.ts';
import type { TunnelEvent } from '../../control/results.ts';
import { socketPathProblem } from '../../control/socket-path.ts';
import { peerUser } from '../../sys/peer.ts';
import { RateLimit } from '../rate-limit.ts';
import {
  CLOSING_TIME,
  Connection,
  type ConnectionOwner,
  type ControlConnection,
  type ControlLimits,
} from './connection.ts';
import { errorObject } from './refusing.ts';
import type { ControlRequest } from './request.ts';
import { type Lane, RequestQueue } from './request-queue.ts';

/** Carries out one request; a thrown `SectunnelError` becomes an error reply. */
export type Dispatch = (
  verb: string,
  params: ControlRequest['params'],
  connection: ControlConnection,
) => Promise<unknown>;

export interface ControlOptions {
  /** What a verb waits for. Default: nothing. */
  readonly laneOf?: (verb: string) => Lane;
  readonly limits?: Partial<ControlLimits>;
}

const LIMITS: ControlLimits = {
  connections: 128,
  subscribers: 32,
  memory: 32 * 1024 * 1024,
  requestTime: 5_000,
  replyTime: 30_000,
  idleTime: 300_000,
};

/** How often deadlines are checked within the shortest of them. */
const LOOKS = 10;

/** What a connection may hold without being closed for it when memory is short, in bytes. */
const SMALL = 128 * 1024;

export class ControlServer {
  readonly #path: string;
  readonly #log: Logger;
  readonly #owner: ConnectionOwner;
  readonly #server: Server;
  readonly #rate = new RateLimit();
  // BOUNDED: twice `limits.connections`, open and lingering ones, and those whose end Node has not told yet.
  readonly #connections = new Set<Connection>();
  #sweep: NodeJS.Timeout | undefined;

  constructor(path: string, dispatch: Dispatch, log: Logger, { laneOf = () => 'memory', limits }: ControlOptions = {}) {
    this.#path = path;
    this.#log = log;
    this.#owner = {
      limits: { ...LIMITS, ...limits },
      queue: new RequestQueue(),
      laneOf,
      dispatch: ({ verb, params }, connection) => dispatch(verb, params, connection),
      explain: (error) => errorObject(error, log),
      admitSubscriber: () => this.#admitSubscriber(),
      grown: () => this.#boundMemory(),
    };
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  /** @throws SectunnelError when another daemon serves the same folder */
  async listen(): Promise<void> {
    const problem = socketPathProblem(this.#path);
    if (problem !== undefined) throw new SectunnelError('system', problem);
    if (await isServed(this.#path)) {
      throw new SectunnelError(
        'invalid-state',
        `another sectunneld already serves ${this.#path}; stop it, or give this one a --run-dir of its own`,
      );
    }
    rmSync(this.#path, { force: true });
    removeOffers(dirname(this.#path));
    // The mode must be right from the start: no other user may connect between bind and chmod.
    const mask = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', reject);
        this.#server.listen(this.#path, resolve);
      });
    } finally {
      process.umask(mask);
    }
    chmodSync(this.#path, 0o600);
    // Such as a lack of memory. Without free descriptors Node closes new connections without an event.
    this.#server.on('error', (error) =>
      this.#warn('accept', `a control connection was not accepted: ${error.message}`),
    );
    const { requestTime, replyTime, idleTime } = this.#owner.limits;
    this.#sweep = setInterval(() => this.#expire(), Math.min(requestTime, replyTime, idleTime) / LOOKS).unref();
  }

  publish(event: TunnelEvent): void {
    let line: Buffer | undefined;
    for (const connection of this.#connections) {
      if (!connection.subscribed) continue;
      line ??= Buffer.from(`${JSON.stringify({ event })}\n`);
      connection.offer(event.tunnel, line);
    }
    if (line !== undefined) this.#boundMemory();
  }

  /** A client that does not read the end of its reply does not keep the daemon from ending. */
  async close(): Promise<void> {
    clearInterval(this.#sweep);
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#closeAll();
    const patience = setTimeout(() => this.#closeAll(), CLOSING_TIME);
    await closed;
    clearTimeout(patience);
    rmSync(this.#path, { force: true });
  }

  #closeAll(): void {
    for (const connection of this.#connections) connection.close();
  }

  #accept(socket: Socket): void {
    socket.on('error', (error) => this.#log.debug({ error: error.message }, 'control connection failed'));
    this.#boundLingering();
    const refusal = this.#refusal(socket) ?? this.#makePlace();
    const connection = new Connection(socket, this.#owner);
    this.#connections.add(connection);
    socket.on('close', () => {
      this.#connections.delete(connection);
      connection.close();
    });
    if (refusal !== undefined) connection.close({ code: 'busy', message: refusal });
  }

  /** Why the client that connected is not served; the mode of the socket already excludes other users. */
  #refusal(socket: Socket): string | undefined {
    let user: number | undefined;
    try {
      user = peerUser(socket);
    } catch (error) {
      this.#warn('peer', `the user of a control connection cannot be determined: ${messageOf(error)}`);
      return undefined;
    }
    if (user === undefined || user === 0 || user === process.geteuid?.()) return undefined;
    this.#warn(
      'user',
      `user ${user} connected to the control socket ${this.#path}; only the daemon's user and root may`,
    );
    return `user ${user} may not control this daemon; only its own user and root may`;
  }

  /** Makes room for another connection by closing the one that has been idle for longest. @returns why there is no room */
  #makePlace(): string | undefined {
    const { connections } = this.#owner.limits;
    let open = 0;
    for (const connection of this.#connections) if (!connection.isClosing) open++;
    if (open < connections) return undefined;
    const now = performance.now();
    const oldest = leastRecent(this.#connections, (connection) => connection.givesWay(now));
    if (oldest === undefined) return `all of the ${connections} connections wait for a reply; try again`;
    this.#warn('connections', `there are ${connections} control connections: an idle one was closed to make room`);
    oldest.close({
      code: 'busy',
      message: `the connection was closed to make room for another: at most ${connections} are allowed`,
    });
    return undefined;
  }

  /** At most as many connections linger to read the reason of their end as may be open. */
  #boundLingering(): void {
    let count = 0;
    let oldest: Connection | undefined;
    for (const connection of this.#connections) {
      if (!connection.lingers) continue;
      oldest ??= connection;
      count++;
    }
    if (count >= this.#owner.limits.connections) oldest?.close();
  }

  /** Closes connections that hold much memory, the longest idle first, until the rest is within the bound. */
  #boundMemory(): void {
    const { memory } = this.#owner.limits;
    const now = performance.now();
    for (;;) {
      let held = 0;
      for (const connection of this.#connections) held += connection.memory;
      if (held <= memory) return;
      const oldest = leastRecent(this.#connections, (one) => one.memory > SMALL && one.isSpare(now));
      if (oldest === undefined) return;
      this.#warn('memory', `control connections hold ${held} bytes, ${memory} are allowed: an idle one was closed`);
      oldest.close({
        code: 'busy',
        message: 'the connection was closed: all connections together hold too much memory',
      });
    }
  }

  #admitSubscriber(): void {
    const { subscribers } = this.#owner.limits;
    let count = 0;
    for (const connection of this.#connections) if (connection.subscribed) count++;
    if (count < subscribers) return;
    throw new SectunnelError('busy', `${count} connections receive events already; at most ${subscribers} are allowed`);
  }

  #expire(): void {
    const now = performance.now();
    for (const connection of this.#connections) connection.expire(now);
  }

  #warn(kind: string, message: string): void {
    const leftOut = this.#rate.take(performance.now(), kind);
    if (leftOut >= 0) this.#log.warn(leftOut > 0 ? { leftOut } : {}, message);
  }
}

function leastRecent(connections: Iterable<Connection>, may: (one: Connection) => boolean): Connection | undefined {
  let oldest: Connection | undefined;
  for (const connection of connections) {
    if (may(connection) && connection.progress < (oldest?.progress ?? Number.POSITIVE_INFINITY)) oldest = connection;
  }
  return oldest;
}

/**
 * Whether a process accepts connections on a socket file: tells a living daemon from a file left behind.
 * @throws Error when it cannot be told: the file may be that of a daemon
 */
function isServed(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') resolve(false);
      // More clients wait to be accepted than the system lets wait.
      else if (error.code === 'EAGAIN') resolve(true);
      else reject(error);
    });
  });
}
