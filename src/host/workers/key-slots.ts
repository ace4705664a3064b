/**
 * The keys of SAs in memory that the main thread shares with its workers. A command carries views of a slot, so a message
 * copies where the keys are, not the keys. Only the main thread erases a slot and reuses it, so a worker that replaces
 * another still finds the keys.
 */
import { invariant } from '../../base/assert.ts';
import type { CipherKeys } from '../../crypto/types.ts';

/** Bytes of the longest keys of either kind: AES-256 with a nonce of four, HMAC-SHA-512. */
const ENCRYPTION = 64;
const INTEGRITY = 64;
const SLOT = ENCRYPTION + INTEGRITY;
/** Slots that are made at a time. */
const SLOTS = 64;

/** The keys of one SA, until they are erased. */
export interface KeySlot {
  readonly keys: CipherKeys;
  /** Erases them. To be called once, when no worker reads them any more. */
  release(): void;
}

export class KeySlots {
  /** Slots without keys. BOUNDED: by the SAs that there were at a time; the engine bounds those. */
  readonly #free: Uint8Array[] = [];
  /** What all slots lie in. BOUNDED: as they are. */
  readonly #memories: Uint8Array[] = [];

  /** Puts keys into a slot; those that are handed in are erased. */
  take({ encryption, integrity }: CipherKeys): KeySlot {
    invariant(encryption.length <= ENCRYPTION && integrity.length <= INTEGRITY, 'a key longer than its slot');
    if (this.#free.length === 0) this.#makeSlots();
    const slot = this.#free.pop()!;
    const keys = {
      encryption: slot.subarray(0, encryption.length),
      integrity: slot.subarray(ENCRYPTION, ENCRYPTION + integrity.length),
    };
    keys.encryption.set(encryption);
    keys.integrity.set(integrity);
    encryption.fill(0);
    integrity.fill(0);
    const release = (): void => {
      slot.fill(0);
      this.#free.push(slot);
    };
    return { keys, release };
  }

  /** Erases all slots, after the last worker has ended. */
  eraseAll(): void {
    for (const memory of this.#memories) memory.fill(0);
  }

  #makeSlots(): void {
    const memory = new Uint8Array(new SharedArrayBuffer(SLOTS * SLOT));
    this.#memories.push(memory);
    for (let at = 0; at < memory.length; at += SLOT) this.#free.push(memory.subarray(at, at + SLOT));
  }
}
