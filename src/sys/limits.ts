/** The process' limits (getrlimit(2)). */
import { libc } from './libc.ts';

const RLIMIT_NOFILE = 7;

/**
 * The number of descriptors that this process may have: its soft limit, which Node raises to the hard one when it starts.
 * `undefined` where system calls cannot be made.
 */
export function descriptorLimit(): number | undefined {
  let calls: ReturnType<typeof libc>;
  try {
    calls = libc();
  } catch {
    return undefined;
  }
  const limits = new Uint8Array(16);
  if (calls.getrlimit(RLIMIT_NOFILE, limits) < 0) throw new Error('bug: getrlimit takes no other arguments');
  return Number(new DataView(limits.buffer).getBigUint64(0, true));
}
