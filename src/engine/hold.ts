/**
 * Packets that wait for the SA that will carry them: a trap's first packet, and what follows it while IKE negotiates
 * (RFC 4301 §4.4.1: a packet that needs an SA triggers its creation). Bounded in packets, bytes and time.
 */
import type { PacketBatch } from '../base/batch.ts';

export interface HoldLimits {
  readonly packets: number;
  readonly bytes: number;
  /** Milliseconds that a packet waits at the most. */
  readonly time: number;
}

export const DEFAULT_HOLD: HoldLimits = { packets: 64, bytes: 256 * 1024, time: 10_000 };

export class HoldQueue {
  readonly #limits: HoldLimits;
  // BOUNDED: `limits.packets` and `limits.bytes`.
  #packets: { readonly data: Uint8Array; readonly until: number }[] = [];
  #bytes = 0;
  /** Packets that were let go again. */
  released = 0;

  constructor(limits: HoldLimits = DEFAULT_HOLD) {
    this.#limits = limits;
  }

  get length(): number {
    return this.#packets.length;
  }

  hasRoom(length: number): boolean {
    return this.#packets.length < this.#limits.packets && this.#bytes + length <= this.#limits.bytes;
  }

  /** Copies a packet into the queue; the newest is dropped when there is no room. */
  add(now: number, packet: Uint8Array): boolean {
    if (!this.hasRoom(packet.length)) return false;
    this.#packets.push({ data: packet.slice(), until: now + this.#limits.time });
    this.#bytes += packet.length;
    return true;
  }

  /** When the oldest packet gives up. */
  next(): number | undefined {
    return this.#packets[0]?.until;
  }

  /** Forgets packets that waited too long. */
  expire(now: number): void {
    while (this.#packets.length > 0 && this.#packets[0]!.until <= now) {
      this.#bytes -= this.#packets.shift()!.data.length;
    }
  }

  /** Moves at most `most` packets into the batch, in order, as many as it has slots for; returns how many. */
  drainInto(batch: PacketBatch, most: number): number {
    let taken = 0;
    while (taken < most && this.#packets.length > 0 && batch.count < batch.capacity) {
      const { data } = this.#packets.shift()!;
      this.#bytes -= data.length;
      taken++;
      // One that no slot is large enough for stays counted as dropped.
      if (batch.push(data) >= 0) this.released++;
    }
    return taken;
  }

  clear(): void {
    this.#packets = [];
    this.#bytes = 0;
  }
}
