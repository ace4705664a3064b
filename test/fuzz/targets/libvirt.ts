/** What comes from libvirt's daemon, in pieces of any size: messages, and results of the types that we ask for. */
import { ByteReader, ByteWriter, concatBytes, DecodeError } from '../../../src/base/bytes.ts';
import { utf8 } from '../../../src/base/text.ts';
import { decodeMessage, type Incoming, MAX_MESSAGE, MessageAssembler } from '../../../src/libvirt/rpc-message.ts';
import { MessageType, REMOTE_PROGRAM, REMOTE_VERSION } from '../../../src/libvirt/rpc-numbers.ts';
import {
  readInt,
  readList,
  readOpaque,
  readOptionalString,
  readString,
  writeOptionalString,
  writeString,
} from '../../../src/libvirt/xdr.ts';
import { readFrames, writeFrames } from '../frames.ts';
import { holds, type Target, unlessRefused } from '../target.ts';

const isDecodeError = (error: unknown): boolean => error instanceof DecodeError;

const READERS: readonly ((body: ByteReader) => unknown)[] = [
  (body) => readList(body, 20, readInt),
  (body) => readList(body, 100, (item) => [readString(item), item.bytes(16), readInt(item), readString(item)]),
  (body) => [readInt(body), readString(body), body.bytes(16)],
  (body) => [readOptionalString(body), readString(body)],
  (body) => readOpaque(body, 65_536).slice(),
];

function run(input: Uint8Array): void {
  const assembler = new MessageAssembler();
  const pieces = readFrames(input);
  const all = concatBytes(...pieces);
  let taken = 0;
  unlessRefused(() => {
    for (const piece of pieces) {
      assembler.push(piece, (message) => {
        holds(message.length <= MAX_MESSAGE, `a message of ${message.length} bytes`);
        holds(Buffer.from(message).equals(all.subarray(taken, taken + message.length)), 'a message is not what came');
        taken += message.length;
        const incoming = unlessRefused(() => decodeMessage(message), isDecodeError);
        if (incoming !== undefined) examine(message, incoming);
      });
    }
  }, isDecodeError);
  assembler.discard();
}

function examine(message: Uint8Array, incoming: Incoming): void {
  if (incoming.kind === 'error') {
    holds(!/\p{Cc}/u.test(incoming.error.message), 'control characters in an error for people');
    return;
  }
  for (const read of READERS) unlessRefused(() => read(bodyOf(message)), isDecodeError);
  const text = unlessRefused(() => readString(bodyOf(message)), isDecodeError);
  if (text === undefined) return;
  const writer = new ByteWriter(64);
  writeString(writer, text);
  writeOptionalString(writer, text);
  const again = new ByteReader(writer.finish());
  holds(readString(again) === text && readOptionalString(again) === text, 'a string is not read as it was written');
}

/** A reader over the body of its own, as each moves on. */
function bodyOf(message: Uint8Array): ByteReader {
  const decoded = decodeMessage(message);
  if (decoded.kind === 'error') throw new Error('an error has no body');
  return decoded.body;
}

function message(type: number, status: number, ...body: readonly (number | string)[]): Uint8Array {
  const writer = new ByteWriter(64);
  for (const word of [0, REMOTE_PROGRAM, REMOTE_VERSION, 46, type, 1, status]) writer.u32(word);
  for (const part of body) {
    if (typeof part === 'string') writeString(writer, part);
    else writer.u32(part);
  }
  writer.patchU32(0, writer.length);
  return writer.finish();
}

function seeds(): Uint8Array[] {
  const messages = [
    message(MessageType.Reply, 0, 2, 0, 2),
    message(MessageType.Reply, 0, 1, 'name', 1, 2, 3, 4, 4, 'usage'),
    message(MessageType.Reply, 0, 'a value\u{1f512}'),
    message(MessageType.Reply, 0, 1, 'optional', 'more'),
    message(MessageType.Message, 0, 1, 'event', 1, 2, 3, 4),
    message(MessageType.Reply, 1, 42, 7, 1, 'no such network', 2, 0, 0, 0, 0),
  ];
  return [
    ...messages.map((one) => writeFrames([one])),
    writeFrames(messages.flatMap((one) => [one.subarray(0, 3), one.subarray(3, 30), one.subarray(30)])),
  ];
}

const WORDS = [
  Uint8Array.of(0, 0, 0, 1),
  Uint8Array.of(0xff, 0xff, 0xff, 0xff),
  Uint8Array.of(0, 8, 0, 0),
  utf8('\u001b[2J'),
];

export const libvirt: Target = { name: 'libvirt', shape: 'frames', maxLength: 4_096, tokens: WORDS, seeds, run };
