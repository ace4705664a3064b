/**
 * charon's control protocol, as far as it is asked small things here: README of strongSwan's src/libcharon/plugins/vici. A
 * packet is its length in 32 bits, its type, for most types a name, and a message of nested sections.
 */
import { connect, type Socket } from 'node:net';

const REQUEST = 0;
const RESPONSE = 1;
const UNKNOWN_COMMAND = 2;
const REGISTER = 3;
const CONFIRM = 5;
const UNKNOWN_EVENT = 6;
const EVENT = 7;

const SECTION_START = 1;
const SECTION_END = 2;
const KEY_VALUE = 3;
const LIST_START = 4;
const LIST_ITEM = 5;
const LIST_END = 6;

/** Sections by their names, and values. Lists are left out. */
export interface Message {
  readonly [name: string]: string | Message;
}

interface Waiting {
  resolve(message: Message): void;
  reject(error: Error): void;
}

export class Vici {
  readonly #socket: Socket;
  #unread = Buffer.alloc(0);
  /** In the order of their requests, as charon answers them. BOUNDED: by what its owner asks at a time. */
  readonly #waiting: Waiting[] = [];
  #failure: Error | undefined;
  #onEvent: (name: string, message: Message) => void = () => undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('charon closed the connection')));
  }

  static connect(path: string): Promise<Vici> {
    return new Promise((resolve, reject) => {
      const socket = connect(path, () => {
        socket.off('error', reject);
        resolve(new Vici(socket));
      });
      socket.once('error', reject);
    });
  }

  /** @throws Error when charon does not know the command, or goes away */
  request(command: string, values: Readonly<Record<string, string>> = {}): Promise<Message> {
    return this.#send(REQUEST, command, encodeValues(values));
  }

  /** Has events of that name reported from now on. One listener for all of a connection. */
  async listen(name: string, onEvent: (name: string, message: Message) => void): Promise<void> {
    this.#onEvent = onEvent;
    await this.#send(REGISTER, name, Buffer.alloc(0));
  }

  close(): void {
    this.#socket.destroy();
  }

  #send(type: number, name: string, body: Buffer): Promise<Message> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const content = Buffer.concat([Buffer.from([type, Buffer.byteLength(name)]), Buffer.from(name), body]);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(content.length);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#socket.write(Buffer.concat([length, content]));
    });
  }

  #receive(chunk: Buffer): void {
    this.#unread = Buffer.concat([this.#unread, chunk]);
    while (this.#unread.length >= 4) {
      const end = 4 + this.#unread.readUInt32BE(0);
      if (this.#unread.length < end) return;
      const packet = this.#unread.subarray(4, end);
      this.#unread = this.#unread.subarray(end);
      this.#take(packet);
    }
  }

  #take(packet: Buffer): void {
    const type = packet[0]!;
    if (type === EVENT) {
      const end = 2 + packet[1]!;
      this.#onEvent(packet.toString('utf8', 2, end), decodeMessage(packet.subarray(end)));
      return;
    }
    const waiting = this.#waiting.shift();
    if (type === RESPONSE || type === CONFIRM) waiting?.resolve(decodeMessage(packet.subarray(1)));
    else if (type === UNKNOWN_COMMAND || type === UNKNOWN_EVENT)
      waiting?.reject(new Error('charon does not know this'));
    else this.#fail(new Error(`charon sent a packet of type ${type}`));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#socket.destroy();
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

function encodeValues(values: Readonly<Record<string, string>>): Buffer {
  const parts = Object.entries(values).map(([key, value]) => {
    const head = Buffer.from([KEY_VALUE, Buffer.byteLength(key), ...Buffer.from(key), 0, 0]);
    head.writeUInt16BE(Buffer.byteLength(value), head.length - 2);
    return Buffer.concat([head, Buffer.from(value)]);
  });
  return Buffer.concat(parts);
}

/** @throws Error when it is not in that form */
export function decodeMessage(source: Buffer): Message {
  let at = 0;

  function name(): string {
    const start = at + 1;
    at = start + source.readUInt8(at);
    return source.toString('utf8', start, at);
  }

  function value(): string {
    const start = at + 2;
    at = start + source.readUInt16BE(at);
    return source.toString('utf8', start, at);
  }

  function section(isWhole: boolean): Message {
    const result: Record<string, string | Message> = {};
    while (at < source.length) {
      const type = source[at++];
      if (type === SECTION_START) {
        const key = name();
        result[key] = section(false);
      } else if (type === KEY_VALUE) {
        const key = name();
        result[key] = value();
      } else if (type === LIST_START) name();
      else if (type === LIST_ITEM) value();
      else if (type === SECTION_END && !isWhole) return result;
      else if (type !== LIST_END) throw new Error(`an element of type ${type} in a message of charon`);
    }
    if (!isWhole) throw new Error('a message of charon ends in a section');
    return result;
  }

  return section(true);
}
