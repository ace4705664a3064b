/**
 * Keeps a second daemon from what only one may use, while the first one lives: by a lock of the kernel
 * (flock) on a file, which ends with its process in any case.
 */
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { SectunnelError } from '../../base/error.ts';
import type { Logger } from '../../base/log.ts';
import { ERRNO, SystemError } from '../../sys/errno.ts';
import { libc } from '../../sys/libc.ts';
import { isUnwritable, makePrivateFolder } from './files.ts';
import { reasonOf, StorageError } from './replace-file.ts';

const LOCK_EX_NB = 2 | 4;
const LOCKS = 'locks';

/** A daemon has it. */
export class LockedError extends SectunnelError {
  /** The number of its process, as far as that is known. */
  readonly owner: string;

  /** @param what it does, and what to do about it */
  constructor(owner: string, what: string) {
    super('system', `another sectunneld (process ${owner}) ${what}`);
    this.owner = owner;
  }
}

/**
 * A folder of definitions is for one daemon. It need not be writable, and locks of other users who may read it do not count.
 * @param locks folder for the file; the same for all daemons that could meet
 * @returns the function that unlocks it
 * @throws SectunnelError when another daemon has it
 * @throws StorageError when the file cannot be written
 */
export function lockDefinitions(folder: string, locks: string): () => void {
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found === undefined) return () => undefined;
  makePrivateFolder(locks, LOCKS);
  const what = `works with the folder ${folder}: end it, or give this one folders of its own (--config-dir, --run-dir)`;
  return lockFile(join(locks, `sectunneld-config-${found.dev}-${found.ino}.lock`), what);
}

/**
 * A network namespace is for one daemon: when it starts, it takes the rules, routes and fences with our number for
 * its own, and repairs them.
 * @param folder for the file; the same for all daemons that could meet
 * @returns what gives it free again
 * @throws SectunnelError when another daemon has it
 * @throws StorageError when the file cannot be written
 */
export function lockNetworkNamespace(folder: string): () => void {
  makePrivateFolder(folder, LOCKS);
  const id = readlinkSync('/proc/self/ns/net').replace(/\D/g, '');
  const what = 'works in this network namespace: end it, or run this one in another (ip netns exec)';
  return lockFile(join(folder, `sectunneld-netns-${id}.lock`), what);
}

/** For the message of another daemon. The lock holds without it, also on a disk that is full. */
function signFile(file: number): void {
  try {
    ftruncateSync(file);
    writeSync(file, `${process.pid}\n`);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error;
  }
}

/**
 * Runs a lock's function. Where nothing can be written there is no lock, which is logged: tunnels come first.
 * @throws SectunnelError when another daemon has it
 */
export function lockIfPossible(log: Logger, lock: () => () => void): () => void {
  try {
    return lock();
  } catch (error) {
    if (!(error instanceof StorageError) || !isUnwritable(error.cause)) throw error;
    log.error({}, `${error.message}. Nothing keeps a second sectunneld out`);
    return () => undefined;
  }
}

function openLock(path: string): number {
  try {
    return openSync(path, 'a+', 0o600);
  } catch (error) {
    const reason = reasonOf(error);
    throw new StorageError(`${path} cannot be written: ${reason}`, reason, { cause: error });
  }
}

/** @param what the other one does, and what to do about it */
function lockFile(path: string, what: string): () => void {
  for (;;) {
    const file = openLock(path);
    if (libc().flock(file, LOCK_EX_NB) < 0) {
      const errno = libc().errno();
      const owner = readFileSync(path, 'utf8').trim();
      closeSync(file);
      if (errno !== ERRNO.EAGAIN) throw new SystemError(`lock ${path}`, errno);
      throw new LockedError(owner || 'unknown', what);
    }
    // The other daemon may have removed the file in the meantime.
    if (statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(file).ino) {
      signFile(file);
      return () => {
        rmSync(path, { force: true });
        closeSync(file);
      };
    }
    closeSync(file);
  }
}
