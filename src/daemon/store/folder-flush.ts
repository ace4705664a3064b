/**
 * Makes sure of what was renamed in folders: the changes of many files in a folder are flushed to the disk together, as each
 * flush waits for the disk.
 */
import { fstatSync, fsync } from 'node:fs';
import { SharedRun } from '../shared-run.ts';

interface Folder {
  /** Its descriptors, of those that wait. BOUNDED: by the changes under way. */
  readonly waiting: Set<number>;
  readonly flush: SharedRun<void>;
}

/** By device and inode. BOUNDED: by the changes under way. */
const folders = new Map<string, Folder>();

/** In a thread of libuv's pool. */
export function flush(descriptor: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fsync(descriptor, (error) => (error === null ? resolve() : reject(error)));
  });
}

/**
 * What was changed in a folder until now is on the disk when it resolves. Of those who ask while a flush is under way the next
 * one serves all.
 * @param descriptor of the folder, open until it resolves
 */
export async function flushFolder(descriptor: number): Promise<void> {
  const { dev, ino } = fstatSync(descriptor);
  const key = `${dev} ${ino}`;
  let folder = folders.get(key);
  if (folder === undefined) {
    const waiting = new Set<number>();
    // The last one that came waits for the run that begins; those of the run before are about to close theirs.
    folder = { waiting, flush: new SharedRun(() => flush([...waiting].at(-1)!)) };
    folders.set(key, folder);
  }
  folder.waiting.add(descriptor);
  try {
    await folder.flush.run();
  } finally {
    folder.waiting.delete(descriptor);
    if (folder.waiting.size === 0) folders.delete(key);
  }
}
