/**
 * Calls functions of the embedding program: what they throw, or reject with, is reported to the program, and stops neither
 * packets nor a shutdown.
 */
import { messageOf } from '../base/text.ts';

/** Called with what a function of the program threw, and the name of the function. */
export type OwnerErrorHandler = (error: unknown, where: string) => void;

/** A function that does what `call` does and never throws. @param where what to call it: `onEvent` @param onError never throws: `errorHandler` gives one */
export function ownerCall<Words extends unknown[]>(
  where: string,
  call: (...words: Words) => unknown,
  onError: OwnerErrorHandler,
): (...words: Words) => void {
  const failed = (error: unknown): void => onError(error, where);
  return (...words) => {
    try {
      const result = call(...words);
      // An async function, where none is asked for.
      if (result instanceof Promise) result.catch(failed);
    } catch (error) {
      failed(error);
    }
  };
}

/** The program's handler, which never throws: what it throws, or rejects with, itself is a warning. */
export function errorHandler(onError: OwnerErrorHandler | undefined): OwnerErrorHandler {
  const warn = warner();
  return onError === undefined ? warn : ownerCall('onError', onError, warn);
}

/** Milliseconds. */
const PAUSE = 10_000;

/** A warning of the process, one in ten seconds: some functions are called for each packet. */
function warner(): OwnerErrorHandler {
  let quietUntil = Number.NEGATIVE_INFINITY;
  return (error, where) => {
    const now = performance.now();
    if (now < quietUntil) return;
    quietUntil = now + PAUSE;
    const what = error instanceof Error && error.stack !== undefined ? error.stack : messageOf(error);
    process.emitWarning(`${where} of the program threw, which changes nothing here: ${what}`, 'SectunnelWarning');
  };
}
