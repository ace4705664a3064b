/**
 * What a daemon knows of its tunnels, in memory and in its folders: which are defined, which run and with which document,
 * which start with the daemon, and which ran when the last daemon was cut off.
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
import { DefinitionStore, DocumentFolder } from './store.ts';

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
  /** Documents of tunnels that ran when the last daemon was cut off, until they run again or are touched by hand. */
  // BOUNDED: by the objects.
  readonly #interrupted = new Map<string, SectunnelDocument>();

  constructor(configDir: string, runDir: string, log: Logger) {
    this.#log = log;
    this.#definitions = new DefinitionStore(configDir);
    this.#liveDocuments = new DocumentFolder(join(runDir, 'live'), 'live state (--run-dir)');
  }

  /** Reads both folders. What cannot be read is logged and left out, and what a crash left half written is removed. */
  load(): void {
    for (const folder of [this.#definitions, this.#liveDocuments]) logLeftovers(this.#log, () => folder.clean());
    for (const { name, file, xml } of this.#definitions.load()) this.#loadKept(name, file, xml);
    for (const { name, file, xml } of this.#liveDocuments.load()) this.#loadLive(name, file, xml);
    for (const file of this.#definitions.brokenAutostarts())
      this.#log.warn({ file }, 'autostart of a tunnel that is not defined');
  }

  #loadKept(name: string, file: string, xml: Buffer): void {
    try {
      const document = parseDocument(xml, { source: file });
      if (document.name !== name)
        throw new Error(`the document's name is '${document.name}', that of the file wants '${name}'`);
      this.objects.claim(document).kept = document;
    } catch (error) {
      this.#log.error({ file }, `definition left out: ${messageOf(error)}`);
    }
  }

  /** A tunnel that ran when the daemon was cut off runs again, with the document that it ran with. */
  #loadLive(name: string, file: string, xml: Buffer): void {
    try {
      const document = parseDocument(xml, { source: file });
      this.objects.claim(document);
      this.#interrupted.set(name, document);
    } catch (error) {
      this.#log.error({ file }, `a tunnel that ran is not started again: ${messageOf(error)}`);
      this.#forgetLive(name, file);
    }
  }

  #forgetLive(name: string, file: string): void {
    try {
      this.#liveDocuments.remove(name);
    } catch (error) {
      this.#log.error({ file }, messageOf(error));
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

  /** Writes what is to run, as a daemon that is cut off finds it again. @throws StorageError with nothing changed */
  stageLive(document: SectunnelDocument): StagedFile {
    return this.#liveDocuments.stage(document.name, dumpDocument(document));
  }

  /** The tunnel runs, with this document. */
  started(object: TunnelObject, document: SectunnelDocument): void {
    this.#interrupted.delete(object.name);
    object.live = document;
  }

  /** The tunnel runs no longer. @throws ControlError when only its file says that it does */
  stopped(object: TunnelObject): void {
    object.live = undefined;
    this.objects.dropIfGone(object);
    this.#removeLive(object.name);
  }

  /** A tunnel that runs no longer is to run again, after a crash of the daemon too. */
  interrupt(object: TunnelObject): void {
    if (object.live !== undefined) this.#interrupted.set(object.name, object.live);
    object.live = undefined;
  }

  /** A tunnel that ran need not run again. False when there is none. @throws ControlError as `stopped` */
  giveUp(object: TunnelObject): boolean {
    this.objects.dropIfGone(object);
    const known = this.#interrupted.delete(object.name);
    if (known) this.#removeLive(object.name);
    return known;
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
