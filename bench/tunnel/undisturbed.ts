/** A turn during which the host of this virtual machine gave its processors to others is taken again. */
import type { Sample } from './measures.ts';

/** Of the processor time that was wanted, in percent: with more, a turn tells of the neighbours rather than of the system. */
const DISTURBED = 10;
const ATTEMPTS = 3;

/**
 * The first turn that was not disturbed; when each of a few was, the least.
 * @param onDisturbed called before another one with the percentage that was taken in the last
 */
export async function leastDisturbed(
  turn: () => Promise<Sample>,
  onDisturbed: (stolen: number) => void,
): Promise<Sample> {
  const samples: Sample[] = [];
  for (;;) {
    const sample = await turn();
    samples.push(sample);
    // One that could not be set up is not tried again: it has been told of.
    const { stolen } = sample;
    if (stolen === undefined || stolen <= DISTURBED || samples.length === ATTEMPTS) break;
    onDisturbed(stolen);
  }
  return samples.reduce((least, sample) => ((sample.stolen ?? 100) < (least.stolen ?? 100) ? sample : least));
}
