/**
 * Writes the netlink messages of a batch into one run of bytes: headers, attributes, attributes within attributes (RFC 3549
 * §2.3, linux/netlink.h). Lengths are filled in at the end of what they measure. Numbers of nftables are big-endian, those of netlink
 * itself little-endian, as on every machine that `libc.ts` serves.
 */
import { utf8 } from '../../base/text.ts';
import { NLM_F } from '../netlink/netlink.ts';
import { NFPROTO_INET, NFTA_DATA, NFTA_LIST_ELEMENT } from '../netlink/nftables-layout.ts';

const HEADER_SIZE = 16;
const NESTED = 0x8000;
const FIRST_ROOM = 16 << 10;

/** What begins a message: of tables of the family inet, unless another one is meant. */
export interface MessageStart {
  readonly flags?: number;
  readonly family?: number;
  /** struct nfgenmsg's, of the messages around a batch. */
  readonly resource?: number;
}

export class MessageWriter {
  #bytes = new Uint8Array(FIRST_ROOM);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  #start = 0;

  /** A message with its header of nftables; its number is set when it is sent. */
  message(type: number, { flags = 0, family = NFPROTO_INET, resource = 0 }: MessageStart, content: () => void): void {
    this.#start = this.#reserve(HEADER_SIZE);
    this.#view.setUint16(this.#start + 4, type, true);
    this.#view.setUint16(this.#start + 6, flags | NLM_F.REQUEST, true);
    const own = this.#reserve(4);
    this.#bytes[own] = family;
    this.#view.setUint16(own + 2, resource);
    content();
    this.#view.setUint32(this.#start, this.#length - this.#start, true);
  }

  /** Attributes within an attribute. @throws RangeError when they are too long for one */
  nested(type: number, content: () => void): void {
    const at = this.#header(type | NESTED, 0);
    content();
    this.#close(at);
  }

  /** One of a list. */
  element(content: () => void): void {
    this.nested(NFTA_LIST_ELEMENT, content);
  }

  bytes(type: number, value: Uint8Array): void {
    const at = this.#header(type, value.length);
    this.#bytes.set(value, at + 4);
  }

  /** A string, with its NUL. */
  text(type: number, text: string): void {
    const length = text.length;
    const at = this.#header(type, length + 1) + 4;
    for (let index = 0; index < length; index++) {
      const code = text.charCodeAt(index);
      if (code >= 0x80) throw new RangeError(`bug: '${text}' is no name of nftables`);
      this.#bytes[at + index] = code;
    }
  }

  u8(type: number, value: number): void {
    const at = this.#header(type, 1);
    this.#bytes[at + 4] = value;
  }

  u32(type: number, value: number): void {
    const at = this.#header(type, 4);
    this.#view.setUint32(at + 4, value);
  }

  u64(type: number, value: number): void {
    const at = this.#header(type, 8);
    this.#view.setBigUint64(at + 4, BigInt(value));
  }

  /** NFTA_DATA_VALUE. */
  data(type: number, value: Uint8Array): void {
    this.nested(type, () => this.bytes(NFTA_DATA.VALUE, value));
  }

  /** All that was written. */
  end(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #header(type: number, length: number): number {
    const at = this.#reserve(4 + length);
    this.#view.setUint16(at, 4 + length, true);
    this.#view.setUint16(at + 2, type, true);
    return at;
  }

  #close(at: number): void {
    const length = this.#length - at;
    if (length > 0xffff) throw new RangeError(`bug: ${length} bytes in one attribute`);
    this.#view.setUint16(at, length, true);
  }

  /** Zeros, and up to a multiple of four. */
  #reserve(length: number): number {
    const at = this.#length;
    this.#length = at + ((length + 3) & ~3);
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#length);
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}

/** The name of a link as the kernel compares it: 16 bytes. */
export function linkName(name: string): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes.set(utf8(name));
  return bytes;
}
