/** What the files of documents say: each is parsed once, and two with the same text together. */
import { randomUUID } from 'node:crypto';
import { DocumentError } from '../../config/errors.ts';
import type { SectunnelDocument } from '../../config/model.ts';
import { parseDocument } from '../../config/parse.ts';
import { reasonOf } from './replace-file.ts';
import type { DocumentFile } from './store.ts';

/** What a file in a folder of documents says; `problem` names the file, and the line where that is known. */
export type Reading = { readonly name: string; readonly file: string } & (
  | { readonly document: SectunnelDocument }
  | { readonly problem: string }
);

/** A file that is read and parsed once, when it is asked for. */
export class StoredDocument {
  readonly #file: DocumentFile;
  #bytes: Buffer | undefined;
  #reading: Reading | undefined;

  constructor(file: DocumentFile) {
    this.#file = file;
  }

  /**
   * @param uuidOf as of `readingOf`
   * @param other where it has the same text, and is known already, its document is this one's: parsing takes longest
   */
  reading(uuidOf: (name: string) => string | undefined, other?: StoredDocument): Reading {
    const same = this.#reading === undefined && other !== undefined && this.#hasTextOf(other);
    const document = same ? documentOf(other.#reading) : undefined;
    const { name, file } = this.#file;
    this.#reading ??=
      document === undefined ? readingOf({ name, file, read: () => this.#read() }, uuidOf) : { name, file, document };
    return this.#reading;
  }

  #hasTextOf(other: StoredDocument): boolean {
    try {
      return other.#bytes !== undefined && this.#read().equals(other.#bytes);
    } catch {
      // Why it cannot be read is said when it is parsed.
      return false;
    }
  }

  #read(): Buffer {
    this.#bytes ??= this.#file.read();
    return this.#bytes;
  }
}

export function documentOf(reading: Reading | undefined): SectunnelDocument | undefined {
  return reading !== undefined && 'document' in reading ? reading.document : undefined;
}

/** @param uuidOf of a tunnel that is known, for a document that has none */
export function readingOf({ name, file, read }: DocumentFile, uuidOf: (name: string) => string | undefined): Reading {
  try {
    const document = parseDocument(read(), { source: file, newUuid: () => uuidOf(name) ?? randomUUID() });
    if (document.name === name) return { name, file, document };
    return {
      name,
      file,
      problem: `${file}: the document names the tunnel '${document.name}'; the name of the file wants '${name}'`,
    };
  } catch (error) {
    return { name, file, problem: error instanceof DocumentError ? error.message : `${file}: ${reasonOf(error)}` };
  }
}
