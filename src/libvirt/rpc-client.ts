/**
 * A connection to one of libvirt's daemons by its Unix socket: proves itself, opens a URI, makes calls and hears of
 * events. Every call has a deadline; a daemon that does not keep it, or breaks the protocol, loses the connection; a
 * caller that needs one opens a new one.
 */
import { connect, type Socket } from 'node:net';
import type { ByteReader, ByteWriter } from '../base/bytes.ts';
import { secretBytes } from '../base/secret-bytes.ts';
import { messageOf } from '../base/text.ts';
import { decodeMessage, encodeCall, MessageAssembler } from './rpc-message.ts';
import { AuthType, Procedure } from './rpc-numbers.ts';
import { readInt, readList, writeOptionalString } from './xdr.ts';

export interface RpcOptions {
  /** The daemon's socket. */
  readonly path: string;
  /** What to open there: `secret:///system`, `network:///system`. */
  readonly uri: string;
  /** Milliseconds that a call may take. Default: 5 s. */
  readonly timeout?: number;
}

/** There is no connection, or it was lost. */
export class LibvirtUnreachableError extends Error {
  override readonly name = 'LibvirtUnreachableError';
  /**
   * `absent`: no daemon listens there. `refused`: this user has no access. `silent`: the daemon does not reply in time.
   * `broken`: the connection was ended, or the protocol broken.
   */
  readonly reason: 'absent' | 'refused' | 'silent' | 'broken';

  constructor(reason: LibvirtUnreachableError['reason'], message: string) {
    super(message);
    this.reason = reason;
  }
}

interface Waiting {
  readonly timer: NodeJS.Timeout;
  succeed(body: ByteReader): void;
  fail(error: Error): void;
}

const DEFAULT_TIMEOUT = 5_000;
/** libvirt's own limit for what AUTH_LIST tells. */
const MAX_AUTH_TYPES = 20;

function nothing(): void {}

export class RpcClient {
  readonly #socket: Socket;
  readonly #path: string;
  readonly #timeout: number;
  // BOUNDED: by the calls that are under way, each with a deadline.
  readonly #waiting = new Map<number, Waiting>();
  // BOUNDED: by the kinds of events that are listened for.
  readonly #listeners = new Map<number, (body: ByteReader) => void>();
  #serial = 0;
  #ended: Error | undefined;
  /** Called once when the connection is gone, also after `close`. */
  onClose: () => void = nothing;

  private constructor({ socket, onBytes }: Connected, path: string, timeout: number) {
    this.#socket = socket;
    this.#path = path;
    this.#timeout = timeout;
    const assembler = new MessageAssembler();
    onBytes((bytes) => {
      try {
        assembler.push(bytes, (message) => this.#take(message));
      } catch (error) {
        this.#break(`it broke the protocol: ${messageOf(error)}`);
      }
    });
    socket.on('error', (error) => this.#break(error.message));
    socket.on('close', () => {
      assembler.discard();
      this.#break('it closed the connection');
    });
  }

  /**
   * Connects, authenticates (nothing or polkit is asked of clients of a local socket) and opens the URI, to read and write.
   * @throws LibvirtUnreachableError, or LibvirtError with libvirt's refusal
   */
  static async connect({ path, uri, timeout = DEFAULT_TIMEOUT }: RpcOptions): Promise<RpcClient> {
    const client = new RpcClient(await connected(path, timeout), path, timeout);
    try {
      await client.#authenticate();
      const open = (body: ByteWriter): void => {
        writeOptionalString(body, uri);
        body.u32(0);
      };
      await client.call(Procedure.ConnectOpen, open);
    } catch (error) {
      client.#socket.destroy();
      throw error;
    }
    return client;
  }

  /**
   * Calls a procedure of the remote program.
   * @param encode writes the arguments; left out where there are none
   * @param decode reads the result. It must copy what it keeps: the bytes are wiped afterwards
   * @throws LibvirtError with libvirt's refusal, LibvirtUnreachableError when no answer comes
   */
  call(procedure: number, encode?: (body: ByteWriter) => void): Promise<void>;
  call<T>(procedure: number, encode: (body: ByteWriter) => void, decode: (body: ByteReader) => T): Promise<T>;
  async call<T>(
    procedure: number,
    encode: (body: ByteWriter) => void = nothing,
    decode: ((body: ByteReader) => T) | undefined = undefined,
  ): Promise<T | undefined> {
    if (this.#ended !== undefined) throw this.#ended;
    const serial = this.#nextSerial();
    const message = encodeCall(procedure, serial, encode);
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#fallSilent(), this.#timeout);
      this.#waiting.set(serial, { timer, succeed: (body) => resolve(decode?.(body)), fail: reject });
      this.#socket.write(message);
    });
  }

  /** From now on `heard` is called for each message of that procedure: it must copy what it keeps. */
  listen(procedure: number, heard: (body: ByteReader) => void): void {
    this.#listeners.set(procedure, heard);
  }

  /** Says goodbye, and waits for nothing. Calls that are under way fail. */
  close(): void {
    if (this.#ended !== undefined) return;
    this.#socket.end(encodeCall(Procedure.ConnectClose, this.#nextSerial(), nothing));
    this.#end('the connection was closed');
  }

  async #authenticate(): Promise<void> {
    const types = await this.call(Procedure.AuthList, nothing, (body) => readList(body, MAX_AUTH_TYPES, readInt));
    if (types.length === 0 || types.includes(AuthType.None)) return;
    if (types.includes(AuthType.Polkit)) return await this.call(Procedure.AuthPolkit);
    throw new LibvirtUnreachableError(
      'refused',
      `${this.#path} wants SASL of its clients; set auth_unix_rw to "none" or "polkit" in the configuration of libvirt's daemon`,
    );
  }

  #take(message: Uint8Array): void {
    const incoming = decodeMessage(message);
    if (incoming.kind === 'message') {
      this.#listeners.get(incoming.procedure)?.(incoming.body);
      return;
    }
    const waiting = this.#waiting.get(incoming.serial);
    if (waiting === undefined) return;
    if (incoming.kind === 'result') waiting.succeed(incoming.body);
    else waiting.fail(incoming.error);
    clearTimeout(waiting.timer);
    this.#waiting.delete(incoming.serial);
  }

  #nextSerial(): number {
    this.#serial = (this.#serial + 1) >>> 0;
    return this.#serial;
  }

  #fallSilent(): void {
    this.#socket.destroy();
    this.#end(`no answer within ${this.#timeout / 1000} s`, 'silent');
  }

  #break(why: string): void {
    this.#socket.destroy();
    this.#end(why);
  }

  #end(why: string, reason: 'silent' | 'broken' = 'broken'): void {
    if (this.#ended !== undefined) return;
    this.#ended = new LibvirtUnreachableError(reason, `libvirt at ${this.#path}: ${why}`);
    for (const { timer, fail } of this.#waiting.values()) {
      clearTimeout(timer);
      fail(this.#ended);
    }
    this.#waiting.clear();
    this.#listeners.clear();
    this.onClose();
  }
}

/** A socket that reads into memory which is erased each time, as secrets come by it: Node's own way leaves copies. */
interface Connected {
  readonly socket: Socket;
  /** Says who takes what comes; the bytes are erased when it returns. */
  readonly onBytes: (take: (bytes: Uint8Array) => void) => void;
}

/** Bytes that are read at a time. */
const READ_SIZE = 65_536;

/** @throws LibvirtUnreachableError saying what is there instead of a daemon */
function connected(path: string, timeout: number): Promise<Connected> {
  return new Promise((resolve, reject) => {
    let take: (bytes: Uint8Array) => void = nothing;
    const callback = (count: number, buffer: Uint8Array): boolean => {
      take(buffer.subarray(0, count));
      buffer.fill(0, 0, count);
      return true;
    };
    const socket = connect({ path, onread: { buffer: secretBytes(READ_SIZE), callback } });
    const onBytes: Connected['onBytes'] = (taker) => {
      take = taker;
    };
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new LibvirtUnreachableError('silent', `libvirt at ${path} does not accept connections`));
    }, timeout);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      resolve({ socket, onBytes });
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      reject(unreachable(path, error));
    });
  });
}

function unreachable(path: string, error: NodeJS.ErrnoException): LibvirtUnreachableError {
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new LibvirtUnreachableError('absent', `no libvirt listens on ${path}`);
    case 'EACCES':
    case 'EPERM':
      return new LibvirtUnreachableError('refused', `this user may not open ${path}`);
    default:
      return new LibvirtUnreachableError('broken', `cannot connect to ${path}: ${error.message}`);
  }
}
