/** A control server without a daemon, and clients that send and read as badly as they like. */
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { LineSplitter } from '../../src/control/lines.ts';
import { CONTROL_SOCKET, MAX_REPLY, type Reply } from '../../src/control/protocol.ts';
import { type ControlOptions, ControlServer, type Dispatch } from '../../src/daemon/control/server.ts';
import { eventually, type LogLine, recordingLog, temporaryFolder } from './daemon.ts';

export interface Served {
  readonly server: ControlServer;
  readonly runDir: string;
  readonly path: string;
  readonly lines: LogLine[];
}

/** Closed when the test ends. */
export async function serve(dispatch: Dispatch, options: ControlOptions = {}): Promise<Served> {
  const runDir = temporaryFolder();
  const path = join(runDir, CONTROL_SOCKET);
  const lines: LogLine[] = [];
  const server = new ControlServer(path, dispatch, recordingLog(lines), options);
  await server.listen();
  onTestFinished(() => server.close());
  return { server, runDir, path, lines };
}

/** A connection that reads nothing until it is told to. */
export class RawClient {
  readonly socket: Socket;
  /** What was read. */
  readonly answers: Reply[] = [];
  readonly #lines = new LineSplitter(MAX_REPLY);
  /** The daemon has ended the connection, as far as can be told without reading. */
  closed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => undefined);
    socket.on('end', () => socket.end());
    socket.on('close', () => {
      this.closed = true;
    });
    onTestFinished(() => void socket.destroy());
  }

  static open(path: string): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = connect({ path, allowHalfOpen: true });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new RawClient(socket));
      });
    });
  }

  send(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  ask(id: number, verb = 'list', params: object = {}): void {
    this.send(`${JSON.stringify({ id, verb, params })}\n`);
  }

  /** From now on it reads all that comes. */
  read(): this {
    if (this.socket.listenerCount('data') > 0) {
      this.socket.resume();
      return this;
    }
    this.socket.on('data', (chunk: Buffer) => {
      this.#lines.push(chunk);
      for (let line = this.#lines.next(); line !== undefined; line = this.#lines.next()) {
        this.answers.push(JSON.parse(line.toString()) as Reply);
      }
    });
    return this;
  }

  /** Reads until there are so many answers and events. */
  async answered(count: number): Promise<Reply[]> {
    this.read();
    await eventually(`${count} answers`, () => this.answers.length >= count || this.closed);
    return this.answers;
  }

  /** Reads until the daemon closes the connection, and gives the reason that it told. */
  async farewell(): Promise<string | undefined> {
    this.read();
    await eventually('the connection to be closed', () => this.closed);
    const last = this.answers.at(-1);
    return last !== undefined && 'error' in last && last.id === 0 ? last.error.message : undefined;
  }
}
