/** What is defined, as the daemon has it in memory; or a copy of that, to see what would come of files before they count. */
import { SectunnelError } from '../../base/error.ts';
import type { SectunnelDocument } from '../../config/model.ts';
import { DocumentIndex } from './document-index.ts';
import type { ObjectTable, TunnelObject } from './objects.ts';

export class Definitions {
  readonly objects: ObjectTable;
  readonly index: DocumentIndex;
  /** Documents of tunnels that wait to run again, by name. */
  readonly #interrupted: ReadonlyMap<string, SectunnelDocument>;

  /** @param index follows what counts of each tunnel */
  constructor(objects: ObjectTable, index: DocumentIndex, interrupted: ReadonlyMap<string, SectunnelDocument>) {
    this.objects = objects;
    this.index = index;
    this.#interrupted = interrupted;
  }

  /** The same for trying out: what is done with it changes nothing. */
  copy(): Definitions {
    const copy = new Definitions(this.objects.copy(), new DocumentIndex(), this.#interrupted);
    for (const { name } of copy.objects.all()) copy.reindex(name);
    return copy;
  }

  /** The document of a file becomes the persistent one. @returns why it cannot be; `undefined` when it is */
  take(document: SectunnelDocument): string | undefined {
    try {
      this.objects.claim(document).persistent = document;
      this.reindex(document.name);
      return undefined;
    } catch (error) {
      if (error instanceof SectunnelError) return error.message;
      throw error;
    }
  }

  /** Its file is gone. */
  drop(object: TunnelObject): void {
    object.persistent = undefined;
    this.objects.dropIfGone(object);
    this.reindex(object.name);
  }

  /** What counts now: what runs or waits to run again, or else the persistent document. */
  current(name: string): SectunnelDocument | undefined {
    const object = this.objects.get(name);
    return object && (object.live ?? this.#interrupted.get(name) ?? object.persistent);
  }

  /** What counts of a tunnel has changed. */
  reindex(name: string): void {
    this.index.set(name, this.current(name));
  }
}
