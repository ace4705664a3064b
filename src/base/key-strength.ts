/**
 * How hard a pre-shared key is to guess. In IKEv2 an active attacker who plays the peer gets a value to try keys against,
 * off-line and without anyone noticing (RFC 7296 §2.15, §5), so a key has to withstand all the computing it is worth.
 *
 * The estimate is simple and errs to the low side: a byte is worth the logarithm of the size of the smallest alphabet that
 * holds the whole key; one that goes on as the two before it do (`1234`, `aaaa`) is worth nothing; and one in a run of
 * letters that looks like a word is worth two bits (Shannon found one to one and a half in English).
 */

/** RFC 7296 §2.15 wants as much unpredictability as the strongest key that is negotiated has; below this it is a matter of days. */
const WANTED_BYTES = 20;
const WANTED_BITS = 80;
const WANTED_DIFFERENT = 8;
const WORD_BITS = 2;
/** So many letters in a row look like a word. */
const WORD_LETTERS = { small: 3, capital: 4 } as const;

const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;
const isLower = (byte: number): boolean => byte >= 0x61 && byte <= 0x7a;
const isUpper = (byte: number): boolean => byte >= 0x41 && byte <= 0x5a;

/** The smallest first. */
const ALPHABETS: readonly (readonly [has: (byte: number) => boolean, size: number])[] = [
  [isDigit, 10],
  [(byte) => isDigit(byte) || (byte >= 0x61 && byte <= 0x66), 16],
  [(byte) => isDigit(byte) || (byte >= 0x41 && byte <= 0x46), 16],
  [isLower, 26],
  [isUpper, 26],
  [(byte) => isDigit(byte) || isLower(byte), 36],
  [(byte) => isDigit(byte) || isUpper(byte), 36],
  [(byte) => isDigit(byte) || isLower(byte) || isUpper(byte), 62],
  [(byte) => byte >= 0x20 && byte <= 0x7e, 95],
];

/** Whether bytes are a pre-shared key: none, or zeros alone, are what memory holds that was never filled or is erased. */
export function isSharedKey(secret: Uint8Array): boolean {
  let bits = 0;
  for (const byte of secret) bits |= byte;
  return bits !== 0;
}

/** Why a key can be guessed, without saying what it is; `undefined` when it cannot. */
export function keyWeakness(key: Uint8Array): string | undefined {
  if (key.length < WANTED_BYTES) return `it has ${key.length} bytes, and ${WANTED_BYTES} are recommended`;
  const period = periodOf(key);
  if (period < WANTED_BYTES) return `it repeats itself after ${period} bytes`;
  const different = new Set(key).size;
  if (different < WANTED_DIFFERENT) return `it is made of ${different} different bytes`;
  const bits = Math.floor(estimatedBits(key));
  return bits < WANTED_BITS ? `it is worth about ${bits} bits, and ${WANTED_BITS} are recommended` : undefined;
}

/** After how many bytes it is the same again; its length, when it never is. */
function periodOf(key: Uint8Array): number {
  for (let period = 1; period <= key.length / 2; period++) {
    if (key.every((byte, at) => at < period || byte === key[at - period])) return period;
  }
  return key.length;
}

/** On the bytes alone: a string of a key could not be erased. */
function estimatedBits(key: Uint8Array): number {
  const size = ALPHABETS.find(([has]) => key.every(has))?.[1] ?? 256;
  let bits = 0;
  for (let at = 0; at < key.length; at++) {
    const goesOn = at >= 2 && key[at]! - key[at - 1]! === key[at - 1]! - key[at - 2]!;
    if (goesOn) continue;
    bits += isInWord(key, at) ? WORD_BITS : Math.log2(size);
  }
  return bits;
}

function isInWord(key: Uint8Array, at: number): boolean {
  if (runAround(key, at, isUpper) >= WORD_LETTERS.capital) return true;
  // The first letter of a word may be a capital.
  const small = isUpper(key[at]!) ? at + 1 : at;
  return small < key.length && runAround(key, small, isLower) >= WORD_LETTERS.small;
}

/** How many bytes in a row, this one among them, are of a kind. */
function runAround(key: Uint8Array, at: number, is: (byte: number) => boolean): number {
  if (!is(key[at]!)) return 0;
  let [first, end] = [at, at + 1];
  while (first > 0 && is(key[first - 1]!)) first--;
  while (end < key.length && is(key[end]!)) end++;
  return end - first;
}
