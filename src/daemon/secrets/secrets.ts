/**
 * Secrets, stored as libvirt stores them: `UUID.xml` describes one, `UUID.base64` holds its value, both 0600; ephemeral ones
 * only in memory. A file that others may read is refused.
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { decodeBase64, encodeBase64 } from '../../base/base64.ts';
import { SectunnelError } from '../../base/error.ts';
import { isSharedKey } from '../../base/key-strength.ts';
import { secretCopy } from '../../base/secret-bytes.ts';
import { messageOf, utf8 } from '../../base/text.ts';
import type { SecretReference } from '../../config/model.ts';
import { dumpSecret, parseSecret, type SecretDocument } from '../../config/secret.ts';
import type { SecretInfo } from '../../control/results.ts';
import { makeFolderIfPossible, makePrivateFolder, readPrivateFile } from '../store/files.ts';
import { removeFile, removeLeftovers, replaceFile } from '../store/replace-file.ts';

/** Longest value in bytes: far more than any pre-shared key. */
export const MAX_SECRET_VALUE = 4096;
export const SECRETS_USE = 'secrets (--config-dir)';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Named pieces of content, in a folder or in memory. */
interface Shelf {
  names(): string[];
  has(name: string): boolean;
  /** Another one whenever the piece may be another; `undefined` when it is not there. */
  state(name: string): string | undefined;
  /** @throws SectunnelError when others may read it */
  read(name: string): Uint8Array;
  write(name: string, content: string | Uint8Array): void;
  remove(name: string): void;
  /** What to call a piece in messages. */
  label(name: string): string;
}

/** A secret that is there, as far as it can be read. */
type Found =
  | { readonly uuid: string; readonly shelf: Shelf; readonly secret: SecretDocument }
  | { readonly uuid: string; readonly shelf: Shelf; readonly problem: string };

/** The descriptions on a shelf. Each is read once for as long as it stays as it is: there may be thousands. */
class Catalogue {
  readonly shelf: Shelf;
  // BOUNDED: by the descriptions in the folder; removed ones are dropped when all are read.
  readonly #known = new Map<string, { readonly state: string; readonly found: Found }>();

  constructor(shelf: Shelf) {
    this.shelf = shelf;
  }

  has(uuid: string): boolean {
    return this.shelf.has(`${uuid}.xml`);
  }

  get(uuid: string): Found | undefined {
    const state = this.shelf.state(`${uuid}.xml`);
    if (state === undefined) return undefined;
    const known = this.#known.get(uuid);
    if (known?.state === state) return known.found;
    const found = describe(this.shelf, uuid);
    this.#known.set(uuid, { state, found });
    return found;
  }

  /** In the order of their UUIDs. One that cannot be read is no reason to do without the others. */
  all(): Found[] {
    const uuids = this.shelf
      .names()
      .filter((name) => name.endsWith('.xml') && UUID.test(name.slice(0, -4)))
      .map((name) => name.slice(0, -4))
      .sort();
    const there = new Set(uuids);
    for (const uuid of this.#known.keys()) if (!there.has(uuid)) this.#known.delete(uuid);
    return uuids.flatMap((uuid) => this.get(uuid) ?? []);
  }
}

export class SecretStore {
  readonly #path: string;
  readonly #persistent: Catalogue;
  readonly #ephemeral: Catalogue = new Catalogue(memoryShelf());
  /** Where a usage was found the last time. BOUNDED: by the secrets that there were. */
  readonly #usages = new Map<string, { readonly catalogue: Catalogue; readonly uuid: string }>();

  constructor(path: string) {
    makeFolderIfPossible(path, SECRETS_USE);
    this.#path = path;
    this.#persistent = new Catalogue(folderShelf(path));
  }

  /** Removes what a crash in the middle of a change left. @returns their paths */
  clean(): string[] {
    return removeLeftovers(this.#path);
  }

  /** Defines a secret or describes it anew; a value that it has stays. */
  define(secret: SecretDocument): void {
    const taken = this.#all().find(
      (other) => other.uuid !== secret.uuid && 'secret' in other && sameUsage(other.secret.usage, secret.usage),
    );
    if (taken !== undefined) {
      throw new SectunnelError(
        'invalid-state',
        `the usage '${secret.usage?.name}' is taken by secret ${taken.uuid}; choose another name, or undefine that one`,
      );
    }
    const [catalogue, other] = secret.ephemeral
      ? [this.#ephemeral, this.#persistent]
      : [this.#persistent, this.#ephemeral];
    if (other.has(secret.uuid)) {
      throw new SectunnelError(
        'invalid-state',
        `secret ${secret.uuid} is ${secret.ephemeral ? 'not ' : ''}ephemeral already; undefine it before that is changed`,
      );
    }
    catalogue.shelf.write(`${secret.uuid}.xml`, dumpSecret(secret));
  }

  /** Whether a secret is described here, with a value or without. */
  has(reference: SecretReference): boolean {
    return reference.by === 'uuid'
      ? this.#byUuid(reference.uuid) !== undefined
      : this.#byUsage(reference.usage) !== undefined;
  }

  /**
   * @param value erased by the caller
   * @returns the name of its usage, by which documents may also find it
   */
  setValue(uuid: string, value: Uint8Array): string | undefined {
    const { shelf } = this.#find(uuid);
    if (!isSharedKey(value)) {
      const found = value.length === 0 ? 'empty' : 'zeros alone';
      throw new SectunnelError('bad-request', `the value is ${found}; a pre-shared key or a pass phrase is required`);
    }
    if (value.length > MAX_SECRET_VALUE) {
      throw new SectunnelError(
        'bad-request',
        `the value has ${value.length} bytes; at most ${MAX_SECRET_VALUE} are allowed`,
      );
    }
    // Before it is written, so that a failure changes nothing.
    const found = this.#byUuid(uuid)?.get(uuid);
    const content = encodeBase64(value);
    try {
      shelf.write(`${uuid}.base64`, content);
    } finally {
      content.fill(0);
    }
    return found !== undefined && 'secret' in found ? found.secret.usage?.name : undefined;
  }

  list(): SecretInfo[] {
    return this.#all().map((found) => {
      const hasValue = found.shelf.has(`${found.uuid}.base64`);
      const info = { uuid: found.uuid, source: 'sectunnel', hasValue } as const;
      if ('problem' in found) return { ...info, usage: undefined, description: found.problem };
      const { usage, description } = found.secret;
      return { ...info, usage: usage && `${usage.type} ${usage.name}`, description };
    });
  }

  undefine(uuid: string): void {
    const { shelf } = this.#find(uuid);
    shelf.remove(`${uuid}.base64`);
    try {
      shelf.remove(`${uuid}.xml`);
    } catch (error) {
      throw new SectunnelError('system', `the value of secret ${uuid} is deleted, but ${messageOf(error)}`);
    }
  }

  /**
   * The value of a secret: a copy, which the caller wipes.
   * @throws SectunnelError with which secret is missing, empty or badly protected, and what to do
   */
  value(reference: SecretReference): Uint8Array {
    const { uuid, shelf } = reference.by === 'uuid' ? this.#find(reference.uuid) : this.#findUsage(reference.usage);
    const name = `${uuid}.base64`;
    const advice = `'sectunnel secret-set-value ${uuid}'`;
    if (!shelf.has(name)) {
      throw new SectunnelError('not-found', `secret ${uuid} has no value; set one with ${advice}`);
    }
    const content = shelf.read(name);
    const value = decodeBase64(content);
    content.fill(0);
    if (value === undefined || value.length === 0) {
      throw new SectunnelError('system', `${shelf.label(name)} holds no base64 value; set it with ${advice}`);
    }
    return value;
  }

  #find(uuid: string): { readonly uuid: string; readonly shelf: Shelf } {
    if (!UUID.test(uuid)) throw new SectunnelError('bad-request', `'${uuid}' is not a UUID`);
    const catalogue = this.#byUuid(uuid);
    if (catalogue === undefined) {
      throw new SectunnelError('not-found', `there is no secret ${uuid}; define it with 'sectunnel secret-define'`);
    }
    return { uuid, shelf: catalogue.shelf };
  }

  #findUsage(usage: string): { readonly uuid: string; readonly shelf: Shelf } {
    const found = this.#byUsage(usage);
    if (found !== undefined) return found;
    throw new SectunnelError(
      'not-found',
      `there is no secret with the usage '${usage}'; define it with 'sectunnel secret-define'`,
    );
  }

  #byUuid(uuid: string): Catalogue | undefined {
    return [this.#ephemeral, this.#persistent].find((catalogue) => catalogue.has(uuid));
  }

  #byUsage(usage: string): Found | undefined {
    const last = this.#usages.get(usage);
    const again = last?.catalogue.get(last.uuid);
    if (again !== undefined && isFor(again, usage)) return again;
    this.#usages.delete(usage);
    // All that are seen are noted, so that thousands of usages cost one look through the folder.
    let first: Found | undefined;
    for (const catalogue of [this.#ephemeral, this.#persistent]) {
      for (const found of catalogue.all().reverse()) {
        const name = 'secret' in found ? found.secret.usage?.name : undefined;
        if (name === undefined) continue;
        this.#usages.set(name, { catalogue, uuid: found.uuid });
        if (name === usage) first = found;
      }
    }
    return first;
  }

  #all(): Found[] {
    return [...this.#persistent.all(), ...this.#ephemeral.all()];
  }
}

function isFor(found: Found, usage: string): boolean {
  return 'secret' in found && found.secret.usage?.name === usage;
}

function describe(shelf: Shelf, uuid: string): Found {
  const name = `${uuid}.xml`;
  try {
    return { uuid, shelf, secret: parseSecret(shelf.read(name), { source: shelf.label(name) }) };
  } catch (error) {
    if (!(error instanceof SectunnelError)) throw error;
    return { uuid, shelf, problem: error.message };
  }
}

function folderShelf(path: string): Shelf {
  return {
    names: () => (existsSync(path) ? readdirSync(path) : []),
    has: (name) => statSync(join(path, name), { throwIfNoEntry: false }) !== undefined,
    state: (name) => {
      const found = statSync(join(path, name), { throwIfNoEntry: false });
      // ctime: the time of the last change of the content or of its permissions.
      return found && `${found.ctimeMs} ${found.size} ${found.ino}`;
    },
    read: (name) => readPrivateFile(join(path, name)),
    write: (name, content) => {
      makePrivateFolder(path, SECRETS_USE);
      replaceFile(join(path, name), content);
    },
    // With the temporary files that a crash left: no copy of a key remains unnoticed.
    remove: (name) => {
      removeLeftovers(path, name);
      removeFile(join(path, name));
    },
    label: (name) => join(path, name),
  };
}

function memoryShelf(): Shelf {
  // BOUNDED: what the administrator defines.
  const pieces = new Map<string, Uint8Array>();
  let changes = 0;
  return {
    names: () => [...pieces.keys()],
    has: (name) => pieces.has(name),
    state: (name) => (pieces.has(name) ? String(changes) : undefined),
    // A copy: the caller wipes the value that it has read.
    read: (name) => secretCopy(pieces.get(name) ?? new Uint8Array(0)),
    write: (name, content) => {
      changes++;
      pieces.get(name)?.fill(0);
      pieces.set(name, typeof content === 'string' ? utf8(content) : secretCopy(content));
    },
    remove: (name) => {
      changes++;
      pieces.get(name)?.fill(0);
      pieces.delete(name);
    },
    label: (name) => `ephemeral secret ${name}`,
  };
}

function sameUsage(a: SecretDocument['usage'], b: SecretDocument['usage']): boolean {
  return a !== undefined && b !== undefined && a.type === b.type && a.name === b.name;
}
