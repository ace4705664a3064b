/**
 * What a process runs out of, and what an administrator raises then: one table for system calls, files, programs and
 * threads. The operation that meets one of these errors fails, reports it, and is tried again later; it is no bug.
 *
 * Codes: errno(3), and Node's own for threads and memory.
 */
import { descriptorLimit } from './limits.ts';

export interface Shortage {
  /** What there is none left of. */
  readonly resource: string;
  /** What to raise, or to free. */
  readonly advice: string;
}

export const MORE_DESCRIPTORS =
  'raise LimitNOFILE= in the unit of the daemon, or for one that runs: prlimit --pid PID --nofile=NUMBER';
const DESCRIPTORS: Shortage = { resource: 'file descriptors', advice: MORE_DESCRIPTORS };
const MEMORY: Shortage = {
  resource: 'memory',
  advice: 'free some, or raise MemoryMax= in the unit of the daemon or the limit of its container',
};
const TASKS: Shortage = {
  resource: 'processes or threads',
  advice:
    'raise TasksMax= or LimitNPROC= in the unit of the daemon, the pids limit of its container, or kernel.pid_max',
};
const DISK: Shortage = { resource: 'disk space', advice: 'make room there' };

const SHORTAGES: Readonly<Record<string, Shortage>> = {
  EMFILE: DESCRIPTORS,
  ENFILE: { resource: 'open files of the whole system', advice: 'raise it: sysctl -w fs.file-max=NUMBER' },
  ENOMEM: MEMORY,
  ERR_MEMORY_ALLOCATION_FAILED: MEMORY,
  ERR_WORKER_OUT_OF_MEMORY: MEMORY,
  ENOBUFS: {
    resource: 'memory for sockets',
    advice: 'raise net.core.wmem_max and net.core.optmem_max, or free memory',
  },
  ERR_WORKER_INIT_FAILED: {
    resource: 'threads, descriptors or memory for a worker thread',
    advice: 'raise TasksMax=, LimitNOFILE= or MemoryMax= in the unit of the daemon',
  },
  ENOSPC: DISK,
  EDQUOT: { resource: 'disk quota', advice: 'make room, or raise the quota' },
};

/** V8 has no code for memory that it cannot get for a buffer. */
const NO_BUFFER = /allocation failed|could not allocate memory/i;

/** What an error says that there is none left of; `undefined` for an error of another kind. */
export function shortageOf(error: unknown): Shortage | undefined {
  if (!(error instanceof Error)) return undefined;
  const code = 'code' in error ? String(error.code) : '';
  // What fork says. Sockets say it too, and mean that the call is to be made again.
  if (code === 'EAGAIN') return 'syscall' in error && /^spawn/.test(String(error.syscall)) ? TASKS : undefined;
  return shortageNamed(code) ?? (error instanceof RangeError && NO_BUFFER.test(error.message) ? MEMORY : undefined);
}

/** The same by the name of an errno. */
export function shortageNamed(code: string): Shortage | undefined {
  return Object.hasOwn(SHORTAGES, code) ? SHORTAGES[code] : undefined;
}

/** One sentence for a message: what is used up, and what to do. */
export function shortageText(shortage: Shortage): string {
  const { resource, advice } = shortage;
  const most = shortage === DESCRIPTORS ? descriptorLimit() : undefined;
  return `No ${resource} left${most === undefined ? '' : ` (the limit is ${most})`}: ${advice}`;
}
