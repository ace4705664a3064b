/**
 * What outlives a daemon: definitions as `NAME.xml` (0600) in the configuration folder, `autostart/NAME.xml` as a link
 * to those that start with the daemon, and in the run folder the documents of the tunnels that are active.
 */
import { existsSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { makePrivateFolder, writePrivateFile } from './files.ts';

const SUFFIX = '.xml';
const CONFIG_USE = 'definitions (--config-dir)';

/** One folder of documents, a file a tunnel. */
export class DocumentFolder {
  readonly path: string;

  /** @param use what it is for, and how another one is named */
  constructor(path: string, use: string) {
    makePrivateFolder(path, use);
    this.path = path;
  }

  /** The documents that are there, in order of their names. */
  load(): { readonly name: string; readonly file: string; readonly xml: Buffer }[] {
    return readdirSync(this.path, { withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith(SUFFIX) && !entry.name.startsWith('.'))
      .map((entry) => entry.name)
      .sort()
      .map((fileName) => {
        const file = join(this.path, fileName);
        return { name: fileName.slice(0, -SUFFIX.length), file, xml: readFileSync(file) };
      });
  }

  save(name: string, xml: string): void {
    writePrivateFile(this.path, name + SUFFIX, xml);
  }

  remove(name: string): void {
    rmSync(join(this.path, name + SUFFIX), { force: true });
  }
}

/** The configuration folder. */
export class DefinitionStore extends DocumentFolder {
  readonly #autostart: string;

  constructor(path: string) {
    super(path, CONFIG_USE);
    this.#autostart = join(path, 'autostart');
    makePrivateFolder(this.#autostart, CONFIG_USE);
  }

  override remove(name: string): void {
    this.setAutostart(name, false);
    super.remove(name);
  }

  isAutostart(name: string): boolean {
    return existsSync(join(this.#autostart, name + SUFFIX));
  }

  /** Links to definitions that are not there. */
  brokenAutostarts(): string[] {
    return readdirSync(this.#autostart).filter((file) => !existsSync(join(this.#autostart, file)));
  }

  setAutostart(name: string, enable: boolean): void {
    const link = join(this.#autostart, name + SUFFIX);
    rmSync(link, { force: true });
    if (enable) symlinkSync(join('..', name + SUFFIX), link);
  }
}
