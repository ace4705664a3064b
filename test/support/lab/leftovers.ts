/**
 * What runs that were killed outright left behind is removed by the next one. Names carry the process id of their
 * owner; what belongs to a living process is left alone.
 */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './process.ts';

export const NAMESPACE_PREFIX = 'stunlab-';
export const FOLDER_PREFIX = 'sectunnel-lab-';

const NETNS_FOLDER = '/run/netns';

let swept: Promise<void> | undefined;

export function sweepOnce(): Promise<void> {
  swept ??= sweep();
  return swept;
}

/** Names in `folder` that begin with `prefix` and the id of a process that is no more. */
function orphans(folder: string, prefix: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder).filter((name) => {
    const owner = name.startsWith(prefix) ? /^(\d+)-/.exec(name.slice(prefix.length))?.[1] : undefined;
    return owner !== undefined && !existsSync(`/proc/${owner}`);
  });
}

async function sweep(): Promise<void> {
  for (const name of orphans(NETNS_FOLDER, NAMESPACE_PREFIX)) {
    // Nobody but the lab starts anything in there.
    const { stdout } = await run(['ip', 'netns', 'pids', name], { check: false });
    for (const pid of stdout.split('\n').filter((line) => line !== '')) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch {
        // It ended by itself meanwhile.
      }
    }
    await run(['ip', 'netns', 'del', name], { check: false });
  }
  for (const name of orphans(tmpdir(), FOLDER_PREFIX)) rmSync(join(tmpdir(), name), { recursive: true, force: true });
}
