/** The tunnels that a daemon knows: by name and by UUID, which belong together as in libvirt. */

import { SectunnelError } from '../../base/error.ts';
import type { SectunnelDocument } from '../../config/model.ts';

export interface TunnelObject {
  readonly name: string;
  readonly uuid: string;
  /** The persistent document, which the next start uses. */
  persistent: SectunnelDocument | undefined;
  /** The document that runs. */
  live: SectunnelDocument | undefined;
}

export class ObjectTable {
  // BOUNDED: what the administrator defines.
  readonly #objects = new Map<string, TunnelObject>();
  /** BOUNDED: as the objects. */
  readonly #byUuid = new Map<string, TunnelObject>();
  /** Until one comes or goes. BOUNDED: as the objects. */
  #sorted: readonly TunnelObject[] | undefined;

  get(name: string): TunnelObject | undefined {
    return this.#objects.get(name);
  }

  get size(): number {
    return this.#objects.size;
  }

  /** In order of their names. */
  all(): TunnelObject[] {
    this.#sorted ??= [...this.#objects.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    return [...this.#sorted];
  }

  /** The same tunnels, each as it is now. */
  copy(): ObjectTable {
    const copy = new ObjectTable();
    for (const object of this.#objects.values()) copy.#add({ ...object });
    return copy;
  }

  lookUp(nameOrUuid: string): TunnelObject | undefined {
    return this.#objects.get(nameOrUuid) ?? this.#byUuid.get(nameOrUuid.toLowerCase());
  }

  /** @throws SectunnelError when there is none */
  find(nameOrUuid: string): TunnelObject {
    const object = this.lookUp(nameOrUuid);
    if (object === undefined) {
      throw new SectunnelError(
        'not-found',
        `there is no tunnel '${nameOrUuid}'; 'sectunnel list --all' names those that there are`,
      );
    }
    return object;
  }

  /** The object that a document is of, made when there is none. @throws SectunnelError when name or UUID is another's */
  claim(document: SectunnelDocument): TunnelObject {
    const { name, uuid } = document;
    const object = this.#objects.get(name);
    if (object !== undefined) {
      checkIdentity(object, document);
      return object;
    }
    const other = this.#byUuid.get(uuid);
    if (other !== undefined) {
      throw new SectunnelError(
        'invalid-state',
        `tunnel '${other.name}' has the UUID ${uuid} already; leave <uuid> out, or use that name`,
      );
    }
    const fresh: TunnelObject = { name, uuid, persistent: undefined, live: undefined };
    this.#add(fresh);
    return fresh;
  }

  #add(object: TunnelObject): void {
    this.#objects.set(object.name, object);
    this.#sorted = undefined;
    this.#byUuid.set(object.uuid, object);
  }

  /** Forgets an object that is neither persistent nor active. */
  dropIfGone({ name, uuid, persistent, live }: TunnelObject): void {
    if (persistent !== undefined || live !== undefined) return;
    this.#objects.delete(name);
    this.#sorted = undefined;
    this.#byUuid.delete(uuid);
  }
}

/** @throws SectunnelError when the document of that name has another UUID */
export function checkIdentity(object: TunnelObject, document: SectunnelDocument): void {
  if (object.uuid === document.uuid) return;
  throw new SectunnelError(
    'invalid-state',
    `tunnel '${object.name}' exists with UUID ${object.uuid}, the document has ${document.uuid}; write the first one into <uuid>, or undefine the tunnel`,
  );
}
