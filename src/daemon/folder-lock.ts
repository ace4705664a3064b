/**
 * Keeps a second daemon out of a folder, for as long as the first one lives: a lock of the kernel's (flock), which ends
 * with its process however that ends.
 */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { ERRNO, libc, SystemError } from '../tun/libc.ts';
import { ControlError } from './protocol.ts';

const LOCK_FILE = '.lock';
const LOCK_EX_NB = 2 | 4;

/**
 * @returns what gives the folder free again
 * @throws ControlError when another daemon has it
 */
export function lockFolder(folder: string): () => void {
  const path = join(folder, LOCK_FILE);
  const file = openSync(path, 'a+', 0o600);
  if (libc().flock(file, LOCK_EX_NB) < 0) {
    const errno = libc().errno();
    const owner = readFileSync(path, 'utf8').trim();
    closeSync(file);
    if (errno !== ERRNO.EAGAIN) throw new SystemError(`lock ${path}`, errno);
    throw new ControlError(
      'system',
      `another sectunneld (process ${owner || 'unknown'}) works with the folder ${folder}: end it, or give this one ` +
        'folders of its own (--config-dir, --run-dir)',
    );
  }
  ftruncateSync(file);
  writeSync(file, `${process.pid}\n`);
  return () => closeSync(file);
}
