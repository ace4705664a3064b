/**
 * What persists when a daemon ends: definitions as `NAME.xml` (0600) in the configuration folder, `autostart/NAME.xml` as a link
 * to those that start with the daemon, and in the run folder the documents of the tunnels that are active.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../base/text.ts';
import { checkPrivateFolder, makeFolderIfPossible, makePrivateFolder, readDocumentFile } from './files.ts';
import {
  removeFile,
  removeLeftovers,
  replaceLink,
  type StagedFile,
  type StagedSoon,
  StorageError,
  stageFile,
  stageFileSoon,
} from './replace-file.ts';

const SUFFIX = '.xml';
/** In the run folder; in that of definitions. */
export const LIVE_FOLDER = 'live';
export const AUTOSTART_FOLDER = 'autostart';
const CONFIG_USE = 'definitions (--config-dir)';

function isDocument(fileName: string): boolean {
  return fileName.endsWith(SUFFIX) && !fileName.startsWith('.');
}

/** Of a folder that is not there: none. */
function namesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** A document in its folder. */
export interface DocumentFile {
  /** Of the tunnel, as the file's says. */
  readonly name: string;
  readonly file: string;
  /** @throws Error saying what is in the way */
  read(): Buffer;
}

/** One folder of documents, a file a tunnel. */
export class DocumentFolder {
  readonly path: string;
  readonly #use: string;

  /** @param use what it is for, and how another one is named */
  constructor(path: string, use: string) {
    this.path = path;
    this.#use = use;
    makeFolderIfPossible(path, use);
  }

  /** @returns why it is not there, and cannot be made now. @throws SectunnelError when it is there and not to be used */
  make(): string | undefined {
    return makeFolderIfPossible(this.path, this.#use);
  }

  /** What is there under the name of a document, folders aside, in order of the names: links, too, and what cannot be read. */
  documents(): DocumentFile[] {
    if (!existsSync(this.path)) return [];
    return readdirSync(this.path, { withFileTypes: true })
      .filter((entry) => !entry.isDirectory() && isDocument(entry.name))
      .map((entry) => entry.name)
      .sort()
      .map((fileName) => {
        const file = join(this.path, fileName);
        return { name: fileName.slice(0, -SUFFIX.length), file, read: () => readDocumentFile(file) };
      });
  }

  /** The names of the documents and links that are there, in their order. */
  names(): string[] {
    return namesIn(this.path)
      .filter(isDocument)
      .map((fileName) => fileName.slice(0, -SUFFIX.length))
      .sort();
  }

  /** Removes what a crash in the middle of a change left. @returns their paths */
  clean(): string[] {
    return removeLeftovers(this.path);
  }

  fileOf(name: string): string {
    return join(this.path, name + SUFFIX);
  }

  /** @throws StorageError with nothing changed */
  stage(name: string, xml: string): StagedFile {
    makePrivateFolder(this.path, this.#use);
    return stageFile(this.fileOf(name), xml);
  }

  /** The same, and the disk is waited for while others have their turn. @throws StorageError with nothing changed */
  async stageSoon(name: string, xml: string): Promise<StagedSoon> {
    makePrivateFolder(this.path, this.#use);
    return await stageFileSoon(this.fileOf(name), xml);
  }

  /** @throws StorageError */
  remove(name: string): void {
    removeFile(this.fileOf(name));
  }
}

/** The configuration folder. */
export class DefinitionStore extends DocumentFolder {
  readonly #autostart: string;

  constructor(path: string) {
    super(path, CONFIG_USE);
    this.#autostart = join(path, AUTOSTART_FOLDER);
    makeFolderIfPossible(this.#autostart, CONFIG_USE);
  }

  override make(): string | undefined {
    return super.make() ?? makeFolderIfPossible(this.#autostart, CONFIG_USE);
  }

  override clean(): string[] {
    return [...super.clean(), ...removeLeftovers(this.#autostart)];
  }

  /** With its mark for autostart, or neither. @throws StorageError */
  override remove(name: string): void {
    const wasMarked = this.isAutostart(name);
    try {
      this.setAutostart(name, false);
    } catch (error) {
      throw error instanceof StorageError
        ? new StorageError(`${error.message}. The definition stays`, error.reason)
        : error;
    }
    try {
      super.remove(name);
    } catch (error) {
      if (!wasMarked || !(error instanceof StorageError) || error.isDone) throw error;
      try {
        this.setAutostart(name, true);
      } catch (second) {
        throw new StorageError(
          `${error.message}. It does not start with the daemon any more: ${messageOf(second)}`,
          error.reason,
        );
      }
      throw error;
    }
  }

  isAutostart(name: string): boolean {
    return existsSync(this.#linkOf(name));
  }

  /** Names of tunnels whose links lead to no definition. */
  brokenAutostarts(): string[] {
    return namesIn(this.#autostart)
      .filter((file) => isDocument(file) && !existsSync(join(this.#autostart, file)))
      .map((file) => file.slice(0, -SUFFIX.length));
  }

  /** @throws SectunnelError when the folder is not there, or others may change what is in it */
  check(): void {
    checkPrivateFolder(this.path, CONFIG_USE);
  }

  /** @throws StorageError with nothing changed */
  setAutostart(name: string, enable: boolean): void {
    if (!enable) removeFile(this.#linkOf(name));
    else if (!this.isAutostart(name)) {
      makePrivateFolder(this.#autostart, CONFIG_USE);
      replaceLink(this.#linkOf(name), join('..', name + SUFFIX));
    }
  }

  #linkOf(name: string): string {
    return join(this.#autostart, name + SUFFIX);
  }
}
