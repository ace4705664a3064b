/** Addresses as big-endian 32-bit words: the form in which the data path compares them. */
import { addressToBytes, type IpAddress } from '../base/address.ts';
import { readU32 } from '../base/bytes.ts';

/** The one or four words of an address. */
export function addressWords(address: IpAddress): number[] {
  const bytes = addressToBytes(address);
  return Array.from({ length: bytes.length / 4 }, (_, i) => readU32(bytes, 4 * i));
}

/** Compares two IPv6 addresses: negative, zero or positive. */
export function compareWords(a: Uint32Array, aAt: number, b: Uint32Array, bAt: number): number {
  for (let i = 0; i < 4; i++) {
    const x = a[aAt + i]!;
    const y = b[bAt + i]!;
    if (x !== y) return x < y ? -1 : 1;
  }
  return 0;
}

/** Mixes one more word into a 32-bit hash. */
export function mixHash(hash: number, word: number): number {
  const mixed = Math.imul(hash ^ word, 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}
