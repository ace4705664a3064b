/** Bytes that functions of the program give. Programs need not be in TypeScript. */
import { secretCopy } from '../base/secret-bytes.ts';

/**
 * A copy of its own, in memory that can be erased.
 * @param by what gave it: `secretFor`
 * @throws TypeError when it is no Uint8Array, or its memory belongs to another thread now
 */
export function programBytes(given: unknown, by: string): Uint8Array {
  if (given instanceof Uint8Array) return secretCopy(given);
  throw new TypeError(`a Uint8Array is required, ${by} gave ${given === null ? 'null' : `a ${typeof given}`}`);
}
