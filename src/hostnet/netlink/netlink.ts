/**
 * The netlink message format (RFC 3549 §2.3, linux/netlink.h): headers, attributes and the kernel's answers, as pure
 * functions over bytes. What the messages say is in `rtnetlink.ts`; the socket in `socket.ts`.
 *
 * Numbers are in the host's byte order, which is little-endian on every machine that `libc.ts` serves.
 */
import { DecodeError } from '../../base/bytes.ts';
import { displayText } from '../../base/text.ts';
import { ERRNO } from '../../sys/errno.ts';

export const NLM_F = {
  REQUEST: 0x1,
  ACK: 0x4,
  DUMP_INTERRUPTED: 0x10,
  ACK_TLVS: 0x200,
  DUMP: 0x300,
  REPLACE: 0x100,
  EXCLUSIVE: 0x200,
  CREATE: 0x400,
  APPEND: 0x800,
} as const;

const NLMSG_NOOP = 1;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const HEADER_SIZE = 16;
const ATTRIBUTE_HEADER_SIZE = 4;
/** The two upper bits of an attribute's type are flags (nested, network byte order). */
const ATTRIBUTE_TYPE_MASK = 0x3fff;
const NLMSGERR_ATTR_MSG = 1;

/** What comes from the kernel: data, or the end of an answer (`errno` 0: success). */
export type NetlinkMessage =
  | {
      readonly kind: 'data';
      readonly type: number;
      readonly sequence: number;
      readonly body: Uint8Array;
      /** What is listed, or something beside it, has changed since the message before: some of it may be missing. */
      readonly isInterrupted?: boolean;
    }
  | {
      readonly kind: 'end';
      readonly sequence: number;
      readonly errno: number;
      /** The kernel's explanation, where it has one. */
      readonly text: string | undefined;
    };

/** Attributes by type; of several with the same type the last. */
export type Attributes = ReadonlyMap<number, Uint8Array>;

/** Builds one request: a header, a fixed structure, attributes. */
export class NetlinkRequest {
  /** Grows: few have more than this. */
  #bytes = new Uint8Array(128);
  #length: number = HEADER_SIZE;

  constructor(type: number, flags: number, fixed: Uint8Array) {
    const view = new DataView(this.#bytes.buffer);
    view.setUint16(4, type, true);
    view.setUint16(6, flags | NLM_F.REQUEST | NLM_F.ACK, true);
    this.#bytes.set(fixed, this.#reserve(fixed.length));
  }

  attribute(type: number, value: Uint8Array): this {
    const length = ATTRIBUTE_HEADER_SIZE + value.length;
    const at = this.#reserve(length);
    this.#bytes[at] = length & 0xff;
    this.#bytes[at + 1] = length >>> 8;
    this.#bytes[at + 2] = type & 0xff;
    this.#bytes[at + 3] = type >>> 8;
    this.#bytes.set(value, at + ATTRIBUTE_HEADER_SIZE);
    return this;
  }

  attributeU8(type: number, value: number): this {
    return this.attribute(type, Uint8Array.of(value));
  }

  attributeU32(type: number, value: number): this {
    return this.attribute(type, hostU32(value));
  }

  /** The message, numbered. Without `answered` the kernel answers only when it refuses. */
  finish(sequence: number, { answered = true }: { readonly answered?: boolean } = {}): Uint8Array {
    const message = this.#bytes.slice(0, this.#length);
    const view = new DataView(message.buffer);
    view.setUint32(0, message.length, true);
    view.setUint32(8, sequence, true);
    if (!answered) view.setUint16(6, view.getUint16(6, true) & ~NLM_F.ACK, true);
    return message;
  }

  /** Reserves `length` bytes and returns their offset. What follows begins at a multiple of four. */
  #reserve(length: number): number {
    const at = this.#length;
    this.#length = at + ((length + 3) & ~3);
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#length);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    return at;
  }
}

/**
 * Numbers messages that stand one behind another, and asks for an answer to the last but one: the last one ends a batch, and old
 * kernels do not answer it.
 *
 * @returns how many there are
 */
export function numberMessages(messages: Uint8Array, first: number): number {
  const view = new DataView(messages.buffer, messages.byteOffset, messages.length);
  let count = 0;
  let [before, last] = [0, 0];
  for (let at = 0; at < messages.length; at += (view.getUint32(at, true) + 3) & ~3) {
    view.setUint32(at + 8, first + count++, true);
    [before, last] = [last, at];
  }
  view.setUint16(before + 6, view.getUint16(before + 6, true) | NLM_F.ACK, true);
  return count;
}

/** A number as four bytes in the host's order. */
export function hostU32(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24);
}

/** Reads a number of four bytes in the host's order; `undefined` without the attribute. @throws DecodeError */
export function readHostU32(bytes: Uint8Array): number;
export function readHostU32(bytes: Uint8Array | undefined): number | undefined;
export function readHostU32(bytes: Uint8Array | undefined): number | undefined {
  if (bytes === undefined) return undefined;
  if (bytes.length < 4) throw new DecodeError('truncated', 0, `4 bytes expected, ${bytes.length} left`);
  return (bytes[0]! | (bytes[1]! << 8) | (bytes[2]! << 16) | (bytes[3]! << 24)) >>> 0;
}

/** A NUL-terminated string. */
export function readName(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return displayText(end < 0 ? bytes : bytes.subarray(0, end));
}

/**
 * Takes apart what one `recv` brought: views into `datagram`.
 *
 * @throws DecodeError when a length in it is wrong
 */
export function parseMessages(datagram: Uint8Array): NetlinkMessage[] {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.length);
  const messages: NetlinkMessage[] = [];
  let at = 0;
  while (at < datagram.length) {
    if (datagram.length - at < HEADER_SIZE) throw new DecodeError('truncated', at, 'a netlink header is cut off');
    const length = view.getUint32(at, true);
    if (length < HEADER_SIZE || length > datagram.length - at) {
      throw new DecodeError('bad-length', at, `a netlink message of ${length} bytes in ${datagram.length - at}`);
    }
    const type = view.getUint16(at + 4, true);
    const flags = view.getUint16(at + 6, true);
    const sequence = view.getUint32(at + 8, true);
    const body = datagram.subarray(at + HEADER_SIZE, at + length);
    if (type === NLMSG_ERROR || type === NLMSG_DONE) messages.push(parseEnd(type, flags, sequence, body));
    else if (type !== NLMSG_NOOP) messages.push(dataMessage(type, flags, sequence, body));
    at += (length + 3) & ~3;
  }
  return messages;
}

/** The attributes that follow a fixed structure of `fixedSize` bytes. @throws DecodeError when a length is wrong */
export function parseAttributes(body: Uint8Array, fixedSize: number): Attributes {
  const attributes = new Map<number, Uint8Array>();
  forEachAttribute(body, fixedSize, (type, value) => attributes.set(type, value));
  return attributes;
}

/** Each attribute in turn, for lists, in which types repeat. @throws DecodeError when a length is wrong */
export function forEachAttribute(
  body: Uint8Array,
  fixedSize: number,
  use: (type: number, value: Uint8Array) => void,
): void {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  let at = fixedSize;
  while (body.length - at >= ATTRIBUTE_HEADER_SIZE) {
    const length = view.getUint16(at, true);
    if (length < ATTRIBUTE_HEADER_SIZE || length > body.length - at) {
      throw new DecodeError('bad-length', at, `a netlink attribute of ${length} bytes in ${body.length - at}`);
    }
    const type = view.getUint16(at + 2, true) & ATTRIBUTE_TYPE_MASK;
    use(type, body.subarray(at + ATTRIBUTE_HEADER_SIZE, at + length));
    at += (length + 3) & ~3;
  }
}

function dataMessage(type: number, flags: number, sequence: number, body: Uint8Array): NetlinkMessage {
  const isInterrupted = (flags & NLM_F.DUMP_INTERRUPTED) !== 0;
  return { kind: 'data', type, sequence, body, ...(isInterrupted ? { isInterrupted } : {}) };
}

/** NLMSG_ERROR carries a negative errno and the header of the request; NLMSG_DONE may carry an errno. */
function parseEnd(type: number, flags: number, sequence: number, body: Uint8Array): NetlinkMessage {
  const errno = body.length >= 4 ? 0 - (readHostU32(body) | 0) : 0;
  if (type === NLMSG_DONE && (flags & NLM_F.DUMP_INTERRUPTED) !== 0) {
    return { kind: 'end', sequence, errno: ERRNO.EINTR, text: 'the table changed while it was read' };
  }
  const fixedSize = type === NLMSG_ERROR ? 4 + HEADER_SIZE : 4;
  const text =
    (flags & NLM_F.ACK_TLVS) !== 0 && body.length > fixedSize
      ? parseAttributes(body, fixedSize).get(NLMSGERR_ATTR_MSG)
      : undefined;
  return { kind: 'end', sequence, errno, text: text === undefined ? undefined : readName(text) };
}
