/** What AES makes of a key and keeps in its place: round keys (FIPS 197 §5.2), and for GCM the hash key (SP 800-38D §6.3). */
import { createCipheriv } from 'node:crypto';

/** Multiplication by x in GF(2^8). */
const doubled = (byte: number): number => ((byte << 1) ^ ((byte >> 7) * 0x1b)) & 0xff;

/** The S-box, from the powers of the generator 3 and their inverses. */
const S_BOX: readonly number[] = (() => {
  const powers = [1];
  for (let i = 1; i < 255; i++) powers.push(doubled(powers[i - 1]!) ^ powers[i - 1]!);
  const box = new Array<number>(256).fill(0x63);
  for (const [i, power] of powers.entries()) {
    const inverse = powers[(255 - i) % 255]!;
    let value = 0x63 ^ inverse;
    for (let shift = 1; shift <= 4; shift++) value ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xff;
    box[power] = value;
  }
  return box;
})();

/** All round keys of encryption, one behind the other: the first ones are the key. */
export function roundKeys(key: Uint8Array): Buffer {
  const words = key.length / 4;
  const schedule = Buffer.alloc(16 * (words + 7));
  schedule.set(key);
  let constant = 1;
  for (let word = words; word < schedule.length / 4; word++) {
    let last = [...schedule.subarray(4 * word - 4, 4 * word)];
    if (word % words === 0) {
      last = [...last.slice(1), last[0]!].map((byte) => S_BOX[byte]!);
      last[0]! ^= constant;
      constant = doubled(constant);
    } else if (words > 6 && word % words === 4) last = last.map((byte) => S_BOX[byte]!);
    for (let i = 0; i < 4; i++) schedule[4 * word + i] = last[i]! ^ schedule[4 * (word - words) + i]!;
  }
  return schedule;
}

/** The hash key as OpenSSL has it: two numbers of 64 bits, in the processor's order. */
export function hashKey(key: Uint8Array): Buffer {
  const cipher = createCipheriv(`aes-${8 * key.length}-ecb`, key, null);
  return cipher.update(Buffer.alloc(16)).swap64();
}
