/**
 * The state that a daemon hands over to the next one (`docs/state.md`): in the run folder, sealed with a key in the configuration
 * folder. It is removed before it is used, so that no other daemon goes on from the same numbers.
 */
import { existsSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { DecodeError } from '../../base/bytes.ts';
import { SectunnelError } from '../../base/error.ts';
import type { Logger } from '../../base/log.ts';
import { moveSecret } from '../../base/secret-bytes.ts';
import { messageOf } from '../../base/text.ts';
import type { CryptoProvider } from '../../crypto/types.ts';
import { Inheritance } from '../../engine/state/inheritance.ts';
import { openState, STATE_KEY_LENGTH, type StateBinding, sealState } from '../../engine/state/seal.ts';
import { systemRandom } from '../../host/options.ts';
import { readPrivateFile } from './files.ts';
import { removeFile, replaceFile } from './replace-file.ts';

const MACHINE_ID = '/etc/machine-id';
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

export interface StateFileOptions {
  readonly configDir: string;
  readonly runDir: string;
  readonly crypto: CryptoProvider;
  readonly log: Logger;
}

export class StateFile {
  readonly #path: string;
  readonly #keyPath: string;
  readonly #crypto: CryptoProvider;
  readonly #log: Logger;

  constructor({ configDir, runDir, crypto, log }: StateFileOptions) {
    this.#path = join(runDir, 'state');
    this.#keyPath = join(configDir, 'state.key');
    this.#crypto = crypto;
    this.#log = log;
  }

  /** What the daemon before this one has left, once. What cannot be used is logged with the reason. */
  take(): Inheritance | undefined {
    try {
      if (!existsSync(this.#path)) return undefined;
      const sealed = readPrivateFile(this.#path);
      removeFile(this.#path);
      const opened = this.#withKey((key) => openState({ crypto: this.#crypto, key }, binding(), sealed));
      if ('state' in opened) return new Inheritance(opened.state);
      this.#refuse(opened.detail);
    } catch (error) {
      if (!isExpected(error)) throw error;
      this.#refuse(messageOf(error));
    }
    return undefined;
  }

  #refuse(why: string): void {
    this.#log.warn({ file: this.#path }, `the state that a daemon left is not used, tunnels begin anew: ${why}`);
  }

  /** Makes the key if there is none. @throws SectunnelError when state cannot be sealed here */
  prepare(): void {
    if (existsSync(this.#keyPath)) {
      this.#withKey(() => undefined);
      return;
    }
    const key = systemRandom(STATE_KEY_LENGTH);
    replaceFile(this.#keyPath, key);
    key.fill(0);
  }

  /** Leaves the state for the next daemon, and erases it here. That it cannot be left is logged. */
  leave(state: Uint8Array): void {
    try {
      const sealed = this.#withKey((key) => sealState({ crypto: this.#crypto, key }, binding(), state, systemRandom));
      replaceFile(this.#path, sealed);
      this.#log.info({ bytes: sealed.length }, 'the state of all SAs is left for the next daemon');
    } catch (error) {
      if (!isExpected(error)) throw error;
      this.#log.error({}, `the state could not be left, the next daemon begins anew: ${messageOf(error)}`);
    } finally {
      state.fill(0);
    }
  }

  #withKey<T>(use: (key: Uint8Array) => T): T {
    const key = moveSecret(readPrivateFile(this.#keyPath));
    try {
      if (key.length !== STATE_KEY_LENGTH) {
        const what = `${this.#keyPath} has ${key.length} bytes, and ${STATE_KEY_LENGTH} are required`;
        throw new SectunnelError('system', `${what}: remove it, and the next daemon makes another`);
      }
      return use(key);
    } finally {
      key.fill(0);
    }
  }
}

/** What the files or the system may cause. */
function isExpected(error: unknown): boolean {
  return error instanceof SectunnelError || error instanceof DecodeError || (error instanceof Error && 'code' in error);
}

function binding(): StateBinding {
  const host = existsSync(MACHINE_ID) ? readFileSync(MACHINE_ID, 'utf8').trim() : hostname();
  return { host, boot: readFileSync(BOOT_ID, 'utf8').trim() };
}
