/** The greatest rate that gets through, found with a bounded number of probes. */

export interface Probe {
  /** Packets a second that were sent; less than asked for when the sender cannot do more. */
  readonly sent: number;
  /** Packets a second that arrived while they were sent. */
  readonly received: number;
  /** Share of all packets that never arrived. */
  readonly loss: number;
}

export const MAX_LOSS = 0.01;
/** What arrives this much slower than it is sent waits in a queue, which grows: the rate is not sustained. */
const MIN_SUSTAINED = 0.97;
/** A sender that stays this far below what is asked of it is itself the limit. */
const SENDER_LIMIT = 0.9;
const UP = 1.5;
const DOWN = 0.5;
/** Close enough: next to the noise of a probe. */
const CLOSE = 1.06;

export function carried({ sent, received, loss }: Probe): boolean {
  return loss <= MAX_LOSS && received >= sent * MIN_SUSTAINED;
}

/**
 * Goes up or down from `start` until one rate is carried and a higher one is not, then between them. A rate that is not
 * carried is tried a second time: on a busy machine a single loss proves little. Returns the most packets a second
 * that were received without more loss than `MAX_LOSS`; 0 when no probe was carried.
 */
export async function greatestRate(
  start: number,
  probes: number,
  probe: (rate: number) => Promise<Probe>,
): Promise<number> {
  let [low, high, best] = [0, Number.POSITIVE_INFINITY, 0];
  let rate = start;
  let failedOnce = false;
  for (let i = 0; i < probes && high / low > CLOSE; i++) {
    const result = await probe(rate);
    if (carried(result)) {
      best = Math.max(best, result.received);
      low = rate;
      if (result.sent < rate * SENDER_LIMIT) break;
    } else if (failedOnce) {
      high = rate;
    } else {
      failedOnce = true;
      continue;
    }
    failedOnce = false;
    rate = nextRate(low, high);
  }
  return best;
}

function nextRate(low: number, high: number): number {
  if (high === Number.POSITIVE_INFINITY) return low * UP;
  return low === 0 ? high * DOWN : Math.sqrt(low * high);
}
