/**
 * Secrets, kept as libvirt keeps them: `UUID.xml` describes one, `UUID.base64` holds its value, both 0600. A file
 * that others may read is refused, not read.
 */
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { dumpSecret, parseSecret, type SecretDocument } from '../config/secret.ts';
import { makePrivateFolder, readPrivateFile, writePrivateFile } from './files.ts';
import { ControlError, type SecretInfo } from './protocol.ts';

/** Longest value in bytes: far more than any pre-shared key. */
const MAX_VALUE = 4096;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export type SecretReference =
  | { readonly by: 'uuid'; readonly uuid: string }
  | { readonly by: 'usage'; readonly usage: string };

export class SecretStore {
  readonly #path: string;

  constructor(path: string) {
    makePrivateFolder(path);
    this.#path = path;
  }

  /** Defines a secret or describes it anew; a value that it has stays. */
  define(secret: SecretDocument): void {
    const taken = this.#all().find(({ uuid, usage }) => uuid !== secret.uuid && sameUsage(usage, secret.usage));
    if (taken !== undefined) {
      throw new ControlError(
        'invalid-state',
        `the usage '${secret.usage?.name}' is taken by secret ${taken.uuid}; choose another name, or undefine that one`,
      );
    }
    writePrivateFile(this.#path, `${secret.uuid}.xml`, dumpSecret(secret));
  }

  setValue(uuid: string, base64: string): void {
    this.#find(uuid);
    const value = decodeBase64(base64);
    if (value === undefined) {
      throw new ControlError('bad-request', 'the value is not base64; encode it, or use --plain to give it as it is');
    }
    if (value.length === 0) throw new ControlError('bad-request', 'the value is empty; a pre-shared key is wanted');
    if (value.length > MAX_VALUE) {
      throw new ControlError('bad-request', `the value has ${value.length} bytes; at most ${MAX_VALUE} are allowed`);
    }
    writePrivateFile(this.#path, `${uuid}.base64`, value.toString('base64'));
    value.fill(0);
  }

  list(): SecretInfo[] {
    return this.#all().map((secret) => ({
      uuid: secret.uuid,
      usage: secret.usage === undefined ? undefined : `${secret.usage.type} ${secret.usage.name}`,
      hasValue: this.#hasValue(secret.uuid),
      description: secret.description,
    }));
  }

  undefine(uuid: string): void {
    this.#find(uuid);
    rmSync(join(this.#path, `${uuid}.base64`), { force: true });
    rmSync(join(this.#path, `${uuid}.xml`), { force: true });
  }

  /**
   * The value of a secret: a copy, the caller's to wipe.
   * @throws ControlError saying which secret is missing, empty or badly protected, and what to do
   */
  value(reference: SecretReference): Uint8Array {
    const uuid = reference.by === 'uuid' ? this.#find(reference.uuid).uuid : this.#findUsage(reference.usage).uuid;
    if (!this.#hasValue(uuid)) {
      throw new ControlError(
        'not-found',
        `secret ${uuid} has no value; set one with 'sectunnel secret-set-value ${uuid}'`,
      );
    }
    const file = join(this.#path, `${uuid}.base64`);
    const content = readPrivateFile(file);
    const value = decodeBase64(content.toString('latin1').trim());
    content.fill(0);
    if (value === undefined || value.length === 0) {
      throw new ControlError(
        'system',
        `${file} holds no base64 value; set it with 'sectunnel secret-set-value ${uuid}'`,
      );
    }
    const copy = new Uint8Array(value);
    value.fill(0);
    return copy;
  }

  #find(uuid: string): SecretDocument {
    if (!UUID.test(uuid)) throw new ControlError('bad-request', `'${uuid}' is not a UUID`);
    const file = join(this.#path, `${uuid}.xml`);
    if (statSync(file, { throwIfNoEntry: false }) === undefined) {
      throw new ControlError('not-found', `there is no secret ${uuid}; define it with 'sectunnel secret-define'`);
    }
    return parseSecret(readPrivateFile(file), { source: file });
  }

  #findUsage(usage: string): SecretDocument {
    const secret = this.#all().find((candidate) => candidate.usage?.name === usage);
    if (secret === undefined) {
      throw new ControlError(
        'not-found',
        `there is no secret with the usage '${usage}'; define it with 'sectunnel secret-define'`,
      );
    }
    return secret;
  }

  #all(): SecretDocument[] {
    return readdirSync(this.#path)
      .filter((file) => file.endsWith('.xml') && UUID.test(file.slice(0, -4)))
      .sort()
      .map((file) => this.#find(file.slice(0, -4)));
  }

  #hasValue(uuid: string): boolean {
    return statSync(join(this.#path, `${uuid}.base64`), { throwIfNoEntry: false }) !== undefined;
  }
}

function sameUsage(a: SecretDocument['usage'], b: SecretDocument['usage']): boolean {
  return a !== undefined && b !== undefined && a.type === b.type && a.name === b.name;
}

/** Strict, unlike Node's own: `undefined` when anything else than base64 stands there. */
function decodeBase64(text: string): Buffer | undefined {
  const bare = text.replace(/[\r\n]/g, '');
  if (bare.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(bare)) return undefined;
  return Buffer.from(bare, 'base64');
}
