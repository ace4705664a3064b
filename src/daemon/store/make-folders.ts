/** Folders with those above them, level by level. */
import { existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Makes the folder, and missing folders above it. Node's own `recursive` never ends where the kernel returns ENOENT for
 * a folder that exists, as it does below /proc.
 * @param mode of each folder that is made
 * @throws NodeJS.ErrnoException for the first one that cannot be made
 */
export function makeFolders(path: string, mode: number): void {
  if (existsSync(path)) return;
  makeFolders(dirname(path), mode);
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    // Another process made it meanwhile.
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
}
