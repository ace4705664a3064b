/** When SAs send dummy packets: at random times while they send nothing else (RFC 4303 §2.6). */
import { readU32 } from '../base/bytes.ts';
import { WakeQueue } from '../base/wake-queue.ts';
import type { RandomSource } from '../crypto/types.ts';
import type { EspOutboundSa } from '../esp/outbound-sa.ts';
import { DummySchedule } from '../esp/tfc.ts';
import { SaCounter } from '../esp/usage.ts';

interface Sender {
  readonly sa: EspOutboundSa;
  readonly schedule: DummySchedule;
}

export class Dummies {
  readonly #random: RandomSource;
  /** By child SA, for active SAs. BOUNDED: by the owner, who deletes what was begun. */
  readonly #senders = new Map<number, Sender>();
  /** When the next dummy of an SA is due. BOUNDED: as those. */
  readonly #wake = new WakeQueue<number>();

  constructor(random: RandomSource) {
    this.#random = random;
  }

  /** In [0, 1). */
  readonly uniform = (): number => readU32(this.#random(4), 0) / 0x1_0000_0000;

  /** @param rate dummies a second, on average */
  begin(now: number, sa: EspOutboundSa, rate: number): void {
    const schedule = new DummySchedule(now, rate, this.uniform, packetsOf(sa));
    this.#senders.set(sa.id, { sa, schedule });
    this.#wake.set(sa.id, schedule.at);
  }

  delete(id: number): void {
    this.#senders.delete(id);
    this.#wake.set(id, undefined);
  }

  /** When `takeDue` is due next; `Infinity` for never. */
  next(): number {
    return this.#wake.next() ?? Number.POSITIVE_INFINITY;
  }

  /** The SAs that send one now. */
  takeDue(now: number): number[] {
    return this.#wake.takeDue(now).filter((id) => {
      const { sa, schedule } = this.#senders.get(id)!;
      const isDue = schedule.take(now, packetsOf(sa));
      this.#wake.set(id, schedule.at);
      return isDue;
    });
  }
}

/** All packets that were encrypted, dummies too. */
function packetsOf(sa: EspOutboundSa): number {
  return sa.usage.counters[SaCounter.cipherPackets]!;
}
