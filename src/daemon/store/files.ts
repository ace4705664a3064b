/** Folders that only the daemon's user may change, and files that only it may read. */
import { lstatSync, readFileSync, readlinkSync, realpathSync, type Stats, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { SectunnelError } from '../../base/error.ts';
import type { Logger } from '../../base/log.ts';
import { MAX_DOCUMENT_BYTES } from '../../config/size.ts';
import { makeFolders } from './make-folders.ts';
import { reasonOf, StorageError } from './replace-file.ts';

const GROUP_OR_OTHERS = 0o077;
const GROUP_OR_OTHERS_WRITE = 0o022;
const OTHERS_WRITE = 0o002;
const STICKY = 0o1000;

/**
 * Makes the folder with mode 0700 if it does not exist. Refuses a folder that others may change: they could put definitions
 * and keys there, or a control socket of their own.
 * @param use what the folder is for, and which option names another one
 * @throws SectunnelError with what was found and what is required
 */
export function makePrivateFolder(path: string, use: string): void {
  try {
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) makeFolders(path, 0o700);
  } catch (error) {
    throw unusable(path, use, reasonOf(error), error);
  }
  checkPrivateFolder(path, use);
}

/** What a system says that lets nothing be written, or has no room for it: no fault of the folder. */
const UNWRITABLE: ReadonlySet<string> = new Set(['EROFS', 'ENOSPC', 'EDQUOT']);

/** Whether an error says that a file system is read-only or full. */
export function isUnwritable(error: unknown): boolean {
  return error instanceof Error && 'code' in error && UNWRITABLE.has(String(error.code));
}

/**
 * The same for a folder that a daemon can do without: on a read-only or full file system a missing folder counts as an
 * empty one.
 * @returns why it does not exist
 * @throws SectunnelError as `makePrivateFolder`
 */
export function makeFolderIfPossible(path: string, use: string): string | undefined {
  try {
    makePrivateFolder(path, use);
    return undefined;
  } catch (error) {
    if (!(error instanceof SectunnelError) || !isUnwritable(error.cause)) throw error;
    return error.message;
  }
}

/** Says why a folder is not there, if it is not. */
export function logEmpty(log: Logger, problem: string | undefined): void {
  if (problem !== undefined) log.error({}, `${problem}. It counts as empty for now`);
}

/** The same of a folder that must be there. @throws SectunnelError as `makePrivateFolder` */
export function checkPrivateFolder(path: string, use: string): void {
  let problem: string | undefined;
  try {
    problem = folderProblem(path, lstatSync(path)) ?? parentProblem(path);
  } catch (error) {
    problem = reasonOf(error);
  }
  if (problem !== undefined) throw unusable(path, use, problem);
}

function unusable(path: string, use: string, why: string, cause?: unknown): StorageError {
  return new StorageError(`the folder ${path} for ${use} cannot be used: ${why}`, why, { cause });
}

function folderProblem(path: string, found: Stats): string | undefined {
  if (found.isSymbolicLink()) return `it is a link to ${readlinkSync(path)}; name a folder itself`;
  if (!found.isDirectory()) return 'it is no folder';
  const self = process.geteuid?.() ?? found.uid;
  if (found.uid !== self && found.uid !== 0) {
    return `it belongs to user ${found.uid}; user ${self} or root is required: chown ${self} ${path}`;
  }
  if ((found.mode & GROUP_OR_OTHERS_WRITE) === 0) return undefined;
  return `it has mode ${modeText(found)}, so others may change what is in it; 0700 is required: chmod 700 ${path}`;
}

/** Who may write to a folder above may put another one into the place of ours, unless the sticky bit is set (/tmp). */
function parentProblem(path: string): string | undefined {
  let folder = dirname(realpathSync(path));
  for (;;) {
    const found = statSync(folder);
    if ((found.mode & OTHERS_WRITE) !== 0 && (found.mode & STICKY) === 0) {
      return (
        `${folder} above it has mode ${modeText(found)}, so others may replace it; ` +
        `no write permission for others, or the sticky bit, is required: chmod o-w ${folder}`
      );
    }
    const parent = dirname(folder);
    if (parent === folder) return undefined;
    folder = parent;
  }
}

/** What is to be said of a folder in which others may see names, though not what the files say; `undefined` for nothing. */
export function visibleFolder(path: string): string | undefined {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined || (found.mode & GROUP_OR_OTHERS) === 0) return undefined;
  return `${resolve(path)} has mode ${modeText(found)}, so others may see the names in it; 0700 is required: chmod 700 ${resolve(path)}`;
}

function modeText({ mode }: Stats): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}

/**
 * Reads a file that holds a secret.
 * @throws SectunnelError when the group or others may read or write it, or another user owns it
 */
export function readPrivateFile(path: string): Buffer {
  const found = statSync(path);
  const { mode, uid } = found;
  if ((mode & GROUP_OR_OTHERS) !== 0) {
    throw new SectunnelError(
      'system',
      `${path} has mode ${modeText(found)}, so others may read it; 0600 is required: chmod 600 ${path}`,
    );
  }
  const self = process.geteuid?.() ?? uid;
  if (uid !== self && uid !== 0) {
    throw new SectunnelError(
      'system',
      `${path} belongs to user ${uid}; user ${self} or root is required: chown ${self} ${path}`,
    );
  }
  return readFileSync(path);
}

/**
 * Reads a document in a folder of ours. Follows links, because configuration management installs files by links; as the
 * target says what is protected, only the daemon's user or root may be able to change it.
 * @throws Error with what was found and what is required; reads nothing that is not a file, or is too large
 */
export function readDocumentFile(path: string): Buffer {
  const found = statSync(path);
  const isLink = lstatSync(path).isSymbolicLink();
  const problem = documentProblem(found) ?? (isLink ? targetProblem(realpathSync(path), found) : undefined);
  if (problem !== undefined) throw new Error(problem);
  return readFileSync(path);
}

function documentProblem(found: Stats): string | undefined {
  if (!found.isFile()) return `it is ${found.isDirectory() ? 'a folder' : 'no regular file'}; a file is required`;
  if (found.size <= MAX_DOCUMENT_BYTES) return undefined;
  return `the document has ${found.size} bytes; at most ${MAX_DOCUMENT_BYTES} are read`;
}

/** Why not to go by what a link leads to. */
function targetProblem(target: string, found: Stats): string | undefined {
  const self = process.geteuid?.() ?? found.uid;
  if (found.uid !== self && found.uid !== 0) {
    return `it leads to ${target}, which belongs to user ${found.uid}; user ${self} or root is required: chown ${self} ${target}`;
  }
  if ((found.mode & GROUP_OR_OTHERS_WRITE) !== 0) {
    return `it leads to ${target}, which has mode ${modeText(found)}, so others may change it: chmod go-w ${target}`;
  }
  const folder = dirname(target);
  const problem = folderProblem(folder, statSync(folder)) ?? parentProblem(folder);
  return problem === undefined ? undefined : `it leads to ${target}, in ${folder}: ${problem}`;
}
