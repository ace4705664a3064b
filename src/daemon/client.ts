/** The other end of the control socket: what the `sectunnel` command and tests talk to a daemon with. */
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { offerSecret } from './hand-over.ts';
import { LineSplitter } from './lines.ts';
import {
  type Answer,
  CONTROL_SOCKET,
  ControlError,
  MAX_LINE,
  type TunnelEvent,
  type Verb,
  type Verbs,
} from './protocol.ts';

/** No daemon serves the run folder. */
export class DaemonUnreachableError extends Error {
  override readonly name = 'DaemonUnreachableError';
}

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

export class DaemonClient {
  readonly #socket: Socket;
  readonly #runDir: string;
  // BOUNDED: one entry for each call of this process that is under way.
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #closed: Error | undefined;
  /** Called for each event after `call('event', …)`. */
  onEvent: (event: TunnelEvent) => void = () => undefined;
  /** Called once when the daemon goes away. */
  onClose: () => void = () => undefined;

  private constructor(socket: Socket, runDir: string) {
    this.#socket = socket;
    this.#runDir = runDir;
    const lines = new LineSplitter(MAX_LINE);
    socket.on('data', (chunk: Buffer) => {
      for (const line of lines.push(chunk)) this.#take(JSON.parse(line) as Answer);
    });
    socket.on('error', (error) => this.#end(error));
    socket.on('close', () => this.#end(new Error('the daemon closed the connection')));
  }

  /** @throws DaemonUnreachableError when nobody listens there or the socket may not be opened */
  static async connect(runDir: string): Promise<DaemonClient> {
    const path = join(runDir, CONTROL_SOCKET);
    const socket = connect(path);
    return await new Promise((resolve, reject) => {
      socket.once('connect', () => {
        socket.removeAllListeners('error');
        resolve(new DaemonClient(socket, runDir));
      });
      socket.once('error', (error: NodeJS.ErrnoException) => reject(unreachable(path, error)));
    });
  }

  /** @throws ControlError with the daemon's refusal */
  async call<V extends Verb>(verb: V, params: Verbs[V]['params']): Promise<Verbs[V]['result']> {
    if (this.#closed !== undefined) throw this.#closed;
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#socket.write(`${JSON.stringify({ id, verb, params })}\n`);
    return (await answer) as Verbs[V]['result'];
  }

  /**
   * @param value the caller's, to erase
   * @throws ControlError with the daemon's refusal
   */
  async setSecret(uuid: string, value: Uint8Array): Promise<Verbs['secret-set-value']['result']> {
    const offer = await offerSecret(this.#runDir, value);
    try {
      return await this.call('secret-set-value', { uuid, offer: offer.name });
    } finally {
      offer.close();
    }
  }

  close(): void {
    this.#socket.end();
  }

  #take(answer: Answer): void {
    if ('event' in answer) {
      this.onEvent(answer.event);
      return;
    }
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if ('error' in answer) waiting?.reject(new ControlError(answer.error.code, answer.error.message));
    else waiting?.resolve(answer.result);
  }

  #end(error: Error): void {
    if (this.#closed !== undefined) return;
    this.#closed = error;
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
    this.onClose();
  }
}

function unreachable(path: string, error: NodeJS.ErrnoException): DaemonUnreachableError {
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new DaemonUnreachableError(
        `no sectunneld listens on ${path}; start one with 'sectunneld --config-dir DIR --run-dir DIR', or name its folder with --run-dir`,
      );
    case 'EACCES':
      return new DaemonUnreachableError(`${path} may not be opened by this user; use the user that started sectunneld`);
    default:
      return new DaemonUnreachableError(`cannot connect to ${path}: ${error.message}`);
  }
}
