/**
 * Bounded reading and writing of network-order bytes: the only way wire data is taken apart or put together
 * on the control path.
 */

/** What was wrong with the bytes. Short, stable codes: they become counter names. */
export type DecodeErrorCode =
  | 'truncated'
  | 'trailing-bytes'
  | 'bad-length'
  | 'bad-value'
  | 'bad-version'
  | 'too-many'
  | 'bad-order';

/** Wire bytes that cannot be understood. `offset` counts from the start of the outermost buffer. */
export class DecodeError extends Error {
  override readonly name = 'DecodeError';
  readonly code: DecodeErrorCode;
  readonly offset: number;

  constructor(code: DecodeErrorCode, offset: number, detail: string) {
    super(`${detail} (at byte ${offset})`);
    this.code = code;
    this.offset = offset;
  }
}

/** Reads big-endian values from a window of a buffer; throws `DecodeError` instead of reading past its end. */
export class ByteReader {
  readonly #buffer: Uint8Array;
  readonly #end: number;
  #position: number;

  constructor(buffer: Uint8Array, start = 0, end: number = buffer.length) {
    this.#buffer = buffer;
    this.#position = start;
    this.#end = end;
  }

  /** Offset of the next byte in the underlying buffer. */
  get position(): number {
    return this.#position;
  }

  get remaining(): number {
    return this.#end - this.#position;
  }

  u8(): number {
    const at = this.#take(1);
    return this.#buffer[at]!;
  }

  u16(): number {
    const at = this.#take(2);
    return (this.#buffer[at]! << 8) | this.#buffer[at + 1]!;
  }

  u32(): number {
    const at = this.#take(4);
    const b = this.#buffer;
    return ((b[at]! << 24) | (b[at + 1]! << 16) | (b[at + 2]! << 8) | b[at + 3]!) >>> 0;
  }

  u64(): bigint {
    const high = this.u32();
    return (BigInt(high) << 32n) | BigInt(this.u32());
  }

  /** A view, not a copy, of the next `length` bytes. */
  bytes(length: number): Uint8Array {
    const at = this.#take(length);
    return this.#buffer.subarray(at, at + length);
  }

  /** A view of all that is left. */
  rest(): Uint8Array {
    return this.bytes(this.remaining);
  }

  skip(length: number): void {
    this.#take(length);
  }

  /** A reader over the next `length` bytes, which this reader skips. */
  sub(length: number): ByteReader {
    const at = this.#take(length);
    return new ByteReader(this.#buffer, at, at + length);
  }

  /** Throws unless everything was read. */
  expectEnd(what: string): void {
    if (this.remaining !== 0) {
      throw new DecodeError('trailing-bytes', this.#position, `${this.remaining} bytes too many in ${what}`);
    }
  }

  fail(code: DecodeErrorCode, detail: string): never {
    throw new DecodeError(code, this.#position, detail);
  }

  #take(length: number): number {
    const at = this.#position;
    if (length < 0 || length > this.#end - at) {
      throw new DecodeError('truncated', at, `${length} bytes expected, ${this.#end - at} left`);
    }
    this.#position = at + length;
    return at;
  }
}

/**
 * Writes big-endian values into a buffer that grows; lengths can be patched in afterwards. What is written may be secret: a
 * buffer that was outgrown is erased.
 */
export class ByteWriter {
  #buffer: Uint8Array;
  #length = 0;

  constructor(capacity = 512) {
    this.#buffer = new Uint8Array(capacity);
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): void {
    const at = this.#grow(1);
    this.#buffer[at] = value;
  }

  u16(value: number): void {
    const at = this.#grow(2);
    this.#buffer[at] = value >>> 8;
    this.#buffer[at + 1] = value;
  }

  u32(value: number): void {
    const at = this.#grow(4);
    writeU32(this.#buffer, at, value);
  }

  u64(value: bigint): void {
    this.u32(Number((value >> 32n) & 0xffffffffn));
    this.u32(Number(value & 0xffffffffn));
  }

  bytes(value: Uint8Array): void {
    const at = this.#grow(value.length);
    this.#buffer.set(value, at);
  }

  zeros(count: number): void {
    this.#grow(count);
  }

  patchU8(at: number, value: number): void {
    this.#buffer[at] = value;
  }

  patchU16(at: number, value: number): void {
    this.#buffer[at] = value >>> 8;
    this.#buffer[at + 1] = value;
  }

  patchU32(at: number, value: number): void {
    writeU32(this.#buffer, at, value);
  }

  /** What was written, as a view that stays valid until the next write. */
  finish(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  #grow(count: number): number {
    const at = this.#length;
    const needed = at + count;
    if (needed > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(needed, this.#buffer.length * 2));
      larger.set(this.#buffer);
      this.#buffer.fill(0);
      this.#buffer = larger;
    }
    this.#length = needed;
    return at;
  }
}

/** Reads a big-endian unsigned 32-bit value; the caller has checked the bounds. */
export function readU32(buffer: Uint8Array, at: number): number {
  return ((buffer[at]! << 24) | (buffer[at + 1]! << 16) | (buffer[at + 2]! << 8) | buffer[at + 3]!) >>> 0;
}

/** The same as a signed value, which V8 never puts on the heap: for the data path. */
export function readI32(buffer: Uint8Array, at: number): number {
  return (buffer[at]! << 24) | (buffer[at + 1]! << 16) | (buffer[at + 2]! << 8) | buffer[at + 3]!;
}

/** Writes a big-endian 32-bit value; the caller has checked the bounds. */
export function writeU32(buffer: Uint8Array, at: number, value: number): void {
  buffer[at] = value >>> 24;
  buffer[at + 1] = value >>> 16;
  buffer[at + 2] = value >>> 8;
  buffer[at + 3] = value;
}

/** The same bytes as a plain Uint8Array: `slice` of a Node Buffer, which a caller may hand in, does not copy. */
export function plainView(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Constant-time for equal lengths: safe for MACs, signatures and other secrets. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}

/** Lexicographic order of unsigned bytes, a prefix first (RFC 7296 §2.8.1 compares nonces so). */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    if (a[i] !== b[i]) return a[i]! - b[i]!;
  }
  return a.length - b.length;
}

export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += HEX_STEP) text += hexOf(bytes.subarray(at, at + HEX_STEP));
  return text;
}

/** Bytes that are written at once: one string of them, where a string for each byte would stay as a tree of small ones. */
const HEX_STEP = 4096;
const HEX_DIGITS = Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0));

function hexOf(bytes: Uint8Array): string {
  const codes = new Array<number>(2 * bytes.length);
  for (const [at, byte] of bytes.entries()) {
    codes[2 * at] = HEX_DIGITS[byte >> 4]!;
    codes[2 * at + 1] = HEX_DIGITS[byte & 0xf]!;
  }
  return String.fromCharCode(...codes);
}

/** @throws RangeError when the text is not an even number of hexadecimal digits. */
export function fromHex(text: string): Uint8Array {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) throw new RangeError('not hexadecimal');
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}
