/**
 * What a daemon knows of its tunnels, in memory and in its folders: which are defined, which run and with which document,
 * which start with the daemon, and which ran when the last daemon ended.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import { dumpDocument } from '../config/dump.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { parseDocument } from '../config/parse.ts';
import { ObjectTable, type TunnelObject } from './objects.ts';
import { ControlError } from './protocol.ts';
import { refusing } from './refusing.ts';
import { logLeftovers, type StagedFile, StorageError } from './replace-file.ts';
import { DefinitionStore, DocumentFolder, LIVE_FOLDER } from './store.ts';

/** A document as it came: XML, and what to call it in messages. */
export interface DocumentText {
  readonly xml: string;
  readonly source?: string | undefined;
}

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

  constructor(configDir: string, runDir: string, log: Logger) {
    this.#log = log;
    this.#definitions = new DefinitionStore(configDir);
    this.#liveDocuments = new DocumentFolder(join(runDir, LIVE_FOLDER), 'live state (--run-dir)');
  }

  /** Reads both folders. What cannot be read is logged and left out, and what a crash left half written is removed. */
  load(): void {
    for (const folder of [this.#definitions, this.#liveDocuments]) logLeftovers(this.#log, () => folder.clean());
    for (const { name, file, xml } of this.#definitions.load()) this.#loadKept(name, file, xml);
    for (const { name, file, xml } of this.#liveDocuments.load()) this.#loadLive(name, file, xml);
    for (const { name, file } of this.#definitions.brokenAutostarts()) {
      this.#log.warn({ file }, 'autostart of a tunnel that is not defined');
      this.#unreadable.add(name);
    }
    for (const name of this.#interrupted.keys()) this.#unreadable.delete(name);
  }

  #loadKept(name: string, file: string, xml: Buffer): void {
    try {
      const document = parseDocument(xml, { source: file });
      if (document.name !== name)
        throw new Error(`the document's name is '${document.name}', that of the file wants '${name}'`);
      this.objects.claim(document).kept = document;
    } catch (error) {
      this.#log.error({ file }, `definition left out: ${messageOf(error)}`);
      if (this.isAutostart(name)) this.#unreadable.add(name);
    }
  }

  /**
   * A tunnel that ran when the last daemon ended runs again, with the document that it ran with; where that cannot be read, with
   * the one that is kept.
   */
  #loadLive(name: string, file: string, xml: Buffer): void {
    try {
      const document = parseDocument(xml, { source: file });
      this.objects.claim(document);
      this.#interrupted.set(name, document);
    } catch (error) {
      this.#log.error({ file }, `the document that a tunnel ran with is left out: ${messageOf(error)}`);
      const kept = this.objects.get(name)?.kept;
      if (kept === undefined) this.#unreadable.add(name);
      else this.#interrupted.set(name, kept);
    }
  }

  /** One that has no UUID gets that of the tunnel of its name. @throws ControlError saying what is wrong with it */
  parse({ xml, source }: DocumentText): SectunnelDocument {
    const newUuid = (name: string | undefined): string => this.objects.get(name ?? '')?.uuid ?? randomUUID();
    return refusing(() => parseDocument(xml, { newUuid, ...(source === undefined ? {} : { source }) }));
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
    return this.#interrupted.get(name) ?? this.objects.get(name)?.kept;
  }

  /** What counts now: what runs or waits to run again, or else what is kept. */
  currentDocument(name: string): SectunnelDocument | undefined {
    const object = this.objects.get(name);
    return object && (object.live ?? this.#interrupted.get(name) ?? object.kept);
  }

  /** Of tunnels that run, or are to run again. */
  *active(): Iterable<SectunnelDocument> {
    for (const { name, live } of this.objects.all()) {
      const document = live ?? this.#interrupted.get(name);
      if (document !== undefined) yield document;
    }
  }

  /** What counts now of each tunnel. */
  *documents(): Iterable<SectunnelDocument> {
    for (const { name } of this.objects.all()) {
      const document = this.currentDocument(name);
      if (document !== undefined) yield document;
    }
  }

  /**
   * Writes a definition to the disk, from where `commit` puts it into its place.
   * @throws StorageError with nothing changed
   */
  stageKept(object: TunnelObject, document: SectunnelDocument): StagedFile {
    const file = this.#definitions.stage(document.name, dumpDocument(document));
    const commit = (): void => {
      this.#change(object, document, () => file.commit());
    };
    return { commit, discard: () => file.discard() };
  }

  /** Has the memory say what the disk says, also where that may not survive a power failure. */
  #change(object: TunnelObject, kept: SectunnelDocument | undefined, onDisk: () => void): void {
    try {
      onDisk();
    } catch (error) {
      if (error instanceof StorageError && error.isDone) object.kept = kept;
      throw error;
    }
    object.kept = kept;
  }

  /** The tunnel is defined no longer. @throws StorageError */
  forget(object: TunnelObject): void {
    try {
      this.#change(object, undefined, () => this.#definitions.remove(object.name));
    } finally {
      this.objects.dropIfGone(object);
    }
  }

  /** Writes what is to run, as the next daemon finds it again. @throws StorageError with nothing changed */
  stageLive(document: SectunnelDocument): StagedFile {
    const { name } = document;
    const file = this.#liveDocuments.stage(name, dumpDocument(document));
    const commit = (): void => {
      file.commit();
      this.#unsaved.delete(name);
    };
    return { commit, discard: () => file.discard() };
  }

  /** The tunnel runs, with this document, which is on the disk when it was staged and committed. */
  started(object: TunnelObject, document: SectunnelDocument): void {
    this.#unsaved.add(object.name);
    this.#interrupted.delete(object.name);
    this.#unreadable.delete(object.name);
    object.live = document;
  }

  /** The tunnel runs no longer. @throws ControlError when only its file says that it does */
  stopped(object: TunnelObject): void {
    object.live = undefined;
    this.#unsaved.delete(object.name);
    this.objects.dropIfGone(object);
    this.#removeLive(object.name);
  }

  /** A tunnel that runs no longer is to run again, by the next daemon too. */
  interrupt(object: TunnelObject): void {
    if (object.live !== undefined) this.#interrupted.set(object.name, object.live);
    object.live = undefined;
  }

  /** A tunnel that ran need not run again. @throws ControlError as `stopped` */
  giveUp(object: TunnelObject): void {
    this.objects.dropIfGone(object);
    if (this.#interrupted.delete(object.name)) this.#removeLive(object.name);
    this.giveUpUnreadable(object.name);
  }

  /** The same of one of which no document can be read. False when there is none of that name. @throws ControlError as `stopped` */
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
        this.stageLive(live).commit();
      } catch (error) {
        if (!(error instanceof StorageError)) throw error;
        this.#log.error(
          { tunnel: name },
          `${error.message}. The next daemon does not know that the tunnel ran: unless it starts with the daemon, its fence is taken away then`,
        );
      }
    }
  }

  /** @throws ControlError saying what a file that stays does */
  #removeLive(name: string): void {
    try {
      this.#liveDocuments.remove(name);
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      throw new ControlError(
        'system',
        `${error.message}. The next daemon starts tunnel ${name} again; remove the file`,
      );
    }
  }
}
