/**
 * What is done on a host while no daemon runs: fences are put up before the network is, and everything is removed when the
 * product goes.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { SectunnelError } from '../base/error.ts';
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import { parseDocument } from '../config/parse.ts';
import { type Cleared, FenceAloneError, LinuxNamespace } from '../host/linux-namespace.ts';
import type { Platform } from '../host/platform.ts';
import { unresolvedDevicePlan } from '../plan/device.ts';
import { namespaceExists } from '../sys/netns.ts';
import { Catalog } from './store/catalog.ts';
import { sharedRunDir } from './store/folders.ts';
import { LockedError, lockDefinitions, lockIfPossible, lockNetworkNamespace } from './store/lock.ts';
import { AUTOSTART_FOLDER, DocumentFolder, LIVE_FOLDER } from './store/store.ts';

interface Folders {
  readonly configDir: string;
  readonly runDir: string;
}

export interface RaiseOptions extends Folders {
  readonly platform: Platform;
  readonly log: Logger;
}

/**
 * Puts up fence and rules of the tunnels that the next daemon starts, which takes them over. Does nothing while a daemon runs.
 * @returns false when one of them could not be put up; the log says why
 * @throws SectunnelError when the folders cannot be used
 */
export async function raiseFences({ configDir, runDir, platform, log }: RaiseOptions): Promise<boolean> {
  let unlock: () => void;
  try {
    unlock = lockIfPossible(log, () => lockAll({ configDir, runDir }));
  } catch (error) {
    if (!(error instanceof LockedError)) throw error;
    log.info({}, `no fence installed: sectunneld runs (process ${error.owner}) and maintains the fences itself`);
    return true;
  }
  try {
    const catalog = new Catalog(configDir, runDir, log);
    catalog.load();
    for (const name of catalog.unreadable)
      log.error({ tunnel: name }, 'no fence installed: none of the documents of this tunnel can be read');
    let isWhole = catalog.unreadable.size === 0;
    const wanted = catalog.wanted().filter(({ name, device: { netns } }) => {
      const isThere = netns === undefined || namespaceExists(netns);
      if (!isThere) log.info({ tunnel: name }, `no fence yet: network namespace ${netns} does not exist`);
      return isThere;
    });
    const plans = wanted.map(unresolvedDevicePlan);
    // Under watch, so that a fence that stands is not made again with its rules.
    platform.watch?.(({ level, text }) => log[level]({}, text));
    // What prevents one of them is said when its rules are added.
    await platform.raiseFences?.(plans);
    for (const plan of plans) {
      const fields = { tunnel: plan.tunnel };
      try {
        await platform.raise?.(plan);
        log.info(
          fields,
          'fence installed: the packets that the policy protects are dropped until the daemon starts the tunnel',
        );
      } catch (error) {
        if (error instanceof FenceAloneError) {
          log.info(fields, `fence installed; the daemon adds the rules: ${error.message}`);
          continue;
        }
        isWhole = false;
        log.error(fields, `fence and rules could not be installed: ${messageOf(error)}`);
      }
    }
    return isWhole;
  } finally {
    await platform.close?.();
    unlock();
  }
}

/** The names of the tunnels that the next daemon starts, as far as that can be told. */
export function wantedNames({ configDir, runDir }: Folders): string[] {
  try {
    const folders = [join(runDir, LIVE_FOLDER), join(configDir, AUTOSTART_FOLDER)];
    return [...new Set(folders.flatMap((folder) => existing(folder)?.names() ?? []))];
  } catch (error) {
    // The folders themselves may be what is wrong.
    if (error instanceof SectunnelError || (error instanceof Error && 'code' in error)) return [];
    throw error;
  }
}

/** What was removed. */
export interface ReleaseResult {
  /** By network namespace, `undefined` for that of the caller; only those in which something stood. */
  readonly cleared: readonly (Cleared & { readonly netns: string | undefined })[];
  /** Tunnels that ran when the last daemon ended, and that the next one does not start again. */
  readonly forgotten: readonly string[];
  /** Tunnels that start with the daemon, or whose fences `sectunneld --raise` puts up, all the same. */
  readonly autostarted: readonly string[];
  /** What could not be looked at or removed, a sentence each. */
  readonly problems: readonly string[];
}

/**
 * Removes all fences, rules and routes of this product from this network namespace and from those that documents name, and the
 * memory of which tunnels ran. Definitions and secrets stay.
 * @throws SectunnelError while a daemon runs
 */
export async function releaseHost({ configDir, runDir }: Folders): Promise<ReleaseResult> {
  const unlock = lockForRelease({ configDir, runDir });
  try {
    const problems: string[] = [];
    const live = existing(join(runDir, LIVE_FOLDER));
    const persistent = existing(configDir);
    // BOUNDED: by the documents.
    const namespaces = new Set<string | undefined>([undefined]);
    for (const { file, read } of [...(persistent?.documents() ?? []), ...(live?.documents() ?? [])]) {
      try {
        namespaces.add(parseDocument(read(), { source: file }).device.netns);
      } catch (error) {
        problems.push(`a network namespace may be left out, as a document cannot be read: ${messageOf(error)}`);
      }
    }
    const cleared: (Cleared & { netns: string | undefined })[] = [];
    for (const netns of namespaces) {
      if (netns !== undefined && !namespaceExists(netns)) continue;
      try {
        const found = await clear(netns);
        if (found.fence || found.rules + found.routes > 0) cleared.push({ ...found, netns });
      } catch (error) {
        problems.push(messageOf(error));
      }
    }
    const forgotten = problems.length > 0 ? [] : (live?.names() ?? []);
    for (const name of forgotten) live?.remove(name);
    const autostart = existing(join(configDir, AUTOSTART_FOLDER));
    return { cleared, forgotten, autostarted: autostart?.names() ?? [], problems };
  } finally {
    unlock();
  }
}

async function clear(netns: string | undefined): Promise<Cleared> {
  const namespace = new LinuxNamespace(undefined, netns, () => undefined);
  try {
    return await namespace.clear();
  } finally {
    await namespace.close();
  }
}

/** Not made for a host from which everything is to go. */
function existing(path: string): DocumentFolder | undefined {
  return existsSync(path) ? new DocumentFolder(path, 'documents') : undefined;
}

function lockForRelease(folders: Folders): () => void {
  try {
    return lockAll(folders);
  } catch (error) {
    if (!(error instanceof LockedError)) throw error;
    throw new SectunnelError(
      'invalid-state',
      `sectunneld runs (process ${error.owner}) and would install its fences again: stop it first ('systemctl stop sectunneld'), ` +
        "or remove the fence of one tunnel with 'sectunnel destroy'",
    );
  }
}

/** Keeps a daemon from starting meanwhile. @throws LockedError when one runs */
function lockAll({ configDir, runDir }: Folders): () => void {
  const unlock = lockNetworkNamespace(sharedRunDir(runDir));
  try {
    const unlockFolder = lockDefinitions(configDir, sharedRunDir(runDir));
    return () => {
      unlockFolder();
      unlock();
    };
  } catch (error) {
    unlock();
    throw error;
  }
}
