/** Where the project's files lie, also for what was compiled into build/. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder that holds package.json. */
export function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`no package.json above ${fileURLToPath(import.meta.url)}`);
    folder = parent;
  }
  return folder;
}

/** The daemon or the command, as `npm run build` leaves it. */
export function builtProgram(part: 'daemon' | 'cli'): string {
  return join(projectRoot(), 'dist', part, 'main.js');
}
