/**
 * Replaces files atomically, also when the disk is full or the power fails: the new content is written to a temporary file
 * beside the old one and flushed (fsync) before it takes the name; then the folder is flushed. Temporary files that a crash
 * leaves have names of their own, and the next daemon removes them.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { getSystemErrorMap } from 'node:util';
import { SectunnelError } from '../../base/error.ts';
import type { Logger } from '../../base/log.ts';
import { messageOf } from '../../base/text.ts';
import { explained } from '../../sys/descriptors.ts';
import { flush, flushFolder } from './folder-flush.ts';

/** A file or a folder could not be written, made or removed. */
export class StorageError extends SectunnelError {
  /** The system's words, and what to do. */
  readonly reason: string;
  /** The change was made, but may not survive a power failure. */
  readonly isDone: boolean;

  constructor(message: string, reason: string, more: { readonly isDone?: boolean; readonly cause?: unknown } = {}) {
    super('system', message, more.cause);
    this.reason = reason;
    this.isDone = more.isDone ?? false;
  }
}

/** New content of a file, on the disk but not in its place. One of both is to be called. */
export interface StagedFile {
  /** @throws StorageError with the file as it was, or, with `isDone`, replaced and not made sure of */
  commit(): void;
  discard(): void;
}

/** The same where the disk is waited for while others have their turn. */
export interface StagedSoon {
  /** @param onDone called when the file is in its place @throws StorageError as `StagedFile.commit` */
  commitSoon(onDone: () => void): Promise<void>;
  discard(): void;
}

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_DIRECTORY } = constants;
const RANDOM_BYTES = 8;
/** Up to version 0.1.0 the number of the process stood in the place of the random one. */
const TEMPORARY = /^\.(.+)\.(?:[0-9a-f]{16}|\d{1,10})\.new$/;

/**
 * Writes the new content of a file beside it. After that only the renaming can fail.
 * @throws StorageError with nothing changed
 */
export function stageFile(path: string, content: string | Uint8Array, mode = 0o600): StagedFile {
  return stage(path, (temporary) => writeNew(temporary, content, mode));
}

/** The same, and the disk is waited for while others have their turn. @throws StorageError with nothing changed */
export async function stageFileSoon(path: string, content: string | Uint8Array): Promise<StagedSoon> {
  const temporary = temporaryFor(path);
  try {
    const folder = openFolder(path);
    try {
      await writeNewSoon(temporary, content);
    } catch (error) {
      closeQuietly(folder);
      throw error;
    }
    return staged(path, temporary, folder);
  } catch (error) {
    throw storageError(path, 'written', error);
  }
}

/** Replaces a file. @throws StorageError as `StagedFile.commit` */
export function replaceFile(path: string, content: string | Uint8Array, mode?: number): void {
  stageFile(path, content, mode).commit();
}

/** Makes a symbolic link, in the place of what has its name. @throws StorageError as `StagedFile.commit` */
export function replaceLink(path: string, target: string): void {
  stage(path, (temporary) => symlinkSync(target, temporary)).commit();
}

/** Removes a file, if it is there. @throws StorageError as `StagedFile.commit` */
export function removeFile(path: string): void {
  const folder = attempt(path, 'removed', () => withFolder(path, () => unlinkIfThere(path)));
  syncFolder(path, 'removed', folder);
}

/**
 * Removes the temporary files that crashes left in a folder. Nothing may be staged there. Links are removed, never followed.
 * @param of the name of the file that was to be replaced; left out: of all files
 * @returns the paths of the removed files
 * @throws StorageError
 */
export function removeLeftovers(folder: string, of?: string): string[] {
  const removed: string[] = [];
  if (!existsSync(folder)) return removed;
  for (const name of attempt(folder, 'read', () => readdirSync(folder))) {
    const target = TEMPORARY.exec(name)?.[1];
    if (target === undefined || (of !== undefined && target !== of)) continue;
    const path = join(folder, name);
    attempt(path, 'removed', () => {
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (found === undefined || found.uid !== process.geteuid?.() || found.isDirectory()) return;
      unlinkIfThere(path);
      removed.push(path);
    });
  }
  return removed;
}

/** Removes what crashes left when a daemon starts, and logs it. That it cannot be removed is no reason not to start. */
export function logLeftovers(log: Logger, clean: () => readonly string[]): void {
  try {
    const files = clean();
    if (files.length > 0) log.warn({ files }, 'removed temporary files of an interrupted change');
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
    log.error({}, `a temporary file of an interrupted change stays: ${error.message}`);
  }
}

function temporaryFor(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(RANDOM_BYTES).toString('hex')}.new`);
}

function stage(path: string, make: (temporary: string) => void): StagedFile {
  const temporary = temporaryFor(path);
  return staged(
    path,
    temporary,
    attempt(path, 'written', () => withFolder(path, () => make(temporary))),
  );
}

/** @param folder the descriptor of the folder of both */
function staged(path: string, temporary: string, folder: number): StagedFile & StagedSoon {
  let isOpen = true;
  const rename = (): void => {
    isOpen = false;
    try {
      renameSync(temporary, path);
    } catch (error) {
      closeQuietly(folder);
      throw storageError(path, 'written', withoutTemporary(temporary, error));
    }
  };
  return {
    commit: () => {
      rename();
      syncFolder(path, 'written', folder);
    },
    commitSoon: async (onDone) => {
      rename();
      onDone();
      try {
        await flushFolder(folder);
      } catch (error) {
        throwUnlessNothingToFlush(path, 'written', error);
      } finally {
        closeQuietly(folder);
      }
    },
    discard: () => {
      if (!isOpen) return;
      isOpen = false;
      closeQuietly(folder);
      // A file that cannot be removed now is removed when the next daemon starts.
      withoutTemporary(temporary, undefined);
    },
  };
}

function openFolder(path: string): number {
  return openSync(dirname(path), O_RDONLY | O_DIRECTORY);
}

/** Opens the folder of a file, so that it can be made sure of, before the file is touched. @returns its descriptor */
function withFolder(path: string, work: () => void): number {
  const folder = openFolder(path);
  try {
    work();
    return folder;
  } catch (error) {
    closeQuietly(folder);
    throw error;
  }
}

function openNew(temporary: string): number {
  return openSync(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
}

function writeAll(file: number, content: string | Uint8Array): void {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
}

async function writeNewSoon(temporary: string, content: string | Uint8Array): Promise<void> {
  const file = openNew(temporary);
  let isOpen = true;
  try {
    writeAll(file, content);
    await flush(file);
    isOpen = false;
    closeSync(file);
  } catch (error) {
    if (isOpen) closeQuietly(file);
    throw withoutTemporary(temporary, error);
  }
}

function writeNew(temporary: string, content: string | Uint8Array, mode: number): void {
  const file = openNew(temporary);
  let isOpen = true;
  try {
    writeAll(file, content);
    fsyncSync(file);
    if (mode !== 0o600) fchmodSync(file, mode);
    isOpen = false;
    // Some file systems report only now that there is no room.
    closeSync(file);
  } catch (error) {
    if (isOpen) closeQuietly(file);
    throw withoutTemporary(temporary, error);
  }
}

/** Takes a temporary file away after an error, which is returned; where that fails too, the message says what is left. */
function withoutTemporary(temporary: string, error: unknown): unknown {
  try {
    unlinkIfThere(temporary);
    return error;
  } catch (second) {
    return new LeftoverError(error, temporary, second);
  }
}

class LeftoverError extends Error {
  constructor(cause: unknown, temporary: string, why: unknown) {
    super(`${reasonOf(cause)}. ${temporary} is left over (${reasonOf(why)}), and removed when the daemon starts again`);
  }
}

/** Of a descriptor by which nothing was written, or not to the end: what its closing says changes nothing. */
function closeQuietly(fd: number): void {
  try {
    closeSync(fd);
  } catch (error) {
    if (!isErrno(error)) throw error;
  }
}

function isErrno(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'code' in error;
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!(isErrno(error) && error.code === 'ENOENT')) throw error;
  }
}

function syncFolder(path: string, what: 'written' | 'removed', folder: number): void {
  try {
    fsyncSync(folder);
  } catch (error) {
    throwUnlessNothingToFlush(path, what, error);
  } finally {
    closeQuietly(folder);
  }
}

/** File systems that have nothing to flush return that there is no such call. */
function throwUnlessNothingToFlush(path: string, what: 'written' | 'removed', error: unknown): void {
  if (isErrno(error) && error.code === 'EINVAL') return;
  const reason = reasonOf(error);
  throw new StorageError(`${path} was ${what}, but that may not survive a power failure: ${reason}`, reason, {
    isDone: true,
  });
}

function attempt<T>(path: string, what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw storageError(path, what, error);
  }
}

function storageError(path: string, what: string, error: unknown): unknown {
  if (!(error instanceof LeftoverError) && !isErrno(error)) return error;
  const reason = reasonOf(error);
  return new StorageError(`${path} cannot be ${what}: ${reason}`, reason);
}

/** `no space left on device (ENOSPC)`, with what to do where something is used up. */
export function reasonOf(error: unknown): string {
  if (!isErrno(error)) return messageOf(error);
  const known = error.errno === undefined ? undefined : getSystemErrorMap().get(error.errno);
  const words = known === undefined ? error.message : `${known[1]} (${known[0]})`;
  return explained(Object.assign(new Error(words), { code: error.code }));
}
