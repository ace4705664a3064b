/** Refusals of the layers below, in the words of the control protocol. */
import { isBug } from '../../base/assert.ts';
import { SectunnelError } from '../../base/error.ts';
import type { Logger } from '../../base/log.ts';
import { messageOf } from '../../base/text.ts';
import type { ErrorObject } from '../../control/results.ts';
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

/** What a client is told of an error; a bug is logged. */
export function errorObject(error: unknown, log: Logger): ErrorObject {
  const refusal = refusalOf(error);
  if (refusal !== undefined) return { code: refusal.code, message: refusal.message };
  const message = messageOf(error);
  log.error({ error: error instanceof Error ? error.stack : message }, 'request failed');
  return { code: 'internal', message: `internal error: ${message}` };
}

/**
 * The refusal that an error is, which was thrown while a request was served or the daemon started: those of ours, and what the
 * system refuses. `undefined` for a bug.
 */
export function refusalOf(error: unknown): SectunnelError | undefined {
  if (error instanceof SectunnelError) return error;
  return isBug(error) && shortageOf(error) === undefined ? undefined : new SectunnelError('system', explained(error));
}
