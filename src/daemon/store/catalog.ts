/**
 * The daemon's records of its tunnels, in memory and in its folders: which are defined, which run and with which document,
 * which start with the daemon, and which ran when the last daemon ended.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { SectunnelError } from '../../base/error.ts';
import type { Logger } from '../../base/log.ts';
import { messageOf } from '../../base/text.ts';
import { dumpDocument, sameDocument } from '../../config/dump.ts';
import type { SectunnelDocument } from '../../config/model.ts';
import { parseDocument } from '../../config/parse.ts';
import { Definitions } from './definitions.ts';
import { DocumentIndex } from './document-index.ts';
import { logEmpty } from './files.ts';
import { ObjectTable, type TunnelObject } from './objects.ts';
import { documentOf, type Reading, readingOf, StoredDocument } from './readings.ts';
import { logLeftovers, type StagedFile, type StagedSoon, StorageError } from './replace-file.ts';
import { DefinitionStore, DocumentFolder, LIVE_FOLDER } from './store.ts';

/** A document as it came: XML, and what to call it in messages. */
export interface DocumentText {
  readonly xml: string;
  readonly source?: string | undefined;
}

/** A document that is to run. */
export interface LiveDocument {
  readonly document: SectunnelDocument;
  /** The run folder has it already. */
  readonly isSaved: boolean;
}

/** A file that is as it should be. */
const STANDING: StagedSoon = {
  commitSoon: async (onDone) => onDone(),
  discard: () => undefined,
};

export class Catalog {
  readonly objects: ObjectTable = new ObjectTable();
  readonly #log: Logger;
  readonly #definitions: DefinitionStore;
  readonly #liveDocuments: DocumentFolder;
  /** Documents of tunnels that ran when the last daemon ended, until they run again or are touched by hand. */
  // BOUNDED: by the objects.
  readonly #interrupted = new Map<string, SectunnelDocument>();
  // BOUNDED: by the files.
  readonly #unreadable = new Set<string>();
  /** Tunnels that run, or are to run again, with another document than the run folder has. BOUNDED: by the objects. */
  readonly #unsaved = new Set<string>();
  /** What is defined, in memory. */
  readonly definitions: Definitions;

  constructor(configDir: string, runDir: string, log: Logger) {
    this.#log = log;
    this.#definitions = new DefinitionStore(configDir);
    this.#liveDocuments = new DocumentFolder(join(runDir, LIVE_FOLDER), 'live state (--run-dir)');
    this.definitions = new Definitions(this.objects, new DocumentIndex(), this.#interrupted);
  }

  /** Reads both folders. What cannot be read is logged and left out, and what a crash left half written is removed. */
  load(): void {
    for (const folder of [this.#definitions, this.#liveDocuments]) {
      const problem = folder.make();
      logEmpty(this.#log, problem);
      logLeftovers(this.#log, () => folder.clean());
    }
    // BOUNDED: by the files, as the other one.
    const ran = new Map(this.#liveDocuments.documents().map((file) => [file.name, new StoredDocument(file)]));
    const defined = new Map<string, StoredDocument>();
    for (const file of this.#definitions.documents()) {
      const stored = new StoredDocument(file);
      const live = ran.get(file.name);
      const uuidOf = (): string | undefined => documentOf(live?.reading(() => undefined))?.uuid;
      defined.set(file.name, stored);
      this.#loadPersistent(stored.reading(uuidOf));
    }
    for (const [name, stored] of ran) this.#loadLive(stored.reading(() => undefined, defined.get(name)));
    for (const name of this.brokenAutostarts()) {
      this.#log.warn({ tunnel: name }, BROKEN_AUTOSTART);
      this.#unreadable.add(name);
    }
    for (const name of this.#interrupted.keys()) this.#unreadable.delete(name);
  }

  #loadPersistent(reading: Reading): void {
    const { name, file } = reading;
    const problem = 'document' in reading ? this.definitions.take(reading.document) : reading.problem;
    if (problem === undefined) return;
    this.#log.error({ file }, `definition ignored: ${problem}`);
    if (this.isAutostart(name)) this.#unreadable.add(name);
  }

  /**
   * A tunnel that ran when the last daemon ended runs again, with the same document, or with the persistent one where that
   * cannot be read.
   */
  #loadLive(reading: Reading): void {
    const { name, file } = reading;
    const persistent = this.objects.get(name)?.persistent;
    try {
      if ('problem' in reading) throw new Error(reading.problem);
      const { document } = reading;
      this.objects.claim(document);
      this.#interrupted.set(
        name,
        persistent !== undefined && sameDocument(persistent, document) ? persistent : document,
      );
    } catch (error) {
      this.#log.error({ file }, `the document with which a tunnel ran is ignored: ${messageOf(error)}`);
      this.#unsaved.add(name);
      if (persistent === undefined) this.#unreadable.add(name);
      else this.#interrupted.set(name, persistent);
    }
    this.definitions.reindex(name);
  }

  /**
   * Reads the definitions on the disk, one after the other; changes nothing.
   * @throws SectunnelError when the folder is not there, or not the daemon's own any more
   */
  *readDefinitions(): Generator<Reading, void> {
    this.#definitions.check();
    for (const file of this.#definitions.documents()) {
      yield readingOf(file, (name) => this.objects.get(name)?.uuid);
    }
  }

  /** Tunnels that are marked to start with the daemon, and not defined. */
  brokenAutostarts(): string[] {
    return this.#definitions.brokenAutostarts();
  }

  /** One that has no UUID gets that of the tunnel of its name. @throws SectunnelError saying what is wrong with it */
  parse({ xml, source }: DocumentText): SectunnelDocument {
    const newUuid = (name: string | undefined): string => this.objects.get(name ?? '')?.uuid ?? randomUUID();
    return parseDocument(xml, { newUuid, ...(source === undefined ? {} : { source }) });
  }

  /** What ran, by name. */
  get interrupted(): ReadonlyMap<string, SectunnelDocument> {
    return this.#interrupted;
  }

  /** Names of tunnels that ran or start with the daemon, and of which no document can be read, until they run or are given up. */
  get unreadable(): ReadonlySet<string> {
    return this.#unreadable;
  }

  /** Tunnels that are to run without a request: those that ran, then those that start with the daemon. */
  wanted(): SectunnelDocument[] {
    const names = new Set([...this.#interrupted.keys(), ...this.autostarted()]);
    return [...names].flatMap((name) => this.documentToStart(name) ?? []);
  }

  /** Whether it runs, is to run again, or starts with the daemon. */
  isWanted(name: string): boolean {
    return this.objects.get(name)?.live !== undefined || this.#interrupted.has(name) || this.isAutostart(name);
  }

  /** Tunnels that start with the daemon. */
  autostarted(): string[] {
    return this.objects.all().flatMap(({ name }) => (this.isAutostart(name) ? [name] : []));
  }

  isAutostart(name: string): boolean {
    return this.#definitions.isAutostart(name);
  }

  setAutostart(name: string, enable: boolean): void {
    this.#definitions.setAutostart(name, enable);
  }

  /** What the next start uses. */
  documentToStart(name: string): SectunnelDocument | undefined {
    return this.#interrupted.get(name) ?? this.objects.get(name)?.persistent;
  }

  /** What counts now: what runs or waits to run again, or else the persistent document. */
  currentDocument(name: string): SectunnelDocument | undefined {
    return this.definitions.current(name);
  }

  /** Whether a tunnel runs, or is to run again, with another document than the persistent one. */
  isOutdated({ name, persistent, live = this.#interrupted.get(name) }: TunnelObject): boolean {
    return persistent !== undefined && live !== undefined && !sameDocument(persistent, live);
  }

  /** What counts now of other tunnels that may claim the same packets, and run or are to run again. */
  activeNear(document: SectunnelDocument): SectunnelDocument[] {
    const isActive = (name: string): boolean =>
      this.objects.get(name)?.live !== undefined || this.#interrupted.has(name);
    return this.definitions.index.near(document).filter(({ name }) => isActive(name));
  }

  /**
   * Writes a definition to a temporary file; `commit` renames it.
   * @throws StorageError with nothing changed
   */
  stagePersistent(object: TunnelObject, document: SectunnelDocument): StagedFile {
    const file = this.#definitions.stage(document.name, dumpDocument(document));
    const commit = (): void => {
      this.#change(object, document, () => file.commit());
    };
    return { commit, discard: () => file.discard() };
  }

  /**
   * Defines a tunnel: writes its document, and puts it into its place if nothing speaks against that then.
   * @param check throws what speaks against it
   * @throws StorageError, and what `check` throws, with nothing changed
   */
  async define(document: SectunnelDocument, check: () => void): Promise<TunnelObject> {
    const file = await this.#definitions.stageSoon(document.name, dumpDocument(document));
    let object: TunnelObject | undefined;
    try {
      object = this.objects.claim(document);
      check();
    } catch (error) {
      file.discard();
      if (object !== undefined) this.objects.dropIfGone(object);
      throw error;
    }
    const own = object;
    try {
      await file.commitSoon(() => {
        own.persistent = document;
        this.definitions.reindex(own.name);
      });
    } finally {
      this.objects.dropIfGone(own);
    }
    return own;
  }

  /** Has the memory say what the disk says, also where that may not survive a power failure. */
  #change(object: TunnelObject, persistent: SectunnelDocument | undefined, onDisk: () => void): void {
    try {
      onDisk();
    } catch (error) {
      if (!(error instanceof StorageError) || !error.isDone) throw error;
      object.persistent = persistent;
      this.definitions.reindex(object.name);
      throw error;
    }
    object.persistent = persistent;
    this.definitions.reindex(object.name);
  }

  /** The tunnel is defined no longer. @throws StorageError */
  forget(object: TunnelObject): void {
    try {
      this.#change(object, undefined, () => this.#definitions.remove(object.name));
    } finally {
      this.objects.dropIfGone(object);
      this.definitions.reindex(object.name);
    }
  }

  /**
   * Writes what is to run, as the next daemon finds it again; nothing where it stands there already.
   * @throws StorageError with nothing changed
   */
  async stageLive({ document, isSaved }: LiveDocument): Promise<StagedSoon> {
    const { name } = document;
    const file = isSaved ? STANDING : await this.#liveDocuments.stageSoon(name, dumpDocument(document));
    const commitSoon = (onDone: () => void): Promise<void> =>
      file.commitSoon(() => {
        this.#unsaved.delete(name);
        onDone();
      });
    return { commitSoon, discard: () => file.discard() };
  }

  /** What is to run. Until it runs it is known whether its file is there. */
  toRun(document: SectunnelDocument): LiveDocument {
    const { name } = document;
    return { document, isSaved: this.#interrupted.get(name) === document && !this.#unsaved.has(name) };
  }

  /** The tunnel runs, with this document, which is on the disk when it was staged and committed. */
  started(object: TunnelObject, document: SectunnelDocument): void {
    this.#unsaved.add(object.name);
    this.#interrupted.delete(object.name);
    this.#unreadable.delete(object.name);
    object.live = document;
    this.definitions.reindex(object.name);
  }

  /** The tunnel runs no longer. @throws SectunnelError when only its file says that it does */
  stopped(object: TunnelObject): void {
    object.live = undefined;
    this.#unsaved.delete(object.name);
    this.objects.dropIfGone(object);
    this.definitions.reindex(object.name);
    this.#removeLive(object.name);
  }

  /** A tunnel that runs no longer is to run again, by the next daemon too. */
  interrupt(object: TunnelObject): void {
    if (object.live !== undefined) this.#interrupted.set(object.name, object.live);
    object.live = undefined;
    this.definitions.reindex(object.name);
  }

  /** A tunnel that ran need not run again. @throws SectunnelError as `stopped` */
  giveUp(object: TunnelObject): void {
    this.objects.dropIfGone(object);
    const wasInterrupted = this.#interrupted.delete(object.name);
    this.definitions.reindex(object.name);
    if (wasInterrupted) this.#removeLive(object.name);
    this.giveUpUnreadable(object.name);
  }

  /** The same of one of which no document can be read. False when there is none of that name. @throws SectunnelError as `stopped` */
  giveUpUnreadable(name: string): boolean {
    if (!this.#unreadable.delete(name)) return false;
    this.#removeLive(name);
    return true;
  }

  /** The daemon ends: the next one is to find what runs also where it could not be written before. */
  keepLive(): void {
    for (const { name, live = this.#interrupted.get(name) } of this.objects.all()) {
      if (live === undefined || !this.#unsaved.has(name)) continue;
      try {
        this.#liveDocuments.stage(name, dumpDocument(live)).commit();
        this.#unsaved.delete(name);
      } catch (error) {
        if (!(error instanceof StorageError)) throw error;
        this.#log.error(
          { tunnel: name },
          `${error.message}. The next daemon does not know that the tunnel ran: unless it has autostart, its fence is removed then`,
        );
      }
    }
  }

  /** @throws SectunnelError saying what a file that stays does */
  #removeLive(name: string): void {
    try {
      this.#liveDocuments.remove(name);
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      throw new SectunnelError(
        'system',
        `${error.message}. The next daemon starts tunnel ${name} again; remove the file`,
      );
    }
  }
}

export const BROKEN_AUTOSTART = 'autostart is set, but the tunnel is not defined';
