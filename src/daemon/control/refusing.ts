/** Refusals of the layers below, in the words of the control protocol. */
import { isBug } from '../../base/assert.ts';
import { SectunnelError } from '../../base/error.ts';
import { DocumentError } from '../../config/errors.ts';
import { explained } from '../../sys/descriptors.ts';
import { shortageOf } from '../../sys/shortage.ts';

/** Turns the refusal of a document into one of the control protocol. */
export function refusing<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof DocumentError)) throw error;
    throw ofDocument(error);
  }
}

function ofDocument({ kind, message }: DocumentError): SectunnelError {
  return new SectunnelError(kind === 'unsupported' ? 'unsupported' : 'bad-document', message);
}

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
  if (error instanceof DocumentError) return ofDocument(error);
  return isBug(error) && shortageOf(error) === undefined ? undefined : new SectunnelError('system', explained(error));
}
