/**
 * The policy for uncaught errors: an `error` event without a listener, a rejection, an exception in a callback.
 *
 * - A shortage (`shortageOf`): the operation that met it is lost. The daemon goes on, as all tunnels would be lost otherwise,
 *   and logs what to raise.
 * - Anything else is a bug: what the daemon knows may be wrong from then on. It writes the stack to the log and ends at
 *   once, without taking anything down: fences, rules and the tables that lead nowhere stay, so that nothing passes in the
 *   clear, and the daemon that the service manager starts next takes them over.
 */
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import { explained } from '../sys/descriptors.ts';
import { shortageOf } from '../sys/shortage.ts';

/** Of a process, as far as it is needed. */
interface Failing {
  /** Node passes unhandled rejections to it too. */
  on(event: 'uncaughtException', listener: (error: unknown, origin: string) => void): unknown;
}

/** @param end ends the process at once, with an exit code that says that it failed */
export function handleUncaught(log: Logger, source: Failing, end: () => void): void {
  source.on('uncaughtException', (error, origin) => {
    if (shortageOf(error) !== undefined) {
      log.error({ origin }, `an operation failed: ${explained(error)}`);
      return;
    }
    const stack = error instanceof Error ? error.stack : undefined;
    log.error({ origin, stack }, `bug: the daemon exits: ${messageOf(error)}. Fences and rules stay in place`);
    end();
  });
}
