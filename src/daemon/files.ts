/** Files that only their owner may read, written whole or not at all. */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { ControlError } from './protocol.ts';

/**
 * Makes the folder with mode 0700 if it is not there.
 * @param use what it is for, and how another one is named
 * @throws ControlError when it cannot be had
 */
export function makePrivateFolder(path: string, use: string): void {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found !== undefined && !found.isDirectory()) {
    throw new ControlError('system', `${path} is no folder, but one is wanted for ${use}`);
  }
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    const why = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new ControlError('system', `the folder ${path} for ${use} cannot be made: ${why}`);
  }
}

/** Replaces `folder/name` in one step: a reader sees the old content or the new, also after a crash. Mode 0600. */
export function writePrivateFile(folder: string, name: string, content: string | Uint8Array): void {
  const temporary = join(folder, `.${name}.${process.pid}.new`);
  const file = openSync(temporary, 'wx', 0o600);
  try {
    const bytes = typeof content === 'string' ? Buffer.from(content) : content;
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
    fsyncSync(file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(file);
  }
  renameSync(temporary, join(folder, name));
}

/**
 * Reads a file that holds a secret.
 * @throws ControlError when the group or others may read or write it, or somebody else owns it
 */
export function readPrivateFile(path: string): Buffer {
  const { mode, uid } = statSync(path);
  if ((mode & 0o077) !== 0) {
    const found = (mode & 0o777).toString(8).padStart(4, '0');
    throw new ControlError(
      'system',
      `${path} has mode ${found}, so others may read it; 0600 is wanted: chmod 600 ${path}`,
    );
  }
  const self = process.geteuid?.() ?? uid;
  if (uid !== self && uid !== 0) {
    throw new ControlError(
      'system',
      `${path} belongs to user ${uid}; user ${self} or root is wanted: chown ${self} ${path}`,
    );
  }
  return readFileSync(path);
}
