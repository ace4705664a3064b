/**
 * PEM (RFC 7468): blocks between lines of text, as certtool and openssl write them; or DER as it is. Bytes to bytes, as a
 * block may be a private key: of what stands in it only the lines that frame it become strings.
 */

import { checkDer, DerTag } from '../base/asn1/der.ts';
import { decodeBase64 } from '../base/base64.ts';
import { secretBytes } from '../base/secret-bytes.ts';

export class PemBlock {
  /** `CERTIFICATE`, `RSA PRIVATE KEY` … */
  readonly label: string;
  /** The block alone, without what stands around it: a view of what was read. */
  readonly pem: Uint8Array;
  readonly #body: Uint8Array;

  constructor(label: string, pem: Uint8Array, body: Uint8Array) {
    this.label = label;
    this.pem = pem;
    this.#body = body;
  }

  /** Whether it has headers (RFC 1421), which only keys have that are encrypted in the old way. */
  get hasHeaders(): boolean {
    return this.#body.includes(0x3a);
  }

  /** New bytes, which can be erased; `undefined` where it has headers or is no base64. */
  der(): Uint8Array | undefined {
    const base64 = withoutSpace(this.#body);
    const der = decodeBase64(base64);
    base64.fill(0);
    return der === undefined || der.length === 0 ? undefined : der;
  }
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

function withoutSpace(bytes: Uint8Array): Uint8Array {
  const bare = secretBytes(bytes.length);
  let length = 0;
  for (const byte of bytes) if (!isSpace(byte)) bare[length++] = byte;
  return bare.subarray(0, length);
}

/** A line that begins or ends a block. */
interface Frame {
  readonly begins: boolean;
  readonly label: string;
  readonly start: number;
  readonly end: number;
}

/** Longest line that is looked at: five dashes, `BEGIN`, a label of 40 characters and five dashes. */
const MAX_FRAME = 80;
const DASH = 0x2d;

function frames(bytes: Uint8Array): Frame[] {
  const found: Frame[] = [];
  for (let start = 0; start < bytes.length; ) {
    const newline = bytes.indexOf(0x0a, start);
    const end = newline < 0 ? bytes.length : newline + 1;
    // No line of base64 begins so.
    if (bytes[start] === DASH && end - start <= MAX_FRAME) {
      const line = String.fromCharCode(...bytes.subarray(start, end));
      const [, word, label] = /^-----(BEGIN|END) ([A-Z0-9 ]{1,40})-----\s*$/.exec(line) ?? [];
      if (label !== undefined) found.push({ begins: word === 'BEGIN', label, start, end });
    }
    start = end;
  }
  return found;
}

/** Blocks in a file, in its order. A label that is opened and not closed is no block. */
export function pemBlocks(bytes: Uint8Array): PemBlock[] {
  const lines = frames(bytes);
  const blocks: PemBlock[] = [];
  // BOUNDED: by the labels in the file. Where a label is closed for the last time, so that each line is looked at once.
  const lastEnd = new Map(lines.flatMap((line, at) => (line.begins ? [] : [[line.label, at] as const])));
  for (let at = 0; at < lines.length; at++) {
    const { begins, label, start, end } = lines[at]!;
    if (!begins || (lastEnd.get(label) ?? -1) < at) continue;
    while (lines[at]!.begins || lines[at]!.label !== label) at++;
    const close = lines[at]!;
    blocks.push(new PemBlock(label, bytes.subarray(start, close.end), bytes.subarray(end, close.start)));
  }
  return blocks;
}

export function isDer(bytes: Uint8Array): boolean {
  if (bytes[0] !== DerTag.SEQUENCE) return false;
  try {
    checkDer(bytes);
    return true;
  } catch {
    return false;
  }
}
