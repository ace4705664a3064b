/**
 * The files in which libvirt keeps what it knows of networks that run, `network/NAME.xml` beside its sockets: it writes them
 * anew whenever something of the running network changes, such as its metadata (`virsh net-metadata --live`).
 */
import { type FSWatcher, readdirSync, readFileSync, statSync, watch } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Logger } from '../../base/log.ts';
import { messageOf } from '../../base/text.ts';
import { type LibvirtNetwork, readNetwork } from '../../libvirt/network.ts';

/** Milliseconds after a change until it is reported: libvirt writes a file and renames it. */
const SETTLING = 20;

/** A network whose file is another than when it was read last. */
export interface ChangedNetwork {
  readonly network: LibvirtNetwork;
  /** It was read before: it has changed since, and not just started. */
  readonly known: boolean;
}

export class NetworkFiles {
  readonly #folders: readonly string[];
  readonly #log: Logger;
  readonly #onChange: () => void;
  /** Of each file the version that was read. BOUNDED: the networks that libvirt runs. */
  readonly #read = new Map<string, string>();
  /** By folder. BOUNDED: by the sockets. */
  readonly #watchers = new Map<string, { readonly watcher: FSWatcher; readonly inode: number }>();
  #timer: NodeJS.Timeout | undefined;
  #watching = false;

  /** @param onChange called when something changed there, as far as that is heard */
  constructor(sockets: readonly string[], log: Logger, onChange: () => void) {
    this.#folders = [...new Set(sockets.map((socket) => join(dirname(socket), 'network')))];
    this.#log = log;
    this.#onChange = onChange;
  }

  watch(): void {
    this.#watching = true;
    for (const folder of this.#folders) this.#listen(folder);
  }

  close(): void {
    this.#watching = false;
    clearTimeout(this.#timer);
    for (const { watcher } of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  /** By the name of the network. */
  all(): Map<string, string> {
    // BOUNDED: the networks that libvirt runs.
    const files = new Map<string, string>();
    for (const folder of this.#folders) {
      if (this.#watching) this.#listen(folder);
      for (const file of listed(folder)) {
        if (file.endsWith('.xml')) files.set(file.slice(0, -'.xml'.length), join(folder, file));
      }
    }
    return files;
  }

  /** The networks whose files have changed since the last call. What cannot be read is logged once. */
  changed(files: ReadonlyMap<string, string>): ChangedNetwork[] {
    const paths = new Set(files.values());
    for (const path of this.#read.keys()) if (!paths.has(path)) this.#read.delete(path);
    return [...paths].flatMap((path) => {
      try {
        const { mtimeMs, ino } = statSync(path);
        const version = `${ino} ${mtimeMs}`;
        const before = this.#read.get(path);
        if (before === version) return [];
        this.#read.set(path, version);
        return [{ network: readNetwork(readFileSync(path), path), known: before !== undefined }];
      } catch (error) {
        this.#log.error({ file: path }, `a running network cannot be read: ${messageOf(error)}`);
        return [];
      }
    });
  }

  /** The file of that network counts as changed. */
  forget(network: string): void {
    for (const folder of this.#folders) this.#read.delete(join(folder, `${network}.xml`));
  }

  /** libvirt may make the folder later, or make it anew. Where nothing is heard it is looked from time to time all the same. */
  #listen(folder: string): void {
    const inode = statSync(folder, { throwIfNoEntry: false })?.ino;
    const before = this.#watchers.get(folder);
    if (before?.inode === inode) return;
    before?.watcher.close();
    this.#watchers.delete(folder);
    if (inode === undefined) return;
    try {
      const watcher = watch(folder, { persistent: false }, () => this.#heard());
      watcher.on('error', () => {
        watcher.close();
        if (this.#watchers.get(folder)?.watcher === watcher) this.#watchers.delete(folder);
      });
      this.#watchers.set(folder, { watcher, inode });
    } catch (error) {
      this.#log.warn({ folder }, `changes of running networks are only noticed every ten seconds: ${messageOf(error)}`);
    }
  }

  #heard(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#onChange();
    }, SETTLING).unref();
  }
}

/** Empty where libvirt has not run yet, and where this process may not read its folder: then it may hold no networks. */
function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (error instanceof Error && 'code' in error) return [];
    throw error;
  }
}
