/**
 * Packets that wait for the SA that will carry them: a trap's first packet, and what follows it while IKE negotiates
 * (RFC 4301 §4.4.1: a packet that needs an SA triggers its creation). Bounded in packets, bytes and time.
 */

export interface HoldLimits {
  readonly packets: number;
  readonly bytes: number;
  /** Milliseconds that a packet waits at the most. */
  readonly time: number;
}

export const DEFAULT_HOLD: HoldLimits = { packets: 64, bytes: 256 * 1024, time: 10_000 };

export interface HeldPacket {
  readonly data: Uint8Array;
  /** When it is dropped. */
  readonly until: number;
  /** Index of the policy entry that decided it. */
  readonly entry: number;
  /** Which of the entry's SAs it waits for, where that has several. */
  readonly key: number;
}

export class HoldQueue {
  readonly #limits: HoldLimits;
  /** The oldest first. BOUNDED: `limits.packets` and `limits.bytes`. */
  #packets: HeldPacket[] = [];
  #bytes = 0;
  /** Packets that were taken and sent. */
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
  add(now: number, packet: Uint8Array, entry: number, key: number): boolean {
    if (!this.hasRoom(packet.length)) return false;
    this.putBack({ data: packet.slice(), until: now + this.#limits.time, entry, key });
    return true;
  }

  /** Returns a packet that was taken to the queue, with its former deadline. */
  putBack(packet: HeldPacket): void {
    let at = this.#packets.length;
    while (at > 0 && this.#packets[at - 1]!.until > packet.until) at--;
    this.#packets.splice(at, 0, packet);
    this.#bytes += packet.data.length;
  }

  /** When the oldest packet is dropped. */
  next(): number | undefined {
    return this.#packets[0]?.until;
  }

  /** Takes packets that waited too long. */
  expired(now: number): readonly HeldPacket[] {
    return this.#packets.length > 0 && this.#packets[0]!.until <= now ? this.take(({ until }) => until <= now) : NONE;
  }

  /** Takes some out, in their order. */
  take(wanted: (packet: HeldPacket) => boolean): readonly HeldPacket[] {
    const taken: HeldPacket[] = [];
    const left: HeldPacket[] = [];
    for (const packet of this.#packets) (wanted(packet) ? taken : left).push(packet);
    this.#packets = left;
    for (const { data } of taken) this.#bytes -= data.length;
    return taken;
  }

  /** The packets that wait. */
  packets(): Iterable<HeldPacket> {
    return this.#packets;
  }

  clear(): void {
    this.#packets = [];
    this.#bytes = 0;
  }
}

const NONE: readonly HeldPacket[] = [];
