/**
 * libvirt's secrets: looked up by UUID or by usage, their values read over its API, and word of their changes.
 *
 * A connection is made when a secret is first asked for, to the daemon that has them (virtsecretd, or libvirtd of one
 * piece), and kept from then on, to hear of changes. When it is lost it is made again, with back-off.
 */
import type { ByteReader, ByteWriter } from '../base/bytes.ts';
import { fromHex, toHex } from '../base/bytes.ts';
import { secretCopy } from '../base/secret-bytes.ts';
import { displayText } from '../base/text.ts';
import type { SecretReference } from '../config/model.ts';
import { LibvirtUnreachableError, RpcClient } from './rpc-client.ts';
import { LibvirtError } from './rpc-message.ts';
import { Procedure } from './rpc-numbers.ts';
import { readInt, readList, readOpaque, writeString } from './xdr.ts';

/** Where libvirt's daemons listen: those of newer releases are one for each kind of object. */
export const SECRET_SOCKETS: readonly string[] = ['/run/libvirt/virtsecretd-sock', '/run/libvirt/libvirt-sock'];

const URI = 'secret:///system';
/** Milliseconds that one call may take. */
const TIMEOUT = 3_000;
/** For so long a daemon that did not answer is not asked again. */
const FAILURE_MEMORY = 10_000;
/** Milliseconds until a lost connection is made again: the first wait, doubled up to the longest. */
const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 60_000;

const UUID_SIZE = 16;
/** libvirt's own limits. */
const MAX_SECRETS = 16_384;
const MAX_VALUE = 65_536;
/** Longest usage in bytes that is shown. */
const MAX_USAGE = 4_096;

/** `virSecretUsageType`. */
const USAGE_TYPES = ['none', 'volume', 'ceph', 'iscsi', 'tls', 'vtpm'] as const;
const USAGE_TLS: number = USAGE_TYPES.indexOf('tls');

const SecretEvent = { Lifecycle: 0, ValueChanged: 1 } as const;

/** Codes of `virterror.h`. */
const ErrorCode = { InvalidSecret: 65, NoSecret: 66 } as const;
/** Error codes by which libvirt denies an operation. */
const DENIALS: readonly number[] = [29, 45, 79, 88, 94];

export interface LibvirtSecret {
  readonly uuid: string;
  /** `virSecretUsageType`; 0 for none. */
  readonly usageType: number;
  /** `''` for none. */
  readonly usage: string;
}

/** As in a `<secret>`: the type of its usage and the name. */
export function usageText({ usageType, usage }: LibvirtSecret): string | undefined {
  if (usageType === 0) return undefined;
  return `${USAGE_TYPES[usageType] ?? `type ${usageType}`} ${usage}`;
}

/** Why libvirt gives no value. The message says which secret, and what to do. */
export class LibvirtSecretError extends Error {
  override readonly name = 'LibvirtSecretError';
  /** `unavailable`: libvirt could not be asked, or does not let us. */
  readonly reason: 'private' | 'no-value' | 'unavailable';

  constructor(reason: LibvirtSecretError['reason'], message: string) {
    super(message);
    this.reason = reason;
  }
}

export interface LibvirtSecretsOptions {
  /** Paths of sockets; the first one with a listener is used. */
  readonly sockets: readonly string[];
  /** A secret was defined, undefined or got a value; `undefined` when that may be so of any. */
  readonly onChanged: (secret: LibvirtSecret | undefined) => void;
  /** Milliseconds that one call may take. */
  readonly timeout?: number | undefined;
  /** Milliseconds until a lost connection is made again. */
  readonly firstWait?: number | undefined;
}

export class LibvirtSecrets {
  readonly #options: LibvirtSecretsOptions;
  #connection: Promise<RpcClient> | undefined;
  /** What the last attempt failed with, as long as it is not worth another. */
  #failure: { readonly error: Error; readonly until: number } | undefined;
  #again: NodeJS.Timeout | undefined;
  #wait: number;
  #closed = false;

  constructor(options: LibvirtSecretsOptions) {
    this.#options = options;
    this.#wait = options.firstWait ?? FIRST_WAIT;
  }

  /** `undefined` when libvirt has no such secret. @throws LibvirtSecretError when it cannot be asked */
  find(reference: SecretReference): Promise<LibvirtSecret | undefined> {
    return this.#asking(async (client) => {
      try {
        return await lookUp(client, reference);
      } catch (error) {
        if (error instanceof LibvirtError && error.code === ErrorCode.NoSecret) return undefined;
        throw error;
      }
    });
  }

  /** The value: a copy, the caller's to wipe; may be empty. @throws LibvirtSecretError */
  value(secret: LibvirtSecret): Promise<Uint8Array> {
    return this.#asking(async (client) => {
      try {
        return await client.call(
          Procedure.SecretGetValue,
          (body) => {
            writeSecret(body, secret);
            body.u32(0);
          },
          (body) => secretCopy(readOpaque(body, MAX_VALUE)),
        );
      } catch (error) {
        throw error instanceof LibvirtError ? refusedValue(secret, error) : error;
      }
    });
  }

  /** All of them, in the order of their UUIDs. @throws LibvirtSecretError when libvirt cannot be asked */
  list(): Promise<LibvirtSecret[]> {
    return this.#asking(async (client) => {
      const secrets = await client.call(
        Procedure.ConnectListAllSecrets,
        (body) => {
          body.u32(1);
          body.u32(0);
        },
        (body) => readList(body, MAX_SECRETS, readSecret),
      );
      return secrets.sort((a, b) => (a.uuid < b.uuid ? -1 : 1));
    });
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#again);
    this.#connection?.then(
      (client) => client.close(),
      () => undefined,
    );
    this.#connection = undefined;
  }

  async #asking<T>(ask: (client: RpcClient) => Promise<T>): Promise<T> {
    try {
      return await ask(await this.#connected());
    } catch (error) {
      if (error instanceof LibvirtUnreachableError) this.#remember(error);
      throw error instanceof LibvirtUnreachableError || error instanceof LibvirtError ? unavailable(error) : error;
    }
  }

  #connected(): Promise<RpcClient> {
    if (this.#closed) throw new LibvirtUnreachableError('broken', 'the daemon ends');
    if (this.#failure !== undefined && performance.now() < this.#failure.until) throw this.#failure.error;
    return this.#open();
  }

  #open(): Promise<RpcClient> {
    clearTimeout(this.#again);
    this.#connection ??= this.#connect().catch((error: unknown) => {
      this.#lost();
      throw error;
    });
    return this.#connection;
  }

  /** Many may want a secret of a daemon that hangs: they are not all to wait for it, one after another. */
  #remember(error: LibvirtUnreachableError): void {
    if (error.reason !== 'silent' || error === this.#failure?.error) return;
    this.#failure = { error, until: performance.now() + FAILURE_MEMORY };
  }

  async #connect(): Promise<RpcClient> {
    const client = await this.#reach();
    client.onClose = () => this.#lost();
    client.listen(Procedure.SecretEventLifecycle, (body) => this.#changed(body));
    client.listen(Procedure.SecretEventValueChanged, (body) => this.#changed(body));
    for (const event of [SecretEvent.Lifecycle, SecretEvent.ValueChanged]) await register(client, event);
    this.#wait = this.#options.firstWait ?? FIRST_WAIT;
    this.#failure = undefined;
    return client;
  }

  async #reach(): Promise<RpcClient> {
    const { sockets, timeout = TIMEOUT } = this.#options;
    for (const path of sockets) {
      try {
        return await RpcClient.connect({ path, uri: URI, timeout });
      } catch (error) {
        if (!(error instanceof LibvirtUnreachableError && error.reason === 'absent')) throw error;
      }
    }
    throw new LibvirtUnreachableError('absent', `no daemon listens on ${sockets.join(' or ')}`);
  }

  #changed(body: ByteReader): void {
    readInt(body); // The number of the registration.
    this.#options.onChanged(readSecret(body));
  }

  /** The connection was lost or could not be made: until there is another, no changes are reported. */
  #lost(): void {
    this.#connection = undefined;
    if (this.#closed) return;
    clearTimeout(this.#again);
    this.#again = setTimeout(() => void this.#reconnect(), this.#wait);
    this.#again.unref();
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT);
  }

  async #reconnect(): Promise<void> {
    try {
      await this.#open();
      this.#options.onChanged(undefined);
    } catch {
      // The next attempt is planned.
    }
  }
}

async function lookUp(client: RpcClient, reference: SecretReference): Promise<LibvirtSecret> {
  if (reference.by === 'uuid') {
    const { uuid } = reference;
    return await client.call(Procedure.SecretLookupByUuid, (body) => writeUuid(body, uuid), readSecret);
  }
  const { usage } = reference;
  const ofTls = (body: ByteWriter): void => {
    body.u32(USAGE_TLS);
    writeString(body, usage);
  };
  return await client.call(Procedure.SecretLookupByUsage, ofTls, readSecret);
}

/** For all secrets. A libvirt that does not let us hear of changes is one that is asked at each authentication. */
async function register(client: RpcClient, event: number): Promise<void> {
  const every = (body: ByteWriter): void => {
    body.u32(event);
    body.u32(0);
  };
  try {
    await client.call(Procedure.ConnectSecretEventRegisterAny, every, readInt);
  } catch (error) {
    if (!(error instanceof LibvirtError)) throw error;
  }
}

function refusedValue({ uuid }: LibvirtSecret, error: LibvirtError): LibvirtSecretError {
  switch (error.code) {
    case ErrorCode.InvalidSecret:
      return new LibvirtSecretError(
        'private',
        `secret ${uuid} of libvirt is private, so libvirt does not reveal its value; ` +
          `define it with private='no' ('virsh secret-define'), or in sectunnel ('sectunnel secret-define')`,
      );
    case ErrorCode.NoSecret:
      return new LibvirtSecretError(
        'no-value',
        `secret ${uuid} of libvirt has no value; set one with 'virsh secret-set-value ${uuid} --plain --file FILE'`,
      );
    default:
      return unavailable(error, ` the value of secret ${uuid}`);
  }
}

function unavailable(error: LibvirtError | LibvirtUnreachableError, what = ' its secrets'): LibvirtSecretError {
  const denied = error instanceof LibvirtError ? DENIALS.includes(error.code) : error.reason === 'refused';
  const text = error.message;
  return new LibvirtSecretError(
    'unavailable',
    denied
      ? `libvirt does not let this daemon read${what}: ${text}. Run sectunneld as root, or allow its user ` +
          'org.libvirt.unix.manage in polkit and unix_sock_group in the configuration of libvirt'
      : `libvirt cannot be asked: ${text}`,
  );
}

function writeUuid(body: ByteWriter, uuid: string): void {
  body.bytes(fromHex(uuid.replaceAll('-', '')));
}

/** `remote_nonnull_secret`. */
function readSecret(body: ByteReader): LibvirtSecret {
  const hex = toHex(body.bytes(UUID_SIZE));
  const uuid = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
  const usageType = readInt(body);
  return { uuid, usageType, usage: displayText(readOpaque(body, MAX_USAGE)) };
}

function writeSecret(body: ByteWriter, { uuid, usageType, usage }: LibvirtSecret): void {
  writeUuid(body, uuid);
  body.u32(usageType);
  writeString(body, usage);
}
