/** The client of the control socket, for the `sectunnel` command and tests. */
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { SectunnelError } from '../base/error.ts';
import { messageOf } from '../base/text.ts';
import { offerSecret } from './hand-over.ts';
import { LineSplitter } from './lines.ts';
import { CONTROL_SOCKET, type Interim, MAX_REPLY, type Reply, type ResultPart } from './protocol.ts';
import type { Progress, TunnelEvent } from './results.ts';
import { socketPathProblem } from './socket-path.ts';
import type { Params, Results, Verb } from './verbs.ts';

/** No daemon serves the run folder, or it does not reply. */
export class DaemonUnreachableError extends Error {
  override readonly name = 'DaemonUnreachableError';
}

/** Attempts to connect, and milliseconds between them, while too many others wait to be accepted. */
const CONNECT_ATTEMPTS = 20;
const CONNECT_PAUSE = 100;

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
  /** What came before the reply. */
  readonly onInterim: (interim: Interim) => void;
}

export interface CallOptions {
  /** Called for each progress of a change of many tunnels. */
  readonly onProgress?: (progress: Progress) => void;
}

export interface ClientOptions {
  /** Milliseconds to wait for a reply. Default: no limit. */
  readonly patience?: number;
}

export class DaemonClient {
  readonly #runDir: string;
  readonly #path: string;
  readonly #patience: number | undefined;
  // BOUNDED: one entry for each call of this process that is under way.
  readonly #waiting = new Map<number, Waiting>();
  readonly #lines = new LineSplitter(MAX_REPLY);
  #nextId = 1;
  #opening: Promise<Socket> | undefined;
  #closed: Error | undefined;
  /** Called for each event after `call('event', …)`. */
  onEvent: (event: TunnelEvent) => void = () => undefined;
  /** Called once when the daemon goes away. */
  onClose: () => void = () => undefined;

  /** Connects with the first call, as the daemon closes connections that send no request for long. */
  constructor(runDir: string, { patience }: ClientOptions = {}) {
    this.#runDir = runDir;
    this.#path = join(runDir, CONTROL_SOCKET);
    this.#patience = patience;
  }

  /** @throws DaemonUnreachableError when no daemon listens there or the socket may not be opened */
  static async connect(runDir: string): Promise<DaemonClient> {
    const client = new DaemonClient(runDir);
    await client.#open();
    return client;
  }

  /**
   * @throws SectunnelError with the daemon's refusal
   * @throws DaemonUnreachableError when no daemon listens, it closes the connection, or does not reply in time
   */
  async call<V extends Verb>(verb: V, params: Params<V>, { onProgress }: CallOptions = {}): Promise<Results[V]> {
    if (this.#closed !== undefined) throw this.#closed;
    const socket = await this.#open();
    const id = this.#nextId++;
    const parts: ResultPart[] = [];
    const timer = this.#patience === undefined ? undefined : setTimeout(() => this.#giveUp(verb), this.#patience);
    const onInterim = (interim: Interim): void => {
      timer?.refresh();
      if ('part' in interim) parts.push(interim.part);
      else onProgress?.(interim.progress);
    };
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject, onInterim }));
    socket.write(`${JSON.stringify({ id, verb, params })}\n`);
    try {
      return withParts(parts, (await answer) as Results[V]);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * @param value the caller's, to erase
   * @throws SectunnelError with the daemon's refusal
   * @throws DaemonUnreachableError as `call`
   */
  async setSecret(uuid: string, value: Uint8Array): Promise<Results['secret-set-value']> {
    // Nothing is offered where no daemon takes it: it would be left behind.
    await this.#open();
    const offer = await offerSecret(this.#runDir, value);
    try {
      return await this.call('secret-set-value', { uuid, offer: offer.name });
    } finally {
      offer.close();
    }
  }

  close(): void {
    void this.#opening?.then(
      (socket) => socket.end(),
      () => undefined,
    );
  }

  /** Closes without waiting for replies. What was asked for goes on. */
  abandon(): void {
    void this.#opening?.then(
      (socket) => socket.destroy(),
      () => undefined,
    );
  }

  #open(): Promise<Socket> {
    this.#opening ??= new Promise((resolve, reject) => this.#connect(resolve, reject, CONNECT_ATTEMPTS));
    return this.#opening;
  }

  #connect(resolve: (socket: Socket) => void, reject: (error: Error) => void, attempts: number): void {
    const problem = socketPathProblem(this.#path);
    if (problem !== undefined) {
      reject(new DaemonUnreachableError(problem));
      return;
    }
    const socket = connect(this.#path);
    const refused = (error: NodeJS.ErrnoException): void => {
      if (error.code !== 'EAGAIN' || attempts <= 1) reject(unreachable(this.#path, error));
      else setTimeout(() => this.#connect(resolve, reject, attempts - 1), CONNECT_PAUSE);
    };
    socket.once('error', refused);
    socket.once('connect', () => {
      socket.off('error', refused);
      this.#attend(socket);
      resolve(socket);
    });
  }

  #attend(socket: Socket): void {
    const gone = (why: string) =>
      this.#end(
        new DaemonUnreachableError(
          `sectunneld closed the connection${why}. It may have run out of file descriptors; see its log`,
        ),
      );
    socket.on('data', (chunk: Buffer) => {
      this.#lines.push(chunk);
      for (let answer = this.#next(socket); answer !== undefined; answer = this.#next(socket)) this.#take(answer);
    });
    socket.on('error', (error) => gone(`: ${error.message}`));
    socket.on('close', () => gone(''));
  }

  /** The next complete reply or event. */
  #next(socket: Socket): Reply | undefined {
    try {
      const line = this.#lines.next();
      return line && (JSON.parse(line.toString('utf8')) as Reply);
    } catch (error) {
      const found = messageOf(error);
      this.#end(
        new DaemonUnreachableError(
          `the program that listens on ${this.#path} is not a sectunneld of this version: ${found}`,
        ),
      );
      socket.destroy();
      return undefined;
    }
  }

  #take(answer: Reply): void {
    if ('event' in answer) {
      this.onEvent(answer.event);
      return;
    }
    // The reason why the daemon is about to close the connection.
    if (answer.id === 0 && 'error' in answer) {
      this.#end(new SectunnelError(answer.error.code, answer.error.message));
      return;
    }
    const waiting = this.#waiting.get(answer.id);
    if ('progress' in answer || 'part' in answer) {
      waiting?.onInterim(answer);
      return;
    }
    this.#waiting.delete(answer.id);
    if ('error' in answer) waiting?.reject(new SectunnelError(answer.error.code, answer.error.message));
    else waiting?.resolve(answer.result);
  }

  #giveUp(verb: Verb): void {
    const seconds = (this.#patience ?? 0) / 1000;
    const error = new DaemonUnreachableError(
      `sectunneld did not answer '${verb}' within ${seconds} s, and may still carry it out: see its log; ` +
        "'sectunnel --timeout SECONDS' waits longer",
    );
    this.#end(error);
    void this.#opening?.then((socket) => socket.destroy());
  }

  #end(error: Error): void {
    if (this.#closed !== undefined) return;
    this.#closed = error;
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
    this.onClose();
  }
}

/** The result with the elements of its arrays that came before it. */
function withParts<T>(parts: readonly ResultPart[], result: T): T {
  if (parts.length === 0) return result;
  const whole: Record<string, unknown> = Object.assign({}, result);
  for (const key of new Set(parts.flatMap((part) => Object.keys(part)))) {
    whole[key] = [...parts.flatMap((part) => part[key] ?? []), ...(whole[key] as readonly unknown[])];
  }
  return whole as T;
}

function unreachable(path: string, error: NodeJS.ErrnoException): DaemonUnreachableError {
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new DaemonUnreachableError(
        `no sectunneld listens on ${path}; start one with 'sectunneld --config-dir DIR --run-dir DIR', or name its folder with --run-dir`,
      );
    case 'EACCES':
      return new DaemonUnreachableError(
        `this user may not open ${path}; run the command as the user that runs sectunneld, or as root`,
      );
    case 'EAGAIN':
      return new DaemonUnreachableError(
        `sectunneld accepts no connection on ${path}: it hangs, or too many clients are waiting; see its log`,
      );
    default:
      return new DaemonUnreachableError(`cannot connect to ${path}: ${error.message}`);
  }
}
