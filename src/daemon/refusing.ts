/** Refusals of the layers below, in the words of the control protocol. */
import { messageOf } from '../base/text.ts';
import { DocumentError } from '../config/errors.ts';
import { ControlError } from './protocol.ts';

/** Turns the refusal of a document into one of the control protocol. */
export function refusing<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof DocumentError)) throw error;
    throw new ControlError(error.kind === 'unsupported' ? 'unsupported' : 'bad-document', error.message);
  }
}

/** What a device or socket refuses is the system's word, not a bug of ours. */
export async function refusingSystem<T>(attempt: () => Promise<T>): Promise<T> {
  try {
    return await attempt();
  } catch (error) {
    throw new ControlError('system', messageOf(error));
  }
}
