/**
 * The control socket of the daemon: accepts connections, takes requests apart, hands them to a dispatcher and writes
 * the answers back. Only the socket's owner may connect (mode 0600).
 */
import { chmodSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import { LineSplitter, LineTooLongError } from './lines.ts';
import { type Answer, ControlError, type ErrorObject, MAX_LINE, type TunnelEvent } from './protocol.ts';

/** Answers one request; a thrown `ControlError` becomes the error answer. */
export type Dispatch = (verb: string, params: unknown, connection: ControlConnection) => Promise<unknown>;

/** Connections at the same time: more are closed at once. */
const MAX_CONNECTIONS = 64;

/** Bytes that may wait for a slow reader of events before its connection is closed. */
const MAX_BACKLOG = 1024 * 1024;

/** Bytes of a path that fit into a Unix socket's address (sun_path, less its closing zero). */
const MAX_PATH = 107;

/** What a dispatcher knows of the connection that a request came by. */
export interface ControlConnection {
  /** Whoever was there has gone. */
  readonly closed: boolean;
  /** From now on events are sent to this connection; of one tunnel, or of all. */
  subscribe(tunnel: string | undefined): void;
}

class Connection implements ControlConnection {
  readonly #socket: Socket;
  #subscription: { readonly tunnel: string | undefined } | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  get closed(): boolean {
    return !this.#socket.writable;
  }

  subscribe(tunnel: string | undefined): void {
    this.#subscription = { tunnel };
  }

  offer(event: TunnelEvent): void {
    const wanted = this.#subscription;
    if (wanted === undefined || (wanted.tunnel !== undefined && wanted.tunnel !== event.tunnel)) return;
    if (this.#socket.writableLength > MAX_BACKLOG) this.#socket.destroy();
    else this.write({ event });
  }

  write(answer: Answer): void {
    if (this.#socket.writable) this.#socket.write(`${JSON.stringify(answer)}\n`);
  }
}

export class ControlServer {
  readonly #path: string;
  readonly #dispatch: Dispatch;
  readonly #log: Logger;
  readonly #server: Server;
  // BOUNDED: MAX_CONNECTIONS.
  readonly #connections = new Map<Socket, Connection>();

  constructor(path: string, dispatch: Dispatch, log: Logger) {
    this.#path = path;
    this.#dispatch = dispatch;
    this.#log = log;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** @throws ControlError when another daemon serves the same folder */
  async listen(): Promise<void> {
    const length = Buffer.byteLength(this.#path);
    if (length > MAX_PATH) {
      throw new ControlError(
        'system',
        `the control socket ${this.#path} has a path of ${length} bytes, and ${MAX_PATH} fit; choose a shorter --run-dir`,
      );
    }
    if (await answers(this.#path)) {
      throw new ControlError(
        'invalid-state',
        `another sectunneld already serves ${this.#path}; stop it, or give this one a --run-dir of its own`,
      );
    }
    rmSync(this.#path, { force: true });
    // The mode must be right from the first moment: nobody else may connect between bind and chmod.
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
    this.#server.on('error', (error) => this.#log.error({ error: error.message }, 'control socket failed'));
  }

  publish(event: TunnelEvent): void {
    for (const connection of this.#connections.values()) connection.offer(event);
  }

  async close(): Promise<void> {
    for (const socket of this.#connections.keys()) socket.destroySoon();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    rmSync(this.#path, { force: true });
  }

  #accept(socket: Socket): void {
    if (this.#connections.size >= MAX_CONNECTIONS) {
      socket.destroy();
      return;
    }
    const connection = new Connection(socket);
    const lines = new LineSplitter(MAX_LINE);
    this.#connections.set(socket, connection);
    socket.on('close', () => this.#connections.delete(socket));
    socket.on('error', (error) => this.#log.debug({ error: error.message }, 'control connection failed'));
    socket.on('data', (chunk: Buffer) => {
      try {
        for (const line of lines.push(chunk)) void this.#answer(line, connection);
      } catch (error) {
        if (!(error instanceof LineTooLongError)) throw error;
        connection.write({ id: 0, error: { code: 'bad-request', message: error.message } });
        socket.destroySoon();
      }
    });
  }

  async #answer(line: string, connection: Connection): Promise<void> {
    let id = 0;
    try {
      const request = parseRequest(line);
      id = request.id;
      const result = await this.#dispatch(request.verb, request.params, connection);
      connection.write({ id, result });
    } catch (error) {
      connection.write({ id, error: this.#errorObject(error) });
    }
  }

  #errorObject(error: unknown): ErrorObject {
    if (error instanceof ControlError) return { code: error.code, message: error.message };
    const message = messageOf(error);
    this.#log.error({ error: error instanceof Error ? error.stack : message }, 'request failed');
    return { code: 'internal', message: `internal error: ${message}` };
  }
}

function parseRequest(line: string): { id: number; verb: string; params: unknown } {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new ControlError('bad-request', 'the request is not JSON');
  }
  if (typeof value !== 'object' || value === null)
    throw new ControlError('bad-request', 'the request is not an object');
  const { id, verb, params } = value as { id?: unknown; verb?: unknown; params?: unknown };
  if (typeof id !== 'number') throw new ControlError('bad-request', 'the request has no numeric id');
  if (typeof verb !== 'string') throw new ControlError('bad-request', 'the request has no verb');
  return { id, verb, params: params ?? {} };
}

/** Whether somebody accepts connections on a socket file: tells a living daemon from a file left behind. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const finish = (alive: boolean) => (): void => {
      socket.destroy();
      resolve(alive);
    };
    socket.once('connect', finish(true));
    socket.once('error', finish(false));
  });
}
