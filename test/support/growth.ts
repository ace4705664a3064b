/** How the cost of one step grows with how many there are already. */

/**
 * Milliseconds of the fastest of several rounds, each of `steps` steps: what other programs take of the processor
 * falls on the others.
 */
export function fastest(rounds: number, round: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let count = 0; count < rounds; count++) {
    const began = performance.now();
    round();
    best = Math.min(best, performance.now() - began);
  }
  return best;
}
