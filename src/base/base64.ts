/**
 * Base64 (RFC 4648 §4) from bytes to bytes, for secrets: neither the text nor what it says becomes a string, and neither a
 * branch nor a table look-up depends on it.
 */
import { secretBytes } from './secret-bytes.ts';

const PAD = 0x3d;

/** All ones when `value` is from `low` to `high`, else 0. */
function within(value: number, low: number, high: number): number {
  return ((low - 1 - value) & (value - high - 1)) >> 8;
}

/** The character for 6 bits. */
function characterOf(bits: number): number {
  return (
    bits +
    0x41 +
    // Lower case, digits, '+' and '/' each follow the one before with a gap.
    (within(bits, 26, 63) & 6) -
    (within(bits, 52, 63) & 75) -
    (within(bits, 62, 63) & 15) +
    (within(bits, 63, 63) & 3)
  );
}

/** The 6 bits of a character; -1 when it is none of base64's. */
function bitsOf(character: number): number {
  return (
    -1 +
    (within(character, 0x41, 0x5a) & (character - 0x40)) +
    (within(character, 0x61, 0x7a) & (character - 0x46)) +
    (within(character, 0x30, 0x39) & (character + 5)) +
    (within(character, 0x2b, 0x2b) & 63) +
    (within(character, 0x2f, 0x2f) & 64)
  );
}

/** The text as ASCII. */
export function encodeBase64(bytes: Uint8Array): Uint8Array {
  const text = secretBytes(4 * Math.ceil(bytes.length / 3)).fill(PAD);
  for (let at = 0, to = 0; at < bytes.length; at += 3, to += 4) {
    const left = bytes.length - at;
    const word = (bytes[at]! << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    text[to] = characterOf(word >>> 18);
    text[to + 1] = characterOf((word >>> 12) & 63);
    if (left > 1) text[to + 2] = characterOf((word >>> 6) & 63);
    if (left > 2) text[to + 3] = characterOf(word & 63);
  }
  return text;
}

/**
 * Reads ASCII: strict, with padding, but for white space around the text and line ends within it.
 * @returns `undefined` when anything else than base64 stands there
 */
export function decodeBase64(text: Uint8Array): Uint8Array | undefined {
  const [start, end] = trimmed(text);
  const bytes = secretBytes(Math.ceil((3 * (end - start)) / 4));
  let [length, word, count, pads, wrong] = [0, 0, 0, 0, 0];
  for (let at = start; at < end; at++) {
    const character = text[at]!;
    if (character === 0x0a || character === 0x0d) continue;
    count++;
    if (character === PAD) {
      pads++;
      continue;
    }
    const bits = bitsOf(character);
    // Behind padding nothing may follow.
    wrong |= (bits >> 31) | pads;
    word = ((word << 6) | (bits & 63)) & 0xff_ffff;
    if (count % 4 !== 1) bytes[length++] = word >>> (6 - 2 * ((count - 1) % 4));
  }
  const whole = count % 4 === 0 && pads <= 2 && wrong === 0;
  const result = whole ? secretBytes(length) : undefined;
  result?.set(bytes.subarray(0, length));
  bytes.fill(0);
  return result;
}

function trimmed(text: Uint8Array): [start: number, end: number] {
  const isSpace = (at: number): boolean => text[at] === 0x20 || (text[at]! >= 0x09 && text[at]! <= 0x0d);
  let [start, end] = [0, text.length];
  while (start < end && isSpace(start)) start++;
  while (end > start && isSpace(end - 1)) end--;
  return [start, end];
}
