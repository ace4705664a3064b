/**
 * Messages of libvirt's RPC as bytes: a length that counts itself, a header of six numbers, a body in XDR
 * (libvirt's `virnetprotocol.x`). Lengths from the other side are checked before anything is kept for them.
 */
import { ByteReader, ByteWriter, DecodeError, readU32 } from '../base/bytes.ts';
import { secretBytes } from '../base/secret-bytes.ts';
import { displayText } from '../base/text.ts';
import { MessageStatus, MessageType, REMOTE_PROGRAM, REMOTE_VERSION } from './rpc-numbers.ts';
import { MAX_STRING, readInt, readOpaque } from './xdr.ts';

const LENGTH_SIZE = 4;
const HEADER_SIZE = 24;
/** Longest message in bytes, of either side. libvirt itself takes 32 MiB, for what we never ask. */
export const MAX_MESSAGE: number = 1024 * 1024;

/** What libvirtd sends: the answer to a call, or word of an event. */
export type Incoming =
  | { readonly kind: 'result'; readonly serial: number; readonly body: ByteReader }
  | { readonly kind: 'error'; readonly serial: number; readonly error: LibvirtError }
  | { readonly kind: 'message'; readonly procedure: number; readonly body: ByteReader };

/** libvirt refused a call: code and domain are those of its `virterror.h`. */
export class LibvirtError extends Error {
  override readonly name = 'LibvirtError';
  readonly code: number;
  readonly domain: number;

  constructor(code: number, domain: number, message: string) {
    super(message);
    this.code = code;
    this.domain = domain;
  }
}

export function encodeCall(procedure: number, serial: number, encode: (body: ByteWriter) => void): Uint8Array {
  const writer = new ByteWriter();
  writer.u32(0);
  for (const word of [REMOTE_PROGRAM, REMOTE_VERSION, procedure, MessageType.Call, serial, MessageStatus.Ok]) {
    writer.u32(word);
  }
  encode(writer);
  writer.patchU32(0, writer.length);
  if (writer.length > MAX_MESSAGE) {
    throw new RangeError(`a call of ${writer.length} bytes; libvirt is sent at most ${MAX_MESSAGE}`);
  }
  return writer.finish();
}

/** @param message a whole message, its length included. @throws DecodeError */
export function decodeMessage(message: Uint8Array): Incoming {
  const reader = new ByteReader(message, LENGTH_SIZE);
  const [program, version] = [reader.u32(), reader.u32()];
  if (program !== REMOTE_PROGRAM || version !== REMOTE_VERSION) {
    reader.fail('bad-version', `program 0x${program.toString(16)} version ${version}, which was not called`);
  }
  const [procedure, type, serial, status] = [reader.u32(), reader.u32(), reader.u32(), reader.u32()];
  if (type === MessageType.Message) return { kind: 'message', procedure, body: reader };
  if (type !== MessageType.Reply) reader.fail('bad-value', `type ${type}; a reply or a message is required`);
  if (status === MessageStatus.Ok) return { kind: 'result', serial, body: reader };
  if (status !== MessageStatus.Error) reader.fail('bad-value', `status ${status} of a reply`);
  return { kind: 'error', serial, error: decodeError(reader) };
}

/** `virNetMessageError`: what follows the text is for others than people. */
function decodeError(reader: ByteReader): LibvirtError {
  const [code, domain, present] = [readInt(reader), readInt(reader), reader.u32()];
  const text = present === 1 ? displayText(readOpaque(reader, MAX_STRING)) : `libvirt's error ${code}`;
  return new LibvirtError(code, domain, text);
}

/** Joins what comes in pieces to whole messages. Never holds more than one. */
export class MessageAssembler {
  readonly #length = new Uint8Array(LENGTH_SIZE);
  #message: Uint8Array | undefined;
  /** Bytes that are there of the length or, once it is known, of the message. */
  #filled = 0;

  /**
   * Hands each message that is complete to `take`, and wipes it afterwards: it may have held a secret.
   * @throws DecodeError when a length cannot be right
   */
  push(chunk: Uint8Array, take: (message: Uint8Array) => void): void {
    for (let at = 0; at < chunk.length; ) {
      const target = this.#message ?? this.#length;
      const count = Math.min(target.length - this.#filled, chunk.length - at);
      target.set(chunk.subarray(at, at + count), this.#filled);
      at += count;
      this.#filled += count;
      if (this.#filled < target.length) return;
      if (this.#message === undefined) this.#begin();
      else this.#end(this.#message, take);
    }
  }

  /** Erases what has come of a message whose rest does not come. */
  discard(): void {
    this.#message?.fill(0);
  }

  #begin(): void {
    const length = readU32(this.#length, 0);
    if (length < LENGTH_SIZE + HEADER_SIZE || length > MAX_MESSAGE) {
      throw new DecodeError('bad-length', 0, `a message of ${length} bytes; at most ${MAX_MESSAGE} are taken`);
    }
    this.#message = secretBytes(length);
    this.#message.set(this.#length);
    this.#filled = LENGTH_SIZE;
  }

  #end(message: Uint8Array, take: (message: Uint8Array) => void): void {
    this.#message = undefined;
    this.#filled = 0;
    try {
      take(message);
    } finally {
      message.fill(0);
    }
  }
}
