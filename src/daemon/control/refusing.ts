/** Refusals of the layers below, in the words of the control protocol. */
import { isBug } from '../../base/assert.ts';
import { SectunnelError } from '../../base/error.ts';
import { explained } from '../../sys/descriptors.ts';
import { shortageOf } from '../../sys/shortage.ts';

/** What a device or socket refuses is the system's word, not a bug of ours. */
export async function refusingSystem<T>(attempt: () => Promise<T>): Promise<T> {
  try {
    return await attempt();
  } catch (error) {
    throw new SectunnelError('system', explained(error));
  }
}

/**
 * The refusal that an error is, which was thrown while a request was served or the daemon started: those of ours, and what the
 * system refuses. `undefined` for a bug.
 */
export function refusalOf(error: unknown): SectunnelError | undefined {
  if (error instanceof SectunnelError) return error;
  return isBug(error) && shortageOf(error) === undefined ? undefined : new SectunnelError('system', explained(error));
}
