/**
 * One connection of the control socket: takes requests from it one after another, and sends each reply before the next
 * request begins. What it holds of the daemon's memory and time is bounded: a request is to be complete in a few seconds, a
 * reply to be read in half a minute, and while a client does not read, or sends faster than it gets replies, the daemon
 * does not read from it either.
 */
import type { Socket } from 'node:net';
import { LineSplitter, LineTooLongError } from '../../control/lines.ts';
import { type Interim, MAX_LINE, MAX_REPLY, type Reply } from '../../control/protocol.ts';
import type { ErrorObject } from '../../control/results.ts';
import { type ControlRequest, readRequest } from './request.ts';
import type { Lane, Requester, RequestQueue, Work } from './request-queue.ts';

export interface ControlLimits {
  /** Connections at the same time. A new one takes the place of the one that has been of no use for longest. */
  readonly connections: number;
  /** Those of them that events are sent to. */
  readonly subscribers: number;
  /** Bytes that requests and replies of all connections may hold together. */
  readonly memory: number;
  /** Milliseconds from its first byte, or from the start of the connection, until a request is complete. */
  readonly requestTime: number;
  /** Milliseconds until a reply, or an event, has been read. */
  readonly replyTime: number;
  /** Milliseconds without a request after a reply. */
  readonly idleTime: number;
}

/** What a dispatcher knows of the connection that a request came by. */
export interface ControlConnection {
  /** The client has gone. */
  readonly closed: boolean;
  /** From now on events are sent to this connection; of one tunnel, or of all. @throws SectunnelError when too many are */
  subscribe(tunnel: string | undefined): void;
  /**
   * Sends a line about the request that is carried out. Resolves when the client can take another one; with false when it is gone,
   * which is no reason to stop a change.
   */
  send(interim: Interim): Promise<boolean>;
}

/** The server, as its connections see it. */
export interface ConnectionOwner {
  readonly limits: ControlLimits;
  readonly queue: RequestQueue;
  laneOf(verb: string): Lane;
  dispatch(request: ControlRequest, connection: ControlConnection): Promise<unknown>;
  /** The error as a client sees it. */
  explain(error: unknown): ErrorObject;
  /** @throws SectunnelError when there are too many subscribers */
  admitSubscriber(): void;
  /** A connection holds more memory than before. */
  grown(): void;
}

/**
 * `request`: its client is to complete one. `part`: the next part of a long one waits to be read. `idle`: replied, nothing
 * else came. `turn`: a request waits to be carried out. `work`: one is. `reply`: the client is to read. `closing`: what is
 * left to be read is the reason.
 */
type Phase = 'request' | 'part' | 'idle' | 'turn' | 'work' | 'reply' | 'closing';

/**
 * Bytes that are read of a connection without its turn, of a request and of those behind the one that is carried out: a
 * socket brings 2 MiB at a time where it may, and those of all connections would take a tenth of a second.
 */
const READ_AHEAD = 64 * 1024;
/** Milliseconds that a client has to read the rest of what it was sent. */
export const CLOSING_TIME = 1_000;
/** Milliseconds after which a subscriber does not read: its events wait for so long. */
const STALLED = 1_000;
/** Bytes of events that may wait for a subscriber. */
const MAX_BACKLOG = 1024 * 1024;

export class Connection implements ControlConnection, Requester {
  readonly #socket: Socket;
  readonly #owner: ConnectionOwner;
  readonly #lines = new LineSplitter(MAX_LINE);
  #phase: Phase = 'request';
  /** When the phase is to be over. */
  #deadline: number;
  /** In phase `part`: milliseconds that its client still has to complete the request. */
  #timeLeft = 0;
  /** When the client last connected, got a reply or read. */
  #progress = performance.now();
  #replied = false;
  /** Of the request that is carried out. */
  #requestId = 0;
  #requestBytes = 0;
  /** The client sends nothing more. */
  #ended = false;
  #subscription: { readonly tunnel: string | undefined } | undefined;
  /** Since when events wait for the client. */
  #behindSince: number | undefined;

  /** @param socket that stays open for our replies when the client has ended its side */
  constructor(socket: Socket, owner: ConnectionOwner) {
    this.#socket = socket;
    this.#owner = owner;
    this.#deadline = this.#progress + owner.limits.requestTime;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('end', () => this.#end());
  }

  /** It is closing, and its client learns why. */
  get lingers(): boolean {
    return this.isClosing && !this.#socket.destroyed;
  }

  get isClosing(): boolean {
    return this.#phase === 'closing';
  }

  get closed(): boolean {
    return this.#ended || !this.#socket.writable;
  }

  get isNew(): boolean {
    return !this.#replied && this.#phase !== 'part';
  }

  get subscribed(): boolean {
    return this.#subscription !== undefined;
  }

  get progress(): number {
    return this.#progress;
  }

  /** Bytes of requests and replies. */
  get memory(): number {
    if (this.#socket.destroyed) return 0;
    return this.#lines.memory + this.#requestBytes + this.#socket.writableLength + this.#socket.readableLength;
  }

  /** Nothing is carried out for it, and it is no subscriber that reads: it may be closed when others need the memory. */
  isSpare(now: number): boolean {
    if (this.#phase === 'work' || this.#phase === 'closing') return false;
    return !this.subscribed || (this.#behindSince !== undefined && now - this.#behindSince > STALLED);
  }

  /** It may be closed when others need its place: its client has not just come with a first request, or has gone again. */
  givesWay(now: number): boolean {
    if (!this.isSpare(now)) return false;
    const isNew = !this.#replied && !this.#ended && now - this.#progress <= this.#owner.limits.requestTime;
    return this.#phase !== 'turn' || !isNew;
  }

  subscribe(tunnel: string | undefined): void {
    if (!this.subscribed) this.#owner.admitSubscriber();
    this.#subscription = { tunnel };
  }

  /** Sends the line of an event, if the client wants those of that tunnel. */
  offer(tunnel: string, line: Uint8Array): void {
    const wanted = this.#subscription;
    if (wanted === undefined || this.#phase === 'closing') return;
    if (wanted.tunnel !== undefined && wanted.tunnel !== tunnel) return;
    if (this.#socket.writableLength > MAX_BACKLOG) {
      this.close(busy('events are not read'));
      return;
    }
    this.#behindSince ??= performance.now();
    this.#socket.write(line, () => {
      this.#progress = performance.now();
      this.#behindSince = this.#socket.writableLength > 0 ? this.#progress : undefined;
    });
  }

  /** Closes it when it has taken longer than it may. */
  expire(now: number): void {
    const { requestTime, replyTime, idleTime } = this.#owner.limits;
    const behind = this.#behindSince !== undefined && now - this.#behindSince > replyTime;
    if (now <= this.#deadline && !behind) return;
    const reasons: Readonly<Partial<Record<Phase, string>>> = {
      request: `no complete request came within ${requestTime / 1000} s`,
      idle: `no request came within ${idleTime / 1000} s`,
    };
    this.close(busy(reasons[this.#phase] ?? `the reply was not read within ${replyTime / 1000} s`));
  }

  /**
   * With a reason, a client that has read what it was told before is told that too, and may send for a while what is not
   * read any more: a client that cannot write would not read. Closing once more ends that.
   */
  close(reason?: ErrorObject): void {
    const unread = this.#socket.writableLength > 0;
    if (this.#phase === 'closing' || (unread && reason !== undefined)) this.#socket.destroy();
    if (this.#phase === 'closing') return;
    this.#owner.queue.leave(this);
    this.#phase = 'closing';
    this.#lines.clear();
    this.#deadline = performance.now() + CLOSING_TIME;
    this.#behindSince = undefined;
    if (reason === undefined) this.#socket.destroySoon();
    else if (!unread) this.#socket.resume().end(encode({ id: 0, error: reason }));
  }

  /** Of the queue: it is this connection's turn. */
  take(): Work {
    if (this.#phase === 'part') return { lane: 'memory', run: async () => this.#readOn() };
    const line = this.#lines.next()!;
    this.#requestBytes = line.length;
    const request = readRequest(line);
    if (!('refusal' in request)) {
      return { lane: this.#owner.laneOf(request.verb), run: () => this.#carryOut(request) };
    }
    const { id, refusal } = request;
    return { lane: 'memory', run: async () => this.#reply({ id, error: this.#owner.explain(refusal) }) };
  }

  async #carryOut(request: ControlRequest): Promise<void> {
    const { id } = request;
    this.#requestId = id;
    this.#phase = 'work';
    this.#deadline = Number.POSITIVE_INFINITY;
    try {
      this.#reply({ id, result: await this.#owner.dispatch(request, this) });
    } catch (error) {
      this.#reply({ id, error: this.#owner.explain(error) });
    }
  }

  send(interim: Interim): Promise<boolean> {
    if (this.#phase !== 'work' || !this.#socket.writable) return Promise.resolve(false);
    this.#deadline = performance.now() + this.#owner.limits.replyTime;
    const bytes = encode({ id: this.#requestId, ...interim });
    return new Promise((resolve) => {
      this.#socket.write(bytes, (error) => {
        if (this.#phase === 'work') this.#deadline = Number.POSITIVE_INFINITY;
        resolve(!error && this.#phase === 'work');
      });
      this.#owner.grown();
    });
  }

  #reply(reply: Reply): void {
    if (this.isClosing) return;
    const bytes = encode(reply);
    this.#requestBytes = 0;
    this.#phase = 'reply';
    this.#progress = performance.now();
    this.#deadline = this.#progress + this.#owner.limits.replyTime;
    this.#socket.write(bytes, () => this.#wasRead());
    this.#owner.grown();
  }

  /** The kernel has the whole reply. */
  #wasRead(): void {
    if (this.#phase !== 'reply' || this.#socket.destroyed) return;
    this.#replied = true;
    this.#progress = performance.now();
    this.#proceed();
  }

  #read(chunk: Buffer): void {
    if (this.#phase === 'closing') return;
    this.#lines.push(chunk);
    if (this.#phase === 'request' || this.#phase === 'idle') this.#proceed();
    else if (this.#isFarAhead) this.#socket.pause();
    this.#owner.grown();
  }

  #end(): void {
    this.#ended = true;
    if (this.isClosing) this.close();
    if (this.#phase === 'request' || this.#phase === 'idle') this.close();
  }

  /** On to the next request, or to waiting for one. */
  #proceed(): void {
    const line = this.#nextLine();
    if (typeof line === 'object') {
      this.#reply({ id: 0, error: line });
      return;
    }
    if (!line) {
      const isPart = this.#lines.length > 0 || this.#lines.skipping;
      if (this.#ended) this.close();
      else this.#wait(isPart || !this.#replied ? 'request' : 'idle');
      return;
    }
    this.#phase = 'turn';
    this.#deadline = Number.POSITIVE_INFINITY;
    this.#owner.queue.enter(this);
  }

  /** Whether a whole line waits. @returns the refusal of one that is too long, which is skipped */
  #nextLine(): boolean | ErrorObject {
    try {
      return this.#lines.ready;
    } catch (error) {
      if (!(error instanceof LineTooLongError)) throw error;
      this.#lines.skip();
      return { code: 'bad-request', message: `the request has more than ${MAX_LINE} bytes` };
    }
  }

  #wait(phase: 'request' | 'idle'): void {
    if (phase !== this.#phase) {
      const { requestTime, idleTime } = this.#owner.limits;
      this.#phase = phase;
      if (phase === 'idle' && this.subscribed) this.#deadline = Number.POSITIVE_INFINITY;
      else this.#deadline = performance.now() + (phase === 'idle' ? idleTime : requestTime);
    }
    if (this.#isFarAhead) this.#readLater();
    else this.#socket.resume();
  }

  /** More of it waits for its turn to be read; so does what is only read to be dropped. */
  get #isFarAhead(): boolean {
    return this.#lines.length >= READ_AHEAD || this.#lines.skipping;
  }

  /** A long request is read in turns, a part in each. */
  #readLater(): void {
    this.#socket.pause();
    this.#phase = 'part';
    this.#timeLeft = this.#deadline - performance.now();
    this.#deadline = Number.POSITIVE_INFINITY;
    this.#owner.queue.enter(this);
  }

  #readOn(): void {
    if (this.#phase !== 'part') return;
    this.#phase = 'request';
    this.#deadline = performance.now() + this.#timeLeft;
    this.#socket.resume();
  }
}

function busy(message: string): ErrorObject {
  return { code: 'busy', message: `the connection was closed: ${message}` };
}

function encode(reply: Reply): Buffer {
  const bytes = Buffer.from(`${JSON.stringify(reply)}\n`);
  if (bytes.length <= MAX_REPLY || !('id' in reply)) return bytes;
  const message = `the reply has ${bytes.length} bytes; at most ${MAX_REPLY} are sent. Ask for one tunnel by its name`;
  return encode({ id: reply.id, error: { code: 'system', message } });
}
