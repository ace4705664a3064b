/**
 * ESP packets that come before the answer that makes their SA. A responder may send on a new SA as soon as it has made it
 * (RFC 7296 §2.8), and UDP keeps no order: what comes for an SPI that we have offered waits until IKE has the answer.
 */
import type { Path } from '../ike/events.ts';

/** How long they wait, in milliseconds: what is older is of no use. */
export const EARLY_WAIT = 10_000;
/** Packets of one SPI that wait. */
const MAX_PACKETS = 64;
/** Bytes of all that wait. */
const MAX_BYTES = 1024 * 1024;
/** SPIs that are waited for; the oldest goes first. */
const MAX_SPIS = 1_024;

export interface EarlyPacket {
  readonly data: Uint8Array;
  readonly path: Path;
  readonly trafficClass: number;
}

interface Expected {
  readonly until: number;
  /** In the order in which they came. BOUNDED: MAX_PACKETS, and MAX_BYTES of all SPIs. */
  readonly packets: EarlyPacket[];
}

export class EarlyPackets {
  /** By SPI, as a signed integer; the oldest first. BOUNDED: MAX_SPIS. */
  readonly #expected = new Map<number, Expected>();
  #bytes = 0;

  /** Packets with this SPI may come from now on, until then. */
  expect(spi: number, until: number): void {
    const packets = this.#expected.get(spi | 0)?.packets ?? [];
    // Behind those that are given up before it.
    this.#expected.delete(spi | 0);
    this.#expected.set(spi | 0, { until, packets });
    const [oldest] = this.#expected.keys();
    if (this.#expected.size > MAX_SPIS && oldest !== undefined) this.take(oldest);
  }

  /** Copies a packet whose SPI is expected. False, with nothing done, for another, and when there is no room. */
  hold(spi: number, packet: Uint8Array, path: Path, trafficClass: number): boolean {
    const expected = this.#expected.get(spi | 0);
    if (expected === undefined || expected.packets.length >= MAX_PACKETS) return false;
    if (this.#bytes + packet.length > MAX_BYTES) return false;
    this.#bytes += packet.length;
    expected.packets.push({ data: packet.slice(), path, trafficClass });
    return true;
  }

  /** Takes the packets of an SPI and expects no more of them. */
  take(spi: number): EarlyPacket[] {
    const packets = this.#expected.get(spi | 0)?.packets ?? [];
    this.#expected.delete(spi | 0);
    for (const { data } of packets) this.#bytes -= data.length;
    return packets;
  }

  /** When `expire` is due next; `Infinity` for never. May be too early. */
  next(): number {
    for (const { until } of this.#expected.values()) return until;
    return Number.POSITIVE_INFINITY;
  }

  /** Drops what waited too long. Returns how many packets that were. */
  expire(now: number): number {
    let dropped = 0;
    for (const [spi, { until }] of this.#expected) {
      if (until > now) break;
      dropped += this.take(spi).length;
    }
    return dropped;
  }
}
