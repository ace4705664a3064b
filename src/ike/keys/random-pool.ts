/** Random bytes in small pieces out of large ones: the source may be a system call away. */
import { secretCopy } from '../../base/secret-bytes.ts';
import type { RandomSource } from '../../crypto/types.ts';

const BLOCK = 1_024;
/** A request for more goes to the source itself. */
const LARGEST = 64;

/** What was handed out is erased from the block, so that no key is in memory twice. */
export function pooledRandom(source: RandomSource): RandomSource {
  let block: Uint8Array = new Uint8Array(0);
  let at = 0;
  return (length) => {
    if (length > LARGEST) return source(length);
    if (at + length > block.length) {
      block = source(BLOCK);
      at = 0;
    }
    const bytes = secretCopy(block.subarray(at, at + length));
    block.fill(0, at, at + length);
    at += length;
    return bytes;
  };
}
