/**
 * What keeps the daemon's memory, where keys are, from leaving it: no core dumps, and no tracing by others of the same
 * user. prctl(2), setrlimit(2).
 *
 * Swapping is kept from it by its cgroup (`MemorySwapMax=0` in the unit). mlockall(2) is no way: V8 gives pages back with
 * madvise(2), which the system refuses for locked ones, and ends the process then.
 */
import { SystemError } from './errno.ts';
import { libc } from './libc.ts';

const PR_SET_DUMPABLE = 4;
const RLIMIT_CORE = 4;
/** Two 64-bit numbers: the limit now, and what it may be raised to. */
const RLIMIT_SIZE = 16;

/**
 * From now on the process leaves no core dump, also where the system pipes them to a program (which RLIMIT_CORE does not
 * stop), and only root may trace it or read its /proc/PID/mem.
 * @throws SystemError
 */
export function refuseDumps(): void {
  succeed('prctl(PR_SET_DUMPABLE, 0)', libc().prctl(PR_SET_DUMPABLE, 0));
  succeed('setrlimit(RLIMIT_CORE, 0)', libc().setrlimit(RLIMIT_CORE, new Uint8Array(RLIMIT_SIZE)));
}

function succeed(call: string, result: number): void {
  if (result !== 0) throw new SystemError(call, libc().errno());
}
