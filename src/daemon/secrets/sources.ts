/**
 * Where the secrets of documents come from: the daemon's own folder first, libvirt after it. A secret that the
 * daemon's folder describes is never looked up in libvirt, even without a value. Values are read at each authentication,
 * and not stored.
 */

import { SectunnelError } from '../../base/error.ts';
import { keyWeakness } from '../../base/key-strength.ts';
import { messageOf } from '../../base/text.ts';
import type { SecretReference, SectunnelDocument } from '../../config/model.ts';
import type { SecretDocument } from '../../config/secret.ts';
import type { SecretInfo, SecretList, SecretSource } from '../../control/results.ts';
import { type LibvirtSecret, LibvirtSecretError, LibvirtSecrets, usageText } from '../../libvirt/secrets.ts';
import { MAX_SECRET_VALUE, type SecretStore } from './secrets.ts';

/** A secret that may have another value now; of a reload of all, nothing is known. */
export type SecretChange = { readonly uuid: string; readonly usage: string | undefined } | undefined;

export interface SecretSourcesOptions {
  readonly own: SecretStore;
  /** Sockets of libvirt's daemons, in the order in which they are tried; none: libvirt is not asked. */
  readonly libvirtSockets: readonly string[];
  readonly onChanged: (change: SecretChange) => void;
}

/** A value with where it comes from: a copy, the caller's to wipe. */
export interface SecretValue {
  readonly value: Uint8Array;
  readonly source: SecretSource;
}

export class SecretSources {
  readonly #own: SecretStore;
  readonly #libvirt: LibvirtSecrets | undefined;
  readonly #onChanged: SecretSourcesOptions['onChanged'];

  constructor({ own, libvirtSockets, onChanged }: SecretSourcesOptions) {
    this.#own = own;
    this.#onChanged = onChanged;
    if (libvirtSockets.length === 0) return;
    this.#libvirt = new LibvirtSecrets({
      sockets: libvirtSockets,
      onChanged: (secret) => onChanged(secret && { uuid: secret.uuid, usage: secret.usage }),
    });
  }

  /**
   * The value of a secret, as it is now.
   * @throws SectunnelError with which secret is missing, private, without a value or badly protected, and what to do
   */
  async value(reference: SecretReference): Promise<SecretValue> {
    if (this.#libvirt === undefined || this.#own.has(reference)) {
      return { value: this.#own.value(reference), source: 'sectunnel' };
    }
    try {
      const secret = await this.#libvirt.find(reference);
      if (secret === undefined) throw missing(reference);
      return { value: checkedValue(secret, await this.#libvirt.value(secret)), source: 'libvirt' };
    } catch (error) {
      throw error instanceof LibvirtSecretError ? refused(reference, error) : error;
    }
  }

  /** Why a tunnel with that secret could not start now; `undefined` when it could. */
  async problem(reference: SecretReference): Promise<string | undefined> {
    try {
      (await this.value(reference)).value.fill(0);
      return undefined;
    } catch (error) {
      return messageOf(error);
    }
  }

  /**
   * Why the value of a secret can be guessed as a pre-shared key, and what to do; `undefined` when it cannot, or when it
   * cannot be read, which `problem` reports.
   */
  async weakness(reference: SecretReference): Promise<string | undefined> {
    let found: SecretValue;
    try {
      found = await this.value(reference);
    } catch {
      return undefined;
    }
    const why = keyWeakness(found.value);
    found.value.fill(0);
    if (why === undefined) return undefined;
    const set = reference.by === 'uuid' ? reference.uuid : 'UUID';
    const remedy =
      found.source === 'libvirt'
        ? `virsh secret-set-value ${set} --file FILE' with 32 random bytes in base64`
        : `sectunnel secret-set-value ${set} --generate'`;
    return (
      `as a pre-shared key the value of secret ${describeReference(reference)} can be guessed: ${why}. ` +
      "A host that answers in the peer's place can try keys off-line (RFC 7296 section 2.15); " +
      `set another with '${remedy}, or use certificates`
    );
  }

  /** Removes what a crash in the middle of a change left in the own folder. @returns their paths */
  clean(): string[] {
    return this.#own.clean();
  }

  /** Whether libvirt has to be asked for one of the secrets of a document. */
  needsLibvirt(document: SectunnelDocument): boolean {
    return this.#libvirt !== undefined && secretReferences(document).some((reference) => !this.#own.has(reference));
  }

  define(secret: SecretDocument): void {
    this.#own.define(secret);
    this.#onChanged({ uuid: secret.uuid, usage: secret.usage?.name });
  }

  /**
   * @param value erased by the caller
   * @returns warnings about the value: that it can be guessed
   */
  async setValue(uuid: string, value: Uint8Array): Promise<string[]> {
    this.#onChanged({ uuid, usage: this.#own.setValue(uuid, value) });
    const weakness = await this.weakness({ by: 'uuid', uuid });
    return weakness === undefined ? [] : [weakness];
  }

  undefine(uuid: string): void {
    this.#own.undefine(uuid);
  }

  /** Those of both sources, never their values. */
  async list(): Promise<SecretList> {
    const own = this.#own.list();
    if (this.#libvirt === undefined) return { secrets: own, notes: [] };
    try {
      const secrets = (await this.#libvirt.list()).map(infoOf);
      return { secrets: [...own, ...secrets], notes: [] };
    } catch (error) {
      return { secrets: own, notes: [messageOf(error)] };
    }
  }

  close(): void {
    this.#libvirt?.close();
  }
}

/** The secrets that a document names: its pre-shared key's, and those of its private keys. */
export function secretReferences({ sa }: SectunnelDocument): SecretReference[] {
  return sa.auths.flatMap((auth) => (auth.type === 'psk' ? auth.secret : (auth.x509.key?.secret ?? [])));
}

/** Whether a document may be about a secret that changed. */
export function concerns(document: SectunnelDocument, change: SecretChange): boolean {
  return secretReferences(document).some(
    (reference) =>
      change === undefined ||
      (reference.by === 'uuid' ? reference.uuid === change.uuid : reference.usage === change.usage),
  );
}

export function describeReference(reference: SecretReference): string {
  return reference.by === 'uuid' ? reference.uuid : `with the usage '${reference.usage}'`;
}

function infoOf(secret: LibvirtSecret): SecretInfo {
  return {
    uuid: secret.uuid,
    source: 'libvirt',
    usage: usageText(secret),
    hasValue: undefined,
    description: undefined,
  };
}

/** @throws SectunnelError when no pre-shared key can be that */
function checkedValue({ uuid }: LibvirtSecret, value: Uint8Array): Uint8Array {
  if (value.length > 0 && value.length <= MAX_SECRET_VALUE) return value;
  value.fill(0);
  throw new SectunnelError(
    'invalid-state',
    `secret ${uuid} of libvirt has a value of ${value.length} bytes; 1 to ${MAX_SECRET_VALUE} are required: ` +
      `set one with 'virsh secret-set-value ${uuid} --plain --file FILE'`,
  );
}

function missing(reference: SecretReference): SectunnelError {
  const [name, hint] =
    reference.by === 'uuid'
      ? [reference.uuid, '']
      : [describeReference(reference), ` and <usage type='tls'><name>${reference.usage}</name></usage>`];
  return new SectunnelError(
    'not-found',
    `there is no secret ${name}, neither in sectunnel nor in libvirt; ` +
      `define it with 'sectunnel secret-define', or with 'virsh secret-define', private='no'${hint}`,
  );
}

function refused(reference: SecretReference, error: LibvirtSecretError): SectunnelError {
  if (error.reason !== 'unavailable') return new SectunnelError('invalid-state', error.message);
  return new SectunnelError(
    'system',
    `there is no secret ${describeReference(reference)} in sectunnel; define it with 'sectunnel secret-define'. ` +
      `It may be in libvirt, but ${error.message}`,
  );
}
