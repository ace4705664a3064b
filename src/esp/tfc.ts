/**
 * Traffic flow confidentiality: how far packets are padded before they are sealed (RFC 4303 §2.7), and when dummy
 * packets are due (§2.6). Only in tunnel mode: the packet inside says itself how long it is.
 */

export interface TfcConfig {
  /** To a multiple of `size`, to `size`, to as much as the path takes. Nothing is padded beyond that. */
  readonly padding: 'none' | 'multiple' | 'fixed' | 'mtu';
  /** Bytes, of packets as they are without ESP. Means nothing with `none` and `mtu`. */
  readonly size?: number | undefined;
  /** Dummy packets a second on average, while nothing else is sent; 0 for none. */
  readonly dummies: number;
}

/** Bytes from which on padding changes anything. */
const MIN_SIZE = 16;
const MAX_PACKET = 0xffff;
const MAX_DUMMIES = 100;

/** What is wrong with a configuration, for people; `undefined` when nothing is. */
export function tfcProblem({ padding, size, dummies }: TfcConfig): string | undefined {
  const sized = padding === 'multiple' || padding === 'fixed';
  if (sized && !(size !== undefined && Number.isInteger(size) && size >= MIN_SIZE && size <= MAX_PACKET)) {
    return `padding to ${padding} wants a size of ${MIN_SIZE} to ${MAX_PACKET} bytes, not ${size}`;
  }
  if (dummies >= 0 && dummies <= MAX_DUMMIES) return undefined;
  return `0 to ${MAX_DUMMIES} dummy packets a second are required, not ${dummies}`;
}

/** How far an SA pads. Made once; `paddedLength` is called for each packet. */
export class TfcPadding {
  readonly #multiple: number;
  readonly #least: number;

  constructor({ padding, size = 1 }: TfcConfig) {
    this.#multiple = padding === 'multiple' ? size : 1;
    this.#least = padding === 'fixed' ? size : padding === 'mtu' ? MAX_PACKET : 0;
  }

  /** @param room what fits; a packet that is larger stays as it is */
  paddedLength(length: number, room: number): number {
    const beyond = length % this.#multiple;
    const wanted = Math.max(this.#least, beyond === 0 ? length : length + this.#multiple - beyond);
    return Math.max(length, Math.min(wanted, room));
  }
}

/**
 * When the dummy packets of an SA are due: at random times with the mean gap of the rate, which an observer cannot predict.
 * A gap in which packets were sent needs no dummy.
 */
export class DummySchedule {
  /** When `take` is to be called next. */
  at: number;
  readonly #meanGap: number;
  readonly #random: () => number;
  #packets: number;

  /**
   * @param dummies a second, more than 0
   * @param random uniform in [0, 1)
   * @param packets that the SA has sent so far
   */
  constructor(now: number, dummies: number, random: () => number, packets: number) {
    this.#meanGap = 1_000 / dummies;
    this.#random = random;
    this.#packets = packets;
    this.at = this.#next(now);
  }

  /** Whether a dummy is to be sent now; then `packets`, of all kinds, counts it already. What was missed is not made up for. */
  take(now: number, packets: number): boolean {
    if (now < this.at) return false;
    this.at = this.#next(now);
    const idle = packets === this.#packets;
    this.#packets = idle ? packets + 1 : packets;
    return idle;
  }

  #next(now: number): number {
    return now + 2 * this.#random() * this.#meanGap;
  }
}
